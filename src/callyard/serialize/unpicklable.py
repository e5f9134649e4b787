"""The search for the unpicklable part of a value, and its name in a user's notation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice
from types import CoroutineType, FunctionType, GeneratorType, MethodType
from typing import Any

from .change_detection import EMPTY, content

_DEPTH = 20  # the most steps into a value, with _PARTS parts each: a limit, because trying a part means pickling it
_PARTS = 1000
_LOCKS = frozenset(("lock", "RLock"))

Fails = Callable[[Any], bool]


class UnsendableGlobal(TypeError):
    """A function sent by value reads an unpicklable global."""

    def __init__(self, name: str, path: str, part: Any, reason: BaseException) -> None:
        what = f"{name}, {described(part)}" if path == name else f"{name}, and {path} is {described(part)}"
        super().__init__(f"it reads the global {what} ({reason}); make that inside the function")


def culprit(value: Any, path: str, fails: Fails) -> tuple[str, Any]:
    """Return the innermost unpicklable part of `value`, and the expression for it, beginning with `path`.

    `fails` returns True for an unpicklable part; `value` as a whole is known to fail.
    """
    for _ in range(_DEPTH):
        found = next(((step, part) for step, part in islice(_parts(value, path), _PARTS) if fails(part)), None)
        if found is None:
            break
        path, value = found
    return path, value


def where(value: Any, path: str, fails: Fails) -> str:
    """Return the words for the innermost unpicklable part, for the middle of a sentence; "" for `value` itself."""
    return place(value, *culprit(value, path, fails))


def place(value: Any, path: str, part: Any) -> str:
    """Return the words for the `culprit` of a value, for the middle of a sentence; "" for `value` itself."""
    return "" if part is value else f"{path} is {described(part)}: "


def instead(part: Any) -> str:
    """Return the end of a sentence: an argument to pass in the place of an unpicklable one; "" where none is known."""
    if getattr(type(part), "_asyncio_future_blocking", None) is not None:  # how asyncio knows its futures
        return "; await it, and pass the result"
    if isinstance(part, CoroutineType):
        return "; await it, and pass the result, or run it inside the call with asyncio.run"
    return "; pass list(...) of it" if isinstance(part, GeneratorType) else ""


def described(part: Any) -> str:
    """Return words for an object, for a sentence: "a lock", "a sqlite3.Connection"."""
    kind = type(part)
    if kind.__name__ in _LOCKS and kind.__module__ == "_thread":
        return "a lock"
    name = (
        kind.__qualname__ if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}.{kind.__qualname__}"
    )
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def _parts(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield the parts that pickle would pickle in turn, each with an expression, as far as there is one."""
    if isinstance(value, MethodType):
        yield "self", value.__self__
        yield path, value.__func__
    elif isinstance(value, FunctionType):
        yield from _of_function(value)
    elif isinstance(value, partial):
        yield f"{path}.func", value.func
        yield from _parts(value.args, f"{path}.args")
        yield from _parts(value.keywords, f"{path}.keywords")
    elif isinstance(value, Mapping):
        yield from ((f"{path}[{key!r}]", part) for key, part in value.items())
    elif isinstance(value, (list, tuple)):
        yield from ((f"{path}[{index}]", part) for index, part in enumerate(value))
    elif isinstance(value, (set, frozenset)):
        yield from ((f"an element of {path}", part) for part in value)
    yield from _attributes(value, path)


def _of_function(function: FunctionType) -> Iterator[tuple[str, Any]]:
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    yield from ((name, content(cell)) for name, cell in cells if content(cell) is not EMPTY)
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    defaults = function.__defaults__ or ()
    yield from ((f"the default of {name}", part) for name, part in zip(names[::-1], defaults[::-1], strict=False))
    yield from ((f"the default of {name}", part) for name, part in (function.__kwdefaults__ or {}).items())


def _attributes(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if _refuses(value):
        return
    names = dict.fromkeys((*getattr(value, "__dict__", ()), *_slots(type(value))))
    for name in names:
        try:
            yield f"{path}.{name}", getattr(value, name)
        except Exception:  # from a property of a user's class
            continue


def _refuses(value: Any) -> bool:
    """Return True if an object refuses to be pickled by itself, as an executor does, whatever the attributes hold."""
    if not any("__reduce__" in vars(base) for base in type(value).__mro__[:-1]):
        return False
    try:
        value.__reduce__()
    except Exception:
        return True
    return False


def _slots(kind: type) -> list[str]:
    slots = [vars(base).get("__slots__", ()) for base in kind.__mro__]
    return [name for found in slots for name in ((found,) if isinstance(found, str) else found)]
