"""Calls that wait for the test, and tests that wait for a call, across processes and without a clock."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_PATIENCE = 60.0  # s for what a test waits for
_HELD = 80.0  # s: a test that has failed opens no gate, and its executor waits for the call; below the limit of a test


class Gate:
    """A call that passes says so and is held until the test lets it through.

    Two named pipes, so it works in threads and in processes of any kind; only their paths are pickled.
    """

    def __init__(self, directory: Path) -> None:
        self.arrivals, self.passes = str(directory / "arrivals"), str(directory / "passes")
        for path in (self.arrivals, self.passes):
            os.mkfifo(path)
        # Open for both, so that neither side ever waits for the other to open.
        self.ends: Any = [os.open(path, os.O_RDWR) for path in (self.arrivals, self.passes)]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "ends": None}

    def hold(self, value: Any = None) -> Any:
        """For calls: arrive, wait, return the value."""
        with open(self.arrivals, "r+b", buffering=0) as arrivals, open(self.passes, "r+b", buffering=0) as passes:
            arrivals.write(b".")
            assert _readable(passes.fileno(), _HELD), "the test has not opened its gate"
            passes.read(1)
        return value

    def arrived(self, count: int = 1) -> None:
        """Wait until so many calls have arrived since the last time."""
        for _ in range(count):
            assert _readable(self.ends[0], _PATIENCE), "no call has arrived"
            os.read(self.ends[0], 1)

    def open(self, count: int = 1) -> None:
        """Let so many calls pass, those too that have not arrived."""
        os.write(self.ends[1], b"." * count)

    def close(self) -> None:
        for fd in self.ends:
            os.close(fd)


def _readable(fd: int, seconds: float) -> bool:
    """Wait until there is something to read; return False after `seconds`."""
    ready = select.poll()  # `select` knows the first 1,024 descriptors only
    ready.register(fd, select.POLLIN)
    return bool(ready.poll(seconds * 1000))


def held(gate: Gate, then: Callable[..., Any], *args: Any) -> Any:
    """Be held, then call."""
    gate.hold()
    return then(*args)


def until(condition: Callable[[], object]) -> None:
    """Wait for what can only be asked: nobody is told when a scheduler's job has begun."""
    deadline = time.monotonic() + _PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.01)
