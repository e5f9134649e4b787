"""submit, map, shutdown: what `concurrent.futures` says of every executor."""

from __future__ import annotations

import asyncio
import concurrent.futures as standard
import contextlib
import gc
import itertools
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import contract_calls as calls
import pytest
from gate import Gate, held, until

import callyard
from callyard import Executor

Make = Callable[..., Executor]
Some = Callable[[int], int]


# ------------------------------------------------------------------ submit


@pytest.mark.feature("workers")
def test_what_only_a_scheduler_knows(ex: Executor) -> None:
    assert ex.submit(pow, 2, 10).job_id is None


@pytest.mark.core
@pytest.mark.feature("runs again")
def test_what_only_a_cache_knows(ex: Executor) -> None:
    future = ex.submit(pow, 2, 10)
    assert (future.key, future.cached) == (None, None)


def test_wait_and_as_completed(ex: Executor, gate: Gate) -> None:
    slow, fast = ex.submit(gate.hold, "slow"), ex.submit(abs, -1)
    done, rest = standard.wait([slow, fast], return_when=standard.FIRST_COMPLETED)
    assert (done, rest) == ({fast}, {slow})
    iterator = standard.as_completed([slow, fast])
    assert next(iterator) is fast
    gate.open()
    assert next(iterator) is slow
    failing = ex.submit(divide_by_zero)
    done, _ = standard.wait([failing, ex.submit(abs, 1)], return_when=standard.FIRST_EXCEPTION)
    assert failing in done


def divide_by_zero() -> None:
    calls.divide(1, 0)


def test_timeouts(ex: Executor, gate: Gate) -> None:
    future = ex.submit(gate.hold)
    with pytest.raises(standard.TimeoutError):
        future.result(timeout=0.01)
    with pytest.raises(standard.TimeoutError):
        future.exception(timeout=0)
    with pytest.raises(standard.TimeoutError):
        next(standard.as_completed([future], timeout=0))


@pytest.mark.core
def test_a_running_call_cannot_be_cancelled(ex: Executor, gate: Gate) -> None:
    future = ex.submit(gate.hold, "done")
    gate.arrived()
    until(future.running)
    assert not future.cancel()
    gate.open()
    assert future.result() == "done"


@pytest.mark.smoke
@pytest.mark.feature("cancels")
def test_cancelled_calls_do_not_run(make: Make, gate: Gate, tmp_path: Path) -> None:
    ex = make(1)
    ex.submit(gate.hold)
    gate.arrived()
    files = [tmp_path / str(i) for i in range(3)]
    futures = [ex.submit(calls.touch, file) for file in files]
    assert futures[1].cancel()
    assert futures[1].cancel()  # again is no error
    assert futures[1].cancelled()
    with pytest.raises(standard.CancelledError):
        futures[1].result()
    gate.open()
    ex.shutdown()
    assert [file.exists() for file in files] == [True, False, True]


@pytest.mark.core
def test_callbacks(ex: Executor, gate: Gate) -> None:
    seen: list[object] = []
    future = ex.submit(gate.hold, 1)
    future.add_done_callback(lambda done: seen.append((1, done.result())))
    future.add_done_callback(lambda done: seen.append((2, done is future)))
    gate.open()
    ended = threading.Event()
    future.add_done_callback(lambda _: ended.set())
    assert ended.wait(60)
    assert seen == [(1, 1), (2, True)]
    future.add_done_callback(seen.append)
    assert seen[2] is future


def test_a_callback_that_raises_is_logged(ex: Executor, caplog: pytest.LogCaptureFixture) -> None:
    future = ex.submit(abs, 1)
    future.result()
    future.add_done_callback(lambda _: 1 / 0)
    assert "exception calling callback" in caplog.text
    assert ex.submit(abs, 2).result() == 2


def test_submit_in_a_callback(ex: Executor, some: Some) -> None:
    results: list[int] = []
    ended = threading.Event()

    def next_one(done: standard.Future[int]) -> None:
        results.append(done.result())
        if len(results) < some(20):
            ex.submit(calls.successor, done.result()).add_done_callback(next_one)
        else:
            ended.set()

    ex.submit(calls.successor, 0).add_done_callback(next_one)
    assert ended.wait(60)
    assert results == list(range(1, some(20) + 1))


WAITS: dict[str, Callable[[Executor, Any], object]] = {
    "result": lambda ex, other: other.result(),
    "exception": lambda ex, other: other.exception(),
    "wait": lambda ex, other: standard.wait([other]),
    "wait for the first": lambda ex, other: standard.wait([other], return_when=standard.FIRST_COMPLETED),
    "as_completed": lambda ex, other: next(standard.as_completed([other])),
    "item": lambda ex, other: callyard.item(other, 0).result(),
    "batched": lambda ex, other: callyard.batched([other, other], 2)[0].result(),
    "a dependent call": lambda ex, other: ex.submit(abs, other).result(),
    "map": lambda ex, other: list(ex.map(abs, [other])),
}


@pytest.mark.core
@pytest.mark.feature("explains")  # our own runners: of another executor it is not known which thread ends what
def test_a_callback_is_told_that_it_would_wait_for_ever(ex: Executor, gate: Gate, some: Some) -> None:
    """The thread that runs it is the one that has to end the other call."""
    said: dict[str, str] = {}
    told = threading.Event()
    condition: standard.Future[int] = standard.Future()
    other = ex.submit(abs, condition)

    def wait_for_another(_: object) -> None:
        for name, wait in WAITS.items():
            try:
                wait(ex, other)
            except RuntimeError as error:
                said[name] = str(error)
        told.set()

    first = ex.submit(gate.hold, 2)
    first.add_done_callback(wait_for_another)
    gate.open()
    assert told.wait(60)
    assert list(said) == list(WAITS)
    for words in said.values():
        assert "a callback must not wait for another future; submit a call that depends on it" in words
    condition.set_result(-3)
    assert other.result() == 3


@pytest.mark.feature("explains")
def test_a_callback_may_wait_where_that_ends(ex: Executor, make: Make, gate: Gate) -> None:
    ended: list[object] = []
    told = threading.Event()
    never: standard.Future[int] = standard.Future()
    other, elsewhere = ex.submit(abs, never), make()

    def look(done: standard.Future[int]) -> None:
        ended.append(done.result())
        ended.append(elsewhere.submit(calls.successor, 3).result())
        ended.append(standard.wait([other, done], return_when=standard.FIRST_COMPLETED).done == {done})
        ended.append(standard.wait([other], timeout=0).done)
        with pytest.raises(standard.TimeoutError):
            other.result(timeout=0.001)
        told.set()

    first = ex.submit(gate.hold, 2)
    first.add_done_callback(look)
    gate.open()
    assert told.wait(60)
    assert ended == [2, 4, True, set()]
    never.set_result(1)


@pytest.mark.core
def test_awaiting_a_future(ex: Executor, gate: Gate) -> None:
    async def together() -> list[Any]:
        return await asyncio.gather(*(ex.submit(calls.successor, number) for number in range(3)))

    async def fail() -> float:
        return await ex.submit(calls.divide, 1, 0)

    async def give_up() -> bool:
        never: standard.Future[int] = standard.Future()
        future = ex.submit(abs, never)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(future, 0.001)
        return future.cancelled()

    assert asyncio.run(together()) == [1, 2, 3]
    with pytest.raises(ZeroDivisionError):
        asyncio.run(fail())
    assert asyncio.run(give_up())


def test_submit_in_a_finalizer(ex: Executor, some: Some) -> None:
    results: list[standard.Future[int]] = []
    all_gone = threading.Event()

    class Cycle:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            results.append(ex.submit(abs, -1))
            if len(results) == some(50):
                all_gone.set()

    before = gc.get_threshold()
    gc.set_threshold(5)  # so that the collector runs in the middle of whatever `submit` does
    try:
        futures = []
        for i in range(some(50)):
            Cycle()
            futures.append(ex.submit(abs, i))
    finally:
        gc.set_threshold(*before)
    assert [future.result() for future in futures] == list(range(some(50)))
    assert _collected(all_gone)
    assert {future.result() for future in results} == {1}


def test_submit_in_a_finalizer_while_a_thread_is_made(ex: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nowhere else does an executor take so long, and hold so much."""
    inside: list[standard.Future[int]] = []
    make = threading.Thread.__init__

    def make_thread(*args: Any, **named: Any) -> None:
        if not inside:
            inside.append(standard.Future())  # only once
            inside[0] = ex.submit(abs, -1)
        make(*args, **named)

    monkeypatch.setattr(threading.Thread, "__init__", make_thread)
    assert ex.submit(abs, -2).result() == 2
    assert {future.result() for future in inside} <= {1}  # others' executors may have their threads already


def test_there_is_no_thread_to_be_had(ex: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who submits is told; later, when there is one, calls run."""
    start = threading.Thread.start

    def cannot(thread: threading.Thread) -> None:
        if thread.name.startswith("callyard"):
            raise RuntimeError("can't start new thread")
        start(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", cannot)
        for _ in range(2):
            with contextlib.suppress(RuntimeError):  # others' executors have other threads
                ex.submit(abs, -1)
    assert ex.submit(abs, -2).result() == 2


def test_many_threads_submit(ex: Executor, some: Some) -> None:
    results: dict[int, list[int]] = {}
    each, count = some(50), some(8)

    def submit(number: int) -> None:
        results[number] = [f.result() for f in [ex.submit(calls.add, number, i) for i in range(each)]]

    threads = [threading.Thread(target=submit, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {n: [n + i for i in range(each)] for n in range(count)}


@pytest.mark.smoke
def test_no_more_at_once_than_max_workers(make: Make, gate: Gate) -> None:
    ex = make(1)
    first, second = ex.submit(gate.hold, 1), ex.submit(gate.hold, 2)
    gate.arrived()
    until(first.running)
    assert not second.running()
    gate.open(2)
    assert (first.result(), second.result()) == (1, 2)


def test_asyncio(ex: Executor) -> None:
    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        return await asyncio.gather(
            *(asyncio.wrap_future(ex.submit(calls.successor, i)) for i in range(5)),
            loop.run_in_executor(ex, calls.successor, 5),
        )

    assert asyncio.run(main()) == [1, 2, 3, 4, 5, 6]


def test_cancelling_in_asyncio_cancels_the_call(make: Make, gate: Gate) -> None:
    ex = make(1)
    ex.submit(gate.hold)
    gate.arrived()
    future = ex.submit(abs, 1)

    async def main() -> None:
        task = asyncio.wrap_future(future)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert future.cancelled()


# ------------------------------------------------------------------ map


def test_map_in_order(ex: Executor, some: Some) -> None:
    """However many elements make a call, and however many calls are ahead; all at the same time."""
    sizes = itertools.product([1, 3, 100], [None, 1, 4])
    expected = [i * i for i in range(some(20))]
    squares = [
        ex.map(pow, range(some(20)), itertools.repeat(2), chunksize=chunksize, buffersize=buffersize)
        for chunksize, buffersize in sizes
    ]
    for results in zip(*squares, strict=True):
        assert results == (expected.pop(0),) * len(squares)
    assert not expected


def test_map_of_nothing(ex: Executor) -> None:
    assert list(ex.map(abs, [])) == []
    assert list(ex.map(calls.add)) == []
    assert list(ex.map(pow, [1, 2], [])) == []


def test_map_submits_at_once(ex: Executor, some: Some) -> None:
    taken: list[int] = []
    results = ex.map(abs, (taken.append(i) or i for i in range(some(10))))
    assert taken == list(range(some(10)))
    assert list(results) == taken


@pytest.mark.parametrize("chunksize", [1, 2])
def test_map_of_an_endless_iterable(ex: Executor, chunksize: int) -> None:
    taken = itertools.count()
    results = ex.map(calls.successor, taken, buffersize=5, chunksize=chunksize)
    assert next(taken) == 5 * chunksize
    assert list(itertools.islice(results, 4)) == [1, 2, 3, 4]
    results.close()  # type: ignore[attr-defined]


def test_map_raises_where_the_result_would_be(ex: Executor) -> None:
    results = ex.map(calls.divide, [4, 4, 4], [2, 0, 1])
    assert next(results) == 2
    with pytest.raises(ZeroDivisionError):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


@pytest.mark.core
def test_map_timeout(ex: Executor, gate: Gate) -> None:
    results = ex.map(gate.hold, [1], timeout=0.01)
    with pytest.raises(standard.TimeoutError):
        next(results)


def test_closing_map_cancels_the_rest(make: Make, gate: Gate, tmp_path: Path) -> None:
    ex = make(1)
    files = [tmp_path / str(i) for i in range(20)]
    blocked = ex.submit(gate.hold)
    gate.arrived()
    results = ex.map(calls.touch, files)
    with pytest.raises(standard.TimeoutError):
        next(ex.map(calls.same, [1], timeout=0))
    next_one = threading.Thread(target=lambda: next(results))
    next_one.start()
    gate.open()
    next_one.join()
    blocked.result()
    ex.submit(gate.hold)
    results.close()  # type: ignore[attr-defined]
    gate.open()
    ex.shutdown()
    assert files[0].exists()


def test_closing_map_cancels_what_has_not_begun(make: Make, gate: Gate, tmp_path: Path) -> None:
    ex = make(1)
    ex.submit(gate.hold)
    gate.arrived()
    files = [tmp_path / str(i) for i in range(10)]
    results = ex.map(calls.touch, files, timeout=0)
    with pytest.raises(standard.TimeoutError):  # the iterator ends with the error
        next(results)
    gate.open()
    ex.shutdown()
    assert not any(file.exists() for file in files)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"chunksize": 0}, ValueError),
        ({"chunksize": -1}, ValueError),
        ({"buffersize": 0}, ValueError),
        ({"buffersize": "2"}, TypeError),
        ({"buffersize": 2.5}, TypeError),
    ],
)
def test_map_refuses(ex: Executor, options: dict[str, int], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(options))):
        ex.map(abs, [1], **options)


def test_map_refuses_what_is_no_iterable(ex: Executor) -> None:
    with pytest.raises(TypeError, match="not iterable"):
        ex.map(abs, 3)  # type: ignore[arg-type]


def test_map_passes_on_an_error_of_the_iterable(ex: Executor) -> None:
    def two() -> object:
        yield 1
        raise KeyError("third")

    with pytest.raises(KeyError, match="third"):
        ex.map(abs, two())  # type: ignore[arg-type]


# ------------------------------------------------------------------ shutdown


def test_shutdown_waits(ex: Executor, gate: Gate, some: Some) -> None:
    futures = [ex.submit(gate.hold, i) for i in range(some(5))]
    gate.open(len(futures))
    ex.shutdown()
    assert all(future.done() for future in futures)
    ex.shutdown()  # again is no error


@pytest.mark.core
def test_no_calls_after_shutdown(ex: Executor) -> None:
    ex.shutdown()
    for submit in (lambda: ex.submit(abs, 1), lambda: ex.map(abs, [1]), lambda: ex.with_resources().submit(abs, 1)):
        with pytest.raises(RuntimeError, match="after shutdown"):
            submit()
    assert "shut down" in repr(ex)


@pytest.mark.smoke
def test_shutdown_without_waiting(ex: Executor, gate: Gate) -> None:
    future = ex.submit(gate.hold, 1)
    dependent = ex.submit(calls.successor, future)
    ex.shutdown(wait=False)
    assert not dependent.done()
    gate.open()
    assert dependent.result() == 2


@pytest.mark.smoke
def test_shutdown_cancels_what_waits(make: Make, gate: Gate) -> None:
    ex = make(1)
    running = ex.submit(gate.hold, "done")
    gate.arrived()
    until(running.running)
    pending = [ex.submit(abs, i) for i in range(20)]
    dependent = ex.submit(calls.successor, running)
    ex.shutdown(wait=False, cancel_futures=True)
    assert all(future.cancelled() for future in (*pending, dependent))
    gate.open()
    assert running.result() == "done"
    ex.shutdown()


def test_a_with_block_waits(make: Make) -> None:
    with make() as ex:
        future = ex.submit(abs, -3)
    assert future.done()


def test_an_error_in_a_with_block_waits_too(make: Make) -> None:
    with pytest.raises(KeyError), make() as ex:
        future = ex.submit(abs, -3)
        raise KeyError("the block's own")
    assert future.result(0) == 3


@pytest.mark.feature("kill")
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_with_block_ends_its_calls(make: Make, gate: Gate, kind: type[BaseException]) -> None:
    with pytest.raises(kind), make(1) as ex:
        running, pending = ex.submit(gate.hold), ex.submit(abs, 1)
        gate.arrived()
        raise kind
    assert pending.cancelled()
    assert isinstance(running.exception(), callyard.WorkerLost)


@pytest.mark.feature("kill")
@pytest.mark.parametrize("name", ["terminate_workers", "kill_workers"])
def test_ending_the_workers(make: Make, gate: Gate, name: str) -> None:
    ex = make(1)
    running, pending = ex.submit(gate.hold), ex.submit(abs, 1)
    dependent = ex.submit(abs, running)
    gate.arrived()
    getattr(ex, name)()
    with pytest.raises(callyard.WorkerLost, match=r"SIGTERM|SIGKILL"):
        running.result()
    assert pending.cancelled()
    assert dependent.cancelled() or isinstance(dependent.exception(), callyard.WorkerLost)


# ------------------------------------------------------------------ with_resources


def test_other_faces_share_workers_and_shutdown(ex: Executor) -> None:
    twin = ex.with_resources()
    assert type(twin) is Executor
    assert twin.submit(abs, -1).result() == 1
    twin.shutdown()
    with pytest.raises(RuntimeError):
        ex.submit(abs, 1)


@pytest.mark.feature("resources", "workers", "one node")
def test_with_resources_shares_the_processes(make: Make) -> None:
    ex = make(1)
    urgent = ex.with_resources(priority=3)
    assert ex.submit(calls.process_id).result() == urgent.submit(calls.process_id).result()
    assert "priority=3" in repr(urgent)
    assert "priority" not in repr(ex)
    assert list(urgent.map(abs, [-1, 2])) == [1, 2]


def test_unknown_resources_are_refused_with_the_nearest(ex: Executor) -> None:
    for ask in (lambda: ex.with_resources(memry=3), lambda: ex.submit(abs, 1, resource_dict={"memry": 3})):
        with pytest.raises(callyard.ResourceError, match=r"'memry'.*'memory'"):
            ask()


# ------------------------------------------------------------------ repr, and what is kept alive


def test_repr(ex: Executor) -> None:
    assert repr(ex).startswith("<callyard.Executor ")
    future = ex.submit(abs, -1)
    future.result()
    assert repr(future).startswith("<Future at 0x")
    assert "'abs' state=finished returned int" in repr(future)


def _collected(gone: threading.Event) -> bool:
    """Wait for what the collector does, perhaps in another thread."""
    return any(gone.wait(0.05) or (gc.collect() and False) for _ in range(200))


def _dies(thing: object) -> Callable[[], bool]:
    """Return a function that waits until `thing` has gone."""
    gone = threading.Event()
    weakref.finalize(thing, gone.set)

    def wait() -> bool:
        return _collected(gone)

    return wait


@pytest.mark.core
def test_arguments_are_not_kept_alive(ex: Executor) -> None:
    thing = calls.Thing(1)
    died = _dies(thing)
    future = ex.submit(calls.process_id, thing)
    del thing
    future.result()
    assert died()


def test_arguments_of_dependent_calls_are_not_kept_alive(ex: Executor) -> None:
    thing = calls.Thing(1)
    died = _dies(thing)
    future = ex.submit(calls.process_id, thing, ex.submit(abs, 1))
    del thing
    future.result()
    assert died()


@pytest.mark.core
def test_results_are_not_kept_alive(ex: Executor) -> None:
    future = ex.submit(calls.make_thing, 1)
    thing = future.result()
    died = _dies(thing)
    assert future.result() is thing
    del thing, future
    assert died()


def test_results_of_map_are_not_kept_alive(ex: Executor) -> None:
    results = ex.map(calls.make_thing, range(3))
    for _ in range(3):
        died = _dies(next(results))
        assert died()


def test_errors_do_not_keep_the_future_alive(ex: Executor) -> None:
    future = ex.submit(calls.divide, 1, 0)
    died = _dies(future)
    with pytest.raises(ZeroDivisionError):
        future.result()
    del future
    assert died()


@pytest.mark.core
def test_a_dropped_executor_finishes_its_calls(chosen: dict[str, Any], gate: Gate) -> None:
    ex = Executor(1, **chosen)
    died = _dies(ex)
    future = ex.submit(gate.hold, 1)
    dependent = ex.submit(calls.successor, future)
    del ex
    assert died()
    gate.open()
    assert dependent.result() == 2


@pytest.mark.core
@pytest.mark.feature("snapshot")
def test_the_content_is_that_of_submit(make: Make, gate: Gate) -> None:
    ex = make(1)
    ex.submit(gate.hold)
    values, table = [1], {"a": [1]}
    future, other = (
        ex.submit(calls.same, values),
        ex.submit(
            calls.same,
            table,
        ),
    )
    late = ex.submit(held, gate, calls.same, values)
    values.append(2)
    table["a"].append(2)
    gate.open(2)
    assert future.result() == [1]
    assert other.result() == {"a": [1]}
    assert late.result() == [1]


@pytest.mark.feature("same objects")
def test_the_very_objects(ex: Executor) -> None:
    thing = calls.Thing()
    assert ex.submit(calls.same, thing).result() is thing
