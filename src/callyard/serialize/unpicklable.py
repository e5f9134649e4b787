"""The search for the part of a value that cannot be pickled, and its name as a user would write it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice
from types import FunctionType, MethodType
from typing import Any

from .change_detection import EMPTY, content

_DEPTH = 20  # most steps into a value, and most parts of each step: each part may be pickled once more
_PARTS = 1000
_LOCKS = frozenset(("lock", "RLock"))

Fails = Callable[[Any], bool]


class UnsendableGlobal(TypeError):
    """A function that travels by value reads a global that cannot be pickled."""

    def __init__(self, name: str, path: str, part: Any, reason: BaseException) -> None:
        what = f"{name}, {described(part)}" if path == name else f"{name}, and {path} is {described(part)}"
        super().__init__(f"it reads the global {what} ({reason}); make that inside the function")


def culprit(value: Any, path: str, fails: Fails) -> tuple[str, Any]:
    """Return the innermost part of `value` that fails, and the expression that leads to it from `path`.

    `fails` tells of a part whether it cannot be pickled; of `value` that is known.
    """
    for _ in range(_DEPTH):
        found = next(((step, part) for step, part in islice(_parts(value, path), _PARTS) if fails(part)), None)
        if found is None:
            break
        path, value = found
    return path, value


def where(value: Any, path: str, fails: Fails) -> str:
    """Return the words for the innermost part that fails, for the middle of a sentence; "" if it is all of `value`."""
    deeper, part = culprit(value, path, fails)
    return "" if part is value else f"{deeper} is {described(part)}: "


def described(part: Any) -> str:
    """Return what this is, for a sentence: "a lock", "a sqlite3.Connection"."""
    kind = type(part)
    if kind.__name__ in _LOCKS and kind.__module__ == "_thread":
        return "a lock"
    name = (
        kind.__qualname__ if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}.{kind.__qualname__}"
    )
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def _parts(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield what pickling this value pickles in turn, as far as a user has an expression for it."""
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
    names = dict.fromkeys((*getattr(value, "__dict__", ()), *_slots(type(value))))
    for name in names:
        try:
            yield f"{path}.{name}", getattr(value, name)
        except Exception:  # a class of the user's may do anything here
            continue


def _slots(kind: type) -> list[str]:
    slots = [vars(base).get("__slots__", ()) for base in kind.__mro__]
    return [name for found in slots for name in ((found,) if isinstance(found, str) else found)]
