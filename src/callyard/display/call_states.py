"""The states of calls as shown: in one order, with one word, mark and colour each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..events.call_record import CallState

__all__ = ["COLOURS", "STATES", "StateLook", "colour_variables", "count_words"]


@dataclass(frozen=True)
class StateLook:
    """The look of a state.

    Attributes:
        word: the word for people: "remembered" for a result from the cache.
        mark: a character, as colours alone do not reach everybody.
        light: the colour on a light ground, with a contrast of 4.5:1 or more.
        dark: the colour on a dark ground, likewise.
    """

    word: str
    mark: str
    light: str
    dark: str


STATES: Mapping[CallState, StateLook] = {
    "finished": StateLook("finished", "✓", "#2f6fb7", "#6aa5ea"),
    "cached": StateLook("remembered", "↺", "#1f7a55", "#55c394"),
    "running": StateLook("running", "●", "#965800", "#f0b04b"),
    "waiting": StateLook("waiting", "○", "#666c75", "#9aa1ab"),
    "planned": StateLook("to compute", "◇", "#666c75", "#9aa1ab"),
    "failed": StateLook("failed", "✗", "#c62f3b", "#ff8285"),
    "cancelled": StateLook("cancelled", "⊘", "#7a5c99", "#b797d9"),
}

# Beside the states: ground, raised ground, text, quiet text, lines.
COLOURS = {
    "ground": ("#ffffff", "#15181c"),
    "raised": ("#f3f5f7", "#1f242a"),
    "text": ("#1b1f24", "#e6e9ed"),
    "quiet": ("#565e68", "#a7afb9"),
    "line": ("#d5dae0", "#3a424c"),
    "accent": ("#2f6fb7", "#6aa5ea"),
}


def colour_variables(dark: bool) -> str:
    """Return the colours on a light or a dark ground as CSS variables, "--failed" and so on."""
    colours = [(name, pair[dark]) for name, pair in COLOURS.items()]
    colours += [(name, look.dark if dark else look.light) for name, look in STATES.items()]
    return ";".join(f"--{name}:{colour}" for name, colour in colours)


def count_words(counts: Mapping[CallState, int]) -> str:
    """Return the numbers of calls in each state, as "3 finished, 1 failed"; "no calls" without any."""
    return ", ".join(f"{counts[state]:,} {STATES[state].word}" for state in STATES if counts.get(state)) or "no calls"
