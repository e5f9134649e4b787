"""The directories of runs, which the nodes see too: of jobs without a cache, of live calls, and of logs."""

from __future__ import annotations

import contextlib
import os
import shutil
import time

from ..cache.directory import CacheDirectory
from ..errors import CallyardError
from ..jobs.find_batches import folders
from ..jobs.spool import BatchDirectory
from ..system.process_identity import ProcessIdentity, this_process
from ..utils.paths import runs_directory

__all__ = ["live_directory", "log_directory", "private_home", "remove_if_over"]


_KEPT = 7 * 24 * 3600.0  # s for which logs are kept


def private_home() -> CacheDirectory:
    """Make a directory that the nodes see too: in the user's home, or in CALLYARD_RUNS.

    The name has the maker's identity, so that a later process can remove the directory after the ends of all jobs.
    """
    _remove_abandoned()
    return CacheDirectory.open(os.path.join(runs_directory(), f"{this_process().label}+{os.urandom(4).hex()}"))


def _remove_abandoned() -> None:
    """Remove the directories of processes that are gone, once their jobs have ended."""
    with contextlib.suppress(OSError, CallyardError):
        for name in os.listdir(runs_directory()):
            owner = ProcessIdentity.from_label(name.partition("+")[0])
            if owner is not None and owner.state() == "gone":
                remove_if_over(CacheDirectory.open(os.path.join(runs_directory(), name)))


def remove_if_over(home: CacheDirectory) -> None:
    """Remove a directory of jobs without a cache, unless some still run: no process is left to read the results.

    After an error with the name of a log there, already told to the user, the directory stays for a week.
    """
    if all(folder.is_over() and not _is_named(folder) for folder in folders(home)):
        gone = f"{home.path}.gone"  # renamed first: jobs that are just ending find no place to write
        with contextlib.suppress(OSError):
            os.rename(home.path, gone)
        shutil.rmtree(gone, ignore_errors=True)


def _is_named(folder: BatchDirectory) -> bool:
    """Return True if an error names a log of this batch, with output from the last days."""
    for number, progress in folder.news().items():
        with contextlib.suppress(OSError, CallyardError):
            log, outcome = folder.log(number), folder.ended(number) if progress == "seen" else None
            named = outcome is not None and os.fsencode(log) in outcome.failure
            if named and os.stat(log).st_mtime > time.time() - _KEPT:
                return True
    return False


def live_directory() -> str:
    """Return the directory in which agents on the nodes find this process's contact."""
    return os.path.join(runs_directory(), "live")


def log_directory() -> str:
    """Return the directory for the logs of pilot jobs, and remove logs that are a week old."""
    path = os.path.join(runs_directory(), "logs")
    os.makedirs(path, mode=0o700, exist_ok=True)
    for entry in os.scandir(path):
        with contextlib.suppress(OSError):  # another process removes it
            if entry.stat().st_mtime < time.time() - _KEPT:
                os.unlink(entry.path)
    return path
