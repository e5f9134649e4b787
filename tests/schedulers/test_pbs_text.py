"""PBS's words: what is sent to it, and what its answers mean; the answers are written after its manuals."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from callyard import errors
from callyard.errors import ResourceError, SchedulerError
from callyard.resources import Resources
from callyard.schedulers.base import CANCELLED, Dependency, JobId, JobRequest, Reply
from callyard.schedulers.job_environment import current_job
from callyard.schedulers.pbs.scheduler import PbsScheduler
from callyard.schedulers.pbs.states import EXITS, STATES

ROOT = Path(__file__).parent.parent.parent
REPLY = (Path(__file__).parent / "replies" / "pbs_qstat.json").read_text()
PBS = PbsScheduler()
REQUEST = JobRequest("relax", "0123abcd", "/run/script", "/run/{element}.log", Resources())


def words(request: JobRequest) -> str:
    return " ".join(PBS.submit(request).argv)


def test_a_submission() -> None:
    told = words(REQUEST)
    assert told.endswith("-l select=1:ncpus=1:mpiprocs=1 -l place=pack -C  /run/script")
    assert "-N relax.0123abcd -j oe -o /run/0.log -k doe" in told
    array = dataclasses.replace(REQUEST, elements=(3, 4, 5), at_once=2, time=90.5)
    assert "-l walltime=91" in words(array)
    assert "-o /run/^array_index^.log" in words(array)
    assert "-J 3-5%2" in words(array)
    assert "-J 3-4:2 " in words(dataclasses.replace(REQUEST, elements=(3,)))
    assert "select" not in words(dataclasses.replace(REQUEST, templated=True))


def test_jobs_wait_for_jobs_however_these_end() -> None:
    after = (Dependency("ok", JobId("7.s")), Dependency("any", JobId("8[].s", 3)), Dependency("any", JobId("7.s")))
    assert "-W depend=afterany:7.s:8[].s /run" in words(dataclasses.replace(REQUEST, after=after))


def test_resources() -> None:
    asked = Resources(
        ranks=4, cores_per_rank=2, nodes=2, memory=8, gpus_per_rank=1, queue="q", account="a", exclusive=True,
        constraint="model=rome", priority=5,
    )  # fmt: skip
    told = words(dataclasses.replace(REQUEST, resources=asked))
    assert "-l select=2:ncpus=4:mpiprocs=2:ngpus=2:mem=4096mb:model=rome -l place=scatter:excl -p 5 -q q -A a" in told
    assert "place=free" in words(dataclasses.replace(REQUEST, options={"place": "free"}))


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"partition": "x"}, "PBS calls it queue="),
        ({"constraint": "a b"}, "as 'model=rome'"),
        ({"restart_limit": 1}, "does not tell a job"),
        ({"wckey": "x"}, "wckey means nothing to PBS: it has no such thing"),
    ],
)
def test_what_means_nothing_to_pbs(asked: dict[str, object], sentence: str) -> None:
    with pytest.raises(ResourceError, match=sentence):
        PBS.site().check(Resources().updated(asked))


def test_a_log_with_a_colon_in_its_path_would_be_another_hosts() -> None:
    with pytest.raises(ResourceError, match=r"PBS cannot write a log to /my:runs/log: ':' means something else"):
        PBS.submit(dataclasses.replace(REQUEST, log="/my:runs/log"))


def test_answers_to_submissions() -> None:
    read = PBS.submit(REQUEST).read
    assert read("123.server\n") == JobId("123.server")
    assert read("welcome\n123[].server.example\n") == JobId("123[].server.example")


def test_states() -> None:
    found = {str(job): status for job, status in PBS.status([]).read(REPLY).items()}
    assert {job: (status.phase, status.error) for job, status in found.items()} == {
        "7.server": ("waiting", None),
        "8[].server": ("running", None),
        "8[].server_0": ("running", None),
        "8[].server_1": ("ended", "WorkerLost"),
        "9.server": ("ended", "TimeLimitExceeded"),
        "10.server": ("ended", CANCELLED.error),
        "11.server": ("ended", "WorkerLost"),
        "12.server": ("ended", "NodeFailure"),
        "13.server": ("ended", CANCELLED.error),
        "14.server": ("waiting", None),
        "15.server": ("waiting", "SchedulerError"),
        "16.server": ("ended", None),
    }
    assert found["8[].server_1"].exit_code == 3
    assert found["11.server"].signal == 9
    assert found["12.server"].failed_node == "n3"


def test_a_submission_is_found_by_the_end_of_its_name() -> None:
    whole = REPLY.replace('"8[0].server"', '"8.x"').replace('"8[1].server"', '"8.y"')
    assert PBS.find("0123abcd").read(whole)["0123abcd"] == JobId("7.server")
    assert "0123abcd.0-3" in PBS.find("0123abcd").read(whole)


def test_questions_and_deletions_name_elements_as_pbs_does() -> None:
    jobs = [JobId("8[].s", 2), JobId("8[].s", 1), JobId("9.s"), JobId("what?")]
    assert [*PBS.status(jobs).argv][-3:] == ["-t", "8[].s", "9.s"]
    (query,) = PBS.cancel(jobs)
    assert query.argv == ["qdel", "8[1].s", "8[2].s", "9.s"]


def test_a_job_knows_itself_by_the_same_name() -> None:
    names = PBS.site().job_variables.environment()
    assert current_job({**names, "PBS_JOBID": "7.s"}).job_id == "7.s"
    inside = {"PBS_JOBID": "8[2].s", "PBS_ARRAY_ID": "8[].s", "PBS_ARRAY_INDEX": "2"}
    assert current_job({**names, **inside}).job_id == str(JobId("8[].s", 2))
    assert PBS.site().environment({**inside, "PBS_SERVER": "s", "NCPUS": "4", "A": "b"}) == {
        "PBS_SERVER": "s",
        "A": "b",
    }


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("qsub: would exceed queue short's per-user limit", "limit"),
        ("qsub: Maximum number of jobs already in complex", "limit"),
        ("qsub: Queue is not enabled", "limit"),
        ("Connection refused\nqsub: cannot connect to server server (errno=15010)", "silent"),
        ("qsub: Unknown queue", "mistake"),
        ("qsub: Job violates queue and/or server resource limits", "mistake"),
    ],
)
def test_refusals(said: str, kind: str) -> None:
    refused = PBS.site().refusal(Reply(1, "", said))
    assert refused.kind == kind
    assert refused.large == ("violates" in said)
    assert refused.full == ("jobs" in said.lower() or "per-user" in said) or kind == "mistake"
    assert not refused.words.startswith("qsub:")


def test_ended_jobs_are_no_trouble() -> None:
    had_ended = PBS.site().had_ended
    assert had_ended(Reply(35, "", "qdel: Job has finished 7.s\nqdel: Unknown Job Id 8.s\n"))
    assert not had_ended(Reply(159, "", "qdel: Unauthorized Request  7.s\n"))


def test_every_word_has_a_meaning() -> None:
    assert set(STATES) == set("BEFHMQRSTUWX")
    assert {getattr(errors, each.error) for each in EXITS.values()}
    with pytest.raises(SchedulerError, match="not the ID of a job"):
        PBS.submit(REQUEST).read("123 jobs are there")
    assert PBS.site().array_limit.read("    max_array_size = 500\n") == 500


@pytest.mark.parametrize("name", ["pbs", "lsf", "gridengine"])
def test_the_pages_of_the_documentation_are_current(name: str) -> None:
    tool = [sys.executable, ROOT / "tools" / "job_states.py", name]
    page = subprocess.run(tool, check=True, capture_output=True, encoding="utf-8").stdout
    shown = (ROOT / "docs" / f"{name}-states.md").read_text(encoding="utf-8")
    assert shown == page, f"python tools/job_states.py {name} > docs/{name}-states.md"
