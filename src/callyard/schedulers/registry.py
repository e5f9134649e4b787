"""The registry of schedulers: ours, and those of other packages in the entry-point group `callyard.schedulers`.

An entry point is a class without arguments that follows the protocol `Scheduler`; its name is the scheduler's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from ..errors import SchedulerError
from ..utils.plugins import find_plugin
from .base import Scheduler

__all__ = ["GROUP", "OWN", "open_scheduler"]

GROUP = "callyard.schedulers"
OWN = {"Slurm": "callyard.schedulers.slurm.scheduler:SlurmScheduler"}


def open_scheduler(name: str) -> Scheduler:
    """Return the scheduler of this name.

    Raises:
        SchedulerError: no installed package has it.
    """
    found = find_plugin(GROUP, name, OWN)
    if found is None:
        raise SchedulerError(f"this version of Callyard does not speak with the scheduler {name!r}")
    return cast("Callable[[], Scheduler]", found)()
