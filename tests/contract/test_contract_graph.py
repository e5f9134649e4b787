"""Calls that wait for futures: where they are found, what they become, how failure travels."""

from __future__ import annotations

import asyncio
import concurrent.futures as standard
import sys
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import contract_calls as calls
import pytest
from gate import Gate

import callyard
from callyard import Executor, batched, item, unzip

Make = Callable[..., Executor]
Some = Callable[[int], int]


class Point(NamedTuple):
    x: Any
    y: Any


def notes(error: BaseException | None) -> list[str]:
    return [note for note in getattr(error, "__notes__", []) if note.startswith("callyard: ")]


# ------------------------------------------------------------------ where futures are found


CONTAINERS: dict[str, Callable[[Any, Any], Any]] = {
    "list": lambda a, b: [a, [b]],
    "tuple": lambda a, b: (a, (b, 3)),
    "dict": lambda a, b: {"a": a, "b": {1: b}},
    "key": lambda a, b: {a: "a", "b": b},
    "named tuple": lambda a, b: Point(a, (b,)),
    "set": lambda a, b: {a, b},
    "frozenset": lambda a, b: frozenset((a, b)),
    "OrderedDict": lambda a, b: OrderedDict(one=a, two=b),
    "defaultdict": lambda a, b: defaultdict(list, one=a, two=b),
    "dataclass": lambda a, b: calls.Pair(a, [b]),
    "deep": lambda a, b: [{"x": (calls.Pair({a}, {"y": [b]}), 1)}, b, a],
    "the same one twice": lambda a, b: [a, a, b, a],
}


@pytest.mark.core
def test_futures_at_any_depth(ex: Executor) -> None:
    futures = ex.submit(calls.same, 1), ex.submit(calls.same, 2)
    results = {name: ex.submit(calls.both, put(*futures), b=put(*futures)) for name, put in CONTAINERS.items()}
    for name, put in CONTAINERS.items():
        expected = put(1, 2)
        assert results[name].result() == (expected, expected), name
        assert [type(found) for found in results[name].result()] == [type(expected)] * 2, name


def test_a_dataclass_is_not_made_again(ex: Executor) -> None:
    job = calls.Job("a", [ex.submit(abs, -2), 3])
    result = ex.submit(calls.same, job).result()
    assert result == calls.Job("a", [2, 3])
    assert result.made == 1
    assert isinstance(job.parts[0], standard.Future)  # the caller's own is as it was


def test_the_callers_containers_are_left_alone(ex: Executor) -> None:
    future = ex.submit(abs, -1)
    values = {"a": [future]}
    assert ex.submit(calls.same, values).result() == {"a": [1]}
    assert values == {"a": [future]}


def test_a_container_in_itself(ex: Executor) -> None:
    loop: list[Any] = [1]
    loop.append(loop)
    assert ex.submit(len, loop).result() == 2


def test_a_chain(ex: Executor, some: Some) -> None:
    future = ex.submit(abs, 0)
    for _ in range(some(50)):
        future = ex.submit(calls.successor, future)
    assert future.result() == some(50)


def test_a_diamond(ex: Executor, gate: Gate) -> None:
    top = ex.submit(gate.hold, 1)
    left, right = ex.submit(calls.add, top, 10), ex.submit(calls.add, top, 100)
    bottom = ex.submit(calls.add, left, right)
    assert not bottom.done()
    gate.open()
    assert bottom.result() == 112


def test_a_call_waits_without_a_worker(make: Make, gate: Gate) -> None:
    ex = make(1)
    first: standard.Future[int] = standard.Future()
    waiting = ex.submit(calls.successor, first)
    assert ex.submit(abs, -5).result() == 5  # there is room for others meanwhile
    first.set_result(1)
    assert waiting.result() == 2


@pytest.mark.feature("resources", "workers")  # others take their own time for each call
def test_twenty_thousand_dependent_calls(ex: Executor) -> None:
    layer = [ex.submit(abs, i) for i in range(20)]
    for _ in range(999):
        layer = [ex.submit(calls.add, layer[i - 1], 1) for i in range(20)]
    assert sorted(f.result() for f in layer) == [999 + i for i in range(20)]


@pytest.mark.feature("workers")
def test_a_call_that_waits_for_thousands(ex: Executor) -> None:
    futures = [ex.submit(calls.same, i) for i in range(2000)]
    assert ex.submit(sum, futures).result() == 1999 * 1000


# ------------------------------------------------------------------ futures from elsewhere


def test_a_plain_future(ex: Executor) -> None:
    plain: standard.Future[int] = standard.Future()
    result = ex.submit(calls.add, 1, [plain] and plain)
    plain.set_result(41)
    assert result.result() == 42


@pytest.mark.core
def test_a_future_of_another_executor(ex: Executor) -> None:
    with Executor(1) as other, standard.ThreadPoolExecutor(1) as threads:
        a, b = other.submit(abs, -1), threads.submit(abs, -2)
        assert ex.submit(calls.add, a, b).result() == 3
        assert other.submit(calls.add, ex.submit(abs, -3), b).result() == 5


class OtherFuture:
    """A future of some library that does not know the standard one."""

    def __init__(self) -> None:
        self._done = threading.Event()
        self._callbacks: list[Callable[[Any], object]] = []

    def set_result(self, value: Any) -> None:
        self._value = value
        self._done.set()
        for callback in self._callbacks:
            callback(self)

    def add_done_callback(self, fn: Callable[[Any], object]) -> None:
        self._callbacks.append(fn)

    def cancelled(self) -> bool:
        return False

    def done(self) -> bool:
        return self._done.is_set()

    def exception(self, timeout: float | None = None) -> None:
        self._done.wait(timeout)

    def result(self, timeout: float | None = None) -> Any:
        self._done.wait(timeout)
        return self._value


def test_a_future_of_another_library(ex: Executor) -> None:
    other = OtherFuture()
    result = ex.submit(calls.add, [1], other)
    other.set_result([2])
    assert result.result() == [1, 2]


def test_a_class_of_futures_is_no_future(ex: Executor) -> None:
    assert ex.submit(calls.same, standard.Future).result() is standard.Future


# ------------------------------------------------------------------ failure


@pytest.mark.core
def test_a_failure_travels_with_its_path(ex: Executor) -> None:
    first = ex.submit(calls.divide, 1, 0)
    second = ex.submit(calls.successor, first)
    third = ex.submit(calls.add, 1, [{"deep": second}])
    with pytest.raises(ZeroDivisionError, match="division by zero") as info:
        third.result()
    assert notes(info.value) == ["callyard: add <- successor <- divide"]
    assert notes(second.exception()) == ["callyard: successor <- divide"]
    assert notes(first.exception()) == []


def test_the_traceback_travels_too(ex: Executor) -> None:
    error = ex.submit(calls.successor, ex.submit(calls.divide, 1, 0)).exception()
    text = str(error.__cause__) if error and error.__cause__ else "".join(_frames(error))
    assert "divide" in text


def _frames(error: BaseException | None) -> Iterator[str]:
    trace = error.__traceback__ if error else None
    while trace is not None:
        yield trace.tb_frame.f_code.co_name
        trace = trace.tb_next


def test_notes_of_the_users_own_stay(ex: Executor) -> None:
    failed: standard.Future[int] = standard.Future()
    error = ValueError("plain")
    error.__notes__ = ["the user's"]  # type: ignore[attr-defined]  # until Python 3.10 an attribute as any other
    failed.set_exception(error)
    inherited = ex.submit(calls.successor, failed).exception()
    assert isinstance(inherited, ValueError)
    assert inherited.__notes__ == ["the user's", "callyard: successor <- a future of concurrent"]  # type: ignore[attr-defined]
    assert error.__notes__ == ["the user's"]  # type: ignore[attr-defined]


def test_every_dependent_has_its_own_path(ex: Executor) -> None:
    failed = ex.submit(calls.divide, 1, 0)
    a, b = ex.submit(calls.successor, failed), ex.submit(calls.same, failed)
    assert notes(a.exception()) == ["callyard: successor <- divide"]
    assert notes(b.exception()) == ["callyard: same <- divide"]


@pytest.mark.core
def test_the_path_goes_on_after_somebody_has_asked(ex: Executor) -> None:
    second = ex.submit(calls.successor, ex.submit(calls.divide, 1, 0))
    assert notes(second.exception()) == ["callyard: successor <- divide"]
    third = ex.submit(calls.same, second)
    assert notes(third.exception()) == ["callyard: same <- successor <- divide"]
    assert notes(second.exception()) == ["callyard: successor <- divide"]


@pytest.mark.feature("workers")
def test_a_long_path_is_cut(ex: Executor) -> None:
    future = ex.submit(calls.divide, 1, 0)
    for _ in range(3000):
        future = ex.submit(calls.successor, future)
    (note,) = notes(future.exception())
    assert note.startswith("callyard: successor <- successor")
    assert "..." in note
    assert note.endswith("divide")
    assert len(note) < 300


@pytest.mark.smoke
def test_a_failure_does_not_wait_for_the_others(ex: Executor, gate: Gate) -> None:
    slow, failing = ex.submit(gate.hold), ex.submit(calls.divide, 1, 0)
    with pytest.raises(ZeroDivisionError):
        ex.submit(calls.add, slow, failing).result()
    assert not slow.done()


@pytest.mark.smoke
def test_cancellation_travels(make: Make, gate: Gate) -> None:
    ex = make(1)
    ex.submit(gate.hold)
    gate.arrived()
    first = ex.submit(abs, 1)
    second = ex.submit(calls.successor, first)
    third = ex.submit(calls.same, [second])
    assert first.cancel()
    assert second.cancelled()
    assert third.cancelled()


@pytest.mark.core
def test_cancelling_a_waiting_call_leaves_the_others(ex: Executor, gate: Gate) -> None:
    first = ex.submit(gate.hold, 1)
    second, third = ex.submit(calls.successor, first), ex.submit(calls.same, first)
    assert second.cancel()
    gate.open()
    assert third.result() == 1


@pytest.mark.core
def test_a_chain_of_thousands_is_cancelled(ex: Executor) -> None:
    first: standard.Future[int] = standard.Future()
    last: Any = first
    for _ in range(5000):
        last = ex.submit(calls.successor, last)
    first.cancel()
    assert last.cancelled()


@pytest.mark.feature("workers")
def test_thousands_that_wait_their_turn_are_cancelled(make: Make, gate: Gate) -> None:
    ex = make(1)
    first = ex.submit(gate.hold)
    gate.arrived()
    rest = [ex.submit(abs, i) for i in range(5000)]
    assert all(future.cancel() for future in rest)
    gate.open()
    first.result()
    assert ex.submit(abs, -1).result() == 1


# ------------------------------------------------------------------ item, unzip, batched


@pytest.mark.core
def test_items_and_parts(ex: Executor) -> None:
    pair, table = ex.submit(divmod, 17, 5), ex.submit(dict, a=1, b=[2])
    a, b = unzip(pair, 2)
    total = ex.submit(calls.add, a, [b] and b, item(table, "a"))
    deep = ex.submit(calls.same, {"deep": [item(pair, -1)]})
    assert (a.result(), b.result()) == (3, 2)
    assert item(table, "b").result() == [2]
    assert item(item(table, "b"), 0).result() == 2
    assert total.result() == 6
    assert deep.result() == {"deep": [2]}
    assert ex.submit(calls.add, a, item(table, "a")).result() == 4  # of what has ended


def test_items_before_the_result(ex: Executor, gate: Gate) -> None:
    whole = ex.submit(gate.hold, (1, 2))
    a, b = unzip(whole, 2)
    total = ex.submit(calls.add, a, b)
    assert not a.done()
    gate.open()
    assert total.result() == 3


def test_items_that_are_not_there(ex: Executor) -> None:
    table, pair = ex.submit(dict, a=1), ex.submit(divmod, 1, 1)
    with pytest.raises(KeyError, match="'b'"):
        item(table, "b").result()
    with pytest.raises(IndexError):
        item(pair, 2).result()
    with pytest.raises(ValueError, match="expected 3 values, the result has 2"):
        unzip(pair, 3)[0].result()
    with pytest.raises(TypeError):
        unzip(ex.submit(abs, 1), 2)[0].result()


def test_items_that_are_not_there_as_arguments(ex: Executor) -> None:
    error = ex.submit(calls.successor, item(ex.submit(dict, a=1), "b")).exception()
    assert isinstance(error, KeyError)
    assert notes(error) == ["callyard: successor <- dict['b']"]


def test_items_of_a_failed_call(ex: Executor) -> None:
    failed = ex.submit(calls.divide, 1, 0)
    for part in (*unzip(failed, 2), item(failed, "x"), ex.submit(abs, item(failed, 0))):
        assert isinstance(part.exception(), ZeroDivisionError)


def test_items_of_a_cancelled_call(ex: Executor) -> None:
    plain: standard.Future[Any] = standard.Future()
    parts = [*unzip(plain, 2), ex.submit(abs, item(plain, 0))]
    plain.cancel()
    assert all(part.cancelled() for part in parts)


def test_cancelling_an_item_leaves_the_call(ex: Executor, gate: Gate) -> None:
    whole = ex.submit(gate.hold, (1, 2))
    first, second = unzip(whole, 2)
    assert first.cancel()
    gate.open()
    assert second.result() == 2
    assert first.cancelled()


def test_batches_in_the_order_of_the_ends(make: Make) -> None:
    ex = make()
    sources: list[standard.Future[int]] = [standard.Future() for _ in range(5)]
    batches = ex.batched(sources, 2)
    sums = [ex.submit(sum, batch) for batch in batches]
    for i in (4, 2, 0, 1, 3):
        sources[i].set_result(i)
    assert [batch.result() for batch in batches] == [(4, 2), (0, 1), (3,)]
    assert [total.result() for total in sums] == [6, 1, 3]
    assert batched([], 3) == []


def test_a_batch_fails_with_its_member(ex: Executor) -> None:
    first, second = batched([ex.submit(calls.divide, 1, 0)], 1), batched([ex.submit(abs, -1)], 1)
    assert isinstance(ex.submit(sum, first[0]).exception(), ZeroDivisionError)
    assert second[0].result() == (1,)


@pytest.mark.parametrize("n", [0, -1])
def test_batches_of_nothing(n: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        batched([], n)


def test_no_futures(ex: Executor) -> None:
    for make_parts in (lambda: item(3, 0), lambda: unzip([1, 2], 2), lambda: batched([3], 1)):  # type: ignore[arg-type, list-item]
        with pytest.raises(TypeError, match="future"):
            make_parts()
    with pytest.raises(ValueError, match="at least 0"):
        unzip(ex.submit(abs, 1), -1)


# ------------------------------------------------------------------ what a call raises


def test_the_error_itself(ex: Executor) -> None:
    with pytest.raises(ZeroDivisionError, match="division by zero") as info:
        ex.submit(calls.divide, 1, 0).result()
    assert type(info.value) is ZeroDivisionError


@pytest.mark.feature("processes")
def test_the_remote_traceback_is_the_cause(ex: Executor) -> None:
    cause = ex.submit(calls.raise_stateful).exception().__cause__  # type: ignore[union-attr]
    assert "in raise_stateful" in str(cause)
    assert "raise error\n" in str(cause)


@pytest.mark.core
def test_an_error_with_state(ex: Executor) -> None:
    error = ex.submit(calls.raise_stateful).exception()
    assert isinstance(error, calls.StatefulError)
    assert error.temperature == 300  # type: ignore[attr-defined]


def test_an_error_that_is_returned(ex: Executor) -> None:
    error = ex.submit(calls.same, ValueError("not raised")).result()
    assert isinstance(error, ValueError)


def test_an_error_does_not_harm_other_calls(ex: Executor, some: Some) -> None:
    futures = [ex.submit(calls.divide, i, i % 2) for i in range(some(50))]
    assert [f.exception() is None for f in futures] == [i % 2 == 1 for i in range(some(50))]


@pytest.mark.feature("workers")
def test_system_exit_ends_no_worker(make: Make) -> None:
    ex = make(1)
    with pytest.raises(SystemExit) as info:
        ex.submit(calls.leave, 3).result()
    assert info.value.code == 3
    assert ex.submit(abs, -1).result() == 1


def test_other_base_exceptions(ex: Executor) -> None:
    with pytest.raises(calls.Abort, match="no further"):
        ex.submit(calls.raise_abort).result()
    assert ex.submit(abs, -1).result() == 1


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups came with Python 3.11")
@pytest.mark.feature("any function")
def test_an_exception_group(ex: Executor) -> None:
    error = ex.submit(calls.raise_group).exception()
    assert isinstance(error, ExceptionGroup)  # noqa: F821
    assert [type(e) for e in error.exceptions] == [ValueError, calls.OddError]
    assert error.exceptions[1].place == "inside"


@pytest.mark.feature("explains")
def test_errors_with_odd_constructors(ex: Executor) -> None:
    raised = (calls.raise_odd, calls.raise_keyword, calls.raise_other_arguments, calls.raise_leaving)
    odd, keyword, other, leaving = [future.exception() for future in [ex.submit(fn) for fn in raised]]
    assert isinstance(odd, calls.OddError)
    assert (str(odd), odd.code, odd.place) == ("error 7 at the mill", 7, "the mill")
    assert isinstance(keyword, calls.KeywordError)
    assert keyword.code == 3
    assert isinstance(other, calls.OtherArguments)
    assert (str(other), other.place) == ("code 4", "here")  # its constructor would say "code code 4"
    assert isinstance(leaving, calls.Leaving)
    assert (leaving.code, leaving.reason) == (5, "tired")


@pytest.mark.feature("explains")
def test_the_chain_is_in_the_remote_traceback(ex: Executor) -> None:
    error = ex.submit(calls.raise_chained).exception()
    assert isinstance(error, RuntimeError)
    assert "KeyError: 'missing'" in str(error.__cause__)
    assert "direct cause" in str(error.__cause__)


@pytest.mark.feature("explains")
def test_an_error_with_an_attribute_that_cannot_be_pickled_keeps_its_class(ex: Executor) -> None:
    with pytest.raises(calls.HoldsLock, match="held by nobody") as info:
        ex.submit(calls.raise_lock).result()
    assert info.value.args == ("held by nobody",)
    assert not hasattr(info.value, "lock")
    assert "lock" in info.value.__notes__[-1]
    assert "in raise_lock" in str(info.value.__cause__)
    assert ex.submit(abs, -1).result() == 1


# ------------------------------------------------------------------ what cannot be sent


@pytest.mark.core
@pytest.mark.feature("processes", "runs again")
def test_what_cannot_be_pickled_fails_its_call_alone(ex: Executor) -> None:
    for future in (ex.submit(calls.same, calls.Unpicklable()), ex.submit(calls.Unpicklable)):
        with pytest.raises((TypeError, callyard.UnpicklableCall), match="Unpicklable"):
            future.result()
    assert ex.submit(abs, -1).result() == 1


@pytest.mark.core
@pytest.mark.feature("explains", "runs again")
def test_the_part_that_cannot_be_pickled_is_named(ex: Executor) -> None:
    bad, lock = calls.Unpicklable(), threading.Lock()
    cases = {
        "argument 2 of 'described', of type Unpicklable": ex.submit(calls.described, 1, bad),
        "argument 'deep' of 'described', of type list": ex.submit(calls.described, 1, deep=[{"a": bad}]),
        "the function of '<lambda>'": ex.submit(lambda: lock),
        "the result of 'Unpicklable', of type Unpicklable": ex.submit(calls.Unpicklable),
        "argument 1 of 'described', of type Executor": ex.submit(calls.described, ex),
    }
    for text, future in cases.items():
        error = future.exception()
        assert isinstance(error, callyard.UnpicklableCall)
        assert text in str(error)
        assert "\n" not in str(error)


@pytest.mark.feature("explains", "runs again")
def test_what_to_pass_in_its_place(ex: Executor) -> None:
    async def wait() -> None: ...

    async def submitted() -> standard.Future[Any]:
        return ex.submit(calls.described, 1, deep=[asyncio.get_running_loop().create_future()])

    coroutine = wait()
    cases = {
        "; await it, and pass the result": asyncio.run(submitted()),
        "or run it inside the call with asyncio.run": ex.submit(calls.same, coroutine),
        "; pass list(...) of it": ex.submit(calls.same, (i for i in range(3))),
    }
    coroutine.close()
    for text, future in cases.items():
        assert str(future.exception()).endswith(text)


@pytest.mark.feature("explains")
def test_what_cannot_be_read(ex: Executor) -> None:
    argument, result = ex.submit(calls.process_id, calls.Unreadable()), ex.submit(calls.Unreadable)
    with pytest.raises(callyard.UnpicklableCall, match=r"arguments cannot be opened.*an Unreadable cannot be read"):
        argument.result()
    with pytest.raises(callyard.UnpicklableCall, match=r"the result of 'Unreadable'.*cannot be read"):
        result.result()
    assert ex.submit(abs, -1).result() == 1


@pytest.mark.core
@pytest.mark.feature("explains")
def test_a_result_that_cannot_be_sent_on(ex: Executor) -> None:
    plain: standard.Future[Any] = standard.Future()
    waiting = ex.submit(calls.same, plain)
    plain.set_result(calls.Unpicklable())
    with pytest.raises((callyard.UnpicklableCall, callyard.CacheError), match=r"'same'.*Unpicklable stays"):
        waiting.result()


@pytest.mark.feature("explains")
def test_what_an_async_function_or_a_generator_gives(ex: Executor) -> None:
    async def wait() -> None: ...

    def generate() -> Iterator[int]:
        yield 1

    waiting, generating = ex.submit(wait), ex.submit(generate)
    with pytest.raises(callyard.UnpicklableCall, match=r"asyncio.run"):
        waiting.result()
    with pytest.raises(callyard.UnpicklableCall, match=r"generator.*list"):
        generating.result()
