"""Calls on another computer, over a real SSH server: each test has an executor here and a gateway there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from gate import Gate, until
from sshd import Server

from callyard import Cache, Executor, Local


class Point:
    def __init__(self, x: int) -> None:
        self.x = x


def successor(value: int) -> int:
    return value + 1


def moved(point: Point) -> Point:
    return Point(point.x + 1)


def refuse(value: int) -> None:
    raise KeyError(value)


def speak(value: int) -> int:
    print("speaking", value)
    return value


def speak_and_refuse(value: int) -> int:
    print("refusing", value)
    raise KeyError(value)


def test_a_graph_goes_over_at_once(sshd: Server, gate: Gate) -> None:
    with Executor(backend=Local(detached=False, host=sshd.host("plain"))) as executor:
        first = executor.submit(gate.hold, 1)
        last = executor.submit(max, executor.submit(abs, -3), executor.submit(successor, 4))
        assert last.result(60) == 5
        assert not first.done()
        gate.open()
        first.result(60)
    assert "live on" in repr(executor)


def test_the_users_classes_and_functions_travel(sshd: Server) -> None:
    with Executor(backend=Local(detached=False, host=sshd.host("plain"))) as executor:
        point = executor.submit(moved, Point(2)).result(60)
        assert type(point) is Point
        assert point.x == 3
        here = 5
        assert executor.submit(lambda: here).result(60) == 5


def test_an_exception_has_its_traceback(sshd: Server) -> None:
    with Executor(backend=Local(detached=False, host=sshd.host("plain"))) as executor:
        failed = executor.submit(refuse, 7)
        dependent = executor.submit(successor, failed)
        error = failed.exception(60)
        assert isinstance(error, KeyError)
        assert "in refuse" in str(error.__cause__)
        assert any("successor <- refuse" in note for note in dependent.exception(60).__notes__)  # type: ignore[union-attr]


def test_cancel_and_shutdown(sshd: Server, gate: Gate) -> None:
    executor = Executor(1, backend=Local(detached=False, host=sshd.host("plain")))
    running = executor.submit(gate.hold, 1)
    waiting = executor.submit(gate.hold, 2)
    until(running.running)
    assert not running.cancel()
    assert waiting.cancel()
    executor.shutdown(wait=False, cancel_futures=True)
    with pytest.raises(RuntimeError):
        executor.submit(abs, -1)
    gate.open(2)
    running.result(60)
    executor.shutdown()


def test_what_runs_there_has_its_directory_and_the_users_umask(sshd: Server, tmp_path: Path) -> None:
    place = tmp_path / "there"
    host = sshd.host("plain", directory=place, setup=[str(sshd.host("plain").setup), "umask 027"])
    with Executor(backend=Local(detached=False, host=host)) as executor:
        assert executor.submit(os.getcwd).result(60) == str(place)
        assert executor.submit(os.umask, 0o077).result(60) == 0o027


def test_kill_ends_what_runs_there(sshd: Server, gate: Gate) -> None:
    with Executor(backend=Local(detached=False, host=sshd.host("plain"))) as executor:
        future = executor.submit(gate.hold, 1)
        gate.arrived(1)
        until(future.running)
        executor.kill_workers()
        assert future.exception(60) is not None


def test_a_result_is_answered_without_a_connection(sshd: Server, results: Path) -> None:
    with Executor(backend=Local(detached=False, host=sshd.host("plain")), cache=results) as executor:
        value = executor.submit(successor, executor.submit(successor, 1))
        assert value.result(60) == 3
    with Executor(backend=Local(detached=False, host=sshd.host("nobody-there")), cache=results) as executor:
        future = executor.submit(successor, executor.submit(successor, 1))
        assert future.cached
        assert future.result(60) == 3


def test_nothing_is_stored_in_a_cache_that_is_only_read(
    sshd: Server, results: Path, recwarn: pytest.WarningsRecorder
) -> None:
    with Executor(backend=Local(detached=False, host=sshd.host("plain")), cache=results) as executor:
        assert executor.submit(successor, 1).result(60) == 2
    read = Cache(results, mode="read-only")
    with Executor(backend=Local(detached=False, host=sshd.host("plain")), cache=read) as executor:
        assert executor.submit(successor, 1).cached
        assert executor.submit(successor, 2).result(60) == 3
        assert isinstance(executor.submit(successor, "x").exception(60), TypeError)
    assert len(list(read)) == 1
    assert [str(each.message) for each in recwarn] == []


@pytest.mark.parametrize("detached", [False, True])
def test_what_the_cache_here_knows_of_a_run_there(sshd: Server, results: Path, detached: bool) -> None:
    with Executor(backend=Local(detached=detached, host=sshd.host("plain")), cache=results) as executor:
        good = executor.submit(speak, 1)
        bad = executor.submit(speak_and_refuse, good)
        dependent = executor.submit(successor, bad)
        assert isinstance(dependent.exception(60), KeyError)
    finished, failed = Cache(results)  # the dependent call has not run
    assert (finished.function, finished.log, finished.state) == ("speak", "speaking 1\n", "finished")
    assert (failed.function, failed.log, failed.state) == ("speak_and_refuse", "refusing 1\n", "failed")
    assert failed.inputs == {good.key: "speak"}
    assert "in speak_and_refuse" in str(failed.traceback)
    for entry in (finished, failed):
        assert entry.seconds > 0
        assert entry.facts["pid"] != os.getpid()
        assert entry.usage is not None
        assert entry.usage.wall > 0
