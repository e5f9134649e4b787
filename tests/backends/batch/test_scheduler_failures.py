"""Whatever ends a job from outside has a name: each failure is provoked on a real cluster."""

from __future__ import annotations

import re
import shlex
import signal
from collections.abc import Callable
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cluster import Cluster
from clusters import lend
from ending_calls import ask_when_told, save_and_return
from failing_calls import (
    Detached,
    add,
    failure,
    hold,
    on,
    places,
    put_before,
    starts,
    until_it_runs,
    until_submitted,
)
from this_machine import until

from callyard import Executor, JobCancelled, JobLost, NodeFailure, SchedulerError, TimeLimitExceeded
from callyard.backends.batch import delivery, scheduler_client
from callyard.backends.failed_nodes import FailedNodes
from callyard.jobs import spool
from callyard.schedulers.base import Status
from callyard.utils.command_thread import CommandThread

pytestmark = pytest.mark.once  # Slurm takes its time, and does the same whatever Python asks it


# ------------------------------------------------------------------ nodes


def test_a_node_is_taken_out_and_comes_back(detached: Callable[..., Executor], slurm: Cluster, tmp_path: Path) -> None:
    ex = detached(exclude_failed_nodes=True)
    lost = ex.submit(hold, str(tmp_path))
    node = until_it_runs(tmp_path)
    other = ex.submit(add, 1, 2)
    slurm.node_down(node)
    failure(lost, NodeFailure, node)
    assert other.result() == 3
    slurm.node_up(node)
    held = ex.submit(add, 3, 3, resource_dict={"slurm_cmd_args": "--hold"})
    until(lambda: held.job_id is not None)
    assert f" ExcNodeList={node}\n" in slurm.run("scontrol", "show", "job", str(held.job_id))
    assert held.cancel()
    assert ex.submit(add, 2, 2, resource_dict={"nodelist": node}).result() == 4  # the user asks for this one


def test_the_failed_node_of_several(
    detached: Callable[..., Executor], slurm: Cluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ex = detached(exclude_failed_nodes=True)
    lost = ex.submit(hold, str(tmp_path), resource_dict={"nodes": 2, "ranks": 1})
    node = until_it_runs(tmp_path)
    slurm.node_down(node)
    failure(lost, NodeFailure, node)
    until(lambda: f"no more jobs are submitted to {node}" in caplog.text)
    held = ex.submit(add, 3, 3, resource_dict={"slurm_cmd_args": "--hold"})
    until(lambda: held.job_id is not None)
    assert f" ExcNodeList={node}\n" in slurm.run("scontrol", "show", "job", str(held.job_id))
    assert held.cancel()
    slurm.node_up(node)


def test_nobody_says_which_node_of_several_has_failed(caplog: pytest.LogCaptureFixture) -> None:
    """That is said, once."""
    failed, commands = FailedNodes(wanted=True), CommandThread()
    client: Any = SimpleNamespace(failed_of=lambda nodes: ())
    for _ in range(2):
        commands.run(failed.learn(client, [Status("ended", "lost its node", failed_among="n[1-2]")]))
    assert failed.names == ()
    assert (
        caplog.text.count("a job on n[1-2] failed by a fault of a node, and the scheduler does not say of which") == 1
    )


def test_a_call_whose_node_was_lost_runs_again(ex: Executor, slurm: Cluster, tmp_path: Path) -> None:
    lost = ex.submit(hold, str(tmp_path), "at last", resource_dict={"restart_limit": 1})
    slurm.node_down(until_it_runs(tmp_path))
    slurm.wait_for(str(lost.job_id), "PENDING")
    slurm.run("scontrol", "update", f"jobid={lost.job_id}", "starttime=now")  # it would wait for a while
    until_it_runs(tmp_path, times=2)
    (tmp_path / "go").touch()
    assert lost.result() == "at last"


def test_a_prolog_fails(ex: Executor, slurm: Cluster) -> None:
    with slurm.failing_prolog():
        lost = ex.submit(add, 1, 2)
        failure(lost, NodeFailure, "prolog", log=False)
    assert ex.submit(add, 2, 2).result() == 4


def test_a_prolog_fails_although_the_call_may_run_again(ex: Executor, slurm: Cluster) -> None:
    with slurm.failing_prolog():
        lost = ex.submit(add, 1, 2, resource_dict={"restart_limit": 1})
        failure(lost, NodeFailure, "prolog", log=False)


def test_what_the_scheduler_notices_late(ex: Executor, slurm: Cluster, tmp_path: Path) -> None:
    """It looks at time limits twice a minute, and waits ten seconds for a node that is silent."""
    (tmp_path / "lost").mkdir()
    long, lost = (
        ex.submit(hold, str(tmp_path)),
        ex.submit(hold, str(tmp_path / "lost"), resource_dict=on(slurm.nodes[3])),
    )
    words = [tmp_path / "saving", tmp_path / "going on"]
    saving, going_on = ex.submit(save_and_return, words[0]), ex.submit(ask_when_told, words[1])
    node = until_it_runs(tmp_path)
    until(lambda: all(word.exists() for word in words))
    for over in (long, saving, going_on):
        slurm.run("scontrol", "update", f"jobid={over.job_id}", "timelimit=0")
    slurm.kill_node(until_it_runs(tmp_path / "lost"))
    assert ex.submit(add, 1, 2).result() == 3
    failure(long, TimeLimitExceeded, node, "time limit")
    assert saving.result() == "saved"
    assert going_on.result() == 2, "in another job"
    failure(lost, NodeFailure, slurm.nodes[3])
    slurm.start_node(slurm.nodes[3])
    assert ex.submit(add, 2, 2, resource_dict=on(slurm.nodes[3])).result() == 4


# ------------------------------------------------------------------ put back into the queue


def test_requeued(ex: Executor, slurm: Cluster, tmp_path: Path) -> None:
    """By an administrator, who need not mind how a job was submitted."""
    kept, lost = both = places(tmp_path, "kept", "lost")
    futures = [
        ex.submit(hold, str(place), place.name, resource_dict={"restart_limit": limit})
        for place, limit in zip(both, (1, 0), strict=True)
    ]
    for place, future in zip(both, futures, strict=True):
        until_it_runs(place)
        slurm.run("scontrol", "update", f"jobid={future.job_id}", "requeue=1")
        slurm.run("scontrol", "requeue", str(future.job_id))
    until_it_runs(kept, times=2)
    (kept / "go").touch()
    assert futures[0].result() == "kept"
    failure(futures[1], NodeFailure, "was lost once", "restart_limit of 0")
    assert len(starts(lost)) == 1


def test_preempted(ex: Executor, slurm: Cluster, tmp_path: Path) -> None:
    kept, lost = both = places(tmp_path, "kept", "lost")
    half = {"partition": "low", "nodes": 2, "exclusive": True}
    futures = [
        ex.submit(hold, str(place), place.name, resource_dict={**half, "restart_limit": limit})
        for place, limit in zip(both, (1, 0), strict=True)
    ]
    for place in both:
        until_it_runs(place)
    assert ex.submit(add, 1, 2, resource_dict={"nodes": 4, "exclusive": True}).result() == 3
    failure(futures[1], NodeFailure, "higher priority")
    until_it_runs(kept, times=2)
    (kept / "go").touch()
    assert futures[0].result() == "kept"
    assert len(starts(lost)) == 1


# ------------------------------------------------------------------ cancelled


def test_the_user_cancels_a_job(ex: Executor, slurm: Cluster, tmp_path: Path) -> None:
    running = ex.submit(hold, str(tmp_path))
    node = until_it_runs(tmp_path)
    other = ex.submit(add, 1, 2)
    slurm.run("scancel", str(running.job_id))
    failure(running, JobCancelled, node)
    assert other.result() == 3


def test_the_user_cancels_one_element(ex: Executor, slurm: Cluster, tmp_path: Path) -> None:
    three = places(tmp_path, "0", "1", "2")
    futures = [ex.submit(hold, str(place), place.name) for place in three]
    node = [until_it_runs(place) for place in three][1]
    assert str(futures[1].job_id).endswith("_1")
    slurm.run("scancel", str(futures[1].job_id))
    failure(futures[1], JobCancelled, node)
    for place in three:
        (place / "go").touch()
    assert [futures[0].result(), futures[2].result()] == ["0", "2"]


def test_an_administrator_cancels_whatever_a_user_has(ex: Executor, slurm: Cluster, tmp_path: Path) -> None:
    running = ex.submit(hold, str(tmp_path))
    waiting = ex.submit(add, 1, 2, resource_dict={"slurm_cmd_args": ["--begin=now+1hour"]})
    node, _ = until_it_runs(tmp_path), until_submitted(slurm, waiting)
    slurm.run("scancel", f"--user={slurm.layout.user}")
    failure(running, JobCancelled, node)
    failure(waiting, JobCancelled)
    assert ex.submit(add, 2, 2).result() == 4


# ------------------------------------------------------------------ dependencies


def test_a_dependent_has_the_failure_of_what_it_waits_for(ex: Executor, slurm: Cluster, tmp_path: Path) -> None:
    first = ex.submit(hold, str(tmp_path), 1)
    second = ex.submit(add, first, 2)
    third = ex.submit(add, second, 3)
    until_submitted(slurm, third)
    until_it_runs(tmp_path)
    slurm.run("scancel", str(first.job_id))
    error = failure(first, JobCancelled)
    for future, path in (second, "add <- hold"), (third, "add <- add <- hold"):
        inherited = future.exception(timeout=60)
        assert type(inherited) is JobCancelled
        assert str(inherited) == str(error)
        assert inherited.__notes__ == [f"callyard: {path}"]
    until(lambda: not slurm.jobs())


def test_a_dependency_of_the_users_own_that_can_never_be_satisfied(
    ex: Executor, slurm: Cluster, tmp_path: Path
) -> None:
    failed = slurm.run("sbatch", "--parsable", "--output=/dev/null", "--wrap", "exit 1").strip()
    slurm.wait_for(failed, "FAILED")
    never = ex.submit(add, 1, 2, resource_dict={"slurm_cmd_args": ["--hold"]})
    until(lambda: never.job_id is not None)
    slurm.run("scontrol", "update", f"jobid={never.job_id}", f"dependency=afterok:{failed}")
    slurm.run("scontrol", "release", str(never.job_id))
    failure(never, JobCancelled)


# ------------------------------------------------------------------ requests


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        ({"memory": 100}, "Memory specification can not be satisfied"),
        ({"partition": "none"}, "invalid partition specified: none"),
        ({"constraint": "nowhere"}, "Invalid feature specification"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_request_that_is_refused(ex: Executor, resources: dict[str, object], words: str) -> None:
    refused, other = ex.submit(add, 1, 2, resource_dict=resources), ex.submit(add, 2, 2)
    error = refused.exception(timeout=60)
    assert type(error) is SchedulerError
    assert "'add'" in str(error)
    assert words in str(error)
    assert other.result() == 4


@pytest.mark.parametrize(
    "resources",
    [{"nodes": 5}, {"cores_per_rank": 100}, {"run_time": 7200, "partition": "short"}],
    ids=["nodes", "cores", "time"],
)
def test_a_request_that_would_wait_for_ever(ex: Executor, slurm: Cluster, resources: dict[str, object]) -> None:
    hopeless, other = ex.submit(add, 1, 2, resource_dict=resources), ex.submit(add, 2, 2)
    failure(hopeless, SchedulerError, "can never run", "(Partition", log=False)
    assert other.result() == 4
    until(lambda: not slurm.jobs())


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"cores_per_rank": 999}, "ranks=1, cores_per_rank=999, and of "),
        ({"memory": 1e5}, "ranks=1, cores_per_rank=1, memory=100000 GiB, and of "),
        ({"gpus_per_rank": 9}, "ranks=1, cores_per_rank=1, gpus_per_rank=9, and of "),
        ({"nodes": 50, "ranks": 50}, "ranks=50, cores_per_rank=1, nodes=50, and of "),
    ],
)
def test_a_job_that_asks_for_too_much_is_told_what_there_is(ex: Executor, asked: dict[str, float], said: str) -> None:
    error = ex.submit(add, 1, 2, resource_dict=asked).exception()
    assert isinstance(error, SchedulerError)
    assert f"; it asks for {said}" in str(error)
    assert re.search(r"of \d+ nodes in its partition the largest have \d+ cores, [\d.]+ GiB and \d+ GPUs", str(error))


# ------------------------------------------------------------------ sbatch refuses, or does not answer

LIMITS = {
    "MaxJobCount": "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying",
    "MaxSubmitJobs": "sbatch: error: AssocMaxSubmitJobLimit\nsbatch: error: Batch job submission failed: "
    "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)",
}


@pytest.mark.parametrize("limit", LIMITS)
def test_a_limit_is_waited_for(
    slurm: Cluster,
    detached: Detached,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    limit: str,
) -> None:
    words = shlex.quote(LIMITS[limit])
    refusing = f'[ -e 2 ] && exec "$real" "$@"; [ -e 1 ] && touch 2; touch 1; printf %b\\\\n {words} >&2; exit 1'
    put_before(tmp_path / "bin", monkeypatch, "sbatch", refusing)
    ex = detached()
    assert ex.submit(add, 1, 2).result() == 3
    waits = [record.getMessage() for record in caplog.records if "later" in record.getMessage()]
    assert len(waits) == 2
    assert all(LIMITS[limit].split("\n")[0].removeprefix("sbatch: error: ") in text for text in waits)
    assert slurm.commands()["sbatch"] == 1


@pytest.mark.needs("slurmdbd")
def test_a_limit_of_a_real_cluster(
    tmp_path: Path, short_path: Path, detached: Detached, monkeypatch: pytest.MonkeyPatch
) -> None:
    enforced = {"AccountingStorageEnforce": "associations,limits"}
    with (
        Cluster(short_path / "b", nodes=1, accounting=True, settings=enforced) as cluster,
        contextmanager(lend)(cluster, monkeypatch),
    ):
        manage = "sacctmgr", "--immediate"
        cluster.run(*manage, "add", "account", "few")
        cluster.run(*manage, "add", "user", cluster.layout.user, "account=few", "maxsubmitjobs=2")
        names = "one", "two", "three"
        ex = detached(account="few")
        futures = [ex.submit(hold, str(tmp_path), name, resource_dict={"job_name": name}) for name in names]
        until(lambda: len(starts(tmp_path)) == 2)
        until(lambda: cluster.commands()["sbatch"] >= 4)  # the third is tried again
        assert len(cluster.jobs()) == 2
        (tmp_path / "go").touch()
        assert [future.result() for future in futures] == list(names)


def test_a_submission_that_was_not_answered_is_not_repeated(
    slurm: Cluster, detached: Detached, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = '[ -e 1 ] && exec "$real" "$@"; touch 1; "$real" "$@" >/dev/null; sleep 600'
    put_before(tmp_path / "bin", monkeypatch, "sbatch", hanging)
    monkeypatch.setattr(scheduler_client, "_TIME_LIMIT", 2.0)
    ex = detached()
    future = ex.submit(hold, str(tmp_path), "once")
    until(lambda: future.job_id is not None)
    (tmp_path / "go").touch()
    assert future.result() == "once"
    assert slurm.commands()["sbatch"] == 1
    assert len(starts(tmp_path)) == 1


def test_a_submission_that_got_nowhere_is_repeated(
    slurm: Cluster, detached: Detached, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_before(tmp_path / "bin", monkeypatch, "sbatch", '[ -e 1 ] && exec "$real" "$@"; touch 1; sleep 600')
    monkeypatch.setattr(scheduler_client, "_TIME_LIMIT", 2.0)
    ex = detached()
    assert ex.submit(add, 1, 2).result() == 3


# ------------------------------------------------------------------ the controller


def test_the_controller_is_killed_and_comes_back(ex: Executor, slurm: Cluster, tmp_path: Path) -> None:
    running = ex.submit(hold, str(tmp_path), "kept")
    until_it_runs(tmp_path)
    slurm.save(str(running.job_id))
    slurm.stop_controller(signal.SIGKILL)
    submitted_meanwhile = ex.submit(add, 1, 2)
    until(lambda: slurm.commands()["sbatch"] == 2)
    slurm.start_controller()
    (tmp_path / "go").touch()
    assert running.result() == "kept"
    assert submitted_meanwhile.result() == 3


def test_a_result_needs_no_controller(ex: Executor, slurm: Cluster, tmp_path: Path) -> None:
    running = ex.submit(hold, str(tmp_path), "kept")
    until_it_runs(tmp_path)
    with slurm.stalled():
        (tmp_path / "go").touch()
        assert running.result() == "kept"


def test_results_do_not_wait_for_a_question(
    slurm: Cluster, detached: Detached, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = 'touch asked; while [ ! -e answer ]; do sleep 0.02; done; exec "$real" "$@"'
    place = put_before(tmp_path / "bin", monkeypatch, "squeue", waiting)
    monkeypatch.setattr(scheduler_client, "_TIME_LIMIT", 600.0)
    running = detached().submit(hold, str(tmp_path), "kept")
    try:
        until_it_runs(tmp_path)
        until((place / "asked").exists)
        (tmp_path / "go").touch()
        assert running.result(timeout=60) == "kept"
    finally:
        (place / "answer").touch()


def test_the_end_does_not_wait_for_a_question(
    slurm: Cluster, detached: Detached, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = put_before(tmp_path / "bin", monkeypatch, "squeue", "touch asked; exec sleep 1000")
    monkeypatch.setattr(scheduler_client, "_TIME_LIMIT", 600.0)
    ex = detached()
    running = ex.submit(hold, str(tmp_path), "kept")
    until_it_runs(tmp_path)
    until((place / "asked").exists)
    (tmp_path / "go").touch()
    assert running.result() == "kept"
    ex.shutdown()


def test_what_was_submitted_during_a_question_is_not_judged_by_its_answer(
    slurm: Cluster, detached: Detached, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two answers in a row in which a job is missing would make it a lost one."""
    old = 'touch asked; while [ ! -e answer ]; do sleep 0.02; done; "$real" "$@"'
    place = put_before(tmp_path / "bin", monkeypatch, "squeue", old)
    monkeypatch.setattr(scheduler_client, "_TIME_LIMIT", 600.0)
    ex = detached()
    one, other = places(tmp_path, "one", "other")
    first = ex.submit(hold, str(one), 1)
    until((place / "asked").exists)
    commands = ex._running.backend.inner._commands  # type: ignore[attr-defined]
    second = ex.submit(hold, str(other), 2)
    until(lambda: bool(commands._waiting))  # it is to be submitted after the question
    (place / "answer").touch()
    until_it_runs(other)
    for each in one, other:
        (each / "go").touch()
    assert (first.result(), second.result()) == (1, 2)


def forget_all(cluster: Cluster) -> None:
    """Let the controller lose what it knows of jobs.

    It must not begin with the same numbers again: nodes remember for a while which jobs have ended, and refuse those.
    """
    cluster.stop_controller()
    conf = cluster.directory / "slurm.conf"
    text, _, first = conf.read_text().partition("FirstJobId=")
    conf.write_text(f"{text}FirstJobId={int(first or 0) + 10_000}\n")
    for path in (cluster.directory / "state").glob("job_state*"):
        path.unlink()
    cluster.start_controller("-i")  # newer ones do not start otherwise


def test_the_scheduler_has_forgotten_the_job(ex: Executor, slurm: Cluster, tmp_path: Path) -> None:
    lost = ex.submit(hold, str(tmp_path))
    until_it_runs(tmp_path)
    forget_all(slurm)
    failure(lost, JobLost, "not known to the scheduler")
    (tmp_path / "go").touch()
    assert ex.submit(add, 1, 2).result() == 3


def test_the_scheduler_has_forgotten_a_job_that_runs(slurm: Cluster, detached: Detached, tmp_path: Path) -> None:
    """Its node does not hear of that, so the job is not ended; as long as it shows signs of life it is waited for."""
    ex, other = detached(), detached()
    running = ex.submit(hold, str(tmp_path), "kept")
    node = until_it_runs(tmp_path)
    with slurm.stalled(node):
        forget_all(slurm)
        asked = slurm.commands()["squeue"]
        (begun,) = tmp_path.glob("cache/jobs/*/0.begun")
        before = begun.stat().st_mtime
        until(lambda: slurm.commands()["squeue"] > asked + 3)
        until(lambda: begun.stat().st_mtime > before + 4)  # `result_grace` is 1 s
        assert not running.done()
        again = other.submit(hold, str(tmp_path), "kept")
        until(lambda: again.job_id == running.job_id)
        (tmp_path / "go").touch()
        assert (running.result(), again.result()) == ("kept", "kept")
    assert len(starts(tmp_path)) == 1
    until(lambda: not slurm.jobs())


def test_what_the_controller_forgot_is_in_the_accounts(
    accounted_slurm: Cluster, detached: Detached, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = put_before(
        tmp_path / "bin",
        monkeypatch,
        "squeue",
        '[ ! -e deaf ] && exec "$real" "$@"; echo "Socket timed out" >&2; exit 1',
    )
    ex = detached()
    cancelled = ex.submit(hold, str(tmp_path))
    node = until_it_runs(tmp_path)
    (place / "deaf").touch()
    accounted_slurm.run("scancel", str(cancelled.job_id))
    sacct = "sacct", "-n", "-X", "-P", "-j", str(cancelled.job_id), "-o", "state"
    until(lambda: "CANCELLED" in accounted_slurm.run(*sacct))
    forget_all(accounted_slurm)
    (place / "deaf").unlink()
    failure(cancelled, JobCancelled, node)


# ------------------------------------------------------------------ files that are late


@pytest.mark.parametrize("what", ["the end", "the result"])
def test_what_becomes_visible_late_is_not_lost(
    slurm: Cluster, detached: Detached, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    hidden = [True]
    if what == "the end":
        names = spool.names
        hide = lambda path: [name for name in names(path) if not (hidden and name.endswith(".end"))]  # noqa: E731
        monkeypatch.setattr(spool, "names", hide)
    else:
        find = delivery.find
        monkeypatch.setattr(delivery, "find", lambda *args, **options: None if hidden else find(*args, **options))
    ex = detached(result_grace=300)
    future = ex.submit(add, 1, 2)
    job = until_submitted(slurm, future)
    slurm.wait_for(job, "COMPLETED")
    asked = slurm.commands()["squeue"]
    until(lambda: slurm.commands()["squeue"] > asked + 1)
    assert not future.done()
    hidden.clear()
    assert future.result() == 3


def test_what_stays_invisible_is_lost_until_it_appears(
    slurm: Cluster, detached: Detached, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ex = detached()
    with monkeypatch.context() as patch:
        patch.setattr(delivery, "find", lambda *args, **options: None)
        (tmp_path / "go").touch()
        failure(ex.submit(hold, str(tmp_path), 3), JobLost, "cannot be seen")
    again = ex.submit(hold, str(tmp_path), 3)
    assert again.result() == 3
    assert again.cached
    assert len(starts(tmp_path)) == 1


# ------------------------------------------------------------------ how much the controller is asked


def test_many_calls_cost_few_commands(slurm: Cluster, detached: Detached, tmp_path: Path) -> None:
    ex = detached()
    held = [ex.submit(add, number, 1, resource_dict={"slurm_cmd_args": ["--hold"]}) for number in range(200)]
    until(lambda: all(future.job_id for future in held))
    assert slurm.commands()["sbatch"] <= 5
    assert slurm.commands()["scontrol"] == 1
    for future in held:
        assert future.cancel()
    assert slurm.commands()["scancel"] <= 5
    until(lambda: not slurm.jobs())


def test_questions_become_rare(
    slurm: Cluster, detached: Detached, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = put_before(tmp_path / "bin", monkeypatch, "squeue", 'date +%s.%N >>times; exec "$real" "$@"')
    running = detached(poll=(0.2, 100)).submit(hold, str(tmp_path), "done")
    times = place / "times"
    until(lambda: times.exists() and len(times.read_text().split()) > 6)
    (tmp_path / "go").touch()
    moments = list(map(float, times.read_text().split()))
    pauses = [after - before for before, after in pairwise(moments)]
    assert all(pause > 0.2 * 1.25**number for number, pause in enumerate(pauses))
    assert running.result() == "done"


def test_nothing_is_asked_once_all_has_ended(slurm: Cluster, detached: Detached, tmp_path: Path) -> None:
    ex = detached(calls_per_job=5)
    assert list(ex.map(add, range(10), range(10))) == list(range(0, 20, 2))
    jobs = ex._running.backend.inner  # type: ignore[attr-defined]  # the backend behind the cache
    until(lambda: jobs._patience() is None)  # it sleeps until somebody submits a call
    asked = slurm.commands()
    assert ex.submit(add, 1, 1).result() == 2
    assert slurm.commands() == asked
    assert asked["sbatch"] <= 2
