"""Slurm's allocations: read from the environment of a process inside one, and the commands for steps in it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from math import inf

from ...errors import SchedulerError
from ..hostlists import expand
from ..steps import AllocatedNode, Allocation, RankOptions
from .job_ids import base, unique
from .variables import environment

__all__ = [
    "NOISE",
    "AllocatedNode",
    "Allocation",
    "agents",
    "agents_of_job",
    "end_time",
    "ended_on",
    "expand",
    "inside",
    "is_over",
    "per_node",
    "rank_options",
    "read_allocation",
    "step_environment",
    "time_left",
    "times_left",
]

_MIB = 1 << 20
_GPUS = re.compile(r"(?:^|,)(?:[^,]*:)?(\d+)(?:\([^)]*\))?(?=,|$)")
_DURATION = re.compile(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)")
_COUNT = re.compile(r"(\d+)(?:\(x(\d+)\))?$")
# "srun: error: c[2-3]: tasks 1-2: Killed", "srun: error: Node failure on c2"
_ENDED = re.compile(r"^srun: error: (\S+): tasks? [\d,-]+: ", re.MULTILINE)
# The message of `--cpu-bind=none` on a cluster without binding.
NOISE = b"srun: cluster configuration lacks support for cpu binding\n"
_OVER = re.compile(r"job \d+ has expired|[Ii]nvalid job id specified|[Jj]ob/step already completing or completed")
_NODE_FAILED = re.compile(r"^srun: error: Node failure on (\S+)", re.MULTILINE)


def inside(environ: Mapping[str, str]) -> bool:
    """Return True if these are the variables of a process inside an allocation."""
    return bool(environ.get("SLURM_JOB_ID") and environ.get("SLURM_JOB_NODELIST"))


def read_allocation(environ: Mapping[str, str]) -> Allocation:
    """Return the allocation described by an environment.

    Raises:
        ValueError: there is none, or its variables make no sense.
        SchedulerError: it has several parts.
    """
    parts = environ.get("SLURM_HET_SIZE", "1")
    if parts != "1":  # each of its variables has the number of a part in its name
        job = environ.get("SLURM_JOB_ID")
        raise SchedulerError(
            f"job {job} is a heterogeneous allocation of {parts} parts (salloc or sbatch with ':'), and no step has "
            "agents on all of them: ask for one without ':', or say Slurm(detached=True), so that each call is a job"
        )
    if not inside(environ):
        raise ValueError("this process is not inside an allocation: SLURM_JOB_ID and SLURM_JOB_NODELIST are not set")
    names = expand(environ["SLURM_JOB_NODELIST"])
    cores = per_node(environ.get("SLURM_JOB_CPUS_PER_NODE", "1"))
    if len(cores) == 1:
        cores *= len(names)
    if len(cores) != len(names):
        raise ValueError(
            f"SLURM_JOB_CPUS_PER_NODE={environ['SLURM_JOB_CPUS_PER_NODE']} is for {len(cores)} nodes, and "
            f"SLURM_JOB_NODELIST={environ['SLURM_JOB_NODELIST']} names {len(names)}; were they changed?"
        )
    gpus = _gpus(environ)
    nodes = (AllocatedNode(n, c, _memory(environ, c, gpus), gpus) for n, c in zip(names, cores, strict=True))
    job = environ["SLURM_JOB_ID"]
    return Allocation(job, tuple(nodes), end_time(environ), f"Slurm job {job}")


def _memory(environ: Mapping[str, str], cores: int, gpus: int | None) -> int | None:
    """Return the bytes on a node with this number of cores. Slurm writes MiB, and 0 for the whole node."""
    for name, times in (("SLURM_MEM_PER_NODE", 1), ("SLURM_MEM_PER_CPU", cores), ("SLURM_MEM_PER_GPU", gpus or 0)):
        text = environ.get(name, "")
        if text.isdigit() and int(text) * times > 0:
            return int(text) * times * _MIB
    return None


def _gpus(environ: Mapping[str, str]) -> int | None:
    """Return the GPUs of each node if all have the same number: "2", "a100:2", "a100:1,h100:2"."""
    counts = _GPUS.findall(environ.get("SLURM_GPUS_PER_NODE", ""))
    return sum(map(int, counts)) if counts else None


def per_node(text: str) -> list[int]:
    """Return a number for each node from "4(x2),2"."""
    counts: list[int] = []
    for part in text.split(","):
        match = _COUNT.match(part)
        if match is None:
            raise ValueError(f"{text!r} is not how Slurm writes numbers for several nodes")
        counts += [int(match[1])] * int(match[2] or 1)
    return counts


# -- steps -----------------------------------------------------------------------------------------------------


def step_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for `srun` inside an allocation.

    It contains the job ID, and no variable that `srun` would take for an option: in an allocation of `salloc
    --mem-per-cpu` or `--gpus-per-task` a step would otherwise get only a part of the resources, or be refused.
    """
    job = {name: value for name, value in environ.items() if name.startswith(_OF_THE_JOB) and name not in _OPTIONS}
    kept = {name: environ[name] for name in ("SLURM_JOBID", "TMPDIR") if name in environ}
    return {**environment(environ), **job, **kept}


_OF_THE_JOB = ("SLURM_JOB_", "SLURM_ARRAY_", "SLURM_SUBMIT_", "SLURM_CLUSTER_NAME")
_OPTIONS = frozenset({"SLURM_JOB_NAME", "SLURM_JOB_NUM_NODES", "SLURM_JOB_CPUS_PER_NODE", "SLURM_JOB_GPUS"})


def agents(nodes: Sequence[str], command: Sequence[str]) -> list[str]:
    """Return the step with one process on each of these nodes, with all of the job's resources there.

    Steps may overlap (`--overlap`, `--mem=0`). When one process ends, by itself or with its node, the others go on.
    """
    return [*_step(len(nodes)), "--input=all", f"--nodelist={','.join(nodes)}", *command]


def agents_of_job(nodes: int, command: Sequence[str]) -> list[str]:
    """Return the same step for the script of a job with this number of nodes; it reads no input."""
    return [*_step(nodes), "--input=none", *command]


def _step(count: int) -> list[str]:
    return [
        *("srun", "--quiet", "--overlap", "--mem=0", "--no-kill", "--kill-on-bad-exit=0", "--wait=0"),
        *("--cpu-bind=none", "--mpi=none", "--job-name=callyard", "--export=ALL"),
        *(f"--nodes={count}", f"--ntasks={count}", "--ntasks-per-node=1"),
    ]


def ranks(
    nodes: Sequence[str],
    count: int,
    per_node: int,
    mpi: str,
    command: Sequence[str],
    job: str | None = None,
    options: RankOptions = RankOptions(),  # noqa: B008  # it is immutable
) -> list[str]:
    """Return the step with `count` ranks of an MPI program on these nodes, the first nodes full.

    The step ends with the first failed rank, because the other ranks might wait for that rank for ever. `job`: the job
    of the nodes, for a command run outside of the job; `mpi`: the plugin, empty for the cluster's default; `options`:
    the user's own. They come last, and so override our defaults.
    """
    return [
        *("srun", "--quiet", "--overlap", "--mem=0", "--kill-on-bad-exit=1", "--cpu-bind=none"),
        *("--job-name=callyard-ranks", "--export=ALL", "--input=all", "--distribution=block"),
        *([f"--mpi={mpi}"] if mpi else []),
        *([] if job is None else [f"--jobid={job}"]),
        *(f"--nodes={len(nodes)}", f"--ntasks={count}", f"--ntasks-per-node={per_node}"),
        f"--nodelist={','.join(nodes)}",
        *rank_options(options),
        *command,
    ]


def rank_options(options: RankOptions) -> list[str]:
    """Return the user's own options for the `srun` of the ranks."""
    binds = {"cpu-bind": options.cpu_bind, "gpu-bind": options.gpu_bind}
    return [*(f"--{name}={value}" for name, value in binds.items() if value is not None), *options.arguments]


# -- time ------------------------------------------------------------------------------------------------------


def end_time(environ: Mapping[str, str]) -> float | None:
    """Return when the allocation ends (s since 1970), None if no variable tells; most have one since Slurm 22.05."""
    text = environ.get("SLURM_JOB_END_TIME", "")
    return float(text) if text.isdigit() and int(text) else None


def time_left(jobs: Iterable[str]) -> list[str]:
    """Return the command for the remaining time of jobs; read by `times_left`."""
    names = unique(base(job) for job in jobs)
    return [
        *("squeue", "--noheader", "--array", f"--jobs={','.join(names)}"),
        "--Format=JobID:|,ArrayJobID:|,ArrayTaskID:|,TimeLeft:|",
    ]


def times_left(out: str) -> dict[str, float]:
    """Return seconds by job, infinity without a limit; an element of an array has entries under both its names."""
    found: dict[str, float] = {}
    for line in out.splitlines():
        number, job, element, left = (line.split("|") + [""] * 4)[:4]
        seconds = _seconds(left)
        if seconds is not None:
            found[number] = found[job if element in ("N/A", "") else f"{job}_{element}"] = seconds
    return found


def _seconds(text: str) -> float | None:
    """Read "1-02:03:04", "2:03:04" or "3:04"; exceeded limits are "0:00" or negative; None for any other text."""
    if text == "UNLIMITED":
        return inf
    match = _DURATION.fullmatch(text)
    if match is None:
        return 0.0 if text.startswith("-") else None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def is_over(said: str) -> bool:
    """Return True if the messages of `srun` say that the job of the allocation has ended."""
    return _OVER.search(said) is not None


def ended_on(said: str) -> list[str]:
    """Return the nodes on which the process of a step has ended, according to the messages of `srun`."""
    return [name for pattern in (_ENDED, _NODE_FAILED) for found in pattern.findall(said) for name in expand(found)]
