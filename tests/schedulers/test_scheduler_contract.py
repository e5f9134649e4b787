"""Our schedulers keep the contract that is public."""

from __future__ import annotations

from callyard.schedulers.flux.scheduler import FluxScheduler
from callyard.schedulers.local.scheduler import LocalScheduler
from callyard.schedulers.slurm.scheduler import SlurmScheduler
from callyard.testing.scheduler_contract import SchedulerContract


class TestSlurm(SchedulerContract):
    scheduler = SlurmScheduler()


class TestFlux(SchedulerContract):
    scheduler = FluxScheduler()


class TestLocal(SchedulerContract):
    scheduler = LocalScheduler()
