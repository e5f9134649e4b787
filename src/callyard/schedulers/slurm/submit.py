"""The submission of a job to Slurm: a request as the words of `sbatch`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from ...errors import SchedulerError
from ...resources import Resources
from ..base import Dependency, JobRequest
from ..script import mebibytes, minutes
from .job_ids import ranges, unique
from .user_arguments import words

__all__ = ["submit", "submitted"]

_NICE = 2147483645  # sbatch takes no larger number, nor a smaller one below zero
_NAME_LENGTH = 64
_LONGEST_WARNING = 65535  # s that sbatch takes


def submit(request: JobRequest) -> list[str]:
    """Return the command to submit a job or an array.

    The user's `slurm_cmd_args` come last, and so override our defaults; `check_arguments` refuses others.
    """
    own = [] if request.templated else [*_resources(request), *_time(request.time), f"--job-name={_name(request)}"]
    return [
        "sbatch",
        "--parsable",
        f"--comment=callyard {request.token}",
        *_array(request),
        # Without --error both streams go here. The output of a restarted job must not overwrite that of the first
        # start.
        f"--output={_log(request)}",
        "--open-mode=append",
        *_dependency(request.after),
        # Without it, a job with a failed dependency stays in the queue for ever, unless the cluster is set up
        # otherwise.
        "--kill-on-invalid-dep=yes",
        "--requeue" if request.requeue else "--no-requeue",
        "--export=ALL",
        *own,
        *words(request.resources.slurm_cmd_args),
        "--",
        request.script,
    ]


def _array(request: JobRequest) -> Iterator[str]:
    if request.elements is not None:
        throttle = f"%{request.at_once}" if request.at_once else ""
        numbers = range(request.elements) if isinstance(request.elements, int) else request.elements
        yield f"--array={ranges(numbers)}{throttle}"


def _log(request: JobRequest) -> str:
    """Return the path of the log in the form of sbatch, which replaces "%" and a letter unless the "%" is doubled.

    In a path with a backslash sbatch replaces nothing, and reads two backslashes as one.
    """
    if "\\" not in request.log:
        return request.log.replace("%", "%%").replace("{element}", "%a" if request.elements is not None else "0")
    if request.elements is not None and "{element}" in request.log:
        raise SchedulerError(f"Slurm cannot number the logs of an array below a path with a backslash: {request.log}")
    return request.log.replace("\\", "\\\\").replace("{element}", "0")


def _dependency(after: Iterable[Dependency]) -> Iterator[str]:
    kinds = {"ok": "afterok", "any": "afterany", "corresponding": "aftercorr"}
    jobs: dict[str, list[str]] = {}
    for dependency in unique(after):
        jobs.setdefault(kinds[dependency.kind], []).append(str(dependency.job))
    if jobs:
        yield "--dependency=" + ",".join(":".join([kind, *names]) for kind, names in jobs.items())


def _time(seconds: float | None) -> Iterator[str]:
    if seconds is not None:
        days, rest = divmod(minutes(seconds), 24 * 60)
        yield f"--time={days}-{rest // 60:02}:{rest % 60:02}" if days else f"--time={rest}"


def _name(request: JobRequest) -> str:
    """Return the user's own name unchanged; a function's name, such as "<lambda>", without special characters."""
    if request.resources.job_name:
        return request.resources.job_name
    return re.sub(r"[^\w.+=@:-]+", "_", request.name).strip("_")[:_NAME_LENGTH] or "callyard"


def _resources(request: JobRequest) -> Iterator[str]:
    asked = request.resources
    # Slurm takes no more nodes than tasks; a call of one rank may want several nodes for programs it starts itself.
    yield f"--ntasks={max(asked.ranks, asked.nodes or 1)}"
    yield f"--cpus-per-task={asked.cores_per_rank}"
    if asked.warn_before is not None and asked.run_time is None:  # else the job's process warns: it knows more exactly
        yield f"--signal=B:{asked.warn_signal}@{min(max(round(asked.warn_before), 1), _LONGEST_WARNING)}"
    yield from ["--mem=0"] if request.whole_nodes else _memory(asked)
    yield from _devices(asked, request.node_gpus)
    if asked.nodes is not None:
        yield f"--nodes={asked.nodes}"
        if asked.ranks_per_node is not None and asked.nodes > 1:
            yield f"--ntasks-per-node={asked.ranks_per_node}"
    if asked.exclusive:
        yield "--exclusive"
    if asked.priority:
        # Slurm lets only operators raise a job above others; a positive priority from any other user is refused.
        yield f"--nice={min(max(-asked.priority, -_NICE), _NICE)}"
    named = {
        "partition": asked.partition or asked.queue,  # a queue of other schedulers is a partition here
        "account": asked.account,
        "qos": asked.qos,
        "constraint": asked.constraint,
        "reservation": asked.reservation,
        "exclude": asked.exclude,
        "nodelist": asked.nodelist,
        "licenses": asked.licenses,
        "begin": asked.begin,
        "wckey": asked.wckey,
        "mail-type": asked.mail_type,
        "mail-user": asked.mail_user,
    }
    yield from (f"--{option}={value}" for option, value in named.items() if value is not None)


def _memory(asked: Resources) -> Iterator[str]:
    """Yield the call's memory, spread over its nodes, because `--mem` counts by node.

    If Slurm chooses the number of nodes, only an amount for each core adds up to the call's memory.
    """
    if asked.memory is None:
        return
    if asked.ranks == 1 or asked.nodes is not None:
        yield f"--mem={mebibytes(asked.memory / (asked.nodes or 1))}M"
    else:
        yield f"--mem-per-cpu={mebibytes(asked.memory / asked.cores)}M"


def _devices(asked: Resources, of_node: int) -> Iterator[str]:
    """Yield the options for GPUs and other generic resources.

    For several ranks GPUs are counted by rank: then Slurm places them with the ranks, and `srun` shows each rank only
    its own. `--gres` would count by node.
    """
    gres = [asked.gres] if asked.gres else [f"gpu:{of_node}"] if of_node else []
    if asked.gpus_per_rank and asked.ranks == 1:
        gres.append(f"gpu:{asked.gpus_per_rank}")
    elif asked.gpus_per_rank:
        yield f"--gpus-per-task={asked.gpus_per_rank}"
    if gres:
        yield f"--gres={','.join(gres)}"


def submitted(out: str) -> str:
    """Return the job ID printed by `sbatch --parsable`, perhaps after a message of the site."""
    numbers = re.findall(r"^(\d+)(?:;\S*)?$", out.strip(), re.MULTILINE)  # "123" or "123;cluster"
    if not numbers:
        raise SchedulerError(f"sbatch printed {out.strip()!r}, which is not the number of a job")
    return str(numbers[-1])
