"""The data of a report's page: the calls as columns of JSON, for the script that draws timeline and table."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping

from ..display.call_states import STATES
from ..events.call_record import CallRecord, RunRecord
from ..utils.quantities import duration
from ..utils.shown_text import shortened
from .lanes import Lane, lanes_of
from .summary import RunSummary, asked_cores, asked_memory, time_of

__all__ = ["asked_words", "page_data"]

_STATES = list(STATES)
_LONGEST_MESSAGE, _LONGEST_TRACEBACK = 1000, 8000  # characters: the page may show the failures of 10,000 calls


class _Texts:
    """Texts, each of them once, by number; 0 is the empty one."""

    def __init__(self) -> None:
        self._numbers = {"": 0}

    def number(self, text: object) -> int:
        return self._numbers.setdefault("" if text is None else str(text), len(self._numbers))

    def all(self) -> list[str]:
        return list(self._numbers)


def page_data(run: RunRecord, summary: RunSummary) -> str:
    """Return the JSON for the page, without any "<", so that no text in it ends the element around it."""
    calls = list(run.calls.values())
    rows = {call.number: row for row, call in enumerate(calls)}
    texts = _Texts()
    columns = {**_numbers(calls, summary), **_texts(calls, texts)}
    columns["inputs"] = [[rows[each] for each in call.inputs if each in rows] for call in calls]
    data = {
        "begin": summary.begin,
        "end": _rounded(summary.end - summary.begin),
        "states": [{"name": name, "word": look.word, "mark": look.mark} for name, look in STATES.items()],
        "calls": columns,
        "lanes": [_lane(lane, rows) for lane in lanes_of(run, summary.end)],
        "texts": texts.all(),
    }
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")


def asked_words(asked: Mapping[str, object]) -> str:
    """Return what a call has asked for, as "cores_per_rank 8, memory 16 GiB"."""
    return ", ".join(f"{name} {_amount(name, value)}" for name, value in asked.items())


def _amount(name: str, value: object) -> str:
    if isinstance(value, (list, tuple)):
        return ", then ".join(_amount(name, each) for each in value)
    if name == "memory" and isinstance(value, (int, float)):
        return f"{value:g} GiB"
    if name in ("run_time", "grace", "warn_before") and isinstance(value, (int, float)):
        return duration(value)
    return str(value)


def _numbers(calls: list[CallRecord], summary: RunSummary) -> dict[str, list[object]]:
    begin, now = summary.begin, summary.end
    usages = [call.usage for call in calls]
    times: dict[str, Iterable[float | None]] = {
        "submitted": (call.submitted - begin for call in calls),
        "started": (call.started and call.started - begin for call in calls),
        "ended": (call.ended and call.ended - begin for call in calls),
        "waited": (_waited(call, now) for call in calls),
        "took": (time_of(call, now) for call in calls),
        "cpu": (None if usage is None else usage.cpu for usage in usages),
        "memory": (None if usage is None else usage.peak_memory for usage in usages),
        "memoryAsked": (asked_memory(call.asked) for call in calls),
        "bytesIn": (None if usage is None else usage.bytes_in for usage in usages),
        "bytesOut": (None if usage is None else usage.bytes_out for usage in usages),
    }
    return {
        "number": [call.number for call in calls],
        "state": [_STATES.index(call.state) for call in calls],
        "cores": [asked_cores(call.asked) for call in calls],
        "attempt": [call.attempt for call in calls],
        **{name: [_rounded(value) for value in values] for name, values in times.items()},
    }


def _texts(calls: list[CallRecord], texts: _Texts) -> dict[str, list[object]]:
    failures = [call.failure for call in calls]
    columns: dict[str, Iterable[object]] = {
        "name": (call.name for call in calls),
        "host": (call.host for call in calls),
        "worker": (call.worker for call in calls),
        "line": (call.line for call in calls),
        "reason": (call.reason for call in calls),
        "key": (call.key for call in calls),
        "job": (call.job_id for call in calls),
        "asked": (asked_words(call.asked) for call in calls),
        "gpus": (", ".join(call.usage.gpus) if call.usage else "" for call in calls),
        "error": (failure.error if failure else "" for failure in failures),
        "message": (shortened(failure.message, _LONGEST_MESSAGE) if failure else "" for failure in failures),
        "traceback": (shortened(failure.traceback, _LONGEST_TRACEBACK) if failure else "" for failure in failures),
        "exit": (failure.signal or (failure.exit_code is not None and f"exit code {failure.exit_code}") or ""
                 if failure else "" for failure in failures),
    }  # fmt: skip
    return {name: [texts.number(value) for value in values] for name, values in columns.items()}


def _waited(call: CallRecord, now: float) -> float | None:
    """Return the time from the submission to the begin of the last run, or up to now (s)."""
    if call.started is not None:
        return max(0.0, call.started - call.submitted)
    return max(0.0, now - call.submitted) if call.state == "waiting" else None


def _lane(lane: Lane, rows: Mapping[int, int]) -> dict[str, object]:
    label = lane.workers[0] if len(lane.workers) == 1 else f"{len(lane.workers):,} workers"
    return {"host": lane.host, "label": label, "calls": [rows[number] for number in lane.calls]}


def _rounded(value: float | None) -> float | None:
    if value is None or not math.isfinite(value):
        return None
    return round(value, 4) if value < 1e6 else round(value)
