"""The instance of Flux around a process: its nodes and its end, and the commands for processes on the nodes.

An instance has a broker on each node, known by a rank. Several brokers may have one host name, as in a test instance;
then the names of the nodes have the rank, too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from math import inf
from typing import Any

from ...errors import ResourceError, SchedulerError
from ...resources import Resources
from ..hostlists import expand, numbers
from ..steps import AllocatedNode, Allocation, Ask, RankStep
from .question import question
from .variables import BY_RANK, CORES, ENDS, GPUS, JOB_VARIABLES, environment, without_gpus

__all__ = ["FluxSteps", "check_live", "is_over", "read_instance"]

_NO_JOB = "instance"  # what processes are told in the place of a job, in an instance that is none
# A process learns the name of its node from the node's broker. The words are fixed; the command comes behind them.
_NAME = (
    f"{JOB_VARIABLES.node}=$(flux getattr hostname)${{{BY_RANK}:+-$(flux getattr rank)}}; "
    f'export {JOB_VARIABLES.node}; exec "$@"'
)
_NAMED = ("sh", "-c", _NAME, "callyard")
# Ranks are a job. `flux run` leaves its job in the queue if it is ended itself, or if its input ends with the driver;
# so here both SIGTERM and the end of the input cancel the job. The arguments are those of `flux submit`.
_RANKS = """
trap stop=1 TERM
job=$(flux submit "$@") || exit
cancel() { flux job raise --severity=0 --type=cancel "$job" "its driver has ended it" 2>/dev/null; }
trap cancel TERM
[ -z "$stop" ] || cancel
exec 3<&0 < <(exec 2>/dev/null; while read -r _; do :; done <&3; cancel)
reader=$!
flux job attach "$job" <&0 3<&- &
wait $!; code=$?
while kill -0 $! 2>/dev/null; do wait $!; code=$?; done
kill $reader 2>/dev/null
exit $code
"""
_OVER = re.compile(r"flux_open|Unable to connect to Flux|broker socket")
_OF_OTHERS = ("cpu_bind", "gpu_bind", "srun_args")


class FluxSteps:
    """Processes on the nodes of an instance, started by `flux exec`; ranks by `flux submit`."""

    launcher = "flux"
    noise = b""
    ended_on = None  # it tells of ends when all processes have ended
    reaches_jobs = False
    how_to_get_one = "an instance of your own (flux alloc, flux batch or flux start)"
    how_to_keep_one = ""

    def allocation(self, environ: Mapping[str, str], ask: Ask) -> Allocation | None:  # Flux tells all
        """Return the instance that Flux's commands reach from here, if it is the user's own; None otherwise."""
        return ask(question("instance", {}, read_instance))

    def share(self, environ: Mapping[str, str]) -> Allocation:
        """Return what a pilot job has of its node; raise ValueError outside of such a job."""
        job, cores = environ.get(JOB_VARIABLES.job), environ.get(CORES)
        if not job or not cores:
            raise ValueError(f"this process is not inside an allocation: {CORES} is not set")
        gpus = tuple(map(str, numbers(environ.get(GPUS, ""))))
        node = AllocatedNode(environ.get(JOB_VARIABLES.node, ""), len(numbers(cores)), None, gpus)
        return Allocation(job, (node,), title=f"Flux job {job}")

    def environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Return the environment for commands in the instance. Nodes have other GPUs than this process."""
        return without_gpus(environment(environ))

    def agents(self, nodes: Sequence[str] | int, command: Sequence[str]) -> list[str]:
        """Return the command that starts one process on each node; in a pilot job, on the only one."""
        if isinstance(nodes, int):
            return [*command]
        return ["flux", "exec", "-r", _ranks_of(nodes), *_NAMED, *command]

    def ranks(self, step: RankStep, command: Sequence[str]) -> list[str]:
        """Return the command that starts the ranks of an MPI call."""
        return ["bash", "-c", _RANKS, "callyard", *_rank_options(step), "--", *_NAMED, *command]


def check_live(resources: Resources) -> None:
    """Raise ResourceError for what only Slurm's launcher understands."""
    for key in _OF_OTHERS:
        if getattr(resources, key) is not None:
            raise ResourceError(f"{key} means nothing to Flux, whose live ranks are not bound; leave it out")


def _ranks_of(nodes: Sequence[str]) -> str:
    """Return a set of brokers as Flux takes it: in order."""
    return ",".join(sorted(nodes, key=int))


def _rank_options(step: RankStep) -> Iterator[str]:
    yield "--job-name=callyard-ranks"
    yield f"--requires=rank:{_ranks_of(step.nodes)}"
    yield f"--nodes={len(step.nodes)}"
    yield f"--ntasks={step.size}"
    yield f"--cores-per-task={step.cores}"
    if step.gpus:
        yield f"--gpus-per-task={step.gpus}"
    yield "--setopt=gpu-affinity=per-task"
    # Libraries are told the number of threads; pretended cores could not be bound.
    yield "--setopt=cpu-affinity=off"
    # The ranks end when the driver has all results, or with the first one that fails.
    yield "--setopt=exit-timeout=none"
    yield "--setopt=exit-on-error"
    if step.plugin:
        yield f"--setopt=pmi={step.plugin}"


def read_instance(out: str) -> Allocation | None:
    """Return the nodes of an instance that are up; None for an instance of somebody else."""
    said = json.loads(out)
    if said["owner"] != said["user"]:
        return None
    hosts, job = expand(said["hostlist"]), said["job"]
    is_by_rank = len(set(hosts)) < len(hosts)
    nodes = tuple(_nodes(said["R"], hosts, is_by_rank))
    title = f"Flux job {job}" if job else "an instance of Flux"
    if not nodes:
        raise SchedulerError(f"{title} has no node that is up: look at `flux resource status`")
    ends = float(said["expiration"])
    told = {JOB_VARIABLES.job: job or _NO_JOB, ENDS: str(int(ends)) if ends else "", BY_RANK: "1" if is_by_rank else ""}
    variables = {name: text for name, text in told.items() if text}
    return Allocation(job, nodes, ends or inf, title, variables)


def _nodes(resources: Mapping[str, Any], hosts: Sequence[str], is_by_rank: bool) -> Iterator[AllocatedNode]:
    """Yield the nodes of a resource set (Flux's RFC 20), in the order of their ranks."""
    of_ranks = {
        rank: part["children"] for part in resources["execution"]["R_lite"] for rank in numbers(str(part["rank"]))
    }
    for rank, children in sorted(of_ranks.items()):
        name = f"{hosts[rank]}-{rank}" if is_by_rank else hosts[rank]
        gpus = tuple(map(str, numbers(children.get("gpu", ""))))
        yield AllocatedNode(name, len(numbers(children["core"])), None, gpus, str(rank))


def is_over(said: str) -> bool:
    """Return True if the messages of a command say that the instance has ended."""
    return _OVER.search(said) is not None
