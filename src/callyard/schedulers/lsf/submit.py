"""The submission of a job to LSF: a request as the words of `bsub`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ...errors import ResourceError, SchedulerError
from ...resources import Resources
from ..base import JobId, JobRequest
from ..requests import COMMON, elements_of, plain_name, refuse_others
from ..script import minutes

__all__ = ["check", "submit", "submitted"]

# A script on standard input is copied at once, and its lines "#BSUB" are read.
_BSUB = ("sh", "-c", 'script=$1; shift; exec bsub "$@" < "$script"', "bsub")
_MEANT = COMMON | {"nodes", "ranks_per_node", "exclusive", "constraint", "nodelist", "reservation", "mail_user"}
_INSTEAD = {
    "partition": "LSF calls it queue=",
    "qos": "LSF has queue= and account= (a project)",
    "gres": "name resources with constraint=, the text of select[]",
    "priority": "clusters of LSF allow such wishes or not; a template may have a line #BSUB -sp",
    "restart_limit": "LSF does not tell a job how often it was started; submit the call again",
    "slurm_cmd_args": "they are arguments of sbatch; a template may have lines that begin with #BSUB",
}
_UNITS = {"KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30, "TB": 1 << 40}
_GIB = 1 << 30


def check(resources: Resources) -> None:
    """Raise ResourceError for resources that mean nothing to LSF."""
    refuse_others("LSF", resources, _MEANT, _INSTEAD)
    if resources.constraint is not None and re.search(r"[\[\]]", resources.constraint):
        raise ResourceError(f"constraint={resources.constraint!r} must be what stands in select[], without brackets")
    if resources.job_name is not None and re.search(r"[\[\]]", resources.job_name):
        raise ResourceError(
            f"job_name={resources.job_name!r}: in brackets LSF reads the numbers of an array; leave them out"
        )


def submit(request: JobRequest) -> list[str]:
    """Return the command to submit a job or an array."""
    own = [] if request.templated else [*_resources(request), *_time(request)]
    return [
        *(*_BSUB, request.script),
        *("-J", _name(request), "-o", _log(request), "-env", "all", "-rn", "-L", "/bin/bash"),
        *own,
        *_dependencies(request),
    ]


def submitted(out: str) -> JobId:
    """Return the job of "Job <123> is submitted to queue <normal>.", perhaps among messages."""
    numbers = re.findall(r"\bJob <(\d+)> is submitted", out)
    if not numbers:
        raise SchedulerError(f"bsub printed {out.strip()[:200]!r}, which does not name a job")
    return JobId(numbers[-1])


def _name(request: JobRequest) -> str:
    """Return the name of the job, with the numbers of its elements."""
    name = f"{plain_name(request)}.{request.token}"
    numbers = elements_of(request)
    if not numbers:
        return name
    throttle = f"%{request.at_once}" if request.at_once else ""
    return f"{name}[{','.join(_ranges(numbers))}]{throttle}"


def _ranges(numbers: Sequence[int]) -> Iterator[str]:
    ordered = sorted(numbers)
    starts = [n for i, n in enumerate(ordered) if i == 0 or ordered[i - 1] != n - 1]
    ends = [n for i, n in enumerate(ordered) if i + 1 == len(ordered) or ordered[i + 1] != n + 1]
    return (str(a) if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True))


def _log(request: JobRequest) -> str:
    return request.log.replace("%", "%%").replace("{element}", "0" if request.elements is None else "%I")


def _dependencies(request: JobRequest) -> Iterator[str]:
    """Yield the jobs and elements to wait for, however these end, because the job sees to its inputs itself.

    Element by element LSF waits only for an array with the same numbers; otherwise the whole array is named.
    """
    own = tuple(elements_of(request))
    terms = dict.fromkeys(_term(each.job, beside=bool(own) and each.elements == own) for each in request.after)
    if terms:
        yield from ("-w", " && ".join(terms))


def _term(job: JobId, *, beside: bool) -> str:
    if beside:
        return f"ended({job.job}[*])"
    return f"ended({job.job})" if job.element is None else f"ended({job.job}[{job.element}])"


def _time(request: JobRequest) -> Iterator[str]:
    if request.time is not None:
        yield from ("-W", str(minutes(request.time)))


def _resources(request: JobRequest) -> Iterator[str]:
    asked = request.resources
    nodes = asked.nodes or 1
    per_node = -(-asked.cores // nodes)
    yield from ("-n", str(per_node * nodes))
    requirements = [f"span[ptile={per_node}]" if nodes > 1 else "span[hosts=1]"]
    if asked.constraint:
        requirements.append(f"select[{asked.constraint}]")
    if asked.memory is not None:
        unit = _UNITS[request.options.get("memory_unit", "KB")]
        amount = max(1, -(-int(asked.memory / nodes * _GIB) // unit))
        requirements.append(f"rusage[mem={amount}]")
        yield from ("-M", str(amount))
    yield from ("-R", " ".join(requirements))
    if asked.gpus:
        yield from ("-gpu", f"num={-(-asked.gpus // nodes)}")
    if asked.exclusive:
        yield "-x"
    named = {
        "-q": asked.queue,
        "-P": asked.account,
        "-m": asked.nodelist,
        "-U": asked.reservation,
        "-u": asked.mail_user,
    }
    for option, value in named.items():
        if value is not None:
            yield from (option, str(value))
