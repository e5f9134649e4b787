"""A scheduler of another package, as its author would write it: `yard`, whose jobs are processes of this machine.

As a program, `yard submit`, `yard state`, `yard find` and `yard cancel` keep their jobs below $YARD.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from callyard.errors import SchedulerError
from callyard.schedulers.base import CANCELLED, JobId, JobRequest, JobVariables, Query, Refusal, Reply, Site, Status

STATES = {
    "runs": Status("running", "runs"),
    "over": Status("ended", "has ended", exit_code=0),
    "failed": Status("ended", "failed", "WorkerLost", reason="BadExit", exit_code=1),
    "cancelled": CANCELLED,
}


class YardScheduler:
    """The scheduler's side of the seam: text alone."""

    name = "Yard"

    def submit(self, request: JobRequest) -> Query[JobId]:
        elements = range(request.elements) if isinstance(request.elements, int) else request.elements or ()
        words = ["submit", request.script, request.log, request.token, *map(str, elements)]
        return Query(["yard", *words], _job_of)

    def status(self, jobs: Sequence[JobId]) -> Query[Mapping[JobId, Status]]:
        return Query(["yard", "state", *(sorted({job.job for job in jobs})[:100])], _states)

    def find(self, token: str) -> Query[Mapping[str, JobId]]:
        return Query(["yard", "find", token], lambda out: {t: JobId(j) for t, j in map(str.split, out.splitlines())})

    def cancel(self, jobs: Sequence[JobId]) -> Sequence[Query[None]]:
        return [Query(["yard", "cancel", str(job)], lambda out: None) for job in jobs]

    def site(self) -> Site:
        return Site(
            program="yard",
            array_limit=Query(["yard", "limit"], int),
            environment=lambda environ: {n: v for n, v in environ.items() if not n.startswith("YARD_")},
            refusal=_refusal,
            job_variables=JobVariables("Yard", "YARD_JOB", "YARD_ARRAY", "YARD_TRACK", node="YARD_SIDING"),
        )


def _job_of(out: str) -> JobId:
    if not out.strip().isdecimal():
        raise SchedulerError(f"yard printed {out!r}, which is not the number of a job")
    return JobId(out.strip())


def _states(out: str) -> Mapping[JobId, Status]:
    return {JobId.parse(job): STATES[state] for job, state in map(str.split, out.splitlines())}


def _refusal(reply: Reply) -> Refusal:
    absent = "there is no yard here" if reply.code == 127 else ""
    return Refusal("silent" if reply.code is None else "mistake", reply.err or "it says nothing", absent=absent)


# ------------------------------------------------------------------ the program


def _submit(yard: Path, script: str, log: str, token: str, *elements: str) -> None:
    job = str(len(list(yard.iterdir())) + 1)
    (yard / job).mkdir()
    (yard / job / "token").write_text(token)
    for element in elements or ("",):
        name = f"{job}_{element}" if element else job
        variables = {"YARD_JOB": name, "YARD_SIDING": "siding-1"}
        variables |= {"YARD_ARRAY": job, "YARD_TRACK": element} if element else {}
        with open(log.replace("{element}", element or "0"), "ab") as output:
            streams = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output}
            process = subprocess.Popen(
                ["bash", script], env={**os.environ, **variables}, start_new_session=True, **streams
            )
        (yard / job / name).write_text(json.dumps(process.pid))
    print(job)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _state(yard: Path, *jobs: str) -> None:
    for job in jobs:
        for element in (yard / job).iterdir() if (yard / job).is_dir() else ():
            if element.name != "token":
                print(element.name, "runs" if _runs(json.loads(element.read_text())) else "over")


def _find(yard: Path, token: str) -> None:
    for job in yard.iterdir():
        if (job / "token").read_text().startswith(token):
            print((job / "token").read_text(), job.name)


def _cancel(yard: Path, text: str) -> None:
    job = JobId.parse(text)
    for element in (yard / job.job).iterdir():
        if element.name in (text, *([] if job.element is not None else [element.name])) and element.name != "token":
            pid = json.loads(element.read_text())
            if _runs(pid):
                os.kill(pid, signal.SIGTERM)


def _limit(yard: Path) -> None:
    print(10)


if __name__ == "__main__":
    {"submit": _submit, "state": _state, "find": _find, "cancel": _cancel, "limit": _limit}[sys.argv[1]](
        Path(os.environ["YARD"]), *sys.argv[2:]
    )
