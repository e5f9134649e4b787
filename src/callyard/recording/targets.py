"""The places to which the events of a run go: a file, a function of the user's, the log."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from typing import Protocol

from ..errors import CallyardError
from ..events.event import Ended, Event, to_line
from .event_file import EventFile

__all__ = ["Target", "is_logged", "targets_of"]

_log = logging.getLogger("callyard")
_events_log = logging.getLogger("callyard.events")


class Target(Protocol):
    """One place for the events of a run. The recorder's thread calls it, and nothing it does reaches a call.

    Attributes:
        latency: the time that an event may wait for others (s): many together cost less.
    """

    latency: float

    def take(self, run: str, events: Sequence[Event]) -> None:
        """Take the next events of the run of this name."""

    def write(self) -> None:
        """Write what was taken, if it was not handed on at once."""


def targets_of(asked: str | os.PathLike[str] | Callable[[Event], object] | None) -> list[Target]:
    """Return the places for what the user asks for by `events=`.

    Raises:
        CallyardError: the file cannot be written to.
        TypeError: it is neither a path nor a function.
    """
    targets: list[Target] = [_Log()] if is_logged() else []
    if asked is None:
        return targets
    if isinstance(asked, (str, os.PathLike)):
        try:
            return [*targets, _File(EventFile(asked))]
        except OSError as error:
            raise CallyardError(
                f"events={os.fspath(asked)!r} cannot be written to: {error.strerror}; choose another file"
            ) from error
    if not callable(asked):
        raise TypeError(f"events must be a path or a function, not {asked!r}")
    return [*targets, _Function(asked)]


def is_logged() -> bool:
    """Return True if the user has set the level of the logger `callyard.events` itself, so that events are logged."""
    return _events_log.level != logging.NOTSET and _events_log.isEnabledFor(logging.INFO)


class _File:
    """A file of events. A full disk, or another error, is one warning; later events are tried again."""

    latency = 1.0

    def __init__(self, file: EventFile) -> None:
        self._file = file
        self._lines: list[str] = []
        self._lost = 0

    def take(self, run: str, events: Sequence[Event]) -> None:
        self._lines += [to_line(event, run) for event in events]

    def write(self) -> None:
        if not self._lines:
            return
        lines, self._lines = self._lines, []
        try:
            self._file.append("\n".join((*lines, "")).encode("utf-8", "replace"))
        except OSError as error:
            if not self._lost:
                _log.warning(
                    "events of calls could not be written to %s: %s; those of the moment are lost, the calls are not",
                    self._file.path, error.strerror,
                )  # fmt: skip
            self._lost += len(lines)


class _Function:
    """A function of the user's. Its first exception is logged."""

    latency = 0.05

    def __init__(self, function: Callable[[Event], object]) -> None:
        self._function = function
        self._told = False

    def take(self, run: str, events: Sequence[Event]) -> None:
        for event in events:
            try:
                self._function(event)
            except BaseException:  # it runs in a thread of ours, which nothing shall end
                if not self._told:
                    self._told = True
                    _log.exception(
                        "events=%r has raised an exception for %r; only the first is shown", self._function, event
                    )

    def write(self) -> None:
        pass


class _Log:
    """The logger `callyard.events`: failures at INFO, all else at DEBUG. The record has the event as `event`."""

    latency = 0.05

    def take(self, run: str, events: Sequence[Event]) -> None:
        for event in events:
            level = logging.INFO if isinstance(event, Ended) and event.outcome == "failed" else logging.DEBUG
            if _events_log.isEnabledFor(level):
                _events_log.log(level, "%s", event, extra={"event": event, "run": run})

    def write(self) -> None:
        pass
