"""Events: what happens to a call, each with its time, and their form as JSON lines.

    RunBegan    Submitted --> Waiting ... --> Started --> Ended    RunEnded
                              (again, if a worker is lost)

An executor has one run, from its first call to its end. Calls have numbers within the run, from 0 in the order of
submission. A line is an object with the name of the class under "event", the name of the run under "run", and the
fields that have a value: so the runs of several executors may share a file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from functools import partial
from typing import Any, Literal, cast

from ..utils.lite_stdlib import json_texts
from .usage import Usage

__all__ = [
    "Ended", "Event", "Failure", "Outcome", "RunBegan", "RunEnded", "Started", "Submitted", "Usage", "Waiting",
    "from_line", "from_line_of_run", "to_line",
]  # fmt: skip

Outcome = Literal["finished", "failed", "cancelled", "cached"]


@dataclass(frozen=True)
class Failure:
    """The end of a call without a result.

    Attributes:
        error: the name of the exception's class.
        message: the exception's text; of more than 10,000 characters the first and the last.
        traceback: the worker's traceback, likewise up to 50,000 characters; "" if there is none.
        exit_code: of the call's process, if that ended the call.
        signal: the name of the signal, as "SIGKILL", if one ended the call's process.
    """

    error: str
    message: str
    traceback: str = ""
    exit_code: int | None = None
    signal: str | None = None

    @property
    def words(self) -> str:
        """Class and message, as "ValueError: no convergence"; only the class without a message."""
        return f"{self.error}: {self.message}".removesuffix(": ")


@dataclass(frozen=True)
class RunBegan:
    """An executor has been made.

    Attributes:
        time: s since 1970, as in all events.
        run: the random name of the run.
        host: the name of the driver's machine.
        pid: the driver's process.
        script: the program of the driver, as "study.py".
        executor: the words of the executor's `repr`.
        capacity: the resources that there are, by name: cores, gpus (counts), memory (bytes); empty if unknown.
    """

    time: float
    run: str
    host: str
    pid: int
    script: str
    executor: str = ""
    capacity: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Submitted:
    """A call has been submitted.

    Attributes:
        name: the name of the called function.
        line: the place of the submission in the user's code, as "study.py:12", in a notebook "cell:3"; "" if unknown.
        asked: the resources asked for, by name.
        inputs: the numbers of the calls of this run whose results the call takes.
        key: the key in the cache; None without a cache, or while the key is unknown.
    """

    time: float
    call: int
    name: str
    line: str = ""
    asked: Mapping[str, object] = field(default_factory=dict)
    inputs: tuple[int, ...] = ()
    key: str | None = None


@dataclass(frozen=True)
class Waiting:
    """A call waits for something new.

    Attributes:
        reason: words that go on from "waits", as "for relax", "for 2 GPUs", "in the queue of Slurm: Resources".
        job_id: the scheduler's id of its job, once there is one.
    """

    time: float
    call: int
    reason: str
    job_id: str | None = None


@dataclass(frozen=True)
class Started:
    """The function of a call has begun.

    Attributes:
        host: the name of the machine; of several ranks, the machine of rank 0.
        worker: the process or job there, as "worker 4711", "job 17_3".
        attempt: the number of this run of the call, from 1.
        job_id: the scheduler's id of its job, if there is one.
    """

    time: float
    call: int
    host: str = ""
    worker: str = ""
    attempt: int = 1
    job_id: str | None = None


@dataclass(frozen=True)
class Ended:
    """A call has ended.

    Attributes:
        outcome: "cached" for a result that was in the cache, of this or another run.
        key: the key in the cache, as known at the end.
        failure: what went wrong, if the outcome is "failed".
        usage: what the call has used, if that was measured.
    """

    time: float
    call: int
    outcome: Outcome
    key: str | None = None
    failure: Failure | None = None
    usage: Usage | None = None


@dataclass(frozen=True)
class RunEnded:
    """An executor has ended, and with it all its calls but the detached ones."""

    time: float


Event = RunBegan | Submitted | Waiting | Started | Ended | RunEnded
_CLASSES: dict[str, type[Event]] = {
    "run-began": RunBegan,
    "submitted": Submitted,
    "waiting": Waiting,
    "started": Started,
    "ended": Ended,
    "run-ended": RunEnded,
}
_NAMES = {cls: name for name, cls in _CLASSES.items()}


def to_line(event: Event, run: str = "") -> str:
    """Return the event of a run as a line of JSON, without the end of the line."""
    named = {"event": _NAMES[type(event)], "run": run} if run else {"event": _NAMES[type(event)]}
    return json_texts({**named, **_filled(event)})


def from_line(line: str) -> Event | None:
    """Return the event of a line; None for an unknown kind of event, as of a later version.

    Raises:
        ValueError: this is no line of events.
    """
    return from_line_of_run(line)[1]


def from_line_of_run(line: str) -> tuple[str, Event | None]:
    """Return the name of the run ("" if the line does not tell) and the event of a line, as `from_line` does."""
    try:
        values = json.loads(line)
        cls, run = _CLASSES.get(values.pop("event")), values.get("run", "")
        return str(run), None if cls is None else cast("Event", _read(cls, values))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"no line of events: {line.rstrip()[:80]!r}") from error


def _filled(value: Any) -> dict[str, object]:
    """Return the fields that differ from their defaults; nested ones too."""
    defaults = _DEFAULTS[type(value)]
    filled = {name: known for name, known in vars(value).items() if known is not None and known != defaults[name]}
    usage, failure = filled.get("usage"), filled.get("failure")
    if isinstance(usage, Usage):
        filled["usage"] = usage.known()
    if isinstance(failure, Failure):
        filled["failure"] = _filled(failure)
    return filled


def _default_of(field: Field[Any]) -> object:
    return field.default if field.default_factory is MISSING else field.default_factory()


# Each line needs them, and a run may have very many.
_DEFAULTS = {cls: {each.name: _default_of(each) for each in fields(cls)} for cls in (*_NAMES, Failure)}


def _same(value: object) -> object:
    return value


def _read(cls: type[Any], values: Mapping[str, Any]) -> Any:
    """Return an object of a class from its fields, without those that this version does not know."""
    known = {each.name for each in fields(cls)}
    return cls(**{name: _READERS.get(name, _same)(value) for name, value in values.items() if name in known})


_READERS: dict[str, Callable[[Any], object]] = {
    "inputs": tuple,
    "gpus": tuple,
    "usage": Usage.of,
    "failure": partial(_read, Failure),
}
