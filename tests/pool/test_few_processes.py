"""A machine on which no more processes can be had: the calls wait for the workers that are there."""

from __future__ import annotations

import os
import textwrap
import time
from pathlib import Path

import pytest

from callyard import Executor, WorkerLost
from callyard.pool import worker_starter

PATIENCE = 60.0  # s; nothing here takes as long

# Read by each new interpreter, so by the zygote: it may have only as many children as a file says.
FEW = """
    import os

    def fork(fork=os.fork):
        children = open(f"/proc/self/task/{os.getpid()}/children").read().split()
        if len(children) >= int(open(os.environ["ROOM_FOR_WORKERS"]).read()):
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return fork()

    os.fork = fork
"""

pytestmark = pytest.mark.needs("linux")


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that says how many workers can be started."""
    (tmp_path / "sitecustomize.py").write_text(textwrap.dedent(FEW))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *os.environ.get("PYTHONPATH", "").split()]))
    monkeypatch.setenv("ROOM_FOR_WORKERS", str(tmp_path / "room"))
    return tmp_path / "room"


def pid_after(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def test_calls_wait_for_the_workers_that_could_be_started(room: Path) -> None:
    room.write_text("2")
    with Executor(6) as executor:
        calls = [executor.submit(pid_after, 0.01) for _ in range(40)]
        assert len({call.result(PATIENCE) for call in calls}) == 2


def test_idle_workers_of_another_kind_make_room(room: Path) -> None:
    room.write_text("1")
    with Executor(4) as executor:
        other = executor.with_resources(env={"ANOTHER": "kind"})
        for _ in range(2):
            calls = [each.submit(pow, 2, i) for i in range(5) for each in (executor, other)]
            assert [call.result(PATIENCE) for call in calls] == [2**i for i in range(5) for _ in range(2)]


def test_calls_fail_where_there_is_no_worker_at_all_and_others_run_later(room: Path) -> None:
    room.write_text("0")
    with Executor(2) as executor:
        calls = [executor.submit(pow, 2, i) for i in range(5)]
        for call in calls:
            with pytest.raises(
                WorkerLost, match=r"no worker .* cannot be forked: .* unavailable; ask for fewer workers"
            ):
                call.result(PATIENCE)
        room.write_text("1")
        assert executor.submit(pow, 2, 3).result(PATIENCE) == 8


def test_more_are_started_when_there_is_room_again(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_starter, "_START_AGAIN", 0.05)
    room.write_text("1")
    with Executor(3) as executor:
        assert len({call.result(PATIENCE) for call in [executor.submit(os.getpid) for _ in range(6)]}) == 1
        room.write_text("3")
        until = time.monotonic() + PATIENCE
        seen: set[int] = set()
        while len(seen) < 3 and time.monotonic() < until:
            seen |= {call.result(PATIENCE) for call in [executor.submit(pid_after, 0.02) for _ in range(12)]}
        assert len(seen) == 3
