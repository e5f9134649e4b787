"""Slurm as a `Scheduler`: the texts of the other modules of this folder, as queries on neutral values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ...errors import ResourceError
from ...resources import Resources
from ..base import Configuration, JobId, JobRequest, Site, Status
from ..command import Query, Reply
from ..steps import Allocation, Ask, MpiPluginTexts, NodeGroup, RankStep
from . import allocation, commands, mpi, nodes
from .refusals import why_refused
from .states import JobReport, translated
from .user_arguments import check_arguments
from .variables import JOB_VARIABLES

__all__ = ["SlurmScheduler"]


class SlurmScheduler:
    """Slurm, from 22.05 on."""

    name = "Slurm"

    def submit(self, request: JobRequest) -> Query[JobId]:
        """Return the command that submits a job or an array."""
        return Query(commands.submit(request), lambda out: JobId(commands.submitted(out)))

    def status(self, jobs: Sequence[JobId]) -> Query[Mapping[JobId, Status]]:
        """Return the command for the states of this user's jobs."""
        return Query(commands.status(_texts(jobs)), _translating(commands.statuses))

    def find(self, token: str) -> Query[Mapping[str, JobId]]:
        """Return the command for finding submissions by the token in their comments."""

        def read(out: str) -> Mapping[str, JobId]:
            return {word: JobId(job) for word, job in commands.found(out, token).items()}

        return Query(commands.find(token), read)

    def cancel(self, jobs: Sequence[JobId]) -> Sequence[Query[None]]:
        """Return the commands that cancel jobs and elements."""
        return [Query(argv, _nothing) for argv in commands.cancel(_texts(jobs))]

    def site(self) -> Site:
        """Return the facts about the cluster."""
        return _SITE


def _texts(jobs: Sequence[JobId]) -> list[str]:
    """Return the texts of jobs. Others than numbers, as from a damaged file, would make Slurm refuse all of them."""
    return [str(job) for job in jobs if job.job.isdecimal()]


def _translating(read: Callable[[str], dict[str, JobReport]]) -> Callable[[str], Mapping[JobId, Status]]:
    return lambda out: {JobId.parse(job): translated(report) for job, report in read(out).items()}


def _nothing(out: str) -> None:
    """Ignore the output of a command that has no answer."""


def _configuration(environ: Mapping[str, str]) -> Configuration | None:
    path = commands.configuration(environ)
    if path is None:
        return None
    return Configuration(path, Reply(1, "", f"{commands.limits()[0]}: cannot stat file {path!r}"))


def _history(jobs: Sequence[JobId]) -> Query[Mapping[JobId, Status]]:
    return Query(commands.history(_texts(jobs)), _translating(commands.histories))


def _time_left(jobs: Sequence[JobId]) -> Query[Mapping[JobId, float]]:
    def read(out: str) -> Mapping[JobId, float]:
        return {JobId.parse(job): seconds for job, seconds in commands.times_left(out).items()}

    return Query(commands.time_left(_texts(jobs)), read)


def _nodes(partition: str | None) -> Query[Sequence[NodeGroup]]:
    return Query(nodes.nodes(partition), lambda out: nodes.groups(out, partition))


def _failed_of(names: str) -> Query[Sequence[str]]:
    return Query(nodes.states(names), nodes.failed)


def _check(resources: Resources) -> None:
    if resources.queue is not None:
        raise ResourceError("queue is what other schedulers call it; Slurm has partition=")
    check_arguments(resources)


def _rank_launcher(ranks: int, cores_per_rank: int, plugin: str | None, nodes: int | None) -> tuple[str, ...]:  # noqa: ARG001  # by the job's own options
    chosen = [f"--mpi={plugin}"] if plugin else []
    return (SlurmSteps.launcher, *chosen, f"--ntasks={ranks}", f"--cpus-per-task={cores_per_rank}")


class SlurmSteps:
    """Steps in an allocation, started by `srun`."""

    launcher = "srun"
    noise = allocation.NOISE
    ended_on = staticmethod(allocation.ended_on)
    reaches_jobs = True
    how_to_get_one = "an allocation (salloc or sbatch)"
    how_to_keep_one = "if it ended because a node failed, ask with --no-kill, which keeps the other nodes"

    def allocation(self, environ: Mapping[str, str], ask: Ask) -> Allocation | None:  # variables tell all
        """Return the allocation described by an environment; None outside of jobs."""
        return allocation.read_allocation(environ) if JOB_VARIABLES.job in environ else None

    def share(self, environ: Mapping[str, str]) -> Allocation:
        """Return the same for a process in a job; raise ValueError if there is none."""
        return allocation.read_allocation(environ)

    def environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Return the environment for `srun` inside an allocation."""
        return allocation.step_environment(environ)

    def agents(self, nodes: Sequence[str] | int, command: Sequence[str]) -> list[str]:
        """Return the command that starts one process on each node."""
        if isinstance(nodes, int):
            return allocation.agents_of_job(nodes, command)
        return allocation.agents(nodes, command)

    def ranks(self, step: RankStep, command: Sequence[str]) -> list[str]:
        """Return the command that starts the ranks of an MPI call."""
        return allocation.ranks(step.nodes, step.size, step.per_node, step.plugin, command, step.job, step.options)


def _offered(text: str) -> Sequence[str]:
    return mpi.offered(text)


_MPI = MpiPluginTexts(
    offered=Query(mpi.LIST, _offered),
    order=mpi.candidates,
    advice=mpi.advice,
    cluster=lambda environ: environ.get("SLURM_CLUSTER_NAME", ""),
)
_SITE = Site(
    program="sbatch",
    array_limit=Query(commands.limits(), commands.max_array_size),
    environment=commands.environment,
    refusal=why_refused,
    job_variables=JOB_VARIABLES,
    inside=lambda environ: JOB_VARIABLES.job in environ,
    configuration=_configuration,
    history=_history,
    time_left=_time_left,
    nodes=_nodes,
    failed_of=_failed_of,
    steps=SlurmSteps(),
    mpi=_MPI,
    is_over=allocation.is_over,
    rank_launcher=_rank_launcher,
    rank_options=allocation.rank_options,
    check=_check,
    check_live=_check,
    requeue=lambda job: commands.requeue(str(job)),
)
