"""The readers of LSF's answers: the JSON of `bjobs`, and the parameters of `bparams`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping

from ..base import JobId, Status
from .states import translated

__all__ = ["found", "most_elements", "statuses"]

_MOST = 1000  # LSF's default


def statuses(out: str) -> dict[JobId, Status]:
    """Read the states of jobs, of each element of an array."""
    return {_job(record): translated(record) for record in _records(out)}


def found(out: str, token: str) -> dict[str, JobId]:
    """Return the jobs whose names end with the token, or with the token and the places of a part."""
    pattern = re.compile(rf"\.({re.escape(token)}(?:\.\d+-\d+)?)(?:\[[^\]]*\](?:%\d+)?)?$")
    names = ((pattern.search(record.get("JOB_NAME", "")), _job(record).job) for record in _records(out))
    return {name[1]: JobId(job) for name, job in names if name}


def _records(out: str) -> Iterator[Mapping[str, str]]:
    start = out.find("{")  # after a message of the site
    if start >= 0:
        for record in json.JSONDecoder(strict=False).raw_decode(out[start:])[0].get("RECORDS", ()):
            if "ERROR" not in record:
                yield {name: str(value) for name, value in record.items()}


def _job(record: Mapping[str, str]) -> JobId:
    """Return the job of a record: "123" with its index, or "123[4]"; the index 0 is that of no array."""
    number, _, element = record.get("JOBID", "").partition("[")
    index = element.rstrip("]") or record.get("JOBINDEX", "")
    return JobId(number, int(index)) if index.isdecimal() and int(index) else JobId(number)


def most_elements(out: str) -> int:
    """Return the most elements of an array."""
    limit = re.search(r"MAX_JOB_ARRAY_SIZE\s*=\s*(\d+)", out)
    return int(limit[1]) if limit else _MOST
