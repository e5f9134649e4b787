"""The submission of a job to Grid Engine: a request as the words of `qsub`."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ...errors import ResourceError, SchedulerError
from ...resources import Resources
from ..base import JobId, JobRequest
from ..requests import COMMON, elements_of, path_without, plain_name, refuse_others, whole_seconds
from ..script import mebibytes

__all__ = ["check", "submit", "submitted"]

_HIGHEST, _LOWEST = 1024, -1023
_MEANT = COMMON | {"nodes", "priority", "constraint", "reservation", "mail_user"}
_INSTEAD = {
    "partition": "Grid Engine calls it queue=",
    "qos": "Grid Engine has queue= and account= (a project)",
    "exclusive": "clusters name such a resource each in their own way; ask for it with constraint='exclusive=true'",
    "gres": "ask for a resource of the cluster with constraint=",
    "licenses": "ask for a resource of the cluster with constraint=",
    "restart_limit": "Grid Engine does not count how often it has started a job; submit the call again",
    "slurm_cmd_args": "they are arguments of sbatch; a template may have lines that begin with #$",
}


def check(resources: Resources) -> None:
    """Raise ResourceError for resources that mean nothing to Grid Engine."""
    refuse_others("Grid Engine", resources, _MEANT, _INSTEAD)
    if (resources.nodes or 1) > 1:
        raise ResourceError(f"nodes={resources.nodes}: Callyard's jobs of Grid Engine are on one node; use nodes=1")


def submit(request: JobRequest) -> list[str]:
    """Return the command to submit a job or an array."""
    own = [] if request.templated else [*_resources(request), *_time(request), "-C", ""]  # no directives in the script
    return [
        *("qsub", "-terse", "-cwd", "-V", "-S", "/bin/bash", "-w", "e", "-r", "n"),
        *("-N", f"{plain_name(request)}.{request.token}", "-j", "y", "-o", _log(request)),
        "-notify",  # SIGUSR2 before SIGKILL, so that the call can end itself
        *own,
        *_array(request),
        *_dependencies(request),
        request.script,
    ]


def submitted(out: str) -> JobId:
    """Return the job that `qsub -terse` has printed: "123", or "123.1-10:1" for an array, perhaps after messages."""
    numbers = re.findall(r"^(\d+)(?:\.\d+-\d+:\d+)?$", out.strip(), re.MULTILINE)
    if not numbers:
        raise SchedulerError(f"qsub printed {out.strip()[:200]!r}, which is not the number of a job")
    return JobId(numbers[-1])


def _log(request: JobRequest) -> str:
    path = path_without(":,", request.log, "Grid Engine")  # host:path,host:path
    return path.replace("{element}", "0" if request.elements is None else "$TASK_ID")


def _array(request: JobRequest) -> Iterator[str]:
    if numbers := elements_of(request):
        yield from ("-t", f"{numbers[0]}-{numbers[-1]}")
        if request.at_once:
            yield from ("-tc", str(request.at_once))


def _dependencies(request: JobRequest) -> Iterator[str]:
    """Yield the jobs to wait for, however these end: Grid Engine knows no other way, and the job sees to its inputs.

    It does not wait for one element of an array either, and element by element only for an array with the same
    numbers; otherwise the whole array is named.
    """
    own = tuple(elements_of(request))
    options: dict[str, dict[str, None]] = {}
    for each in request.after:
        beside = each.kind == "corresponding" and each.elements == own
        options.setdefault("-hold_jid_ad" if beside else "-hold_jid", {})[each.job.job] = None
    for option, jobs in options.items():
        yield from (option, ",".join(jobs))


def _time(request: JobRequest) -> Iterator[str]:
    if request.time is not None:
        yield from ("-l", f"h_rt={whole_seconds(request.time)}")


def _resources(request: JobRequest) -> Iterator[str]:
    asked, options = request.resources, request.options
    if asked.cores > 1:
        environment = options.get("parallel_environment")
        if environment is None:
            raise ResourceError(
                f"{asked.cores} cores need a parallel environment, as GridEngine(parallel_environment='smp'); "
                "`qconf -spl` lists those of the cluster"
            )
        yield from ("-pe", environment, str(asked.cores))
    if asked.memory is not None and "memory_resource" in options:
        yield from ("-l", f"{options['memory_resource']}={mebibytes(asked.memory / asked.cores)}M")
    if asked.gpus:
        if "gpu_resource" not in options:
            raise ResourceError("GPUs need the name of the cluster's resource, as GridEngine(gpu_resource='gpu')")
        yield from ("-l", f"{options['gpu_resource']}={asked.gpus}")
    if asked.priority:
        yield from ("-p", str(min(max(asked.priority, _LOWEST), _HIGHEST)))
    named = {
        "-q": asked.queue,
        "-P": asked.account,
        "-l": asked.constraint,
        "-ar": asked.reservation,
        "-M": asked.mail_user,
    }
    for option, value in named.items():
        if value is not None:
            yield from (option, value)
