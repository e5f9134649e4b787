"""Calls of the tests of `Local(detached=True)`, and executors that make them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from noted_calls import note

from callyard import Executor, Local
from callyard.backends import local_jobs
from callyard.schedulers.job_environment import current_job

local_jobs._RESULT_GRACE = 1.0  # s; tests of lost jobs wait for it


def executor(cache: Path | str | None, max_workers: int | None = None, **options: Any) -> Executor:
    return Executor(max_workers, backend=Local(**{"cores": 2, "detached": True, **options}), cache=cache)


def about_the_job() -> tuple[str, str, int]:
    job = current_job()
    return job.scheduler, job.job_id, job.restarts


def variables(*names: str) -> dict[str, str | None]:
    return {name: os.environ.get(name) for name in names}


def wait_for_end(journal: str) -> None:
    """Note the signal by which it hears of its end."""
    note(journal, "begun")
    try:
        while True:
            signal.pause()
    except SystemExit:
        note(journal, "SystemExit")
        raise


def hold(place: str, value: Any = None) -> Any:
    """Run until somebody makes the file `go`; note the start."""
    note(f"{place}/starts", value)
    while not os.path.exists(f"{place}/go"):
        time.sleep(0.02)
    return value


def leave_processes(journal: str, gate: Any) -> None:
    """Leave a process in a session of its own, and note all numbers; be held."""
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.pause()"
    child = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    note(journal, f"{os.getpid()},{os.getppid()},{child.pid}")
    gate.hold()


def about_the_session() -> tuple[bool, bool, str]:
    """Return whether it has a terminal, whether it shares a session with whoever submitted, and its standard input."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR))
        terminal = True
    except OSError:
        terminal = False
    return terminal, os.getsid(0) == os.getsid(os.getppid()), os.readlink("/proc/self/fd/0")
