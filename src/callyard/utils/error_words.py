"""The words of an exception, also of one whose class cannot tell them: a class of the user's may do anything."""

from __future__ import annotations

__all__ = ["error_words", "message_of"]


def message_of(error: BaseException) -> str:
    """Return the message of an exception."""
    try:
        return str(error)
    except Exception:
        return "<exception str() failed>"  # as in a traceback


def error_words(error: BaseException) -> str:
    """Return class and message of an exception, as "ValueError: no convergence"; only the class without a message."""
    return f"{type(error).__name__}: {message_of(error)}".removesuffix(": ")
