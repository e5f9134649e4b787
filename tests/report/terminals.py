"""A program in a terminal: a pseudo-terminal, and an emulator that knows what its user would see."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyte

ROWS, COLUMNS = 16, 120
PATIENCE = 60.0  # s


class Terminal:
    """A Python program in a terminal of its own."""

    def __init__(self, cwd: Path, *arguments: str) -> None:
        self._master, slave = pty.openpty()
        self.screen = pyte.Screen(COLUMNS, ROWS)
        self._stream = pyte.ByteStream(self.screen)
        set_size = ["stty", "rows", str(ROWS), "cols", str(COLUMNS)]
        subprocess.run(set_size, stdin=slave, check=True)
        environment = {**os.environ, "TERM": "xterm", "PYTHON_BASIC_REPL": "1", "PYTHONIOENCODING": "utf-8"}
        self._process = subprocess.Popen(
            ["setsid", "--ctty", "--wait", sys.executable, *arguments],
            stdin=slave, stdout=slave, stderr=slave, cwd=cwd, env=environment,
        )  # fmt: skip
        os.close(slave)

    @property
    def lines(self) -> list[str]:
        """The rows with something in them, as the user sees them."""
        return [line.rstrip() for line in self.screen.display if line.strip()]

    @property
    def bottom(self) -> str:
        return self.screen.display[-1].rstrip()

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def until(self, seen: Callable[[], bool]) -> None:
        """Read on until something is seen."""
        deadline = time.monotonic() + PATIENCE
        while not seen():
            assert time.monotonic() < deadline, "\n".join(self.screen.display)
            assert self._read() or seen(), "\n".join(self.screen.display)

    def close(self) -> None:
        self._process.kill()  # that has ended, unless the test failed
        self._process.wait(PATIENCE)
        os.close(self._master)

    def end(self) -> int:
        """Read all that is left; return the exit status."""
        while self._read():
            pass
        return self._process.wait(PATIENCE)

    def _read(self) -> bool:
        """Feed the emulator; return False at the end of the program."""
        ready, _, _ = select.select([self._master], [], [], 1.0)
        if not ready:
            return True
        try:
            data = os.read(self._master, 65536)
        except OSError:  # on Linux the end of a terminal is an error
            return False
        self._stream.feed(data)
        return bool(data)
