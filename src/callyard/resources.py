"""The resources of a call: their names, units and checks, the same for every backend."""

from __future__ import annotations

import dataclasses
import datetime as dt
import functools
import os
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from . import resource_values as values
from .errors import ResourceError
from .errors.suggestions import alternatives, nearest
from .resource_values import Amount
from .utils.public_names import public_names

R = TypeVar("R")
__all__ = ["ALIASES", "LIMITS", "NAMES", "OF_SLURM", "Resources", "amounts", "resource_meant"]

# The error of a call beyond a limit -> the limit, which may be a list.
LIMITS = {"OutOfMemory": "memory", "TimeLimitExceeded": "run_time"}
# executorlib's name -> ours
ALIASES = {
    "cores": "ranks",
    "threads_per_core": "cores_per_rank",
    "gpus_per_core": "gpus_per_rank",
    "memory_max": "memory",
    "run_time_max": "run_time",
    "num_nodes": "nodes",
}


def _by_any_name(cls: type[R]) -> type[R]:
    """Let a constructor take executorlib's names and lists of limits, and refuse unknown names as `canonical` does."""
    plain = cls.__init__

    @functools.wraps(plain)
    def init(self: R, /, *args: Any, **kwargs: Any) -> None:
        known = kwargs if kwargs.keys() <= _FIELDS else canonical(kwargs, ("others",))
        plain(self, *args, **_first_limits(known))

    cls.__init__ = init  # type: ignore[assignment]
    return cls


@_by_any_name
@dataclasses.dataclass(frozen=True)
class Resources:
    """The resources of one call: the keys of `resource_dict` and `with_resources`.

    Each key may also be given by executorlib's name: `cores` (for `ranks`), `threads_per_core`, `gpus_per_core`,
    `memory_max`, `run_time_max`, `num_nodes`.

    Attributes:
        ranks: MPI ranks (count, default 1). With more than one, the function runs on each rank, and the call's result
            is the list of all ranks' results.
        cores_per_rank: cores of each rank (count, default 1); libraries are told to start as many threads.
        gpus_per_rank: whole GPUs of each rank (count, default 0); a rank sees no others.
        memory: the limit of the whole call's memory (GiB, or a text as "500MB"); a call that takes more fails with
            `OutOfMemory`. A list of limits is tried in this order: after each `OutOfMemory` the call runs again with
            the next one. Default: no limit.
        run_time: the limit of the call's time (s, or a text as "90min"); a call that takes longer fails with
            `TimeLimitExceeded`. A list is tried in this order, likewise. Default: no limit.
        grace: the time between SIGTERM, sent to a call that must end early, and SIGKILL (s, or a text; 0: no SIGTERM).
            Default: the scheduler's time; 2 s on this machine.
        warn_before: the time before the end of `run_time` or of the job at which the call is warned by a signal, and
            `callyard.ending()` becomes true (s, or a text). Default: no warning.
        warn_signal: the signal of the warning: "USR1" (the default), "USR2" or "HUP", or its number.
        nodes: the number of nodes to spread over (count); default: as many as are needed.
        ranks_per_node: the ranks on each node (count), from which the number of nodes follows.
        cpu_bind: the scheduler's binding of ranks to cores, as "cores" or "map_cpu:0,1"; default: the
            cluster's in jobs, none in an allocation.
        gpu_bind: its binding of ranks to GPUs, as "closest" or "single:1"; each rank then sees the GPUs of its binding.
        srun_args: more arguments for the `srun` that starts ranks, a text or a list of words.
        exclusive: True to keep all other calls and jobs off these nodes; default: False.
        priority: calls with a higher number start first (integer, default 0).
        cwd: the working directory (path), made if it is missing; default: the current one.
        env: more environment variables, a mapping of names to strings.
        error_log_file: a file (path) to which stderr of the call and its traceback are appended.
        restart_limit: the number of further runs of a call whose worker or node was lost (count, default 0).
        partition: the partition of a call that is a job of Slurm, as are the next keys; default: see `Slurm`.
        queue: what other schedulers have in the place of partitions; Slurm refuses it.
        account: the account to charge.
        qos: the quality of service.
        constraint: the features of suitable nodes.
        gres: generic resources, as "license:2".
        reservation: the reservation whose nodes to use; several have commas between them.
        exclude: nodes not to run on, as "n[1-4],n9" or a list of names.
        nodelist: nodes to run on, all of them, likewise.
        licenses: licenses that the cluster counts, as "matlab:2,ansys".
        begin: the earliest start, as "now+2hours", "16:00", "2030-01-31T12:00", or a `datetime`.
        wckey: the key of the site's accounting by projects.
        mail_type: the events that are mailed: "END", or several, as "FAIL,TIME_LIMIT".
        mail_user: whom to mail; default: the user who submits.
        job_name: the name in the scheduler's lists; default: that of the function.
        slurm_cmd_args: more arguments for `sbatch`, a text or a list of words; refused are options that Callyard needs
            for itself, and those of a key that is given, too.
        cache_key: the call's key in the cache, in the place of the one made from function and arguments.
        cache_directory: the cache (path) of this call, in the place of the executor's.
        others: keys of the user's own for the template of a job script; None stands for a key that is not set.
        next_memory: the limits after the present `memory` (GiB), from a list; no key.
        next_run_time: those after `run_time` (s); no key.

    Raises:
        ResourceError: a key is unknown (the message names the likeliest), or its value makes no sense.

    Examples:
        >>> Resources(cores_per_rank=4, memory="8GB").memory
        8.0
        >>> Resources(memory=[4, 16]).after("OutOfMemory").memory
        16
    """

    ranks: int = 1
    cores_per_rank: int = 1
    gpus_per_rank: int = 0
    memory: Amount = Amount()
    run_time: Amount = Amount()
    grace: Amount = Amount()
    warn_before: Amount = Amount()
    warn_signal: str | int = "USR1"
    nodes: int | None = None
    ranks_per_node: int | None = None
    cpu_bind: str | None = None
    gpu_bind: str | None = None
    srun_args: Iterable[str] | None = None
    exclusive: bool = False
    priority: int = 0
    cwd: str | os.PathLike[str] | None = None
    env: Mapping[str, str] | None = dataclasses.field(default=None, hash=False)
    error_log_file: str | os.PathLike[str] | None = None
    restart_limit: int = 0
    partition: str | None = None
    queue: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gres: str | None = None
    reservation: str | None = None
    exclude: str | Iterable[str] | None = None
    nodelist: str | Iterable[str] | None = None
    licenses: str | Iterable[str] | None = None
    begin: str | dt.datetime | None = None
    wckey: str | None = None
    mail_type: str | Iterable[str] | None = None
    mail_user: str | None = None
    job_name: str | None = None
    slurm_cmd_args: Iterable[str] | None = None
    cache_key: str | None = None
    cache_directory: str | os.PathLike[str] | None = None
    others: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)
    next_memory: tuple[float, ...] = ()
    next_run_time: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name, least in _COUNTS.items():
            if (count := getattr(self, name)) is not None or name not in _MAY_BE_LEFT:
                object.__setattr__(self, name, values.whole(name, count, least))
        if not isinstance(self.exclusive, bool):
            raise ResourceError(f"exclusive must be True or False, not {self.exclusive!r}")
        object.__setattr__(self, "warn_signal", values.signal_name(self.warn_signal))
        for name in LIMITS.values():
            following = tuple(getattr(self, f"next_{name}"))
            if following and getattr(self, name) is None:
                raise ResourceError(f"next_{name} is no key; give {name} as a list")
            object.__setattr__(self, f"next_{name}", following)
        for name, checked in _CHECKED.items():
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, checked(name, value))

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Set the state of a pickle. Keys that are newer than the pickle get their defaults."""
        keys = {field.name: field.default for field in dataclasses.fields(self) if field.name != "others"}
        vars(self).update({**keys, **state})

    @property
    def cores(self) -> int:
        """The number of cores of the whole call."""
        return self.ranks * self.cores_per_rank

    @property
    def gpus(self) -> int:
        """The number of GPUs of the whole call."""
        return self.ranks * self.gpus_per_rank

    def updated(self, changes: Mapping[str, Any]) -> Resources:
        """Return these resources with some of them changed.

        Args:
            changes: new values by key; keys may be executorlib's names.

        Raises:
            ResourceError: a key is unknown (the message names the likeliest), given twice, or its value makes no sense.

        Examples:
            >>> Resources(ranks=2).updated({"cores_per_rank": 4}).cores
            8
        """
        if not changes:
            return self
        known = _first_limits(canonical(changes, self.others))
        others = {name: known.pop(name) for name in self.others if name in known}
        return dataclasses.replace(self, **known, others={**self.others, **others})

    def after(self, error: str) -> Resources | None:
        """Return the resources of the next attempt after an error; None if there is none.

        Args:
            error: the name of the error's class, "OutOfMemory" or "TimeLimitExceeded".

        Examples:
            >>> Resources(run_time=["1min", "1h"]).after("TimeLimitExceeded").run_time
            3600.0
        """
        name = LIMITS.get(error, "")
        following = getattr(self, f"next_{name}", ())
        return self.updated({name: following}) if following else None

    def attempts(self) -> list[Resources]:
        """Return the resources of all attempts that a call may have, those of the first one first.

        Examples:
            >>> [each.memory for each in Resources(memory=[4, 16, 64]).attempts()]
            [4, 16, 64]
        """
        found: list[Resources] = []
        coming = [self]
        while coming:
            found.append(coming.pop(0))
            later = [found[-1].after(error) for error in LIMITS]
            coming += [each for each in later if each is not None and each not in coming]
        return found

    def asked(self) -> dict[str, Any]:
        """Return the resources that differ from their defaults, by key.

        Examples:
            >>> Resources(ranks=1, run_time="1min").asked()
            {'run_time': 60.0}
            >>> Resources(memory=["512MB", 4]).asked()
            {'memory': [0.5, 4]}
        """
        values = {name: value for name in NAMES if (value := getattr(self, name)) != getattr(_DEFAULTS, name)}
        for name in LIMITS.values():
            if following := getattr(self, f"next_{name}"):
                values[name] = [values[name], *following]
        return {**values, **{name: value for name, value in self.others.items() if value is not None}}

    def __dir__(self) -> list[str]:
        return public_names(super().__dir__())


# The smallest value of each count; priorities may be negative.
_COUNTS = {"ranks": 1, "cores_per_rank": 1, "gpus_per_rank": 0, "restart_limit": 0, "priority": None}
_COUNTS |= {"nodes": 1, "ranks_per_node": 1}
_MAY_BE_LEFT = ("nodes", "ranks_per_node")
# The check of each key, which returns the uniform value, or refuses a value.
_CHECKED = {
    **dict.fromkeys(("cwd", "error_log_file"), values.path),
    "cache_directory": values.path_here,
    **dict.fromkeys(("partition", "queue", "account", "qos", "constraint", "gres", "job_name"), values.text),
    **dict.fromkeys(("reservation", "wckey", "mail_user", "cpu_bind", "gpu_bind", "cache_key"), values.text),
    **dict.fromkeys(("exclude", "nodelist", "licenses"), values.names),
    "begin": values.begin,
    "env": values.environment,
    "mail_type": values.mail_types,
    **dict.fromkeys(("srun_args", "slurm_cmd_args"), values.arguments),
}
_NO_KEYS = ("others", "next_memory", "next_run_time")
_FIELDS = frozenset(field.name for field in dataclasses.fields(Resources))
NAMES = tuple(field.name for field in dataclasses.fields(Resources) if field.name not in _NO_KEYS)

# Names from other programs -> the key probably meant.
_CORES = ("cores_per_rank (threads of one call)", "ranks (MPI)")
_ELSEWHERE: dict[tuple[str, ...], str] = {
    _CORES: "cores core cpus cpu ncores n_cores num_cores ncpus n_cpus num_cpus",
    ("cores_per_rank",): "threads nthreads n_threads num_threads cores_per_core cores_per_task cpus_per_task",
    ("ranks",): "tasks ntasks n_tasks num_tasks procs nprocs n_procs processes mpi mpi_ranks nranks n_ranks num_ranks",
    ("gpus_per_rank",): "gpus gpu ngpus n_gpus num_gpus gpus_per_task",
    ("memory",): "mem ram mem_gb memory_gb memory_limit",
    ("run_time",): "time timeout walltime wall_time time_limit",
    ("grace",): "grace_period grace_time kill_wait kill_after killwait",
    ("warn_before",): "warn warning warn_time warning_time signal_delay_s",
    ("warn_signal",): "signal warning_signal signum",
    ("nodes",): "nnodes n_nodes",
    ("ranks_per_node",): "ppn procs_per_node processes_per_node tasks_per_node ntasks_per_node cores_per_node",
    ("srun_args",): "launcher_args mpi_args srun_options",
    ("cwd",): "directory workdir working_directory chdir",
    ("env",): "environment environ",
    ("error_log_file",): "stderr log log_file",
    ("restart_limit",): "retries restarts max_retries",
    ("exclude",): "exclude_nodes excluded_nodes",
    ("nodelist",): "node_list nodenames node_names",
    ("licenses",): "license licence licences",
    ("begin",): "start_time begin_time not_before",
    ("mail_type",): "mail_events email_type",
    ("mail_user",): "mail email mail_to email_user",
    ("slurm_cmd_args",): "sbatch_args",
}
_MEANT: dict[str, tuple[str, ...]] = {**{name: (name,) for name in NAMES}, **{a: (ALIASES[a],) for a in ALIASES}}
_MEANT |= {word: meant for meant, words in _ELSEWHERE.items() for word in words.split()}

# Parameters of other functions.
_OF_EXECUTOR = (
    "max_workers backend cache resource_dict initializer initargs init_function max_tasks_per_child progress logs "
    "events dry_run"
)
OF_SLURM = (
    "template python setup teardown launcher interface ports poll result_grace calls_per_job log_limit detached "
    "exclude_failed_nodes kinds host"
)
_MEANT |= {word: (f"Executor({word}=...)",) for word in _OF_EXECUTOR.split()}
_MEANT |= {word: (f"backend=Slurm({word}=...)",) for word in OF_SLURM.split()}


def canonical(changes: Mapping[str, Any], others: Iterable[str] = ()) -> dict[str, Any]:
    """Return `changes` by our names; refuse a key neither ours nor in `others`, and name the likeliest."""
    if isinstance(changes, Resources):
        raise ResourceError("resource_dict must be a mapping of resource names to values: of Resources, use `asked()`")
    if not isinstance(changes, Mapping):
        raise ResourceError(f"resource_dict must be a mapping of resource names to values, not {changes!r}")
    result: dict[str, Any] = {}
    for given, value in changes.items():
        name = ALIASES.get(given, given)
        if name not in NAMES and name not in others:
            raise ResourceError(_unknown(given, others))
        if name in result:
            raise ResourceError(f"{name} is given twice, as {_other_name(changes, given, name)!r} and as {given!r}")
        result[name] = value
    return result


def _first_limits(known: Mapping[str, Any]) -> dict[str, Any]:
    """Return keys with the first limit in the place of a list, and the others of the list beside it."""
    result = dict(known)
    for name in LIMITS.values():
        if name in known and f"next_{name}" not in known:
            first, *rest = values.limits(name, known[name])
            result.update({name: first, f"next_{name}": tuple(rest)})
    return result


def _other_name(changes: Mapping[str, Any], given: str, name: str) -> str:
    return next(other for other in changes if other != given and ALIASES.get(other, other) == name)


def _unknown(name: object, others: Iterable[str]) -> str:
    ours = [*sorted(NAMES), *others]
    meant = {**_MEANT, **{other: (other,) for other in others}}
    found = dict.fromkeys(each for word in nearest(str(name), meant) for each in meant[word])
    hint = alternatives(found) or f"; known are {', '.join(ours)}"
    return f"unknown resource {name!r}{hint}"


_AMOUNTS = ("ranks", "cores_per_rank", "gpus_per_rank", "memory", "nodes", "run_time")


def amounts(resources: Resources, named: Iterable[str] = _AMOUNTS) -> str:
    """Return the amounts of a call, its defaults too, for messages: "ranks=1, cores_per_rank=1, memory=4 GiB"."""
    units = {"memory": " GiB", "run_time": " s"}
    return ", ".join(f"{name}={value:g}{units.get(name, '')}" for name in named if (value := getattr(resources, name)))


def resource_meant(name: str) -> str | None:
    """Return our name for a resource called `name` here, in executorlib or elsewhere; None for no resource."""
    ours = _MEANT.get(name, ("",))[0].partition(" ")[0]
    return ours if ours in NAMES else None


_DEFAULTS = Resources()
