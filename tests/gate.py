"""Calls that wait for the test, and tests that wait for a call, across processes and without a clock."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


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
            passes.read(1)
        return value

    def arrived(self, count: int = 1) -> None:
        """Wait until so many calls have arrived since the last time."""
        for _ in range(count):
            os.read(self.ends[0], 1)

    def open(self, count: int = 1) -> None:
        """Let so many calls pass, those too that have not arrived."""
        os.write(self.ends[1], b"." * count)

    def close(self) -> None:
        for fd in self.ends:
            os.close(fd)


def held(gate: Gate, then: Callable[..., Any], *args: Any) -> Any:
    """Be held, then call."""
    gate.hold()
    return then(*args)


def until(condition: Callable[[], object]) -> None:
    """Wait for what can only be asked: nobody is told when a scheduler's job has begun."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.01)
