"""The identities of functions and classes across processes, by which a returning one is recognized."""

from __future__ import annotations

import itertools
import os
from _weakref import _remove_dead_weakref, ref  # type: ignore[attr-defined]  # `weakref` is more than a job needs

from ..utils.lite_stdlib import Any

Key = tuple[str, int]  # (name of the defining process, number of the object there)

process_name = os.urandom(8).hex()  # random and unique, other than a process id
numbers = itertools.count(1)


class WeakValues:
    """A table that does not keep values alive: the necessary part of `weakref.WeakValueDictionary`."""

    def __init__(self) -> None:
        self._references: dict[Any, ref[Any]] = {}

    def get(self, key: Any) -> Any:
        """Return the value of this key; None if there is none, or no longer."""
        reference = self._references.get(key)
        return None if reference is None else reference()

    def __setitem__(self, key: Any, value: Any) -> None:
        references = self._references

        # A default, because at the interpreter's exit the names of this module may be gone.
        def forget(_: ref[Any], remove: Any = _remove_dead_weakref) -> None:
            remove(references, key)  # in one step, because another thread may just set the key again

        references[key] = ref(value, forget)

    def values(self) -> list[Any]:
        """Return the values that are still there."""
        found = [reference() for reference in list(self._references.values())]
        return [value for value in found if value is not None]

    def clear(self) -> None:
        self._references.clear()


class DefinitionIdentity:
    """The identity of a function or class, the same in every process."""

    __slots__ = ("complete", "filled", "key", "reference", "sent")

    def __init__(self, reference: ref[Any], key: Key) -> None:
        self.reference, self.key = reference, key
        self.complete = True  # False for a class still being read
        self.filled: int | None = None  # the version of the attributes received last
        self.sent: tuple[int, Any] | None = None  # version and snapshot of the attributes sent last

    @property
    def foreign(self) -> bool:
        return self.key[0] != process_name


_objects = WeakValues()  # by key
_identities: dict[int, DefinitionIdentity] = {}  # by id: a metaclass may define equality


def find(key: Key) -> Any:
    """Return the object of this key; None if there is none in this process, or none any more."""
    return _objects.get(key)


def known(obj: Any) -> DefinitionIdentity | None:
    """Return the identity of an object; None for an object without one."""
    found = _identities.get(id(obj))
    return found if found is not None and found.reference() is obj else None


def identity(obj: Any) -> DefinitionIdentity:
    """Return the identity of an object; an object without one was made here, and gets a new identity."""
    return known(obj) or adopt(obj, (process_name, next(numbers)))


def forget_sent() -> None:
    """Forget the sent attributes of classes, so that the next pickle of a class contains all."""
    for entry in list(_identities.values()):
        entry.sent = None


def adopt(obj: Any, key: Key) -> DefinitionIdentity:
    """Make `obj` the object of this key."""
    number, identities = id(obj), _identities

    # Called at the end of the object; by then a new object may have the same id, and an identity of its own.
    def forget(reference: ref[Any]) -> None:
        if number in identities and identities[number].reference is reference:
            del identities[number]

    found = _identities[number] = DefinitionIdentity(ref(obj, forget), key)
    _objects[key] = obj
    return found


def _begin_child() -> None:
    """Give a fork a name of its own, because all objects there are copies of the parent's."""
    global process_name
    process_name = os.urandom(8).hex()
    _identities.clear()
    _objects.clear()


os.register_at_fork(after_in_child=_begin_child)
