"""The readers of PBS's answers: the JSON of `qstat`, and the attributes of the server."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ..base import JobId, Status
from .states import translated

__all__ = ["found", "most_elements", "named", "statuses"]

_MOST = 10_000  # PBS's default
_ELEMENT = re.compile(r"(\d+)\[(\d+)\](.*)")


def statuses(out: str) -> dict[JobId, Status]:
    """Read the states of jobs and elements. An array as a whole says nothing about its elements."""
    return {_job(name): translated(job) for name, job in _jobs(out)}


def found(out: str, token: str) -> dict[str, JobId]:
    """Return the jobs whose names end with the token, or with the token and the places of a part."""
    pattern = re.compile(rf"\.({re.escape(token)}(?:\.\d+-\d+)?)$")
    names = ((pattern.search(str(job.get("Job_Name", ""))), name) for name, job in _jobs(out))
    return {token_of[1]: JobId(name) for token_of, name in names if token_of}


def _jobs(out: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if out.strip():
        # Values such as variables may have characters that strict JSON forbids.
        yield from json.loads(out, strict=False).get("Jobs", {}).items()


def _job(name: str) -> JobId:
    """Return the job of this name: "123[4].server" is an element of "123[].server"."""
    element = _ELEMENT.fullmatch(name)
    return JobId(f"{element[1]}[]{element[3]}", int(element[2])) if element else JobId(name)


def named(job: str, number: int | None) -> str:
    """Return PBS's name of a job or element."""
    return job if number is None else job.replace("[]", f"[{number}]", 1)


def most_elements(out: str) -> int:
    """Return the most elements of an array."""
    limit = re.search(r"^\s*max_array_size = (\d+)", out, re.MULTILINE)
    return int(limit[1]) if limit else _MOST
