"""Calls that change what their process shares with ours, and end as calls do: they return, raise, or raise `Again`."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from typing import Any

from callyard import Again  # before the calls, which leave no room for imports


def in_a_removed_directory() -> None:
    place = tempfile.mkdtemp()
    os.chdir(place)
    shutil.rmtree(place)


def without_environment() -> None:
    os.environ.clear()


def with_a_umask_for_nobody() -> None:
    os.umask(0o777)


def deaf() -> None:
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGURG, signal.SIGUSR1, signal.SIGCHLD):
        signal.signal(signum, signal.SIG_IGN)


def with_all_signals_blocked() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


def without_descriptors() -> None:
    os.closerange(0, 1 << 12)


def with_no_descriptors_left() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def with_files_of_no_size() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def with_an_alarm() -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, 0.05)


def beside_a_thread_and_a_child() -> None:
    threading.Thread(target=threading.Event().wait, args=(600.0,), daemon=True).start()
    if os.fork() == 0:
        signal.pause()


def without_paths() -> None:
    sys.path[:] = []
    sys.path_hooks[:] = []
    sys.stdout = sys.stderr = None  # type: ignore[assignment]


def in_a_session_of_its_own() -> None:
    os.setpgid(0, 0) if os.getpgrp() != os.getpid() else None
    sys.setrecursionlimit(60)


DISTURBANCES = (
    in_a_removed_directory, without_environment, with_a_umask_for_nobody, deaf, with_all_signals_blocked,
    without_descriptors, with_no_descriptors_left, with_files_of_no_size, with_an_alarm, beside_a_thread_and_a_child,
    without_paths, in_a_session_of_its_own,
)  # fmt: skip


def end_after(disturb: Callable[[], None], how: str, attempt: int = 1) -> Any:
    disturb()
    if how == "raise":
        raise ValueError("of the call")
    if how == "again" and attempt == 1:
        raise Again(disturb, how, 2)
    return attempt
