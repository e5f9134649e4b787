"""The graph of the globals in the reach of a call. An object stays one object in the reader, on however many paths.

The value of each global is a pickle of its own, so that only changed values travel. But separate pickles would make
copies of a common object. So for values that share an object,

- if the object is the value of a global, the other values refer to this global;
- otherwise, and for values that refer to each other in a circle, one pickle holds all these values.

The memo of a pickler lists the pickled objects. Nothing else walks through the user's objects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from types import FunctionType
from typing import Protocol

from ..utils.locks import under
from .change_detection import LRU, ChangeDetector, SnapshotGroup, snapshot
from .common_objects import circles, linked, order, owners, sharing
from .module_namespace import PickledGlobal, SentGlobals, Variable, new_version
from .reached_globals import MISSING, deleted, last_sent, lock, replace, value_of

_FUNCTIONS = frozenset((FunctionType, LRU))


class PickledValues(Protocol):
    """A pickle of the values of some globals, and the ids of its objects."""

    data: bytes
    reached: Iterable[Variable]
    named: Iterable[Variable]  # globals needed by the reader

    @property
    def ids(self) -> AbstractSet[int]: ...

    def has(self, number: int) -> bool: ...


Pickle = Callable[
    [tuple[Variable, ...], tuple[Variable, ...]], PickledValues
]  # of globals, and of the globals that these refer to


class NewPickle:
    """The values of some globals, pickled together for this call."""

    def __init__(self, pickle: Pickle, variables: tuple[Variable, ...], refs: tuple[Variable, ...] = ()) -> None:
        self.variables, self.refs = variables, refs
        snapshots = [snapshot(value_of(variable)) for variable in variables]
        self.snapshot: ChangeDetector | None = (
            snapshots[0] if len(variables) == 1 else SnapshotGroup.of(variables, snapshots)
        )
        pickled = pickle(variables, refs)
        self.data, self.reaches, self.links = pickled.data, tuple(pickled.reached), frozenset(pickled.named)
        self.bound = {variable: id(value_of(variable)) for variable in self.links}
        self._pickled = pickled  # keeps the objects alive, so that their ids stay valid
        self.has = pickled.has

    @property
    def ids(self) -> AbstractSet[int]:
        return self._pickled.ids

    def lasting(self) -> frozenset[int]:
        """Return the ids valid as long as the values are unchanged."""
        if self.snapshot is None or not self.snapshot.ids:
            return frozenset()
        return frozenset(filter(self.has, self.ids & self.snapshot.ids))


class KnownPickle:
    """The values of some globals, unchanged since the last pickle."""

    def __init__(self, sent: SentGlobals) -> None:
        self.variables, self.refs = sent.variables, tuple(sent.refs)
        self.snapshot = sent.snapshot
        self.data, self.reaches, self.ids = sent.data, sent.reaches, sent.ids
        self.links, self.bound = sent.links, sent.bound

    def has(self, number: int) -> bool:
        return True

    def lasting(self) -> AbstractSet[int]:
        return self.ids


AnyPickle = NewPickle | KnownPickle


class ObjectGraph:
    """The globals in the reach of a call, with their present values."""

    def __init__(self, pickle: Pickle) -> None:
        self._pickle = pickle
        self.pickles: dict[Variable, AnyPickle | None] = {}  # None: the global has no value
        self.sent: dict[Variable, SentGlobals | None] = {}
        self._contents: dict[Variable, int] = {}  # see `SentGlobals.content`

    def add(self, variables: Iterable[Variable]) -> bool:
        """Add these globals and their reach; return True if the form of an earlier global has changed, too."""
        if not self._follow(variables):
            return False
        while self._refer() or self._unite():  # each changes pickles, and so may uncover further common objects
            pass
        before, self.sent, self._contents = self.sent, {}, {}
        under(lock, self._settle_all)  # two threads that send a global for the first time must agree on one version
        return any(self.sent[variable] is not sent for variable, sent in before.items())

    def pickled(self, variables: Iterable[Variable], written: set[Variable]) -> Iterator[PickledGlobal]:
        """Yield these globals and all their needs, except for globals in `written`, and add each to `written`."""
        todo = list(variables)
        while todo:
            variable = todo.pop()
            if variable not in written:
                written.add(variable)
                sent = self.sent[variable]
                if sent is not None:
                    todo.extend((*sent.reaches, *sent.refs, *sent.variables))
                    yield variable[0].header, variable[1], sent.version, sent.data

    def distinct(self) -> list[AnyPickle]:
        return list(dict.fromkeys(pickle for pickle in self.pickles.values() if pickle is not None))

    def connected(self, found: Iterable[AnyPickle]) -> tuple[Variable, ...]:
        """Return the globals of these pickles, and of all pickles linked with one, directly or through others."""
        todo, pickles = list(found), self.distinct()
        everything = dict.fromkeys(todo)
        while todo:
            one = todo.pop()
            new = [other for other in pickles if other not in everything and linked(one, other)]
            everything.update(dict.fromkeys(new))
            todo += new
        return tuple(sorted((variable for pickle in everything for variable in pickle.variables), key=order))

    # -- pickling values -------------------------------------------------------------------------------

    def _follow(self, variables: Iterable[Variable]) -> bool:
        """Add the new globals among these, pickled if perhaps changed; return True if there are any."""
        todo, new = list(variables), False
        while todo:
            variable = todo.pop()
            if variable not in self.pickles:
                new = True
                self.pickles[variable] = pickle = self._first(variable)
                if pickle is not None:
                    self._put(pickle)
                    todo.extend((*pickle.reaches, *pickle.refs, *self._formerly(variable)))
        return new

    def _put(self, pickle: AnyPickle) -> None:
        self.pickles.update(dict.fromkeys(pickle.variables, pickle))

    def _first(self, variable: Variable) -> AnyPickle | None:
        """Pickle a global, together with the same globals as last time if the pickle is still the same."""
        value = value_of(variable)
        if value is MISSING:
            return None
        known = last_sent(variable)
        if known is None or known.data is None or not self._are_free(known):
            return NewPickle(self._pickle, (variable,))
        if known.snapshot is not None and known.snapshot.unchanged(value) and _names_hold(known):
            return KnownPickle(known)
        pickle = NewPickle(self._pickle, known.variables, tuple(known.refs))
        alone = len(known.variables) == 1 and not known.refs
        return pickle if alone or pickle.data == known.data else NewPickle(self._pickle, (variable,))

    def _formerly(self, variable: Variable) -> tuple[Variable, ...]:
        """Return the globals sent together with this one last time, because perhaps they still share objects."""
        known = last_sent(variable)
        return () if known is None else known.variables

    def _are_free(self, sent: SentGlobals) -> bool:
        if any(self.pickles.get(variable) for variable in sent.variables):
            return False
        return all(value_of(variable) is not MISSING for variable in (*sent.variables, *sent.refs))

    # -- shared objects --------------------------------------------------------------------------------

    def _refer(self) -> bool:
        """Replace objects in values by references to the globals with these objects; return True if there are any."""
        pickles = [pickle for pickle in self.distinct() if pickle.ids]
        means = owners({variable[0] for pickle in pickles for variable in pickle.variables}) if pickles else {}
        referred = False
        for pickle in pickles:
            inside = {means[number] for number in pickle.ids & means.keys() if pickle.has(number)}
            if not inside <= {*pickle.variables, *pickle.refs}:
                self._again(pickle.variables, inside.union(pickle.refs))
                referred = True
        return referred

    def _unite(self) -> bool:
        """Pickle values with common objects, and circles of references, together; return True if there are any."""
        pickles = self.distinct()
        groups = sharing(pickles) or circles(pickles)
        for group in groups:
            variables = sorted((variable for pickle in group for variable in pickle.variables), key=order)
            self._again(tuple(variables), {variable for pickle in group for variable in pickle.refs})
        return bool(groups)

    def _again(self, variables: tuple[Variable, ...], refs: set[Variable]) -> None:
        others = sorted(refs.difference(variables), key=order)
        pickle = NewPickle(self._pickle, variables, tuple(others))
        self._put(pickle)
        self._follow((*pickle.reaches, *others))

    # -- versions --------------------------------------------------------------------------------------

    def _settle_all(self) -> None:
        for variable in self.pickles:
            self._settle(variable)

    def _functions(self, pickle: AnyPickle) -> set[Variable]:
        """Return the functions that a pickle names, directly or through others; circles are possible."""
        found, todo = set[Variable](), [*pickle.links]
        while todo:
            one = todo.pop()
            if one not in found and type(value_of(one)) in _FUNCTIONS and (named := self.pickles.get(one)) is not None:
                found.add(one)
                todo.extend(named.links)
        return found

    def _content(self, variable: Variable) -> int:
        """Return the number of the content of a global: as last time, or a new one."""
        if variable not in self._contents:
            pickle = self.pickles[variable]
            assert pickle is not None
            refs = {other: self._version(other) for other in pickle.refs}
            known = last_sent(variable)
            is_known = known is not None and known.has_content(pickle.data, pickle.variables, refs)
            number = known.content if known is not None and is_known else new_version()
            self._contents.update(dict.fromkeys(pickle.variables, number))
        return self._contents[variable]

    def _version(self, variable: Variable) -> int:
        found = self._settle(variable)
        return 0 if found is None else found.version

    def _settle(self, variable: Variable) -> SentGlobals | None:
        """Set the form of a global for sending: as last time, unless the value or one of its references has changed."""
        if variable in self.sent:
            return self.sent[variable]
        pickle = self.pickles[variable]
        if pickle is None:
            self.sent[variable] = gone = deleted(variable)
            return gone
        refs = {other: self._version(other) for other in pickle.refs}
        functions = {other: self._content(other) for other in self._functions(pickle)} if pickle.links else {}
        new = SentGlobals(pickle.data, pickle.variables, self._content(variable), refs, functions)
        sent = replace(pickle.variables, new)
        sent.snapshot, sent.reaches = pickle.snapshot, pickle.reaches
        sent.links, sent.bound, sent.ids = pickle.links, pickle.bound, pickle.lasting()
        self.sent.update(dict.fromkeys(pickle.variables, sent))
        return sent


def _names_hold(sent: SentGlobals) -> bool:
    """Return True if the globals that a pickle names have the same values; after a reload they have others."""
    return all(id(value_of(variable)) == number for variable, number in sent.bound.items())
