"""Calls that are jobs of a real Grid Engine: what it does otherwise than Slurm, and its failures."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flux_calls as calls
import pytest
from grid import Grid
from grid_files import HOST
from this_machine import until

from callyard import (
    Executor,
    GridEngine,
    JobCancelled,
    OutOfMemory,
    ResourceError,
    SchedulerError,
    TimeLimitExceeded,
    WorkerLost,
)

pytestmark = [pytest.mark.once, pytest.mark.needs("gridengine")]

Jobs = Callable[..., Executor]


def executor(cache: Path | None, max_workers: int | None = None, **options: Any) -> Executor:
    settings = {"poll": (0.2, 1), "result_grace": 1, "parallel_environment": "smp", **options}
    return Executor(max_workers, backend=GridEngine(**settings), cache=cache)


@pytest.fixture
def jobs(results: Path) -> Iterator[Jobs]:
    """Make executors of the cluster that this process is pointed at; their jobs end with the test."""
    made: list[Executor] = []

    def create(max_workers: int | None = None, **options: Any) -> Executor:
        made.append(executor(results, max_workers, **options))
        return made[-1]

    yield create
    for each in made:
        each.kill_workers()
        each.shutdown()


@pytest.fixture
def ex(gridengine: Grid, jobs: Jobs) -> Executor:
    return jobs()


def begun(place: Path, times: int = 1) -> None:
    until(lambda: len(calls.starts(place)) >= times)


# ------------------------------------------------------------------ jobs


def test_calls_are_the_tasks_of_an_array(ex: Executor) -> None:
    futures = [ex.submit(about, i, resource_dict={"job_name": f"n{i // 3}"}) for i in range(6)]
    found = [future.result() for future in futures]
    assert [job for _, job, _ in found] == [future.job_id for future in futures]
    assert {(scheduler, node) for scheduler, _, node in found} == {("GridEngine", HOST)}
    arrays = {str(future.job_id).partition("_")[0] for future in futures}
    assert {str(future.job_id) for future in futures} == {f"{array}_{i}" for array in arrays for i in (1, 2, 3)}
    alone = ex.submit(about, 6)
    assert alone.result() == ("GridEngine", alone.job_id, HOST)
    assert str(alone.job_id).isdecimal()


def about(number: int) -> tuple[str, str, str]:
    return calls.about_the_job()


def test_layers_wait_task_by_task(gridengine: Grid, ex: Executor, tmp_path: Path) -> None:
    places = [tmp_path / str(i) for i in range(3)]
    for place in places:
        place.mkdir()
    held = [ex.submit(calls.hold, str(place), i) for i, place in enumerate(places)]
    after = [ex.submit(calls.add, future, 10) for future in held]
    (places[1] / "go").touch()
    assert after[1].result() == 11  # the others still run
    assert not held[0].done()
    for place in places:
        (place / "go").touch()
    assert [future.result() for future in after] == [10, 11, 12]


def test_a_graph_of_many_ways(ex: Executor) -> None:
    layer = [ex.submit(calls.add, i) for i in range(4)]
    after = [ex.submit(calls.add, layer[i], layer[(2 * i + 1) % 4]) for i in range(4)]
    assert [future.result() for future in after] == [i + (2 * i + 1) % 4 for i in range(4)]


def test_numbers_with_gaps_are_several_arrays(ex: Executor) -> None:
    first = [ex.submit(calls.add, i) for i in range(4)]
    second = [ex.submit(calls.add, first[i], 1) for i in (0, 1, 3)]
    assert [future.result() for future in second] == [1, 2, 4]


def test_max_workers_holds_within_an_array(jobs: Jobs, gridengine: Grid, tmp_path: Path) -> None:
    two = jobs(2)
    futures = [two.submit(calls.counted, f"{tmp_path}{'/.' * i}") for i in range(4)]
    assert max(future.result() for future in futures) <= 2


def test_a_job_that_is_submitted_from_a_job(ex: Executor, results: Path) -> None:
    outer, inner = ex.submit(job_in_a_job, str(results)).result()
    assert outer[1] != inner[1]


def job_in_a_job(results: str) -> tuple[tuple[str, str, str], tuple[str, str, str]]:
    with Executor(backend=GridEngine(poll=(0.2, 1), result_grace=2), cache=results) as ex:
        return calls.about_the_job(), ex.submit(calls.about_the_job).result()


def test_resources_go_to_grid_engine(gridengine: Grid, ex: Executor, tmp_path: Path) -> None:
    asked = {"queue": "all.q", "cores_per_rank": 3, "priority": -5, "constraint": "arch=lx-amd64", "run_time": 600}
    future = ex.submit(calls.hold, str(tmp_path), 1, resource_dict=asked)
    begun(tmp_path)
    told = gridengine.run("qstat", "-j", str(future.job_id))
    (tmp_path / "go").touch()
    assert future.result() == 1
    for line in ("smp range: 3", "priority:                   -5", "all.q", "arch=lx-amd64,h_rt=660"):
        assert line in told


def test_a_template_with_options_of_its_own(ex: Executor, jobs: Jobs) -> None:
    template = "#!/bin/bash\n#$ -pe smp 2\nexport SITE={{ site }}\n{{ command }}\n"
    future = jobs(template=template).submit(calls.variables, "SITE", "NSLOTS", resource_dict={"site": "x"})
    assert future.result() == {"SITE": "x", "NSLOTS": "2"}


@pytest.mark.needs("mpi")
def test_ranks_on_one_node(ex: Executor) -> None:
    found = ex.submit(calls.rank_of_node, resource_dict={"ranks": 2}).result()
    assert [(rank, size) for rank, size, _ in found] == [(0, 2), (1, 2)]


def test_a_cache_below_a_name_that_grid_engine_would_replace(
    gridengine: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CALLYARD_RUNS", str(tmp_path / "runs"))
    place = tmp_path / "a:b,$JOB_ID c"
    with executor(place) as ex:
        assert isinstance(ex.submit(calls.say_and_fail, "hello").exception(), ValueError)
    assert any("hello" in log.read_text() for log in place.glob("jobs/*/*.log"))


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"queue": "nosuch.q"}, 'unknown queue "nosuch.q"'),
        ({"account": "nosuch"}, 'the requested project "nosuch" does not exist'),
        ({"cores_per_rank": 999}, r"no suitable queues.*cores_per_rank=999"),
        ({"constraint": "nosuch=1"}, 'unknown resource "nosuch"'),
        ({"priority": 3}, "give other calls one below 0"),
    ],
)
def test_what_is_refused_is_told_in_its_words(ex: Executor, asked: dict[str, object], words: str) -> None:
    with pytest.raises(SchedulerError, match=words):
        ex.submit(calls.add, 1, resource_dict=asked).result()


def test_what_means_nothing_to_grid_engine_is_refused(ex: Executor, jobs: Jobs) -> None:
    for asked, words in (
        ({"restart_limit": 2}, "does not count how often"),
        ({"partition": "x"}, "Grid Engine calls it queue="),
        ({"nodes": 2, "ranks": 2}, "jobs of Grid Engine are on one node"),
        ({"gpus_per_rank": 1}, "gpu_resource='gpu'"),
    ):
        with pytest.raises(ResourceError, match=words):
            ex.submit(calls.add, 1, resource_dict=asked)
    with pytest.raises(ResourceError, match="qconf -spl"):
        jobs(parallel_environment=None).submit(calls.add, 1, resource_dict={"cores_per_rank": 2})


def test_a_limit_on_the_number_of_jobs_is_waited_for(gridengine: Grid, jobs: Jobs, tmp_path: Path) -> None:
    gridengine.reconfigure(max_u_jobs="1")
    try:
        quick = jobs(poll=(0.2, 0.4))
        held = quick.submit(calls.hold, str(tmp_path), 1)
        begun(tmp_path)
        second = quick.submit(calls.add, 2)
        (tmp_path / "go").touch()
        assert (held.result(), second.result()) == (1, 2)
    finally:
        gridengine.reconfigure(max_u_jobs="0")


def test_a_machine_without_a_cluster(gridengine: Grid, jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SGE_ROOT", "/nowhere")
    with pytest.raises(SchedulerError, match="no Grid Engine cluster is configured here"):
        jobs().submit(calls.add, 1).result()


# ------------------------------------------------------------------ ends


def test_the_time_limit_of_a_job(jobs: Jobs, gridengine: Grid, tmp_path: Path) -> None:
    future = jobs(walltime=1).submit(calls.hold, str(tmp_path))
    with pytest.raises(TimeLimitExceeded, match="reached its time limit"):
        future.result()


def test_run_time_and_memory_are_kept_by_the_job(ex: Executor, tmp_path: Path) -> None:
    slow = ex.submit(calls.hold, str(tmp_path), resource_dict={"run_time": 0.5, "grace": 0.2})
    large = ex.submit(bytearray, 1 << 30, resource_dict={"memory": 0.1})
    with pytest.raises(TimeLimitExceeded):
        slow.result()
    with pytest.raises((OutOfMemory, MemoryError)):
        large.result()


def test_a_job_that_somebody_deletes(gridengine: Grid, ex: Executor, journal: str) -> None:
    future = ex.submit(begin_and_wait_for_end, journal)
    until(lambda: Path(journal).exists())
    gridengine.run("qdel", str(future.job_id))
    with pytest.raises(JobCancelled, match="was cancelled"):
        future.result()
    # The job hears of its end by SIGUSR2, and the call as elsewhere.
    assert Path(journal).read_text() == "begins\nSystemExit\n"


def begin_and_wait_for_end(journal: str) -> None:
    calls.note(journal, "begins")
    calls.wait_for_end(journal)


def test_a_call_that_is_cancelled_ends_its_job(gridengine: Grid, ex: Executor, tmp_path: Path) -> None:
    held = ex.submit(calls.hold, str(tmp_path), 1)
    after = ex.submit(calls.add, held)
    until(lambda: after.job_id is not None)
    assert after.cancel()
    until(lambda: str(after.job_id) not in gridengine.jobs())
    (tmp_path / "go").touch()
    assert held.result() == 1


def test_the_failure_of_an_input_is_that_of_all_that_follow(gridengine: Grid, ex: Executor) -> None:
    failed = ex.submit(calls.add, "x")
    last = ex.submit(calls.add, ex.submit(calls.add, failed))
    assert isinstance(last.exception(), TypeError)
    until(lambda: not gridengine.jobs())


def test_ends_that_mean_something_to_grid_engine(gridengine: Grid, ex: Executor) -> None:
    """It would start a job with the first of these exit codes again, and hold one with the second."""
    exited = [ex.submit(os._exit, code) for code in (99, 100)]
    killed = ex.submit(kill_the_job)
    for future in exited:
        assert isinstance(future.exception(), WorkerLost)
    with pytest.raises(WorkerLost, match="SIGKILL"):
        killed.result()
    until(lambda: not gridengine.jobs())


def kill_the_job() -> None:
    os.kill(os.getppid(), 9)
    os.kill(os.getpid(), 9)


# ------------------------------------------------------------------ losses


def test_an_answer_that_is_lost(
    gridengine: Grid, jobs: Jobs, tmp_path: Path, journal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command is killed when Grid Engine has taken the jobs: they are found by their name, and submitted once."""
    place = tmp_path / "bin"
    place.mkdir()
    program = place / "qsub"
    program.write_text(
        f'#!/bin/bash\nif mkdir {tmp_path}/lost 2>/dev/null; then {shutil.which("qsub")} "$@" >/dev/null; kill -9 $$; '
        f'fi\nexec {shutil.which("qsub")} "$@"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}{os.pathsep}{os.environ['PATH']}")
    ex = jobs()
    futures = [ex.submit(calls.noted, journal, i) for i in range(3)]
    assert [future.result() for future in futures] == list(range(3))
    assert sorted(Path(journal).read_text().split()) == list("012")
    assert (tmp_path / "lost").is_dir()


def test_jobs_outlive_their_driver(gridengine: Grid, ex: Executor, results: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; import flux_calls as calls; from test_gridengine import executor\n"
        "ex = executor(Path(sys.argv[1]))\n"
        "held = ex.submit(calls.hold, sys.argv[2], 7); after = ex.submit(calls.add, held, 1)\n"
        "from this_machine import until; until(lambda: held.job_id and after.job_id)\n"
        "print(held.job_id, after.job_id, flush=True); sys.stdin.read()"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    argv = [sys.executable, "-c", code, str(results), str(tmp_path)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) as driver:
        assert driver.stdout is not None
        names = driver.stdout.readline().split()
        driver.kill()
    held = ex.submit(calls.hold, str(tmp_path), 7)
    after = ex.submit(calls.add, held, 1)
    begun(tmp_path)
    (tmp_path / "go").touch()
    assert after.result() == 8
    assert [held.job_id, after.job_id] == names
    assert len(calls.starts(tmp_path)) == 1


def test_a_master_that_is_away_for_a_while(gridengine: Grid, ex: Executor, tmp_path: Path) -> None:
    held = ex.submit(calls.hold, str(tmp_path), 1)
    begun(tmp_path)
    with gridengine.stalled():
        (tmp_path / "go").touch()
        assert held.result() == 1  # its files tell
