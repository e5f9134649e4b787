"""Calls that are jobs of a real instance of Flux: what it does otherwise than Slurm, and its failures."""

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
from instance import Instance
from instances import lend
from this_machine import until

from callyard import (
    Executor,
    Flux,
    JobCancelled,
    NodeFailure,
    OutOfMemory,
    ResourceError,
    SchedulerError,
    TimeLimitExceeded,
)

pytestmark = [pytest.mark.once, pytest.mark.needs("flux")]

Jobs = Callable[..., Executor]


def executor(cache: Path | None, max_workers: int | None = None, **options: Any) -> Executor:
    return Executor(
        max_workers, backend=Flux(**{"detached": True, "poll": (0.2, 1), "result_grace": 1, **options}), cache=cache
    )


@pytest.fixture
def jobs(results: Path) -> Iterator[Jobs]:
    """Make executors of the instance that this process is pointed at; their jobs end with the test."""
    made: list[Executor] = []

    def create(max_workers: int | None = None, **options: Any) -> Executor:
        made.append(executor(results, max_workers, **options))
        return made[-1]

    yield create
    for each in made:
        each.kill_workers()
        each.shutdown()


@pytest.fixture
def ex(flux: Instance, jobs: Jobs) -> Executor:
    return jobs()


def begun(place: Path, times: int = 1) -> None:
    until(lambda: len(calls.starts(place)) >= times)


# ------------------------------------------------------------------ jobs


def test_calls_are_jobs_of_their_own(flux: Instance, ex: Executor) -> None:
    futures = [ex.submit(calls.add, i, 1) for i in range(12)]
    assert [future.result() for future in futures] == list(range(1, 13))
    names = [future.job_id for future in futures]
    assert len(set(names)) == 12
    assert set(names) <= flux.jobs("-a").keys()


def test_a_job_knows_itself(ex: Executor) -> None:
    future = ex.submit(calls.about_the_job)
    scheduler, job, node = future.result()
    assert (scheduler, job) == ("Flux", future.job_id)
    assert node in {"n1", "n2", "n3", "n4"}


def test_each_call_waits_for_its_own_inputs_alone(ex: Executor, tmp_path: Path) -> None:
    held, free = ex.submit(calls.hold, str(tmp_path), 1), ex.submit(calls.add, 2)
    after_both, after_free = ex.submit(calls.add, held, free), ex.submit(calls.add, free, 5)
    assert after_free.result() == 7  # though it is submitted together with one that has to wait
    assert not after_both.done()
    (tmp_path / "go").touch()
    assert after_both.result() == 3


def test_a_graph_of_many_ways(ex: Executor) -> None:
    layer = [ex.submit(calls.add, i) for i in range(6)]
    for step in range(1, 4):
        layer = [ex.submit(calls.add, layer[i], layer[(i * step + 1) % 6]) for i in range(6)]
    values = list(range(6))
    for step in range(1, 4):
        values = [values[i] + values[(i * step + 1) % 6] for i in range(6)]
    assert [future.result() for future in layer] == values


def test_max_workers_holds_over_all_submissions(flux: Instance, jobs: Jobs, tmp_path: Path) -> None:
    two = jobs(2)
    first = [two.submit(calls.counted, str(tmp_path)) for _ in range(3)]
    first[0].result()
    second = [two.submit(calls.counted, f"{tmp_path}/.") for _ in range(3)]
    assert max(future.result() for future in [*first, *second]) <= 2


def test_a_job_that_is_submitted_from_a_job(ex: Executor, results: Path) -> None:
    outer, inner = ex.submit(calls.job_in_a_job, str(results)).result()
    assert outer[1] != inner[1]


def test_what_a_failed_call_printed_is_in_its_log(ex: Executor, results: Path) -> None:
    failed = ex.submit(calls.say_and_fail, "hello")
    assert isinstance(failed.exception(), ValueError)
    # Flux writes the two streams down by itself, so perhaps after the end of the call, and in another order.
    until(lambda: any({"hello", "HELLO"} <= set(log.read_text().split()) for log in results.glob("jobs/*/*.log")))


def test_a_cache_below_a_name_that_flux_would_replace(
    flux: Instance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CALLYARD_RUNS", str(tmp_path / "runs"))
    place = tmp_path / "a {{id}} %j"
    with executor(place) as ex:
        assert isinstance(ex.submit(calls.say_and_fail, "hello").exception(), ValueError)
    until(lambda: any("hello" in log.read_text() for log in place.glob("jobs/*/*.log")))


def test_resources_go_to_flux(ex: Executor, flux: Instance) -> None:
    future = ex.submit(
        calls.about_the_job, resource_dict={"constraint": "host:n2", "cores_per_rank": 3, "priority": -2}
    )
    assert future.result()[2] == "n2"
    wanted = flux.run("jobs", "-n", "-o", "{ncores} {urgency} {name}", str(future.job_id)).split()
    assert wanted[:2] == ["3", "14"]
    assert wanted[2].startswith("about_the_job.")


def test_a_template_with_options_of_its_own(flux: Instance, jobs: Jobs) -> None:
    template = "#!/bin/bash\n# flux: --requires=host:n3 --cores-per-task=2\nexport SITE={{ site }}\n{{ command }}\n"
    future = jobs(template=template).submit(calls.variables, "SITE", "CALLYARD_FLUX_NODE", resource_dict={"site": "x"})
    assert future.result() == {"SITE": "x", "CALLYARD_FLUX_NODE": "n3"}
    assert flux.run("jobs", "-n", "-o", "{ncores}", str(future.job_id)).strip() == "2"


@pytest.mark.needs("mpi")
def test_ranks_on_one_node(ex: Executor) -> None:
    found = ex.submit(calls.rank_of_node, resource_dict={"ranks": 2}).result()
    assert [(rank, size) for rank, size, _ in found] == [(0, 2), (1, 2)]


@pytest.mark.needs("mpi")
def test_ranks_on_several_nodes(flux: Instance, ex: Executor) -> None:
    found = ex.submit(calls.rank_of_node, resource_dict={"ranks": 2, "nodes": 2}).result()
    assert [(rank, size) for rank, size, _ in found] == [(0, 2), (1, 2)]
    assert len({uri for _, _, uri in found}) == 2
    until(lambda: not flux.jobs())  # the instance of the job ends later than the call


# ------------------------------------------------------------------ refusals


def test_what_flux_refuses_is_told_in_its_words(ex: Executor) -> None:
    future = ex.submit(calls.add, 1, resource_dict={"queue": "nosuch"})
    with pytest.raises(SchedulerError, match="'nosuch' is not a valid queue"):
        future.result()


def test_what_can_never_run_is_told_at_once(flux: Instance, jobs: Jobs) -> None:
    patient = jobs(result_grace=1000)
    future = patient.submit(calls.add, 1, resource_dict={"cores_per_rank": 99})
    with pytest.raises(ResourceError, match=r"need 1 slot\(s\) of 99 core\(s\).*ask for something else"):
        future.result()


def test_what_means_nothing_to_flux_is_refused(ex: Executor) -> None:
    with pytest.raises(ResourceError, match="starts no job again"):
        ex.submit(calls.add, 1, resource_dict={"restart_limit": 2})
    with pytest.raises(ResourceError, match="Flux calls it queue="):
        ex.submit(calls.add, 1, resource_dict={"partition": "x"})


def test_a_machine_without_an_instance(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLUX_URI", raising=False)
    if Path("/run/flux/local").exists():
        pytest.skip("this machine has an instance")
    with pytest.raises(SchedulerError, match="no instance of Flux runs here"):
        jobs().submit(calls.add, 1).result()


# ------------------------------------------------------------------ ends


def test_the_time_limit_of_a_job(flux: Instance, jobs: Jobs, journal: str) -> None:
    future = jobs(walltime=2).submit(calls.wait_for_end, journal)
    with pytest.raises(TimeLimitExceeded, match="reached its time limit"):
        future.result()
    assert Path(journal).read_text() == "SystemExit\n"  # Flux sends SIGALRM, and the call hears what it hears elsewhere


def test_run_time_and_memory_are_kept_by_the_job(ex: Executor, tmp_path: Path) -> None:
    slow = ex.submit(calls.hold, str(tmp_path), resource_dict={"run_time": 0.5, "grace": 0.2})
    large = ex.submit(bytearray, 1 << 30, resource_dict={"memory": 0.1})
    with pytest.raises(TimeLimitExceeded):
        slow.result()
    with pytest.raises((OutOfMemory, MemoryError)):
        large.result()


def test_a_job_that_somebody_cancels(flux: Instance, ex: Executor, tmp_path: Path) -> None:
    future = ex.submit(calls.hold, str(tmp_path))
    begun(tmp_path)
    flux.run("cancel", str(future.job_id))
    with pytest.raises(JobCancelled, match="was cancelled"):
        future.result()


def test_a_call_that_is_cancelled_ends_its_job(flux: Instance, ex: Executor, tmp_path: Path) -> None:
    held = ex.submit(calls.hold, str(tmp_path), 1)
    after = ex.submit(calls.add, held)
    until(lambda: after.job_id is not None)
    assert after.cancel()
    until(lambda: flux.jobs("-a")[str(after.job_id)] == "CANCELED")
    (tmp_path / "go").touch()
    assert held.result() == 1


def test_the_failure_of_an_input_is_that_of_all_that_follow(ex: Executor) -> None:
    failed = ex.submit(calls.add, "x")
    last = ex.submit(calls.add, ex.submit(calls.add, failed))
    assert isinstance(last.exception(), TypeError)


# ------------------------------------------------------------------ losses


def _wrapped(place: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Put a program `flux` in front of the real one, "$FLUX"."""
    place.mkdir()
    program = place / "flux"
    program.write_text(f"#!/bin/bash\nFLUX={shutil.which('flux')}\n{text}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}{os.pathsep}{os.environ['PATH']}")


def test_an_answer_that_is_lost(
    flux: Instance, jobs: Jobs, tmp_path: Path, journal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program is killed when Flux has taken the jobs: they are found by their names, and submitted once."""
    once = (
        f'if [ "${{@: -1}}" = submit ] && mkdir {tmp_path}/lost 2>/dev/null; then $FLUX "$@" >/dev/null; kill -9 $$; fi'
    )
    _wrapped(tmp_path / "bin", monkeypatch, f'{once}\nexec $FLUX "$@"')
    ex = jobs()
    futures = [ex.submit(calls.noted, journal, i) for i in range(5)]
    assert [future.result() for future in futures] == list(range(5))
    assert sorted(Path(journal).read_text().split()) == list("01234")
    assert (tmp_path / "lost").is_dir()
    assert {future.job_id for future in futures} <= flux.jobs("-a").keys()


def test_jobs_outlive_their_driver(flux: Instance, ex: Executor, results: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; import flux_calls as calls; from test_flux import executor\n"
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


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Instance]:
    """An instance that may be damaged."""
    with Instance(tmp_path / "own", nodes=2) as instance:
        lend(instance, monkeypatch)
        yield instance


def test_a_node_that_is_lost(own: Instance, jobs: Jobs, tmp_path: Path) -> None:
    future = jobs().submit(calls.hold, str(tmp_path), resource_dict={"constraint": "host:n2"})
    begun(tmp_path)
    own.kill_broker(1)
    with pytest.raises(NodeFailure, match=r"on n2 lost one of its nodes \(node failure on n2"):
        future.result()
    (tmp_path / "go").touch()  # its process goes on where only the broker died


def test_an_instance_that_starts_again_goes_on_with_what_waited(
    own: Instance, jobs: Jobs, journal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own.run("queue", "stop")
    future = jobs().submit(calls.noted, journal, 3)
    until(lambda: future.job_id is not None)
    own.run("shutdown", "--quiet")
    until(lambda: not own.is_up())
    own.start()
    lend(own, monkeypatch)
    own.run("queue", "start")
    assert future.result() == 3
    assert Path(journal).read_text() == "3\n"
