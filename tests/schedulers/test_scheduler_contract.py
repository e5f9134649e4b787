"""Our schedulers keep the contract that is public."""

from __future__ import annotations

from types import MappingProxyType

from callyard.schedulers.flux.scheduler import FluxScheduler
from callyard.schedulers.gridengine.scheduler import GridEngineScheduler
from callyard.schedulers.local.scheduler import LocalScheduler
from callyard.schedulers.lsf.scheduler import LsfScheduler
from callyard.schedulers.pbs.scheduler import PbsScheduler
from callyard.schedulers.slurm.scheduler import SlurmScheduler
from callyard.testing.scheduler_contract import SchedulerContract


class TestSlurm(SchedulerContract):
    scheduler = SlurmScheduler()


class TestFlux(SchedulerContract):
    scheduler = FluxScheduler()


class TestLocal(SchedulerContract):
    scheduler = LocalScheduler()


class TestPBS(SchedulerContract):
    scheduler = PbsScheduler()


class TestLSF(SchedulerContract):
    scheduler = LsfScheduler()


class TestGridEngine(SchedulerContract):
    scheduler = GridEngineScheduler()
    options = MappingProxyType({"parallel_environment": "smp"})
