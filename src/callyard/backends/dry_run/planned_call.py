"""A call of a dry run: the state it would have, and the reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

__all__ = ["PlannedCall", "PlannedState"]

PlannedState = Literal["cached", "failed", "running", "to compute", "after inputs"]


@dataclass(frozen=True)
class PlannedCall:
    """A call of a dry run.

    Attributes:
        number: the place in the order of submission, from 0.
        name: the name of the called function.
        state: "cached": answered from the cache. "failed": the cache keeps its failure, or that of one of its inputs.
            "running": another process computes it now. "to compute": it would be computed. "after inputs": the calls
            whose results it takes would be computed first, and until then its key is unknown.
        reason: why it is in this state, in one line; "" if it is cached.
        inputs: the numbers of the calls whose results it takes.
        arguments: the arguments, shortened, as "metal='Cu', force=0.1".
        key: the key in the cache; None without a cache, or while it is unknown.
        nearest: the key of the entry that the call was compared with; None if there is none.
        differences: the differences from that entry, one line for each.
        diffs: for code that has changed, by labels as "code of helper": the unified diff of its text.
        same_as: the number of an earlier call with the same key, with which this one shares the result.
        asked: the resources asked for, by name.
    """

    number: int
    name: str
    state: PlannedState
    reason: str = ""
    inputs: tuple[int, ...] = ()
    arguments: str = ""
    key: str | None = None
    nearest: str | None = None
    differences: tuple[str, ...] = ()
    diffs: Mapping[str, str] = field(default_factory=dict)
    same_as: int | None = None
    asked: Mapping[str, object] = field(default_factory=dict)

    def but(self, **changes: Any) -> PlannedCall:
        """Return the same with some changes."""
        return replace(self, **changes)
