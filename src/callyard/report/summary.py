"""The numbers of a run: times, resources asked for against used, the slowest calls, the failures."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import median

from ..events.call_record import CallRecord, CallState, RunRecord

__all__ = [
    "FailureGroup", "FunctionSummary", "RunSummary", "asked_cores", "asked_memory", "asked_time", "summary_of",
    "time_of",
]  # fmt: skip

_GIB = 2**30


@dataclass(frozen=True)
class FunctionSummary:
    """The calls of one function.

    Attributes:
        name: the name of the function.
        states: the number of calls in each state.
        median: the median run time of the calls that ran (s); None if none has.
        longest: the longest run time (s).
        total: the sum of the run times (s).
        cores: the most cores asked for by a call.
        cpu_share: the CPU time in cores asked for times run time; None where that was not measured.
        memory_asked: the most memory asked for by a call (bytes); None if none has asked.
        memory_used: the most memory used by a call (bytes); None where that was not measured.
        time_asked: the longest time asked for by a call (s); None if none has asked.
        out_of_memory: the number of calls that failed for want of memory.
    """

    name: str
    states: Counter[CallState]
    median: float | None
    longest: float | None
    total: float
    cores: int
    cpu_share: float | None
    memory_asked: float | None
    memory_used: int | None
    time_asked: float | None
    out_of_memory: int = 0


@dataclass(frozen=True)
class FailureGroup:
    """Failed calls of one function with the same error, and the same message but for numbers in it.

    Attributes:
        calls: the calls that failed by themselves.
        followers: the number of calls that failed because they take a result of these.
    """

    calls: tuple[CallRecord, ...]
    followers: int = 0

    @property
    def first(self) -> CallRecord:
        return self.calls[0]


@dataclass(frozen=True)
class RunSummary:
    """The numbers of a run.

    Attributes:
        begin: the begin of the run (s since 1970).
        end: the end of the run, or the time at which it was looked at (s since 1970).
        counts: the number of calls in each state.
        core_seconds: cores asked for times run time, of all calls (s).
        cpu_share: the CPU time in `core_seconds`, of the calls that were measured; None without any.
        busy_share: `core_seconds` in what the machines had to give from begin to end; None if that is unknown.
        functions: the functions, the one with the most time first.
        slowest: the calls with the longest run times.
        failures: the failed calls, those of the most frequent failure first.
    """

    begin: float
    end: float
    counts: Counter[CallState]
    core_seconds: float
    cpu_share: float | None
    busy_share: float | None
    functions: tuple[FunctionSummary, ...]
    slowest: tuple[CallRecord, ...]
    failures: tuple[FailureGroup, ...]


def summary_of(run: RunRecord, now: float) -> RunSummary:
    """Return the numbers of a run, as they are at a time (s since 1970)."""
    calls = list(run.calls.values())
    begin, end = _span(run, calls, now)
    core_seconds = sum(asked_cores(call.asked) * (time_of(call, now) or 0.0) for call in calls)
    cores = run.began.capacity.get("cores", 0) if run.began is not None else 0
    room = cores * (end - begin)
    return RunSummary(
        begin,
        end,
        run.counts(),
        core_seconds,
        _cpu_share(calls),
        core_seconds / room if room > 0 else None,
        _functions(calls, now),
        tuple(sorted(filter(_has_ended_run, calls), key=lambda call: -(time_of(call, now) or 0.0))[:10]),
        _failures(run),
    )


def time_of(call: CallRecord, now: float) -> float | None:
    """Return the run time of a call, up to now if it runs (s); None if it has not run."""
    if call.usage is not None:
        return call.usage.wall
    if call.started is None or call.state == "waiting":
        return None
    return max(0.0, (now if call.ended is None else call.ended) - call.started)


def asked_cores(asked: Mapping[str, object]) -> int:
    """Return the cores asked for, 1 by default (count)."""
    return int(_number(asked.get("ranks")) or 1) * int(_number(asked.get("cores_per_rank")) or 1)


def asked_memory(asked: Mapping[str, object]) -> float | None:
    """Return the memory asked for, of a list the largest (bytes); None without a request."""
    amount = _number(asked.get("memory"))
    return None if amount is None else amount * _GIB


def asked_time(asked: Mapping[str, object]) -> float | None:
    """Return the run time asked for, of a list the longest (s); None without a request."""
    return _number(asked.get("run_time"))


def _number(value: object) -> float | None:
    if isinstance(value, (list, tuple)):
        return _most(map(_number, value))
    return float(value) if isinstance(value, (int, float)) else None


def _most(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _span(run: RunRecord, calls: list[CallRecord], now: float) -> tuple[float, float]:
    begin = run.began.time if run.began is not None else min((call.submitted for call in calls), default=now)
    begin = min([begin, *(call.submitted for call in calls)])
    if run.ended is None and any(not call.is_over for call in calls):
        return begin, max(begin, now)
    return begin, max([begin, run.ended or begin, *(call.ended for call in calls if call.ended is not None)])


def _has_ended_run(call: CallRecord) -> bool:
    return call.ended is not None and call.state != "cached" and time_of(call, call.ended) is not None


def _cpu_share(calls: Iterable[CallRecord]) -> float | None:
    cpu = room = 0.0
    for call in calls:
        if call.usage is not None and call.usage.cpu is not None:
            cpu += call.usage.cpu
            room += call.usage.wall * asked_cores(call.asked)
    return cpu / room if room > 0 else None


def _grouped(calls: Iterable[CallRecord], key: Callable[[CallRecord], tuple[str, ...]]) -> Iterable[list[CallRecord]]:
    groups: defaultdict[tuple[str, ...], list[CallRecord]] = defaultdict(list)
    for call in calls:
        groups[key(call)].append(call)
    return groups.values()


def _functions(calls: list[CallRecord], now: float) -> tuple[FunctionSummary, ...]:
    found = [_function(group, now) for group in _grouped(calls, lambda call: (call.name,))]
    return tuple(sorted(found, key=lambda each: -each.total))


def _function(calls: list[CallRecord], now: float) -> FunctionSummary:
    times = [time for call in calls if call.state != "cached" and (time := time_of(call, now)) is not None]
    used = [call.usage.peak_memory for call in calls if call.usage is not None and call.usage.peak_memory is not None]
    return FunctionSummary(
        calls[0].name,
        Counter(call.state for call in calls),
        median(times) if times else None,
        max(times, default=None),
        sum(times),
        max(asked_cores(call.asked) for call in calls),
        _cpu_share(calls),
        _most(asked_memory(call.asked) for call in calls),
        max(used, default=None),
        _most(asked_time(call.asked) for call in calls),
        sum(call.failure is not None and call.failure.error == "OutOfMemory" for call in calls),
    )


def _failures(run: RunRecord) -> tuple[FailureGroup, ...]:
    roots: dict[int, int] = {}  # of each failed call the one that began it: itself, or one whose result it takes
    for call in run.calls.values():  # in the order of submission, so behind all that it takes
        if call.state == "failed":
            roots[call.number] = next((roots[each] for each in call.inputs if each in roots), call.number)
    followed = Counter(root for number, root in roots.items() if root != number)

    def same(call: CallRecord) -> tuple[str, ...]:
        failure = call.failure
        return (
            (call.name, failure.error, re.sub("[0-9]+", "#", failure.message)) if failure is not None else (call.name,)
        )

    first = [run.calls[number] for number, root in roots.items() if root == number]
    groups = [
        FailureGroup(tuple(group), sum(followed[call.number] for call in group)) for group in _grouped(first, same)
    ]
    return tuple(sorted(groups, key=lambda group: -len(group.calls)))
