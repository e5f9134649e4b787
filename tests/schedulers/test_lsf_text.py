"""LSF's words: what is sent to it, and what its answers mean; the answers are written after its manuals."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from callyard import errors
from callyard.errors import ResourceError
from callyard.resources import Resources
from callyard.schedulers.base import CANCELLED, Dependency, JobId, JobRequest, Reply
from callyard.schedulers.job_environment import current_job
from callyard.schedulers.lsf.scheduler import LsfScheduler
from callyard.schedulers.lsf.states import REASONS, STATES

REPLY = (Path(__file__).parent / "replies" / "lsf_bjobs.json").read_text()
LSF = LsfScheduler()
REQUEST = JobRequest("relax", "0123abcd", "/run/script", "/run/{element}.log", Resources())


def words(request: JobRequest) -> str:
    return " ".join(LSF.submit(request).argv)


def test_a_submission() -> None:
    told = words(REQUEST)
    assert "bsub /run/script -J relax.0123abcd -o /run/0.log -env all -rn" in told
    assert told.endswith("-n 1 -R span[hosts=1]")
    array = dataclasses.replace(REQUEST, elements=(1, 2, 3, 7), at_once=2, time=90.5, log="/50%/{element}.log")
    assert "-J relax.0123abcd[1-3,7]%2 -o /50%%/%I.log" in words(array)
    assert "-W 2" in words(array)
    assert "-W" not in words(dataclasses.replace(array, templated=True))


def test_jobs_and_elements_are_waited_for() -> None:
    after = (
        Dependency("corresponding", JobId("6"), (1, 2)),
        Dependency("corresponding", JobId("7"), (1, 2, 3)),
        Dependency("any", JobId("8", 4)),
        Dependency("ok", JobId("9")),
    )
    told = words(dataclasses.replace(REQUEST, elements=(1, 2), after=after))
    assert told.endswith("-w ended(6[*]) && ended(7) && ended(8[4]) && ended(9)")


def test_resources() -> None:
    asked = Resources(
        ranks=4, cores_per_rank=2, nodes=2, memory=8, gpus_per_rank=1, queue="q", account="p", exclusive=True,
        constraint="avx512",
    )  # fmt: skip
    told = words(dataclasses.replace(REQUEST, resources=asked, options={"memory_unit": "MB"}))
    assert "-n 8 -M 4096 -R span[ptile=4] select[avx512] rusage[mem=4096] -gpu num=2 -x -q q -P p" in told
    assert "-M 8388608" in words(dataclasses.replace(REQUEST, resources=Resources(memory=8)))


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"partition": "x"}, "LSF calls it queue="),
        ({"constraint": "select[a]"}, "without brackets"),
        ({"job_name": "scan[1-9]"}, "LSF reads the numbers of an array"),
        ({"priority": 1}, "#BSUB -sp"),
    ],
)
def test_what_means_nothing_to_lsf(asked: dict[str, object], sentence: str) -> None:
    with pytest.raises(ResourceError, match=sentence):
        LSF.site().check(Resources().updated(asked))


def test_answers_to_submissions() -> None:
    assert LSF.submit(REQUEST).read("welcome\nJob <123> is submitted to queue <normal>.\n") == JobId("123")


def test_states() -> None:
    found = {str(job): status for job, status in LSF.status([]).read(f"a message\n{REPLY}").items()}
    assert {job: (status.phase, status.error) for job, status in found.items()} == {
        "7": ("waiting", None),
        "8_1": ("running", None),
        "8_2": ("ended", None),
        "9": ("ended", "TimeLimitExceeded"),
        "10": ("ended", CANCELLED.error),
        "11": ("ended", "WorkerLost"),
        "12": ("ended", "WorkerLost"),
        "13": ("waiting", "SchedulerError"),
        "14": ("ended", CANCELLED.error),
    }
    assert found["8_1"].node == "n1"
    assert found["11"].signal == 9
    assert found["12"].exit_code == 3
    assert LSF.status([]).read("No job found\n") == {}


def test_a_submission_is_found_by_the_end_of_its_name() -> None:
    assert LSF.find("0123abcd").read(REPLY) == {"0123abcd": JobId("7"), "0123abcd.0-3": JobId("8")}


def test_elements_are_ended_by_their_names() -> None:
    (query,) = LSF.cancel([JobId("8", 2), JobId("8", 1), JobId("9"), JobId("0x")])
    assert query.argv == ["bkill", "8[1]", "8[2]", "9"]
    had_ended = LSF.site().had_ended
    assert had_ended(Reply(255, "", "Job <9>: Job has already finished\nJob <8>: No matching job found\n"))
    assert not had_ended(Reply(255, "", "Job <9>: User permission denied\n"))


def test_a_job_knows_itself_by_the_same_name() -> None:
    names = LSF.site().job_variables.environment()
    assert current_job({**names, "LSB_JOBID": "7", "LSB_JOBINDEX": "0"}).job_id == "7"
    assert current_job({**names, "LSB_JOBID": "8", "LSB_JOBINDEX": "2"}).job_id == str(JobId("8", 2))
    inside = {"LSB_JOBID": "8", "LSB_QUEUE": "q", "LSF_ENVDIR": "/lsf", "TMPDIR": "/tmp/8.tmpdir"}
    assert LSF.site().environment(inside) == {"LSF_ENVDIR": "/lsf"}
    assert LSF.site().environment({"LSB_DEFAULTQUEUE": "mine"}) == {"LSB_DEFAULTQUEUE": "mine"}


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("User <me>: Pending job threshold reached. Job not submitted.", "limit"),
        ("normal: Queue has been closed. Job not submitted.", "limit"),
        ("LSF is down. Please wait ...", "silent"),
        ("nosuch: No such queue. Job not submitted.", "mistake"),
        ("Too many processors requested. Job not submitted.", "mistake"),
    ],
)
def test_refusals(said: str, kind: str) -> None:
    refused = LSF.site().refusal(Reply(255, "", said))
    assert refused.kind == kind
    assert refused.full == ("threshold" in said)
    assert refused.large == ("processors" in said)


def test_every_word_has_a_meaning() -> None:
    assert {"PEND", "PSUSP", "RUN", "USUSP", "SSUSP", "DONE", "EXIT", "UNKWN", "WAIT", "ZOMBI", "PROV"} <= set(STATES)
    assert all(hasattr(errors, each.error) for each in REASONS.values())
    assert LSF.site().array_limit.read("MAX_JOB_ARRAY_SIZE = 10000\n") == 10_000
