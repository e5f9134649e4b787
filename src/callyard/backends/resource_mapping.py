"""The mapping of resources to plans for one machine or several nodes, or to the error with the reason."""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

from ..errors import ResourceError
from ..pool.call import CallPlan
from ..pool.call_shape import KindOffer, NodeCapacity, NodeNeed, NodeOffer, WorkerShape
from ..pool.mpi_launcher import why_no_mpi
from ..resource_values import memory_bytes
from ..resources import Resources
from ..schedulers.steps import RankOptions
from ..utils.environment import THREADS
from ..utils.paths import expand
from ..utils.quantities import counted
from ..worker.current_call import WARNED_BY

GIB = 1 << 30
_FOR_SCHEDULERS = (
    *("partition", "queue", "account", "qos", "constraint", "gres", "reservation", "exclude", "nodelist", "licenses"),
    *("begin", "wckey", "mail_type", "mail_user", "job_name", "slurm_cmd_args"),
)
# Words for nodes: the other keys are for one job.
_OF_KINDS = ("partition", "queue", "account", "qos", "constraint", "reservation", "exclude", "gres")
_OUTSIDE_SCRIPTS = ("queue", "job_name", "slurm_cmd_args")
_IN_SCRIPTS = (*(key for key in _FOR_SCHEDULERS if key not in _OUTSIDE_SCRIPTS), "ranks_per_node")
_FOR_RANKS = ("cpu_bind", "gpu_bind", "srun_args")
_FOR_CACHES = ("cache_key", "cache_directory")


def make_plan(resources: Resources, capacity: NodeCapacity) -> CallPlan:
    """Return the plan for calls with these resources.

    Raises:
        ResourceError: a key means nothing here, or there are fewer resources.
    """
    resources = with_nodes(resources)
    check_live_here(resources)
    check_capacity(resources, capacity)
    shape = shape_of(resources)
    if resources.exclusive:
        shape = shape._replace(cores=capacity.cores)
    return CallPlan(shape, resources.priority, resources.restart_limit, resources.run_time, options_of(resources))


def shape_of(resources: Resources) -> WorkerShape:
    return WorkerShape(
        cores=resources.cores,
        gpus=resources.gpus,
        memory=memory_bytes(resources.memory),
        ranks=resources.ranks,
        cores_per_rank=resources.cores_per_rank,
        environment=tuple(sorted({**(resources.env or {}), **_warning(resources)}.items())),
    )


def plan_for_nodes(resources: Resources, kinds: Sequence[KindOffer]) -> CallPlan:
    """Return the plan for calls with these resources on one of several nodes, of the first kind that fits.

    Raises:
        ResourceError: a key means nothing here, or no node has so many resources.
    """
    resources = with_nodes(resources)
    named = _kinds_named(resources, kinds)
    _refuse_what_means_nothing(resources.asked(), ())
    rank_options(resources)  # refuses them for a single rank
    needs = [_need(resources, kinds[kind].nodes)._replace(kind=kind) for kind in named]
    refusals = [_why_not(need, kinds[need.kind].nodes) for need in needs]
    if all(refusals):
        raise ResourceError(refusals[0] if len(needs) == 1 else _why_none(needs, kinds))
    need = needs[refusals.index("")]
    options, run_time = options_of(resources), resources.run_time
    if need.by_scheduler and resources.memory is not None:
        options["memory"] = memory_bytes(resources.memory / resources.ranks)
    return CallPlan(need.shape, resources.priority, resources.restart_limit, run_time, options, need)


def _kinds_named(resources: Resources, kinds: Sequence[KindOffer]) -> list[int]:
    """Return the numbers of the kinds with the scheduler's words in these resources.

    Raises:
        ResourceError: there is none.
    """
    asked = resources.asked()
    chosen = {key: asked[key] for key in _OF_KINDS if key in asked}
    for key in _FOR_SCHEDULERS:
        if key in asked and (key not in chosen or kinds[0].words is None):
            raise ResourceError(f"{key} is for jobs, and live calls run in one that is there already; leave it out")
    named = [i for i, kind in enumerate(kinds) if chosen.items() <= (kind.words or {}).items()]
    if not named:
        there = " or ".join(_quoted(kind.words or {}) or "the cluster's defaults" for kind in kinds)
        raise ResourceError(
            f"{_quoted(chosen)} was asked for, and the nodes of this executor are asked for with {there}; leave it "
            "out, or add a kind of nodes that has it (kinds=)"
        )
    return named


def _quoted(words: Mapping[str, object]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in words.items())


def _why_not(need: NodeNeed, offers: Sequence[NodeOffer]) -> str:
    """Return the reason why a call cannot run on these nodes; empty if it can, as far as known."""
    if offers and need.time and all(not offer.could_hold(_only(need.time)) for offer in offers):
        return (
            f"run_time={need.time:g} s was asked for, and the nodes are there for {_longest(offers):.0f} s; ask for "
            "less, or ask the scheduler for more (walltime=)"
        )
    if offers and len(offers) < need.nodes:
        return f"nodes={need.nodes} was asked for, and there are at most {counted(len(offers), 'node')}; ask for fewer"
    if offers and sum(offer.could_hold(need) for offer in offers) < need.nodes:
        return f"{_wanted(need)} were asked for, and the largest of {len(offers)} has {_largest(offers)}; ask for less"
    return ""


def _why_none(needs: Sequence[NodeNeed], kinds: Sequence[KindOffer]) -> str:
    """Return the reason why a call cannot run on nodes of any kind."""
    time = f" for {needs[0].time:g} s" if needs[0].time else ""
    there = "; ".join(_described(kinds[need.kind]) for need in needs)
    return f"{_wanted(needs[0])}{time} were asked for, and no kind of nodes has that ({there}); ask for less"


def _described(kind: KindOffer) -> str:
    longest = _longest(kind.nodes)
    time = f", for {longest:.0f} s" if longest else ""
    return f"{kind.label}: {len(kind.nodes)} with {_largest(kind.nodes)}{time}"


def _wanted(need: NodeNeed) -> str:
    nodes = "one node" if need.nodes == 1 else f"each of {need.nodes} nodes"
    shape = need.shape
    return f"{shape.cores} cores, {shape.gpus} GPUs and {shape.memory / GIB:g} GiB on {nodes}"


def _longest(offers: Sequence[NodeOffer]) -> float:
    return max((offer.time or 0.0 for offer in offers), default=0.0)


def _need(resources: Resources, offers: Sequence[NodeOffer]) -> NodeNeed:
    """Return the need of each node. Ranks without room on one node are spread over as few nodes as possible."""
    whole = NodeNeed(shape_of(resources), resources.exclusive, time=resources.run_time or 0.0)
    if (own := rank_options(resources)) != RankOptions():  # then the scheduler starts the ranks, as on several nodes
        whole = whole._replace(exclusive=True, rank_options=own)
    if resources.nodes is not None and resources.nodes > 1:
        if resources.ranks < resources.nodes:
            raise ResourceError(
                f"nodes={resources.nodes} with ranks={resources.ranks}: a call is on several nodes by its ranks, at "
                f"least one on each; ask for ranks={resources.nodes} or more"
            )
        return _share(resources, resources.nodes)
    if resources.nodes == 1 or resources.ranks == 1 or any(offer.could_hold(whole) for offer in offers):
        return whole
    shares = (_share(resources, nodes) for nodes in range(2, min(len(offers), resources.ranks) + 1))
    return next((share for share in shares if sum(o.could_hold(share) for o in offers) >= share.nodes), whole)


def _share(resources: Resources, nodes: int) -> NodeNeed:
    """Return the need of each of several nodes.

    The call has the nodes for itself: no pool can account for its ranks.
    """
    ranks = resources.ranks_per_node or -(-resources.ranks // nodes)
    cores, gpus = ranks * resources.cores_per_rank, ranks * resources.gpus_per_rank
    shape = shape_of(resources)._replace(cores=cores, gpus=gpus, memory=memory_bytes(resources.memory) // nodes)
    return NodeNeed(shape, True, nodes, resources.run_time or 0.0, ranks, rank_options(resources))


def with_nodes(resources: Resources) -> Resources:
    """Return resources with the number of nodes that follows from `ranks_per_node`.

    Raises:
        ResourceError: another number of nodes is asked for.
    """
    if resources.ranks_per_node is None:
        return resources
    nodes = -(-resources.ranks // resources.ranks_per_node)
    if resources.nodes not in (None, nodes):
        raise ResourceError(
            f"nodes={resources.nodes} was asked for, and ranks={resources.ranks} with "
            f"ranks_per_node={resources.ranks_per_node} take {nodes}; leave nodes out"
        )
    return resources.updated({"nodes": nodes})


def without_nodes(resources: Resources, nodes: Sequence[str]) -> Resources:
    """Return resources that exclude these nodes, too, unless the call names its nodes itself."""
    if not nodes or resources.nodelist is not None:
        return resources
    excluded = [] if resources.exclude is None else [str(resources.exclude)]
    return resources.updated({"exclude": [*excluded, *nodes]})


def rank_options(resources: Resources) -> RankOptions:
    """Return the user's wishes for the start of ranks.

    Raises:
        ResourceError: there is only one rank.
    """
    for key in _FOR_RANKS:
        if resources.ranks == 1 and getattr(resources, key) is not None:
            raise ResourceError(f"{key} is for calls with ranks, and this one has a single one; leave it out")
    arguments = resources.srun_args
    words = shlex.split(arguments) if isinstance(arguments, str) else arguments or ()
    return RankOptions(resources.cpu_bind, resources.gpu_bind, tuple(words))


def _only(time: float) -> NodeNeed:
    return NodeNeed(WorkerShape(0), time=time)


def _largest(offers: Sequence[NodeOffer]) -> str:
    offer = max(offers, key=lambda offer: offer.cores or 0)
    cores = [] if offer.cores is None else [counted(offer.cores, "core")]
    gpus = [] if offer.gpu_count is None else [counted(offer.gpu_count, "GPU")]
    memory = [] if offer.memory is None else [f"{offer.memory / GIB:.3g} GiB"]
    return ", ".join([*cores, *gpus, *memory])


def _refuse_what_means_nothing(asked: dict[str, Any], for_schedulers: Iterable[str]) -> None:
    for key in for_schedulers:
        if key in asked:
            raise ResourceError(f"{key} is for a scheduler, and this machine's backend has none; leave it out")
    for key in _FOR_CACHES:
        if key in asked:
            raise ResourceError(f"{key} is for a cache, and this executor has none; leave it out")


def check_live_here(resources: Resources) -> None:
    """Raise ResourceError for keys that mean nothing for live calls of one machine."""
    _refuse_what_means_nothing(resources.asked(), (*_FOR_SCHEDULERS, *_FOR_RANKS))


def described(capacity: NodeCapacity) -> str:
    """Return resources in words."""
    cores, gpus, memory = capacity
    return f"{counted(cores, 'core')}, {counted(len(gpus), 'GPU')}, {memory / GIB:.1f} GiB"


def check_capacity(resources: Resources, capacity: NodeCapacity) -> None:
    """Raise ResourceError for a call that asks for more than there is."""
    check_amounts(resources, capacity.cores, len(capacity.gpus), capacity.memory)
    if resources.ranks > 1 and (reason := why_no_mpi()) is not None:
        raise ResourceError(
            f"ranks={resources.ranks} needs MPI, and {reason}; "
            f"if one run with {resources.ranks} cores was meant, ask for cores_per_rank={resources.ranks}"
        )


def check_amounts(resources: Resources, cores: float, gpus: float, memory: float) -> None:
    """Raise ResourceError for a call that asks for more than so many cores, GPUs and bytes of one machine."""
    if (resources.nodes or 1) > 1:
        raise ResourceError(f"nodes={resources.nodes} was asked for, and this machine is one; use nodes=1")
    if resources.cores > cores:
        raise ResourceError(
            f"{_asked(resources, 'cores_per_rank')} was asked for, and this executor has "
            f"{counted(int(cores), 'core')}; ask for fewer, or set Local(cores=...)"
        )
    if resources.gpus > gpus:
        raise ResourceError(
            f"{_asked(resources, 'gpus_per_rank')} was asked for, and this executor has "
            f"{counted(int(gpus), 'GPU')}; ask for fewer, or set Local(gpus=...)"
        )
    if resources.memory is not None and resources.memory * GIB > memory:
        raise ResourceError(
            f"memory={resources.memory:g} GiB was asked for, and this executor has {memory / GIB:.3g} GiB; "
            "ask for less, or set Local(memory=...)"
        )


def _asked(resources: Resources, key: str) -> str:
    ranks = "" if resources.ranks == 1 else f"ranks={resources.ranks} with "
    return f"{ranks}{key}={getattr(resources, key)}"


def options_of(resources: Resources) -> dict[str, Any]:
    """Return the options for a worker's preparation of the call. Paths are those of this moment and this directory."""
    options: dict[str, Any] = {}
    for key in ("cwd", "error_log_file"):
        path = getattr(resources, key)
        if path is not None:
            options[key] = os.path.abspath(expand(os.fspath(path)))
    if resources.memory is not None:
        options["memory"] = memory_bytes(resources.memory)
    if resources.grace is not None:
        options["grace"] = resources.grace
    if resources.warn_before is not None:
        options["warn_before"] = resources.warn_before
        options["warn_signal"] = _signal_number(resources)
    return options


def _warning(resources: Resources) -> dict[str, str]:
    """Return the variable from which a worker learns the signal of the warning before the first call."""
    return {} if resources.warn_before is None else {WARNED_BY: str(_signal_number(resources))}


def _signal_number(resources: Resources) -> int:
    return int(signal.Signals[f"SIG{resources.warn_signal}"])


# -- as a job ------------------------------------------------------------------------------------------------


def job_options(resources: Resources) -> dict[str, Any]:
    """Return the options of a call that is a job; the scheduler keeps the other resources.

    Raises:
        ResourceError: a key means nothing for a job.
    """
    if resources.cache_key is not None or resources.cache_directory is not None:
        raise ResourceError("cache_key and cache_directory are for a cache, and this executor has none; leave them out")
    rank_options(resources)  # refuses them for a single rank
    options = options_of(resources)
    if resources.exclusive:
        options["cores"] = 0  # all that it finds
    elif resources.cores_per_rank > 1:
        options["cores"] = resources.cores_per_rank
    return options


def check_template(resources: Resources, used: Container[str]) -> None:
    """Raise ResourceError for a key that a template, which uses these variables, would drop without a word."""
    for key, value in resources.asked().items():
        if key in _IN_SCRIPTS and key not in used:
            raise ResourceError(
                f"{key}={value!r} means nothing to the template of the job script, which has no {{{{ {key} }}}}: add "
                f"that, or leave {key} out"
            )


def thread_variables(resources: Resources) -> dict[str, str]:
    """Return the variables for the number of threads that libraries start."""
    return dict.fromkeys(THREADS, str(resources.cores_per_rank))


def shown(resources: Resources) -> dict[str, Any]:
    """Return the resources that were asked for, for people."""
    asked = resources.asked().items()
    return {name: value if isinstance(value, (int, float, list)) else str(value) for name, value in asked}
