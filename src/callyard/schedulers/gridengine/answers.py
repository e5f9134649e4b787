"""The readers of Grid Engine's answers: the XML of `qstat`, the records of `qacct`, the configuration."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from xml.etree import ElementTree as ET

from ..base import JobId, Status
from .states import history_of, state_of

__all__ = ["found", "histories", "most_elements", "statuses"]

_MOST = 75_000  # Grid Engine's default
_RANGE = re.compile(r"(\d+)(?:-(\d+)(?::(\d+))?)?")


def statuses(out: str) -> dict[JobId, Status]:
    """Read the jobs that wait or run: an entry for each element of an array."""
    found: dict[JobId, Status] = {}
    for job in _jobs(out):
        number, node = job.get("JB_job_number", ""), job.get("queue_name", "").partition("@")[2]
        status = state_of(job.get("state", ""), node)
        tasks = job.get("tasks", "")
        found.update({JobId(number, task): status for task in _numbers(tasks)} if tasks else {JobId(number): status})
    return found


def found(out: str, token: str) -> dict[str, JobId]:
    """Return the jobs whose names end with the token, or with the token and the places of a part."""
    pattern = re.compile(rf"\.({re.escape(token)}(?:\.\d+-\d+)?)$")
    names = ((pattern.search(job.get("JB_name", "")), job.get("JB_job_number", "")) for job in _jobs(out))
    return {name[1]: JobId(number) for name, number in names if name and number}


def _jobs(out: str) -> Iterator[Mapping[str, str]]:
    if not out.strip():
        return
    for job in ET.fromstring(out).iter("job_list"):
        yield {field.tag: (field.text or "").strip() for field in job}


def _numbers(text: str) -> Iterator[int]:
    """Yield the numbers in "1,5-9:2"."""
    for part in text.split(","):
        if each := _RANGE.fullmatch(part.strip()):
            first, last, step = each.groups()
            yield from range(int(first), int(last or first) + 1, int(step or 1))


def histories(out: str) -> dict[JobId, Status]:
    """Read the records of ended jobs; of a job that was started several times the last one counts."""
    found: dict[JobId, Status] = {}
    for record in re.split(r"^=+$", out, flags=re.MULTILINE):
        fields = dict(re.findall(r"^(\w+) +(.*?) *$", record, re.MULTILINE))
        if "jobnumber" in fields:
            task = fields.get("taskid", "")
            found[JobId(fields["jobnumber"], int(task) if task.isdecimal() else None)] = history_of(fields)
    return found


def most_elements(out: str) -> int:
    """Return the most elements of an array, from the configuration of the cluster; its 0 stands for no limit."""
    limit = re.search(r"^max_aj_tasks\s+(\d+)", out, re.MULTILINE)
    return int(limit[1]) or _MOST if limit else _MOST
