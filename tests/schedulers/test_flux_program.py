"""The program that Flux's own Python runs, with a pretended Flux; tests/backends/batch/test_flux.py has a real one."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from callyard.hosts.this_machine import LocalHost
from callyard.resources import Resources
from callyard.schedulers.base import Dependency, JobId, JobRequest
from callyard.schedulers.command import Query, Reply
from callyard.schedulers.flux.scheduler import FluxScheduler

FLUX = FluxScheduler()
TOKEN = "0123456789abcdef"
HERE = Path(__file__).parent / "pretended_flux"


class Pretended:
    """A pretended instance."""

    def __init__(self, place: Path) -> None:
        self.place, self.script = place / "flux.json", dict[str, Any](jobs=[], refused={}, gone=[], jobspecs={})

    def run(self, query: Query[Any], **environment: str) -> Reply:
        self.place.write_text(json.dumps(self.script))
        names = {"PRETENDED_FLUX": str(self.place), "PRETENDED_PYTHON": sys.executable, "PYTHONPATH": str(HERE)}
        env = {"PATH": f"{HERE}/bin:{os.environ['PATH']}", "FLUX_URI": "local://here", **names, **environment}
        return LocalHost().run(query.argv, timeout=60, env={k: v for k, v in env.items() if v}, stdin=query.stdin)

    def asked(self, what: str) -> list[list[Any]]:
        """Return what it was asked for."""
        lines = Path(f"{self.place}.asked").read_text().splitlines()
        return [asked for asked in map(json.loads, lines) if asked[0] == what]


@pytest.fixture
def pretended(tmp_path: Path) -> Pretended:
    return Pretended(tmp_path)


def submission(elements: int | None = None, resources: Resources | None = None, **changes: Any) -> Query[Any]:
    request = JobRequest("call", TOKEN, "/run/script", "/run/{element}.log", resources or Resources(), elements)
    return FLUX.submit(JobRequest(**{**vars(request), **changes}))


def test_each_id_is_that_of_its_element(pretended: Pretended) -> None:
    query = submission(3, Resources(priority=-3))
    assert query.read(pretended.run(query).out) == [JobId("f99"), JobId("f98"), JobId("f97")]
    jobs = pretended.asked("submit")
    assert [job["attributes"]["system"]["job"]["name"] for _, job, _ in jobs] == [
        f"call.{TOKEN}.{place}-{place}" for place in range(3)
    ]
    assert [urgency for *_, urgency in jobs] == [13] * 3
    last = jobs[2][1]["attributes"]
    assert last["user"] == {"callyard": f"{TOKEN}.2-2"}
    assert last["system"]["environment"] == {"PATH": "/bin", "CALLYARD_FLUX_ELEMENT": "2"}
    assert last["system"]["shell"]["options"]["output"]["stdout"]["path"] == "/run/2.log"
    assert jobs[0][1]["argv"][:2] == ["submit", "--dry-run"]
    assert jobs[0][1]["argv"][-3:] == ["--", "bash", "/run/script"]


def test_one_refusal_does_not_stop_the_others(pretended: Pretended) -> None:
    pretended.script["refused"] = {f"call.{TOKEN}.1-1": "Invalid queue 'x' specified"}
    reply = pretended.run(submission(3))
    assert (reply.code, len(pretended.asked("submit"))) == (1, 3)
    refusal = FLUX.site().refusal(reply)
    assert refusal.kind == "silent"  # which jobs were taken is looked up
    assert "2 jobs were taken" in refusal.words
    assert "Invalid queue 'x' specified" in refusal.words


def test_a_refusal_of_all(pretended: Pretended) -> None:
    pretended.script["refused"] = {f"call.{TOKEN}": "Invalid queue 'x' specified"}
    refusal = FLUX.site().refusal(pretended.run(submission()))
    assert (refusal.kind, refusal.words) == ("mistake", "Invalid queue 'x' specified")


def test_options_that_flux_does_not_take(pretended: Pretended) -> None:
    refusal = FLUX.site().refusal(pretended.run(submission(resources=Resources(queue="nosuch"))))
    assert (refusal.kind, refusal.words) == ("mistake", "'nosuch' is not a valid option")


def test_jobs_that_are_forgotten_are_not_waited_for(pretended: Pretended) -> None:
    pretended.script["gone"] = ["f1", "f3"]
    after = tuple(Dependency("any", JobId(f"f{number}")) for number in (1, 2, 3))
    query = submission(after=after)
    assert query.read(pretended.run(query).out) == JobId("f99")
    dependencies = pretended.asked("submit")[-1][1]["attributes"]["system"]["dependencies"]
    assert dependencies == [{"scheme": "afterany", "value": "f2"}]


def test_a_job_of_a_lane(pretended: Pretended) -> None:
    pretended.run(submission(1, lanes=("lane.ab-0",)))
    system = pretended.asked("submit")[0][1]["attributes"]["system"]
    assert system["job"] == {"name": "call.lane.ab-0"}
    assert system["dependencies"] == [{"scheme": "singleton", "value": ""}]


def test_options_in_a_template(pretended: Pretended, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(
        "#!/bin/bash\n# flux: -N2 --queue='a b'  # a comment\n#FLUX: --urgency=hold\n# fluxes: -x\necho\n"
    )
    pretended.run(submission(script=str(script), templated=True))
    (_, job, urgency), *_ = pretended.asked("submit")
    assert {"-N2", "--queue=a b", "--urgency=hold"} <= set(job["argv"])
    assert "-x" not in job["argv"]
    assert urgency == 0


def test_states_of_the_jobs_that_are_asked_about(pretended: Pretended) -> None:
    pretended.script["jobs"] = [{"id": 7, "state": 16}, {"id": 8, "state": 8}, {"id": 9, "state": 64, "result": 1}]
    query = FLUX.status([JobId("f7"), JobId("f9"), JobId("123", 4), JobId("f77")])  # one is of another scheduler
    assert {str(job): status.phase for job, status in query.read(pretended.run(query).out).items()} == {
        "f7": "running", "f9": "ended",
    }  # fmt: skip
    assert pretended.asked("job-list.list")[0][1]["constraint"] == {"userid": [os.getuid()]}


def test_jobs_are_found_by_their_names_and_those_of_lanes_by_their_descriptions(pretended: Pretended) -> None:
    pretended.script["jobs"] = [
        {"id": 7, "name": f"call.{TOKEN}.0-0"}, {"id": 8, "name": "call.lane.ab-0"},
        {"id": 9, "name": "call.lane.ab-1"}, {"id": 10, "name": f"call.{TOKEN}ff"},
        {"id": 11, "name": TOKEN}, {"id": 12, "name": ""},
    ]  # fmt: skip
    pretended.script["jobspecs"] = {
        "8": {"attributes": {"user": {"callyard": f"{TOKEN}.1-1"}}}, "9": {"attributes": {"system": {}}},
    }  # fmt: skip
    query = FLUX.find(TOKEN)
    assert query.read(pretended.run(query).out) == {
        f"{TOKEN}.0-0": JobId("f7"), f"{TOKEN}.1-1": JobId("f8"), TOKEN: JobId("f11"),
    }  # fmt: skip


def test_cancelling_jobs_of_which_some_have_ended(pretended: Pretended) -> None:
    pretended.script["refused"] = {"f7": "job is inactive"}
    (query,) = FLUX.cancel([JobId("f7"), JobId("f8")])
    assert pretended.run(query).code == 0
    assert pretended.asked("cancel") == [["cancel", 7], ["cancel", 8]]
    pretended.script["refused"] = {"f7": "not yours"}
    reply = pretended.run(query)
    assert (reply.code, reply.err) == (1, "not yours\n")


def test_an_instance_that_is_there_and_one_that_is_not(pretended: Pretended) -> None:
    limit = FLUX.site().array_limit
    assert limit.read(pretended.run(limit).out) == 1000
    assert FLUX.site().refusal(pretended.run(limit, FLUX_URI="")).absent.startswith("no instance of Flux runs here")
