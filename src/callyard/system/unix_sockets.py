"""Unix sockets in directories that let no other user in."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["make_directory", "socket_in"]

_LONGEST = 100  # bytes of a socket's path: Linux takes 107, macOS 103
_DESCRIPTORS = "/proc/self/fd"


def make_directory(path: str, purpose: str = "it has the socket of the daemon that runs detached calls") -> str:
    """Make a directory for sockets, for nobody but this user.

    Raises:
        OSError: it cannot be made, others may enter it, or it is another user's.
    """
    os.makedirs(path, mode=0o700, exist_ok=True)
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{path} must be a directory of yours that nobody else may enter (chmod 700): {purpose}")
    return path


@contextmanager
def socket_in(directory: str, name: str = "socket", variable: str = "CALLYARD_DAEMON") -> Iterator[str]:
    """Yield a short path of a socket: the path of a Unix socket has about a hundred bytes at most.

    Raises:
        OSError: it is too long for this system; `variable` names what could shorten it.
    """
    path = os.path.join(directory, name)
    if len(os.fsencode(path)) < _LONGEST:
        yield path
        return
    if not os.path.isdir(_DESCRIPTORS):
        raise OSError(
            errno.ENAMETOOLONG,
            f"the path of a socket must be shorter than {_LONGEST} bytes here, and {path} is not: name a directory "
            f"with a short path in {variable}",
        )
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"{_DESCRIPTORS}/{handle}/{name}"
    finally:
        os.close(handle)
