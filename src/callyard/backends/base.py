"""The seam between `Executor` and what runs its calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ..futures import Future
from ..resources import Resources
from .cached.future import CachedCall


@dataclass(frozen=True)
class Settings:
    """What the constructor of `Executor` was told, apart from the backend."""

    max_workers: int | None = None
    initializer: Callable[..., object] | None = None
    initargs: tuple[Any, ...] = ()
    init_function: Callable[[], dict[str, Any]] | None = None
    max_tasks_per_child: int | None = None


class Backend(Protocol):
    """Runs the calls of one executor."""

    detached: bool  # whether they outlive it

    def submit(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        resources: Resources,
        ticket: CachedCall | None = None,
    ) -> Future[Any]:
        """Run the call once its futures are done and its resources free. Any thread, any moment.

        A call that comes with a ticket is remembered: see `CachedCall` for what is then to be asked and told.

        Raises:
            ResourceError: what is asked for can never be had here.
        """

    def cancel_pending(self) -> None:
        """Cancel every call that has not begun."""

    def kill(self, signum: int) -> None:
        """Cancel what waits and end what runs by a signal to its processes; nothing runs afterwards."""

    def interrupt(self) -> None:
        """Ctrl-C: end what nobody could have the result of any more, and let go of the rest."""

    def close(self, wait: bool) -> None:
        """Let go of everything once the last call has ended; `wait` for that."""

    def describe(self) -> str:
        """A few words for people: which resources, which life of calls."""
