"""The scheduler of one machine as text: requests to its daemon, and the meaning of answers."""

from __future__ import annotations

import datetime as dt
import json

import pytest

from callyard.errors import ResourceError
from callyard.resources import Resources
from callyard.schedulers.base import JobId, JobRequest, Reply, Share, Status
from callyard.schedulers.local.begin import begin_time
from callyard.schedulers.local.refusals import NOT_NOW, why_refused
from callyard.schedulers.local.scheduler import LocalScheduler
from callyard.schedulers.local.states import ENDS, translated
from callyard.schedulers.local.submit import check
from callyard.schedulers.local.variables import environment

NOON = dt.datetime.fromisoformat("2030-01-31T12:00:00")


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("now", NOON),
        ("now+2hours", NOON + dt.timedelta(hours=2)),
        ("now + 1 day", NOON + dt.timedelta(days=1)),
        ("now+90", NOON + dt.timedelta(seconds=90)),
        ("16:00", NOON.replace(hour=16)),
        ("8:30:15", dt.datetime.fromisoformat("2030-02-01T08:30:15")),
        ("2031-12-24T18:00", dt.datetime.fromisoformat("2031-12-24T18:00:00")),
    ],
)
def test_the_time_to_begin(text: str, time: dt.datetime) -> None:
    assert begin_time(text, NOON) == time


@pytest.mark.parametrize("text", ["teatime", "now+2fortnights", "25:00", "010130", "2030-13-01"])
def test_times_that_only_slurm_reads(text: str) -> None:
    with pytest.raises(ResourceError, match="is not read on a machine without a scheduler"):
        begin_time(text, NOON)


def test_a_request_says_all_that_the_daemon_must_know() -> None:
    resources = Resources(cores_per_rank=2, gpus_per_rank=1, memory=1.5, priority=3, begin="now+1hour", grace=7)
    share = Share("mine", 4, ("0", "1"), 1 << 33)
    request = JobRequest(
        "call", "abc.3-4", "/script", "/{element}.log", resources, elements=(3, 9), time=90.0, requeue=True,
        after_each=((), (JobId("host-1-7"),)), lanes=("l-0", "l-1"), share=share,
    )  # fmt: skip
    query = LocalScheduler().submit(request)
    assert list(query.argv) == ["callyard-daemon", "submit"]
    asked = json.loads(query.stdin)
    jobs = asked.pop("jobs")
    assert asked == {
        "script": "/script", "time": 90.0, "requeue": True, "begin": "now+1hour", "priority": 3, "grace": 7,
        "cores": 2, "gpus": 1, "memory": 3 << 29, "exclusive": False,
        "share": {"name": "mine", "cores": 4, "gpus": ["0", "1"], "memory": 1 << 33},
    }  # fmt: skip
    assert jobs == [
        {"token": "abc.3-3", "element": 3, "log": "/3.log", "lane": "l-0", "after": []},
        {"token": "abc.4-4", "element": 9, "log": "/9.log", "lane": "l-1", "after": ["host-1-7"]},
    ]
    assert query.read("host-0a-1\nhost-0a-2\n") == [JobId("host-0a-1"), JobId("host-0a-2")]


def test_states_and_ends() -> None:
    waits = translated({"state": "waiting", "why": "turn", "node": "host"})
    assert waits == Status("waiting", "waits for its turn among the calls of its executor (max_workers)", node="host")
    assert translated({"state": "running", "node": "host"}) == Status("running", "runs", node="host")
    assert translated({"state": "new in a later version"}).phase == "running"
    failed = translated({"state": "ended", "why": "failed", "code": 3, "node": "host"})
    assert (failed.phase, failed.error, failed.exit_code) == ("ended", "WorkerLost", 3)
    assert failed.sentence == "ended with exit code 3"
    for killed in ({"code": 137}, {"code": None, "signal": 9}):  # the call's process, as its shell tells; the shell
        found = translated({"state": "ended", "why": "failed", **killed})
        assert (found.sentence, found.exit_code, found.signal) == ("was killed by SIGKILL", None, 9)
    assert translated({"state": "ended", "why": "rebooted"}).error == "NodeFailure"
    assert {end.error for end in ENDS.values()} >= {None, "TimeLimitExceeded", "JobCancelled"}
    elsewhere = translated({"state": "elsewhere", "node": "other"})
    assert (elsewhere.phase, elsewhere.sentence) == ("running", "is a job of other, and only there more is known of it")


def test_refusals() -> None:
    assert why_refused(Reply(NOT_NOW, "", "full")).kind == "limit"
    assert why_refused(Reply(1, "", "no")).kind == "mistake"
    assert why_refused(Reply(None, "", "")).kind == "silent"
    assert why_refused(Reply(127, "", "why")).absent == "this machine has no daemon for detached calls"


@pytest.mark.parametrize(
    ("name", "value"), [("partition", "x"), ("qos", "x"), ("slurm_cmd_args", "-x"), ("cpu_bind", "cores"), ("nodes", 2)]
)
def test_what_means_nothing_here(name: str, value: object) -> None:
    with pytest.raises(ResourceError, match=name):
        check(Resources(**{name: value}))  # type: ignore[arg-type]


def test_the_variables_of_a_job_do_not_reach_the_next() -> None:
    own = {"PATH": "/bin", "CUDA_VISIBLE_DEVICES": "1"}
    assert environment({**own, "OMPI_COMM_WORLD_RANK": "3"}) == own
    assert environment({**own, "CALLYARD_LOCAL_JOB": "host-1-1"}) == {"PATH": "/bin"}
