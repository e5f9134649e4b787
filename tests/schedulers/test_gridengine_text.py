"""Grid Engine's words: what is sent to it, and what its answers mean; the answers are those of a real one."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import MappingProxyType

import pytest

from callyard.errors import ResourceError, SchedulerError
from callyard.resources import Resources
from callyard.schedulers.base import CANCELLED, Dependency, JobId, JobRequest, Reply
from callyard.schedulers.gridengine.scheduler import GridEngineScheduler
from callyard.schedulers.gridengine.states import FAILURES, STATES

REPLIES = Path(__file__).parent / "replies"
GRID = GridEngineScheduler()
REQUEST = JobRequest("relax", "0123abcd", "/run/script", "/run/{element}.log", Resources())


def words(request: JobRequest) -> str:
    return " ".join(GRID.submit(request).argv)


def test_a_submission() -> None:
    told = words(REQUEST)
    assert told.endswith("-C  /run/script")
    assert "-N relax.0123abcd -j y -o /run/0.log" in told
    array = dataclasses.replace(REQUEST, elements=(3, 4, 5), at_once=2, time=90.5, templated=True)
    assert "-o /run/$TASK_ID.log" in words(array)
    assert "-t 3-5 -tc 2" in words(array)
    assert "h_rt" not in words(array)  # the template's own


@pytest.mark.parametrize("log", ["/my:runs/log", "/my,runs/log"])
def test_a_log_whose_path_would_be_read_as_several(log: str) -> None:
    with pytest.raises(ResourceError, match=r"Grid Engine cannot write a log to /my.runs/log"):
        GRID.submit(dataclasses.replace(REQUEST, log=log))


def test_only_arrays_with_the_same_numbers_are_waited_for_task_by_task() -> None:
    after = (
        Dependency("corresponding", JobId("7"), (1, 2, 3)),
        Dependency("corresponding", JobId("8"), (1, 2, 3, 4)),
        Dependency("ok", JobId("9", 4)),
        Dependency("any", JobId("9")),
    )
    told = words(dataclasses.replace(REQUEST, elements=(1, 2, 3), after=after))
    assert "-hold_jid_ad 7 -hold_jid 8,9 " in told


def test_what_a_cluster_calls_its_resources() -> None:
    options = MappingProxyType({"parallel_environment": "smp", "memory_resource": "h_vmem", "gpu_resource": "gpu"})
    resources = Resources(ranks=2, cores_per_rank=2, memory=8, gpus_per_rank=1, queue="q", account="p", priority=-2000)
    told = words(dataclasses.replace(REQUEST, resources=resources, options=options, time=90.5))
    assert "-pe smp 4 -l h_vmem=2048M -l gpu=2 -p -1023 -q q -P p -l h_rt=91" in told
    with pytest.raises(ResourceError, match="parallel_environment='smp'"):
        words(dataclasses.replace(REQUEST, resources=resources))


def test_answers_to_submissions() -> None:
    read = GRID.submit(REQUEST).read
    assert read("123\n") == read("welcome\n123.1-10:1\n") == JobId("123")
    with pytest.raises(SchedulerError, match="not the number of a job"):
        read('Your job 21 ("x") has been submitted')


def test_a_list_of_jobs() -> None:
    found = GRID.status([]).read((REPLIES / "gridengine_qstat.xml").read_text())
    assert {str(job): (status.phase, status.node) for job, status in found.items()} == {
        "2_3": ("running", "gehost"),
        "3": ("running", "gehost"),
        "6": ("running", "gehost"),
        "7": ("waiting", ""),
        "23": ("waiting", ""),
        **{f"18_{task}": ("waiting", "") for task in (5, 6, 7, 9)},
    }
    assert found[JobId("23")].error == "SchedulerError"
    assert found[JobId("18", 5)].sentence == "waits for the jobs that it depends on, or is held"
    assert found[JobId("6")].sentence == "is being deleted"


def test_a_submission_is_found_by_the_end_of_its_name() -> None:
    text = (REPLIES / "gridengine_qstat.xml").read_text()
    assert GRID.find("0123abcd").read(text) == {"0123abcd": JobId("3"), "0123abcd.0-3": JobId("18")}
    assert GRID.find("123abcd").read(text) == {}


def test_the_accounting() -> None:
    history = GRID.site().history
    assert history is not None
    assert "3" in history([JobId("3"), JobId("2", 1), JobId("what?")]).argv
    found = history([]).read((REPLIES / "gridengine_qacct.txt").read_text())
    assert {str(job): (status.error, status.exit_code, status.signal) for job, status in found.items()} == {
        "3": ("TimeLimitExceeded", None, 9),
        "6": ("WorkerLost", None, 9),
        "2_1": ("WorkerLost", 3, None),
        "2_2": (None, 0, None),
        "9": (CANCELLED.error, None, 15),
        "10": ("NodeFailure", None, None),
        "11": ("OutOfMemory", None, 9),
    }
    assert found[JobId("10")].failed_node == "gehost"


def test_every_failure_and_state_has_a_sentence() -> None:
    assert set(FAILURES) >= {0, *range(1, 1), 1, 3, 4, *range(6, 22), 24, 25, 26, 27, 28, 37, 100}
    assert {state.letter for state in STATES} >= set("EdsSTrthRwq")


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("Unable to run job: error: no suitable queues\nExiting.", "mistake"),
        ("Unable to run job: job rejected: only 1 jobs are allowed per user (current job count: 1)\nExiting.", "limit"),
        ('error: unable to send message to qmaster using port 6444 on host "h": got send error', "silent"),
        ("error: commlib error: got select error (Connection refused)", "silent"),
    ],
)
def test_refusals(said: str, kind: str) -> None:
    assert GRID.site().refusal(Reply(1, "", said)).kind == kind


def test_the_words_of_a_refusal() -> None:
    refusal = GRID.site().refusal
    assert refusal(Reply(1, "", "Unable to run job: error: no suitable queues\nExiting.")).large
    full = refusal(Reply(1, "", "job rejected: only 1 jobs are allowed per user (current job count: 1)"))
    assert full.full
    assert full.words.startswith("only 1 jobs are allowed per user")
    nowhere = "error: unable to read qmaster name: qmaster hostname in x has zero length"
    assert refusal(Reply(1, "", nowhere)).absent


def test_deletions() -> None:
    (query,) = GRID.cancel([JobId("7", 2), JobId("8"), JobId("7", 1), JobId("*")])
    assert query.argv == ["qdel", "7.1", "7.2", "8"]
    had_ended = GRID.site().had_ended
    assert had_ended(Reply(1, 'denied: job "6" does not exist\n', ""))
    assert had_ended(Reply(1, "tester has deleted job 7\njob 6 is already in deletion\n", ""))
    assert not had_ended(Reply(1, "", "error: commlib error"))
    assert not had_ended(Reply(None))


def test_the_environment_of_a_job_is_not_that_of_the_next() -> None:
    own = {"JOB_ID": "7", "SGE_TASK_ID": "1", "TMPDIR": "/tmp/7.1.all.q", "QUEUE": "x", "SGE_ROOT": "/sge", "A": "b"}
    assert GRID.site().environment(own) == {"SGE_ROOT": "/sge", "A": "b"}
    outside = {"QUEUE": "mine", "TMPDIR": "/tmp/7.1.x", "BASH_FUNC_module%%": "() { :; }"}
    assert GRID.site().environment(outside) == {"QUEUE": "mine", "TMPDIR": "/tmp/7.1.x"}


def test_the_most_elements_of_an_array() -> None:
    read = GRID.site().array_limit.read
    assert read("max_aj_instances             2000\nmax_aj_tasks                 500\n") == 500
    assert read("max_aj_tasks                 0\n") == read("") == 75_000
