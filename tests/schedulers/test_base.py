"""The values of the seam for schedulers, and Slurm behind it."""

from __future__ import annotations

import pytest

from callyard.resources import Resources
from callyard.schedulers.base import CANCELLED, JobId, JobRequest, Reply, Scheduler, Status
from callyard.schedulers.slurm.scheduler import SlurmScheduler

SLURM: Scheduler = SlurmScheduler()


@pytest.mark.parametrize(
    ("text", "job"),
    [
        ("123", JobId("123")),
        ("123_4", JobId("123", 4)),
        ("f2AbC", JobId("f2AbC")),
        ("a_b", JobId("a_b")),
        ("a_b_12", JobId("a_b", 12)),
        ("_7", JobId("_7")),
        ("", JobId("")),
    ],
)
def test_a_job_is_what_its_text_says(text: str, job: JobId) -> None:
    assert JobId.parse(text) == job
    assert str(job) == text


def test_a_submission() -> None:
    query = SLURM.submit(JobRequest("call", "token", "script", "log", Resources()))
    assert query.argv[0] == "sbatch"
    assert query.read("7\n") == JobId("7")
    assert SLURM.find("token").read("7|callyard token.0-3|\n") == {"token.0-3": JobId("7")}


def test_a_question_about_jobs() -> None:
    query = SLURM.status([JobId("7", 1), JobId("8")])
    assert "--jobs=7,8" in query.argv
    assert query.read("7|1-2|PENDING|N/A|Priority||0|\n8|N/A|CANCELLED|N/A|None||0|\n") == {
        JobId("7", 1): Status("waiting", "waits", reason="Priority"),
        JobId("7", 2): Status("waiting", "waits", reason="Priority"),
        JobId("8"): Status("ended", CANCELLED.sentence, CANCELLED.error, exit_code=0),
    }


def test_jobs_are_cancelled_by_few_commands() -> None:
    (query,) = SLURM.cancel([JobId("7", 1), JobId("7", 2), JobId("9")])
    assert query.argv == ["scancel", "--quiet", "7_[1-2]", "9"]


def test_facts_about_the_site() -> None:
    site = SLURM.site()
    assert site.array_limit.read("MaxArraySize = 10\n") == 10
    assert site.environment({"SLURM_NTASKS": "4", "PATH": "/bin"}) == {"PATH": "/bin"}
    assert site.configuration({}) is None
    assert site.history is not None
    assert site.history([JobId("7", 1)]).read("7_1|FAILED|3:0|c1|None\n")[JobId("7", 1)].exit_code == 3
    assert site.time_left is not None
    assert site.time_left([JobId("7", 1)]).read("8|7|1|1:00|\n") == {JobId("8"): 60.0, JobId("7", 1): 60.0}


def test_a_configuration_that_is_missing_means_that_there_is_no_cluster() -> None:
    needed = SLURM.site().configuration({"SLURM_CONF": "/nowhere/slurm.conf"})
    assert needed is not None
    assert needed.path == "/nowhere/slurm.conf"
    assert SLURM.site().refusal(needed.reply).absent.startswith("no Slurm cluster is configured here")


def test_refusals_say_all_that_can_be_told() -> None:
    refusal = SLURM.site().refusal
    assert refusal(Reply(1, "", "sbatch: error: Slurm job queue full")).full
    assert not refusal(Reply(1, "", "sbatch: error: Invalid qos specification")).full
    assert refusal(Reply(127, "", "there is no sbatch")).absent == "Slurm is not installed here"


def test_a_damaged_job_id_does_not_spoil_the_question_about_others() -> None:
    damaged, good = JobId("what?"), JobId("7", 3)
    assert SLURM.status([damaged, good]).argv == SLURM.status([good]).argv
    assert not any(word.startswith("--jobs") for word in SLURM.status([damaged]).argv)
    assert [query.argv for query in SLURM.cancel([damaged, good])] == [query.argv for query in SLURM.cancel([good])]
    assert SLURM.cancel([damaged]) == []
