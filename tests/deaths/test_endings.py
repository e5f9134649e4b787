"""Ways to end an executor, at any moment, from any place."""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import acts
import pytest

from callyard import Executor, WorkerLost
from callyard.pool.dispatcher import Dispatcher

KILLS = {"terminate": signal.SIGTERM, "kill": signal.SIGKILL}


def _kill(executor: Executor, how: str) -> None:
    getattr(executor, f"{how}_workers")()


@pytest.fixture
def telling() -> Iterator[Callable[[str], None]]:
    """Tells a fifo from a thread, so that this one can wait in a shutdown."""
    threads: list[threading.Thread] = []

    def tell(fifo: str) -> None:
        threads.append(threading.Thread(target=acts.tell, args=(fifo,)))
        threads[-1].start()

    yield tell
    for thread in threads:
        thread.join()


# -- terminate_workers, kill_workers ---------------------------------------------------------------------


@pytest.mark.parametrize("how", KILLS)
def test_running_calls_fail_and_waiting_ones_are_cancelled(inside: Any, fifo: Any, ended: Any, how: str) -> None:
    meetings = [fifo(), fifo()]
    executor = Executor(2)
    running = [executor.submit(acts.tell_and_stay, meeting) for meeting in meetings]
    waiting = [executor.submit(pow, 2, 2) for _ in range(20)]
    dependent = executor.submit(pow, running[0], 2)
    pids = [int(acts.hear(meeting)) for meeting in meetings]
    _kill(executor, how)
    for call in running:
        with pytest.raises(WorkerLost, match=f"was killed by {KILLS[how].name}") as caught:
            call.result()
        assert caught.value.exitcode == -KILLS[how]
    assert all(call.cancelled() for call in waiting)
    assert dependent.cancelled()
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(pow, 2, 2)
    _kill(executor, how)  # twice is once
    executor.shutdown()
    ended(pids)


@pytest.mark.parametrize("how", KILLS)
@pytest.mark.parametrize("used", [False, True])
def test_idle_executors_can_be_killed(how: str, used: bool) -> None:
    executor = Executor(1)
    if used:
        executor.submit(pow, 2, 2).result()
    _kill(executor, how)
    executor.shutdown()


@pytest.mark.parametrize("how", KILLS)
def test_killed_while_workers_start(fifo: Any, how: str) -> None:
    meeting = fifo()
    executor = Executor(1, initializer=acts.stay_in_initializer, initargs=(meeting,))
    calls = [executor.submit(pow, 2, i) for i in range(3)]
    acts.hear(meeting)
    _kill(executor, how)
    assert all(call.cancelled() for call in calls)
    executor.shutdown()


@pytest.mark.parametrize("how", KILLS)
def test_killed_before_the_call_that_was_sent_has_begun(journal: str, how: str, monkeypatch: Any) -> None:
    """The worker cannot read what it is sent, because it is stopped."""
    monkeypatch.setattr(Dispatcher, "grace", 0.2)  # nor take a SIGTERM
    executor = Executor(1)
    os.kill(executor.submit(os.getpid).result(), signal.SIGSTOP)
    call = executor.submit(acts.note, journal, "run")
    _kill(executor, how)
    executor.shutdown()
    assert call.cancelled()
    assert acts.noted(journal) == []


def test_what_ignores_the_signal_is_killed_after_a_grace(fifo: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(Dispatcher, "grace", 0.2)
    meeting = fifo()
    executor = Executor(1)
    call = executor.submit(acts.tell_and_ignore, meeting, signal.SIGTERM)
    acts.hear(meeting)
    executor.terminate_workers()
    with pytest.raises(WorkerLost, match="was killed by SIGKILL"):
        call.result()
    executor.shutdown()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
def test_workers_started_afresh_take_signals_too(executor: Executor, fifo: Any, signum: signal.Signals) -> None:
    """The zygote ignores them, and what a process ignores its programs ignore as well."""
    meeting = fifo()
    call = executor.submit(acts.tell_and_stay, meeting, resource_dict={"env": {"PYTHONHASHSEED": "1"}})
    os.kill(int(acts.hear(meeting)), signum)
    with pytest.raises(WorkerLost, match=f"was killed by {signum.name}"):
        call.result()


def test_no_restart_after_a_kill(fifo: Any) -> None:
    meeting = fifo()
    executor = Executor(1)
    call = executor.submit(acts.tell_and_stay, meeting, resource_dict={"restart_limit": 9})
    acts.hear(meeting)
    executor.kill_workers()
    assert isinstance(call.exception(), WorkerLost)
    executor.shutdown()


# -- shutdown --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cancel", [False, True])
@pytest.mark.parametrize("wait", [False, True])
def test_shutdown_of_what_was_never_used(wait: bool, cancel: bool) -> None:
    executor = Executor(1)
    for _ in range(2):
        executor.shutdown(wait=wait, cancel_futures=cancel)


@pytest.mark.parametrize("cancel", [False, True])
@pytest.mark.parametrize("wait", [False, True])
def test_shutdown_while_calls_run(fifo: Any, telling: Any, wait: bool, cancel: bool) -> None:
    there, back = fifo(), fifo()
    executor = Executor(1)
    running = executor.submit(acts.tell_and_hear, there, back)
    waiting = [executor.submit(pow, 2, 2) for _ in range(10)]
    dependent = executor.submit(pow, waiting[0], 2)
    pid = int(acts.hear(there))
    if cancel:  # the worker gets free only when the others have been cancelled
        waiting[-1].add_done_callback(lambda _: telling(back))
    else:
        telling(back)
    executor.shutdown(wait=wait, cancel_futures=cancel)
    if wait:
        assert running.done()
    assert running.result() == pid
    for call, result in [*((call, 4) for call in waiting), (dependent, 16)]:
        assert call.cancelled() if cancel else call.result() == result
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(pow, 2, 2)
    executor.shutdown(wait=True)


@pytest.mark.parametrize("cancel", [False, True])
@pytest.mark.parametrize("wait", [False, True])
def test_shutdown_while_workers_start(fifo: Any, telling: Any, wait: bool, cancel: bool) -> None:
    there, back = fifo(), fifo()
    executor = Executor(1, initializer=acts.tell_and_hear, initargs=(there, back))
    calls = [executor.submit(pow, 2, i) for i in range(10)]
    acts.hear(there)
    if cancel:
        calls[1].add_done_callback(lambda _: telling(back))
    else:
        telling(back)
    executor.shutdown(wait=wait, cancel_futures=cancel)
    assert calls[0].result() == 1  # the one for which the worker starts counts as begun
    assert all(call.cancelled() if cancel else call.result() == 2**i for i, call in enumerate(calls[1:], 1))
    executor.shutdown()


ENDS: dict[str, Callable[[Executor], object]] = {
    "shutdown": lambda executor: executor.shutdown(),
    "shutdown, not waiting": lambda executor: executor.shutdown(wait=False),
    "shutdown, cancelling": lambda executor: executor.shutdown(cancel_futures=True),
    "terminate_workers": lambda executor: executor.terminate_workers(),
    "kill_workers": lambda executor: executor.kill_workers(),
}


@pytest.mark.parametrize("end", ENDS)
def test_end_in_a_callback(fifo: Any, end: str) -> None:
    """It runs in the thread that would have to end."""
    there, back = fifo(), fifo()
    executor = Executor(1)
    first = executor.submit(acts.tell_and_hear, there, back)
    waiting = [executor.submit(pow, 2, 2) for _ in range(10)]
    first.add_done_callback(lambda _: ENDS[end](executor))
    acts.hear(there)
    acts.tell(back)
    first.result()
    executor.shutdown()
    assert all(call.done() for call in waiting)


@pytest.mark.parametrize("end", [name for name in ENDS if name != "shutdown"])
def test_end_in_a_finalizer(inside: Any, fifo: Any, end: str, monkeypatch: Any) -> None:
    """The collector may run one at the worst moment: in the middle of a decision, under the lock."""
    there, back = fifo(), fifo()
    executor = Executor(1)
    executor.submit(pow, 2, 2).result()
    pool = inside(executor).node._dispatcher.placement
    decide = pool.decide

    def deciding() -> Any:
        monkeypatch.setattr(pool, "decide", decide)
        instructions = decide()
        threads_end = ENDS[end] if "cancelling" not in end else lambda e: e.shutdown(wait=False, cancel_futures=True)
        threads_end(executor)
        return instructions

    monkeypatch.setattr(pool, "decide", deciding)
    call = executor.submit(acts.tell_and_hear, there, back)
    if "workers" not in end:
        acts.hear(there)
        acts.tell(back)
        call.result()
    executor.shutdown()
    assert call.done()


def test_submit_in_a_finalizer(inside: Any, monkeypatch: Any) -> None:
    with Executor(1) as executor:
        pool = inside(executor).node._dispatcher.placement
        decide, calls = pool.decide, []

        def deciding() -> Any:
            monkeypatch.setattr(pool, "decide", decide)
            calls.append(executor.submit(pow, 2, 3))
            return decide()

        monkeypatch.setattr(pool, "decide", deciding)
        assert executor.submit(pow, 2, 2).result() == 4
        assert calls[0].result() == 8


@pytest.mark.parametrize("first", ENDS)
@pytest.mark.parametrize("second", ENDS)
def test_one_end_after_another(fifo: Any, first: str, second: str) -> None:
    executor = Executor(1)
    calls = [executor.submit(pow, 2, i) for i in range(3)]
    ENDS[first](executor)
    ENDS[second](executor)
    executor.shutdown()
    assert all(call.done() for call in calls)


# -- cancel ----------------------------------------------------------------------------------------------


def test_cancel_in_every_state(fifo: Any) -> None:
    there, back = fifo(), fifo()
    with Executor(1) as executor:
        done = executor.submit(pow, 2, 2)
        done.result()
        running = executor.submit(acts.tell_and_hear, there, back)
        waiting = executor.submit(pow, 2, 3)
        follower = executor.submit(pow, waiting, 2)
        dependent = executor.submit(max, running, 0)
        further = executor.submit(max, dependent, 0)
        after = executor.submit(pow, 2, 4)
        pid = int(acts.hear(there))
        assert not done.cancel()
        assert not running.cancel()
        assert waiting.cancel()
        assert waiting.cancel()
        assert follower.cancelled()
        assert dependent.cancel()
        assert further.cancelled()
        acts.tell(back)
        assert (done.result(), running.result(), after.result()) == (4, pid, 16)


def test_cancel_while_workers_start(fifo: Any) -> None:
    there, back = fifo(), fifo()
    with Executor(1, initializer=acts.tell_and_hear, initargs=(there, back)) as executor:
        calls = [executor.submit(pow, 2, i) for i in range(5)]
        acts.hear(there)
        assert all(call.cancel() for call in calls[:4])
        acts.tell(back)
        assert calls[4].result() == 16


# -- no end at all ---------------------------------------------------------------------------------------


def test_executor_that_nobody_refers_to(inside: Any, fifo: Any, ended: Any) -> None:
    there, back = fifo(), fifo()
    executor = Executor(1)
    running = executor.submit(acts.tell_and_hear, there, back)
    waiting = executor.submit(pow, 2, 2)
    dependent = executor.submit(pow, waiting, 2)
    pid = int(acts.hear(there))
    (thread,) = inside(executor).node._io._threads
    del executor
    gc.collect()
    acts.tell(back)
    assert (running.result(), waiting.result(), dependent.result()) == (pid, 4, 16)
    thread.join()
    ended([pid])


@pytest.mark.parametrize("then", ["", "executor.shutdown()", "executor.shutdown(cancel_futures=True)", "del executor"])
@pytest.mark.parametrize("leave", ["sys.exit(3)", "os._exit(3)"])
def test_fork_of_the_parent(script: Any, fifo: Any, then: str, leave: str) -> None:
    there, back = fifo(), fifo()
    run = script(
        f"""
        executor = Executor(2)
        running = executor.submit(acts.tell_and_hear, THERE, BACK)
        worker = int(acts.hear(THERE))
        child = os.fork()
        if child == 0:
            try:
                executor.submit(pow, 2, 2)
            except RuntimeError as error:
                print(error, flush=True)
            {then}
            {leave}
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        print(executor.submit(pow, 2, 3).result())
        acts.tell(BACK)
        print(running.result() == worker)
        """,
        THERE=there,
        BACK=back,
    )
    code, out, errors = run.finish()
    assert (code, errors) == (0, "")
    said, *rest = out.splitlines()
    assert "process" in said
    assert "fork" in said
    assert rest == ["3", "8", "True"]
    run.assert_nothing_left()
