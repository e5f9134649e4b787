"""The output of an agent and its calls, written to the log of the pilot job within the limit of the log.

    the agent, and all that it starts ----> pipe ----> the process that the scheduler has started ----> the log

One process can keep a file within its limit, so agents of a job with several nodes have files of their own beside the
log of the job, which has the output of their starts.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
from functools import partial
from math import inf

from ..schedulers.job_environment import current_job
from ..system.processes import default_signals
from ..worker.job_log import JobLog
from .hello import node_name

# Flux ends a job at its time limit by SIGALRM.
_PASSED_ON = (
    *(signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGALRM, signal.SIGTERM),
    *(signal.SIGUSR1, signal.SIGUSR2),
)


def log_path(path: str, apart: bool) -> str:
    """Return the log for the agent of this process, from the path with "{element}" for the number of the element."""
    path = path.replace("{element}", str(current_job().element or 0))
    return f"{path.removesuffix('.log')}.{node_name()}.log" if apart else path


def keep_output(path: str, limit: int) -> None:
    """Go on in a new process, whose output goes to this log within its limit (bytes).

    The present process only writes the log from here on. It ends after the new one, with the same exit code: when the
    scheduler's own process ends, the scheduler kills the others, and the last words would be lost.
    """
    log = JobLog(limit)
    log.open(path)
    agent = os.fork()
    if agent == 0:
        log.enter()
        return
    sys.exit(_write_until_the_end(log, agent))


def _write_until_the_end(log: JobLog, agent: int) -> int:
    """Write what the agent prints; return its exit code once it has ended."""
    # Slurm sends signals to all processes of a step or, where it tracks them by cgroup, only to those that it has
    # started itself. So the agent may get a signal twice.
    for signum in _PASSED_ON:
        signal.signal(signum, partial(_pass_on, agent))
    woken, wake = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # without a handler the signal wakes nobody
    signal.set_wakeup_fd(wake)
    while True:
        pid, status = os.waitpid(agent, os.WNOHANG)
        if pid:
            break
        patience = log.patience()
        ready = select.select([woken, *log.descriptors()], [], [], None if patience == inf else patience)[0]
        if woken in ready:
            os.read(woken, 1 << 10)
        log.copy()
    log.drain()
    code = os.waitstatus_to_exitcode(status)
    if code < 0:  # by the same signal, so that the scheduler knows it
        default_signals()
        os.kill(os.getpid(), -code)
    return code


def _pass_on(agent: int, signum: int, _: object) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(agent, signum)
