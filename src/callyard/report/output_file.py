"""Files that people ask for: reports and drawings."""

from __future__ import annotations

import contextlib
import os
import stat

from ..utils.paths import expand

__all__ = ["write_file"]


def write_file(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Write a file, a new one for the user alone, because messages and paths may tell what others shall not know.

    The file is there whole or as it was before: a browser may look at it, or the disk may be full.

    Raises:
        OSError: it cannot be written.
    """
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    place = os.path.realpath(expand(os.fspath(path)))
    mode = _mode(place)
    if mode is not None and not stat.S_ISREG(mode):  # a pipe or a terminal, or a directory, which is an error
        _write(place, data, os.O_WRONLY)
        return
    draft = f"{place}.{os.urandom(4).hex()}.part"
    try:
        _write(draft, data, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        if mode is not None:
            os.chmod(draft, stat.S_IMODE(mode))
        os.replace(draft, place)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(draft)
        if isinstance(error, OSError):
            error.filename, error.filename2 = place, None
        raise


def _mode(path: str) -> int | None:
    try:
        return os.stat(path).st_mode
    except FileNotFoundError:
        return None


def _write(path: str, data: bytes, flags: int) -> None:
    with open(os.open(path, flags | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(data)
