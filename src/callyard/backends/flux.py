"""The public class `Flux`: the settings of an instance of Flux, and the backend that an executor gets for them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..argument_checks import place_in_backend
from ..errors import CallyardError
from ..errors.suggestions import strict_init
from ..resource_values import Amount
from .base import Backend, Settings
from .scheduler_settings import SchedulerSettings

if TYPE_CHECKING:
    from ..result_cache import Cache

__all__ = ["Flux"]


@strict_init(place_in_backend)
@dataclass(frozen=True)
class Flux(SchedulerSettings):
    """A cluster, or an allocation, that Flux manages: a backend for `Executor`.

    Each call becomes a job, which outlives this process. It goes to the instance that Flux's commands reach from here:
    that of `FLUX_URI`, else the system's. The jobs of an instance end with it, so a graph that is to go on for days is
    for the system's instance.

    Args:
        walltime: the time limit of a call without `run_time`: seconds, or a text as "2h".
        queue: the queue of calls that name none.
        account: the account (Flux's bank) of calls that name none.
        constraint: the constraint on nodes of calls that name none, as `flux submit --requires` takes it.
        template: a Jinja job script in place of Callyard's own: its text, or the path of a file. Lines that begin with
            `# flux:` are options of `flux submit`. Calls may ask for resources by the names that it uses.
        python: the interpreter on the nodes; default: this one.
        setup: lines of shell before it, as "module load gcc"; one text or several.
        teardown: lines of shell after the calls of a job, whatever has become of them; the outcome is known before.
        launcher: a command before it, as `("apptainer", "exec", "image.sif")`.
        poll: how soon and how late Flux is asked what has become of jobs (s).
        result_grace: how long a result may take to become visible after its job has ended (s); not given to jobs that
            have left their exit code.
        calls_per_job: how many short calls one job makes, one after the other.
        log_limit: the most that the log of a job, or of each of its calls, may take on disk (GiB, or a text as
            "100MB"; at least 4 KiB). Of a longer log the beginning and the end are kept.
        detached: True or None; live calls in an instance are not here yet.
        host: another machine that submits; not here yet.

    Raises:
        ResourceError: an argument makes no sense.
        CallyardError: `host` or `detached=False` is given. `Executor` raises it, too, where the template cannot be
            read.
        TypeError: an argument is unknown.

    >>> flux = Flux(queue="batch", setup="module load gcc")
    >>> with Executor(backend=flux, cache="results") as executor:  # doctest: +SKIP
    ...     energy = executor.submit(relax, atoms, resource_dict={"cores": 4, "run_time": "2h"})
    """

    walltime: Amount = Amount()
    queue: str | None = None
    account: str | None = None
    constraint: str | None = None
    template: str | os.PathLike[str] | None = None
    python: str | os.PathLike[str] | None = None
    setup: str | Sequence[str] = ()
    teardown: str | Sequence[str] = ()
    launcher: str | Sequence[str] = ()
    poll: tuple[float, float] = (5.0, 60.0)
    result_grace: float = 60.0
    calls_per_job: int = 1
    log_limit: Amount = Amount("100MB")
    detached: bool | None = None
    host: None = None

    _scheduler = "Flux"
    _defaults = ("queue", "account", "constraint")

    def __post_init__(self) -> None:
        self._check()
        if self.detached is False:
            raise CallyardError(
                "live calls in an instance of Flux are not here yet; leave out detached=, so that each call is a job, "
                "or use Local() on one node"
            )

    @property
    def other_resources(self) -> Sequence[str]:
        """The names of the template, which calls may use as resources beside the common ones."""
        return self._template_keys()

    def open(self, settings: Settings, cache: Cache | None = None) -> Backend:
        """Make the backend of an executor.

        Raises:
            CallyardError: the settings do not go together, or the template cannot be read.
        """
        return self._open_detached(settings, cache)
