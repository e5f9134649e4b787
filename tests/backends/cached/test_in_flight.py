"""The same call twice at the same time runs once; each who asked has a future of their own."""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest
import remembered_calls as calls
from remembered_calls import noted

from callyard import Cache, Executor, ResourceError, WorkerLost, item
from callyard.cache.claims import ClaimOwner, Claims
from callyard.cache.directory import CacheDirectory
from callyard.system.process_identity import this_process

# ------------------------------------------------------------------ in one executor


def test_twice_in_one_executor(ex: Executor, gate: Any, place: str, journal: str) -> None:
    first, second = (ex.submit(calls.held, journal, place, x=7) for _ in range(2))
    assert first is not second
    assert first.key == second.key is not None
    gate.arrived()
    third = ex.submit(calls.held, journal, x=7, place=place)
    assert not third.done()
    gate.open()
    assert [future.result() for future in (first, second, third)] == [7, 7, 7]
    assert [future.cached for future in (first, second, third)] == [False] * 3
    assert noted(journal) == ["held 7"]
    later = ex.submit(calls.held, journal, place, 7)
    assert (later.done(), later.cached, later.key, later.result()) == (True, True, first.key, 7)


def test_callbacks_and_waiting_work_for_each(threads: Executor, gate: Any, place: str, journal: str) -> None:
    futures = [threads.submit(calls.held, journal, place, 7) for _ in range(3)]
    ended: list[Any] = []
    for future in futures:
        future.add_done_callback(ended.append)
    gate.open()
    assert wait(futures).not_done == set()
    assert ended == futures


def test_a_failure_is_shared(threads: Executor, journal: str, gate: Any, place: str) -> None:
    blocker = threads.submit(calls.held, journal, place, 0)
    futures = [threads.submit(calls.failing, journal, 1) for _ in range(2)]
    gate.open()
    for future in futures:
        with pytest.raises(ValueError, match="the user's own"):
            future.result()
    assert blocker.result() == 0
    assert noted(journal).count("failing 1") == 1


def test_overlapping_dependents(make: Any, gate: Any, place: str, journal: str) -> None:
    ex = make(2)
    sources = [ex.submit(calls.held, journal, place, 3) for _ in range(2)]
    sums = [ex.submit(calls.plus, journal, source, 4) for source in sources]
    whole = [ex.submit(calls.plus, journal, a, b) for a in sums for b in sums]
    assert sums[0].key is None  # it depends on a result that is not there
    gate.open()
    assert [future.result() for future in whole] == [14] * 4
    assert sums[0].key == sums[1].key is not None
    assert sorted(noted(journal)) == ["held 3", "plus 3 4", "plus 7 7"]


def test_equal_results_of_different_calls_make_one_call(threads: Executor, gate: Any, place: str, journal: str) -> None:
    ex = threads
    three, also_three = ex.submit(calls.held, journal, place, 3), ex.submit(calls.plus, journal, 1, 2)
    sums = [ex.submit(calls.plus, journal, source, 10) for source in (three, also_three)]
    parts = [ex.submit(calls.plus, journal, item(ex.submit(calls.pair, three, also_three), i), 10) for i in (0, 1)]
    gate.open()
    assert [future.result() for future in (*sums, *parts)] == [13] * 4
    assert noted(journal).count("plus 3 10") == 1


def test_a_refused_call_leaves_nothing(ex: Executor, journal: str) -> None:
    """Not even something that the end waits for."""
    with pytest.raises(ResourceError):
        ex.submit(calls.square, journal, 3, resource_dict={"cores": 100_000})
    assert ex.submit(calls.square, journal, 3).result() == 9


# ------------------------------------------------------------------ cancelling


def test_one_of_two_is_cancelled(ex: Executor, gate: Any, place: str, journal: str) -> None:
    ex.submit(calls.held, journal, place, 0)
    first, second = (ex.submit(calls.square, journal, 3) for _ in range(2))
    dependent = ex.submit(calls.plus, journal, first, 1)
    assert first.cancel()
    assert first.cancelled()
    assert not second.done()
    assert dependent.cancelled()
    assert first.cancel()  # again
    gate.open()
    assert second.result() == 9
    with pytest.raises(CancelledError):
        first.result()


def test_when_all_are_cancelled_so_is_the_call(threads: Executor, gate: Any, place: str, journal: str) -> None:
    blocker = threads.submit(calls.held, journal, place, 0)
    futures = [threads.submit(calls.square, journal, 3) for _ in range(3)]
    assert all(future.cancel() for future in futures)
    gate.open()
    assert blocker.result() == 0
    assert threads.submit(calls.plus, journal, 1).result() == 1
    assert noted(journal) == ["held 0", "plus 1"]
    assert threads.submit(calls.square, journal, 3).result() == 9


def test_dependents_are_cancelled_one_by_one(threads: Executor, gate: Any, place: str, journal: str) -> None:
    source = threads.submit(calls.held, journal, place, 3)
    first, second = (threads.submit(calls.plus, journal, source, 4) for _ in range(2))
    assert first.cancel()
    gate.open()
    assert second.result() == 7
    assert first.cancelled()


def test_a_running_call_cannot_be_cancelled(ex: Executor, gate: Any, place: str, journal: str) -> None:
    futures = [ex.submit(calls.held, journal, place, 7) for _ in range(2)]
    gate.arrived()
    assert [future.running() for future in futures] == [True, True]
    assert not any(future.cancel() for future in futures)
    assert "running" in repr(futures[0])
    gate.open()
    assert [future.result() for future in futures] == [7, 7]


def test_submit_while_all_are_being_cancelled(threads: Executor, gate: Any, place: str, journal: str) -> None:
    """In a callback of the cancellation: that is a new call."""
    threads.submit(calls.held, journal, place, 0)
    first, again = threads.submit(calls.square, journal, 3), []
    first.add_done_callback(lambda _: again.append(threads.submit(calls.square, journal, 3)))
    assert first.cancel()
    gate.open()
    assert again[0].result() == 9


def test_nobody_boards_what_is_being_cancelled(
    threads: Executor, gate: Any, place: str, journal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocker = threads.submit(calls.held, journal, place, 0)
    first, late = threads.submit(calls.square, journal, 3), []
    inner = first.inner  # type: ignore[attr-defined]
    assert inner is not None
    cancel = type(inner).cancel

    def slowly(future: Any) -> bool:
        if future is inner and not late:
            late.append(threads.submit(calls.square, journal, 3))
        return bool(cancel(future))

    monkeypatch.setattr(type(inner), "cancel", slowly)
    assert first.cancel()
    assert not late[0].cancelled()
    gate.open()
    assert late[0].result() == 9
    assert blocker.result() == 0


def test_nobody_boards_what_another_thread_cancels(threads: Executor, gate: Any, place: str, journal: str) -> None:
    threads.submit(calls.held, journal, place, 0)
    stop = threading.Event()

    def submit_and_cancel() -> None:
        while not stop.is_set():
            threads.submit(calls.square, journal, 3).cancel()

    thread = threading.Thread(target=submit_and_cancel)
    thread.start()
    kept = [threads.submit(calls.square, journal, 3) for _ in range(300)]
    stop.set()
    thread.join()
    gate.open()
    assert [future.result() for future in kept] == [9] * 300
    assert noted(journal).count("square 3") == 1


# ------------------------------------------------------------------ ends of executors


def test_cancel_futures(ex: Executor, gate: Any, place: str, journal: str) -> None:
    running = [ex.submit(calls.held, journal, place, 7) for _ in range(2)]
    pending = [ex.submit(calls.square, journal, 3) for _ in range(2)]
    dependents = [ex.submit(calls.plus, journal, future, 1) for future in (running[0], pending[1])]
    gate.arrived()
    ex.shutdown(wait=False, cancel_futures=True)
    assert all(future.cancelled() for future in (*pending, *dependents))
    gate.open()
    ex.shutdown()
    assert [future.result() for future in running] == [7, 7]
    assert noted(journal) == ["held 7"]


def test_kill_workers(ex: Executor, gate: Any, place: str, journal: str) -> None:
    running = [ex.submit(calls.held, journal, place, 7) for _ in range(2)]
    pending = [ex.submit(calls.square, journal, 3) for _ in range(2)]
    gate.arrived()
    ex.kill_workers()
    for future in running:
        with pytest.raises(WorkerLost):
            future.result()
    assert all(future.cancelled() for future in pending)


def test_kill_workers_is_an_end(results: Path, journal: str) -> None:
    """Without `shutdown` too: nothing stays, which the check for what was left behind sees."""
    ex = Executor(1, cache=results)
    assert ex.submit(calls.plus, journal, ex.submit(calls.square, journal, 3)).result() == 9
    ex.kill_workers()


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_a_block_left_by_an_interrupt(
    results: Path, gate: Any, place: str, journal: str, kind: type[BaseException]
) -> None:
    with pytest.raises(kind):
        with Executor(1, cache=results) as ex:
            running = [ex.submit(calls.held, journal, place, 7) for _ in range(2)]
            pending = [ex.submit(calls.square, journal, 3) for _ in range(2)]
            gate.arrived()
            raise kind
    assert [type(future.exception()) for future in running] == [WorkerLost] * 2
    assert all(future.cancelled() for future in pending)


def test_submit_in_callbacks_and_finalizers(threads: Executor, journal: str) -> None:
    got: list[Any] = []

    class Garbage:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            got.append(threads.submit(calls.square, journal, 5))

    future = threads.submit(calls.square, journal, 3)
    future.add_done_callback(lambda done: got.append(threads.submit(calls.square, journal, 4)))
    assert future.result() == 9
    Garbage()
    for x in range(6, 60):  # somewhere in these it is collected
        got.append(threads.submit(calls.square, journal, x))
        gc.collect(0)
    gc.collect()
    wait(got)
    while len(got) < 56:  # the callback runs after its future has ended
        time.sleep(0)
    assert sorted(future.result() for future in got) == [x * x for x in range(4, 60)]


def test_shutdown_in_a_callback(threads: Executor, gate: Any, place: str, journal: str) -> None:
    future = threads.submit(calls.held, journal, place, 3)
    over = threading.Event()
    future.add_done_callback(lambda _: (threads.shutdown(wait=True), over.set()))
    gate.open()
    over.wait()


def test_an_executor_that_nobody_refers_to(results: Path, gate: Any, place: str, journal: str) -> None:
    """Its calls go on, and it ends after them."""
    ex = Executor(1, cache=results)
    future = ex.submit(calls.plus, journal, ex.submit(calls.held, journal, place, 3), 4)
    gone = weakref.ref(ex)
    del ex
    gc.collect()
    assert gone() is None
    gate.open()
    assert future.result() == 7


def test_many_pending_dependents(ex: Executor, gate: Any, place: str, journal: str) -> None:
    source = ex.submit(calls.held, journal, place, 0)
    dependents = [ex.submit(max, source, x) for x in range(500)]
    gate.open()
    assert [future.result() for future in dependents] == list(range(500))


def test_many_pending_dependents_are_cancelled(ex: Executor, gate: Any, place: str, journal: str) -> None:
    source = ex.submit(calls.held, journal, place, 0)
    dependents = [ex.submit(max, source, x) for x in range(10_000)]
    last = dependents[0]
    for _ in range(1_000):
        last = ex.submit(max, last, 1)
    ex.shutdown(wait=False, cancel_futures=True)
    gate.open()
    assert all(future.cancelled() for future in (*dependents, last))


# ------------------------------------------------------------------ in several executors


BACKENDS: dict[str, Callable[[], Any]] = {"local": lambda: None, "threads": lambda: ThreadPoolExecutor(2)}


@pytest.fixture(params=BACKENDS)
def two(request: Any, make: Any) -> Iterator[tuple[Executor, Executor]]:
    """Two executors with the same cache."""
    pool = BACKENDS[request.param]()
    if pool is None:
        yield make(2), make(2)
        return
    with pool:
        yield make(None, backend=pool), make(None, backend=pool)


def test_twice_in_two_executors(two: Any, gate: Any, place: str, journal: str, messages: Any) -> None:
    first = two[0].submit(calls.held, journal, place, 7)
    gate.arrived()
    second = two[1].submit(calls.held, journal, place, 7)
    sums = [ex.submit(calls.plus, journal, future, 1) for ex, future in zip(two, (first, second), strict=True)]
    message = messages.wait("waiting for its result")
    assert "'held' is run by process " in message
    assert f"process {os.getpid()} " in message or "waiting for process" in repr(second)
    assert not second.done()
    assert not second.running()
    gate.open()
    assert first.result() == second.result() == 7
    assert "waiting" not in repr(second)
    assert second.cached is False
    assert [future.result() for future in sums] == [8, 8]
    assert sorted(noted(journal)) == ["held 7", "plus 7 1"]


def test_who_waits_for_another_can_cancel(two: Any, gate: Any, place: str, journal: str, messages: Any) -> None:
    first = two[0].submit(calls.held, journal, place, 7)
    gate.arrived()
    seconds = [two[1].submit(calls.held, journal, place, 7) for _ in range(2)]
    messages.wait("waiting for its result")
    assert seconds[0].cancel()
    assert not seconds[1].done()
    assert seconds[1].cancel()
    assert all(future.cancelled() for future in seconds)
    gate.open()
    assert first.result() == 7


def test_one_executor_cancels_what_another_waits_for(make: Any, gate: Any, place: str, journal: str) -> None:
    one, other = make(), make()
    one.submit(calls.held, journal, place, 0)
    gate.arrived()
    pending = one.submit(calls.square, journal, 3)
    one.shutdown(wait=False, cancel_futures=True)
    assert pending.cancelled()
    assert other.submit(calls.square, journal, 3).result() == 9
    gate.open()


def test_one_executor_is_killed_and_another_takes_over(
    make: Any, gate: Any, place: str, journal: str, messages: Any
) -> None:
    one, other = make(), make()
    first = one.submit(calls.held, journal, place, 7)
    gate.arrived()
    second = other.submit(calls.held, journal, place, 7)
    messages.wait("waiting for its result")
    one.kill_workers()
    assert isinstance(first.exception(), WorkerLost)
    gate.arrived()
    gate.open()
    assert second.result() == 7
    assert noted(journal) == ["held 7"] * 2


def test_a_failing_owner_is_followed(make: Any, gate: Any, place: str, journal: str, messages: Any) -> None:
    """Failures are not remembered: who waited runs the call."""
    one, other = make(), make()
    first = one.submit(calls.held_and_failing, journal, place)
    gate.arrived()
    second = other.submit(calls.held_and_failing, journal, place)
    messages.wait("waiting for its result")
    gate.open(2)
    for future in (first, second):
        with pytest.raises(ValueError, match="own"):
            future.result()
    assert len(noted(journal)) == 2


def test_another_process(make: Any, script: Any, gate: Any, place: str, journal: str, messages: Any) -> None:
    run = script(
        """
        with Executor(1, cache=RESULTS) as ex:
            print("it is", ex.submit(calls.held, JOURNAL, PLACE, 7).result())
        """,
        hash_seed=5,
    )
    gate.arrived()
    future = make().submit(calls.held, journal, place, 7)
    messages.wait("waiting for its result")
    gate.open()
    assert future.result() == 7
    run.wait_for("it is 7")
    assert run.finish() == (0, "", "")
    assert noted(journal) == ["held 7"]


# ------------------------------------------------------------------ an owner of whom nothing can be proven


def claim(results: Path, key: str, **changes: Any) -> Path:
    """Write the claim of a process on another machine."""
    owner = ClaimOwner(**vars(this_process()), name="held", since=1e9, token="a1")
    (results / "claims").mkdir(mode=0o700, exist_ok=True)
    path = results / "claims" / key
    path.write_text(json.dumps(vars(owner.replace(**changes))))
    return path


def key_of(tmp_path: Path, fn: Any, *args: Any) -> tuple[str, Path]:
    """The key of a call, by running it elsewhere, and the file of its result."""
    with ThreadPoolExecutor(1) as pool, Executor(backend=pool, cache=tmp_path / "elsewhere") as ex:
        future = ex.submit(fn, *args)
        future.result()
    assert future.key is not None
    return future.key, Path(Cache(tmp_path / "elsewhere")._directory.record(future.key))


def bring(file: Path, results: Path) -> None:
    """Let a result appear, as another machine would."""
    (results / file.parent.name).mkdir(mode=0o700, exist_ok=True)
    shutil.copy(file, results / "claims" / "coming")
    os.rename(results / "claims" / "coming", results / file.parent.name / file.name)


@pytest.fixture
def elsewhere(tmp_path: Path, results: Path, journal: str) -> Any:
    """A call that another machine has claimed: its key, and how it would be stored."""
    key, file = key_of(tmp_path, calls.square, journal, 3)
    os.unlink(journal)
    claim(results, key, host="cluster-7", boot="b007", pid=12)
    return key, file


def test_another_host_is_waited_for(ex: Executor, elsewhere: Any, results: Path, journal: str, messages: Any) -> None:
    future = ex.submit(calls.square, journal, 3)
    dependent = ex.submit(calls.plus, journal, future, 1)
    assert "process 12 on cluster-7" in messages.wait("waiting for its result")
    assert "waiting for process 12 on cluster-7, since 2001-09-" in repr(future)
    assert ex.submit(calls.square, journal, 4).result() == 16  # the only worker is free
    assert not future.done()
    bring(elsewhere[1], results)
    assert future.result() == 9
    assert dependent.result() == 10
    assert noted(journal) == ["square 4", "plus 9 1"]


def test_force(threads: Executor, elsewhere: Any, results: Path, journal: str, messages: Any) -> None:
    future = threads.submit(calls.square, journal, 3)
    messages.wait("waiting for its result")
    assert Cache(results)._claims.force(elsewhere[0])
    assert future.result() == 9
    assert noted(journal) == ["square 3"]


def test_what_overrules_a_claim_is_said(
    ex: Executor, elsewhere: Any, results: Path, journal: str, messages: Any
) -> None:
    future = ex.submit(calls.square, journal, 3)
    command = f"callyard retry --force {results} {elsewhere[0]}"
    assert command in messages.wait("waiting for its result")
    assert command in repr(future)
    assert command in repr(Cache(results).future(elsewhere[0]))
    Cache(results)._claims.force(elsewhere[0])
    assert future.result() == 9


@pytest.mark.parametrize("junk", [Path.touch, Path.mkdir, os.mkfifo], ids=["empty", "directory", "pipe"])
def test_a_claim_that_cannot_be_read_is_no_reason_to_wait(
    threads: Executor, elsewhere: Any, results: Path, journal: str, junk: Any
) -> None:
    path = results / "claims" / elsewhere[0]
    path.unlink()
    junk(path)
    (problem,) = Cache(results).check().problems
    assert (problem.kind, problem.path, problem.done) == ("damaged", str(path), "")
    assert threads.submit(calls.square, journal, 3).result() == 9
    assert noted(journal) == ["square 3"]
    assert Cache(results).check().problems == []


@pytest.mark.parametrize("junk", [Path.touch, Path.mkdir, os.mkfifo], ids=["empty", "directory", "pipe"])
def test_a_claim_that_cannot_be_read_is_repaired(elsewhere: Any, results: Path, junk: Any) -> None:
    path = results / "claims" / elsewhere[0]
    path.unlink()
    junk(path)
    (problem,) = Cache(results).check(repair=True).problems
    assert (problem.kind, problem.done) == ("damaged", "set aside")
    assert not os.path.lexists(path)
    assert Cache(results).check().problems == []


@pytest.mark.parametrize("way", ["kill", "cancel", "interrupt"])
def test_ends_while_others_are_waited_for(elsewhere: Any, results: Path, journal: str, messages: Any, way: str) -> None:
    ex = Executor(1, cache=results)
    futures = [ex.submit(calls.square, journal, 3) for _ in range(2)]
    dependent = ex.submit(calls.plus, journal, futures[0], 1)
    messages.wait("waiting for its result")
    if way == "kill":
        ex.kill_workers()
    elif way == "cancel":
        ex.shutdown(cancel_futures=True)
    else:
        with pytest.raises(KeyboardInterrupt), ex:
            raise KeyboardInterrupt
    ex.shutdown()
    assert all(future.cancelled() for future in (*futures, dependent))
    assert not noted(journal)


def test_shutdown_waits_for_others(elsewhere: Any, results: Path, journal: str, messages: Any) -> None:
    ex = Executor(1, cache=results)
    future = ex.submit(calls.square, journal, 3)
    messages.wait("waiting for its result")
    ex.shutdown(wait=False)
    assert not future.done()
    thread = threading.Thread(target=ex.shutdown)
    thread.start()
    bring(elsewhere[1], results)
    thread.join()
    assert future.done()
    assert future.result() == 9


def test_shutdown_lets_who_waited_run(elsewhere: Any, results: Path, journal: str, messages: Any) -> None:
    ex = Executor(1, cache=results)
    future = ex.submit(calls.square, journal, 3)
    messages.wait("waiting for its result")
    ex.shutdown(wait=False)
    Cache(results)._claims.force(elsewhere[0])
    assert future.result() == 9
    ex.shutdown()
    assert noted(journal) == ["square 3"]


def test_a_damaged_result_of_another_host(
    threads: Executor, elsewhere: Any, results: Path, journal: str, messages: Any
) -> None:
    """It shows only after the call was declined."""
    key, file = elsewhere
    future = threads.submit(calls.square, journal, 3)
    messages.wait("waiting for its result")
    file.write_bytes(file.read_bytes()[:-1])

    def end() -> Any:
        bring(file, results)
        Cache(results)._claims.force(key)
        return future.result()

    with pytest.warns(UserWarning, match="the call runs again"):
        assert end() == 9


def test_an_unsafe_result_of_another_host(
    threads: Executor, elsewhere: Any, results: Path, journal: str, messages: Any
) -> None:
    from callyard import UnsafeCache

    _, file = elsewhere
    future = threads.submit(calls.square, journal, 3)
    messages.wait("waiting for its result")
    file.chmod(0o666)
    (results / file.parent.name).mkdir(mode=0o700)
    os.rename(file, results / file.parent.name / file.name)
    with pytest.raises(UnsafeCache, match="written by everybody"):
        future.result()


# ------------------------------------------------------------------ the order of steps


def test_whoever_claims_looks_again(
    threads: Executor, tmp_path: Path, results: Path, journal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever had the claim before may have stored a result after the first look."""
    _, file = key_of(tmp_path, calls.square, journal, 3)
    os.unlink(journal)
    take = Claims.take

    def late(self: Claims, key: str, name: str, **more: Any) -> Any:
        bring(file, results)
        return take(self, key, name, **more)

    (results / "claims").mkdir(mode=0o700)
    monkeypatch.setattr(Claims, "take", late)
    assert threads.submit(calls.square, journal, 3).result() == 9
    assert not noted(journal)
    assert not list(Cache(results)._claims.running())


def test_the_claim_is_released_after_the_result_is_stored(
    threads: Executor, results: Path, journal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish, held = CacheDirectory.publish, []

    def watched(self: CacheDirectory, key: str, *args: Any, **options: Any) -> None:
        publish(self, key, *args, **options)
        held.append(Cache(results)._claims.holder(key))

    monkeypatch.setattr(CacheDirectory, "publish", watched)
    future = threads.submit(calls.square, journal, 3)
    assert future.result() == 9
    assert [owner.pid for owner in held] == [os.getpid()]
    assert Cache(results)._claims.holder(future.key or "") is None


# ------------------------------------------------------------------ the end of the interpreter


def test_exit_waits_for_calls(script: Any, gate: Any, journal: str) -> None:
    run = script(
        """
        ex = Executor(1, cache=RESULTS)
        ex.submit(calls.plus, JOURNAL, ex.submit(calls.held, JOURNAL, PLACE, 3), 4)
        """
    )
    gate.arrived()
    gate.open()
    assert run.finish()[::2] == (0, "")
    assert noted(journal) == ["held 3", "plus 3 4"]


def test_exit_waits_for_those_of_others(script: Any, elsewhere: Any, results: Path, journal: str) -> None:
    run = script(
        """
        ex = Executor(1, cache=RESULTS)
        future = ex.submit(calls.square, JOURNAL, 3)
        ex.submit(calls.plus, JOURNAL, future, 4).add_done_callback(lambda sum: print("it is", sum.result()))
        """
    )
    run.wait_for("waiting for its result")
    bring(elsewhere[1], results)
    run.wait_for("it is 13")
    assert run.finish() == (0, "", "")
    assert noted(journal) == ["plus 9 4"]


def test_interrupt_while_others_are_waited_for(script: Any, elsewhere: Any, journal: str) -> None:
    run = script(
        """
        with Executor(1, cache=RESULTS) as ex:
            ex.submit(calls.square, JOURNAL, 3).result()
        """
    )
    run.wait_for("waiting for its result")
    run.process.send_signal(signal.SIGINT)
    code, _, errors = run.finish()
    assert code == -signal.SIGINT
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert "Exception ignored" not in errors
    assert not noted(journal)


def test_fork_of_the_driver(script: Any) -> None:
    """The copy of the executor in a forked child can do nothing, and says so; the child ends."""
    run = script(
        """
        ex = Executor(1, cache=RESULTS)
        print(ex.submit(calls.plus, JOURNAL, ex.submit(calls.square, JOURNAL, 3)).result())
        sys.stdout.flush()
        if os.fork() == 0:
            try:
                ex.submit(calls.square, JOURNAL, 3)
            except RuntimeError as error:
                print(error)
            with Executor(1, cache=RESULTS) as another:
                print("remembered:", another.submit(calls.square, JOURNAL, 3).result())
        else:
            os.wait()
            print(ex.submit(calls.square, JOURNAL, 4).result())
        """
    )
    run.wait_for("cannot be used here")
    run.wait_for("remembered: 9")
    run.wait_for("16")
    assert run.finish() == (0, "", "")
