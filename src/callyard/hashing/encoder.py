"""The encoder: the maker of tokens of values, circles of references included.

Values of equal type and content have the same token, in spite of different layouts in memory. Functions, classes
and modules are *definitions*; each kind of encoder has its own tokens for these.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from ..dependencies.wait import failure_of
from ..serialize.change_detection import LRU
from .code import code_token
from .containers import Outliner, outline
from .digest import ATOMS, PendingFuture, UnkeyableError, combine, text
from .packages import module_of, owner
from .types import handler_of

Registered = Callable[[Any], Any]  # returns, for an instance of a registered type, a value with the same meaning
_registered: dict[type, Registered] = {}
_NEVER = 1 << 62


def register(kind: type, function: Registered) -> None:
    """Encode instances of `kind`, and of its subclasses, as the value of `function(instance)`.

    Raises:
        TypeError: `kind` is not a type, `function` cannot be called, or the meaning of `kind` cannot be changed.
    """
    if not isinstance(kind, type) or not callable(function):  # type: ignore[redundant-expr]
        raise TypeError(f"register(type, function) wants a type and a function, not {kind!r} and {function!r}")
    if kind in ATOMS or kind is object:
        raise TypeError(f"register: what {kind.__name__} means cannot be changed; make a class from it")
    _registered[kind] = function


def _registration(kind: type) -> Registered | None:
    return next((_registered[base] for base in kind.__mro__ if base in _registered), None)


class BaseEncoder(ABC):
    """Makes tokens of values.

    An object with several references to it is encoded once, and has the token of a copy. Values inside each other are
    encoded as a tree with references back. All stay on a stack until the first one is finished; a reference back is
    written as the distance of its target from the top of the stack, so that tokens do not depend on the position of
    their values in the whole.
    """

    opens_results = False  # True to encode results of futures even with known tokens

    def __init__(self) -> None:
        # By id. The values of finished tokens are kept alive, so that no id is reused.
        self._finished: dict[int, tuple[Any, bytes]] = {}
        self._places: dict[int, int] = {}  # of unfinished values, their places on the stack
        self._stack: list[Any] = []
        self.inputs: dict[str, str] = {}  # keys of calls with their functions, of which results were encoded
        self._lowest = _NEVER  # the lowest stack position referred to from inside the present value

    def token(self, value: Any) -> bytes:
        """Return the token of a value.

        Raises:
            UnkeyableError: the value has no token.
            PendingFuture: a future in the value is not done.
        """
        try:
            simple = ATOMS.get(type(value))
        except TypeError as error:  # a metaclass may define equality, but no hash
            raise UnkeyableError(value, str(error)) from error
        if simple is not None:
            return simple(value)
        number = id(value)
        known = self._finished.get(number)
        if known is not None:
            return known[1]
        place = self._places.get(number)
        if place is None:
            return self._visit(value, number)
        self._lowest = min(self._lowest, place)
        return b"^%d" % (len(self._stack) - place)

    def _visit(self, value: Any, number: int) -> bytes:
        place = self._places[number] = len(self._stack)
        self._stack.append(value)
        outer, self._lowest = self._lowest, place
        kind = type(value)
        if kind is LRU:
            self.imported(value)
        try:
            if _registered and (function := _registration(kind)) is not None:
                made = self._by_registration(value, function)
            else:
                made = handler_of(value)(self, value)
        except UnkeyableError as error:
            self._leave(place + 1, b"")
            made = self.unkeyable(value, error)
        except (PendingFuture, RecursionError, MemoryError):
            raise
        except Exception as error:  # to encode a value may run code of the user's
            self._leave(place + 1, b"")
            made = self.unkeyable(value, UnkeyableError(value, str(error)))
        if self._lowest == place:
            self._leave(place, made)
            self._finished[number] = value, made
            self._lowest = outer
        else:
            self._lowest = min(outer, self._lowest)
        return made

    def _leave(self, place: int, first: bytes) -> None:
        """Take finished values off the stack, down to this place.

        The values above the first refer back to the first, so each counts by the token of the first and the distance.
        """
        while len(self._stack) > place:
            value = self._stack.pop()
            del self._places[id(value)]
            if first:
                self._finished[id(value)] = value, combine(b"~", [first, b"%d" % (len(self._stack) - place)])

    def _by_registration(self, value: Any, function: Registered) -> bytes:
        means = function(value)
        if means is value:
            raise UnkeyableError(value, "the function that was registered for it returns the value itself")
        return combine(b"R", [self.definition(type(value)), self.token(means)])

    def outline(self, value: Any) -> bytes:
        """Return the bytes for sorting a key or an element of a set."""
        return outline(value, Outliner(code_token, self.result_of))

    # -- tokens that depend on the kind of encoder -----------------------------------------------------

    @abstractmethod
    def definition(self, thing: Any) -> bytes:
        """Return the token of a function, a class or a module."""

    def imported(self, thing: Any) -> None:  # noqa: B027  # most encoders do not care
        """Note a function with `lru_cache`, which a worker may import by its qualified name, as a definition."""

    def sentinel(self, value: Any) -> bytes:
        """Return the token of an `object()`, which has no content."""
        return b"o"

    def unkeyable(self, value: Any, error: UnkeyableError) -> bytes:
        """Return a token for a value without an encoding, or raise the error."""
        raise error

    def future(self, future: Any) -> bytes:
        """Return the token of a future's result.

        A failed future counts as pending for good: the call will never run, but fail with the same error.
        """
        for key, name in getattr(future, "origins", tuple)():
            self.inputs[key] = name
        known: bytes | None = getattr(future, "result_token", None) if future.done() else None
        if known is not None and not self.opens_results:
            return known
        return self.token(future.result()) if _has_result(future) else self.pending(future)

    def result_of(self, future: Any) -> Any:
        """Return the result of a future for an outline, for which a token does not do; None without a result."""
        return future.result() if _has_result(future) else None

    def pending(self, future: Any) -> bytes:
        """Return the token of a future without a result, or raise an error."""
        raise PendingFuture


def _has_result(future: Any) -> bool:
    return future.done() and not future.cancelled() and failure_of(future) is None


class LenientEncoder(BaseEncoder):
    """An encoder that goes on at values without an encoding, which count by their types.

    A type of the user's counts by its content.
    """

    def unkeyable(self, value: Any, error: UnkeyableError) -> bytes:
        kind = type(value)
        if owner(module_of(kind)) is None:
            return combine(b"?", [self.definition(kind)])
        return text(b"?", module_of(kind), kind.__qualname__)

    def pending(self, future: Any) -> bytes:
        raise UnkeyableError(future, "it has no result")
