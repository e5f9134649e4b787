"""The seam for backends: the protocols `Backend` and `BackendFactory`, and the settings of an executor.

`Executor(backend=...)` takes a `BackendFactory`, such as `Local(...)`, or the name of one. The factory makes a
`Backend` for each executor.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar, cast

from ..events.recorder import Recorder
from ..futures import Future
from ..resources import Resources
from ..status.executor_status import ExecutorStatus
from .cached.cached_future import CachedCall

if TYPE_CHECKING:
    from ..result_cache import Cache

__all__ = ["Backend", "BackendFactory", "FactoryElsewhere", "Settings", "TellsStatus", "status_of"]

T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    """The arguments of `Executor`, apart from the backend.

    Attributes:
        max_workers: the number of calls at once; None for as many as the resources allow.
        initializer: runs first in each process that makes calls.
        initargs: the arguments of `initializer`.
        init_function: runs there too; its results, by name, are arguments for calls with such parameters.
        max_tasks_per_child: calls after which a process is replaced; None for never.
        logs: a directory for the output and the failures of calls; None for none.
        recorder: takes what happens to calls; None where nobody asks.
        executor: the name of an executor that several processes act for in turn, as gateways; else empty.
    """

    max_workers: int | None = None
    initializer: Callable[..., object] | None = None
    initargs: tuple[object, ...] = ()
    init_function: Callable[[], dict[str, object]] | None = None
    max_tasks_per_child: int | None = None
    logs: str | os.PathLike[str] | None = None
    recorder: Recorder | None = None
    executor: str = ""

    @property
    def changes_data(self) -> bool:
        """True if the user's code may change data of modules before a call: then only their code is compared."""
        return self.initializer is not None or self.init_function is not None


class Backend(Protocol):
    """The calls of one executor, and the resources for their runs."""

    @property
    def detached(self) -> bool:
        """True if calls outlive the executor."""

    @property
    def description(self) -> str:
        """A few words for people: the resources, and the life of calls."""

    def submit(
        self,
        fn: Callable[..., T],
        args: tuple[object, ...],
        kwargs: Mapping[str, object],
        resources: Resources,
        ticket: CachedCall | None = None,
    ) -> Future[T]:
        """Run a call once the futures in it are done and its resources are free. Any thread may do this at any moment.

        A call with a ticket has a cache: `CachedCall` tells the backend's duties.

        Raises:
            ResourceError: these resources can never be had here.
        """

    def cancel_pending(self) -> None:
        """Cancel every call that has not begun."""

    def kill(self, signum: int) -> None:
        """Cancel the waiting calls, and end the running ones by a signal to their processes; then nothing runs."""

    def interrupt(self) -> None:
        """After Ctrl-C, end the calls whose results no process could get any more, and let go of the rest."""

    def close(self, wait: bool) -> None:
        """Let go of all resources once the last call has ended; with `wait`, return only then."""


class TellsStatus(Protocol):
    """A backend that tells what its calls do. Those of other packages need not."""

    def status(self, ask: bool = True) -> ExecutorStatus:
        """Return the calls at this moment, and the resources in use. Any thread may ask at any moment.

        `ask`: put the question to another computer, if calls run there, and wait for a second at most.
        """


def status_of(backend: Backend, ask: bool = True) -> ExecutorStatus:
    """Return the status of a backend's calls; an empty one if the backend does not tell."""
    return cast("TellsStatus", backend).status(ask) if hasattr(backend, "status") else ExecutorStatus()


class BackendFactory(Protocol):
    """A description of resources, from which each executor gets a backend of its own.

    Another backend is such a class, made without arguments if it is chosen by name: `Executor(backend="name")` looks
    for the name in the entry-point group `callyard.backends`.
    """

    @property
    def other_resources(self) -> Sequence[str]:
        """The names of resources that calls may ask for here, beside the common ones."""

    def open(self, settings: Settings, cache: Cache | None) -> Backend:
        """Make the backend of an executor.

        Args:
            settings: the other arguments of the executor.
            cache: the place of results, if they go into a cache. Calls then come with tickets.

        Raises:
            CallyardError: the settings do not go together, or there are no such resources here.
        """


class FactoryElsewhere(BackendFactory, Protocol):
    """A description of resources that another computer has; it is opened there."""

    def resource_check(self, settings: Settings, detached: bool) -> Callable[[Resources], object]:
        """Return the check of a call's resources by texts alone, as only the other computer knows what there is.

        Raises:
            CallyardError: the settings do not go together.
        """
