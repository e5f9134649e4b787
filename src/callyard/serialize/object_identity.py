"""The identities of functions and classes across processes: one that was sent is recognised when it returns."""

from __future__ import annotations

import itertools
import os
import weakref

from ..utils.lite_typing import Any

Key = tuple[str, int]  # (token of the process that made the object, its number there)

token = os.urandom(8).hex()  # of this process
numbers = itertools.count(1)


class DefinitionIdentity:
    """The identity of a function or class, which is the same in every process."""

    __slots__ = ("complete", "filled", "key", "reference", "sent")

    def __init__(self, reference: weakref.ref[Any], key: Key) -> None:
        self.reference, self.key = reference, key
        self.complete = True  # False for a class that is being read
        self.filled: int | None = None  # the version of the attributes received last
        self.sent: tuple[int, Any] | None = None  # version and snapshot of the attributes sent last

    @property
    def foreign(self) -> bool:
        return self.key[0] != token


_objects: weakref.WeakValueDictionary[Key, Any] = weakref.WeakValueDictionary()
_identities: dict[int, DefinitionIdentity] = {}  # by id: a metaclass may define equality


def find(key: Key) -> Any:
    """Return the object of this key; None if it is not here, or no longer."""
    return _objects.get(key)


def known(obj: Any) -> DefinitionIdentity | None:
    """Return the identity of an object, if it has one already."""
    found = _identities.get(id(obj))
    return found if found is not None and found.reference() is obj else None


def identity(obj: Any) -> DefinitionIdentity:
    """Return the identity of an object; one that has none was made here, and gets one."""
    return known(obj) or adopt(obj, (token, next(numbers)))


def forget_sent() -> None:
    """Let the attributes of each class be sent again with it."""
    for entry in list(_identities.values()):
        entry.sent = None


def adopt(obj: Any, key: Key) -> DefinitionIdentity:
    """Let `obj` be the object of this key."""
    number = id(obj)

    def forget(reference: weakref.ref[Any]) -> None:
        if number in _identities and _identities[number].reference is reference:
            del _identities[number]

    found = _identities[number] = DefinitionIdentity(weakref.ref(obj, forget), key)
    _objects[key] = obj
    return found


def _begin_child() -> None:
    """Give a fork a token of its own, because its objects are copies of those of its parent."""
    global token
    token = os.urandom(8).hex()
    _identities.clear()
    _objects.clear()


os.register_at_fork(after_in_child=_begin_child)
