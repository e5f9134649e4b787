"""A remembered call in a worker: what surrounds its run, and what is said beside its result."""

from __future__ import annotations

import os
import pickle
from time import perf_counter
from typing import TYPE_CHECKING, Any

from ..cache.messages import RunDeclined
from ..cache.run_call import CachedRun, begin
from ..serialize.packed import Packed
from .exceptions import traceback_text

if TYPE_CHECKING:
    from .serve import Request, Server


def remembered(server: Server, number: int, request: Request, order: Any) -> tuple[Packed | None, bytes]:
    """Run the call if it is to be run here: its packed result, None if it was not, and the note for the driver.

    The arguments are kept packed until the result is stored, and opened for that once more: the function may have
    changed those that it was given.
    """
    begun = begin(pickle.loads(order) if isinstance(order, bytes) else order)  # through an agent it comes unopened
    if isinstance(begun, RunDeclined):
        return None, pickle.dumps(begun, 5)
    kept = request.copy()
    started = perf_counter()
    try:
        packed, value = _run(server, number, request)
    except BaseException as error:
        _stop_forks(server)
        begun.failed(error, traceback_text(error), perf_counter() - started, lambda: _arguments(kept))
        raise
    seconds = perf_counter() - started
    _stop_forks(server)
    return packed, _stored(server, number, begun, value, seconds, kept)


def _run(server: Server, number: int, request: Request) -> tuple[Packed, Any]:
    value = server.execute(number, b"", request)
    return server.pack_result(value), value


def _stored(server: Server, number: int, run: CachedRun, value: Any, seconds: float, kept: Request) -> bytes:
    pickled = server.functions[number].data if number else None
    return pickle.dumps(run.finished(value, seconds, lambda: _arguments(kept), pickled), 5)


def _arguments(kept: Request) -> Any:
    from .serve import load_arguments  # here, because that module leads here

    return load_arguments(kept)[-2:]  # without the function, if that travelled with them


def _stop_forks(server: Server) -> None:
    """If the function forked and both came back, only one of them may store what it returned."""
    if os.getpid() != server.pid:
        os._exit(0)
