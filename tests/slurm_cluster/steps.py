"""A process that kills itself at a chosen step: before it changes a file in a directory, or starts a command."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def die_at(step: int, directory: str) -> None:
    """Count the steps from now on; name the one at which it ends on the standard error."""
    count = 0

    def look(event: str, args: tuple[Any, ...]) -> None:
        nonlocal count
        if not is_step(event, args, directory):
            return
        count += 1
        if count == step:
            os.write(2, f"step {step}: {event} {' '.join(map(str, args[:2]))[:200]}\n".encode())
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(look)


def is_step(event: str, args: tuple[Any, ...], directory: str) -> bool:
    if event == "subprocess.Popen":
        return True
    if event == "open":
        return isinstance(args[2], int) and bool(args[2] & WRITING) and is_within(args[0], directory)
    # What is removed with its whole directory has a name that counts from a descriptor.
    return event in CHANGES and (is_within(args[0], directory) or args[-1] != -1)


def is_within(path: object, directory: str) -> bool:
    return isinstance(path, str) and path.startswith(directory)
