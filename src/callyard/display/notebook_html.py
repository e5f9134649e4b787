"""HTML for notebooks: small cards of executors, futures, caches and entries, and bars of the states of calls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape

from ..events.call_record import CallState
from .call_states import STATES, colour_variables, count_words

__all__ = ["card", "share_bar", "state_words"]

# The text has the notebook's own colour. Notebooks tell by an attribute or a class whether they are dark; elsewhere
# the system's choice counts.
_CSS = (
    f".callyard{{{colour_variables(False)};line-height:1.5}}"
    f"@media (prefers-color-scheme:dark){{.callyard{{{colour_variables(True)}}}}}"
    f"[data-jp-theme-light=true] .callyard,.vscode-light .callyard{{{colour_variables(False)}}}"
    f"[data-jp-theme-light=false] .callyard,.vscode-dark .callyard,html[theme=dark] .callyard"
    f"{{{colour_variables(True)}}}"
    ".callyard dl{display:grid;grid-template-columns:max-content 1fr;gap:0 .8em;margin:.2em 0}"
    ".callyard dt{opacity:.75}.callyard dd{margin:0;overflow-wrap:anywhere}"
    ".callyard .share{display:block;width:100%;max-width:40em;height:.6em;border-radius:.3em;margin:.2em 0}"
    + "".join(
        f".callyard .share .{state}{{fill:var(--{state})}}.callyard .mark.{state}{{color:var(--{state})}}"
        for state in STATES
    )
)


def card(title: str, facts: Iterable[tuple[str, str]] = (), counts: Mapping[CallState, int] | None = None) -> str:
    """Return the HTML of a title, a bar of the states of calls, and facts by name, without empty ones."""
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts if value)
    bar = f"{share_bar(counts)}<div>{state_words(counts)}</div>" if counts and any(counts.values()) else ""
    body = f"<dl>{rows}</dl>" if rows else ""
    return f'<div class="callyard"><style>{_CSS}</style><b>{escape(title)}</b>{bar}{body}</div>'


def state_words(counts: Mapping[CallState, int]) -> str:
    """Return the numbers of calls in each state with their marks in colour, as HTML."""
    return ", ".join(
        f'<span class="mark {state}">{look.mark}</span> {counts[state]:,} {look.word}'
        for state, look in STATES.items()
        if counts.get(state)
    )


def share_bar(counts: Mapping[CallState, int]) -> str:
    """Return a bar divided by the states of calls, as SVG."""
    total, at, parts = sum(counts.values()), 0.0, []
    for state in STATES:
        if count := counts.get(state, 0):
            part = 100 * count / total
            parts.append(f'<rect class="{state}" x="{at:.3f}" y="0" width="{part:.3f}" height="1"/>')
            at += part
    words = escape(count_words(counts))
    return (
        f'<svg class="share" viewBox="0 0 100 1" preserveAspectRatio="none" role="img" aria-label="{words}">'
        f"{''.join(parts)}</svg>"
    )
