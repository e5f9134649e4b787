"""Limits are kept and deaths noticed whatever is stopped, blocked or does not listen."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import acts
import pytest

import callyard
from callyard import Executor, TimeLimitExceeded, WorkerLost
from callyard.pool import zygote_connection
from callyard.pool.call_shape import WorkerShape
from callyard.pool.worker import Worker
from callyard.serialize.shared_memory import anonymous_file
from callyard.system import python_command
from callyard.system.processes import state_of
from callyard.transport.result_log import SIZE, ResultLog
from callyard.worker.withdrawal import CallWithdrawal

pytestmark = pytest.mark.needs("linux")


def stop_zygote(inside: Any) -> None:
    """Stop the one that runs now, and let the driver lose patience with it soon, but with none that takes its place."""
    node, dispatcher = inside.node, inside.node._dispatcher
    os.kill(inside.zygote, signal.SIGSTOP)
    with dispatcher.lock:
        dispatcher.zygote._silence = dispatcher.zygote._answer = 0.1
        dispatcher.zygote._due = None
    node._io.wake()  # to look at the clock anew


@pytest.fixture
def altered(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Lets zygotes run some code before they begin; `zygote` is their module."""

    def alter(code: str) -> None:
        start = python_command._CODE.replace(
            "{function}()", f"import os, callyard.worker.zygote as zygote\n{code}\n{{function}}()"
        )
        monkeypatch.setattr(python_command, "_CODE", start)

    return alter


# -- calls that are stopped with the process that keeps their limits -----------------------------------------


def wait_at(meeting: str) -> tuple[float | None, bool]:
    """Return how much time is left, and whether the end is near, after somebody has come there."""
    with open(meeting, "w") as file:
        file.write("here")
    with open(meeting) as file:
        file.read()
    call = callyard.current()
    assert call is not None
    return call.time_left(), callyard.ending()


def test_the_time_in_which_a_call_is_stopped_does_not_count(inside: Any, fifo: Any) -> None:
    meeting = fifo()
    limits = {"run_time": 5, "warn_before": 0.1}
    with Executor(1) as executor:
        executor.submit(callyard.current, resource_dict=limits).result()
        future = executor.submit(wait_at, meeting, resource_dict=limits)
        with open(meeting) as file:
            file.read()
        stopped = [inside(executor).zygote, *inside(executor).workers]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(5.5)  # more than it has
        for pid in reversed(stopped):  # the call first, before the process that keeps its limits has looked
            os.kill(pid, signal.SIGCONT)
        with open(meeting, "w"):
            pass
        left, ending = future.result()
    assert left is not None
    assert 0 < left < 5
    assert not ending


# -- a zygote that does not answer ---------------------------------------------------------------------------


@pytest.mark.parametrize("limits", [{"run_time": 100}, {"memory": 1}])
def test_a_stopped_zygote_is_replaced(inside: Any, fifo: Any, ended: Any, limits: Any) -> None:
    meeting = fifo()
    with Executor(1) as executor:
        call = executor.submit(acts.start_and_stay, meeting, ["setsid", "fork"], resource_dict=limits)
        waiting = executor.submit(pow, 2, 2)
        pids = [int(pid) for pid in acts.hear(meeting).split()]
        stop_zygote(inside(executor))
        with pytest.raises(
            WorkerLost, match=f"process {pids[0]} on .* was ended with its zygote, which did not answer"
        ):
            call.result()
        assert waiting.result() == 4
        ended(pids)


def test_a_death_that_a_stopped_zygote_does_not_tell(inside: Any, fifo: Any) -> None:
    meeting = fifo()
    with Executor(1) as executor:
        call = executor.submit(acts.tell_and_stay, meeting, resource_dict={"restart_limit": 1})
        pid = int(acts.hear(meeting))
        stop_zygote(inside(executor))
        os.kill(pid, signal.SIGKILL)
        assert int(acts.hear(meeting)) != pid  # it runs again
        executor.kill_workers()
        assert isinstance(call.exception(), WorkerLost)


def test_shutdown_with_a_stopped_zygote(inside: Any, ended: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    executor = Executor(1)
    pids = [executor.submit(os.getpid).result(), inside(executor).zygote]
    monkeypatch.setattr(zygote_connection, "_END", 0.2)
    stop_zygote(inside(executor))
    executor.shutdown()
    ended(pids)


def test_one_that_answers_is_left_alone(inside: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with Executor(1) as executor:
        pid = executor.submit(os.getpid, resource_dict={"run_time": 100}).result()
        zygote = inside(executor).zygote
        monkeypatch.setattr(zygote_connection.ZygoteProcess, "_silence", 0.02)
        executor.submit(time.sleep, 0.3, resource_dict={"run_time": 100}).result()
        assert (executor.submit(os.getpid).result(), inside(executor).zygote) == (pid, zygote)


def test_one_that_owes_nothing_is_not_asked(inside: Any) -> None:
    with Executor(1) as executor:
        executor.submit(pow, 2, 2, resource_dict={"run_time": 100}).result()
        node = inside(executor).node
        until = time.monotonic() + 60
        while node._patience() is not None and time.monotonic() < until:
            time.sleep(0.01)
        assert node._patience() is None


# -- a driver that does not listen ---------------------------------------------------------------------------


@pytest.fixture
def deaf() -> Iterator[tuple[zygote_connection.ZygoteProcess, int]]:
    """A zygote to whose words nobody listens, with a worker that waits for its first call."""
    from callyard.pool.worker_connection import WorkerConnection
    from callyard.serialize.packer import Packer
    from callyard.serialize.shared_memory import SegmentPool

    made = zygote_connection.ZygoteProcess(lambda stream: None)
    worker = Worker(1, WorkerShape(), ())
    connection = WorkerConnection(worker, Packer(SegmentPool()), lambda stream: None, lambda: None)
    made.spawn(worker, connection.greet(None), "")
    connection.handed_over()
    select.select([made.stream.sock], [], [], 30)
    (event,) = made.receive() or []
    yield made, event.value
    made.end(0.0)
    while select.select([made.stream.sock], [], [], 30)[0] and made.receive() is not None:
        pass
    made.close()
    connection.close()


def test_limits_are_kept_when_nobody_listens(deaf: tuple[zygote_connection.ZygoteProcess, int], ended: Any) -> None:
    zygote, pid = deaf
    for _ in range(3000):
        zygote.unwatch(1)  # an answer each, more than a socket takes
        while not zygote.stream.flush():
            select.select([], [zygote.stream.sock], [], 30)
    zygote.watch(1, 0.0, None)
    while not zygote.stream.flush():
        select.select([], [zygote.stream.sock], [], 30)
    ended([pid])


# -- calls that are taken back --------------------------------------------------------------------------------


def test_calls_are_taken_back_once_though_others_let_the_worker_go_on(fifo: Any, journal: str, inside: Any) -> None:
    go, over = fifo(), threading.Event()
    with Executor(2) as executor:
        for call in [executor.submit(acts.note_and_stay_at, journal, i, -1, "") for i in range(100, 400)]:
            call.result()
        workers = inside(executor).workers

        def let_go_on() -> None:
            while not over.is_set():
                for pid in workers:
                    os.kill(pid, signal.SIGCONT)

        thread = threading.Thread(target=let_go_on)
        thread.start()
        calls = [executor.submit(acts.note_and_stay_at, journal, i, 1, go) for i in range(100)]
        assert [call.result() for i, call in enumerate(calls) if i != 1] == [i for i in range(100) if i != 1]
        over.set()
        thread.join()
        acts.tell(go)
        assert calls[1].result() == 1
    assert Counter(acts.noted(journal)) == Counter(map(str, range(400)))


@pytest.fixture
def running() -> Iterator[tuple[int, ResultLog]]:
    """A process that runs all the time, and its result log, in which it has begun the third call."""
    process = subprocess.Popen([sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.read(1)
    descriptor = anonymous_file(SIZE)
    result_log = ResultLog(descriptor)
    result_log.begin(3)
    yield process.pid, result_log
    process.kill()
    process.wait()
    process.stdout.close()
    result_log.close()
    os.close(descriptor)


def _attempt(withdrawal: CallWithdrawal) -> tuple[int, bytes]:
    while (found := withdrawal.attempt(0.0)) is None:
        assert withdrawal.next_attempt > 0
    return found


def test_a_worker_goes_on_when_it_was_looked_at(running: tuple[int, ResultLog]) -> None:
    pid, result_log = running
    assert _attempt(CallWithdrawal(pid, result_log, 5)) == (3, b"")
    assert state_of(pid) != "T"
    assert [result_log.begin(number) for number in (4, 5, 6)] == [False, False, True]


def test_a_worker_that_others_have_stopped_stays_so(running: tuple[int, ResultLog]) -> None:
    pid, result_log = running
    os.kill(pid, signal.SIGSTOP)
    while state_of(pid) != "T":
        pass
    assert CallWithdrawal(pid, result_log, 5).attempt(0.0) == (3, b"")
    assert state_of(pid) == "T"


def test_a_worker_that_does_not_stand_still_is_not_waited_for(running: tuple[int, ResultLog], monkeypatch: Any) -> None:
    """Deep in the kernel it cannot be stopped; here it is let go on at once, as others may do."""
    pid, result_log = running
    kill = os.kill
    with monkeypatch.context() as patch:
        patch.setattr(os, "kill", lambda pid, signum: kill(pid, signal.SIGCONT))
        withdrawal = CallWithdrawal(pid, result_log, 5)
        pauses = []
        for _ in range(8):
            assert withdrawal.attempt(0.0) is None
            pauses.append(withdrawal.next_attempt)
    assert pauses == sorted(pauses)
    assert 0 < pauses[0] < pauses[-1] <= 0.05
    assert _attempt(withdrawal) == (3, b"")


# -- what cannot be ended, and what cannot begin ----------------------------------------------------------------


def test_a_call_whose_process_cannot_be_ended_fails_all_the_same(altered: Any) -> None:
    """Deep in the kernel no signal reaches it; here none is sent."""
    altered("zygote.kill_group, zygote._UNKILLABLE = (lambda *_: None), 0.2")
    with Executor(1) as executor:
        call = executor.submit(acts.stay, resource_dict={"run_time": 0.2})
        with pytest.raises(TimeLimitExceeded):
            call.result()
        assert executor.submit(pow, 2, 2).result() == 4


def test_a_zygote_that_cannot_start_fails_the_calls_in_its_own_words(altered: Any) -> None:
    altered("os.write(2, b'my last words'); os._exit(9)")
    with Executor(2) as executor:
        calls = [executor.submit(pow, 2, i) for i in range(10)]
        for call in calls:
            with pytest.raises(WorkerLost, match=r"no worker could be started for 'pow' on .* code 9: my last words"):
                call.result()


def test_zygotes_that_end_again_and_again_are_not_started_for_ever(altered: Any) -> None:
    altered("zygote.Zygote.watch = lambda *_: os._exit(4)")
    with Executor(1) as executor:
        calls = [executor.submit(acts.stay, resource_dict={"run_time": 100}) for _ in range(20)]
        assert {type(call.exception()) for call in calls} == {WorkerLost}
        assert "ended 5 times in a row" in str(calls[-1].exception())


def test_what_it_writes_while_it_starts_reaches_the_user(altered: Any, capfd: Any) -> None:
    altered("os.write(2, b'a warning\\n')")
    with Executor(1) as executor:
        assert executor.submit(os.write, 2, b"of a call\n").result() == 10
    assert capfd.readouterr().err == "a warning\nof a call\n"
