"""Whole pickles: what is sent, with all that it reaches by name, as one graph."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from .object_graph import AnyStream, ObjectGraph
from .pickler import LentNames, Pickler, ValuePickler
from .shared_objects import Place, order, owners

__all__ = ["Dump", "dumps"]


class Dump:
    """The pickle of an object, for `pickle.loads`.

    Names whose values share an object with it are *lent* to its reader: they have these values for the call that it is
    read for, and it is read with them or not at all.
    """

    def __init__(
        self,
        thing: Any,
        *,
        buffer_callback: Callable[[pickle.PickleBuffer], Any] | None = None,
        reduce: Callable[[Any], Any] | None = None,
        home: bool = False,
        again: Callable[[], object] = lambda: None,
    ) -> None:
        """`again` is called before all is written once more, and so are its buffers."""
        self._options: dict[str, Any] = {"buffer_callback": buffer_callback, "reduce": reduce, "home": home}
        self.graph = ObjectGraph(ValuePickler)
        self.lent: tuple[Place, ...] = ()
        root = thing
        self._write(root)
        while (root := self._next(thing, root)) is not None:
            again()
            self._write(root)

    def _write(self, root: Any) -> None:
        with io.BytesIO() as file:
            self.pickler = Pickler(file, graph=self.graph, lent=self.lent, **self._options)
            self.pickler.dump(root)
            self.data = file.getvalue()

    def _next(self, thing: Any, written: Any) -> Any:
        """What to write instead, now that more is known of what it reaches."""
        if self.pickler.overtaken:
            self.lent = ()
            return thing
        if type(written) is LentNames:
            return None
        met = {stream: self._met_too(stream) for stream in self.graph.distinct() if stream.ids}
        if not any(met.values()):
            return None
        self.lent, refs = self._shared(met)
        return LentNames(thing, self.lent, refs) if self.lent or refs else None

    def _met_too(self, stream: AnyStream) -> frozenset[int]:
        both = stream.ids & self.pickler.ids
        return frozenset(number for number in both if self.pickler.has(number) and stream.has(number))

    def _shared(self, met: Mapping[AnyStream, AbstractSet[int]]) -> tuple[tuple[Place, ...], list[Place]]:
        """The names whose values share what was met, and those that mean what never changes."""
        means = owners({space for space, _ in self.graph.streams})
        constant = {n for n in means.keys() & self.pickler.ids if self.pickler.is_marker(n)}
        lent = self.graph.connected([stream for stream, numbers in met.items() if numbers - constant])
        named = {means[number] for numbers in met.values() for number in numbers & constant}
        return lent, sorted(named.intersection(self.graph.streams).difference(lent), key=order)


def dumps(
    thing: Any,
    *,
    buffer_callback: Callable[[pickle.PickleBuffer], Any] | None = None,
    reduce: Callable[[Any], Any] | None = None,
    home: bool = False,
) -> bytes:
    """The pickle of an object, for `pickle.loads`."""
    return Dump(thing, buffer_callback=buffer_callback, reduce=reduce, home=home).data
