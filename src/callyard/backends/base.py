"""The seam for backends: the protocols `Backend` and `BackendFactory`, and the settings of an executor.

What `Executor(backend=...)` gets is a `BackendFactory`, such as `Local(...)`, or the name of one. It makes a `Backend`
for each executor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from ..futures import Future
from ..resources import Resources
from .cached.cached_future import CachedCall

if TYPE_CHECKING:
    from ..cache.cache import Cache

__all__ = ["Backend", "BackendFactory", "Settings"]

T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    """The arguments of `Executor`, apart from the backend.

    Attributes:
        max_workers: how many calls run at once; None for as many as there are resources for.
        initializer: runs first in each process that makes calls.
        initargs: its arguments.
        init_function: runs there too; its results, by name, are arguments for calls that have such parameters.
        max_tasks_per_child: calls after which a process is replaced; None for never.
    """

    max_workers: int | None = None
    initializer: Callable[..., object] | None = None
    initargs: tuple[object, ...] = ()
    init_function: Callable[[], dict[str, object]] | None = None
    max_tasks_per_child: int | None = None

    @property
    def changes_data(self) -> bool:
        """Whether the user's code may change data of modules before a call, so that only their code is compared."""
        return self.initializer is not None or self.init_function is not None


class Backend(Protocol):
    """The calls of one executor, and the resources on which they run."""

    @property
    def detached(self) -> bool:
        """Whether calls outlive the executor."""

    @property
    def description(self) -> str:
        """A few words for people: which resources, and whether calls outlive the executor."""

    def submit(
        self,
        fn: Callable[..., T],
        args: tuple[object, ...],
        kwargs: Mapping[str, object],
        resources: Resources,
        ticket: CachedCall | None = None,
    ) -> Future[T]:
        """Run a call once the futures in it are done and its resources are free. Any thread may do this at any moment.

        A call with a ticket has a cache: see `CachedCall` for what is then to be asked and told.

        Raises:
            ResourceError: what is asked for can never be had here.
        """

    def cancel_pending(self) -> None:
        """Cancel every call that has not begun."""

    def kill(self, signum: int) -> None:
        """Cancel the calls that wait, and end those that run by a signal to their processes; then nothing runs."""

    def interrupt(self) -> None:
        """After Ctrl-C: end the calls whose results nobody could have any more, and let go of the rest."""

    def close(self, wait: bool) -> None:
        """Let go of all resources once the last call has ended; `wait` for that."""


class BackendFactory(Protocol):
    """A description of resources, from which each executor gets a backend of its own.

    Another backend is such a class, made without arguments where it is chosen by name: `Executor(backend="name")` looks
    for it in the entry-point group `callyard.backends`.
    """

    @property
    def other_resources(self) -> Sequence[str]:
        """The names of resources that calls may ask for here, beside the common ones."""

    def open(self, settings: Settings, cache: Cache | None) -> Backend:
        """Make the backend of an executor.

        Args:
            settings: the other arguments of the executor.
            cache: where results go, if they go into a cache. Calls then come with tickets.

        Raises:
            CallyardError: the settings do not go together, or there are no such resources here.
        """
