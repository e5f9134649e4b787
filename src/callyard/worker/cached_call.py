"""A cached call in a worker: the run, the storing of the result, and the note about both for the driver."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from time import perf_counter
from typing import Any

from ..cache.messages import RunDeclined
from ..cache.output_log import take_log
from ..cache.run_call import begin
from ..events.usage import Usage
from ..serialize.packed import Packed
from .call_output import begin_log, end_log
from .call_request import Request
from .current_call import ATTEMPT, running
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
    tell: Callable[[bytes], None],
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
        tell: takes the note about a call that fails.
    """
    order = pickle.loads(order) if isinstance(order, bytes) else order  # an agent passes it on unopened
    begun = begin(order)
    if isinstance(begun, RunDeclined):
        return None, pickle.dumps(begun, 5)
    running.key = order.key
    kept = request.original()
    log = begun.log()
    if log is not None and not begin_log(log, request.options.get(ATTEMPT, 1) > 1):
        log = None
    started = perf_counter()
    try:
        packed, value = run()
    except BaseException as error:
        running.hand_over()
        end_forks(pid)
        seconds = perf_counter() - started
        with state:
            goes_on = request.goes_on_after(error)
            if running.ended_from_outside or goes_on:  # such an end says nothing about the function
                if log is not None and goes_on:  # the next run goes on with this log
                    end_log()
                begun.release()
                raise
            told = _named(error, order.name, request.options.get("memory"))
            usage = None if meter is None else meter.usage()
            seconds = seconds if usage is None else usage.wall
            facts = _facts(log, usage)
            report = begun.failed(told, traceback_text(error), seconds, lambda: _arguments(kept), facts)
            tell(pickle.dumps(report.replace(usage=usage), 5))
        raise
    seconds = perf_counter() - started
    end_forks(pid)
    with state:
        usage = None if meter is None else meter.usage(packed.size)
        seconds = seconds if usage is None else usage.wall  # without the time for packing the result
        report = begun.finished(value, seconds, lambda: _arguments(kept), function, _facts(log, usage))
        return packed, pickle.dumps(report.replace(usage=usage), 5)


def _facts(log: str | None, usage: Usage | None) -> dict[str, Any]:
    """Return the facts of the run: its output, if there is any, and what it has used."""
    # Taken before the release of the claim: the next run of the call has a log of the same name.
    facts: dict[str, Any] = {"log": take_log(log)} if log is not None and end_log() else {}
    return facts if usage is None else {**facts, "usage": usage.known()}


def _arguments(kept: Request) -> Any:
    return kept.load()[-2:]  # without the function, which may come first


def _named(error: BaseException, name: str, memory: int | None) -> BaseException:
    """Return OutOfMemory in the place of a MemoryError at the call's own limit, and any other error unchanged."""
    if not memory or not isinstance(error, MemoryError):
        return error
    from ..errors import OutOfMemory
    from ..system.exit_status import too_much_memory

    return error if isinstance(error, OutOfMemory) else OutOfMemory(too_much_memory(repr(name), memory))
