"""What a future among the arguments is for a job: the result of a call that is one too, or a value to be sent along."""

from __future__ import annotations

from typing import Any, NamedTuple

from ...cache.cache import Cache
from ...futures import ItemFuture
from ...jobs.call_file import CallInput
from ...jobs.planner import ArrayElement, PlannedCall
from ...serialize.function_registry import dumps
from ..cached.future import CachedFuture
from .call import JobCall, JobFuture

__all__ = ["InputSource", "after_of", "cache_at", "call_of", "input_of", "written"]


class InputSource(NamedTuple):
    """A call whose result is taken, or a part of that; see `CallInput`."""

    call: JobCall
    name: str
    path: bytes


def call_of(source: Any, owner: Any) -> JobCall | None:
    """The call behind a future, if it is a job in the same directory that has not ended.

    Not one of another executor's that is no job yet: then nobody knows what the scheduler should wait for.
    """
    source, _ = _whole_of(source)
    inner = source.inner if isinstance(source, CachedFuture) else source
    call = inner.call if isinstance(inner, JobFuture) and not inner.done() else None
    if call is None or call.owner is owner:
        return call
    return call if call.owner.home.path == owner.home.path and call.job is not None else None


def _whole_of(source: Any) -> tuple[Any, list[tuple[Any, int | None]]]:
    """The future whose parts are taken, and which part of it `source` is."""
    steps = []
    while isinstance(source, ItemFuture) and (whole := source.source) is not None:
        steps.append(source.key_and_length)
        source = whole
    return source, steps[::-1]


def after_of(call: JobCall) -> PlannedCall | ArrayElement:
    """What the scheduler is to wait for."""
    if call.folder is None:
        return call.wanted
    batch = call.folder.batch
    element = batch.element_of(call.number)
    return ArrayElement(call.folder.token, 0 if element is None else element, len(batch.of_element(element)) > 1)


def input_of(source: Any, owner: Any) -> CallInput | InputSource:
    """Where the job finds the result; a value is packed now."""
    name = getattr(source, "name", type(source).__name__)
    whole, steps = _whole_of(source)
    call = call_of(whole, owner)
    if call is not None:
        return InputSource(call, name, dumps(steps) if steps else b"")
    stored = source.stored if isinstance(source, (CachedFuture, JobFuture)) else None
    if stored is not None:
        return CallInput(name, key=stored[1], directory=stored[0])
    return CallInput(name, packed=dumps(source.result()))


def written(given: CallInput | InputSource) -> CallInput:
    """Once the call that it comes from has been written, too."""
    if isinstance(given, CallInput):
        return given
    call, name, path = given
    if call.folder is not None:
        return CallInput(name, token=call.folder.token, number=call.number, path=path)
    if call.future.stored is not None:
        return CallInput(name, directory=call.future.stored[0], key=call.future.stored[1], path=path)
    return CallInput(name)  # it failed just now, and so has the call that would have taken its result


_caches: dict[tuple[str, str | None], Cache] = {}


def cache_at(directory: str, trust: str | None) -> Cache:
    """The cache in which a result lies; one object for each."""
    found = _caches.get((directory, trust))
    if found is None:
        found = _caches[directory, trust] = Cache(directory, trust="group" if trust else None)
    return found
