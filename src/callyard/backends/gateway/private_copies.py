"""The copies of files from other computers for calls without a cache: they go with this process."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import tempfile

from ...cache.directory import CacheDirectory
from ...system.process_identity import ProcessIdentity, this_process
from ...utils.locks import new_lock, under
from .contents import FileCopies

__all__ = ["private_copies"]

_PREFIX = "callyard-files-"
_lock = new_lock()
os.register_at_fork(after_in_child=_lock._at_fork_reinit)  # a thread missing in the child may have held it
_made: dict[int, FileCopies] = {}  # by process, as a forked child has its own


def private_copies() -> FileCopies:
    """Return the copies of this process, in a directory of its own below the system's for temporary files.

    The directory is removed at the end of the interpreter, and if this process is killed, by the next one that has
    copies.
    """
    return under(_lock, _of_process)


def _of_process() -> FileCopies:
    known = _made.get(os.getpid())
    if known is None:
        _remove_abandoned(tempfile.gettempdir())
        path = tempfile.mkdtemp(prefix=f"{_PREFIX}{this_process().label}+")
        atexit.register(_remove, path, os.getpid())
        known = _made[os.getpid()] = FileCopies(CacheDirectory.open(path))
    return known


def _remove(path: str, process: int) -> None:
    if os.getpid() == process:
        shutil.rmtree(path, ignore_errors=True)


def _remove_abandoned(directory: str) -> None:
    for entry in os.scandir(directory):
        if not entry.name.startswith(_PREFIX):
            continue
        owner = ProcessIdentity.from_label(entry.name[len(_PREFIX) :].partition("+")[0])
        with contextlib.suppress(OSError):
            own = entry.stat(follow_symlinks=False).st_uid == os.geteuid()
            if own and owner is not None and owner.state() == "gone":
                shutil.rmtree(entry.path, ignore_errors=True)
