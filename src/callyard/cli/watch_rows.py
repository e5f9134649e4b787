"""The content of `callyard watch`: calls of running executors, and jobs and failures of a cache as rows, with actions.

Nothing here draws: each step asks the processes or the cache, and returns values and texts.
"""

from __future__ import annotations

import argparse
from collections.abc import Container, Iterator
from contextlib import suppress
from dataclasses import dataclass

from ..cache.directory import CacheDirectory
from ..cache.entry import open_entry
from ..cache.inspect.find import keys_by_age
from ..errors import CallyardError
from ..jobs.list_job_calls import JobCallStatus, calls_of_jobs, find_job_calls
from ..report.ask_processes import ProcessAnswer, ask_all
from ..status.executor_status import ExecutorStatus
from ..utils.quantities import duration
from ..utils.shown_text import one_line
from .arguments import open_cache
from .cancel import cancel_jobs, cancel_named
from .logs import log_of
from .status import name_of_executor
from .tables import short

__all__ = ["CallRow", "CallsNow", "Source"]

_GOING_ON = ("unsent", "queued", "running")
_NO_LOG = (
    "What it prints is kept only where its result goes to a cache, and this view must be told the cache, as in "
    "`callyard watch results`."
)
_MOST_ENDED = 50  # jobs that have ended, and failures of other calls
_LONGEST_ERROR = 100  # characters


@dataclass(frozen=True)
class CallRow:
    """A call in the table.

    Attributes:
        id: its name for `callyard cancel`: 4711:12, or the key of a job or a failure.
        function: the name of the function.
        state: "running", "waiting", "failed", or the state of a job.
        where: the place of the run, what it waits for, or the error.
        time: the time for which it runs or ran, in words.
        key: the key in the cache; "" if there is none.
        place: the process, the number of the executor there and of the call; None for a job and for a failure.
    """

    id: str
    function: str
    state: str
    where: str
    time: str
    key: str
    place: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class CallsNow:
    """One look: some lines about executors and problems, and the calls."""

    head: tuple[str, ...]
    rows: tuple[CallRow, ...]


class Source:
    """The place of all answers: the user's processes on this machine, and perhaps a cache."""

    def __init__(self, options: argparse.Namespace, directory: str | None) -> None:
        self._options, self._directory = options, directory

    def look(self) -> CallsNow:
        """Ask all processes, a second at most, and read the cache's jobs."""
        head, rows = list[str](), list[CallRow]()
        for process in ask_all("status"):
            for line, found in _of_process(process):
                head.append(line)
                rows += found
        rows += self._of_cache()
        return CallsNow(tuple(head or ["no executor runs here"]), tuple(rows))

    def _of_cache(self) -> list[CallRow]:
        """Return the calls of the cache that are jobs, and the latest failures of others."""
        if self._directory is None:
            return []
        directory = open_cache(self._options, self._directory)._directory
        rows = list(_jobs(directory))
        return [*rows, *_failures(directory, {row.key for row in rows})]

    def explain(self, row: CallRow) -> str:
        """Return what can be said of a call."""
        if row.place is None:
            jobs = self._job(row)
            if not jobs:
                return f"{row.function} {row.state}: {row.where}"
            return f"{row.function} is {jobs[-1].state}{f', {row.where}' if row.where else ''}"
        pid, executor, number = row.place
        for answer in ask_all("explain", pid, executor=executor, call=number):
            if answer.answer is None:
                return f"process {pid} {answer.problem}"
            if answer.answer.get("sentence"):
                return f"{row.function} {answer.answer['sentence']}"
        return f"{row.function} has ended"

    def log(self, row: CallRow) -> str:
        """Return what a call has written, if that is kept."""
        if self._directory is None or not row.key:
            return _NO_LOG
        if row.place is not None and row.state == "waiting":
            return "It has not begun, and so has printed nothing."
        try:
            text = log_of(open_cache(self._options, self._directory), row.key).text()
        except (CallyardError, OSError) as error:
            return str(error)
        return text or f"It has printed nothing {'so far' if row.state == 'running' else 'that was kept'}."

    def cancel(self, row: CallRow) -> str:
        """Cancel a call; return what was done."""
        if row.place is not None:
            return "; ".join(cancel_named(*row.place)) or f"{row.id} has ended"
        calls = [call for call in self._job(row) if call.state in _GOING_ON]
        cancel_jobs(calls)
        return f"cancelled {row.function}" if calls else f"{row.id} has ended"

    def _job(self, row: CallRow) -> list[JobCallStatus]:
        if self._directory is None:
            return []
        return find_job_calls(open_cache(self._options, self._directory)._directory, row.key)


def _jobs(directory: CacheDirectory) -> Iterator[CallRow]:
    """Yield the jobs that wait or run, and the latest of those that have ended."""
    calls = list(calls_of_jobs(directory))
    going_on = [call for call in calls if call.state in _GOING_ON]
    ended = [call for call in calls[::-1] if call.state not in _GOING_ON]
    for call in [*going_on, *ended[:_MOST_ENDED]]:
        where = f"job {call.job}" + (f" on {call.node}" if call.node else "") if call.job else ""
        yield CallRow(short(call.known_as), call.name, call.state, where, "", call.known_as)


def _failures(directory: CacheDirectory, known: Container[str]) -> Iterator[CallRow]:
    """Yield the failures that the cache keeps, the latest first, without calls that are known already."""
    for key in keys_by_age(directory.failures)[: -_MOST_ENDED - 1 : -1]:
        if key in known or directory.exists(key):
            continue
        with suppress(OSError, CallyardError):  # removed meanwhile, for example
            entry = open_entry(directory.failures, key)
            words = "" if entry.failure is None else one_line(entry.failure.words, _LONGEST_ERROR)
            yield CallRow(short(key), entry.function, "failed", words, duration(entry.seconds), key)


def _of_process(process: ProcessAnswer) -> Iterator[tuple[str, list[CallRow]]]:
    """Yield a line about each executor of a process, and its calls."""
    if process.answer is None or "error" in process.answer:
        yield f"process {process.pid} {process.problem or 'could not tell'}", []
        return
    for said in process.answer["executors"]:
        name = name_of_executor(process.pid, said["number"])
        status = ExecutorStatus.from_dict(said)
        use = status.use_in_words()
        failed = [one_line(f"{each.name}: {each.error}", _LONGEST_ERROR) for each in status.failures[-1:]]
        parts = (status.counts_in_words(), use and f"in use: {use}", *(f"last failure: {words}" for words in failed))
        line = f"{name} {process.answer['script']}: {'; '.join(filter(None, parts))}"
        yield line, list(_rows(name, (process.pid, said["number"]), status))


def _rows(name: str, place: tuple[int, int], status: ExecutorStatus) -> Iterator[CallRow]:
    for call in status.running:
        where = " ".join(filter(None, (call.host, f"({call.worker})" if call.worker else "")))
        time = "" if call.seconds is None else _whole_seconds(call.seconds)
        yield CallRow(f"{name}:{call.number}", call.name, "running", where, time, call.key or "", (*place, call.number))
    for waiting in status.next:
        number = waiting.number
        key = waiting.key or ""
        yield CallRow(f"{name}:{number}", waiting.name, "waiting", waiting.reason, "", key, (*place, number))


def _whole_seconds(seconds: float) -> str:
    """Return a time in words without parts of a second, which would change with each look."""
    return "0 s" if seconds < 1.0 else duration(float(int(seconds)))
