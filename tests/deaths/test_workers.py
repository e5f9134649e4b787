"""A worker that dies fails the call that it was running, and nothing else."""

from __future__ import annotations

import os
import signal
import socket
from collections import Counter
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import acts
import pytest

from callyard import Executor, WorkerLost

Fifo = Callable[[], str]


@pytest.mark.parametrize(
    ("act", "args", "code", "words"),
    [
        (acts.segfault, (), -signal.SIGSEGV, "was killed by SIGSEGV"),
        (acts.kill_self, (signal.SIGSEGV,), -signal.SIGSEGV, "was killed by SIGSEGV"),
        (acts.kill_self, (signal.SIGKILL,), -signal.SIGKILL, "was killed by SIGKILL"),
        (acts.kill_self, (signal.SIGTERM,), -signal.SIGTERM, "was killed by SIGTERM"),
        (acts.exit_at_once, (7,), 7, "ended with exit code 7"),
        (acts.exit_at_once, (0,), 0, "ended with exit code 0"),
    ],
)
def test_error_says_what_happened(executor: Executor, act: Any, args: tuple[Any, ...], code: int, words: str) -> None:
    before = executor.submit(pow, 2, 3)
    lost = executor.submit(act, *args)
    after = executor.submit(pow, 3, 2)
    with pytest.raises(WorkerLost) as caught:
        lost.result()
    text = str(caught.value)
    assert caught.value.exitcode == code
    assert isinstance(caught.value, BrokenProcessPool)
    assert words in text
    assert repr(act.__name__) in text
    assert socket.gethostname() in text
    assert "restart_limit" in text
    assert (before.result(), after.result()) == (8, 9)
    assert executor.submit(pow, 2, 5).result() == 32


def test_error_names_the_process_and_its_log(executor: Executor, fifo: Fifo, tmp_path: Any) -> None:
    meeting, log = fifo(), str(tmp_path / "log")
    lost = executor.submit(acts.tell_and_stay, meeting, resource_dict={"error_log_file": log})
    pid = int(acts.hear(meeting))
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(WorkerLost, match=f"process {pid} on .* was killed by SIGKILL.* see {log}"):
        lost.result()


def test_exit_in_a_call_arrives_as_an_exception(executor: Executor) -> None:
    pid = executor.submit(os.getpid).result()
    with pytest.raises(SystemExit) as caught:
        executor.submit(exit, 3).result()
    assert caught.value.code == 3
    assert executor.submit(os.getpid).result() == pid  # the worker goes on


def test_death_while_idle_harms_nobody(inside: Any, ended: Any) -> None:
    with Executor(1) as executor:
        first = executor.submit(os.getpid).result()
        os.kill(first, signal.SIGKILL)
        ended([first])
        second = executor.submit(os.getpid, resource_dict={"restart_limit": 1}).result()
        assert second != first
        assert executor.submit(os.getpid).result() == second


def test_death_while_starting_is_no_death_of_the_call(fifo: Fifo, journal: str) -> None:
    with Executor(1, initializer=acts.die_in_initializer, initargs=(journal, 2)) as executor:
        assert executor.submit(pow, 2, 2).result() == 4  # though it may not be run again
    assert len(acts.noted(journal)) == 3


def test_workers_that_always_die_while_starting_are_given_up(journal: str) -> None:
    with Executor(1, initializer=acts.die_in_initializer, initargs=(journal, 1000)) as executor:
        calls = [executor.submit(pow, 2, 2) for _ in range(3)]
        for call in calls:
            with pytest.raises(WorkerLost, match=r"no worker could be started for 'pow' on .* killed by SIGKILL"):
                call.result()
    assert len(acts.noted(journal)) == 3


def test_initializer_that_raises(executor: Executor) -> None:
    with Executor(2, initializer=acts.raise_in_initializer) as broken:
        calls = [broken.submit(pow, 2, i) for i in range(5)]
        for call in calls:
            with pytest.raises(WorkerLost, match=r"'pow'.* its initializer raised ValueError: no licence") as caught:
                call.result()
        cause = caught.value.__cause__
        assert isinstance(cause, ValueError)
        assert "raise_in_initializer" in str(cause.__cause__)
        assert broken.submit(pow, 2, 2).exception() is not None  # and not for ever waiting
    assert executor.submit(pow, 2, 2).result() == 4


@pytest.mark.needs("linux")
def test_environment_that_cannot_start_fails_only_its_own_shape(executor: Executor, capfd: Any) -> None:
    bad = executor.with_resources(env={"PYTHONHOME": "/nonexistent"})
    calls = [bad.submit(pow, 2, 2) for _ in range(3)]
    good = [executor.submit(pow, 2, i) for i in range(10)]
    assert [call.result() for call in good] == [2**i for i in range(10)]
    for call in calls:
        with pytest.raises(WorkerLost, match=r"'pow' on .*exit code 1 before it was ready; check `env`"):
            call.result()
    capfd.readouterr()  # what the interpreter wrote


@pytest.mark.needs("linux")
def test_environment_of_the_loader_needs_a_fresh_process(executor: Executor, capfd: Any) -> None:
    preload = {"LD_PRELOAD": "/nonexistent/callyard-test.so"}
    assert executor.submit(os.getenv, "LD_PRELOAD", resource_dict={"env": preload}).result() == preload["LD_PRELOAD"]
    assert "callyard-test.so" in capfd.readouterr().err  # the loader has read it
    assert executor.submit(os.getenv, "LD_PRELOAD").result() == os.environ.get("LD_PRELOAD")


def _warm(executor: Executor, path: str, count: int = 200) -> None:
    """Let it be known that the function is short, so that calls of it are sent ahead."""
    for call in [executor.submit(acts.note_and_die_at, path, 0, -1) for _ in range(count)]:
        call.result()


def test_calls_sent_ahead_of_a_death_run_once_elsewhere(journal: str, tmp_path: Any) -> None:
    with Executor(1) as executor:
        _warm(executor, str(tmp_path / "warm"))
        calls = [executor.submit(acts.note_and_die_at, journal, i, 50) for i in range(200)]
        lost = [i for i, call in enumerate(calls) if isinstance(call.exception(), WorkerLost)]
        assert lost == [50]
        assert [call.result() for i, call in enumerate(calls) if i != 50] == [i for i in range(200) if i != 50]
    assert Counter(acts.noted(journal)) == Counter(str(i) for i in range(200))


def test_calls_sent_to_a_worker_that_never_began_them(journal: str, tmp_path: Any, ended: Any) -> None:
    """It is stopped before they are sent, and killed."""
    with Executor(1) as executor:
        _warm(executor, str(tmp_path / "warm"))
        worker = executor.submit(os.getpid).result()
        os.kill(worker, signal.SIGSTOP)
        calls = [executor.submit(acts.note_and_die_at, journal, i, -1) for i in range(50)]
        os.kill(worker, signal.SIGKILL)
        assert [call.result() for call in calls] == list(range(50))
    assert Counter(acts.noted(journal)) == Counter(str(i) for i in range(50))


def test_many_deaths_among_calls_sent_ahead(journal: str, tmp_path: Any) -> None:
    fatal = {i for i in range(300) if i % 37 == 5}
    with Executor(2) as executor:
        _warm(executor, str(tmp_path / "warm"))
        calls = [executor.submit(acts.note_and_die_at, journal, i, i if i in fatal else -1) for i in range(300)]
        assert {i for i, call in enumerate(calls) if call.exception() is not None} == fatal
    assert Counter(acts.noted(journal)) == Counter(str(i) for i in range(300))


def test_results_finished_before_a_death_are_not_lost(journal: str) -> None:
    """Large enough not to fit into one message, so some are still on their way when the worker dies."""
    with Executor(1) as executor:
        for call in [executor.submit(bytes, 10) for _ in range(100)]:
            call.result()
        large = [executor.submit(bytes, 20_000) for _ in range(50)]
        last = executor.submit(acts.kill_self)
        assert [len(call.result()) for call in large] == [20_000] * 50
        with pytest.raises(WorkerLost):
            last.result()


def test_restart_limit(executor: Executor, journal: str, tmp_path: Any) -> None:
    assert executor.submit(acts.note_and_die, journal, 2, resource_dict={"restart_limit": 2}).result() == 3
    assert len(set(acts.noted(journal))) == 3  # each time in another process
    other = str(tmp_path / "other")
    lost = executor.submit(acts.note_and_die, other, 9, resource_dict={"restart_limit": 2})
    with pytest.raises(WorkerLost, match=r"\(run 3 of 3\)") as caught:
        lost.result()
    assert "restart_limit" not in str(caught.value)  # it has been used up
    assert len(acts.noted(other)) == 3


def test_no_restart_unless_asked_for(executor: Executor, journal: str) -> None:
    with pytest.raises(WorkerLost):
        executor.submit(acts.note_and_die, journal, 1).result()
    assert len(acts.noted(journal)) == 1


def test_dependent_of_a_lost_call_gets_its_error(executor: Executor) -> None:
    first = executor.submit(acts.exit_at_once, 9)
    second = executor.submit(pow, first, 2)
    with pytest.raises(WorkerLost, match="exit code 9") as caught:
        second.result()
    assert any("pow <- exit_at_once" in note for note in caught.value.__notes__)
