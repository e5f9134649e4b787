"""The plan of a dry run for people: text, and HTML for notebooks."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterator, Sequence

from ...utils import quantities
from .planned_call import PlannedCall, PlannedState

__all__ = ["as_html", "as_text"]

_MOST = 10  # calls of one function and state that are shown
_STATES: tuple[PlannedState, ...] = ("to compute", "after inputs", "running", "failed", "cached")
_WITH_REASON = _STATES[:-1]


def as_text(calls: Sequence[PlannedCall], cache: str | None, asked: int | None) -> str:
    """Return the counts by function, each call that would not be answered with its reason, and changed code."""
    lines = [_head(calls, cache)]
    if calls:
        lines += ["", *_aligned(_table(calls))]
    for state in _WITH_REASON:
        shown = list(_listed(calls, state))
        if shown:
            lines += ["", f"{state}:", *(f"  {line}" for line in shown)]
    for label, diff in _diffs(calls):
        lines += ["", f"{label}:", *(f"  {line}" for line in diff.splitlines())]
    if asked is not None:
        lines += ["", _open_end(calls, asked)]
    return "\n".join(lines)


def as_html(calls: Sequence[PlannedCall], cache: str | None, asked: int | None) -> str:
    """Return the same for a notebook, with the code that has changed folded away."""
    head, *rows = _table(calls)
    parts = [f"<p>{_escaped(_head(calls, cache))}</p>"]
    if rows:
        parts += ["<table>", _row("th", head), *(_row("td", row) for row in rows), "</table>"]
    for state in _WITH_REASON:
        shown = "".join(f"<li>{_escaped(line)}</li>" for line in _listed(calls, state))
        if shown:
            parts.append(f"<p>{state}:</p><ul>{shown}</ul>")
    for label, diff in _diffs(calls):
        parts.append(f"<details><summary>{_escaped(label)}</summary><pre>{_escaped(diff)}</pre></details>")
    if asked is not None:
        parts.append(f"<p>{_escaped(_open_end(calls, asked))}</p>")
    return "<div>" + "".join(parts) + "</div>"


def _head(calls: Sequence[PlannedCall], cache: str | None) -> str:
    where = "there is no cache" if cache is None else f"the cache is {cache}"
    return f"dry run of {quantities.calls(len(calls))}: nothing was computed or stored; {where}"


def _table(calls: Sequence[PlannedCall]) -> list[tuple[str, ...]]:
    """Return the number of calls of each function in each state, without states that no call has."""
    counts = Counter((call.name, call.state) for call in calls)
    states = [state for state in _STATES if any(call.state == state for call in calls)]
    names = dict.fromkeys(call.name for call in calls)
    rows = [(name, *(f"{counts[name, state]:,}" for state in states)) for name in names]
    return [("FUNCTION", *(state.upper() for state in states)), *rows]


def _aligned(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        cells = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        yield "  ".join([first.ljust(widths[0]), *cells]).rstrip()


def _listed(calls: Sequence[PlannedCall], state: PlannedState) -> Iterator[str]:
    """Yield a line for each call in a state, of each function only the first."""
    by_name: dict[str, list[PlannedCall]] = {}
    for call in calls:
        if call.state == state:
            by_name.setdefault(call.name, []).append(call)
    for name, found in by_name.items():
        yield from map(_line, found[:_MOST])
        if len(found) > _MOST:
            yield f"and {quantities.counted(len(found) - _MOST, 'more call')} of {name}, as plan().calls shows"


def _line(call: PlannedCall) -> str:
    return f"{call.number}  {call.name}({call.arguments}): {call.reason}"


def _diffs(calls: Sequence[PlannedCall]) -> Iterator[tuple[str, str]]:
    """Yield the changes of code, each once: many entries may differ from the calls by the same."""
    seen = set()
    for label, diff in dict.fromkeys(pair for call in calls for pair in call.diffs.items()):
        change = label, diff.partition("\n@@")[2]
        if change not in seen:
            seen.add(change)
            yield label, diff


def _open_end(calls: Sequence[PlannedCall], asked: int) -> str:
    return (
        f"the result of {calls[asked].name} (call {asked}) was asked for and is not there yet: calls that depend on "
        "what the program does with it are not in this plan"
    )


def _row(tag: str, cells: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{_escaped(cell)}</{tag}>" for cell in cells) + "</tr>"


def _escaped(text: str) -> str:
    return html.escape(text)
