"""The meaning of values: what is equal in type and content has the same token, whatever it looks like in memory.

    meaning({"b": 2, "a": 1}) == meaning({"a": 1, "b": 2})

Functions and classes are definitions: see `definitions`. What a type means is said in `kinds`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from .digest import ATOMS, PendingFuture, UnkeyableError, combine, text
from .packages import module_of
from .types import handler_of, outline

if TYPE_CHECKING:
    from .definitions import WalkResult

Registered = Callable[[Any], Any]  # of an instance of a registered type: something that has a meaning
_registered: dict[type, Registered] = {}
_NEVER = 1 << 62


def register(kind: type, function: Registered) -> None:
    """Let instances of `kind`, and of classes made from it, mean what `function(instance)` means."""
    if not isinstance(kind, type) or not callable(function):  # type: ignore[redundant-expr]
        raise TypeError(f"register(type, function) wants a type and a function, not {kind!r} and {function!r}")
    if kind in ATOMS or kind is object:
        raise TypeError(f"register: what {kind.__name__} means cannot be changed; make a class from it")
    _registered[kind] = function


def meaning(value: Any) -> bytes:
    """The token of a value; see `Encoder.token`."""
    simple = ATOMS.get(type(value))
    return Encoder().token(value) if simple is None else simple(value)


class Encoder:
    """Makes tokens of values.

    What is there twice is looked at once, and has the token that two copies would have. What contains itself is
    written as a tree with references back: values that lead to each other are on a stack until the first of them is
    finished, a reference says how deep in the stack its target lies, and nothing else has a token that depends on
    where it stands.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[Any, bytes]] = {}  # what is finished; kept, so that no id is used again
        self._places: dict[int, int] = {}  # what is not, by its place on the stack
        self._stack: list[Any] = []
        self._lowest = _NEVER  # the lowest place that was referred to from inside the value that is looked at
        self._defined: dict[int, tuple[Any, bytes]] = {}
        self.references: dict[tuple[str, str], None] = {}  # this and the next: see `definitions.Walk`
        self.unkeyed: dict[str, str] = {}
        self.roots: list[WalkResult] = []
        self.reads_metadata = 0  # whose is read by the code that was come to: see `special`
        self.opens_results = False  # of futures: what they are made of is to be among the roots

    def token(self, value: Any) -> bytes:
        """The token of a value.

        Raises:
            UnkeyableError: it has no meaning that can be hashed.
            Pending: a future in it is not done.
        """
        try:
            simple = ATOMS.get(type(value))
        except TypeError as error:  # its metaclass compares, and does not hash
            raise UnkeyableError(value, str(error)) from error
        if simple is not None:
            return simple(value)
        number = id(value)
        known = self._known.get(number)
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
        try:
            if _registered and (taught := _registration(kind)) is not None:
                made = self._taught(value, taught)
            else:
                made = handler_of(value)(self, value)
        except UnkeyableError as error:
            self._leave(place + 1, b"")
            made = self.unkeyable(value, error)
        except (PendingFuture, RecursionError, MemoryError):
            raise
        except Exception as error:  # what is asked of a value may run code of the user's
            self._leave(place + 1, b"")
            made = self.unkeyable(value, UnkeyableError(value, str(error)))
        if self._lowest == place:
            self._leave(place, made)
            self._known[number] = value, made
            self._lowest = outer
        else:
            self._lowest = min(outer, self._lowest)
        return made

    def _leave(self, place: int, first: bytes) -> None:
        """Take what is finished off the stack. What led back to the first of it counts by its number from there."""
        while len(self._stack) > place:
            value = self._stack.pop()
            del self._places[id(value)]
            if first:
                self._known[id(value)] = value, combine(b"~", [first, b"%d" % (len(self._stack) - place)])

    def _taught(self, value: Any, function: Registered) -> bytes:
        means = function(value)
        if means is value:
            raise UnkeyableError(value, "the function that was registered for it returns the value itself")
        return combine(b"R", [self.definition(type(value)), self.token(means)])

    # -- what depends on who asks ----------------------------------------------------------------------

    def definition(self, thing: Any) -> bytes:
        """The token of a function, a class or a module."""
        known = self._defined.get(id(thing))
        if known is not None:
            return known[1]
        from .definitions import rooted  # here, because those lead to values again

        found = rooted(thing)
        self.roots.append(found)
        self.references.update(found.references)
        self.unkeyed.update(found.unkeyed)
        self.reads_metadata = max(self.reads_metadata, found.reads_metadata)
        token = rooted(thing, with_metadata=True).token if found.reads_metadata else found.token
        self._defined[id(thing)] = thing, token
        return token

    def with_metadata(self) -> list[WalkResult]:
        """The same definitions once more, with what is written about them."""
        from .definitions import rooted

        return [rooted(thing, with_metadata=True) for thing, _ in self._defined.values()]

    def sentinel(self, value: Any) -> bytes:
        """Of an `object()`, which is nothing but itself."""
        return b"o"

    def unkeyable(self, value: Any, error: UnkeyableError) -> bytes:
        raise error

    def pending(self, future: Any) -> bytes:
        """Of a future that has no result."""
        raise PendingFuture

    def future(self, future: Any) -> bytes | None:
        """Of a future, if it counts as anything but its result."""
        return None

    # -- what containers are made of -------------------------------------------------------------------

    def sequence(self, values: Iterable[Any]) -> bytes:
        parts: list[bytes] = []
        try:
            for value in values:
                simple = ATOMS.get(type(value))
                parts.append(self.token(value) if simple is None else simple(value))
        except UnkeyableError as error:
            raise error.inside(f"[{len(parts)}]") from None
        return combine(b"[", parts)

    def pairs(self, pairs: Iterable[tuple[Any, Any]]) -> bytes:
        """Of a dict: their order does not count."""
        parts = []
        for label, key, value in sorted(((outline(key), key, value) for key, value in pairs), key=_first):
            key_token = label if type(key) in ATOMS else self.token(key)
            try:
                parts.append((label, key_token, self.token(value)))
            except UnkeyableError as error:
                raise error.inside(f"[{key!r:.40}]" if type(key) in ATOMS else "[...]") from None
        return combine(b"{", (part for _, *pair in sorted(parts) for part in pair))

    def members(self, values: Iterable[Any]) -> bytes:
        """Of a set."""
        found = sorted(((outline(value), value) for value in values), key=_first)
        parts = sorted((label, label if type(value) in ATOMS else self.token(value)) for label, value in found)
        return combine(b"S", [part for _, part in parts])

    def state(self, state: Any) -> bytes:
        """Of an object, by what `pickle` would keep: mostly the dict of its attributes, their order does not count."""
        if type(state) is tuple and len(state) == 2 and type(state[1]) is dict:  # of a class with slots
            return combine(b"(", [self.state(state[0]), self.state(state[1])])
        if type(state) is not dict:
            return self.token(state)
        parts = []
        for name, value in sorted(state.items(), key=_label):
            try:
                parts.append((self.token(name), self.token(value)))
            except UnkeyableError as error:
                raise error.inside(f".{name}") from None
        return combine(b".", (part for pair in sorted(parts) for part in pair))


class Lenient(Encoder):
    """One that goes on where something has no meaning: that counts by its type."""

    def unkeyable(self, value: Any, error: UnkeyableError) -> bytes:
        return text(b"?", module_of(type(value)), type(value).__qualname__)

    def pending(self, future: Any) -> bytes:
        raise UnkeyableError(future, "it has no result")


class Linked(Encoder):
    """One for which a future counts as the call that it is of."""

    def __init__(self) -> None:
        super().__init__()
        self.links = 0

    def future(self, future: Any) -> bytes | None:
        identity = getattr(future, "identity", "")
        if not identity:
            return None
        self.links += 1
        return text(b"<", identity)


def _registration(kind: type) -> Registered | None:
    return next((_registered[base] for base in kind.__mro__ if base in _registered), None)


def _label(entry: tuple[Any, Any]) -> str:
    return str(entry[0])


def _first(entry: tuple[Any, ...]) -> Any:
    return entry[0]
