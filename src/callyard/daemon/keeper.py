"""The keeper of a job: the process between the daemon and the job's script, which outlives the daemon.

    daemon -- keeper -- bash SCRIPT -- the job's process -- the call
                    `-- processes of the job that have lost their parent

It leaves behind how the job ended, and ends all processes below it: at the end of the script, at the job's time limit,
and when it is told to (SIGTERM).
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from ..hosts.daemon import ask, start_daemon
from ..system.process_title import set_title
from ..system.processes import (
    become_subreaper,
    children,
    default_signals,
    end_children,
    exit_code,
    kill_group,
    reaped,
    status_of_ended,
)
from .run_file import RunEnd, claim_run, write_end

__all__ = ["CLAIMED", "HELD_BACK", "NO_ROOM", "KeptJob", "keep"]

ENDED, TOLD = 0, 1  # exit statuses of a keeper: its job has ended by itself, or because it was told to
CLAIMED, NO_ROOM, FAULT = 3, 4, 5  # its job has not begun
_WAITED = (signal.SIGCHLD, signal.SIGTERM, signal.SIGALRM)
HELD_BACK = (*_WAITED, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)
_GRACE = 2.0  # s between SIGTERM and SIGKILL to a call that says nothing else
_MARGIN = 5.0  # s for the job's own process to end the call and to write that down, before all are killed
_UNKILLABLE = 5.0  # s for the ends of killed processes
_ANSWER = 5.0  # s for the sign of life of a daemon


@dataclass(frozen=True)
class KeptJob:
    """A job for a keeper; `time` and `grace` in s."""

    run_file: str
    script: str
    log: str
    environment: Mapping[str, str]
    gpus: tuple[str, ...]
    time: float | None
    grace: float | None


def keep(job: KeptJob, directory: str) -> NoReturn:
    """Become the keeper of a job, in a fork of the daemon in which `HELD_BACK` are blocked."""
    daemon, status = os.getppid(), FAULT
    set_title(f"keeper of {os.path.basename(job.run_file)} in {directory}", "")
    try:
        status = _keep(job)
        # Not if this process was told to end: then the machine may be shutting down.
        if status == ENDED and os.getppid() != daemon and ask("reach", _ANSWER) is None:
            start_daemon(directory)  # the daemon was killed, and other jobs may wait
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)


def _keep(job: KeptJob) -> int:
    os.setsid()
    signal.set_wakeup_fd(-1)
    # The daemon's lock, most of all: it must go with the daemon. (There are few; the limit may be a thousand million.)
    os.closerange(3, max(map(int, os.listdir("/dev/fd"))) + 1)
    become_subreaper()
    try:
        claim_run(job.run_file, job.gpus)
    except FileExistsError:
        return CLAIMED
    except OSError as error:
        return NO_ROOM if error.errno in (errno.ENOSPC, errno.EDQUOT) else FAULT
    try:
        pid = os.fork()
    except OSError:
        os.unlink(job.run_file)
        return NO_ROOM
    if pid == 0:
        _run_script(job)
    why, status = _wait(pid, job)
    end_children(_UNKILLABLE)
    write_end(job.run_file, _end(why, status))
    return TOLD if why == "told" else ENDED


def _run_script(job: KeptJob) -> NoReturn:
    try:
        os.setsid()
        default_signals()
        for signum in (signal.SIGPIPE, signal.SIGXFSZ):  # ignored by each interpreter
            signal.signal(signum, signal.SIG_DFL)
        log = os.open(job.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.execvpe("bash", ["bash", job.script], dict(job.environment))
    except FileNotFoundError:  # the folder of a job that is not wanted any more
        pass
    except OSError as error:
        os.write(2, f"{job.script} cannot be run: {error}\n".encode())
    finally:
        os._exit(126)


def _wait(pid: int, job: KeptJob) -> tuple[str, int]:
    """Wait for the end of the script; return the reason if it was ended here, and its status."""
    why, due = "", None if job.time is None else time.monotonic() + job.time
    while (status := status_of_ended(pid)) is None:
        now = time.monotonic()
        if due is not None and now >= due:
            if why:
                end_children(_UNKILLABLE, spared=pid)
                kill_group(pid, signal.SIGKILL)
                due = now + _UNKILLABLE  # once more, should it be deep in the kernel
            else:
                why, due = "time", _tell(pid, job, now)
        signal.setitimer(signal.ITIMER_REAL, 0.0 if due is None else max(0.001, due - now))
        if signal.sigwait(_WAITED) == signal.SIGTERM and not why:
            why, due = "told", _tell(pid, job, time.monotonic())
        for other in children():
            if other != pid:
                reaped(other)
    signal.setitimer(signal.ITIMER_REAL, 0.0)
    return why, status


def _tell(pid: int, job: KeptJob, now: float) -> float:
    """Tell the script and its processes to end; return the time at which they are killed."""
    for signum in (signal.SIGTERM, signal.SIGCONT):
        kill_group(pid, signum)
    return now + (_GRACE if job.grace is None else job.grace) + _MARGIN


def _end(why: str, status: int) -> RunEnd:
    code = exit_code(status)
    return RunEnd(why or ("failed" if code else "exited"), code if code >= 0 else None, -code if code < 0 else None)
