"""The state that an executor shares with its `with_resources` views: the backend, and what shows its calls."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from .backends.base import Backend, status_of
from .backends.unfinished_calls import cancel_calls, unfinished_of
from .errors import CallyardError
from .futures import before_sleep, unasked, when_ended
from .report import status_server
from .status.executor_status import ExecutorStatus

if TYPE_CHECKING:
    from .backends.dry_run.plan import Plan
    from .events.call_record import RunRecord
    from .events.event import Event
    from .recording.run_recorder import RunRecorder
    from .report.progress import Progress

__all__ = ["RunningExecutor", "progress_for_here", "recorder_for"]


class RunningExecutor:
    """A backend with the flag for its shutdown, and with a recorder and a progress line where they are asked for."""

    def __init__(self, backend: Backend, recorder: RunRecorder | None = None, progress: Progress | None = None) -> None:
        self.backend = backend
        self.recorder, self.progress = recorder, progress
        self.closed = False
        self._hide = status_server.show(self)
        # When neither executor nor view is left.
        self._closer = weakref.finalize(self, _close, backend, recorder, progress)
        self._closer.atexit = False

    @property
    def record(self) -> RunRecord | None:
        """The record of all calls up to this moment; None if it was not asked for (`events=`).

        The recorder's thread goes on changing it: look at a copy of `calls` (`list(record.calls.values())`).
        """
        if self.recorder is None:
            return None
        self.recorder.flush()
        return self.recorder.record

    def status(self, executor: str, ask: bool = True) -> ExecutorStatus:
        status = status_of(self.backend, ask)
        status.executor = executor
        return status

    def shown_status(self) -> ExecutorStatus:
        return self.status(f"{self.backend.description}{', shut down' if self.closed else ''}")

    def explain_call(self, number: int) -> str:
        return next((call.future.explain() for call in unfinished_of(self.backend) if call.number == number), "")

    def cancel_call(self, number: int | None, key: str) -> list[str]:
        """Cancel calls here. By its key a job is cancelled in the cache, for all who wait for it."""
        is_noted = self.backend.detached and not getattr(self.backend, "elsewhere", False)  # there by a gateway
        return [] if key and is_noted else cancel_calls(self.backend, number, key)

    def plan(self) -> Plan | None:
        """Return the plan of a dry run; None if the calls are run."""
        from .backends.dry_run.backend import DryRunBackend

        return self.backend.plan() if isinstance(self.backend, DryRunBackend) else None

    def shown_record(self) -> RunRecord:
        """Return a record to be shown, which stays as it is at this moment."""
        plan = self.plan()
        if plan is not None:
            from .report.planned_run import run_of_plan

            return run_of_plan(plan)
        record = self.record
        if record is None:
            import shlex  # here, because it is needed only for this

            path = getattr(self.backend, "cache_path", None)
            stored = f"; `callyard report {shlex.quote(path)}` shows the calls in its cache" if path else ""
            raise CallyardError(
                "this executor keeps no record of its calls; make it with events=True, or with a file for them, as "
                f"events='events.jsonl'{stored}"
            )
        return replace(record, calls=dict(record.calls))

    def shutdown(self, wait: bool, cancel_futures: bool) -> None:
        self.closed = True
        if cancel_futures:
            self.backend.cancel_pending()
        if wait:
            before_sleep()
        self.backend.close(wait)
        if self.recorder is not None:
            self.recorder.close(wait)
        if self.progress is not None:
            self.progress.close() if wait else self.progress.end_with_calls()
        # Last: if an exception interrupts the above, the backend is still closed when the executor is collected.
        self._closer.detach()
        self._hide_with_calls()
        if wait:
            status_server.wait_for_end()
            unasked.end_silence(self)

    def _hide_with_calls(self) -> None:
        """Answer no more questions of other processes once all calls have ended."""
        if left := unfinished_of(self.backend):
            when_ended(left[-1].future, lambda _: self._hide_with_calls())
        else:
            self._hide()

    def kill(self, signum: int) -> None:
        self.closed = True
        unasked.begin_silence(self)
        self.backend.kill(signum)
        if self.recorder is not None:
            self.recorder.close()
        if self.progress is not None:
            self.progress.end_with_calls()

    def interrupt(self) -> None:
        self.closed = True
        unasked.begin_silence(self)
        self.backend.interrupt()


def progress_for_here() -> Progress | None:
    from .report.progress import progress_here  # here, because few programs use it

    return progress_here()


def recorder_for(events: str | os.PathLike[str] | Callable[[Event], object] | bool | None) -> RunRecorder | None:
    """Return the recorder for what the user asks for; None for nothing."""
    if (events is None or events is False) and not logging.getLogger("callyard.events").level:
        return None
    from .recording.run_recorder import RunRecorder  # here, because few programs use it
    from .recording.targets import targets_of

    targets = targets_of(None if isinstance(events, bool) else events)
    return RunRecorder(targets) if targets or events is True else None


def _close(backend: Backend, recorder: RunRecorder | None, progress: Progress | None) -> None:
    backend.close(False)
    if recorder is not None:
        recorder.close()
    if progress is not None:
        progress.end_with_calls()
