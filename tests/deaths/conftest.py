"""What the tests of death share: places to meet, executors, scripts whose end is watched."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from callyard import Executor

MARK = "CALLYARD_TEST_DEATH"
WARNINGS = "error,ignore:This process:DeprecationWarning"  # these tests do fork a process with threads
PATIENCE = 10.0  # s for processes that must end; spent only when they do not


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=40, help="how many workers the stress test kills")
    parser.addoption("--seed", type=int, default=1, help="the seed of the stress test")


@pytest.fixture
def fifo(tmp_path: Path) -> Callable[[], str]:
    """Makes places where two processes meet: each waits for the other."""

    def make() -> str:
        path = tmp_path / f"fifo-{uuid.uuid4().hex[:8]}"
        os.mkfifo(path)
        return str(path)

    return make


@pytest.fixture
def executor() -> Iterator[Executor]:
    with Executor(2) as made:
        yield made


class Inside:
    """What the tests know of an executor that its users do not."""

    def __init__(self, executor: Executor) -> None:
        self.node: Any = executor._running.backend._runner  # type: ignore[attr-defined]

    @property
    def workers(self) -> list[int]:
        return [each.pid for each in list(self.node._dispatcher.connections.values()) if each.pid is not None]

    @property
    def zygote(self) -> int:
        return int(self.node._dispatcher.zygote._process.pid)


@pytest.fixture
def inside() -> type[Inside]:
    return Inside


def until_gone(pids: list[int]) -> None:
    """Wait until these processes have ended, though perhaps nobody has asked for their exit codes yet."""
    left = [pid for pid in pids if not _ends(pid)]
    assert not left, f"still alive: {left}"


def _ends(pid: int) -> bool:
    if not hasattr(os, "pidfd_open"):
        return not psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], PATIENCE)[1]
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], PATIENCE)[0])
    finally:
        os.close(descriptor)


@pytest.fixture
def ended() -> Callable[[list[int]], None]:
    return until_gone


class Script:
    """A program of its own that uses Callyard, and everything that it starts."""

    def __init__(self, directory: Path, text: str, **names: object) -> None:
        self.place = directory / "tmp"  # its TMPDIR
        self.place.mkdir()
        file = directory / "script.py"
        constants = "".join(f"{name} = {value!r}\n" for name, value in names.items())
        imports = "import os, signal, sys, threading\nimport acts\nfrom callyard import Executor\n"
        file.write_text(imports + constants + textwrap.dedent(text))
        self.mark = uuid.uuid4().hex
        environment = {**os.environ, MARK: self.mark, "TMPDIR": str(self.place), "PYTHONWARNINGS": WARNINGS}
        environment["PYTHONPATH"] = os.pathsep.join([os.path.dirname(__file__), *filter(None, sys.path)])
        self.process = subprocess.Popen(
            [sys.executable, str(file)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self) -> tuple[int, str, str]:
        """Wait for its end; exit code, output, errors."""
        out, err = self.process.communicate()
        return self.process.returncode, out, err

    def wait(self) -> int:
        """Wait for its end, though others may hold its output open."""
        return self.process.wait()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for pid in self.relatives():  # only where a test has failed
            os.kill(pid, signal.SIGKILL)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()

    def relatives(self) -> list[int]:
        """The processes that live and were started by it, directly or not."""
        found: list[int] = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self.mark and process.pid != self.process.pid:
                    found.append(process.pid)
            except psutil.Error:
                continue
        return found

    def assert_nothing_left(self, but: tuple[int, ...] = ()) -> None:
        until_gone([pid for pid in self.relatives() if pid not in but])
        assert list(self.place.rglob("*")) == []


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Callable[..., Script]]:
    made: list[Script] = []

    def run(text: str, **names: object) -> Script:
        made.append(Script(tmp_path, text, **names))
        return made[-1]

    yield run
    for each in made:
        each.end()
