"""The registry of schedulers: ours, and those of other packages in the entry-point group `callyard.schedulers`.

An entry point is a class without arguments that follows the protocol `Scheduler`, under the scheduler's own name.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import cast

from ..errors import SchedulerError
from ..utils.plugins import find_plugin, plugin_names
from .base import Scheduler
from .job_environment import JobEnvironment, current_job
from .steps import Allocation

__all__ = [
    "GROUP",
    "OWN",
    "environment_outside_jobs",
    "job_around",
    "known_name",
    "open_scheduler",
    "read_share",
    "scheduler_here",
    "scheduler_of_launcher",
]

GROUP = "callyard.schedulers"
# The later ones may run inside of the earlier ones.
OWN = {
    "Slurm": "callyard.schedulers.slurm.scheduler:SlurmScheduler",
    "PBS": "callyard.schedulers.pbs.scheduler:PbsScheduler",
    "LSF": "callyard.schedulers.lsf.scheduler:LsfScheduler",
    "GridEngine": "callyard.schedulers.gridengine.scheduler:GridEngineScheduler",
    "Flux": "callyard.schedulers.flux.scheduler:FluxScheduler",
    "Local": "callyard.schedulers.local.scheduler:LocalScheduler",
}


def open_scheduler(name: str) -> Scheduler:
    """Return the scheduler of this name.

    Raises:
        SchedulerError: no installed package provides it.
    """
    found = find_plugin(GROUP, name, OWN)
    if found is None:
        raise SchedulerError(f"this version of Callyard does not speak with the scheduler {name!r}")
    return cast("Callable[[], Scheduler]", found)()


def known_name(name: str) -> str:
    """Return the name of a scheduler, of ours or of another package, as registered: case does not matter.

    Raises:
        SchedulerError: no installed package provides it.
    """
    names = plugin_names(GROUP, OWN)
    found = [known for known in names if known.lower() == str(name).lower()]
    if not found:
        raise SchedulerError(f"no installed package has a scheduler {name!r}; there are {', '.join(names)}")
    return found[0]


def scheduler_here(environ: Mapping[str, str]) -> str:
    """Return the name of the innermost scheduler of ours around this process, else the first with a command here.

    Nothing if there is neither. An instance of Flux may be a job of another scheduler, and is then the inner one; the
    other way round is not seen.
    """
    sites = {name: open_scheduler(name).site() for name in OWN}
    inside = [name for name in reversed(OWN) if sites[name].inside(environ)]
    installed = (name for name in OWN if shutil.which(sites[name].program, path=environ.get("PATH")))
    return inside[0] if inside else next(installed, "")


def job_around(environ: Mapping[str, str]) -> JobEnvironment:
    """Return the job around a process that Callyard has perhaps not started; an empty one outside of jobs."""
    jobs = [current_job(environ), *(open_scheduler(name).site().job_variables.read(environ) for name in reversed(OWN))]
    return next((job for job in jobs if job is not None and job.job), JobEnvironment())


def scheduler_of_launcher(program: str) -> Scheduler | None:
    """Return the scheduler with this program as its own launcher; None for another launcher, such as `mpiexec`."""
    for scheduler in _schedulers_here(os.environ):
        steps = scheduler.site().steps
        if steps is not None and steps.launcher == program:
            return scheduler
    return None


def read_share(environ: Mapping[str, str]) -> Allocation:
    """Return the allocation of the job around this process, of whichever scheduler, by its variables.

    Raises:
        ValueError: there is none, or its variables make no sense.
    """
    name = current_job(environ).scheduler
    steps = open_scheduler(name).site().steps if name else None
    if steps is None:
        raise ValueError("this process is not inside an allocation: no scheduler has started it as part of a job")
    return steps.share(environ)


def environment_outside_jobs(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without the variables set by schedulers for the current job or step."""
    for scheduler in _schedulers_here(environ):
        environ = scheduler.site().environment(environ)
    return dict(environ)


def _schedulers_here(environ: Mapping[str, str]) -> Iterator[Scheduler]:
    """Yield the schedulers of ours, and another package's if it has started a process with these variables."""
    name = current_job(environ).scheduler
    yield from map(open_scheduler, [*OWN, *([name] if name and name not in OWN else [])])
