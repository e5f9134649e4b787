"""Wait for the end of a process that is nobody's child here."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal


def wait_for_death(pid: int, patience: float) -> None:
    """Kill a process and wait until it has ended, for at most `patience` s."""
    with contextlib.suppress(OSError, AttributeError):  # gone already; a system without pidfd
        os.killpg(pid, signal.SIGKILL)  # a worker leads a group: what it started ends too
        descriptor = os.pidfd_open(pid)
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            selector.select(patience)
        os.close(descriptor)
