"""A cached call in a worker: its run, the storing of its result, and the note for the driver beside that."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from time import perf_counter
from typing import Any

from ..cache.messages import RunDeclined
from ..cache.run_call import begin
from ..serialize.packed import Packed
from .call_request import Request
from .current_call import Again, running
from .exceptions import traceback_text
from .process_state import ProcessState, note_modules

note_modules()  # those that were just loaded


def run_cached(
    order: Any,
    request: Request,
    run: Callable[[], tuple[Packed, Any]],
    function: bytes | None,
    pid: int,
    state: ProcessState,
) -> tuple[Packed | None, bytes]:
    """Run the call if it is to be run here: its packed result, None if it was not, and the note for the driver.

    `run` returns the result packed and as it is, and opens the request. The arguments are kept packed until the result
    is stored, and opened for that once more, because the function may have changed those that it was given. `function`
    is the pickled function where that did not come with the arguments; `pid` and `state` are the worker's.
    """
    order = pickle.loads(order) if isinstance(order, bytes) else order  # through an agent it comes unopened
    begun = begin(order)
    if isinstance(begun, RunDeclined):
        return None, pickle.dumps(begun, 5)
    running.key = order.key
    kept = request.original()
    started = perf_counter()
    try:
        packed, value = run()
    except BaseException as error:
        running.hand_over()
        _stop_forks(pid)
        with state:
            if running.ended_from_outside or isinstance(error, Again):  # that is not how the function ends
                begun.release()
                raise
            begun.failed(error, traceback_text(error), perf_counter() - started, lambda: _arguments(kept))
        raise
    seconds = perf_counter() - started
    _stop_forks(pid)
    with state:
        report = begun.finished(value, seconds, lambda: _arguments(kept), function)
        return packed, pickle.dumps(report, 5)


def _arguments(kept: Request) -> Any:
    return kept.load()[-2:]  # without the function, if that travelled with them


def _stop_forks(pid: int) -> None:
    """If the function forked and both processes came back, only one of them may store what it returned."""
    if os.getpid() != pid:
        os._exit(0)
