"""The lowest rows of a terminal, kept for lines that change, while all else scrolls above.

The terminal itself keeps the rows out of the scrolling, by a margin (DECSTBM). So nothing disturbs them and they
disturb nothing: what is printed, by this process, its workers or a prompt, goes on above, and no stream is replaced.
The margin is set anew with each change, as other programs and a change of the window's size remove it.
"""

from __future__ import annotations

import atexit
import os
from contextlib import suppress
from typing import TextIO

from ..utils.locks import new_lock, under

__all__ = ["TerminalRow", "is_terminal"]

_LEAST = 4  # rows of a terminal that are left for all else

_SAVE, _RESTORE = "\x1b7", "\x1b8"  # of the cursor; setting margins moves it
_DOWN = "\x1bD"  # to the next row in the same column; at the end the screen scrolls
_ERASE_LINE = "\x1b[2K"
_NO_MARGIN = "\x1b[r"

_lock = new_lock()
_rows: list[TerminalRow] = []  # from the top


def is_terminal(stream: TextIO) -> bool:
    """Tell whether a stream is a terminal that knows margins."""
    try:
        return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    except (AttributeError, ValueError):  # None, or closed
        return False


class TerminalRow:
    """A row at the bottom of the terminal behind a stream."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._text = ""

    @property
    def width(self) -> int:
        return self._size().columns - 1

    def _size(self) -> os.terminal_size:
        try:
            return os.get_terminal_size(self._stream.fileno())
        except (OSError, ValueError):
            return os.terminal_size((80, 24))

    def show(self, text: str) -> None:
        """Show a text in the row; the row is made at the first one."""
        under(_lock, self._show, text)

    def remove(self, last: str) -> None:
        """Give the row back, and print a last line as any other."""
        under(_lock, self._remove, last)

    def _show(self, text: str) -> None:
        self._text = text
        rows = self._size().lines
        if self not in _rows and rows - len(_rows) - 1 < _LEAST:
            return
        if not self._is_in_front():
            return
        room = ""
        if self not in _rows:
            _rows.append(self)
            room = f"{_DOWN}\x1b[A"
        self._write(room + _frame([row._text for row in _rows], rows))

    def _remove(self, last: str) -> None:
        if self in _rows:
            lines = self._size().lines
            highest = lines - len(_rows) + 1
            _rows.remove(self)
            erased = f"{_SAVE}{_NO_MARGIN}\x1b[{highest};1H{_ERASE_LINE}{_RESTORE}"
            self._write(erased + (_frame([row._text for row in _rows], lines) if _rows else ""))
        if last and self._is_in_front():
            self._write(f"{last}\n")

    def _is_in_front(self) -> bool:
        """Tell whether the shell has given the terminal to this program, and not put it in the background."""
        try:
            return os.tcgetpgrp(self._stream.fileno()) == os.getpgrp()
        except (OSError, ValueError):  # another session's terminal, or a closed stream
            return False

    def _write(self, text: str) -> None:
        with suppress(OSError, ValueError, UnicodeError):  # the terminal is gone, or the stream is closed
            self._stream.write(text)
            self._stream.flush()


def _frame(texts: list[str], rows: int) -> str:
    """Return the characters that draw these lines at the bottom, and leave the cursor where it is."""
    first = rows - len(texts) + 1
    lines = "".join(f"\x1b[{first + place};1H{_ERASE_LINE}{text}" for place, text in enumerate(texts))
    return f"{_SAVE}\x1b[1;{first - 1}r{lines}{_RESTORE}"


def _give_back() -> None:
    for row in tuple(_rows):
        row.remove("")


atexit.register(_give_back)


def _in_forked_child() -> None:
    """Forget the lines, which are the parent's, and the lock, which a thread missing here may have held."""
    _rows.clear()
    _lock._at_fork_reinit()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_forked_child)
