"""The file by which the keeper of a job claims the job, and in which it leaves how the job ended.

A keeper that was started twice, because the daemon was killed in between, finds the file of the first. The room for the
end is taken at the beginning, so a disk that is full by then keeps no end from being told.
"""

from __future__ import annotations

import errno
import json
import os
from typing import NamedTuple

from ..system.process_identity import ProcessIdentity, own_label
from ..utils.lite_stdlib import suppress

__all__ = ["RunEnd", "RunRecord", "claim_run", "read_run", "write_end"]

_ROOM = 256  # bytes
_NOBODY = ProcessIdentity("", "", "", "", 0, 0)


class RunEnd(NamedTuple):
    """The end of a job: a word of `schedulers/local/states`, the script's exit code, or the signal that ended it."""

    why: str
    code: int | None = None
    signal: int | None = None


class RunRecord(NamedTuple):
    """A job that was started: its keeper, its GPUs, and its end, if it has ended."""

    keeper: ProcessIdentity
    gpus: tuple[str, ...]
    end: RunEnd | None


def claim_run(path: str, gpus: tuple[str, ...]) -> None:
    """Claim a job for this process.

    Raises:
        FileExistsError: another process has claimed it.
        OSError: the file cannot be written.
    """
    draft = f"{path}.{os.getpid()}"
    content = json.dumps({"keeper": own_label(), "gpus": gpus}).encode() + b"\n" + b" " * _ROOM
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        if os.write(fd, content) < len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(fd)
        os.link(draft, path)  # whole, or not at all
    finally:
        os.close(fd)
        with suppress(OSError):
            os.unlink(draft)


def write_end(path: str, end: RunEnd) -> None:
    """Leave the end of a job in its file."""
    fd = os.open(path, os.O_RDWR)
    try:
        head = os.pread(fd, 1 << 16, 0).partition(b"\n")[0]
        os.pwrite(fd, json.dumps(end).encode().ljust(_ROOM), len(head) + 1)
    finally:
        os.close(fd)


def read_run(path: str) -> RunRecord | None:
    """Return what a file says; None without one. One that was written over by something else tells of a lost job."""
    try:
        with open(path, "rb") as file:
            head, _, rest = file.read().partition(b"\n")
        said = json.loads(head)
        keeper = ProcessIdentity.from_label(said["keeper"]) or _NOBODY
        end = RunEnd(*json.loads(rest)) if rest.strip() else None
        return RunRecord(keeper, tuple(said["gpus"]), end)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        return RunRecord(_NOBODY, (), RunEnd("killed"))
