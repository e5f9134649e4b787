"""The status of a call at this moment, as `Future.explain` puts it into words.

    waiting     "waits for 2 GPUs; 3 calls are before it"
                "waits for `relax` (running for 12 s on c3)"
    running     "runs on c3 for 12 s (worker 4711)"
    finished    "has ended: returned float"

Whoever runs a call (a worker pool, a driver of nodes, an executor of jobs) tells its status from what is there anyway.
Nothing is noted for it while calls run.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, NamedTuple

from ..utils.error_words import error_words
from ..utils.quantities import counted, duration
from ..utils.shown_text import one_line

__all__ = [
    "PENDING_STATUS",
    "CallStatus",
    "brief",
    "ended_status",
    "in_the_queue",
    "name_of",
    "place_of",
    "sentence",
    "status_of",
    "unfinished",
]

_LONGEST = 300  # characters of an error
_HALF_A_DAY = 12 * 3600.0  # s
_DEEPEST = 1000  # calls, from one to the next, on the way to the call for which others wait


class CallStatus(NamedTuple):
    """The status of a call.

    Attributes:
        state: "waiting", "running", "finished", "failed", "cancelled" or "cached", as in `CallRecord`.
        words: of a waiting call: what goes on from "waits"; of an ended one: what goes on from "has ended:".
        host: of a running call: the machine.
        worker: the process or job there, as "worker 4711", "job 17_3".
        seconds: the time for which the call has been running (s); None if unknown.
        awaits: of a waiting call: the futures among its arguments that were not done, any library's.
    """

    state: str
    words: str = ""
    host: str = ""
    worker: str = ""
    seconds: float | None = None
    awaits: tuple[Any, ...] = ()

    @property
    def reason(self) -> str:
        """The words that go on from "waits"; "" for a call that does not wait."""
        return (_words_of(self.awaits) or self.words) if self.state == "waiting" else ""


PENDING_STATUS = CallStatus("waiting", "for its turn")


def sentence(status: CallStatus) -> str:
    """Return the status as a predicate, with the call as its subject."""
    if status.state == "waiting":
        return f"waits {status.reason}"
    if status.state == "running":
        return f"runs{place_of(status)}"
    return f"has ended: {status.words}" if status.words else "has ended"


def place_of(status: CallStatus) -> str:
    """Return place and time of a running call, each with a space before; "" if nothing is known."""
    host = f" on {status.host}" if status.host else ""
    time = f" for {_rounded(status.seconds)}" if status.seconds is not None else ""
    return f"{host}{time}{f' ({status.worker})' if status.worker else ''}"


def brief(status: CallStatus) -> str:
    """Return the status of a call for which another one waits, as "running for 12 s on c3"."""
    if status.state == "waiting":
        return f"waiting {status.words}"
    if status.state == "running":
        time = f" for {_rounded(status.seconds)}" if status.seconds is not None else ""
        return f"running{time}{f' on {status.host}' if status.host else ''}"
    return "which has just ended"


def _rounded(seconds: float) -> str:
    return "less than a second" if seconds < 1.0 else duration(float(int(seconds)))


# -- calls that wait for others ------------------------------------------------------------------------


def unfinished(sources: Iterable[Any]) -> tuple[Any, ...]:
    """Return the futures that are not done."""
    return tuple(source for source in sources if not source.done())


def name_of(future: Any) -> str:
    """Return a name for a future of any library."""
    name = getattr(future, "name", None)
    return name if isinstance(name, str) else f"a future of {type(future).__module__.partition('.')[0]}"


def status_of(future: Any) -> CallStatus:
    """Return the status of a future of any library."""
    own = getattr(future, "call_status", None)
    if isinstance(own, CallStatus):
        return own
    if future.done():
        return CallStatus("cancelled" if future.cancelled() else "finished")
    running = getattr(future, "running", None)
    return CallStatus("running") if callable(running) and running() else PENDING_STATUS


def _words_of(awaits: tuple[Any, ...]) -> str:
    """Return the words on the futures that a call waits for, and on the call at the end of the way from there."""
    pending = unfinished(awaits)
    if not pending:
        return ""
    others = f"and {counted(len(pending) - 1, 'other call')}" if len(pending) > 1 else ""
    last, status, between = _followed(pending[0])
    first = f"for {_quoted(pending[0])}"
    if last is pending[0]:
        return f"{first} ({brief(status)}) {others}".rstrip()
    through = f", through {counted(between, 'other call')}," if between else ""
    end = f"which waits{through} for {_quoted(last)} ({brief(status)})"
    return ", ".join(filter(None, (first, end, others)))


def _quoted(future: Any) -> str:
    name = name_of(future)
    return name if name.startswith("a future ") else f"`{name}`"


def _followed(first: Any) -> tuple[Any, CallStatus, int]:
    """Follow the first future that each call waits for; return the last one, and the number of those in between."""
    last, status, between = first, status_of(first), -1
    while between < _DEEPEST and (pending := unfinished(status.awaits)):
        last, between = pending[0], between + 1
        status = status_of(last)
    return last, status, max(between, 0)


# -- calls that wait in a scheduler's queue ------------------------------------------------------------


def in_the_queue(scheduler: str, reason: str, begins: float | None = None, job: str | None = None) -> str:
    """Return the place of a waiting job in words, as "in the queue of Slurm as job 17_3: Priority".

    `begins`: the time at which the scheduler expects the job to start (s since 1970), if it says so.
    """
    place = f"in the queue of {scheduler}{f' as job {job}' if job else ''}"
    expected = "" if begins is None else f"expected to start at {_moment(begins)}"
    why = ", ".join(filter(None, (reason, expected)))
    return f"{place}: {why}" if why else place


def _moment(seconds: float) -> str:
    today = abs(seconds - time.time()) < _HALF_A_DAY
    return time.strftime("%H:%M" if today else "%Y-%m-%d %H:%M", time.localtime(seconds))


# -- calls that have ended -----------------------------------------------------------------------------


def ended_status(state: str, value: object = None, error: BaseException | None = None) -> CallStatus:
    """Return the status of a call that has ended, with its result or its error if that is known."""
    if state == "failed":
        text = "" if error is None else one_line(error_words(error), _LONGEST)
        return CallStatus(state, f"raised {text}" if text else "raised an exception")
    if state == "finished":
        return CallStatus(state, f"returned {type(value).__name__}")
    return CallStatus(state, "was cancelled" if state == "cancelled" else "was in the cache")
