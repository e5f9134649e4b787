"""The submission of a job to PBS: a request as the words of `qsub`."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ...errors import ResourceError, SchedulerError
from ...resources import Resources
from ..base import JobId, JobRequest
from ..requests import COMMON, elements_of, path_without, plain_name, refuse_others, whole_seconds
from ..script import mebibytes

__all__ = ["check", "submit", "submitted"]

_HIGHEST, _LOWEST = 1023, -1024
_MEANT = COMMON | {"nodes", "ranks_per_node", "exclusive", "priority", "constraint", "mail_user"}
_INSTEAD = {
    "partition": "PBS calls it queue=",
    "qos": "PBS has queue= and account=",
    "gres": "name a resource of the nodes with constraint=",
    "reservation": "a reservation of PBS has a queue of its own: queue=",
    "restart_limit": "PBS does not tell a job how often it was started; submit the call again",
    "slurm_cmd_args": "they are arguments of sbatch; a template may have lines that begin with #PBS",
}


def check(resources: Resources) -> None:
    """Raise ResourceError for resources that mean nothing to PBS."""
    refuse_others("PBS", resources, _MEANT, _INSTEAD)
    if resources.constraint is not None and not re.fullmatch(
        r"[\w.-]+=[^:+\s]+(?::[\w.-]+=[^:+\s]+)*", resources.constraint
    ):
        raise ResourceError(f"constraint={resources.constraint!r} must name resources of a node, as 'model=rome'")


def submit(request: JobRequest) -> list[str]:
    """Return the command to submit a job or an array."""
    own = [] if request.templated else [*_resources(request), *_time(request), "-C", ""]  # no directives in the script
    return [
        *("qsub", "-V", "-S", "/bin/bash", "-r", "n"),
        *("-N", f"{plain_name(request)}.{request.token}", "-j", "oe", "-o", _log(request)),
        *("-k", "doe"),  # the log grows where it is to stay
        *own,
        *_array(request),
        *_dependencies(request),
        request.script,
    ]


def submitted(out: str) -> JobId:
    """Return the job that `qsub` has printed: "123.server", or "123[].server" for an array, perhaps after messages."""
    jobs = re.findall(r"^(\d+(?:\[\])?(?:\.[\w.-]+)?)$", out.strip(), re.MULTILINE)
    if not jobs:
        raise SchedulerError(f"qsub printed {out.strip()[:200]!r}, which is not the ID of a job")
    return JobId(jobs[-1])


def _log(request: JobRequest) -> str:
    path = path_without(":", request.log, "PBS")  # host:path
    return path.replace("{element}", "0" if request.elements is None else "^array_index^")


def _array(request: JobRequest) -> Iterator[str]:
    """Yield the range of an array. A range of PBS ends above its beginning: a single number is a step too wide."""
    if numbers := elements_of(request):
        first, last = numbers[0], numbers[-1]
        throttle = f"%{request.at_once}" if request.at_once else ""
        yield from ("-J", (f"{first}-{last}" if last > first else f"{first}-{first + 1}:2") + throttle)


def _dependencies(request: JobRequest) -> Iterator[str]:
    """Yield the jobs to wait for, however these end, because the job sees to its inputs itself.

    PBS waits for no single element, so the whole array is named.
    """
    jobs = dict.fromkeys(each.job.job for each in request.after)
    if jobs:
        yield from ("-W", f"depend=afterany:{':'.join(jobs)}")


def _time(request: JobRequest) -> Iterator[str]:
    if request.time is not None:
        yield from ("-l", f"walltime={whole_seconds(request.time)}")


def _resources(request: JobRequest) -> Iterator[str]:
    asked = request.resources
    nodes = asked.nodes or 1
    chunk = {"ncpus": -(-asked.cores // nodes), "mpiprocs": asked.ranks_per_node or -(-asked.ranks // nodes)}
    words = [f"select={nodes}", *(f"{name}={value}" for name, value in chunk.items())]
    if asked.gpus:
        words.append(f"ngpus={-(-asked.gpus // nodes)}")
    if asked.memory is not None:
        words.append(f"mem={mebibytes(asked.memory / nodes)}mb")
    yield from ("-l", ":".join([*words, *([asked.constraint] if asked.constraint else [])]))
    place = request.options.get("place") or ("scatter" if nodes > 1 else "pack")
    yield from ("-l", f"place={place}{':excl' if asked.exclusive else ''}")
    if asked.priority:
        yield from ("-p", str(min(max(asked.priority, _LOWEST), _HIGHEST)))
    named = {"-q": asked.queue, "-A": asked.account, "-M": asked.mail_user}
    for option, value in named.items():
        if value is not None:
            yield from (option, value)
