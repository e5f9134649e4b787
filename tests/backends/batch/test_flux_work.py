"""Days with Flux: what users of other libraries do with it, in a real instance."""

from __future__ import annotations

from pathlib import Path

import flux_calls as calls
import pytest
from instance import Instance
from instances import FluxJobs
from this_machine import until

from callyard import Executor, Flux, JobCancelled, SchedulerError, TimeLimitExceeded
from callyard.cli import main

pytestmark = [pytest.mark.once, pytest.mark.needs("flux")]


@pytest.fixture
def ex(flux: Instance, flux_jobs: FluxJobs) -> Executor:
    return flux_jobs()


def test_threads_of_a_call(ex: Executor, flux: Instance) -> None:
    future = ex.submit(calls.variables, "OMP_NUM_THREADS", resource_dict={"threads_per_core": 2})
    assert future.result() == {"OMP_NUM_THREADS": "2"}
    assert flux.run("jobs", "-n", "-a", "-o", "{ncores}", str(future.job_id)).strip() == "2"


def test_a_directory_that_is_made(ex: Executor, tmp_path: Path) -> None:
    assert ex.submit(Path.cwd, resource_dict={"cwd": tmp_path / "a/b"}).result() == tmp_path / "a/b"


@pytest.mark.needs("mpi")
def test_calls_on_ranks_are_mapped(ex: Executor) -> None:
    found = list(ex.with_resources(cores=2).map(calls.with_rank, [1, 2]))
    assert found == [[(1, 2, 0), (1, 2, 1)], [(2, 2, 0), (2, 2, 1)]]


@pytest.mark.needs("mpi")
def test_ranks_on_each_of_whole_nodes(flux: Instance, ex: Executor) -> None:
    asked = {"ranks": 4, "ranks_per_node": 2, "exclusive": True}
    found = ex.submit(calls.rank_of_node, resource_dict=asked).result()
    assert [(rank, size) for rank, size, _ in found] == [(rank, 4) for rank in range(4)]
    uris = [uri for _, _, uri in found]
    assert [uris.count(uri) for uri in dict.fromkeys(uris)] == [2, 2]
    until(lambda: not flux.jobs())


@pytest.mark.needs("mpi")
def test_ranks_that_flux_starts_on_one_node_are_within_their_job(
    flux: Instance, ex: Executor, flux_jobs: FluxJobs
) -> None:
    before = len(flux.jobs("-a"))
    bound = ex.submit(calls.rank_of_node, resource_dict={"ranks": 2, "cpu_bind": "off"})
    by_plugin = flux_jobs(mpi="simple").submit(calls.rank_of_node, resource_dict={"ranks": 2, "env": {"A": "1"}})
    for future in (bound, by_plugin):
        assert [(rank, size) for rank, size, _ in future.result()] == [(0, 2), (1, 2)]
    assert len(flux.jobs("-a")) == before + 2
    until(lambda: not flux.jobs())  # the instance of a job ends later than its call


def test_one_call_takes_too_long_and_another_does_not(ex: Executor, tmp_path: Path) -> None:
    late = ex.submit(calls.hold, str(tmp_path), resource_dict={"run_time_max": 1, "grace": 0.1})
    fine = ex.submit(calls.add, 2, resource_dict={"run_time_max": 60})
    assert fine.result() == 2
    with pytest.raises(TimeLimitExceeded):
        late.result()


def test_the_keywords_of_an_init_function(flux: Instance, results: Path) -> None:
    with Executor(backend=Flux(detached=True), cache=results, init_function=calls.memory) as ex:
        assert ex.submit(calls.get_memory).result() == [5]


def test_a_template_whose_queue_is_not_there(flux_jobs: FluxJobs, flux: Instance) -> None:
    template = "#!/bin/bash\n# flux: --queue={{ queue }} --dependency=begin-time:0\n{{ command }}\n"
    ex = flux_jobs(template=template)
    with pytest.raises(SchedulerError, match="'test' is not a valid queue"):
        ex.submit(calls.add, 1, resource_dict={"queue": "test"}).result()


def test_what_is_cancelled_at_shutdown_runs_at_the_next_submission(
    flux: Instance, flux_jobs: FluxJobs, tmp_path: Path
) -> None:
    first = flux_jobs()
    future = first.submit(calls.hold, str(tmp_path), 3)
    until(lambda: future.job_id is not None)
    first.shutdown(wait=False, cancel_futures=True)
    if not future.cancelled():  # it had begun
        first.kill_workers()
    until(lambda: not flux.jobs())
    (tmp_path / "go").touch()
    assert flux_jobs().submit(calls.hold, str(tmp_path), 3).result() == 3


def test_a_result_that_was_damaged_is_computed_again(flux_jobs: FluxJobs, flux: Instance, results: Path) -> None:
    first = flux_jobs().submit(calls.add, 20, 3)
    assert first.result() == 23
    (record,) = results.glob("*/*.h5")
    record.write_bytes(b"half of a file")
    ex = flux_jobs()
    with pytest.warns(UserWarning, match="damaged"):
        second = ex.submit(calls.add, 20, 3)
    assert second.result() == 23
    assert second.job_id != first.job_id


def test_cancelling_from_the_command_line(
    ex: Executor, flux: Instance, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    future = ex.submit(calls.hold, str(tmp_path))
    until(lambda: len(calls.starts(tmp_path)) == 1)
    assert main(["cancel", str(results), "--all", "--yes"]) == 0
    assert str(future.job_id) in capsys.readouterr().out
    with pytest.raises(JobCancelled, match="cancelled"):
        future.result()
    until(lambda: not flux.jobs())


def test_a_call_without_a_cache_leaves_nothing(flux: Instance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLYARD_RUNS", str(tmp_path / "runs"))
    with Executor(backend=Flux(detached=True)) as ex:
        assert ex.submit(calls.add, 1, 2).result() == 3
    assert not list((tmp_path / "runs").glob("*/jobs/*"))
