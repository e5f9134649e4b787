"""What is typed for Flux, and what its answers are taken for. Answers are copied from a real instance of Flux 0.88."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from callyard import errors
from callyard.errors import ResourceError, SchedulerError
from callyard.resources import Resources
from callyard.schedulers.base import Dependency, JobId, JobRequest, Reply, Status
from callyard.schedulers.flux.scheduler import FluxScheduler
from callyard.schedulers.flux.states import EXCEPTIONS, RESULTS, STATES, translated
from callyard.schedulers.flux.submit import check
from callyard.schedulers.flux.variables import environment
from callyard.schedulers.job_environment import current_job
from callyard.schedulers.steps import RankOptions

ROOT = Path(__file__).parent.parent.parent
FLUX = FluxScheduler()
TOKEN = "0123456789abcdef"
REPLIES = (Path(__file__).parent / "replies/flux_status.jsonl").read_text().splitlines()
RECORDED: dict[str, dict[str, Any]] = {job.pop("label"): job for job in map(json.loads, REPLIES)}


def request(resources: Resources | None = None, **changes: Any) -> JobRequest:
    fields: dict[str, Any] = {"name": "energy", "token": TOKEN, "script": "/run/job.sh", "log": "/run/{element}.log"}
    return JobRequest(**{**fields, "resources": resources or Resources(), **changes})


def asked(resources: Resources | None = None, **changes: Any) -> dict[str, Any]:
    """Return what the program is told."""
    found: dict[str, Any] = json.loads(FLUX.submit(request(resources, **changes)).stdin)
    return found


def options(resources: Resources | None = None, **changes: Any) -> dict[str, str]:
    """Return the options of `flux submit` by name."""
    return dict(word.lstrip("-").partition("=")[::2] for word in asked(resources, **changes)["options"])


# ------------------------------------------------------------------ submitting


def test_a_plain_job() -> None:
    assert asked() == {
        "options": [
            "--ntasks=1", "--cores-per-task=1", "--output=/run/{element}.log", "--setopt=output.mode=append",
            "--env=CALLYARD_FLUX_JOB={{id.f58plain}}", "--env=CALLYARD_FLUX_NODE={{node.name}}",
        ],
        "command": ["bash", "/run/job.sh"],
        "script": "/run/job.sh",
        "templated": False,
        "jobs": [
            {"name": f"energy.{TOKEN}", "token": TOKEN, "alone": False, "log": "/run/0.log", "variables": {},
             "after": []}
        ],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({"ranks": 3, "cores_per_rank": 2, "gpus_per_rank": 1}, {"cores-per-task": "6", "gpus-per-task": "3"}),
        ({"ranks": 3, "nodes": 2}, {"nodes": "2", "ntasks": "2", "cores-per-task": "2"}),
        ({"nodes": 2}, {"nodes": "2", "ntasks": "2", "cores-per-task": "1"}),
        ({"exclusive": True}, {"nodes": "1", "exclusive": ""}),
        ({"priority": -7}, {"urgency": "9"}),
        ({"priority": -100}, {"urgency": "1"}),  # 0 would hold it
        ({"priority": 100}, {"urgency": "30"}),
        ({"queue": "batch", "account": "a", "constraint": "x&y"}, {"queue": "batch", "bank": "a", "requires": "x&y"}),
        ({"warn_before": 30}, {"signal": "USR1@30s"}),
        ({"nodelist": "n[1-2]", "nodes": 2}, {"requires": "host:n[1-2]", "nodes": "2"}),
        ({"exclude": ["n1", "n[3-4]"]}, {"requires": "-host:n1,n[3-4]"}),
        (
            {"constraint": "a|b", "nodelist": "n1", "exclude": "n2"},
            {"requires": "(a|b)&(host:n1)&(-host:n2)"},
        ),
        ({"begin": "now+2hours"}, {"begin-time": "+7200s"}),
        ({"begin": "now+90"}, {"begin-time": "+90s"}),
        ({"begin": "now + 1 w"}, {"begin-time": "+604800s"}),
        ({"begin": "2030-01-31T12:00"}, {"begin-time": "2030-01-31 12:00"}),
        ({"begin": "2030-01-31"}, {"begin-time": "2030-01-31 00:00"}),
        ({"begin": dt.datetime.fromisoformat("2030-01-31T12:00")}, {"begin-time": "2030-01-31 12:00:00"}),
        ({"ranks": 4, "ranks_per_node": 2, "nodes": 2}, {"nodes": "2", "ntasks": "2", "cores-per-task": "2"}),
    ],
)
def test_resources(resources: dict[str, Any], expected: dict[str, str]) -> None:
    assert options(Resources(**resources)).items() >= expected.items()


def test_a_job_that_may_begin_now_says_nothing() -> None:
    assert "begin-time" not in options(Resources(begin="now"))


def test_ranks_that_are_bound_are_started_by_flux() -> None:
    assert asked(Resources(ranks=2), starts_ranks=True)["command"] == ["flux", "start", "bash", "/run/job.sh"]
    words = FLUX.site().rank_options
    assert words is not None
    assert words(RankOptions("map:0;1", "per-task")) == [
        "--setopt=cpu-affinity=map:0;1",
        "--setopt=gpu-affinity=per-task",
    ]


@pytest.mark.parametrize(
    "key",
    [
        "begin-time",
        "nodes",
        "exclusive",
        "gpus-per-task",
        "urgency",
        "signal",
        "time-limit",
        "queue",
        "bank",
        "requires",
    ],
)
def test_what_is_not_asked_for_is_left_to_the_instance(key: str) -> None:
    assert key not in options(Resources(memory=3))


def test_the_time_limit() -> None:
    assert options(time=90.5)["time-limit"] == "90.5s"


def test_a_job_on_several_nodes_is_an_instance() -> None:
    assert asked(Resources(nodes=2, ranks=4))["command"] == ["flux", "start", "bash", "/run/job.sh"]
    launcher = FLUX.site().rank_launcher
    assert launcher is not None
    assert launcher(4, 2, None, 2) == ("flux", "run", "--nodes=2", "--ntasks=4", "--cores-per-task=2")


def test_a_template_has_its_own_options() -> None:
    templated = asked(Resources(priority=3, queue="batch"), templated=True, time=60)
    assert templated["templated"]
    assert not {"ntasks", "queue", "urgency", "time-limit"} & options(Resources(queue="x"), templated=True).keys()


def test_elements_are_jobs_of_their_own() -> None:
    after = ((), (JobId("fA"), JobId("fB")))
    jobs = asked(elements=(4, 7), after_each=after, after=(Dependency("any", JobId("fC")),))["jobs"]
    assert [job["name"] for job in jobs] == [f"energy.{TOKEN}.0-0", f"energy.{TOKEN}.1-1"]
    assert [job["token"] for job in jobs] == [f"{TOKEN}.0-0", f"{TOKEN}.1-1"]
    assert [job["log"] for job in jobs] == ["/run/4.log", "/run/7.log"]
    assert [job["variables"] for job in jobs] == [{"CALLYARD_FLUX_ELEMENT": "4"}, {"CALLYARD_FLUX_ELEMENT": "7"}]
    assert [job["after"] for job in jobs] == [["fC"], ["fC", "fA", "fB"]]


def test_the_rest_of_an_array_has_its_own_places() -> None:
    assert request(elements=(4, 7), token=f"{TOKEN}.30-31").tokens() == [f"{TOKEN}.30-30", f"{TOKEN}.31-31"]
    assert request(elements=2).tokens() == [f"{TOKEN}.0-0", f"{TOKEN}.1-1"]
    assert request().tokens() == [TOKEN]


def test_one_job_of_a_lane_runs_at_a_time() -> None:
    jobs = asked(elements=2, lanes=("lane.ab-0", "lane.ab-1"))["jobs"]
    assert [job["name"] for job in jobs] == ["energy.lane.ab-0", "energy.lane.ab-1"]
    assert all(job["alone"] for job in jobs)
    find = json.loads(FLUX.find(TOKEN).stdin)
    assert all(find["lane"] in job["name"] for job in jobs)  # by which the program knows whose tokens to look up


@pytest.mark.parametrize(
    ("name", "shown"), [("<lambda>", "lambda"), ("a b\nc", "a_b_c"), ("<>", "callyard"), ("x" * 2000, "x" * 64)]
)
def test_names_of_functions_become_names_of_jobs(name: str, shown: str) -> None:
    assert asked(name=name)["jobs"][0]["name"] == f"{shown}.{TOKEN}"
    assert asked(Resources(job_name="my job"))["jobs"][0]["name"] == f"my job.{TOKEN}"


def test_ids_are_those_of_the_elements_in_order() -> None:
    assert FLUX.submit(request()).read("f5qpGSvZM\n") == JobId("f5qpGSvZM")
    assert FLUX.submit(request(elements=2)).read("f5qcjpWTr\nf5qciLXBV\n") == [JobId("f5qcjpWTr"), JobId("f5qciLXBV")]
    for wrong in ("f5qcjpWTr\n", "welcome to flux\n"):
        with pytest.raises(SchedulerError, match="not the IDs"):
            FLUX.submit(request(elements=2)).read(wrong)


def test_submissions_are_found_by_element() -> None:
    found = FLUX.find(TOKEN).read(f"f5qciLXBV {TOKEN}.0-0\nf5qcjpWTq {TOKEN}.1-1\n")
    assert found == {f"{TOKEN}.0-0": JobId("f5qciLXBV"), f"{TOKEN}.1-1": JobId("f5qcjpWTq")}


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        ({"partition": "x"}, "queue="), ({"qos": "x"}, "queue="),
        ({"slurm_cmd_args": ["-v"]}, "sbatch"), ({"gres": "gpu:1"}, "gpus_per_rank="),
        ({"reservation": "x"}, "nodelist="), ({"licenses": "x:1"}, "max_workers="), ({"wckey": "x"}, "account="),
        ({"mail_type": "END"}, "sends no mail"), ({"mail_user": "me"}, "sends no mail"),
        ({"srun_args": ["-v"], "ranks": 2}, "cpu_bind="), ({"begin": "16:00"}, "2030-01-31T16:00"),
        ({"begin": "now+3fortnights"}, "now.2hours"), ({"begin": "tomorrow"}, "datetime"),
        ({"nodelist": "n[1-2]"}, "nodes=2.*host:n.1-2"), ({"nodelist": "n[a]"}, "is no list of nodes"),
        ({"nodelist": "n[1-4]", "nodes": 2}, "names 4 nodes"),
    ],
)  # fmt: skip
def test_resources_of_others_are_refused(resources: dict[str, Any], words: str) -> None:
    with pytest.raises(ResourceError, match=words):
        check(Resources(**resources))
    check(Resources(queue="batch", memory=1, run_time=3))


# ------------------------------------------------------------------ states


def said(label: str) -> Status:
    return translated(RECORDED[label])


@pytest.mark.parametrize(
    ("label", "phase", "error"),
    [
        ("held", "waiting", None),
        ("depends", "waiting", None),
        ("running", "running", None),
        ("completed", "ended", None),
        ("failed", "ended", "WorkerLost"),
        ("killed", "ended", "WorkerLost"),
        ("missing", "ended", "SchedulerError"),
        ("nolog", "ended", "NodeFailure"),
        ("lost", "ended", "NodeFailure"),
        ("timelimit", "ended", "TimeLimitExceeded"),
        ("cancelled", "ended", "JobCancelled"),
        ("cancelled_waiting", "ended", "JobCancelled"),
        ("never", "ended", "JobCancelled"),
        ("toolarge", "waiting", "ResourceError"),
        ("toomany", "waiting", "ResourceError"),
    ],
)
def test_recorded_jobs(label: str, phase: str, error: str | None) -> None:
    assert (said(label).phase, said(label).error) == (phase, error)


def test_how_a_job_ended() -> None:
    assert (said("failed").exit_code, said("failed").sentence) == (3, "ended with exit code 3")
    assert (said("killed").signal, said("killed").sentence) == (9, "was killed by SIGKILL")
    assert said("cancelled").signal == 15
    assert (said("never").exit_code, said("never").signal) == (None, None)
    assert said("lost").node == "n4"
    assert "node failure on n4 (rank 3)" in said("lost").sentence


def test_what_can_never_run_is_told_at_once_in_the_words_of_flux() -> None:
    assert said("toolarge").hopeless
    assert "need 1 slot(s) of 99 core(s)" in said("toolarge").reason


def test_an_exception_that_is_not_fatal_says_nothing() -> None:
    stuck = {"exception_type": "dependency", "exception_severity": 4, "exception_note": "job may be stuck"}
    assert translated({**RECORDED["completed"], **stuck}) == said("completed")
    assert translated({**RECORDED["failed"], **stuck, "exception_severity": 3}) == said("failed")


def test_a_job_that_had_ended_well_was_not_cancelled() -> None:
    assert translated({**RECORDED["completed"], "exception_type": "cancel", "exception_severity": 0}).error is None


def test_what_is_newer_than_the_tables() -> None:
    assert translated({"state": 128}).phase == "running"
    unknown = {**RECORDED["failed"], "exception_type": "new", "exception_severity": 0, "exception_note": "x"}
    assert translated(unknown).error == "WorkerLost"


def test_every_meaning_is_an_error_of_ours_and_a_predicate() -> None:
    named = [(each.error, each.sentence) for each in (*RESULTS.values(), *EXCEPTIONS)]
    for error, sentence in [*named, *((None, state.sentence) for state in STATES.values())]:
        assert error is None or hasattr(errors, error)
        assert sentence[0].islower()
        assert not sentence.endswith(".")


def test_states_are_those_of_the_jobs_that_were_asked_about() -> None:
    line = json.dumps(RECORDED["failed"])
    assert FLUX.status([JobId("f22E4Jwy")]).read(line + "\n") == {JobId("f22E4Jwy"): said("failed")}


def test_the_page_of_the_documentation_is_made_of_these_tables() -> None:
    tool = [sys.executable, ROOT / "tools" / "flux_states.py"]
    page = subprocess.run(tool, check=True, capture_output=True, text=True, encoding="utf-8").stdout
    shown = (ROOT / "docs" / "flux-states.md").read_text(encoding="utf-8")
    assert shown == page, "python tools/flux_states.py > docs/flux-states.md"


def test_the_page_of_keys_is_what_both_schedulers_are_asked_for() -> None:
    tool = [sys.executable, ROOT / "tools" / "scheduler_keys.py"]
    page = subprocess.run(tool, check=True, capture_output=True, text=True, encoding="utf-8").stdout
    shown = (ROOT / "docs" / "scheduler-keys.md").read_text(encoding="utf-8")
    assert shown == page, "python tools/scheduler_keys.py > docs/scheduler-keys.md"


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("requested duration (1h) exceeds policy limit of 10m for queue batch", "mistake"),
        ("requested nnodes (3) exceeds policy limit of 2 for queue batch", "mistake"),
        ("Invalid queue 'nosuch' specified", "mistake"),
        ("invalid jobspec: host constraint contains invalid hosts: host 'n9' not found", "mistake"),
        ("flux-submit: ERROR: --requires='a&&': Unexpected end of input in 'a&&'", "mistake"),
        ("job submission to batch is disabled: maintenance until 8", "limit"),
        ("Unable to connect to Flux: broker socket /nowhere/local-0 was not found", "silent"),
        ("Unable to connect to Flux: Connection refused", "silent"),
        ("flux: flux_open: No such file or directory", "silent"),
        ("callyard: 3 jobs were taken, the first of the others was not: Invalid queue 'x' specified", "silent"),
        ("", "mistake"),
    ],
)
def test_refusals(words: str, kind: str) -> None:
    refusal = FLUX.site().refusal(Reply(1, "", words + "\n"))
    assert refusal.kind == kind
    assert not refusal.absent
    assert refusal.words


def test_what_is_said_is_said_without_the_command() -> None:
    refusal = FLUX.site().refusal(Reply(1, "", "flux-submit: ERROR: [Errno 22] urgency range is [0:31]\n"))
    assert refusal.words.startswith("urgency range is [0:31]; only the owner")


def test_what_is_too_large() -> None:
    assert FLUX.site().refusal(Reply(1, "", "requested ncores (9) exceeds policy limit of 8 for queue batch")).large


def test_a_machine_without_an_instance() -> None:
    words = (
        "Unable to connect to Flux: broker socket /run/flux/local was not found, and FLUX_URI names no other instance"
    )
    refusal = FLUX.site().refusal(Reply(1, "", words))
    assert refusal.kind == "mistake"
    assert refusal.absent.startswith("no instance of Flux runs here")


@pytest.mark.parametrize("code", [None, -9, 137])
def test_silence(code: int | None) -> None:
    assert FLUX.site().refusal(Reply(code, "", "")).kind == "silent"


# ------------------------------------------------------------------ variables

IN_A_JOB = {
    "FLUX_JOB_ID": "ƒ5H3cqfD", "FLUX_JOB_TMPDIR": "/tmp/flux-YU8ZCC/jobtmp-0-ƒ5H3cqfD", "FLUX_KVS_NAMESPACE": "job-1",
    "FLUX_TASK_RANK": "0", "FLUX_PMI_LIBRARY_PATH": "/opt/lib/libpmi.so", "PMI_RANK": "0", "FLUX_TERMINUS_SESSION": "0",
    "CUDA_VISIBLE_DEVICES": "-1", "CALLYARD_FLUX_JOB": "f5H3cqfD", "CALLYARD_FLUX_ELEMENT": "7",
    "TMPDIR": "/tmp/flux-YU8ZCC/jobtmp-0-ƒ5H3cqfD/x",
}  # fmt: skip


def test_a_job_knows_who_it_is() -> None:
    names = FLUX.site().job_variables.environment()
    job = current_job({**names, **IN_A_JOB, "CALLYARD_FLUX_NODE": "n3"})
    assert (job.scheduler, job.job_id, job.element, job.node) == ("Flux", "f5H3cqfD", 7, "n3")


def test_a_job_that_is_submitted_from_a_job_is_another_one() -> None:
    kept = {"FLUX_URI": "local:///run/flux/local", "FLUX_MODULE_PATH": "/opt/lib", "PATH": "/bin"}
    assert environment({**IN_A_JOB, **kept}) == kept
    outside = {"CUDA_VISIBLE_DEVICES": "1", "TMPDIR": "/tmp"}
    assert environment(outside) == outside
