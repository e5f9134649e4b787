"""The report of a run: one page that needs nothing else, and opens without a network.

Python writes what stands still: numbers, tables of functions and failures, the graph. The script in `assets/` draws the
timeline and the table of all calls. The page allows no other script than its own, and no connection, by its content
security policy; all texts of the run are escaped, or go through JSON.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timezone
from functools import cache
from html import escape
from importlib.resources import files
from string import Template

from ..display.call_states import STATES, colour_variables
from ..display.notebook_html import share_bar
from ..events.call_record import CallRecord, CallState, RunRecord
from ..utils.quantities import calls as counted_calls
from ..utils.quantities import duration, memory_size
from ..utils.shown_text import kept_traceback, one_line
from ..version import VERSION
from .call_graph import MOST_CALLS, nodes_and_edges
from .graph_svg import STYLE, svg
from .page_data import page_data
from .summary import FailureGroup, FunctionSummary, RunSummary, summary_of, time_of

__all__ = ["page", "remarks"]

_MOST_FUNCTIONS = 100
_MOST_FAILURES = 50
_LONGEST_ERROR = 300  # characters


def page(run: RunRecord, now: float) -> str:
    """Return the page of a run, as it is at a time (s since 1970)."""
    summary = summary_of(run, now)
    css, script = _css(), _asset("report.js")
    values = {
        "policy": f"default-src 'none'; style-src {_hash(css)}; script-src {_hash(script)}; base-uri 'none'; "
        "form-action 'none'",
        "version": escape(VERSION),
        "css": css,
        "script": script,
        "data": page_data(run, summary),
        **_head(run, summary),
        "contents": _contents(summary),
        "failures": _failures(run, summary),
        "functions": _functions(summary),
        "timeline_words": f"Timeline of {counted_calls(len(run.calls))}; the same calls are in the table below",
        "graph": svg(nodes_and_edges(run), with_style=False),
        "graph_words": "Calls, with arrows from a call to those that take its result."
        if len(run.calls) <= MOST_CALLS
        else "Calls by function, with arrows from the calls of a function to those that take their results.",
        "slowest": _slowest(run, summary),
        "state_options": "".join(
            f'<option value="{state}">{look.mark} {look.word}</option>'
            for state, look in STATES.items()
            if summary.counts.get(state)
        ),
        "footer": f"Made by Callyard {escape(VERSION)} on {_when(now)}. Times are those of this machine's clock.",
    }
    return Template(_asset("report.html")).substitute(values)


@cache
def _asset(name: str) -> str:
    return (files(__package__) / "assets" / name).read_text(encoding="utf-8")


@cache
def _css() -> str:
    fills = "".join(f".share .{state}{{fill:var(--{state})}}.mark.{state}{{color:var(--{state})}}" for state in STATES)
    dark = f"@media (prefers-color-scheme:dark){{:root{{{colour_variables(True)}}}}}"
    return f":root{{{colour_variables(False)}}}{dark}\n{_asset('report.css')}{fills}{STYLE}"


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _when(time: float) -> str:
    return datetime.fromtimestamp(time, timezone.utc).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


# -- the head ------------------------------------------------------------------------------------------


def _head(run: RunRecord, summary: RunSummary) -> dict[str, str]:
    began = run.began
    title = (began.script if began is not None else "") or "A run of Callyard"
    facts = [_when(summary.begin)]
    if began is not None:
        facts += [f"driver {began.pid} on {began.host}", began.executor]
    return {
        "title": escape(title),
        "subtitle": escape(", ".join(filter(None, facts))),
        "counts": share_bar(summary.counts) + _legend(summary.counts),
        "tiles": "".join(
            f"<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(about)}</small></dd></div>"
            for name, value, about in _tiles(run, summary)
        ),
    }


def _tiles(run: RunRecord, summary: RunSummary) -> Iterator[tuple[str, str, str]]:
    still = sum(not call.is_over for call in run.calls.values())
    yield "Calls", f"{len(run.calls):,}", f"{still:,} not ended" if still else "all ended"
    yield "Duration", duration(summary.end - summary.begin), "so far" if still and run.ended is None else ""
    yield "Core time", duration(summary.core_seconds), "cores asked for × run time"  # noqa: RUF001
    if summary.cpu_share is not None:
        yield "CPU used", _percent(summary.cpu_share), "of the core time"
    if summary.busy_share is not None and run.began is not None:
        yield "Cores given", _percent(summary.busy_share), f"of {run.began.capacity['cores']:,} cores, on average"
    remembered = summary.counts["cached"]
    yield "From the cache", f"{remembered:,}", f"{_percent(remembered / max(1, len(run.calls)))} of the calls"


def _percent(share: float) -> str:
    return f"{share * 100:.0f} %" if share == 0 or share >= 0.01 else "< 1 %"


def _legend(counts: Mapping[CallState, int]) -> str:
    items = "".join(
        f'<li><span class="mark {state}" aria-hidden="true">{look.mark}</span> '
        f'<button type="button" class="link" data-look="{state}">{counts[state]:,} {look.word}</button></li>'
        for state, look in STATES.items()
        if counts.get(state)
    )
    return f'<ul class="states">{items}</ul>'


def _contents(summary: RunSummary) -> str:
    sections = {"failures": f"Failures ({summary.counts['failed']:,})"} if summary.failures else {}
    sections |= {"functions": "Asked against used", "timeline": "Timeline", "graph": "Graph"}
    sections |= {"slowest": "Slowest calls", "calls": "All calls"}
    return "".join(f'<a href="#{name}">{words}</a>' for name, words in sections.items())


# -- failures ------------------------------------------------------------------------------------------


def _failures(run: RunRecord, summary: RunSummary) -> str:
    if not summary.failures:
        return ""
    rows = _rows(run)
    shown = "".join(_failure(group, rows) for group in summary.failures[:_MOST_FAILURES])
    left = len(summary.failures) - _MOST_FAILURES
    more = f"<p>{left:,} further kinds of failures are in the table of calls.</p>" if left > 0 else ""
    return (
        '<section id="failures" aria-labelledby="failures-title"><h2 id="failures-title">'
        f"Failures</h2>{shown}{more}</section>"
    )


def _failure(group: FailureGroup, rows: Mapping[int, int]) -> str:
    call, failure = group.first, group.first.failure
    words = one_line(failure.words, _LONGEST_ERROR) if failure is not None else "failed"
    often = f" ({len(group.calls):,} times)" if len(group.calls) > 1 else ""
    followers = f"<p>{counted_calls(group.followers)} that take the result failed for this reason.</p>"
    text = "" if failure is None else kept_traceback(failure.traceback)
    trace = f"<pre>{escape(text)}</pre>" if text else ""
    some = ", ".join(_call_link(each, rows) for each in group.calls[:10])
    more = f" and {len(group.calls) - 10:,} more" if len(group.calls) > 10 else ""
    where = f", {'the first ' if len(group.calls) > 1 else ''}on {escape(call.host)}" if call.host else ""
    return (
        f"<details><summary><b>{escape(call.name)}</b>{often}: {escape(words)}</summary>"
        f"<p>{some}{more}{where}:</p>{trace}{followers if group.followers else ''}</details>"
    )


def _rows(run: RunRecord) -> dict[int, int]:
    """Return the rows of calls, by number, in the data of the page."""
    return {number: row for row, number in enumerate(run.calls)}


def _call_link(call: CallRecord, rows: Mapping[int, int]) -> str:
    name = escape(call.name if len(call.name) <= 60 else call.name[:59] + "…")
    return f'<button type="button" class="link" data-call="{rows[call.number]}">{name} #{call.number}</button>'


# -- tables --------------------------------------------------------------------------------------------


def _functions(summary: RunSummary) -> str:
    head = [("Function", ""), ("Calls", ""), ("Median", "n"), ("Longest", "n"), ("Cores", "n"), ("CPU used", "n")]
    head += [("Peak memory", "n"), ("Remarks", "remarks")]
    rows = "".join(_function(each) for each in summary.functions[:_MOST_FUNCTIONS])
    left = len(summary.functions) - _MOST_FUNCTIONS
    more = f"<p>{left:,} further functions are in the table of calls.</p>" if left > 0 else ""
    return _table("functions", head, rows) + more


def _table(name: str, head: Iterable[tuple[str, str]], rows: str) -> str:
    cells = "".join(f'<th scope="col" class="{kind}">{title}</th>' for title, kind in head)
    return (
        f'<div class="wide" tabindex="0" role="region" aria-labelledby="{name}-title">'
        f"<table><thead><tr>{cells}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _function(each: FunctionSummary) -> str:
    cells = [
        (
            "name",
            f'<button type="button" class="link" data-function="{escape(each.name)}">{escape(each.name)}</button>',
        ),
        ("", f"{sum(each.states.values()):,} {share_bar(each.states)}"),
        ("n", "" if each.median is None else duration(each.median)),
        ("n", "" if each.longest is None else duration(each.longest)),
        ("n", f"{each.cores:,}"),
        ("n", "" if each.cpu_share is None else _percent(each.cpu_share)),
        ("n", escape(_used_of_asked(each.memory_used, each.memory_asked))),
        ("remarks", escape("; ".join(remarks(each)))),
    ]
    return f"<tr>{''.join(f'<td class={kind!r}>{content}</td>' for kind, content in cells)}</tr>"


def _used_of_asked(used: float | None, asked: float | None) -> str:
    words = "" if used is None else memory_size(used)
    return words if asked is None else f"{words or '?'} of {memory_size(asked)}"


def remarks(each: FunctionSummary) -> Iterator[str]:
    """Yield what its author may want to know of a function: requests far from what was used."""
    asked, used = each.memory_asked, each.memory_used
    if asked and each.out_of_memory:  # what such a call has used is no measure: it wanted more at once
        yield f"{counted_calls(each.out_of_memory)} needed more memory than asked for"
    elif asked and used is not None and used < asked / 2:
        yield f"asked {memory_size(asked)}, used {memory_size(used)} at most"
    elif asked and used is not None and used > 0.9 * asked:
        yield "memory was close to the limit"
    if each.cpu_share is not None and each.cores > 1 and each.cpu_share < 0.7:
        yield f"used {each.cpu_share * each.cores:.1f} of {each.cores} cores on average"
    if each.time_asked and each.longest is not None and each.longest < each.time_asked / 5:
        yield f"asked {duration(each.time_asked)}, took {duration(each.longest)} at most"


def _slowest(run: RunRecord, summary: RunSummary) -> str:
    rows = _rows(run)
    lines = "".join(
        f'<tr><td class="name">{_call_link(call, rows)}</td>'
        f'<td class="n">{duration(time_of(call, summary.end) or 0)}</td>'
        f"<td>{STATES[call.state].mark} {STATES[call.state].word}</td>"
        f'<td class="far">{escape(" · ".join(filter(None, (call.host, call.worker))))}</td>'
        f'<td class="far">{escape(call.line)}</td></tr>'
        for call in summary.slowest
    )
    head = (("Call", ""), ("Took", "n"), ("State", ""), ("Where", "far"), ("Submitted at", "far"))
    return _table("slowest", head, lines) if lines else "<p>No call has ended yet.</p>"
