"""A call as it is seen by those who decide when it runs, on one node (`pool`) or on several (`fleet`)."""

from __future__ import annotations

from typing import Protocol


class Queued(Protocol):
    order: int  # when it was submitted, as a number

    @property
    def priority(self) -> int: ...

    @property
    def alone(self) -> bool:
        """Whether it has limits of its own: nothing is sent ahead of it or behind it."""

    def begin(self) -> bool:
        """Mark it as running; False if it was cancelled."""

    def abandoned(self) -> bool:
        """Whether it was cancelled."""

    def expected(self) -> float:
        """For how long it will run at most, in s, as far as the past tells."""
