"""The status of an executor at a moment: how many calls there are in which state, what runs where, and what is used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..utils.quantities import calls, duration
from ..utils.shown_text import one_line
from .ended_calls import EndedCalls, FailedCall

__all__ = ["FOR_OTHER_CALLS", "MOST_LISTED", "STATES", "ExecutorStatus", "RunningCall", "WaitingCall", "short_key"]

FOR_OTHER_CALLS = "for other calls"
STATES = ("planned", "waiting", "running", "finished", "cached", "failed", "cancelled")
_GIB = 1 << 30
MOST_LISTED = 100  # waiting calls
_MOST_LINES = 12  # of each list, in the text of one screen
_LONGEST, _LONGEST_NAME = 100, 60  # characters of a line about an error, and of the name of a function


def short_key(key: str) -> str:
    """Return the beginning of a digest; the whole key if the user chose it."""
    return key[:12] if len(key) == 40 and not set(key) - set("0123456789abcdef") else key


class RunningCall(NamedTuple):
    """A call that runs.

    Attributes:
        number: the place in the order of submission, from 0.
        name: the name of the called function.
        host: the machine; "" if unknown.
        worker: the process or job there, as "worker 4711", "job 17_3".
        seconds: the time for which it has been running (s); None if unknown.
        key: the key in the cache; None if there is none.
    """

    number: int
    name: str
    host: str = ""
    worker: str = ""
    seconds: float | None = None
    key: str | None = None


class WaitingCall(NamedTuple):
    """A call that waits: its number, its function, the words that go on from "waits", and its key in the cache."""

    number: int
    name: str
    reason: str
    key: str | None = None


@dataclass
class ExecutorStatus:
    """The calls of an executor at a moment, and the resources in use.

    Attributes:
        executor: the words of the executor's `repr`.
        calls: for each function the numbers of its calls, by state: "waiting", "running", "finished", "cached" (the
            result was in the cache), "failed", "cancelled"; "planned" for calls of a dry run that would be computed.
        waiting: the numbers of waiting calls, by what they wait for, as "for 2 GPUs", "for other calls".
        running: the calls that run.
        next: some of the waiting calls, a hundred at most.
        failures: the latest failures, the last one at the end; ten at most.
        capacity: what there is, by name: cores, gpus, nodes (counts), memory (bytes); empty if unknown.
        used: what of it the running calls and their workers have.

    Examples:
        >>> executor.submit(pow, 2, 10).result()
        1024
        >>> status = executor.status()
        >>> status.calls["pow"]["finished"], status.count("running")
        (1, 0)
    """

    executor: str = ""
    calls: dict[str, Counter[str]] = field(default_factory=dict)
    waiting: Counter[str] = field(default_factory=Counter)
    running: list[RunningCall] = field(default_factory=list)
    next: list[WaitingCall] = field(default_factory=list)
    failures: list[FailedCall] = field(default_factory=list)
    capacity: dict[str, int] = field(default_factory=dict)
    used: dict[str, int] = field(default_factory=dict)

    # -- made by backends ------------------------------------------------------------------------------

    def add(self, name: str, state: str, number: int = 1) -> None:
        """Count calls of a function."""
        if number:
            self.calls.setdefault(name, Counter())[state] += number

    def add_waiting(self, name: str, reason: str, number: int = 1) -> None:
        """Count waiting calls of a function, with the words that go on from "waits"."""
        self.add(name, "waiting", number)
        if number:
            self.waiting[reason] += number

    def add_next(self, number: int, name: str, reason: str, key: str | None = None) -> None:
        """Count a waiting call, and list it if it is one of the first."""
        self.add_waiting(name, reason)
        if len(self.next) < MOST_LISTED:
            self.next.append(WaitingCall(number, name, reason, key))

    def add_running(self, call: RunningCall) -> None:
        """Count and list a running call."""
        self.add(call.name, "running")
        self.running.append(call)

    def add_ended(self, ended: EndedCalls) -> None:
        """Count calls that have ended, and list their failures."""
        for (name, state), number in ended.counts().items():
            self.add(name, state, number)
        self.failures += ended.failures()

    # -- for users -------------------------------------------------------------------------------------

    def count(self, state: str) -> int:
        """Return the number of calls in a state, of all functions."""
        return sum(counts[state] for counts in self.calls.values())

    def to_dict(self) -> dict[str, Any]:
        """Return the status as values for JSON."""
        return {
            "executor": self.executor,
            "calls": {name: {state: n for state, n in counts.items() if n} for name, counts in self.calls.items()},
            "waiting": dict(self.waiting),
            "running": [call._asdict() for call in self.running],
            "next": [call._asdict() for call in self.next],
            "failures": [failure._asdict() for failure in self.failures],
            "capacity": self.capacity,
            "used": self.used,
        }

    @classmethod
    def from_dict(cls, said: Mapping[str, Any]) -> ExecutorStatus:
        """Return the status from such values.

        Raises:
            KeyError: a value is missing.
            TypeError: a value has another type.
        """
        return cls(
            str(said["executor"]),
            {str(name): Counter(counts) for name, counts in said["calls"].items()},
            Counter(said["waiting"]),
            [RunningCall(**call) for call in said["running"]],
            [WaitingCall(**call) for call in said["next"]],
            [FailedCall(**failure) for failure in said["failures"]],
            dict(said["capacity"]),
            dict(said["used"]),
        )

    def counts_in_words(self) -> str:
        """Return the numbers of calls as "2 running, 3 waiting"; "no calls so far" without any."""
        found = [f"{self.count(state):,} {_word(state)}" for state in self._states()]
        return ", ".join(found) or "no calls so far"

    def __str__(self) -> str:
        return "\n".join([self.executor, *(f"  {line}" for line in self._lines())])

    def _lines(self) -> Iterable[str]:
        yield self.counts_in_words()
        if self.capacity:
            yield f"in use: {self.use_in_words()}"
        if len(self.calls) > 1:
            yield from _table([("", *map(_word, self._states())), *self._rows()])
        for reason, number in self.waiting.most_common(_MOST_LINES):
            yield f"{calls(number)} {'waits' if number == 1 else 'wait'} {reason}"
        for call in self.running[:_MOST_LINES]:
            yield f"{call.number:>6}  {one_line(call.name, _LONGEST_NAME)} runs{_place(call)}"
        if len(self.running) > _MOST_LINES:
            yield f"        and {len(self.running) - _MOST_LINES:,} more"
        for failure in self.failures:
            yield one_line(f"{failure.name} failed: {failure.error}", _LONGEST)

    def _states(self) -> tuple[str, ...]:
        """Return the states in which there are calls."""
        return tuple(filter(self.count, STATES))

    def _rows(self) -> Iterable[tuple[str, ...]]:
        states = self._states()
        most = sorted(self.calls.items(), key=lambda item: -item[1].total())
        for name, counts in most[:_MOST_LINES]:
            yield one_line(name, _LONGEST_NAME), *(f"{counts[state]:,}" if counts[state] else "" for state in states)
        if len(most) > _MOST_LINES:
            yield f"{len(most) - _MOST_LINES:,} others", *("" for _ in states)

    def use_in_words(self) -> str:
        """Return the resources in use, as "1 of 4 cores, 1 of 8 GiB of memory"; "" if nothing is known of them."""
        parts = []
        for name, there in self.capacity.items():
            used = self.used.get(name, 0)
            if name == "memory":
                parts.append(f"{used / _GIB:.3g} of {there / _GIB:.3g} GiB of memory")
            elif there:
                parts.append(f"{used} of {there} {'GPUs' if name == 'gpus' else name}")
        return ", ".join(parts)

    def _repr_html_(self) -> str:
        """Return the status as HTML, for notebooks."""
        from html import escape  # here, because few programs show it

        head = "".join(f"<th>{word}</th>" for word in ("", *map(_word, self._states())))
        rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in self._rows())
        lines = [f"in use: {self.use_in_words()}"] if self.capacity else []
        lines += [f"{calls(number)} {'waits' if number == 1 else 'wait'} {why}" for why, number in self.waiting.items()]
        lines += [f"{call.name} runs{_place(call)}" for call in self.running[:_MOST_LINES]]
        lines += [f"{failure.name} failed: {failure.error}" for failure in self.failures]
        listed = "".join(f"<li>{escape(line)}</li>" for line in lines)
        return (
            f'<div class="callyard-status"><b>{escape(self.executor)}</b><br>{escape(self.counts_in_words())}'
            f"<table><tr>{head}</tr>{rows}</table><ul>{listed}</ul></div>"
        )


def _word(state: str) -> str:
    """Return the word for a state, the same as in progress, reports and graphs."""
    from ..display.call_states import STATES as LOOKS  # here, because few programs show it

    look = LOOKS.get(state)  # type: ignore[call-overload]  # one that only a later version knows has none
    return state if look is None else look.word


def _place(call: RunningCall) -> str:
    host = f" on {call.host}" if call.host else ""
    time = "" if call.seconds is None else f" for {duration(call.seconds)}"
    return f"{host}{time}{f' ({call.worker})' if call.worker else ''}"


def _table(rows: Iterable[tuple[str, ...]]) -> list[str]:
    cells = list(rows)
    used = [column for column in range(len(cells[0])) if any(row[column] for row in cells[1:])]
    widths = {column: max(len(row[column]) for row in cells) for column in used}
    return [
        "  ".join(row[c].ljust(widths[c]) if c == used[0] else row[c].rjust(widths[c]) for c in used).rstrip()
        for row in cells
    ]
