"""What is typed for Slurm works on a real one, and what that answers is read as it is meant."""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster
from this_machine import until

from callyard.hosts.this_machine import LocalHost
from callyard.resources import Resources
from callyard.schedulers.base import Dependency, JobId, JobRequest, Refusal, Reply
from callyard.schedulers.script import job_script
from callyard.schedulers.slurm import commands as dialect
from callyard.schedulers.slurm.states import JobReport, reason_of, state_of

HOLD = Resources(slurm_cmd_args=["--hold"])
UNKNOWN = "4000000"


def typed(argv: Sequence[str], timeout: float = 60.0) -> Reply:
    return LocalHost().run(argv, timeout=timeout, env=dialect.environment(os.environ))


class Desk:
    """Where jobs are submitted and asked about, by the dialect alone."""

    def __init__(self, place: Path) -> None:
        self._place = place

    def request(self, command: str, resources: Resources | None = None, **more: Any) -> JobRequest:
        script = self._place / f"{uuid.uuid4().hex}.sh"
        script.write_text(job_script(["bash", "-c", command]))
        token, log = uuid.uuid4().hex, str(self._place / "log-{element}")
        fields = {"token": token, "log": log, "time": 60.0, **more}
        return JobRequest(name="a job", script=str(script), resources=resources or Resources(), **fields)

    def submit(self, command: str = "true", resources: Resources | None = None, **more: Any) -> str:
        reply = typed(dialect.submit(self.request(command, resources, **more)))
        assert reply.code == 0, reply
        return dialect.submitted(reply.out)

    def refused(self, resources: Resources, **more: Any) -> Refusal:
        reply = typed(dialect.submit(self.request("true", resources, **more)))
        assert reply.code != 0
        return dialect.refusal(reply)

    def statuses(self, *jobs: str) -> dict[str, JobReport]:
        reply = typed(dialect.status(jobs))
        assert (reply.code, reply.err) == (0, "")
        return dialect.statuses(reply.out)

    def ended(self, *jobs: str) -> list[JobReport]:
        """Wait for the end of jobs and elements, and return what is said of each."""
        found: dict[str, JobReport] = {}

        def all_ended() -> bool:
            found.update(self.statuses(*jobs))
            return all(job in found and found[job].phase == "ended" for job in jobs)

        until(all_ended)
        return [found[job] for job in jobs]

    def cancel(self, *jobs: str) -> None:
        for argv in dialect.cancel(jobs):
            assert typed(argv).code == 0

    def log(self, element: int = 0) -> str:
        return (self._place / f"log-{element}").read_text()


@pytest.fixture
def desk(slurm: Cluster, tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.fixture
def accounted_desk(accounted_slurm: Cluster, tmp_path: Path) -> Desk:
    return Desk(tmp_path)


# ------------------------------------------------------------------ submitting


def test_ends_of_jobs(desk: Desk, slurm: Cluster) -> None:
    good, bad, killed = desk.submit(), desk.submit("exit 3"), desk.submit("kill -SEGV $$")
    said = desk.ended(good, bad, killed)
    assert [(s.state, s.exit_code, s.signal) for s in said] == [
        ("COMPLETED", 0, None),
        ("FAILED", 3, None),
        ("FAILED", None, 11),
    ]
    assert {s.node for s in said} <= set(slurm.nodes)


def takes_backslashes(cluster: Cluster) -> bool:
    """Later versions of Slurm leave all of them out."""
    return int(cluster.run("sinfo", "--version").split()[-1].partition(".")[0]) < 25


def test_both_streams_go_into_the_log(desk: Desk, slurm: Cluster, tmp_path: Path) -> None:
    for place in ("a b", "%j%%", *(["back\\slash"] if takes_backslashes(slurm) else []), "$HOME"):
        (tmp_path / place).mkdir()
        log = tmp_path / place / "x%a"
        desk.ended(desk.submit("echo out; echo err >&2", log=str(log)))
        assert log.read_text() == "out\nerr\n"


def test_each_element_has_a_log(desk: Desk) -> None:
    array = desk.submit("echo $SLURM_ARRAY_TASK_ID", elements=(0, 3, 4), at_once=2)
    assert {s.exit_code for s in desk.ended(f"{array}_0", f"{array}_3", f"{array}_4")} == {0}
    assert [desk.log(n) for n in (0, 3, 4)] == ["0\n", "3\n", "4\n"]


@pytest.mark.parametrize(
    ("resources", "nodes", "memory"),
    [
        ({"ranks": 2, "cores_per_rank": 2}, 1, None),
        ({"ranks": 6, "memory": 0.6}, 2, None),  # more than a node's cores: Slurm takes two
        ({"ranks": 2, "nodes": 2, "memory": 0.2}, 2, 103),
        ({"memory": 0.1}, 1, 103),
    ],
)
def test_resources(desk: Desk, resources: dict[str, Any], nodes: int, memory: int | None) -> None:
    asked = Resources(**resources)
    job = desk.submit(
        "echo $SLURM_NTASKS $SLURM_JOB_NUM_NODES ${SLURM_MEM_PER_NODE:-no}; srun printenv SLURM_PROCID", asked
    )
    assert [s.state for s in desk.ended(job)] == ["COMPLETED"], desk.log()
    first, *ranks = desk.log().splitlines()
    assert first.split()[:2] == [str(asked.ranks), str(nodes)]
    assert sorted(ranks) == [str(rank) for rank in range(asked.ranks)]
    assert memory is None or first.split()[2] == str(memory)


@pytest.mark.parametrize(
    ("resources", "shown"),
    [
        ({"gpus_per_rank": 1}, 1),
        ({"gpus_per_rank": 1, "ranks": 2, "nodes": 1}, 1),
        ({"gpus_per_rank": 1, "ranks": 3}, 1),  # a node has two
        ({"gpus_per_rank": 2, "ranks": 2}, 2),
    ],
)
def test_gpus(desk: Desk, slurm: Cluster, resources: dict[str, Any], shown: int) -> None:
    if slurm.gpus < 2:
        pytest.skip("no device files that could stand for GPUs")
    asked = Resources(**resources)
    job = desk.submit("srun sh -c 'echo $SLURMD_NODENAME ${CUDA_VISIBLE_DEVICES:-none}'", asked)
    assert [s.state for s in desk.ended(job)] == ["COMPLETED"], desk.log()
    seen = desk.log().splitlines()
    assert len(seen) == len(set(seen)) == asked.ranks  # no two ranks have the same GPU
    assert all(len(line.split()[1].split(",")) == shown and "none" not in line for line in seen)


def test_what_it_is_called(desk: Desk, slurm: Cluster) -> None:
    job = desk.submit(resources=HOLD)
    assert slurm.run("squeue", "-h", "-j", job, "-o", "%j").strip() == "a_job"
    desk.cancel(job)


def test_options_by_their_keys(desk: Desk, slurm: Cluster) -> None:
    first, second, *_ = slurm.nodes
    slurm.run(
        *("scontrol", "create", "reservation", "reservationname=lesson", "starttime=now", "duration=10"),
        *(f"nodes={second}", f"users={slurm.layout.user}"),
    )
    asked = {"exclude": first, "nodelist": second, "licenses": "tool:1", "begin": "now+1hour", "wckey": "alloys"}
    mails = {"mail_type": ["fail", "time_limit_80"], "mail_user": "me@there"}
    job = desk.submit(resources=Resources(**asked, **mails, reservation="lesson"))
    shown = slurm.run("scontrol", "show", "job", job)
    desk.cancel(job)
    slurm.run("scontrol", "delete", "reservationname=lesson")
    for words in (
        *(f"ReqNodeList={second}", f"ExcNodeList={first}", "Licenses=tool:1", "Reservation=lesson"),
        *("Reason=BeginTime", "MailUser=me@there", "MailType=FAIL,TIME_LIMIT_80"),
    ):
        assert words in shown


@pytest.mark.parametrize("priority", [-7, -(10**12)])
def test_a_low_priority(desk: Desk, slurm: Cluster, priority: int) -> None:
    job = desk.submit(resources=Resources(priority=priority, slurm_cmd_args=["--hold"]))
    assert f"Nice={min(-priority, 2147483645)} " in slurm.run("scontrol", "show", "job", job)
    desk.cancel(job)


def test_dependencies(desk: Desk) -> None:
    bad, array = desk.submit("exit 1", HOLD), desk.submit("exit $SLURM_ARRAY_TASK_ID", HOLD, elements=2)
    kinds = {
        "ok": desk.submit(after=(Dependency("ok", JobId.parse(bad)),)),
        "any": desk.submit(after=(Dependency("any", JobId.parse(bad)), Dependency("any", JobId.parse(array)))),
        "element": desk.submit(
            after=(Dependency("ok", JobId.parse(f"{array}_0")), Dependency("any", JobId.parse(bad)))
        ),
        "corresponding": desk.submit(elements=2, after=(Dependency("corresponding", JobId.parse(array)),)),
    }
    until(lambda: {s.reason for s in desk.statuses(*kinds.values()).values()} == {"Dependency"})
    assert typed(["scontrol", "release", bad, array]).code == 0
    never, *others = desk.ended(
        kinds["ok"], kinds["any"], kinds["element"], f"{kinds['corresponding']}_0", f"{kinds['corresponding']}_1"
    )
    assert (never.state, never.reason) == ("CANCELLED", "DependencyNeverSatisfied")
    assert [s.state for s in others] == ["COMPLETED", "COMPLETED", "COMPLETED", "CANCELLED"]


def test_an_allocation_does_not_leak(desk: Desk, slurm: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    with slurm.allocation(1, "--ntasks=3", "--gres=gpu:1" if slurm.gpus else "--exclusive") as added:
        for name, value in added.items():
            monkeypatch.setenv(name, value)
        job = desk.submit("echo $SLURM_NTASKS ${CUDA_VISIBLE_DEVICES:-none}")
        assert [s.state for s in desk.ended(job)] == ["COMPLETED"]
    assert desk.log() == "1 none\n"


def test_a_submission_is_found(desk: Desk) -> None:
    token = uuid.uuid4().hex
    array = desk.submit(token=token, resources=HOLD, elements=3)
    other = desk.submit(resources=HOLD)
    assert dialect.found(typed(dialect.find(token)).out, token) == {token: array}
    assert dialect.found(typed(dialect.find("f" * 32)).out, "f" * 32) == {}
    desk.cancel(array, other)


# ------------------------------------------------------------------ refused


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        ({"partition": "nowhere"}, "invalid partition specified: nowhere; Invalid partition name specified"),
        ({"memory": 10**6}, "Memory specification can not be satisfied; Requested node configuration is not available"),
        ({"constraint": "nothing"}, "Invalid feature specification"),
        ({"gres": "nothing:1"}, "Invalid generic resource (gres) specification"),
        ({"licenses": "nothing"}, "Invalid license specification"),
        ({"reservation": "nothing"}, "Requested reservation is invalid"),
        ({"slurm_cmd_args": ["--nothing"]}, "unrecognized option '--nothing'"),
    ],
)
def test_mistakes(desk: Desk, resources: dict[str, Any], words: str) -> None:
    refusal = desk.refused(Resources(**resources))
    assert refusal.kind == "mistake"
    assert words in refusal.words


@pytest.mark.parametrize(
    ("resources", "reasons"),
    [
        ({"nodes": 99}, {"PartitionNodeLimit", "PartitionConfig"}),
        ({"partition": "short", "slurm_cmd_args": ["--time=600"]}, {"PartitionTimeLimit", "PartitionConfig"}),
    ],
)
def test_what_can_never_run(desk: Desk, resources: dict[str, Any], reasons: set[str]) -> None:
    job = desk.submit(resources=Resources(**resources))
    until(lambda: desk.statuses(job)[job].reason in reasons)
    assert all(reason_of(reason).hopeless for reason in reasons)
    desk.cancel(job)


def test_an_array_that_is_too_large(desk: Desk) -> None:
    most = dialect.max_array_size(typed(dialect.limits()).out)
    assert desk.refused(Resources(), elements=most + 1).words == "Invalid job array specification"
    desk.cancel(desk.submit(elements=most, resources=HOLD))


def test_a_controller_that_does_not_answer(desk: Desk, slurm: Cluster) -> None:
    with slurm.stalled():
        reply = typed(dialect.submit(desk.request("true")), timeout=1.0)
        assert (reply.code, dialect.refusal(reply).kind) == (None, "silent")
        refusal = desk.refused(Resources())  # Slurm's own time-out
        assert (refusal.kind, refusal.words) == ("silent", "Socket timed out on send/recv operation")
    slurm.cancel_all()  # what was typed may have been heard


def test_a_controller_that_is_not_there(desk: Desk, slurm: Cluster) -> None:
    slurm.stop_controller()
    refusal = desk.refused(Resources())
    assert refusal.kind == "silent"
    assert refusal.words.startswith("Unable to contact slurm controller")
    slurm.start_controller()


# ------------------------------------------------------------------ asking


def test_what_is_unknown_hides_nothing(desk: Desk) -> None:
    job = desk.submit(resources=HOLD)
    assert desk.statuses(UNKNOWN) == {}
    assert desk.statuses(UNKNOWN, f"{UNKNOWN}_3", "4000001") == {}
    assert desk.statuses(UNKNOWN, job) == {job: JobReport(job, "PENDING", "JobHeldUser")}
    assert desk.statuses(job) == {job: JobReport(job, "PENDING", "JobHeldUser")}
    reply = typed(dialect.status([job, UNKNOWN], mine=False))
    assert dialect.statuses(reply.out).keys() == {job}
    desk.cancel(job)


def test_more_jobs_than_can_be_named(desk: Desk) -> None:
    job = desk.submit(resources=HOLD)
    assert desk.statuses(*(str(n) for n in range(4_000_000, 4_020_000)), job)[job].phase == "waiting"
    desk.cancel(job)


def test_waiting_elements_in_any_pattern(desk: Desk) -> None:
    array = desk.submit(elements=1000, at_once=7, resources=HOLD)
    assert desk.statuses(array).keys() == {f"{array}_{n}" for n in range(1000)}
    desk.cancel(*(f"{array}_{n}" for n in range(1000) if n % 3 == 1 or n > 900))
    left = {f"{array}_{n}" for n in range(901) if n % 3 != 1}
    assert desk.statuses(array).keys() == left  # Slurm keeps nothing of elements that were cancelled before they began
    desk.cancel(array)
    assert {s.state for s in desk.ended(*left)} == {"CANCELLED"}


def test_cancelled_while_it_runs(desk: Desk, slurm: Cluster) -> None:
    array = desk.submit("sleep 600", elements=2)
    slurm.wait_for(f"{array}_0", "RUNNING")
    slurm.wait_for(f"{array}_1", "RUNNING")
    desk.cancel(f"{array}_1", UNKNOWN)
    assert desk.ended(f"{array}_1")[0].state == "CANCELLED"
    assert desk.statuses(array)[f"{array}_0"].phase == "running"
    desk.cancel(array)


def test_a_node_is_lost(desk: Desk, slurm: Cluster) -> None:
    job, again = desk.submit("sleep 600"), desk.submit("sleep 600", requeue=True)
    until(lambda: all(s.node for s in desk.statuses(job, again).values()))
    for status in desk.statuses(job, again).values():
        slurm.node_down(status.node)
    assert state_of(desk.ended(job)[0].state).error == "NodeFailure"
    until(lambda: desk.statuses(again)[again].phase == "waiting")
    desk.cancel(again)


def test_a_prolog_fails(desk: Desk, slurm: Cluster) -> None:
    with slurm.failing_prolog():
        once = desk.ended(desk.submit())[0]
        again = desk.submit(requeue=True)
        until(lambda: desk.statuses(again)[again].reason == "launch failed requeued held")
    assert (once.state, state_of(once.state).error) == ("LAUNCH_FAILED", "NodeFailure")
    assert once.node in slurm.nodes
    desk.cancel(again)


# ------------------------------------------------------------------ accounting


def histories(*jobs: str) -> dict[str, JobReport]:
    reply = typed(dialect.history(jobs))
    assert reply.code == 0, reply
    return dialect.histories(reply.out)


def test_history(accounted_desk: Desk, accounted_slurm: Cluster) -> None:
    desk = accounted_desk
    array = desk.submit("exit $SLURM_ARRAY_TASK_ID", elements=3)
    waits, runs = desk.submit(elements=2, resources=HOLD), desk.submit("sleep 600")
    accounted_slurm.wait_for(runs, "RUNNING")
    desk.cancel(runs)
    jobs = [f"{array}_0", f"{array}_1", f"{array}_2", runs]
    desk.ended(*jobs)
    until(lambda: {job for job, s in histories(*jobs).items() if s.phase == "ended"} == set(jobs))
    found = histories(*jobs, waits, UNKNOWN)
    assert [(found[job].state, found[job].exit_code) for job in jobs[:3]] == [
        ("COMPLETED", 0),
        ("FAILED", 1),
        ("FAILED", 2),
    ]
    assert found[runs].state == "CANCELLED"
    assert found[runs].reason.startswith("cancelled by user ")
    assert found[f"{waits}_1"].phase == "waiting"
    desk.cancel(waits)


def test_no_accounting(desk: Desk) -> None:
    reply = typed(dialect.history(["1"]))
    assert reply.code != 0
    assert dialect.histories(reply.out) == {}
