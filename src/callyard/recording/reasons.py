"""The reasons of waiting calls: asked for now and then, because most of them change without an event."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from time import perf_counter
from typing import Any

from ..status.call_status import PENDING_STATUS, CallStatus, name_of, unfinished
from ..utils.quantities import counted

__all__ = ["WaitingCalls"]

_FIRST, _PAUSE, _LONGEST = 0.2, 1.0, 60.0  # s from a submission to the first question; between rounds of questions
_SPENT = 0.001  # s for a round
_SHARE = 50  # a pause is so many times as long as the round before


class WaitingCalls:
    """The calls of a run that have not begun, with their reasons as last told. Only the recorder's thread uses it.

    A question may look at all calls that wait, so a round of questions ends after a millisecond: of many calls,
    the first ones are asked. They are the ones that wait for resources, and the others wait behind them.
    """

    def __init__(self) -> None:
        self._futures: dict[int, Any] = {}  # of calls without an end
        self._told: dict[int, str] = {}  # the reasons of those that wait, in the order of submission
        self._next = 0.0

    def add(self, number: int, future: Any, inputs: Sequence[Any], now: float) -> str:
        """Add a call that was submitted; return what it waits for if that are other calls, else ""."""
        reason = _for_inputs(unfinished(inputs))
        if not self._told:
            self._next = now + _FIRST
        self._futures[number], self._told[number] = future, reason
        return reason

    def again(self, number: int, reason: str, now: float) -> None:
        """Note that a call waits again, or for something new."""
        if not self._told:
            self._next = now + _FIRST
        self._told[number] = reason

    def discard(self, number: int) -> None:
        """Note that a call runs."""
        self._told.pop(number, None)

    def forget(self, number: int) -> None:
        """Note that a call has ended."""
        self._told.pop(number, None)
        self._futures.pop(number, None)

    def patience(self, now: float) -> float | None:
        """Return the time until the next round of questions (s); None if no call waits."""
        return max(0.0, self._next - now) if self._told else None

    def ask(self, now: float) -> Iterator[tuple[int, CallStatus, str | None]]:
        """Ask waiting calls; yield those that run, or wait for something else than was told, and the job of each."""
        began = perf_counter()
        for number, told in list(self._told.items()):
            future = self._futures.get(number)
            status = getattr(future, "call_status", None) or PENDING_STATUS
            reason = _reason_of(status)
            if status.state == "running":
                self.discard(number)
                yield number, status, getattr(future, "job_id", None)
            elif reason and _kind_of(reason) != _kind_of(told):
                self._told[number] = reason
                yield number, CallStatus("waiting", reason), getattr(future, "job_id", None)
            if perf_counter() - began > _SPENT:
                break
        self._next = now + min(_LONGEST, max(_PAUSE, _SHARE * (perf_counter() - began)))


def _for_inputs(pending: Sequence[Any]) -> str:
    if not pending:
        return ""
    others = f" and {counted(len(pending) - 1, 'other call')}" if len(pending) > 1 else ""
    return f"for `{name_of(pending[0])}`{others}"


def _reason_of(status: CallStatus) -> str:
    """Return the words that go on from "waits"; "" for a call that does not wait, or does not tell."""
    if status.state != "waiting" or status is PENDING_STATUS:
        return ""
    return _for_inputs(unfinished(status.awaits)) or str(status.reason)


def _kind_of(reason: str) -> str:
    """Return a reason without the numbers that change all the time, as of calls before this one."""
    return reason.partition(";")[0]
