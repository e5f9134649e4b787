"""The last lines of a log, as errors quote them."""

from __future__ import annotations

import os

__all__ = ["what_it_printed"]

_LINES, _CHARACTERS = 10, 1000  # that are quoted at most
_BYTES = 4 * _CHARACTERS  # of UTF-8
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


def what_it_printed(path: str) -> str:
    """Return the end of a message: where the log of a call is, and its last lines, if there are any."""
    lines = _last_lines(path)
    quoted = "".join(f"\n    {line}" for line in lines)
    return f"; what it printed is in {path}" + (f", at last:{quoted}" if lines else "")


def _last_lines(path: str) -> list[str]:
    try:
        descriptor = os.open(path, _READ)
    except OSError:
        return []
    try:
        content = os.pread(descriptor, _BYTES, max(0, os.fstat(descriptor).st_size - _BYTES))
    except OSError:
        return []
    finally:
        os.close(descriptor)
    text = content.decode("utf-8", "replace")[-_CHARACTERS:]
    lines = [_readable(line) for line in text.split("\n") if line.strip()]
    return lines[-_LINES:]


def _readable(line: str) -> str:
    """Return a line as seen on a terminal: the last state of a progress bar, and no characters that move the cursor."""
    shown = line.rstrip().rpartition("\r")[2]
    return "".join(letter if letter.isprintable() or letter == "\t" else "\ufffd" for letter in shown)
