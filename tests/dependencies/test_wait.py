"""Calls that wait for futures: started once, or ended as what they waited for."""

from __future__ import annotations

import dataclasses
import threading
from concurrent.futures import Future as StandardFuture

import hypothesis.strategies as st
import pytest
from hypothesis import given

from callyard.dependencies.wait import DependencyFailure, RaisedException, failure_of, name_of, when_done
from callyard.errors import UnreadableCall
from callyard.futures import Future, item

CHAIN = 100_000


class Parcel:
    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.opened = 0

    def load(self) -> BaseException:
        self.opened += 1
        return self.error


def notes(future: Future) -> list[str]:
    return list(getattr(future.exception(), "__notes__", []))


def dependent(*sources: object, name: str = "energy") -> Future:
    """A call that ends at once when it may start."""
    call: Future = Future(name)
    when_done(sources, call, lambda: call.set_result("ran"))
    return call


# ------------------------------------------------------------------ starting


@given(st.permutations(range(5)), st.sets(st.integers(0, 4)))
def test_a_call_starts_once_when_all_are_done(order, foreign):
    sources = [StandardFuture() if i in foreign else Future() for i in range(5)]
    started: list[int] = []
    when_done(sources, Future(), lambda: started.append(1))
    for i in order:
        assert started == []
        sources[i].set_result(i)
    assert started == [1]


def test_what_is_done_already_counts():
    source: Future = Future()
    source.set_result(1)
    assert dependent(source).result() == "ran"


def test_sources_that_end_in_many_threads_start_it_once():
    for _ in range(50):
        sources: list[Future] = [Future() for _ in range(4)]
        started: list[int] = []
        when_done(sources, Future(), lambda started=started: started.append(1))
        ready = threading.Barrier(4)

        def end(source: Future, ready: threading.Barrier = ready) -> None:
            ready.wait(60)
            source.set_result(1)

        threads = [threading.Thread(target=end, args=(source,)) for source in sources]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert started == [1]


def test_a_start_that_raises_fails_its_call_and_no_other():
    source: Future = Future()
    call: Future = Future()

    def refuse() -> None:
        raise RuntimeError("cannot schedule new futures after shutdown")

    when_done([source], call, refuse)
    after = dependent(call)
    other = dependent(source)
    source.set_result(1)
    with pytest.raises(RuntimeError, match="after shutdown"):
        call.result(timeout=0)
    assert isinstance(after.exception(timeout=0), RuntimeError)
    assert other.result(timeout=0) == "ran"


# ------------------------------------------------------------------ failing


@pytest.mark.parametrize("make", [Future, StandardFuture])
def test_a_call_is_cancelled_with_what_it_waits_for(make):
    source = make()
    call = dependent(source, Future())
    source.cancel()
    assert call.cancelled()


def test_a_call_fails_with_the_same_exception_and_the_path_in_a_note():
    source: Future = Future("relax")
    call = dependent(source, Future())
    source.set_exception(ValueError("no"))
    with pytest.raises(ValueError, match="no"):
        call.result()
    assert notes(call) == ["callyard: energy <- relax"]
    assert notes(source) == []


def test_the_future_of_another_library_is_named_by_it():
    source: StandardFuture = StandardFuture()
    call = dependent(source)
    source.set_exception(ValueError())
    assert notes(call) == ["callyard: energy <- a future of concurrent"]


def test_the_first_failure_counts():
    first, second = Future("first"), Future("second")  # type: ignore[var-annotated]
    call = dependent(first, second)
    second.set_exception(KeyError())
    first.set_exception(ValueError())
    assert isinstance(call.exception(), KeyError)


def test_each_dependent_has_a_copy_of_the_exception():
    error = ValueError("no")
    error.unit = "eV"  # type: ignore[attr-defined]
    error.__notes__ = ["mine"]  # type: ignore[attr-defined]
    error.__cause__ = KeyError("cause")
    source: Future = Future("relax")
    first, second = dependent(source, name="first"), dependent(source, name="second")
    source.set_exception(error)
    assert notes(first) == ["mine", "callyard: first <- relax"]
    assert notes(second) == ["mine", "callyard: second <- relax"]
    assert error.__notes__ == ["mine"]  # type: ignore[attr-defined]
    for call in (first, second):
        copy = call.exception()
        assert copy is not error
        assert (copy.args, copy.unit, copy.__cause__) == (error.args, "eV", error.__cause__)
        assert copy.__suppress_context__


def test_what_is_packed_is_opened_by_each_that_asks_and_by_nobody_else():
    parcel = Parcel(ValueError())
    source: Future = Future()
    calls = [dependent(source) for _ in range(3)]
    source.fail(parcel)
    assert parcel.opened == 0
    assert isinstance(calls[0].exception(), ValueError)
    assert parcel.opened == 1


class Whole(Exception):
    """Cannot be copied: it wants more than its args."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Singleton(Exception):
    def __copy__(self) -> Singleton:
        return self


class Angry(Exception):
    def __reduce__(self):
        raise RuntimeError("not me")


@pytest.mark.parametrize("error", [Whole(1, "x"), Singleton("x"), Angry("x")], ids=lambda e: type(e).__name__)
def test_an_exception_that_cannot_be_copied_is_passed_on_itself(error):
    source: Future = Future("relax")
    call = dependent(source)
    source.set_exception(error)
    assert call.exception() is error
    assert notes(call) == ["callyard: energy <- relax"]
    assert notes(dependent(source, name="again")) == ["callyard: again <- relax"]


@dataclasses.dataclass(frozen=True)
class Rigid(Exception):
    code: int


def test_an_exception_whose_attributes_cannot_be_set():
    source: Future = Future("relax")
    call = dependent(source)
    source.set_exception(Rigid(3))
    assert isinstance(call.exception(), Rigid)
    assert notes(call) == ["callyard: energy <- relax"]


def test_a_failed_part_fails_what_waits_for_it():
    source: Future = Future("relax")
    call = dependent(item(source, "energy"))
    source.set_exception(ValueError())
    assert isinstance(call.exception(), ValueError)


def test_a_part_that_is_not_there_fails_what_waits_for_it():
    source: Future = Future("relax")
    call = dependent(item(source, "energy"))
    source.set_result({})
    assert isinstance(call.exception(), KeyError)


def test_how_a_future_failed():
    good, bad, packed = Future("good"), Future("bad"), Future("packed")  # type: ignore[var-annotated]
    good.set_result(1)
    bad.set_exception(ValueError())
    parcel = Parcel(KeyError())
    packed.fail(parcel)
    assert failure_of(good) is None
    assert isinstance(failure_of(bad), RaisedException)
    assert failure_of(packed) is parcel
    packed.exception()
    assert isinstance(failure_of(packed), RaisedException)
    assert name_of(good) == "good"


def test_a_result_that_cannot_be_opened_is_a_failure_once_somebody_has_tried():
    class Broken:
        def load(self) -> object:
            raise RuntimeError("boom")

    source: Future = Future()
    source.finish(Broken())
    assert failure_of(source) is None
    assert isinstance(source.exception(), UnreadableCall)
    assert isinstance(failure_of(source).load(), UnreadableCall)


# ------------------------------------------------------------------ long chains


def chain(source: Future, length: int = CHAIN) -> list[Future]:
    calls: list[Future] = []
    for i in range(length):
        call: Future = Future(f"step{i}")
        when_done([source], call, lambda call=call: call.set_result(1))
        calls.append(call)
        source = call
    return calls


def test_a_long_chain_runs_to_its_end():
    source: Future = Future()
    calls = chain(source)
    source.set_result(0)
    assert calls[-1].result(timeout=0) == 1


def test_a_long_chain_fails_to_its_end():
    source: Future = Future("first")
    calls = chain(source)
    source.set_exception(ValueError("no"))
    assert isinstance(calls[-1].exception(timeout=0), ValueError)
    [note] = notes(calls[-1])
    assert note.startswith(f"callyard: step{CHAIN - 1} <- step{CHAIN - 2} <- ")
    assert note.endswith("step1 <- step0 <- first")
    assert note.count("<-") == 12
    assert " <- ... <- " in note


def test_a_long_chain_is_cancelled_to_its_end():
    source: Future = Future()
    calls = chain(source)
    calls[0].cancel()
    assert all(call.cancelled() for call in calls)
    assert not source.done()


def test_a_long_chain_through_parts_fails_to_its_end():
    source: Future = Future("first")
    last = source
    for i in range(CHAIN // 10):
        call: Future = Future(f"step{i}")
        when_done([item(last, 0)], call, lambda call=call: call.set_result([1]))
        last = call
    source.set_exception(ValueError())
    assert isinstance(last.exception(timeout=0), ValueError)


def test_a_short_path_is_told_in_full():
    source: Future = Future("a")
    calls = chain(source, 3)
    source.set_exception(ValueError())
    assert notes(calls[-1]) == ["callyard: step2 <- step1 <- step0 <- a"]


def test_the_path_is_one_link_for_each_call():
    failure: DependencyFailure | Parcel = Parcel(ValueError())
    for i in range(3):
        failure = DependencyFailure(failure, f"f{i}", "source")
    assert isinstance(failure, DependencyFailure)
    assert isinstance(failure.failure, Parcel)
    assert failure.names() == ["f2", "f1", "f0", "source"]
