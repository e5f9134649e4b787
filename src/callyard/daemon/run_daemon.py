"""The daemon's process: its start, by whichever process needs it first, and its lock.

    python -c "... main()" DIRECTORY

The started process returns when a daemon listens, this one or another, and leaves it behind: in a session of its own,
without a terminal, deaf to SIGHUP, so that it survives a logout.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import selectors
import signal
import sys
import time
import traceback
from typing import NoReturn

from ..hosts.daemon import ask
from ..pool.call_shape import NodeCapacity
from ..system.machine import GIB, detect
from ..system.process_title import set_title
from ..system.processes import become_subreaper, default_signals
from .answers import Commands
from .job_files import JobFiles
from .job_names import JobNames
from .job_processes import Keepers
from .job_runner import JobRunner
from .server import Server

__all__ = ["main"]

_PATIENCE = 20.0  # s for another daemon to end, or to answer
_LOOK = 0.05  # s between two looks at the lock
_ANSWER = 2.0  # s for another daemon's sign of life
_LONGEST_LOG = 1 << 20  # bytes
_READY = b"ready"


def main() -> None:
    """Start the daemon, and return when one listens; exit with 1 and a sentence on stderr if there is none."""
    default_signals()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    directory = sys.argv[1]
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.close(reading)
        _become_daemon(directory, writing)
    os.close(writing)
    with open(reading, "rb") as news:
        said = news.read()
    if said != _READY:
        os.write(2, said or f"it has ended at once; see {directory}/log".encode())
    os._exit(0 if said == _READY else 1)


def _become_daemon(directory: str, news: int) -> NoReturn:
    status = 1
    try:
        os.setsid()
        set_title(f"daemon in {directory}")
        os.umask(0o077)
        os.chdir("/")
        _log_to(os.path.join(directory, "log"))
        os.environ["CALLYARD_DAEMON"] = directory
        lock = _lock(directory)
        if lock is None:
            os.write(news, _READY)
        else:
            _serve(directory, news)
        status = 0
    except BaseException as error:
        traceback.print_exc()
        with contextlib.suppress(OSError):
            os.write(news, str(error).encode())
    finally:
        with contextlib.suppress(OSError):
            sys.stderr.flush()
        os._exit(status)


def _log_to(path: str) -> None:
    """Lead the standard streams away from those of the process that needed a daemon."""
    with contextlib.suppress(OSError):
        if os.stat(path).st_size > _LONGEST_LOG:
            os.truncate(path, 0)
    null = os.open(os.devnull, os.O_RDWR)
    try:
        log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError:  # no room
        log = null
    for source, number in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, number)
    for descriptor in {null, log} - {0, 1, 2}:
        os.close(descriptor)


def _lock(directory: str) -> int | None:
    """Return the lock of the only daemon, a descriptor; None if another daemon has it, and answers.

    Raises:
        OSError: the lock cannot be had, and nobody answers.
    """
    lock = os.open(os.path.join(directory, "lock"), os.O_RDWR | os.O_CREAT, 0o600)
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except BlockingIOError:
            if ask("reach", _ANSWER) is not None:
                os.close(lock)
                return None
        if time.monotonic() > until:
            raise TimeoutError(f"another daemon has the lock in {directory}, and does not answer; end it (see its log)")
        time.sleep(_LOOK)


def _serve(directory: str, news: int) -> None:
    become_subreaper()  # finds what a job leaves behind when its keeper is killed
    capacity, names = _machine(), JobNames.here(directory)
    with selectors.DefaultSelector() as selector:
        keepers = Keepers(directory, selector)
        runner = JobRunner(JobFiles(directory), keepers, capacity, names)
        server = Server(directory, runner, Commands(runner, capacity, names), selector)
        runner.load()
        server.listen()
        os.write(news, _READY)
        os.close(news)
        server.run()


def _machine() -> NodeCapacity:
    """Return what there is to give out: all of the machine, not only the part that the first user happened to have."""
    if hasattr(os, "sched_setaffinity"):
        with contextlib.suppress(OSError):  # the kernel leaves out cores that are not this process's to use
            os.sched_setaffinity(0, range(os.cpu_count() or 1))
    found = detect()
    return NodeCapacity(found.cores, found.gpus, int(found.memory * GIB))
