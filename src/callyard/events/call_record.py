"""Records made from events: the state of each call, and of a whole run.

Everything shown of a run (status, progress, report, graph) is made from a `RunRecord`, whether its events came a moment
ago or from a file.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from .event import Ended, Event, Failure, RunBegan, RunEnded, Started, Submitted, Usage, Waiting, from_line_of_run

__all__ = ["CallRecord", "CallState", "RunRecord"]

CallState = Literal["planned", "waiting", "running", "finished", "failed", "cancelled", "cached"]


@dataclass(slots=True)
class CallRecord:
    """A call, as far as its events tell.

    Attributes:
        number: the place in the order of submission, from 0.
        name: the name of the called function.
        state: "waiting" until the function begins; "cached" for a result that was in the cache; "planned" for a call of
            a dry run that would be computed.
        reason: of a waiting call: words that go on from "waits", as "for 2 GPUs".
        line: the place of the submission, as "study.py:12".
        asked: the resources asked for, by name.
        inputs: the numbers of the calls whose results the call takes.
        key: the key in the cache.
        job_id: the scheduler's id of the job.
        host: the machine of the run.
        worker: the process or job there.
        attempt: the number of the present run, from 1.
        submitted: s since 1970, as `started` and `ended`.
        started: the begin of the present run; None before.
        ended: None before the end.
        failure: what went wrong.
        usage: what the call has used.
    """

    number: int
    name: str
    submitted: float
    state: CallState = "waiting"
    reason: str = ""
    line: str = ""
    asked: Mapping[str, object] = field(default_factory=dict)
    inputs: tuple[int, ...] = ()
    key: str | None = None
    job_id: str | None = None
    host: str = ""
    worker: str = ""
    attempt: int = 1
    started: float | None = None
    ended: float | None = None
    failure: Failure | None = None
    usage: Usage | None = None

    @property
    def is_over(self) -> bool:
        return self.state not in ("planned", "waiting", "running")

    def apply(self, event: Waiting | Started | Ended) -> None:
        """Take in what has happened; after the end, nothing does."""
        if self.is_over:
            return
        if isinstance(event, Waiting):
            self.state, self.reason = "waiting", event.reason
            self.job_id = event.job_id or self.job_id
        elif isinstance(event, Started):
            self.state, self.reason, self.started = "running", "", event.time
            self.host, self.worker, self.attempt = event.host, event.worker, event.attempt
            self.job_id = event.job_id or self.job_id
        else:
            self.state, self.reason, self.ended = event.outcome, "", event.time
            self.key = event.key or self.key
            self.failure, self.usage = event.failure, event.usage


@dataclass
class RunRecord:
    """The calls of one executor.

    Attributes:
        began: the first event; None if it is unknown.
        ended: the time of the executor's end (s since 1970); None before.
        calls: the calls by their numbers.
    """

    began: RunBegan | None = None
    ended: float | None = None
    calls: dict[int, CallRecord] = field(default_factory=dict)

    def apply(self, event: Event) -> None:
        """Take in an event; events of one call come in order. Those of a call that is not known are left out."""
        if isinstance(event, RunBegan):
            self.began = event
        elif isinstance(event, RunEnded):
            self.ended = event.time
        elif isinstance(event, Submitted):
            self.calls[event.call] = CallRecord(
                event.call, event.name, event.time, "waiting", "", event.line, event.asked, event.inputs, event.key
            )
        elif event.call in self.calls:
            self.calls[event.call].apply(event)

    def counts(self) -> Counter[CallState]:
        """Return the number of calls in each state."""
        return Counter(call.state for call in self.calls.values())

    @classmethod
    def of(cls, events: Iterable[Event]) -> RunRecord:
        """Return the record of some events."""
        record = cls()
        for event in events:
            record.apply(event)
        return record

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> list[RunRecord]:
        """Return the runs in a file of events, in the order of their begins; an incomplete last line is left out.

        Raises:
            OSError: the file cannot be read.
            ValueError: it is no file of events; the message names file and line.
        """
        runs: dict[str, RunRecord] = {}
        last = ""  # for lines that do not name their run
        with open(path, encoding="utf-8", errors="replace") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith("\n"):
                    break
                try:
                    run, event = from_line_of_run(line)
                except ValueError as error:
                    raise ValueError(f"{os.fspath(path)} is no file of events: line {number} is {error}") from None
                last = run or last
                if event is not None:
                    runs.setdefault(last, cls()).apply(event)
        return list(runs.values())
