"""The resources of a call: their names, units and checks, the same for every backend."""

from __future__ import annotations

import dataclasses
import functools
import numbers
import operator
import os
import signal
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from .errors import ResourceError
from .errors.suggestions import alternatives, nearest
from .utils.paths import expand
from .utils.public_names import public_names
from .utils.quantities import MEMORY, measured, seconds

R = TypeVar("R")
__all__ = ["ALIASES", "NAMES", "OF_SLURM", "Amount", "Resources", "amount", "amounts", "resource_meant", "whole"]

# executorlib's name -> ours
ALIASES = {
    "cores": "ranks",
    "threads_per_core": "cores_per_rank",
    "gpus_per_core": "gpus_per_rank",
    "memory_max": "memory",
    "run_time_max": "run_time",
    "num_nodes": "nodes",
}


class Amount:
    """A field of a dataclass in GiB or seconds, given as a number or as a text with a unit and kept as a number."""

    def __init__(self, default: float | str | None = None) -> None:
        self._default = default

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: object, owner: type | None = None) -> float | None:
        if instance is None:
            return self._default if self._default is None else amount(self._name, self._default)
        value: float | None = vars(instance)[self._name]
        return value

    def __set__(self, instance: object, value: float | str | None) -> None:
        vars(instance)[self._name] = amount(self._name, value)


def _by_any_name(cls: type[R]) -> type[R]:
    """Let a constructor take executorlib's names, and refuse unknown ones as `canonical` does."""
    plain = cls.__init__

    @functools.wraps(plain)
    def init(self: R, /, *args: Any, **kwargs: Any) -> None:
        plain(self, *args, **(kwargs if kwargs.keys() <= _FIELDS else canonical(kwargs, ("others",))))

    cls.__init__ = init  # type: ignore[assignment]
    return cls


@_by_any_name
@dataclasses.dataclass(frozen=True)
class Resources:
    """The resources of one call: the keys of `resource_dict` and `with_resources`.

    Each key may also be given by executorlib's name: `cores` (for `ranks`), `threads_per_core`, `gpus_per_core`,
    `memory_max`, `run_time_max`, `num_nodes`.

    Attributes:
        ranks: MPI ranks (count, default 1). With more than one the function runs on each rank, and the call's result is
            the list of their results.
        cores_per_rank: cores of each rank (count, default 1); libraries are told to start as many threads.
        gpus_per_rank: whole GPUs of each rank (count, default 0); it sees no others.
        memory: the most that the whole call may take (GiB, or a text as "500MB"); if it takes more, it fails with
            `OutOfMemory`. Default: no limit.
        run_time: the most that it may take (s, or a text as "90min"); if it takes longer, it fails with
            `TimeLimitExceeded`. Default: no limit.
        grace: the time between SIGTERM, which the call gets at an end that is not its own, and SIGKILL (s, or a text;
            0: no SIGTERM). Default: what the scheduler gives; 2 s on this machine.
        warn_before: the time before `run_time` or its job is over at which the call is warned by a signal, and
            `callyard.ending()` becomes true (s, or a text). Default: no warning.
        warn_signal: which signal that is: "USR1" (the default), "USR2" or "HUP", or its number.
        nodes: the number of nodes to spread over (count); default: as many as are needed.
        exclusive: whether to keep all other calls and jobs off these nodes; default: False.
        priority: which calls start first: those with the higher number (integer, default 0).
        cwd: the working directory (path), made if it is missing; default: the current one.
        env: more environment variables, a mapping of names to strings.
        error_log_file: a file (path) to which stderr of the call and its traceback are appended.
        restart_limit: how often the call runs again if its worker or node was lost (count, default 0).
        partition: where a call runs that is a job of Slurm, as are the next keys; default: see `Slurm`.
        queue: Flux's word for it; Slurm refuses it.
        account: the account to charge.
        qos: the quality of service.
        constraint: features that nodes must have.
        gres: generic resources, as "license:2".
        job_name: the name in the scheduler's lists; default: that of the function.
        slurm_cmd_args: more arguments for `sbatch` (strings).
        cache_key: the call's key in the cache, in place of the one that is made from function and arguments.
        cache_directory: the cache (path) of this call, in place of the executor's.
        others: keys of the user's own that the template of a job script uses; None stands for a key that is not set.

    Raises:
        ResourceError: a key is unknown (the message names the likeliest), or its value makes no sense.

    Examples:
        >>> Resources(cores_per_rank=4, memory="8GB").memory
        8.0
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
    exclusive: bool = False
    priority: int = 0
    cwd: str | os.PathLike[str] | None = None
    env: Mapping[str, str] | None = None
    error_log_file: str | os.PathLike[str] | None = None
    restart_limit: int = 0
    partition: str | None = None
    queue: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gres: str | None = None
    job_name: str | None = None
    slurm_cmd_args: Iterable[str] | None = None
    cache_key: str | None = None
    cache_directory: str | os.PathLike[str] | None = None
    others: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, least in _COUNTS.items():
            if (count := getattr(self, name)) is not None or name != "nodes":
                object.__setattr__(self, name, whole(name, count, least))
        if not isinstance(self.exclusive, bool):
            raise ResourceError(f"exclusive must be True or False, not {self.exclusive!r}")
        object.__setattr__(self, "warn_signal", _signal_name(self.warn_signal))
        for name in ("cwd", "error_log_file", "cache_directory"):
            object.__setattr__(self, name, _path(name, getattr(self, name)))
        _check_environment(self.env)

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Set the state of a pickle, which may be older than some of the keys: they get their defaults."""
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
        known = canonical(changes, self.others)
        others = {name: known.pop(name) for name in self.others if name in known}
        return dataclasses.replace(self, **known, others={**self.others, **others})

    def asked(self) -> dict[str, Any]:
        """Return the resources that differ from their defaults, by key.

        Examples:
            >>> Resources(ranks=1, run_time="1min").asked()
            {'run_time': 60.0}
        """
        values = {name: value for name in NAMES if (value := getattr(self, name)) != getattr(_DEFAULTS, name)}
        return {**values, **{name: value for name, value in self.others.items() if value is not None}}

    def __dir__(self) -> list[str]:
        return public_names(super().__dir__())


# The smallest value of each count; priorities may be negative.
_COUNTS = {"ranks": 1, "cores_per_rank": 1, "gpus_per_rank": 0, "restart_limit": 0, "nodes": 1, "priority": None}
_MAY_BE_ZERO = ("grace",)
_SIZES = ("memory", "log_limit")  # in GiB
# Signals that mean nothing to Python or the kernel, and end a process that has no handler for them.
_WARNINGS = ("USR1", "USR2", "HUP")
_MOST = 1e300  # beyond any machine and any age, and still a float in every unit
_FIELDS = frozenset(field.name for field in dataclasses.fields(Resources))
NAMES = tuple(field.name for field in dataclasses.fields(Resources) if field.name != "others")

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
    ("cwd",): "directory workdir working_directory chdir",
    ("env",): "environment environ",
    ("error_log_file",): "stderr log log_file",
    ("restart_limit",): "retries restarts max_retries",
    ("slurm_cmd_args",): "sbatch_args",
}
_MEANT: dict[str, tuple[str, ...]] = {**{name: (name,) for name in NAMES}, **{a: (ALIASES[a],) for a in ALIASES}}
_MEANT |= {word: meant for meant, words in _ELSEWHERE.items() for word in words.split()}

# Parameters of other functions.
_OF_EXECUTOR = "max_workers backend cache resource_dict initializer initargs init_function max_tasks_per_child progress"
OF_SLURM = "template python setup launcher interface ports poll result_grace calls_per_job log_limit detached host"
_MEANT |= {word: (f"Executor({word}=...)",) for word in _OF_EXECUTOR.split()}
_MEANT |= {word: (f"backend=Slurm({word}=...)",) for word in OF_SLURM.split()}


def canonical(changes: Mapping[str, Any], others: Iterable[str] = ()) -> dict[str, Any]:
    """Return `changes` by our names; refuse a key neither ours nor in `others`, and name the likeliest."""
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


def _other_name(changes: Mapping[str, Any], given: str, name: str) -> str:
    return next(other for other in changes if other != given and ALIASES.get(other, other) == name)


def _unknown(name: object, others: Iterable[str]) -> str:
    ours = [*sorted(NAMES), *others]
    meant = {**_MEANT, **{other: (other,) for other in others}}
    found = dict.fromkeys(each for word in nearest(str(name), meant) for each in meant[word])
    hint = alternatives(found) or f"; known are {', '.join(ours)}"
    return f"unknown resource {name!r}{hint}"


def amounts(resources: Resources) -> str:
    """Return the amounts of a call, its defaults too, for messages: "ranks=1, cores_per_rank=1, memory=4 GiB"."""
    units = {"memory": " GiB", "run_time": " s"}
    named = ("ranks", "cores_per_rank", "gpus_per_rank", "memory", "nodes", "run_time")
    return ", ".join(f"{name}={value:g}{units.get(name, '')}" for name in named if (value := getattr(resources, name)))


def resource_meant(name: str) -> str | None:
    """Return our name for a resource called `name` here, in executorlib or elsewhere; None for no resource."""
    ours = _MEANT.get(name, ("",))[0].partition(" ")[0]
    return ours if ours in NAMES else None


def whole(name: str, value: Any, least: int | None) -> int:
    """Return an integer of any library as Python's own; refuse other values and too small ones."""
    try:
        whole = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        whole = None
    if whole is None or (least is not None and whole < least):
        kind = "an integer" if least is None else f"a whole number of at least {least}"
        raise ResourceError(f"{name} must be {kind}, not {value!r}")
    return whole


def amount(name: str, value: Any) -> float | None:
    """Return GiB or seconds as Python's own number, from a number or a text with a unit.

    Raises:
        ResourceError: it is negative, no such number, or 0 where that makes no sense.
    """
    if value is None:
        return None
    try:
        number = _number(name, value)
    except OverflowError:
        number = float("inf")
    zero = name in _MAY_BE_ZERO and number == 0
    if not zero and not 0 < number < _MOST:
        unit, text = ("GiB", '"4GB"') if name in _SIZES else ("seconds", '"90min" or "12:00:00"')
        hint = f" or a text as {text}" if isinstance(value, str) else ""
        least = f"a number of {unit}, 0 or more," if name in _MAY_BE_ZERO else f"a positive number of {unit}"
        raise ResourceError(f"{name} must be {least}{hint}, not {value!r}")
    return value if type(value) is int else number


def _number(name: str, value: Any) -> float:
    if isinstance(value, str):
        return measured(value, MEMORY) / MEMORY["gib"] if name in _SIZES else seconds(value)
    return float("nan") if isinstance(value, bool) or not isinstance(value, numbers.Real) else float(value)


def _signal_name(value: object) -> str:
    """Return the name of a signal that may warn a call, without SIG, from its name or number."""
    known = {str(name): name for name in _WARNINGS} | {str(int(_signal(name))): name for name in _WARNINGS}
    name = known.get(str(value).upper().removeprefix("SIG"))
    if name is None or isinstance(value, bool):
        raise ResourceError(f"warn_signal must be one of {', '.join(_WARNINGS)}, or its number, not {value!r}")
    return name


def _signal(name: str) -> signal.Signals:
    return signal.Signals[f"SIG{name}"]


def _path(name: str, value: object) -> str | os.PathLike[str] | None:
    """Return the path with its `~` expanded."""
    if value is None:
        return None
    if not isinstance(value, (str, os.PathLike)):
        raise ResourceError(f"{name} must be a path, not {value!r}")
    return expand(os.fspath(value)) if str(value).startswith("~") else value


def _check_environment(env: object) -> None:
    if env is None:
        return
    if not isinstance(env, Mapping):
        raise ResourceError(f"env must be a mapping of names to values, not {env!r}")
    for name, value in env.items():
        if not isinstance(name, str) or not isinstance(value, str) or not name or "=" in name or "\0" in name + value:
            raise ResourceError(f"env must map names to strings, which {name!r}: {value!r} does not")


_DEFAULTS = Resources()
