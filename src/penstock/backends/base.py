"""The seam between `Executor` and what runs its calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ..futures import Future
from ..resources import Resources


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

    def submit(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], resources: Resources
    ) -> Future[Any]:
        """Run the call once its futures are done and its resources free. Any thread, any moment.

        Raises:
            ResourceError: what is asked for can never be had here.
        """

    def cancel_pending(self) -> None:
        """Cancel every call that has not begun."""

    def kill(self, signum: int) -> None:
        """Cancel what waits and end what runs by a signal to its processes; nothing runs afterwards."""

    def close(self, wait: bool) -> None:
        """Let go of everything once the last call has ended; `wait` for that."""

    def describe(self) -> str:
        """A few words for people: which resources, which life of calls."""
