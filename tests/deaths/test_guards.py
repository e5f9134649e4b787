"""What a call started ends with its worker, however it was started, and never with another worker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Any

import acts
import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, example, given, settings

from callyard import Executor, TimeLimitExceeded, WorkerLost

pytestmark = pytest.mark.needs("linux")

STEPS = st.lists(st.sampled_from(["fork", "setsid", "exec"]), max_size=4)


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(["fork", "setsid", "fork"], ["setsid", "fork", "exec"])
@given(STEPS, STEPS)
def test_it_ends_with_its_worker_and_with_no_other(fifo: Any, ended: Any, one: list[str], other: list[str]) -> None:
    meetings = [fifo(), fifo()]
    with Executor(2) as executor:
        calls = [executor.submit(acts.start_and_stay, *each) for each in zip(meetings, (one, other), strict=True)]
        (first, of_first), (second, of_second) = [map(int, acts.hear(meeting).split()) for meeting in meetings]
        os.kill(first, signal.SIGKILL)
        assert isinstance(calls[0].exception(), WorkerLost)
        ended([of_first])
        assert not acts.gone(of_second)
        os.kill(second, signal.SIGKILL)
        assert isinstance(calls[1].exception(), WorkerLost)
        ended([of_second])


@pytest.mark.parametrize("steps", [["setsid"], ["setsid", "fork"], ["fork", "setsid", "fork", "exec"]])
def test_it_ends_with_a_call_that_ran_too_long(executor: Executor, fifo: Any, ended: Any, steps: list[str]) -> None:
    meeting = fifo()
    call = executor.submit(acts.start_and_stay, meeting, steps, resource_dict={"run_time": 0.5})
    pids = [int(pid) for pid in acts.hear(meeting).split()]
    assert isinstance(call.exception(), TimeLimitExceeded)
    ended(pids)


def test_it_outlives_the_call_and_not_the_worker(ended: Any) -> None:
    with Executor(1) as executor:
        pid = executor.submit(acts.start_through, ["setsid", "fork"]).result()
        assert executor.submit(acts.gone, pid).result() is False
    ended([pid])


def test_a_call_finds_its_children_and_daemons_as_elsewhere(executor: Executor) -> None:
    assert executor.submit(acts.end_a_daemon).result() == "gone"
    assert executor.submit(acts.wait_for_all_children).result() == 1


def test_the_death_of_a_guard_is_the_death_of_its_worker(executor: Executor, fifo: Any, ended: Any) -> None:
    meeting = fifo()
    call = executor.submit(acts.start_and_stay, meeting, ["setsid", "fork"])
    pids = [int(pid) for pid in acts.hear(meeting).split()]
    with open(f"/proc/{pids[0]}/stat") as file:
        guard = int(file.read().rpartition(")")[2].split()[1])
    os.kill(guard, signal.SIGKILL)
    with pytest.raises(WorkerLost, match=f"process {pids[0]} .* was killed by SIGKILL"):
        call.result()
    ended(pids)
    assert executor.submit(pow, 2, 2).result() == 4


def test_nothing_outlives_driver_and_zygote_killed_at_once(script: Any, fifo: Any, ended: Any) -> None:
    meeting, ready = fifo(), fifo()
    run = script(
        """
        executor = Executor(1)
        call = executor.submit(acts.start_all_and_stay, MEETING)
        pids = acts.hear(MEETING)
        acts.tell(READY, f"{executor._running.backend._runner._dispatcher.zygote._process.pid} {pids}")
        acts.stay()
        """,
        MEETING=meeting,
        READY=ready,
    )
    zygote, *pids = map(int, acts.hear(ready).split())
    for pid in (run.process.pid, zygote):
        os.kill(pid, signal.SIGSTOP)  # neither can see the other's end
    for pid in (zygote, run.process.pid):
        os.kill(pid, signal.SIGKILL)
    run.wait()
    ended(pids)
    run.assert_nothing_left()


def test_where_there_can_be_one_process_only_it_is_the_worker() -> None:
    code = """if True:
        import os
        from callyard.worker.guard import get_guard
        def refuse(): raise BlockingIOError
        zygote, fork, os.fork = os.getpid(), os.fork, refuse
        if fork() == 0:
            get_guard(zygote, [])
            os._exit(7 if (os.getppid(), os.getsid(0)) == (zygote, os.getpid()) else 1)
        raise SystemExit(os.waitstatus_to_exitcode(os.wait()[1]))
    """
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 7
