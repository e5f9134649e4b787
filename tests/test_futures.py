"""Futures: that they are those of the standard library, and what they can do besides."""

from __future__ import annotations

import asyncio
import collections.abc
import concurrent.futures as standard
import gc
import logging
import pickle
import sys
import threading
import weakref
from concurrent.futures import CancelledError, InvalidStateError

import hypothesis.strategies as st
import pytest
from hypothesis import given

from callyard import futures
from callyard.errors import UnreadableCall
from callyard.futures import Future, batched, item, unzip


class Parcel:
    """Something packed; counts how often it is opened."""

    def __init__(self, content: object, fails: bool = False) -> None:
        self.content, self.fails, self.opened = content, fails, 0

    def load(self) -> object:
        self.opened += 1
        if self.fails:
            raise self.content  # type: ignore[misc]
        return self.content


class Thing:
    """Something that can be referred to weakly."""


def done(value: object) -> Future:
    future: Future = Future()
    future.set_result(value)
    return future


def failed(error: BaseException) -> Future:
    future: Future = Future()
    future.set_exception(error)
    return future


def cancelled() -> Future:
    future: Future = Future()
    future.cancel()
    return future


# ------------------------------------------------------------------ states


def test_it_is_a_future_of_the_standard_library():
    assert isinstance(Future(), standard.Future)


def test_the_states_of_a_call_that_succeeds():
    future: Future = Future()
    assert (future.running(), future.done(), future.cancelled()) == (False, False, False)
    assert future.set_running_or_notify_cancel()
    assert (future.running(), future.done(), future.cancelled()) == (True, False, False)
    future.set_result(5)
    assert (future.running(), future.done(), future.cancelled()) == (False, True, False)
    assert future.result() == 5
    assert future.exception() is None


def test_the_states_of_a_call_that_fails():
    error = ValueError("no")
    future = failed(error)
    assert future.done()
    assert future.exception() is error
    with pytest.raises(ValueError, match="no") as caught:
        future.result()
    assert caught.value is error


def test_the_states_of_a_call_that_is_cancelled():
    future = cancelled()
    assert (future.running(), future.done(), future.cancelled()) == (False, True, True)
    assert future.cancel()
    assert not future.set_running_or_notify_cancel()
    for ask in (future.result, future.exception):
        with pytest.raises(CancelledError):
            ask()


def test_a_running_call_cannot_be_cancelled():
    future: Future = Future()
    future.set_running_or_notify_cancel()
    assert not future.cancel()
    assert future.running()


def test_a_call_that_runs_again_can_be_cancelled():
    future: Future = Future()
    future.set_running_or_notify_cancel()
    future.again()
    assert not future.running()
    assert future.cancel()


@pytest.mark.parametrize("future", [done(1), failed(ValueError()), cancelled()], ids=["done", "failed", "cancelled"])
def test_what_has_ended_stays_as_it_is(future):
    before = repr(future)
    with pytest.raises(InvalidStateError):
        future.set_result(2)
    with pytest.raises(InvalidStateError):
        future.set_exception(KeyError())
    assert not future.finish(Parcel(1))
    assert not future.fail(Parcel(KeyError()))
    assert not future.fail_with(KeyError())
    future.again()
    assert future.cancel() is future.cancelled()
    assert repr(future) == before


def test_a_call_starts_only_once():
    future: Future = Future()
    future.set_running_or_notify_cancel()
    with pytest.raises(InvalidStateError):
        future.set_running_or_notify_cancel()


def test_cancelling_tells_the_executor_once():
    told: list[int] = []
    future: Future = Future("f", on_cancel=lambda: told.append(1))
    future.cancel()
    future.cancel()
    assert told == [1]


@pytest.mark.parametrize("ask", ["result", "exception"])
def test_waiting_ends_at_the_timeout(ask):
    with pytest.raises(standard.TimeoutError):
        getattr(Future(), ask)(timeout=0)
    with pytest.raises(standard.TimeoutError, match=r"^'relax' has not ended after 0.001 s$"):
        getattr(Future("relax"), ask)(timeout=0.001)


def test_without_a_cache_or_a_scheduler_there_is_nothing_to_tell():
    assert (Future().key, Future().cached, Future().job_id) == (None, None, None)
    with pytest.raises(AttributeError):
        Future().key = "x"


@pytest.mark.parametrize(
    "take",
    [lambda f: f["a"], lambda f: f[0], list, lambda f: 3 in f, lambda f: print(*f)],
    ids=["key", "index", "list", "in", "star"],
)
def test_it_is_not_its_result(take):
    with pytest.raises(
        TypeError, match=r"'relax' is not its result: callyard.item\(future, .*callyard.unzip\(future, n"
    ):
        take(Future("relax"))


def test_it_does_not_look_like_a_collection():
    assert not isinstance(Future(), collections.abc.Iterable)
    assert not isinstance(Future(), collections.abc.Sized)


def test_it_cannot_be_pickled():
    with pytest.raises(TypeError, match="stands for its result"):
        pickle.dumps(Future())


def test_the_repr_tells_the_state():
    future: Future = Future("relax")
    assert repr(future) == f"<Future at {id(future):#x} 'relax' state=pending>"
    future.set_running_or_notify_cancel()
    assert repr(future).endswith("'relax' state=running>")
    future.finish(Parcel(5))
    assert repr(future).endswith("'relax' state=finished>")  # does not open it
    future.result()
    assert repr(future).endswith("state=finished returned int>")
    assert repr(cancelled()).endswith("state=cancelled>")
    assert repr(failed(KeyError())).endswith("state=finished raised KeyError>")
    packed: Future = Future()
    packed.fail(Parcel(KeyError()))
    assert repr(packed).endswith("state=finished raised>")
    packed.exception()
    assert repr(packed).endswith("state=finished raised KeyError>")


# ------------------------------------------------------------------ callbacks


@pytest.mark.parametrize(
    "end",
    [
        lambda f: f.set_result(1),
        lambda f: f.set_exception(ValueError()),
        lambda f: f.cancel(),
        lambda f: f.finish(Parcel(1)),
        lambda f: f.fail(Parcel(ValueError())),
    ],
    ids=["result", "exception", "cancel", "packed", "packed error"],
)
def test_callbacks_run_once_in_their_order_with_the_future(end):
    future: Future = Future()
    seen: list[tuple[int, Future, bool]] = []
    for i in range(3):
        future.add_done_callback(lambda f, i=i: seen.append((i, f, f.done())))
    end(future)
    assert seen == [(0, future, True), (1, future, True), (2, future, True)]
    future.add_done_callback(lambda f: seen.append((3, f, f.done())))
    assert seen[3] == (3, future, True)


def test_a_callback_that_raises_is_logged_and_the_others_run(caplog):
    future: Future = Future()
    seen: list[Future] = []
    future.add_done_callback(lambda f: 1 / 0)
    future.add_done_callback(seen.append)
    with caplog.at_level(logging.ERROR, logger="concurrent.futures"):
        future.set_result(1)
        future.add_done_callback(lambda f: 1 / 0)
    assert seen == [future]
    assert [record.exc_info[0] for record in caplog.records] == [ZeroDivisionError] * 2


def test_a_callback_added_by_a_callback_runs():
    future: Future = Future()
    seen: list[Future] = []
    future.add_done_callback(lambda f: f.add_done_callback(seen.append))
    future.set_result(1)
    assert seen == [future]


# ------------------------------------------------------------------ with the standard library


def test_wait_takes_ours_and_others_together():
    ours: list[Future] = [Future(), done(1), cancelled(), failed(ValueError())]
    others = [standard.Future() for _ in range(2)]
    others[0].set_result(1)
    ended, open_ = standard.wait([*ours, *others], timeout=0)
    assert ended == {*ours[1:], others[0]}
    assert open_ == {ours[0], others[1]}


@pytest.mark.parametrize("when", [standard.FIRST_COMPLETED, standard.FIRST_EXCEPTION, standard.ALL_COMPLETED])
@pytest.mark.parametrize("end", ["fail", "fail_with", "set_exception"])
def test_wait_returns_when_one_fails(when, end):
    future: Future = Future()
    error = ValueError()
    thread = threading.Thread(target=getattr(future, end), args=(Parcel(error) if end == "fail" else error,))
    thread.start()
    ended, open_ = standard.wait([future], return_when=when, timeout=60)
    thread.join()
    assert (ended, open_) == ({future}, set())


def test_wait_for_the_first_exception_does_not_stop_at_a_result():
    first, second, never = Future(), Future(), Future()  # type: ignore[var-annotated]

    def end() -> None:
        first.finish(Parcel(1))
        second.fail(Parcel(ValueError()))

    thread = threading.Thread(target=end)
    thread.start()
    ended, _ = standard.wait([first, second, never], return_when=standard.FIRST_EXCEPTION, timeout=60)
    thread.join()
    assert ended == {first, second}


def test_as_completed_takes_ours_and_others_together():
    ours: Future = Future()
    other: standard.Future = standard.Future()
    stream = standard.as_completed([ours, other, done(0)], timeout=60)
    assert next(stream).result() == 0
    other.set_result(1)
    assert next(stream) is other
    ours.finish(Parcel(2))
    assert next(stream) is ours


def test_as_completed_yields_what_is_cancelled():
    future: Future = Future()
    stream = standard.as_completed([future, done(0)], timeout=60)
    next(stream)
    future.cancel()
    assert next(stream) is future


def test_asyncio_can_wait_for_it():
    good, lazy, bad, lost = Future(), Future(), Future(), Future()  # type: ignore[var-annotated]

    async def main() -> list[object]:
        wrapped = [asyncio.wrap_future(future) for future in (good, lazy, bad, lost)]
        good.set_result(1)
        lazy.finish(Parcel(2))
        bad.fail(Parcel(KeyError("k")))
        lost.cancel()
        return await asyncio.gather(*wrapped, return_exceptions=True)

    one, two, error, cancellation = asyncio.run(main())
    assert (one, two) == (1, 2)
    assert isinstance(error, KeyError)
    assert isinstance(cancellation, asyncio.CancelledError)


def test_asyncio_can_cancel_it():
    future: Future = Future()

    async def main() -> None:
        wrapped = asyncio.wrap_future(future)
        wrapped.cancel()
        await asyncio.sleep(0)

    asyncio.run(main())
    assert future.cancelled()


def test_it_can_be_awaited():
    good, lazy, bad, lost = Future(), Future(), Future(), Future()  # type: ignore[var-annotated]

    async def result_of(future: Future) -> object:
        return await future

    async def main() -> list[object]:
        tasks = [asyncio.create_task(result_of(future)) for future in (good, lazy, bad, lost, done(4))]
        await asyncio.sleep(0)
        good.set_result(1)
        lazy.finish(Parcel(2))
        bad.fail(Parcel(KeyError("k")))
        lost.cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    one, two, error, cancellation, four = asyncio.run(main())
    assert (one, two, four) == (1, 2, 4)
    assert isinstance(error, KeyError)
    assert isinstance(cancellation, asyncio.CancelledError)


def test_who_is_cancelled_while_awaiting_it_cancels_it():
    waiting, running = Future(), Future()  # type: ignore[var-annotated]
    running.set_running_or_notify_cancel()

    async def await_it(future: Future) -> None:
        await future

    async def main() -> None:
        tasks = [asyncio.create_task(await_it(future)) for future in (waiting, running)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    asyncio.run(main())
    assert waiting.cancelled()
    assert not running.done()


def test_it_is_awaited_in_a_loop_that_runs():
    with pytest.raises(RuntimeError, match="no running event loop"):
        Future().__await__()


@pytest.mark.skipif(sys.version_info < (3, 15), reason="asyncio reads the state so from Python 3.15 on")
def test_a_snapshot_is_of_what_was_packed():
    future: Future = Future()
    future.finish(Parcel(3))
    assert future._get_snapshot() == (True, False, 3, None)


# ------------------------------------------------------------------ what is opened late


def test_a_result_is_opened_once_when_it_is_asked_for():
    parcel = Parcel(Thing())
    future: Future = Future()
    future.finish(parcel)
    assert future.done()
    assert not future.failed()
    assert parcel.opened == 0
    assert future.result() is future.result() is parcel.content
    assert parcel.opened == 1


def test_an_error_is_opened_once_when_it_is_asked_for():
    parcel = Parcel(KeyError())
    future: Future = Future()
    future.fail(parcel)
    assert future.failed()
    assert future.packed_failure() is parcel
    assert parcel.opened == 0
    assert future.exception() is future.exception() is parcel.content
    assert parcel.opened == 1
    assert future.packed_failure() is None


@pytest.mark.parametrize("how", ["finish", "fail"])
@pytest.mark.parametrize("failure", [RuntimeError("boom"), SystemExit("boom")], ids=["exception", "exit"])
def test_what_cannot_be_opened_is_an_error_with_its_cause(how, failure):
    future: Future = Future("relax")
    getattr(future, how)(Parcel(failure, fails=True))
    with pytest.raises(UnreadableCall, match="'relax' cannot be opened here: boom") as caught:
        future.result()
    assert caught.value.__cause__ is failure
    assert future.exception() is caught.value


def test_ctrl_c_while_it_is_opened_leaves_it_packed():
    parcel = Parcel(KeyboardInterrupt(), fails=True)
    future: Future = Future()
    future.finish(parcel)
    with pytest.raises(KeyboardInterrupt):
        future.result()
    parcel.content, parcel.fails = 7, False
    assert future.result() == 7


def test_two_threads_that_open_it_get_the_same_object():
    both_there = threading.Barrier(2)

    class Slow:
        def load(self) -> object:
            both_there.wait(60)
            return Thing()

    future: Future = Future()
    future.finish(Slow())
    got: list[object] = []
    threads = [threading.Thread(target=lambda: got.append(future.result())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got[0] is got[1] is future.result()


# ------------------------------------------------------------------ threads that end futures


@pytest.fixture
def on_cancel(monkeypatch):
    """This thread ends the futures that were made with it."""
    monkeypatch.setattr(futures, "_this_thread", threading.local())

    def on_cancel() -> None: ...

    futures.ends_futures(on_cancel)
    return on_cancel


ENDLESS = "'relax' cannot end before this callback has returned: a callback must not wait for another future; submit a"


def test_a_thread_does_not_wait_for_what_only_it_can_end(on_cancel):
    own = Future("relax", on_cancel)
    waits = [
        own.result,
        own.exception,
        lambda: standard.wait([own]),
        lambda: standard.wait([own, done(1), Future("relax", on_cancel)]),
        lambda: standard.wait([own, Future()]),
        lambda: standard.wait([own, done(1)], return_when=standard.FIRST_EXCEPTION),
        lambda: list(standard.as_completed([done(1), own])),
    ]
    for wait in waits:
        with pytest.raises(RuntimeError, match=ENDLESS):
            wait()
    own.set_result(3)
    assert own.result() == 3
    assert standard.wait([own]).done == {own}


def test_a_thread_may_wait_for_what_others_end_or_for_some_time(on_cancel):
    own, other = Future("relax", on_cancel), Future("energy")
    with pytest.raises(standard.TimeoutError):
        own.result(timeout=0.001)
    assert standard.wait([own], timeout=0).not_done == {own}
    assert standard.wait([own], timeout=0.001).not_done == {own}
    thread = threading.Thread(target=other.set_result, args=(1,))
    thread.start()
    assert standard.wait([own, other], return_when=standard.FIRST_COMPLETED).done == {other}
    thread.join()


def test_a_part_ends_where_the_whole_does(on_cancel):
    own = Future("relax", on_cancel)
    parts = [item(own, 0), *unzip(own, 1), item(item(own, 0), 0), *batched([done(1), own], 2)]
    assert [part.ends_here() for part in parts] == [True] * 4
    assert not item(Future(), 0).ends_here()
    assert not batched([own, Future()], 2)[0].ends_here()
    assert not batched([standard.Future(), own], 2)[0].ends_here()
    own.set_result([[5]])
    assert parts[0].result() == [5]


# ------------------------------------------------------------------ nothing is kept alive


@pytest.fixture
def no_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
def test_a_callback_is_not_kept_after_it_ran():
    future: Future = Future()
    thing = Thing()
    future.add_done_callback(lambda f, thing=thing: None)
    alive = weakref.ref(thing)
    del thing
    future.set_result(1)
    assert alive() is None


@pytest.mark.usefixtures("no_collector")
def test_what_was_packed_is_not_kept_after_it_was_opened():
    future: Future = Future()
    parcel = Parcel(1)
    future.finish(parcel)
    alive = weakref.ref(parcel)
    del parcel
    future.result()
    assert alive() is None


@pytest.mark.usefixtures("no_collector")
def test_cancelling_lets_go_of_the_executor():
    thing = Thing()
    future: Future = Future("f", on_cancel=lambda thing=thing: None)
    alive = weakref.ref(thing)
    del thing
    future.cancel()
    assert alive() is None


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("make", [lambda: failed(ValueError()), cancelled, Future], ids=["failed", "cancelled", "open"])
def test_an_error_that_was_raised_does_not_keep_the_future(make):
    future = make()
    alive = weakref.ref(future)
    with pytest.raises((ValueError, CancelledError, standard.TimeoutError)) as caught:
        future.result(timeout=0)
    del future
    assert caught.value is not None
    assert alive() is None


# ------------------------------------------------------------------ races


def race(*actions) -> None:
    """Run the actions in threads that begin at the same moment."""
    ready = threading.Barrier(len(actions))

    def run(action) -> None:
        ready.wait(60)
        action()

    threads = [threading.Thread(target=run, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.fixture
def eager_switching():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("eager_switching")
def test_of_many_ends_one_wins_and_callbacks_run_once():
    for _ in range(100):
        future: Future = Future()
        seen: list[Future] = []
        won: list[object] = []
        future.add_done_callback(seen.append)
        race(
            lambda f=future, w=won: w.append(f.finish(Parcel(1))),
            lambda f=future, w=won: w.append(f.fail_with(ValueError())),
            lambda f=future, w=won: w.append(f.cancel() and f.cancelled()),
            lambda f=future, s=seen: f.add_done_callback(s.append),
        )
        assert won.count(True) == 1
        assert seen == [future, future]


@pytest.mark.usefixtures("eager_switching")
def test_whoever_waits_hears_of_the_end_whenever_it_comes():
    for _ in range(100):
        future: Future = Future()
        got: list[object] = []
        race(
            lambda f=future: f.finish(Parcel(1)),
            lambda f=future, g=got: g.append(f.result(timeout=60)),
            lambda f=future, g=got: g.append(len(standard.wait([f], timeout=60).done)),
            lambda f=future, g=got: g.extend(x.result() for x in standard.as_completed([f], timeout=60)),
        )
        assert got == [1, 1, 1]


@pytest.mark.usefixtures("eager_switching")
def test_a_call_is_cancelled_or_runs_but_not_both():
    for _ in range(100):
        future: Future = Future()
        outcome: dict[str, bool] = {}
        race(
            lambda f=future, o=outcome: o.update(runs=f.set_running_or_notify_cancel()),
            lambda f=future, o=outcome: o.update(cancelled=f.cancel()),
        )
        assert outcome["runs"] is not outcome["cancelled"]


# ------------------------------------------------------------------ parts


def test_item_is_the_part_of_a_result():
    source: Future = Future("fit")
    part, missing = item(source, "a"), item(source, "b")
    assert not part.done()
    assert part.name == "fit['a']"
    source.finish(Parcel({"a": 1}))
    assert part.result() == 1
    with pytest.raises(KeyError, match="b"):
        missing.result()


@pytest.mark.parametrize("make", [Future, standard.Future])
def test_parts_end_as_their_source_does(make):
    error = ValueError()
    good, bad, lost = make(), make(), make()
    parts = [item(source, 0) for source in (good, bad, lost)]
    good.set_result([1])
    bad.set_exception(error)
    lost.cancel()
    assert parts[0].result() == 1
    assert parts[1].exception() is error
    assert parts[2].cancelled()


def test_a_part_does_not_open_its_source():
    parcel = Parcel([1])
    source: Future = Future()
    source.finish(parcel)
    part = item(source, 0)
    assert part.done()
    assert parcel.opened == 0


def test_a_part_of_a_packed_error_shares_the_packed_error():
    parcel = Parcel(ValueError("x"))
    source: Future = Future()
    part = item(source, 0)
    source.fail(parcel)
    assert parcel.opened == 0
    assert part.exception() is parcel.content


def test_to_cancel_a_part_does_not_cancel_the_whole():
    source: Future = Future()
    part, other = unzip(source, 2)
    assert part.cancel()
    source.set_result((1, 2))
    assert part.cancelled()
    assert other.result() == 2


def test_unzip_wants_the_very_number():
    source = done((1, 2, 3))
    assert [part.result() for part in unzip(source, 3)] == [1, 2, 3]
    for part in unzip(source, 2):
        with pytest.raises(ValueError, match="expected 2 values, the result has 3"):
            part.result()
    assert unzip(source, 0) == []


def test_a_part_of_what_cannot_be_opened_says_so():
    source: Future = Future("relax")
    source.finish(Parcel(RuntimeError("boom"), fails=True))
    with pytest.raises(UnreadableCall, match="'relax'"):
        item(source, 0).result()


def test_a_part_of_a_part():
    assert item(item(done([[1, 2]]), 0), 1).result() == 2


# ------------------------------------------------------------------ batches


@given(st.permutations(range(7)), st.integers(1, 8))
def test_batches_are_filled_in_the_order_of_finishing(order, n):
    sources: list[Future] = [Future() for _ in order]
    batches = batched(sources, n)
    for count, i in enumerate(order, 1):
        sources[i].finish(Parcel(i))
        assert [batch.done() for batch in batches] == [
            count >= min((k + 1) * n, len(order)) for k in range(len(batches))
        ]
    flat = [batch.result() for batch in batches]
    assert flat == [tuple(order[k : k + n]) for k in range(0, len(order), n)]


def test_batches_take_futures_of_others_and_what_is_done_already():
    other: standard.Future = standard.Future()
    [batch] = batched(iter([done(1), other]), 2)
    assert not batch.done()
    other.set_result(2)
    assert batch.result() == (1, 2)


def test_a_failure_fails_the_batch_into_which_it_falls():
    sources: list[Future] = [Future() for _ in range(4)]
    first, second = batched(sources, 2)
    error = ValueError()
    sources[3].set_result(3)
    sources[0].set_exception(error)
    assert first.exception() is error
    sources[1].cancel()
    assert second.cancelled()
    sources[2].set_result(2)
    assert second.cancelled()


def test_a_batch_is_at_least_one():
    with pytest.raises(ValueError, match="n must be at least 1, not 0"):
        batched([], 0)
    assert batched([], 3) == []


@pytest.mark.usefixtures("eager_switching")
def test_batches_of_futures_that_end_in_many_threads():
    for _ in range(20):
        sources: list[Future] = [Future() for _ in range(30)]
        batches = batched(sources, 4)
        race(*(lambda fs=sources[k::3]: [f.finish(Parcel(1)) for f in fs] for k in range(3)))
        assert [len(batch.result(timeout=60)) for batch in batches] == [4] * 7 + [2]
