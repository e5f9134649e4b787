"""The submission of jobs to Flux: a request as the words of `flux submit`, and what differs from job to job."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ...errors import ResourceError, SchedulerError
from ...resources import Resources
from ..base import JobId, JobRequest
from ..hostlists import expand
from .variables import ELEMENT, OF_THE_JOB, OF_THE_NODE

__all__ = ["LANE", "asked_for", "check", "submitted"]

LANE = ".lane."  # in the names of jobs of which one runs at a time; the word before it is for people
_DEFAULT_URGENCY, _LOWEST, _HIGHEST = 16, 1, 30  # 0 would hold the job, 31 put it before all others
_NAME_LENGTH = 64
_UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 604800}  # s
_MEANT = frozenset(
    [
        *("ranks", "cores_per_rank", "gpus_per_rank", "memory", "run_time", "nodes", "ranks_per_node", "exclusive"),
        *("priority", "cwd", "env", "error_log_file", "grace", "warn_before", "warn_signal", "queue", "account"),
        *("constraint", "nodelist", "exclude", "begin", "cpu_bind", "gpu_bind", "job_name", "restart_limit"),
        *("cache_key", "cache_directory"),
    ]
)
_NO_MAIL = "Flux sends no mail; let teardown=, or a call that takes the result, send one"
_INSTEAD = {
    "partition": "Flux calls it queue=",
    "qos": "Flux has queue= and account= (a bank)",
    "gres": "Flux has gpus_per_rank=, and constraint= for the properties of nodes",
    "reservation": "Flux has none; ask for the queue or the nodes of yours, by queue=, constraint= or nodelist=",
    "licenses": "Flux does not count them; Executor(max_workers=) limits how many calls run at once",
    "wckey": "Flux has account= (a bank)",
    "mail_type": _NO_MAIL,
    "mail_user": _NO_MAIL,
    "slurm_cmd_args": "they are arguments of sbatch; a template= may have options of flux submit",
    "srun_args": "they are arguments of srun; Flux has cpu_bind= and gpu_bind=",
}


def check(resources: Resources) -> None:
    """Raise ResourceError for resources that mean nothing to Flux; those of a template are the user's own."""
    for name in resources.asked():
        if name not in _MEANT and name not in resources.others:
            raise ResourceError(f"{name} means nothing to Flux: {_INSTEAD.get(name, 'it has no such thing')}")
    if resources.begin is not None:
        _begin_time(resources.begin)
    named = _named(resources.nodelist)
    if named > (resources.nodes or 1):
        raise ResourceError(
            f"nodelist={resources.nodelist!r} names {named} nodes, all of which the call would have: ask for "
            f'nodes={named}, or for one of them by constraint="host:{resources.nodelist}"'
        )


def _named(nodelist: object) -> int:
    """Return the number of nodes that are named."""
    try:
        return 0 if nodelist is None else len(expand(str(nodelist)))
    except ValueError as error:
        raise ResourceError(f'nodelist={nodelist!r} is no list of nodes, as "n[1-4],n9"') from error


def asked_for(request: JobRequest) -> dict[str, object]:
    """Return the request as the program takes it: options, command, and for each job what is its own."""
    own = [] if request.templated else [*_resources(request.resources), *_time(request)]
    return {
        "options": [*own, *_always(request)],
        "command": [*_instance(request), "bash", request.script],
        "script": request.script,
        "templated": request.templated,
        "jobs": list(_jobs(request)),
    }


def submitted(out: str, request: JobRequest) -> JobId | list[JobId]:
    """Return the IDs that the program has printed."""
    jobs = [JobId(line) for line in out.split()]
    if len(jobs) != len(request.tokens()) or not all(re.fullmatch(r"f\w+", job.job) for job in jobs):
        raise SchedulerError(f"flux submit printed {out.strip()[:200]!r}, which are not the IDs of these jobs")
    return jobs[0] if request.elements is None else jobs


def _jobs(request: JobRequest) -> Iterator[dict[str, object]]:
    numbers = range(request.elements) if isinstance(request.elements, int) else request.elements or (None,)
    for place, (number, token) in enumerate(zip(numbers, request.tokens(), strict=True)):
        lane = request.lanes[place] if request.lanes else None
        after = request.after_each[place] if request.after_each else ()
        yield {
            # By its name a job is found again, and by the same name Flux knows the jobs of a lane.
            "name": f"{_shown(request)}.{token if lane is None else lane}",
            "token": token,
            "alone": lane is not None,
            "log": request.log.replace("{element}", str(number or 0)),
            "variables": {} if number is None else {ELEMENT: str(number)},
            "after": [str(job) for job in (*(each.job for each in request.after), *after)],
        }


def _shown(request: JobRequest) -> str:
    """Return the user's own name unchanged; a function's name, such as "<lambda>", without special characters."""
    if request.resources.job_name:
        return request.resources.job_name
    return re.sub(r"[^\w.+=@:-]+", "_", request.name).strip("_")[:_NAME_LENGTH] or "callyard"


def _always(request: JobRequest) -> Iterator[str]:
    yield f"--output={request.log}"
    yield "--setopt=output.mode=append"
    for name, value in {**OF_THE_JOB, **(OF_THE_NODE if request.whole_nodes else {})}.items():
        yield f"--env={name}={value}"
    if request.whole_nodes:  # the calls there get their shares from an agent
        yield "--setopt=cpu-affinity=off"


def _instance(request: JobRequest) -> list[str]:
    """Return the words before the command of a job whose ranks Flux starts: an instance, which can start them."""
    return ["flux", "start"] if request.starts_ranks or (request.resources.nodes or 1) > 1 else []


def _time(request: JobRequest) -> Iterator[str]:
    if request.time is not None:
        yield f"--time-limit={request.time:g}s"


def _resources(asked: Resources) -> Iterator[str]:
    """Yield the options for resources: a task on each node, which has all of the call's cores and GPUs there.

    Memory is not Flux's; Callyard keeps that limit itself.
    """
    nodes = asked.nodes or 1
    yield f"--ntasks={nodes}"
    yield f"--cores-per-task={-(-asked.cores // nodes)}"
    if asked.gpus:
        yield f"--gpus-per-task={-(-asked.gpus // nodes)}"
    if nodes > 1 or asked.exclusive:
        yield f"--nodes={nodes}"
    if asked.exclusive:
        yield "--exclusive"
    if asked.priority:
        yield f"--urgency={min(max(_DEFAULT_URGENCY + asked.priority, _LOWEST), _HIGHEST)}"
    if asked.warn_before is not None and asked.run_time is None:  # else the job's process warns: it knows more exactly
        yield f"--signal={asked.warn_signal}@{asked.warn_before:g}s"
    if asked.begin is not None and (begin := _begin_time(asked.begin)):
        yield f"--begin-time={begin}"
    named = {"queue": asked.queue, "bank": asked.account, "requires": _constraint(asked)}
    yield from (f"--{option}={value}" for option, value in named.items() if value is not None)


def _constraint(asked: Resources) -> str | None:
    """Return the constraint on nodes, as `flux submit --requires` reads it."""
    parts = [
        *([asked.constraint] if asked.constraint is not None else ()),
        *([f"host:{asked.nodelist}"] if asked.nodelist is not None else ()),
        *([f"-host:{asked.exclude}"] if asked.exclude is not None else ()),
    ]
    return "&".join(f"({part})" for part in parts) if len(parts) > 1 else next(iter(parts), None)


def _begin_time(begin: object) -> str:
    """Return the earliest start as Flux reads it; empty for now.

    Flux would misread the "T" of a date, and take a time of day that is over for one of today.
    """
    if str(begin).lower() == "now":
        return ""
    later = re.fullmatch(r"(?i)now ?\+ ?(\d+) ?([a-z]*)", str(begin))
    if later is not None:
        asked = later[2].lower().removesuffix("s")
        unit = next((seconds for name, seconds in _UNITS.items() if name.startswith(asked)), None)
        if unit is not None:
            return f"+{int(later[1]) * unit}s"
    date = re.fullmatch(r"(\d{4}-\d\d?-\d\d?)(?:[Tt ]+(\d{1,2}:\d\d(?::\d\d)?))?", str(begin))
    if date is None:
        raise ResourceError(
            f'begin={begin!r} is not as Flux takes it: a datetime, or a text such as "now+2hours", "2030-01-31" or '
            '"2030-01-31T16:00"'
        )
    return f"{date[1]} {date[2] or '00:00'}"
