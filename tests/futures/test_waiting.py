"""Waiting for futures: callbacks, `wait`, `as_completed`, asyncio, and many threads at once."""

from __future__ import annotations

import asyncio
import concurrent.futures as standard
import logging
import sys
import threading

import pytest
from future_states import Parcel, cancelled, done, failed, race

from callyard import futures
from callyard.futures import Future, batched, item, unzip

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


# ------------------------------------------------------------------ threads that end futures


@pytest.fixture
def on_cancel(monkeypatch):
    """This thread ends the futures that were made with it."""
    monkeypatch.setattr(futures.waiting, "_this_thread", threading.local())

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


# ------------------------------------------------------------------ races


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
