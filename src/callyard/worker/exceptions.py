"""Exceptions on their way to the driver: as themselves, with the traceback as text beside them."""

from __future__ import annotations

import _pickle as pickle
import copyreg
from types import CoroutineType, FunctionType, GeneratorType

from ..utils.error_words import message_of
from ..utils.lite_stdlib import Any

_OUR_FRAMES = "callyard.worker."


def encode_error(error: BaseException, sequence: int, seconds: float, note: bytes = b"") -> bytes:
    """Return the frame for a failed call, with the note about the cache, if there is one."""
    from ..transport import frames  # here, because a job sends no frames

    text = traceback_text(error)
    number = min(int(seconds * 1e6), 0xFFFFFFFF)
    flags, head = (frames.NOTED, frames.encode_note(note)) if note else (0, b"")
    return frames.encode(frames.ERROR, sequence, number, flags, head + dump_error(error, text))


def traceback_text(error: BaseException) -> str:
    """Return the traceback as text, from the first frame outside of the worker's own code."""
    import traceback  # here and below, so that a worker starts without this module

    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_globals.get("__name__", "").startswith(_OUR_FRAMES):
        trace = trace.tb_next
    return "".join(traceback.format_exception(type(error), error, trace))


def dump_error(error: BaseException, text: str) -> bytes:
    """Pickle the exception and the text of the traceback, in the first form that can be read again."""
    from ..serialize.function_registry import dumps

    BaseException.__setattr__(error, "__traceback__", None)  # the class may be frozen
    for form, reduce in ((error, _in_parts), (error, None), (error, _what_can_be_sent), (_Described(error), None)):
        try:
            data = dumps((form, text), reduce=reduce, to_driver=True)
            pickle.loads(data)
        except Exception:  # a class of the user's may raise anything here
            continue
        return data
    raise AssertionError("a description of strings can be pickled")  # pragma: no cover


def unpicklable_result(name: str, value: Any, error: Exception) -> Exception:
    """Return the error for a result that cannot be pickled, of a call of the function with this name."""
    from ..errors import UnpicklableCall  # here, because few workers need this slow import

    within, instead = "", ""
    if isinstance(value, CoroutineType):
        value.close()  # no caller is going to await it
        instead = "; run it inside the call with asyncio.run"
    elif isinstance(value, GeneratorType):
        instead = "; return list(...) of it"
    else:
        from ..serialize.unpicklable import where

        within = where(value, "result", lambda part: not _returns(part))
    kind = type(value).__qualname__
    return UnpicklableCall(f"the result of {name!r}, of type {kind}, cannot be sent back: {within}{error}{instead}")


def unpicklable_again(again: BaseException, error: Exception) -> Exception:
    """Return the error for `Again` with arguments that cannot be pickled."""
    from ..errors import UnpicklableCall

    kinds = ", ".join(type(value).__qualname__ for value in (*again.args, *vars(again).get("kwargs", {}).values()))
    return UnpicklableCall(f"the arguments of Again, of types {kinds}, cannot be sent: {error}; pass what can be")


def words_of_some_again(name: str, some: int, size: int) -> str:
    """Return the message for a call with `Again` from some ranks only."""
    return (
        f"{name!r} has raised callyard.Again on {some} of its {size} ranks, and returned on the others; "
        "let all ranks raise it, or none"
    )


def _returns(value: Any, reduce: Any = None) -> bool:
    """Return True if the value can be sent to the driver, and read there."""
    from ..serialize.function_registry import dumps

    try:
        pickle.loads(dumps(value, reduce=reduce, to_driver=True))
    except Exception:  # a class of the user's may raise anything here
        return False
    return True


def unsendable_call(name: str, error: Exception) -> Exception:
    """Return the error for arguments of a call that cannot be sent to a worker."""
    from ..errors import UnpicklableCall

    if isinstance(error, MemoryError):
        return error
    return UnpicklableCall(f"the arguments of {name!r} cannot be sent: {error}")


def unsendable_result(error: Exception) -> Exception:
    """Return the error for a pickled result that is too large to send."""
    from ..errors import UnpicklableCall

    return UnpicklableCall(f"the result cannot be sent back: {error}")


def unreadable_call(error: BaseException) -> Exception:
    """Return the error for a function or arguments that cannot be opened."""
    from ..errors import UnreadableCall

    return UnreadableCall(f"the function or its arguments cannot be opened by the worker: {error!r}")


def _in_parts(value: Any) -> Any:
    """Reduce an exception without the constructor, which may refuse `args` or read them in another way."""
    kind: Any = type(value)
    if not isinstance(value, BaseException) or kind.__reduce__ is not BaseException.__reduce__:
        return NotImplemented
    if not isinstance(kind.__init__, FunctionType) and not isinstance(kind.__new__, FunctionType):
        return NotImplemented
    return _rebuild, (kind, value.args), _attributes(value), None, None, _set_state


def _what_can_be_sent(value: Any) -> Any:
    """Reduce an exception without attributes that cannot be pickled, and with texts in the place of such arguments."""
    if not isinstance(value, BaseException):
        return NotImplemented
    args = tuple(arg if _returns(arg, _what_can_be_sent) else repr(arg) for arg in value.args)
    state = _attributes(value)
    lost = [name for name, part in state.items() if not _returns(part, _what_can_be_sent)]
    if lost:
        state = {name: part for name, part in state.items() if name not in lost}
        note = f"callyard: left out, as it cannot be pickled: {', '.join(lost)}"
        state["__notes__"] = [*state.get("__notes__", ()), note]
    return _rebuild, (type(value), args), state, None, None, _set_state


def _attributes(error: BaseException) -> dict[str, Any]:
    slots = [name for name in copyreg._slotnames(type(error)) if hasattr(error, name)]  # type: ignore[attr-defined]
    return {**vars(error), **{name: getattr(error, name) for name in slots}}


def _rebuild(kind: type[BaseException], args: tuple[Any, ...]) -> BaseException:
    built_in: Any = next(base for base in kind.__mro__ if base.__module__ == "builtins")
    error: BaseException = built_in.__new__(kind, *args)
    built_in.__init__(error, *args)  # SystemExit sets its code there
    return error


def _set_state(error: BaseException, state: dict[str, Any]) -> None:
    for name, value in state.items():
        BaseException.__setattr__(error, name, value)  # the class may be frozen


class _Described:
    """An exception that cannot be pickled in any form: the name of the class, and the message."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __reduce__(self) -> Any:
        return _describe, (type(self.error).__qualname__, message_of(self.error))


def _describe(kind: str, message: str) -> BaseException:
    from ..errors import CallyardError

    return CallyardError(f"the call raised {kind}, which cannot be pickled itself: {message}")
