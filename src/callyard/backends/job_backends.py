"""The public classes for schedulers whose calls are jobs only: `PBS`, `LSF`, `GridEngine`, and `Jobs` for any other."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..argument_checks import place_in_backend
from ..errors import CallyardError, ResourceError
from ..errors.suggestions import strict_init
from ..resource_values import Amount
from .base import Backend, Settings
from .scheduler_settings import SchedulerSettings

if TYPE_CHECKING:
    from ..result_cache import Cache
    from .ssh import SSH

__all__ = ["LSF", "PBS", "GridEngine", "Jobs", "JobsOnly"]


@dataclass(frozen=True, kw_only=True)
class JobsOnly(SchedulerSettings):
    """The base of settings for a scheduler that Callyard gives jobs, and in whose jobs it keeps no workers.

    Args:
        walltime: the time limit of a call without `run_time`: seconds, or a text as "2h".
        queue: the queue of calls that name none.
        account: the account or project of calls that name none.
        template: a Jinja job script in the place of Callyard's own: the text, or the path of a file. Calls may ask for
            resources by the names in the template.
        python: the interpreter on the nodes; default: this one.
        setup: lines of shell before the interpreter, as "module load gcc"; one text or several.
        teardown: lines of shell after the calls of a job, whatever has become of them; the outcome is known before.
        launcher: a command before the interpreter, as `("apptainer", "exec", "image.sif")`.
        poll: the shortest and the longest time between two questions to the scheduler about jobs (s).
        result_grace: the longest time after the end of a job until its result is visible (s); not given to jobs that
            have left their exit code.
        calls_per_job: the number of short calls in one job, one after the other.
        log_limit: the most that the log of a job, or of each of its calls, may take on disk (GiB, or a text as
            "100MB"; at least 4 KiB). Of a longer log the beginning and the end are kept.
        detached: True or None: each call is a job.
        host: another computer that submits, `SSH(...)`: a login node; default: this one.
    """

    walltime: Amount = Amount()
    queue: str | None = None
    account: str | None = None
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
    host: SSH | None = None

    _defaults = ("queue", "account")

    def __post_init__(self) -> None:
        self._check()
        if self.detached is False:
            raise CallyardError(
                f"Callyard keeps no workers in jobs of {self._scheduler}: leave out detached=, so that each call is a "
                "job, or use Local() in a job of your own"
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


@strict_init(place_in_backend)
@dataclass(frozen=True, kw_only=True)
class PBS(JobsOnly):
    """A cluster that OpenPBS or PBS Professional manages: a backend for `Executor`.

    Each call becomes a job, which outlives this process. Callyard's words for PBS come from its manuals, and were
    tested by text only.

    Args:
        place: the arrangement of jobs on nodes (`-l place=`) where a call is not `exclusive`, as "scatter".
        walltime: the time limit of a call without `run_time`: seconds, or a text as "2h".
        queue: the queue of calls that name none.
        account: the account of calls that name none (`-A`).
        template: a Jinja job script in the place of Callyard's own: the text, or the path of a file. Lines that begin
            with `#PBS` are options of `qsub`. Calls may ask for resources by the names in the template.
        python: the interpreter on the nodes; default: this one.
        setup: lines of shell before the interpreter; one text or several.
        teardown: lines of shell after the calls of a job.
        launcher: a command before the interpreter.
        poll: the shortest and the longest time between two questions to the scheduler (s).
        result_grace: the longest time after the end of a job until its result is visible (s).
        calls_per_job: the number of short calls in one job.
        log_limit: the most that a log may take on disk (GiB, or a text).
        detached: True or None.
        host: another computer that submits, `SSH(...)`: a login node; default: this one.

    Raises:
        ResourceError: an argument makes no sense.
        CallyardError: `detached=False` is given. `Executor` raises it, too, if the template cannot be read.
        TypeError: an argument is unknown.

    >>> pbs = PBS(queue="short", setup="module load gcc")
    >>> with Executor(backend=pbs, cache="results") as executor:  # doctest: +SKIP
    ...     energy = executor.submit(relax, atoms, resource_dict={"cores": 4, "run_time": "2h"})
    """

    place: str | None = None

    _scheduler = "PBS"
    _options = ("place",)


@strict_init(place_in_backend)
@dataclass(frozen=True, kw_only=True)
class LSF(JobsOnly):
    """A cluster that IBM Spectrum LSF manages, from 10.1 on: a backend for `Executor`.

    Each call becomes a job, which outlives this process. Callyard's words for LSF come from its manuals, and were
    tested by text only.

    Args:
        memory_unit: the unit in which this cluster counts memory, as `LSF_UNIT_FOR_LIMITS` in its lsf.conf says: "KB"
            (LSF's default), "MB", "GB" or "TB".
        walltime: the time limit of a call without `run_time`: seconds, or a text as "2h".
        queue: the queue of calls that name none.
        account: the project of calls that name none (`-P`).
        template: a Jinja job script in the place of Callyard's own: the text, or the path of a file. Lines that begin
            with `#BSUB` are options of `bsub`. Calls may ask for resources by the names in the template.
        python: the interpreter on the nodes; default: this one.
        setup: lines of shell before the interpreter; one text or several.
        teardown: lines of shell after the calls of a job.
        launcher: a command before the interpreter.
        poll: the shortest and the longest time between two questions to the scheduler (s).
        result_grace: the longest time after the end of a job until its result is visible (s).
        calls_per_job: the number of short calls in one job.
        log_limit: the most that a log may take on disk (GiB, or a text).
        detached: True or None.
        host: another computer that submits, `SSH(...)`: a login node; default: this one.

    Raises:
        ResourceError: an argument makes no sense.
        CallyardError: `detached=False` is given. `Executor` raises it, too, if the template cannot be read.
        TypeError: an argument is unknown.

    >>> lsf = LSF(queue="normal", memory_unit="MB")
    >>> with Executor(backend=lsf, cache="results") as executor:  # doctest: +SKIP
    ...     energy = executor.submit(relax, atoms, resource_dict={"cores": 4, "run_time": "2h"})
    """

    memory_unit: str = "KB"

    _scheduler = "LSF"
    _options = ("memory_unit",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.memory_unit not in ("KB", "MB", "GB", "TB"):
            raise ResourceError(f"memory_unit must be 'KB', 'MB', 'GB' or 'TB', not {self.memory_unit!r}")


@strict_init(place_in_backend)
@dataclass(frozen=True, kw_only=True)
class GridEngine(JobsOnly):
    """A cluster that Grid Engine manages (Son of Grid Engine 8.1 and its kin): a backend for `Executor`.

    Each call becomes a job, which outlives this process. The names of parallel environments and of countable resources
    differ from cluster to cluster: `qconf -spl` and `qconf -sc` list them.

    Args:
        parallel_environment: the parallel environment that gives a job several slots on one node, as "smp". Calls with
            more than one core need it.
        memory_resource: the resource by which this cluster counts the memory of each slot, as "h_vmem" or "mem_free".
            Without it Grid Engine is not told about memory, and Callyard alone keeps the limit.
        gpu_resource: the resource by which this cluster counts the GPUs of a job, as "gpu". Calls with GPUs need it.
        walltime: the time limit of a call without `run_time`: seconds, or a text as "2h".
        queue: the queue of calls that name none.
        account: the project of calls that name none (`-P`).
        template: a Jinja job script in the place of Callyard's own: the text, or the path of a file. Lines that begin
            with `#$` are options of `qsub`. Calls may ask for resources by the names in the template.
        python: the interpreter on the nodes; default: this one.
        setup: lines of shell before the interpreter; one text or several.
        teardown: lines of shell after the calls of a job.
        launcher: a command before the interpreter.
        poll: the shortest and the longest time between two questions to the scheduler (s).
        result_grace: the longest time after the end of a job until its result is visible (s).
        calls_per_job: the number of short calls in one job.
        log_limit: the most that a log may take on disk (GiB, or a text).
        detached: True or None.
        host: another computer that submits, `SSH(...)`: a login node; default: this one.

    Raises:
        ResourceError: an argument makes no sense.
        CallyardError: `detached=False` is given. `Executor` raises it, too, if the template cannot be read.
        TypeError: an argument is unknown.

    >>> grid = GridEngine(queue="all.q", parallel_environment="smp")
    >>> with Executor(backend=grid, cache="results") as executor:  # doctest: +SKIP
    ...     energy = executor.submit(relax, atoms, resource_dict={"cores": 4, "run_time": "2h"})
    """

    parallel_environment: str | None = None
    memory_resource: str | None = None
    gpu_resource: str | None = None

    _scheduler = "GridEngine"
    _options = ("parallel_environment", "memory_resource", "gpu_resource")


@strict_init(place_in_backend)
@dataclass(frozen=True)
class Jobs(JobsOnly):
    """A cluster with any scheduler that an installed package teaches Callyard: a backend for `Executor`.

    Each call becomes a job, which outlives this process. `Executor(backend="yard")` is `Jobs("Yard")` without further
    settings, where a package has the entry point `Yard` of the group `callyard.schedulers`.

    Args:
        scheduler: the name of the scheduler, in upper or lower case.
        options: settings of the cluster that only this scheduler knows, by name.
        walltime: the time limit of a call without `run_time`: seconds, or a text as "2h".
        queue: the queue of calls that name none.
        account: the account or project of calls that name none.
        template: a Jinja job script in the place of Callyard's own: the text, or the path of a file. Calls may ask for
            resources by the names in the template.
        python: the interpreter on the nodes; default: this one.
        setup: lines of shell before the interpreter; one text or several.
        teardown: lines of shell after the calls of a job.
        launcher: a command before the interpreter.
        poll: the shortest and the longest time between two questions to the scheduler (s).
        result_grace: the longest time after the end of a job until its result is visible (s).
        calls_per_job: the number of short calls in one job.
        log_limit: the most that a log may take on disk (GiB, or a text).
        detached: True or None.
        host: another computer that submits, `SSH(...)`: a login node; default: this one.

    Raises:
        ResourceError: an argument makes no sense.
        SchedulerError: no installed package provides the scheduler.
        CallyardError: `detached=False` is given. `Executor` raises it, too, if the template cannot be read.
        TypeError: an argument is unknown.

    >>> yard = Jobs("Yard", queue="north", options={"gauge": "standard"})  # doctest: +SKIP
    """

    scheduler: str
    options: Mapping[str, str] = field(default_factory=dict, kw_only=True)

    _scheduler = ""

    def __post_init__(self) -> None:
        from ..schedulers.registry import known_name  # here, because the settings of ours need no look at packages

        object.__setattr__(self, "_scheduler", known_name(self.scheduler))
        super().__post_init__()
        if not all(isinstance(text, str) for pair in self.options.items() for text in pair):
            raise ResourceError(f"options must be a mapping of names to texts, not {self.options!r}")

    def _own(self) -> dict[str, str]:
        return dict(self.options)
