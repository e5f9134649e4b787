"""Whole pickles: what is sent, with all that it reaches by name, as one graph."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import Any

from .graph import AnyStream, Graph
from .pickler import Lending, Pickler, ValuePickler
from .sharing import Place, order, owners

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
        self.graph = Graph(ValuePickler)
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
        if type(written) is Lending or not any(stream.ids for stream in self.graph.distinct()):
            return None
        self.lent, refs = self._shared()
        return Lending(thing, self.lent, refs) if self.lent or refs else None

    def _shared(self) -> tuple[tuple[Place, ...], list[Place]]:
        """The names that share objects with what was written, and those that mean objects that never change."""
        met, has = self.pickler.met, self.pickler.has
        means = owners({space for space, _ in self.graph.streams})
        constant = {n: place for n, place in means.items() if n in met and type(met[n]) is object}

        def meets(stream: AnyStream) -> bool:
            return any(n not in constant and has(n) and stream.has(n) for n in stream.ids & met.keys())

        lent = self.graph.connected(meets)
        return lent, sorted({p for p in constant.values() if p in self.graph.streams}.difference(lent), key=order)


def dumps(
    thing: Any,
    *,
    buffer_callback: Callable[[pickle.PickleBuffer], Any] | None = None,
    reduce: Callable[[Any], Any] | None = None,
    home: bool = False,
) -> bytes:
    """The pickle of an object, for `pickle.loads`."""
    return Dump(thing, buffer_callback=buffer_callback, reduce=reduce, home=home).data
