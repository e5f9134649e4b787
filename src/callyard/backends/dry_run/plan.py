"""The plan of a dry run: its calls, as a value and for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ...utils import quantities
from . import plan_text
from .planned_call import PlannedCall, PlannedState

__all__ = ["Plan"]


@dataclass(frozen=True)
class Plan:
    """What the calls of an executor with `dry_run=True` would do.

    `print` the plan, or look at `calls`.

    Attributes:
        calls: the calls in the order of submission.
        cache: the directory of the cache; None without one.
        asked: the number of the first call whose missing result was asked for. What the program would have submitted
            with that result is not in the plan.
    """

    calls: tuple[PlannedCall, ...]
    cache: str | None = None
    asked: int | None = None

    def counts(self) -> Counter[PlannedState]:
        """Return the number of calls in each state."""
        return Counter(call.state for call in self.calls)

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as plain data, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Plan:
        """Return the plan of what `as_dict` returned, also after it has been JSON."""
        calls: Sequence[Mapping[str, Any]] = fields["calls"]
        lists = ("inputs", "differences")
        planned = (PlannedCall(**{**call, **{name: tuple(call[name]) for name in lists}}) for call in calls)
        return cls(tuple(planned), fields["cache"], fields["asked"])

    def __str__(self) -> str:
        return plan_text.as_text(self.calls, self.cache, self.asked)

    def __repr__(self) -> str:
        counts = ", ".join(f"{count:,} {state}" for state, count in self.counts().items())
        return f"<Plan of {quantities.calls(len(self.calls))}{counts and ': '}{counts}>"

    def _repr_html_(self) -> str:
        return plan_text.as_html(self.calls, self.cache, self.asked)
