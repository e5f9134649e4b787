"""The graph of the globals that a call reaches. An object in it is read as one object, however many paths lead to it.

The value of each global is a pickle of its own, so that it travels only when it has changed. But pickles know nothing
of each other, so where values share an object,

- and the object is the value of a global, the others refer to this global;
- and it is not, or the values refer to each other in a circle, they are pickled together.

The memo of a pickler tells which objects it has pickled. Nothing else walks through the user's objects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from typing import Protocol

from ..utils.locks import under
from .change_detection import ChangeDetector, SnapshotGroup, snapshot
from .globals import MISSING, deleted, last_sent, lock, replace, value_of
from .module_namespace import PickledGlobal, Place, SentGlobals
from .shared_objects import circles, linked, order, owners, sharing


class PickledValues(Protocol):
    """The values of some globals in one pickle, and the objects in it."""

    data: bytes
    reached: Iterable[Place]
    named: Iterable[Place]  # globals whose values must be there when it is read

    @property
    def ids(self) -> AbstractSet[int]: ...

    def has(self, number: int) -> bool: ...


Pickle = Callable[[tuple[Place, ...], tuple[Place, ...]], PickledValues]  # of globals, and of those that they refer to


class NewPickle:
    """The values of some globals, pickled together now."""

    def __init__(self, pickle: Pickle, places: tuple[Place, ...], refs: tuple[Place, ...] = ()) -> None:
        self.places, self.refs = places, refs
        snapshots = [snapshot(value_of(place)) for place in places]
        self.snapshot: ChangeDetector | None = snapshots[0] if len(places) == 1 else SnapshotGroup.of(places, snapshots)
        pickled = pickle(places, refs)
        self.data, self.reaches, self.links = pickled.data, tuple(pickled.reached), frozenset(pickled.named)
        self._pickled = pickled  # keeps its objects alive, so that their ids stay valid
        self.has = pickled.has

    @property
    def ids(self) -> AbstractSet[int]:
        return self._pickled.ids

    def lasting(self) -> frozenset[int]:
        """Return the ids that stay valid as long as the values are unchanged."""
        if self.snapshot is None or not self.snapshot.ids:
            return frozenset()
        return frozenset(filter(self.has, self.ids & self.snapshot.ids))


class KnownPickle:
    """The values of some globals that are as they were sent last, so that they need not be pickled again."""

    def __init__(self, sent: SentGlobals) -> None:
        self.places, self.refs = sent.places, tuple(sent.refs)
        self.snapshot = sent.snapshot
        self.data, self.reaches, self.links, self.ids = sent.data, sent.reaches, sent.links, sent.ids

    def has(self, number: int) -> bool:
        return True

    def lasting(self) -> AbstractSet[int]:
        return self.ids


AnyPickle = NewPickle | KnownPickle


class ObjectGraph:
    """The globals that a call reaches, with the values that they have now."""

    def __init__(self, pickle: Pickle) -> None:
        self._pickle = pickle
        self.pickles: dict[Place, AnyPickle | None] = {}  # None: the global has no value
        self.sent: dict[Place, SentGlobals | None] = {}

    def add(self, places: Iterable[Place]) -> bool:
        """Add these globals and all that they reach; return whether others are sent in another way because of them."""
        if not self._follow(places):
            return False
        while self._refer() or self._unite():
            pass
        before, self.sent = self.sent, {}
        under(lock, self._settle_all)  # two threads that send a global for the first time must agree on its version
        return any(self.sent[place] is not sent for place, sent in before.items())

    def pickled(self, places: Iterable[Place], written: set[Place]) -> Iterator[PickledGlobal]:
        """Yield these globals and all that they need, except those that are written already; add them to these."""
        todo = list(places)
        while todo:
            place = todo.pop()
            if place not in written:
                written.add(place)
                sent = self.sent[place]
                if sent is not None:
                    todo.extend((*sent.reaches, *sent.refs, *sent.places))
                    yield place[0].header, place[1], sent.version, sent.data

    def distinct(self) -> list[AnyPickle]:
        return list(dict.fromkeys(pickle for pickle in self.pickles.values() if pickle is not None))

    def connected(self, found: Iterable[AnyPickle]) -> tuple[Place, ...]:
        """Return the globals of these pickles, and of all that are linked with them, directly or through others."""
        todo, pickles = list(found), self.distinct()
        everything = dict.fromkeys(todo)
        while todo:
            one = todo.pop()
            new = [other for other in pickles if other not in everything and linked(one, other)]
            everything.update(dict.fromkeys(new))
            todo += new
        return tuple(sorted((place for pickle in everything for place in pickle.places), key=order))

    # -- pickling values -------------------------------------------------------------------------------

    def _follow(self, places: Iterable[Place]) -> bool:
        """Add globals that are not here yet, and pickle them if they may have changed; return whether there are any."""
        todo, new = list(places), False
        while todo:
            place = todo.pop()
            if place not in self.pickles:
                new = True
                self.pickles[place] = pickle = self._first(place)
                if pickle is not None:
                    self._put(pickle)
                    todo.extend((*pickle.reaches, *pickle.refs, *self._formerly(place)))
        return new

    def _put(self, pickle: AnyPickle) -> None:
        self.pickles.update(dict.fromkeys(pickle.places, pickle))

    def _first(self, place: Place) -> AnyPickle | None:
        """Pickle a global, together with those with which it was sent last if that gives the same pickle."""
        value = value_of(place)
        if value is MISSING:
            return None
        known = last_sent(place)
        if known is None or known.data is None or not self._are_free(known):
            return NewPickle(self._pickle, (place,))
        if known.snapshot is not None and known.snapshot.unchanged(value):
            return KnownPickle(known)
        pickle = NewPickle(self._pickle, known.places, tuple(known.refs))
        alone = len(known.places) == 1 and not known.refs
        return pickle if alone or pickle.data == known.data else NewPickle(self._pickle, (place,))

    def _formerly(self, place: Place) -> tuple[Place, ...]:
        """Return the globals with which it was sent last, because they may still share objects."""
        known = last_sent(place)
        return () if known is None else known.places

    def _are_free(self, sent: SentGlobals) -> bool:
        if any(self.pickles.get(place) for place in sent.places):
            return False
        return all(value_of(place) is not MISSING for place in (*sent.places, *sent.refs))

    # -- shared objects --------------------------------------------------------------------------------

    def _refer(self) -> bool:
        """Let values refer to globals that mean objects in them; return whether there are any."""
        pickles = [pickle for pickle in self.distinct() if pickle.ids]
        means = owners({place[0] for pickle in pickles for place in pickle.places}) if pickles else {}
        referred = False
        for pickle in pickles:
            inside = {means[number] for number in pickle.ids & means.keys() if pickle.has(number)}
            if not inside <= {*pickle.places, *pickle.refs}:
                self._again(pickle.places, inside.union(pickle.refs))
                referred = True
        return referred

    def _unite(self) -> bool:
        """Pickle together the values that have to be; return whether there are any."""
        pickles = self.distinct()
        groups = sharing(pickles) or circles(pickles)
        for group in groups:
            places = sorted((place for pickle in group for place in pickle.places), key=order)
            self._again(tuple(places), {place for pickle in group for place in pickle.refs})
        return bool(groups)

    def _again(self, places: tuple[Place, ...], refs: set[Place]) -> None:
        others = sorted(refs.difference(places), key=order)
        pickle = NewPickle(self._pickle, places, tuple(others))
        self._put(pickle)
        self._follow((*pickle.reaches, *others))

    # -- versions --------------------------------------------------------------------------------------

    def _settle_all(self) -> None:
        for place in self.pickles:
            self._settle(place)

    def _settle(self, place: Place) -> SentGlobals | None:
        """Note how a global is sent: as last time, unless it or a global that it refers to has changed."""
        if place in self.sent:
            return self.sent[place]
        pickle = self.pickles[place]
        if pickle is None:
            self.sent[place] = gone = deleted(place)
            return gone
        refs = {other: 0 if (found := self._settle(other)) is None else found.version for other in pickle.refs}
        sent = replace(pickle.places, SentGlobals(pickle.data, pickle.places, refs))
        sent.snapshot, sent.reaches = pickle.snapshot, pickle.reaches
        sent.links, sent.ids = pickle.links, pickle.lasting()
        self.sent.update(dict.fromkeys(pickle.places, sent))
        return sent
