"""Futures derived from futures: `item` and `unzip`, parts of a result; `batched`, tuples of results in order of end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Future as StandardFuture
from functools import partial
from itertools import count
from typing import Any, TypeVar

from ..status.call_status import CallStatus, unfinished
from .future import Future
from .lazy import DerivedResult
from .waiting import when_ended

__all__ = ["ItemFuture", "batched", "item", "part_of", "sources_of", "unzip", "whole_of"]

T = TypeVar("T")


def item(future: StandardFuture[Any], key: Any) -> Future[Any]:
    """Return the future of `future.result()[key]`.

    The part fails as `future` fails, is cancelled with `future`, and otherwise raises the exception of the indexing.
    Cancelling the part does not cancel `future`.

    Args:
        future: any `concurrent.futures.Future`.
        key: an index, a key of a dict, a slice, or any other object for the brackets.

    Raises:
        TypeError: `future` is not a future.

    Examples:
        >>> pair = executor.submit(divmod, 17, 5)
        >>> executor.submit(pow, item(pair, 1), 10).result()  # does not wait for the pair here
        1024
    """
    _check_future(future, "item")
    return _part(future, key, None)


def unzip(future: StandardFuture[Any], n: int) -> list[Future[Any]]:
    """Return `n` futures of the `n` parts of a sequence.

    The parts fail as `future` fails, are cancelled with `future`, and raise ValueError for a result of another length.

    Args:
        future: any `concurrent.futures.Future`.
        n: the length of the result (count, 0 or more).

    Raises:
        TypeError: `future` is not a future, or `n` not an integer.
        ValueError: `n` is negative.

    Examples:
        >>> quotient, remainder = unzip(executor.submit(divmod, 17, 5), 2)
        >>> remainder.result()
        2
    """
    _check_future(future, "unzip")
    _check_number("unzip", n, 0)
    return [_part(future, i, n) for i in range(n)]


def batched(futures: Iterable[StandardFuture[T]], n: int) -> list[Future[tuple[T, ...]]]:
    """Return futures of tuples of `n` results each, in the order in which `futures` finish.

    The last tuple may be shorter. A failed or cancelled future fails or cancels its batch.

    Args:
        futures: any `concurrent.futures.Future` objects.
        n: the number of results in a batch (1 or more).

    Raises:
        TypeError: one of `futures` is not a future, or `n` not an integer.
        ValueError: `n` is less than 1.

    Examples:
        >>> lengths = [executor.submit(len, "x" * i) for i in range(10)]
        >>> sums = [executor.submit(sum, batch) for batch in batched(lengths, 4)]
        >>> len(sums), sum(each.result() for each in sums)
        (3, 45)
    """
    _check_number("batched", n, 1)
    if isinstance(futures, StandardFuture):
        raise TypeError(f"batched: give it a list of futures, not the one {futures!r}")
    sources = list(futures)
    for source in sources:
        _check_future(source, "batched")
    return _batches(sources, n)


def _check_future(value: object, asking: str) -> None:
    if not callable(getattr(value, "add_done_callback", None)):
        raise TypeError(f"{asking}: {value!r} is not a future")


def _check_number(asking: str, n: Any, least: int) -> None:
    if not hasattr(n, "__index__"):
        raise TypeError(f"{asking}: n must be an integer, not {n!r}")
    if n < least:
        raise ValueError(f"{asking}: n must be at least {least}, not {n}")


# -- parts -----------------------------------------------------------------------------------------------


class _Item(DerivedResult):
    """A part of another future's result, taken on demand."""

    __slots__ = ("key", "length", "source")

    def __init__(self, source: StandardFuture[Any], key: Any, length: int | None) -> None:
        self.source, self.key, self.length = source, key, length

    def load(self) -> Any:
        return part_of(self.source.result(), self.key, self.length)


def part_of(whole: Any, key: Any, length: int | None) -> Any:
    """Return `whole[key]`; with a `length`, as from `unzip`, refuse a sequence of another length."""
    if length is not None and len(whole) != length:
        raise ValueError(f"unzip: expected {length} values, the result has {len(whole)}")
    return whole[key]


def origins_of(source: object) -> tuple[tuple[str, str], ...]:
    """Return what `Future.origins` does; nothing for a future of another library."""
    return source.origins() if isinstance(source, Future) else ()


class ItemFuture(Future[Any]):
    """The future of a part of another future's result.

    Attributes:
        source: the other future, until its end; then None, so that the part does not keep the whole alive.
        key_and_length: the key of the part, and the expected length of the whole (None for `item`).
    """

    __slots__ = ("_identity", "_origins", "key_and_length", "source")

    def __init__(self, source: StandardFuture[Any], key: Any, length: int | None) -> None:
        super().__init__(f"{getattr(source, 'name', 'future')}[{key!r}]")
        self.source: StandardFuture[Any] | None = source
        self.key_and_length = key, length
        self._identity = ""
        self._origins: tuple[tuple[str, str], ...] = ()  # once the source is let go of

    def origins(self) -> tuple[tuple[str, str], ...]:
        return self._origins or origins_of(self.source)

    def ends_here(self) -> bool:
        source = self.source
        return isinstance(source, Future) and source.ends_here()

    def _present_status(self) -> CallStatus | None:
        return None if self.source is None else CallStatus("waiting", awaits=(self.source,))

    @property
    def identity(self) -> str:
        """The name of the part in keys of calls while the content is unknown; "" where the whole has no such name."""
        whole: str = getattr(self.source, "identity", "")
        key, length = self.key_and_length
        return f"{whole}[{key!r} of {length}]" if whole and type(key) in (int, str) else self._identity

    def ended(self, source: StandardFuture[Any]) -> None:
        """End as `source` has ended."""
        self._identity, self._origins, self.source = self.identity, origins_of(source), None
        if not _end_alike(source, self):
            self.finish(_Item(source, *self.key_and_length))


def sources_of(future: Future[Any]) -> Sequence[StandardFuture[Any]]:
    """Return the futures from whose results the result of a derived future will be made, when it is asked for."""
    packed = future._packed
    if isinstance(packed, _Item):
        return (packed.source,)
    return packed.sources if isinstance(packed, _TupleResult) else ()


def whole_of(source: Any) -> tuple[Any, list[tuple[Any, int | None]]]:
    """Return the future of the whole result, and the keys that lead from there to `source`."""
    steps = []
    while isinstance(source, ItemFuture) and (whole := source.source) is not None:
        steps.append(source.key_and_length)
        source = whole
    return source, steps[::-1]


def _part(source: StandardFuture[Any], key: Any, length: int | None) -> Future[Any]:
    part = ItemFuture(source, key, length)
    when_ended(source, part.ended)
    return part


def _end_alike(source: StandardFuture[Any], target: Future[Any]) -> bool:
    """Fail or cancel `target` if `source` has failed or was cancelled; return False if `source` has a result."""
    if source.cancelled():
        target.cancel()
        return True
    if isinstance(source, Future):
        if not source.failed():
            return False
        target.fails_because_of(source)
        packed = source.packed_failure()
        if packed is not None:  # passed on unopened, because perhaps no thread of this process ever asks for the error
            return target.fail(packed)
    error = source.peek_exception() if isinstance(source, Future) else source.exception()
    return error is not None and target.fail_with(error)


# -- batches ---------------------------------------------------------------------------------------------


def _batches(sources: list[StandardFuture[T]], n: int) -> list[Future[tuple[T, ...]]]:
    sizes = [min(n, len(sources) - first) for first in range(0, len(sources), n)]
    batches: list[_BatchFuture[T]] = [_BatchFuture(sources) for _ in sizes]
    arrived: list[dict[int, StandardFuture[T]]] = [{} for _ in sizes]  # for each batch, by the number of the source
    places: dict[int, int] = {}  # number of the source -> its place in the order of ends
    free = count()

    # No lock, because the garbage collector may run a finalizer in the middle of `ended`, and the finalizer may end
    # another source in the same thread. Instead each step is atomic, and may be done twice.
    def ended(number: int, source: StandardFuture[T]) -> None:
        if number not in places:
            places.update(zip((number,), free))  # noqa: B905  # takes and notes a place in one step, written in C
        place = places[number] // n
        batch, members = batches[place], arrived[place]
        members[number] = source
        if not _end_alike(source, batch) and len(members) == sizes[place] and not batch.done():
            batch.take_origins(members.values())
            batch.finish(_TupleResult(list(members.values())))

    for number, source in enumerate(sources):
        when_ended(source, partial(ended, number))
    return list(batches)


class _BatchFuture(Future[tuple[T, ...]]):
    """The future of a tuple of results: of the first `n` sources to end, the next `n`, and so on."""

    __slots__ = ("_origins", "_sources")

    def __init__(self, sources: Sequence[StandardFuture[T]]) -> None:
        super().__init__("batched")
        self._sources = sources
        self._origins: tuple[tuple[str, str], ...] = ()

    def origins(self) -> tuple[tuple[str, str], ...]:
        return self._origins

    def take_origins(self, members: Iterable[StandardFuture[T]]) -> None:
        self._origins = tuple(origin for member in members for origin in origins_of(member))

    def ends_here(self) -> bool:
        return all(source.done() or (isinstance(source, Future) and source.ends_here()) for source in self._sources)

    def _present_status(self) -> CallStatus | None:
        return CallStatus("waiting", awaits=unfinished(self._sources))

    def _end(self, *end: Any) -> bool:
        self._sources = ()  # before any callback learns of the end, so that the batch keeps no other results alive
        return super()._end(*end)


class _TupleResult(DerivedResult):
    """The results of several finished futures, as a tuple."""

    __slots__ = ("sources",)

    def __init__(self, sources: Sequence[StandardFuture[Any]]) -> None:
        self.sources = sources

    def load(self) -> tuple[Any, ...]:
        return tuple(source.result() for source in self.sources)
