"""What a call reaches by name, as one graph: an object in it is read as one object, whatever the ways to it.

The value of each name is a pickle of its own, so that it travels only when it has changed, and pickles know nothing of
each other. So where values have an object in common,

- and a name means that object, the others refer to this name;
- and no name means it, or they refer to each other in a circle, they are pickled together.

What a pickler has met, its memo tells. Nothing else walks through the user's objects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from typing import Protocol

from ..utils.locks import under
from .change_detection import ChangeDetector, SnapshotGroup, snapshot
from .globals import MISSING, GlobalUnit, deleted, known_unit, lock, replace, value_of
from .module_namespace import Wire
from .shared_objects import Place, circles, linked, order, owners, sharing


class PickledNames(Protocol):
    """The values of some names in one pickle, and what the pickler met."""

    data: bytes
    reached: Iterable[Place]
    named: Iterable[Place]  # names whose values must be there when it is read

    @property
    def ids(self) -> AbstractSet[int]: ...

    def has(self, number: int) -> bool: ...


Pickle = Callable[[tuple[Place, ...], tuple[Place, ...]], PickledNames]  # of names, and those that they refer to


class PickleStream:
    """The values of some names as they are pickled together now."""

    def __init__(self, pickle: Pickle, places: tuple[Place, ...], refs: tuple[Place, ...] = ()) -> None:
        self.places, self.refs = places, refs
        snapshots = [snapshot(value_of(place)) for place in places]
        self.snapshot: ChangeDetector | None = snapshots[0] if len(places) == 1 else SnapshotGroup.of(places, snapshots)
        pickled = pickle(places, refs)
        self.data, self.reaches, self.links = pickled.data, tuple(pickled.reached), frozenset(pickled.named)
        self._pickled = pickled  # what it met lives as long, so ids mean something
        self.has = pickled.has

    @property
    def ids(self) -> AbstractSet[int]:
        return self._pickled.ids

    def lasting(self) -> frozenset[int]:
        """The ids that will mean the same objects as long as the values are unchanged."""
        if self.snapshot is None or not self.snapshot.met:
            return frozenset()
        return frozenset(filter(self.has, self.ids & self.snapshot.met))


class UnchangedUnit:
    """A unit whose values need not be pickled again."""

    def __init__(self, unit: GlobalUnit) -> None:
        self.places, self.refs = unit.places, tuple(unit.refs)
        self.snapshot = unit.snapshot
        self.data, self.reaches, self.links, self.ids = unit.data, unit.reaches, unit.links, unit.ids

    def has(self, number: int) -> bool:
        return True

    def lasting(self) -> AbstractSet[int]:
        return self.ids


AnyStream = PickleStream | UnchangedUnit


class ObjectGraph:
    """The names that a call reaches, with the values that they have now."""

    def __init__(self, pickle: Pickle) -> None:
        self._pickle = pickle
        self.streams: dict[Place, AnyStream | None] = {}  # None: the name has no value
        self.units: dict[Place, GlobalUnit | None] = {}

    def look(self, places: Iterable[Place]) -> bool:
        """Add these names and all that they reach. Whether that changed what others of them are sent as."""
        if not self._follow(places):
            return False
        while self._refer() or self._unite():
            pass
        before, self.units = self.units, {}
        under(lock, self._settle_all)  # two threads that make the first unit at once must agree on its version
        return any(self.units[place] is not unit for place, unit in before.items())

    def wires(self, places: Iterable[Place], sent: set[Place]) -> Iterator[Wire]:
        """The units of these names and of all that they need, but of what was sent; notes them there."""
        todo = list(places)
        while todo:
            place = todo.pop()
            if place not in sent:
                sent.add(place)
                unit = self.units[place]
                if unit is not None:
                    todo.extend((*unit.reaches, *unit.refs, *unit.places))
                    yield place[0].header, place[1], unit.version, unit.data

    def distinct(self) -> list[AnyStream]:
        return list(dict.fromkeys(stream for stream in self.streams.values() if stream is not None))

    def connected(self, found: Iterable[AnyStream]) -> tuple[Place, ...]:
        """The names of these, and of all that refer to them or that they refer to, and so on."""
        todo, streams = list(found), self.distinct()
        everything = dict.fromkeys(todo)
        while todo:
            one = todo.pop()
            new = [other for other in streams if other not in everything and linked(one, other)]
            everything.update(dict.fromkeys(new))
            todo += new
        return tuple(sorted((place for stream in everything for place in stream.places), key=order))

    # -- looking at values -----------------------------------------------------------------------------

    def _follow(self, places: Iterable[Place]) -> bool:
        """Pickle the values of names that are not here yet, if they may have changed. Whether there are such names."""
        todo, new = list(places), False
        while todo:
            place = todo.pop()
            if place not in self.streams:
                new = True
                self.streams[place] = stream = self._first(place)
                if stream is not None:
                    self._put(stream)
                    todo.extend((*stream.reaches, *stream.refs, *self._formerly(place)))
        return new

    def _put(self, stream: AnyStream) -> None:
        self.streams.update(dict.fromkeys(stream.places, stream))

    def _first(self, place: Place) -> AnyStream | None:
        """With the others that it was sent with last, if all of them are what they were."""
        value = value_of(place)
        if value is MISSING:
            return None
        known = known_unit(place)
        if known is None or known.data is None or not self._are_free(known):
            return PickleStream(self._pickle, (place,))
        if known.snapshot is not None and known.snapshot.unchanged(value):
            return UnchangedUnit(known)
        stream = PickleStream(self._pickle, known.places, tuple(known.refs))
        alone = len(known.places) == 1 and not known.refs
        return stream if alone or stream.data == known.data else PickleStream(self._pickle, (place,))

    def _formerly(self, place: Place) -> tuple[Place, ...]:
        """The names that it was sent with last: they may still share something."""
        known = known_unit(place)
        return () if known is None else known.places

    def _are_free(self, unit: GlobalUnit) -> bool:
        if any(self.streams.get(place) for place in unit.places):
            return False
        return all(value_of(place) is not MISSING for place in (*unit.places, *unit.refs))

    # -- what they have in common ----------------------------------------------------------------------

    def _refer(self) -> bool:
        """Let values refer to names that mean objects in them. Whether there are such names."""
        streams = [stream for stream in self.distinct() if stream.ids]
        means = owners({place[0] for stream in streams for place in stream.places}) if streams else {}
        referred = False
        for stream in streams:
            inside = {means[number] for number in stream.ids & means.keys() if stream.has(number)}
            if not inside <= {*stream.places, *stream.refs}:
                self._again(stream.places, inside.union(stream.refs))
                referred = True
        return referred

    def _unite(self) -> bool:
        """Pickle together what has to be. Whether there is something."""
        streams = self.distinct()
        groups = sharing(streams) or circles(streams)
        for group in groups:
            places = sorted((place for stream in group for place in stream.places), key=order)
            self._again(tuple(places), {place for stream in group for place in stream.refs})
        return bool(groups)

    def _again(self, places: tuple[Place, ...], refs: set[Place]) -> None:
        others = sorted(refs.difference(places), key=order)
        stream = PickleStream(self._pickle, places, tuple(others))
        self._put(stream)
        self._follow((*stream.reaches, *others))

    # -- versions --------------------------------------------------------------------------------------

    def _settle_all(self) -> None:
        for place in self.streams:
            self._settle(place)

    def _settle(self, place: Place) -> GlobalUnit | None:
        """Its unit: the one that it had, unless it has changed, or what it refers to."""
        if place in self.units:
            return self.units[place]
        stream = self.streams[place]
        if stream is None:
            self.units[place] = gone = deleted(place)
            return gone
        refs = {other: 0 if (found := self._settle(other)) is None else found.version for other in stream.refs}
        unit = replace(stream.places, GlobalUnit(stream.data, stream.places, refs))
        unit.snapshot, unit.reaches = stream.snapshot, stream.reaches
        unit.links, unit.ids = stream.links, stream.lasting()
        self.units.update(dict.fromkeys(stream.places, unit))
        return unit
