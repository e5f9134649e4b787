"""What the tests of remembering share: a cache, a gate, executors, and other processes that use the cache."""

from __future__ import annotations

import logging
import os
import queue
import select
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from gate import Gate

from callyard import Executor

INTERPRETER_WARNINGS = "error,ignore:This process:DeprecationWarning"  # some of these tests fork in a call


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--writer-kills", type=int, default=30, help="how many writers the stress test of the cache kills")
    parser.addoption("--writer-seed", type=int, default=1, help="the seed of that test")


@pytest.fixture
def place(tmp_path: Path) -> str:
    """Where the gate is, for the calls."""
    path = tmp_path / "gate"
    path.mkdir()
    return str(path)


@pytest.fixture
def gate(place: str) -> Iterator[Gate]:
    gate = Gate(Path(place))
    yield gate
    gate.close()


@pytest.fixture
def make(results: Path, gate: Gate) -> Iterator[Callable[..., Executor]]:
    """Make executors that remember in `results`, and end with the test."""
    with ExitStack() as stack:

        def create(max_workers: int | None = 1, *, cache: Any = results, **options: Any) -> Executor:
            return stack.enter_context(Executor(max_workers, cache=cache, **options))

        yield create
        gate.open(1000)  # so that a failed test does not hang


@pytest.fixture
def ex(make: Callable[..., Executor]) -> Executor:
    return make()


@pytest.fixture
def threads(make: Callable[..., Executor], gate: Gate) -> Iterator[Executor]:
    """An executor without processes, which are slow to start: one call at a time, in a thread."""
    with ThreadPoolExecutor(1) as pool:
        yield make(None, backend=pool)
        gate.open(1000)


class Messages(logging.Handler):
    """What Callyard logs, in the order in which it does."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: queue.SimpleQueue[str] = queue.SimpleQueue()

    def emit(self, record: logging.LogRecord) -> None:
        self.queue.put(record.getMessage())

    def wait(self, words: str) -> str:
        """The next message with these words; those before are dropped."""
        while words not in (message := self.queue.get()):
            pass
        return message


@pytest.fixture
def messages(caplog: pytest.LogCaptureFixture) -> Iterator[Messages]:
    caplog.set_level(logging.INFO, "callyard")
    logger, handler = logging.getLogger("callyard"), Messages()
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


class Script:
    """A process of its own that uses Callyard. What it logs and prints is its output, line by line."""

    HEAD = """
        import logging, os, signal, sys
        signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started the tests may ignore it
        logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s")
        import remembered_calls as calls
        from callyard import Cache, Executor
    """

    def __init__(self, text: str, names: dict[str, object], **environment: str) -> None:
        constants = "".join(f"{name} = {value!r}\n" for name, value in names.items())
        paths = os.pathsep.join([os.path.dirname(__file__), *filter(None, sys.path)])
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-c", textwrap.dedent(self.HEAD) + constants + textwrap.dedent(text)],
            env={**os.environ, "PYTHONPATH": paths, "PYTHONWARNINGS": INTERPRETER_WARNINGS, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_for(self, words: str) -> str:
        """Its next line of output with these words; those before are dropped."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if words in line:
                return line.strip()
        _, errors = self.process.communicate()
        pytest.fail(f"the script has ended and not said {words!r}: {errors}")

    def finish(self) -> tuple[int, str, str]:
        """Wait for its end; exit code, the rest of its output, errors."""
        out, errors = self.process.communicate()
        return self.process.returncode, out, errors

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        self.kill()
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


@pytest.fixture
def ended() -> Callable[[int], None]:
    """Wait until a process has ended, also if nobody has asked for its exit code yet. On Linux only."""

    def wait(pid: int) -> None:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            select.select([descriptor], [], [])
        finally:
            os.close(descriptor)

    return wait


@pytest.fixture
def script(results: Path, journal: str, place: str, gate: Gate) -> Iterator[Callable[..., Script]]:
    """Start a process that knows RESULTS, JOURNAL and PLACE."""
    made: list[Script] = []

    def run(text: str, hash_seed: int = 0, **names: object) -> Script:
        names = {"RESULTS": str(results), "JOURNAL": journal, "PLACE": place, **names}
        made.append(Script(text, names, PYTHONHASHSEED=str(hash_seed)))
        return made[-1]

    yield run
    for each in made:
        each.end()
