"""The calls of an executor of jobs at this moment, for any thread: in which queue each waits, and where it runs.

All of it is what files and scheduler have told for other reasons. Nothing is locked; what changes meanwhile is looked
at once more by whoever asks.
"""

from __future__ import annotations

from ...status.call_status import CallStatus, in_the_queue
from ...status.executor_status import FOR_OTHER_CALLS, ExecutorStatus, RunningCall
from .call import JobCall
from .executor_state_machine import ExecutorState

__all__ = ["add_call", "status_of"]


def status_of(call: JobCall, state: ExecutorState, scheduler: str, now: float) -> CallStatus:
    """Return the status of a call that has not ended. `now` is read from the clock of the executor's state."""
    known = call.duplicate_of or call
    batch = None if known.directory is None else state.batches.get(known.directory.token)
    progress = None if batch is None else batch.states.get(known.number)
    said = None if progress is None else progress.status
    job = f"job {known.job}" if known.job else ""
    if call.future.running():
        since = None if progress is None else progress.running_since
        seconds = None if since is None else max(0.0, now - since)
        host = said.node if said is not None and said.phase == "running" else ""
        return CallStatus("running", host=host, worker=job, seconds=seconds)
    awaits = call.unfinished_inputs()
    if known.directory is None or not known.job:
        words = f"to be submitted to {scheduler}{_next_attempt(known)}{_pause(state, now)}"
        return CallStatus("waiting", words, awaits=awaits)
    if said is None or said.phase != "waiting":
        return CallStatus("waiting", in_the_queue(scheduler, "", None, known.job), awaits=awaits)
    return CallStatus("waiting", in_the_queue(scheduler, said.reason, said.begins, known.job), awaits=awaits)


def _next_attempt(call: JobCall) -> str:
    limit = "" if call.directory is None else call.directory.batch.limit
    return f" for its next attempt, with {limit}" if limit else ""


def _pause(state: ExecutorState, now: float) -> str:
    seconds = state.sends_at - now
    return f", which takes nothing at present and is asked again in {seconds:.0f} s" if seconds > 0 else ""


def add_call(status: ExecutorStatus, call: JobCall, known: CallStatus, number: int) -> None:
    """Add a call that has not ended to the status of its executor."""
    if known.state == "running":
        key = call.id or None
        status.add_running(RunningCall(number, call.name, known.host, known.worker, known.seconds, key))
    else:
        job = call.job or (call.duplicate_of.job if call.duplicate_of is not None else None)
        words = FOR_OTHER_CALLS if known.awaits else known.words.replace(f" as job {job}", "")
        status.add_next(number, call.name, words, call.id or None)
