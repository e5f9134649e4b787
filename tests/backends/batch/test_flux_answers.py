"""The scheduler client and a real instance of Flux: what is asked, what comes back, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from instance import Instance
from this_machine import until

from callyard.backends.batch.scheduler_client import SchedulerClient, SubmissionRefused
from callyard.hosts.this_machine import LocalHost
from callyard.resources import Resources
from callyard.schedulers.base import Dependency, JobId, JobRequest
from callyard.schedulers.flux.scheduler import FluxScheduler

pytestmark = [pytest.mark.once, pytest.mark.needs("flux")]

Submit = Callable[..., list[str]]
TOKEN = "0123456789abcdef"


@pytest.fixture
def client() -> SchedulerClient:
    return SchedulerClient(FluxScheduler(), LocalHost(), 1.0)


@pytest.fixture
def submit(flux: Instance, client: SchedulerClient, tmp_path: Path) -> Submit:
    """Submit jobs that run a line of shell; return their IDs."""

    def submitted(text: str = "true", elements: int | None = None, **changes: Any) -> list[str]:
        script = tmp_path / "script"
        script.write_text(f"#!/bin/bash\n{text}\n")
        fields: dict[str, Any] = {"name": "call", "token": os.urandom(8).hex(), "resources": Resources()}
        request = JobRequest(
            **{**fields, "script": str(script), "log": f"{tmp_path}/{{element}}.log", "elements": elements, **changes}
        )
        return client.submit(request).rstrip(",").split(",")

    return submitted


def ended(flux: Instance, *jobs: str) -> None:
    until(lambda: not flux.jobs().keys() & {*jobs})


def put_before(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
    """Put a program `flux` in front of the real one, which is "$FLUX"."""
    place = tmp_path / "bin"
    place.mkdir()
    (place / "flux").write_text(f"#!/bin/bash\nFLUX={shutil.which('flux')}\n{text}\n")
    (place / "flux").chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}{os.pathsep}{os.environ['PATH']}")


# ------------------------------------------------------------------ jobs before


def test_jobs_that_have_failed_or_never_begun_are_waited_for_no_longer(flux: Instance, submit: Submit) -> None:
    """`afterok` would be refused for the first two; the job looks for its inputs itself."""
    (failed,) = submit("exit 3")
    ended(flux, failed)
    (never,) = submit(resources=Resources(begin="now+1week"))
    flux.run("cancel", never)
    (purged,) = submit()
    ended(flux, purged)
    flux.run("job", "purge", "-f", purged)
    after = tuple(Dependency("any", JobId(job)) for job in (failed, never, purged))
    (last,) = submit(after=after)
    ended(flux, last)
    assert flux.jobs("-a")[last] == "COMPLETED"


def test_one_refusal_among_many_is_looked_up(flux: Instance, client: SchedulerClient, submit: Submit) -> None:
    after: list[tuple[JobId, ...]] = [()] * 300
    after[150] = (JobId("nonsense"),)
    with pytest.raises(SubmissionRefused, match=r'299 jobs were taken.*"nonsense" is not a valid jobid') as refused:
        submit(elements=300, token=TOKEN, after_each=tuple(after))
    assert refused.value.kind == "silent"
    found = client.look_up(TOKEN)
    assert sorted(found) == sorted(f"{TOKEN}.{place}-{place}" for place in range(300) if place != 150)
    client.cancel(list(found.values()))


def test_each_id_is_that_of_its_element(flux: Instance, client: SchedulerClient, submit: Submit) -> None:
    flux.run("queue", "stop")
    try:
        jobs = submit(elements=300, token=TOKEN[::-1])
        found = client.look_up(TOKEN[::-1])
        assert [found[f"{TOKEN[::-1]}.{place}-{place}"] for place in range(300)] == jobs
        client.cancel(jobs)
    finally:
        flux.run("queue", "start")


def test_a_client_that_is_killed_halfway(
    client: SchedulerClient, submit: Submit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The jobs that are in are found, and the others are known to be missing."""
    half = (
        "import json,sys; asked = json.load(sys.stdin); asked['jobs'] = asked['jobs'][:7]; json.dump(asked, sys.stdout)"
    )
    killed = f'python3 -c "{half}" | $FLUX "$@" >/dev/null; kill -9 $$'
    put_before(monkeypatch, tmp_path, f'if [ "${{@: -1}}" = submit ]; then {killed}; fi; exec $FLUX "$@"')
    with pytest.raises(SubmissionRefused, match="killed before it had answered") as refused:
        submit(elements=20, token="ab" * 8)
    assert refused.value.kind == "silent"
    found = client.look_up("ab" * 8)
    assert sorted(found) == sorted(f"{'ab' * 8}.{place}-{place}" for place in range(7))
    client.cancel(list(found.values()))


@pytest.mark.wide
def test_thousands_of_jobs_are_cancelled_by_one_command(
    flux: Instance, client: SchedulerClient, submit: Submit
) -> None:
    """`flux cancel` dies of 2,000 IDs."""
    flux.run("queue", "stop")
    try:
        jobs = [job for _ in range(3) for job in submit(elements=700)]
        client.cancel([*jobs, "f99999"])
        assert not flux.jobs()
        statuses = client.statuses(jobs)
        assert statuses is not None
        assert {status.error for status in statuses.values()} == {"JobCancelled"}
    finally:
        flux.run("queue", "start")


# ------------------------------------------------------------------ instances that are not there


def test_an_instance_that_is_gone(client: SchedulerClient, submit: Submit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUX_URI", "local:///nowhere/local-0")
    with pytest.raises(SubmissionRefused, match="Unable to connect to Flux") as refused:
        submit()
    assert refused.value.kind == "silent"  # it may come back
    assert client.statuses(["f1"]) is None
    with pytest.raises(SubmissionRefused):
        client.look_up(TOKEN)
    client.cancel(["f1"])  # said in the log


QUEUES = """
[queues.batch]
[queues.debug.policy.limits]
duration = "10m"
job-size.max.nnodes = 1
"""


def test_an_instance_with_queues_and_limits(
    own_instance: Callable[..., Instance], client: SchedulerClient, tmp_path: Path
) -> None:
    own = own_instance(2, QUEUES)
    script = tmp_path / "script"
    script.write_text("#!/bin/bash\n")

    def refused(time: float | None = None, **resources: Any) -> SubmissionRefused:
        log, token = str(tmp_path / "log"), os.urandom(8).hex()
        with pytest.raises(SubmissionRefused) as caught:
            client.submit(JobRequest("call", token, str(script), log, Resources(**resources), time=time))
        return caught.value

    for words, found in [
        ("no queue", refused()),
        ("Invalid queue 'nosuch' specified", refused(queue="nosuch")),
        ("exceeds policy limit of 10m for queue debug", refused(queue="debug", time=3600)),
        ("exceeds policy limit of 1 for queue debug", refused(queue="debug", nodes=2, time=60)),
    ]:
        assert words in found.words
        assert found.kind == "mistake", found.words
    own.run("queue", "disable", "-m", "maintenance until 8", "batch")
    later = refused(queue="batch")
    assert (later.kind, later.words) == ("limit", "job submission to batch is disabled: maintenance until 8")


# ------------------------------------------------------------------ keys


def jobspec(flux: Instance, job: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(flux.run("job", "info", job, "jobspec"))
    return found


def test_nodes_by_their_names(flux: Instance, submit: Submit, tmp_path: Path) -> None:
    asked = {"exclude": "n1,n[2-3]"}
    (chosen,), (not_excluded,) = (
        submit("echo $CALLYARD_FLUX_NODE", resources=Resources(**each)) for each in ({"nodelist": "n3"}, asked)
    )
    ended(flux, chosen, not_excluded)
    assert flux.run("jobs", "-a", "-n", "-o", "{nodelist}", chosen).strip() == "n3"
    assert flux.run("jobs", "-a", "-n", "-o", "{nodelist}", not_excluded).strip() == "n4"
    (both,) = submit(resources=Resources(constraint="host:n1|host:n4", exclude="n1"))
    ended(flux, both)
    assert flux.run("jobs", "-a", "-n", "-o", "{nodelist}", both).strip() == "n4"


def test_a_node_that_is_not_there(submit: Submit) -> None:
    with pytest.raises(SubmissionRefused, match="'n9' not found") as refused:
        submit(resources=Resources(nodelist="n9"))
    assert refused.value.kind == "mistake"


def test_a_job_that_begins_later(flux: Instance, client: SchedulerClient, submit: Submit) -> None:
    (later,), (at,), (over,) = (
        submit(resources=Resources(begin=begin)) for begin in ("now+3days", "2030-01-31T12:00", "2020-01-31")
    )
    assert flux.jobs().get(later) == flux.jobs().get(at) == "DEPEND"
    schemes = jobspec(flux, at)["attributes"]["system"]["dependencies"]
    assert [each["scheme"] for each in schemes] == ["begin-time"]
    (after,) = submit(after=(Dependency("any", JobId(over)),), resources=Resources(begin="now+0"))
    ended(flux, over, after)
    statuses = client.statuses([later])
    assert statuses is not None
    assert "its `begin`" in statuses[later].sentence
    client.cancel([later, at])


def test_a_whole_node(flux: Instance, submit: Submit) -> None:
    (job,) = submit(resources=Resources(exclusive=True))
    ended(flux, job)
    assert flux.run("jobs", "-a", "-n", "-o", "{ncores}", job).strip() == "4"
