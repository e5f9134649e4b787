"""A cached call in a worker: the run, the storing of the result, and the note about both for the driver."""

from __future__ import annotations

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
from .process_state import ProcessState, end_forks, note_modules
from .usage_meter import UsageMeter

note_modules()  # of this package, just loaded


def run_cached(
    order: Any,
    request: Request,
    run: Callable[[], tuple[Packed, Any]],
    function: bytes | None,
    pid: int,
    state: ProcessState,
    meter: UsageMeter | None,
) -> tuple[Packed | None, bytes]:
    """Run the call, unless another process has its claim or result; return the packed result or None, and a note.

    The arguments stay packed until the result is stored, and are then opened once more for the record, because the
    function may have changed the objects of its run.

    Args:
        order: the instructions of the driver.
        request: the packed call.
        run: opens the request, runs the call, and returns the result both packed and as an object.
        function: the pickled function, if it did not come with the arguments.
        pid: the worker's process id.
        state: the worker's state.
        meter: measures what the call uses; `run` stops it at the end of the function.
    """
    order = pickle.loads(order) if isinstance(order, bytes) else order  # an agent passes it on unopened
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
        end_forks(pid)
        with state:
            if running.ended_from_outside or isinstance(error, Again):  # such an end says nothing about the function
                begun.release()
                raise
            begun.failed(error, traceback_text(error), perf_counter() - started, lambda: _arguments(kept))
        raise
    seconds = perf_counter() - started
    end_forks(pid)
    with state:
        report = begun.finished(value, seconds, lambda: _arguments(kept), function)
        if meter is not None:
            report = report.replace(usage=meter.usage(packed.size))
        return packed, pickle.dumps(report, 5)


def _arguments(kept: Request) -> Any:
    return kept.load()[-2:]  # without the function, which may come first
