"""The processes of jobs, as the daemon sees them: keepers, and what a job leaves behind when its keeper was killed."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

from ..schedulers.local.variables import JOB_VARIABLES
from ..system.process_identity import ProcessIdentity
from ..system.processes import exit_code, kill, watch_end
from .keeper import HELD_BACK, KeptJob, keep

__all__ = ["KeeperEnd", "Keepers", "end_processes_of"]

_LOOK = 1.0  # s between two looks at the keepers of an earlier daemon, on systems without pidfd
_UNKILLABLE = 5.0  # s for the ends of killed processes


class KeeperEnd(NamedTuple):
    """The end of a keeper: its job, and its exit status, minus the signal, or None if it was no child of ours."""

    job: str
    code: int | None


class _Adopted(NamedTuple):
    keeper: ProcessIdentity
    descriptor: int | None


class Keepers:
    """The keepers of all running jobs."""

    def __init__(self, directory: str, selector: selectors.BaseSelector) -> None:
        self._directory, self._selector = directory, selector
        self._children: dict[int, str] = {}
        self._adopted: dict[str, _Adopted] = {}

    def start(self, name: str, job: KeptJob) -> None:
        """Start the keeper of a job.

        Raises:
            OSError: there is no room for another process.
        """
        sys.stderr.flush()  # whose text the fork would write once more
        before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)  # so that none reaches a keeper not yet listening
        try:
            pid = os.fork()
            if pid == 0:
                keep(job, self._directory)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._children[pid] = name

    def adopt(self, name: str, keeper: ProcessIdentity) -> None:
        """Watch the keeper of an earlier daemon."""
        descriptor = watch_end(keeper.pid)
        self._adopted[name] = _Adopted(keeper, descriptor)
        if descriptor is not None:
            self._selector.register(descriptor, selectors.EVENT_READ)

    def tell(self, name: str) -> None:
        """Tell the keeper of a job to end the job."""
        pid = next((pid for pid, of in self._children.items() if of == name), 0)
        adopted = self._adopted.get(name)
        if adopted is not None and adopted.keeper.state() == "alive":
            pid = adopted.keeper.pid
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def ends(self) -> Iterator[KeeperEnd]:
        """Yield the keepers that have ended, each once."""
        for name, (keeper, descriptor) in list(self._adopted.items()):
            if keeper.state() == "gone":
                del self._adopted[name]
                if descriptor is not None:
                    self._selector.unregister(descriptor)
                    os.close(descriptor)
                yield KeeperEnd(name, None)
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    return
                name_of_child = self._children.pop(pid, None)
                if name_of_child is not None:  # else left behind by a job whose keeper was killed
                    yield KeeperEnd(name_of_child, exit_code(status))

    def patience(self) -> float | None:
        """Return the seconds until the next look; None where the system tells of each end."""
        return _LOOK if any(adopted.descriptor is None for adopted in self._adopted.values()) else None


def end_processes_of(job: str) -> None:
    """Kill all processes of a job whose keeper is gone; they are known by the variable that tells them their job."""
    mark = f"{JOB_VARIABLES.job}={job}".encode()
    until = time.monotonic() + _UNKILLABLE
    while time.monotonic() < until:
        # Again after each round: they may have forked. An ended process has no environment.
        if not sum(kill(pid) for pid in _processes_with(mark)):
            return


def _processes_with(mark: bytes) -> Iterator[int]:
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir("/proc"):
            if name.isdigit() and int(name) != os.getpid():
                with contextlib.suppress(OSError), open(f"/proc/{name}/environ", "rb") as file:
                    if mark in file.read().split(b"\0"):
                        yield int(name)
