"""Complete pickles: an object with all globals reached from the object, as one graph."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from .common_objects import order, owners
from .module_namespace import Variable
from .name_references import LentNames
from .object_graph import AnyPickle, ObjectGraph
from .pickler import Pickler, ValuePickler

__all__ = ["Dump", "dumps"]


class Dump:
    """The pickle of an object, for `pickle.loads`.

    A global that shares objects with the pickled object is *lent* a value: the value is part of the pickle, and the
    reader's global keeps this value only for the one call.
    """

    def __init__(
        self,
        thing: Any,
        *,
        buffer_callback: Callable[[pickle.PickleBuffer], Any] | None = None,
        reduce: Callable[[Any], Any] | None = None,
        to_driver: bool = False,
        again: Callable[[], object] = lambda: None,
    ) -> None:
        """Pickle `thing`; `again` is called before each further attempt, which passes all buffers on once more."""
        self._options: dict[str, Any] = {"buffer_callback": buffer_callback, "reduce": reduce, "to_driver": to_driver}
        self.graph = ObjectGraph(ValuePickler)
        self.lent: tuple[Variable, ...] = ()
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
        """Return the object to pickle instead, now that the graph is known; None if the pickle is complete.

        Only the finished pickle tells its objects, and so the globals that share one.
        """
        if self.pickler.overtaken:
            self.lent = ()
            return thing
        if type(written) is LentNames:
            return None
        common = {pickle: self._common(pickle) for pickle in self.graph.distinct() if pickle.ids}
        if not any(common.values()):
            return None
        self.lent, refs = self._shared(common)
        return LentNames(thing, self.lent, refs) if self.lent or refs else None

    def _common(self, pickle: AnyPickle) -> frozenset[int]:
        """Return the ids of the objects in both this pickle and the pickle of a global."""
        both = pickle.ids & self.pickler.ids
        return frozenset(number for number in both if self.pickler.has(number) and pickle.has(number))

    def _shared(self, common: Mapping[AnyPickle, AbstractSet[int]]) -> tuple[tuple[Variable, ...], list[Variable]]:
        """Return the globals to lend values to, and the globals to which the pickle refers for a sentinel."""
        means = owners({space for space, _ in self.graph.pickles})
        constant = {n for n in means.keys() & self.pickler.ids if self.pickler.is_sentinel(n)}
        lent = self.graph.connected([pickle for pickle, numbers in common.items() if numbers - constant])
        named = {means[number] for numbers in common.values() for number in numbers & constant}
        return lent, sorted(named.intersection(self.graph.pickles).difference(lent), key=order)


def dumps(
    thing: Any,
    *,
    buffer_callback: Callable[[pickle.PickleBuffer], Any] | None = None,
    reduce: Callable[[Any], Any] | None = None,
    to_driver: bool = False,
) -> bytes:
    """Return the pickle of an object, for `pickle.loads`; the parameters are those of `Dump`."""
    return Dump(thing, buffer_callback=buffer_callback, reduce=reduce, to_driver=to_driver).data
