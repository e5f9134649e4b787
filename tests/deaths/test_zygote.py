"""The process that forks the workers may die as well."""

from __future__ import annotations

import os
import signal
from collections import Counter
from typing import Any

import acts
import pytest

from callyard import Executor, WorkerLost


def test_running_calls_fail_and_the_executor_goes_on(executor: Executor, inside: Any, fifo: Any, ended: Any) -> None:
    meetings = [fifo(), fifo()]
    running = [executor.submit(acts.tell_and_stay, meeting) for meeting in meetings]
    pids = [int(acts.hear(meeting)) for meeting in meetings]
    zygote = inside(executor).zygote
    os.kill(zygote, signal.SIGKILL)
    for call in running:
        with pytest.raises(WorkerLost, match="'tell_and_stay' lost its worker: process"):
            call.result()
    assert executor.submit(os.getpid).result() not in pids
    assert inside(executor).zygote != zygote
    ended(pids)


def test_idle_workers_are_replaced(executor: Executor, inside: Any, ended: Any) -> None:
    for _ in range(3):
        pid = executor.submit(os.getpid).result()
        os.kill(inside(executor).zygote, signal.SIGKILL)
        ended([pid])
        assert executor.submit(os.getpid, resource_dict={"restart_limit": 1}).result() != pid


def test_waiting_calls_run_once(inside: Any, fifo: Any, journal: str) -> None:
    meeting = fifo()
    with Executor(1) as executor:
        running = executor.submit(acts.tell_and_stay, meeting)
        waiting = [executor.submit(acts.note, journal, i) for i in range(50)]
        dependent = executor.submit(sum, waiting)
        acts.hear(meeting)
        os.kill(inside(executor).zygote, signal.SIGKILL)
        assert dependent.result() == sum(range(50))
        assert isinstance(running.exception(), WorkerLost)
    assert Counter(acts.noted(journal)) == Counter(str(i) for i in range(50))


def test_calls_may_run_again(executor: Executor, inside: Any, fifo: Any) -> None:
    there, back = fifo(), fifo()
    call = executor.submit(acts.tell_and_hear, there, back, resource_dict={"restart_limit": 1})
    first = int(acts.hear(there))
    os.kill(inside(executor).zygote, signal.SIGKILL)
    second = int(acts.hear(there))
    acts.tell(back)
    assert call.result() == second != first


@pytest.mark.needs("linux")
def test_what_running_calls_started_in_their_session_ends_too(inside: Any, fifo: Any, ended: Any) -> None:
    meeting = fifo()
    with Executor(1) as executor:
        call = executor.submit(acts.start_children_and_stay, meeting)
        pids = [int(pid) for pid in acts.hear(meeting).split()]
        os.kill(inside(executor).zygote, signal.SIGKILL)
        assert isinstance(call.exception(), WorkerLost)
        ended(pids)


def test_shutdown_after_its_death(inside: Any, ended: Any) -> None:
    executor = Executor(1)
    executor.submit(pow, 2, 2).result()
    pids = inside(executor).workers
    os.kill(inside(executor).zygote, signal.SIGKILL)
    executor.shutdown()
    ended(pids)


def test_sigterm_and_sigint_do_not_end_it(executor: Executor, inside: Any) -> None:
    """A terminal or a scheduler may send them to every process; it ends with the driver."""
    pid = executor.submit(os.getpid).result()
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(inside(executor).zygote, signum)
    assert executor.submit(os.getpid).result() == pid
