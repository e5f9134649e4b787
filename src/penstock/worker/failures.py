"""Exceptions on their way to the driver: as themselves, with the traceback as text beside them."""

from __future__ import annotations

import pickle
from typing import Any

from ..wire import frames

_OUR_FRAMES = "penstock.worker."


def encode_error(error: BaseException, sequence: int, seconds: float) -> bytes:
    """The frame that says how a call failed."""
    text = traceback_text(error)
    number = min(int(seconds * 1e6), 0xFFFFFFFF)
    return frames.encode(frames.ERROR, sequence, number, 0, dump_error(error, text))


def traceback_text(error: BaseException) -> str:
    """The traceback, from the first frame that is not the worker's own."""
    import traceback  # here and below, so that a worker starts without it

    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_globals.get("__name__", "").startswith(_OUR_FRAMES):
        trace = trace.tb_next
    return "".join(traceback.format_exception(type(error), error, trace))


def dump_error(error: BaseException, text: str) -> bytes:
    """The exception and its traceback's text, in the first form that can be read again."""
    from ..wire.functions import dumps

    error.__traceback__ = None
    for form in (error, _Rebuilt(error), _Described(error)):
        try:
            data = dumps((form, text), home=True)
            pickle.loads(data)
        except Exception:  # what a class of the user's does here is not known
            continue
        return data
    raise AssertionError("a description of strings can be pickled")  # pragma: no cover


class _Rebuilt:
    """An exception whose constructor does not take its own `args`: it is made without its constructor."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __reduce__(self) -> Any:
        return _rebuild, (type(self.error), self.error.args, self.error.__dict__)


def _rebuild(kind: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]) -> BaseException:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class _Described(_Rebuilt):
    """An exception that holds something that cannot be pickled: its class by name, its message."""

    def __reduce__(self) -> Any:
        return _describe, (type(self.error).__qualname__, str(self.error))


def _describe(kind: str, message: str) -> BaseException:
    from ..errors import PenstockError

    return PenstockError(f"the call raised {kind}, which cannot be pickled itself: {message}")
