"""The output of a call in a file of its own, as long as the call runs; then it is a part of the call's record."""

from __future__ import annotations

import os

from ..utils.lite_stdlib import suppress

__all__ = ["LIMIT", "append_to_log", "read_log", "take_log"]

LIMIT = 1 << 18  # bytes; of more, the first half and the last part are kept
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


def read_log(path: str) -> str:
    """Return the output; "" without any."""
    try:
        descriptor = os.open(path, _READ)
    except OSError:
        return ""
    with open(descriptor, "rb") as file:
        return file.read(LIMIT).decode("utf-8", "replace")


def take_log(path: str) -> str:
    """Return the output, and remove the file."""
    text = read_log(path)
    with suppress(OSError):  # mostly there is none
        os.unlink(path)
    return text


def append_to_log(path: str, text: str) -> None:
    """Add text to a log. A full disk, or a directory that was removed, fails no call."""
    with suppress(OSError), open(os.open(path, _APPEND, 0o600), "ab") as file:
        file.write(text.encode("utf-8", "replace"))
