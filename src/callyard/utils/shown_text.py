"""Texts of the user's programs, such as messages of errors, in a form that may be shown and kept."""

from __future__ import annotations

from .error_words import message_of

__all__ = ["kept_message", "kept_traceback", "one_line", "shortened", "visible"]

_LONGEST_MESSAGE, _LONGEST_TRACEBACK = 10_000, 50_000  # characters in a record, as there may be many failures


def visible(text: str) -> str:
    r"""Return a text in which only lines and tabs are laid out: a terminal obeys other control characters.

    >>> visible("\x1b[31mred")
    '\\x1b[31mred'
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in "\n\t" else char.encode("unicode_escape").decode("ascii")
        for char in text.replace("\r\n", "\n")
    )


def one_line(text: str, longest: int | None = None) -> str:
    """Return a text as one line, with its control characters visible, and at most `longest` characters of it."""
    if longest is not None:
        text = text[: 4 * longest]  # a message may be megabytes long
    text = visible(" ".join(text.split()))
    return text if longest is None or len(text) <= longest else f"{text[: longest - 3]}..."


def shortened(text: str, longest: int) -> str:
    """Return a text of more than `longest` characters without its middle; a note there says how much is left out."""
    left_out = len(text) - longest
    if left_out <= 0:
        return text
    return f"{text[: longest // 2]}\n... {left_out:,} characters are left out ...\n{text[len(text) - longest // 2 :]}"


def kept_message(error: BaseException) -> str:
    """Return the message of an exception for a record."""
    return shortened(message_of(error), _LONGEST_MESSAGE)


def kept_traceback(text: str) -> str:
    """Return a traceback for a record."""
    return shortened(text, _LONGEST_TRACEBACK)
