"""What only jobs have: arrays and dependencies of the scheduler's own, options of sbatch, scripts."""

from __future__ import annotations

import os
import re
import shutil
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future as StandardFuture
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import detached_calls as calls
import pytest
from cluster import Cluster
from clusters import lend
from gate import Gate
from this_machine import until

from callyard import Cache, CallyardError, Executor, ResourceError, SchedulerError, Slurm, batched, item, unzip
from callyard.errors import WorkerLost
from callyard.futures import Future
from callyard.hashing.encoder import _registered as registered

pytestmark = pytest.mark.once

Jobs = Callable[..., Executor]
SEEN = ("SLURMD_NODENAME", "CUDA_VISIBLE_DEVICES", "SLURM_STEP_NUM_TASKS", "FOUND")
HELD = {"slurm_cmd_args": ["--hold"]}  # to see what is submitted, without waiting for it to run


@contextmanager
def executors(results: Path) -> Iterator[Jobs]:
    """Make executors whose calls are jobs; those that have not ended then are cancelled."""
    made: list[Executor] = []

    def create(
        max_workers: int | None = None,
        resource_dict: dict[str, Any] | None = None,
        cache: Path | None = results,
        **options: Any,
    ) -> Executor:
        backend = Slurm(**{"poll": (0.2, 1), "result_grace": 2, **options})
        made.append(Executor(max_workers, backend=backend, cache=cache, resource_dict=resource_dict))
        return made[-1]

    yield create
    for each in made:
        each.kill_workers()
        each.shutdown()


@pytest.fixture
def jobs(slurm: Cluster, results: Path) -> Iterator[Jobs]:
    with executors(results) as create:
        yield create


def submitted(cluster: Cluster, futures: Sequence[Future[Any]]) -> list[str]:
    """Wait until calls are submitted; how each job is called."""
    until(lambda: all(future.job_id for future in futures))
    return [str(future.job_id) for future in futures]


def array_of(job: str) -> str:
    return job.partition("_")[0]


def asked(cluster: Cluster, future: Future[Any], field: str) -> str:
    """What the controller says was asked for, such as `TimeLimit`."""
    (job,) = submitted(cluster, [future])
    found = re.search(rf"\b{field}=(\S*)", cluster.run("scontrol", "-o", "show", "job", job))
    assert found is not None, field
    return found[1]


def notes(future: Future[Any]) -> list[str]:
    return getattr(future.exception(), "__notes__", [])


# ------------------------------------------------------------------ arrays


def test_a_hundred_calls_are_one_submission(jobs: Jobs, slurm: Cluster) -> None:
    ex = jobs(20, HELD)
    names = submitted(slurm, [ex.submit(calls.successor, i) for i in range(100)])
    assert slurm.commands()["sbatch"] == 1
    assert names == [f"{array_of(names[0])}_{i}" for i in range(100)]
    assert set(slurm.jobs()) == set(names)
    assert "ArrayTaskThrottle=20" in slurm.run("scontrol", "-o", "show", "job", array_of(names[0]))


def test_arrays_are_split_at_the_clusters_limit(
    short_path: Path, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Cluster(short_path / "c", nodes=1, max_array_size=4) as small:
        for cluster in lend(small, monkeypatch):
            with executors(results) as jobs:
                ex = jobs(resource_dict=HELD)
                first = [ex.submit(calls.successor, i) for i in range(10)]
                then = [ex.submit(calls.successor, future) for future in first]
                names = submitted(cluster, [*first, *then])
                assert sorted(Counter(map(array_of, names)).values()) == [2, 2, 4, 4, 4, 4]


def test_no_more_elements_at_once_than_max_workers(jobs: Jobs, slurm: Cluster, gate: Gate) -> None:
    ex = jobs(2)
    futures = [ex.submit(gate.hold, i) for i in range(3)]
    gate.arrived(2)
    assert sorted(slurm.jobs().values()) == ["PENDING", "RUNNING", "RUNNING"]
    gate.open(3)
    assert [future.result() for future in futures] == [0, 1, 2]


def test_several_calls_in_one_job(jobs: Jobs, slurm: Cluster) -> None:
    ex = jobs(calls_per_job=3)
    futures = [ex.submit(calls.inverse, i) for i in range(4)]
    after = ex.submit(calls.add, *futures[1:])
    assert after.result() == 1 + 1 / 2 + 1 / 3
    assert isinstance(futures[0].exception(), ZeroDivisionError)
    assert slurm.commands()["sbatch"] == 2
    names = submitted(slurm, futures)
    assert len(set(names)) == 2
    assert names[0] == names[1] == names[2]


# ------------------------------------------------------------------ dependencies


def test_element_by_element(jobs: Jobs, slurm: Cluster, gate: Gate) -> None:
    """The counterpart of what has ended begins, whatever becomes of the others."""
    ex = jobs()
    first = [ex.submit(gate.hold, i) for i in range(3)]
    then = [ex.submit(calls.successor, future) for future in first]
    gate.arrived(3)
    assert slurm.commands()["sbatch"] == 2
    gate.open()
    until(lambda: any(future.done() for future in then))
    assert [future.done() for future in then] == [future.done() for future in first]
    gate.open(2)
    assert [future.result() for future in then] == [1, 2, 3]


def test_fan_out_and_fan_in(jobs: Jobs, slurm: Cluster) -> None:
    ex = jobs()
    first = ex.submit(calls.successor, 0)
    middle = [ex.submit(calls.add, first, i) for i in range(4)]
    last = ex.submit(sum, middle)
    assert last.result() == 1 + 2 + 3 + 4
    assert slurm.commands()["sbatch"] == 3


def test_what_the_scheduler_is_told_to_wait_for(jobs: Jobs, slurm: Cluster) -> None:
    ex = jobs(resource_dict=HELD)
    first = [ex.submit(calls.successor, i) for i in range(3)]
    layer = [ex.submit(calls.successor, future) for future in first]
    joined = ex.submit(sum, layer)
    many = [ex.submit(calls.successor, i) for i in range(100)]
    join_of_many = ex.submit(sum, many)
    names = submitted(slurm, [*first, *layer, joined, *many, join_of_many])
    of_first, of_layer = array_of(names[0]), array_of(names[3])
    assert asked(slurm, layer[0], "Dependency").startswith(f"aftercorr:{of_first}_*")
    assert [part.partition("(")[0] for part in asked(slurm, joined, "Dependency").split(",")] == [
        f"afterok:{of_layer}_{i}" for i in range(3)
    ]
    assert asked(slurm, join_of_many, "Dependency").startswith(f"afterany:{array_of(names[-2])}_*")


def test_a_failure_that_nobody_saw(jobs: Jobs, slurm: Cluster, gate: Gate) -> None:
    """The scheduler cancels what depends on it; each of those calls fails with the same error all the same."""
    ex = jobs()
    failed = ex.submit(gate.hold, 0)
    chain = [ex.submit(calls.inverse, failed)]
    for _ in range(2):
        chain.append(ex.submit(calls.successor, chain[-1]))
    gate.arrived()
    gate.open()
    for future in chain:
        assert isinstance(future.exception(), ZeroDivisionError)
    assert notes(chain[-1]) == ["callyard: successor <- successor <- inverse"]


def test_futures_from_elsewhere(jobs: Jobs, gate: Gate) -> None:
    """What waits for a thread is submitted when that is done, and what waits for it not before."""
    ex = jobs()
    plain: StandardFuture[int] = StandardFuture()
    with ThreadPoolExecutor(1) as threads:
        threaded = threads.submit(plain.result)
        first = ex.submit(calls.successor, threaded)
        second = ex.submit(calls.successor, first)
        third = ex.submit(calls.add, second, plain, first)
        assert ex.submit(calls.successor, 10).result() == 11  # goes out meanwhile
        plain.set_result(1)
        assert (first.result(), second.result(), third.result()) == (2, 3, 6)


def test_futures_of_another_executor_of_the_same_cache(jobs: Jobs) -> None:
    one, other = jobs(), jobs()
    first = one.submit(calls.successor, 1)
    second = other.submit(calls.successor, first)
    assert one.submit(calls.add, first, second).result() == 5


def test_parts_are_taken_by_the_jobs(jobs: Jobs, slurm: Cluster, gate: Gate) -> None:
    """The whole graph is in the queue before the first call has ended."""
    ex = jobs()
    whole = ex.submit(gate.hold, (1, {"deep": 20}))
    first, second = unzip(whole, 2)
    then = ex.submit(calls.successor, first), ex.submit(calls.successor, item(second, "deep"))
    last = ex.submit(calls.add, *then)
    gate.arrived()
    submitted(slurm, [whole, *then, last])
    gate.open()
    assert [future.result() for future in (*then, last)] == [2, 21, 23]


def test_after_a_call_that_is_answered_from_the_cache(jobs: Jobs, slurm: Cluster) -> None:
    ex = jobs()
    assert ex.submit(calls.successor, 1).result() == 2
    late: Future[int] = Future()
    first = ex.submit(calls.successor, late)  # its key is known once `late` is, and then so is its result
    second = ex.submit(calls.successor, first)
    late.set_result(1)
    assert (first.result(), second.result(100)) == (2, 3)


def test_parts_are_known_again(jobs: Jobs, slurm: Cluster, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever submits the same graph waits for the same jobs, although no key of what takes a part is known yet."""
    monkeypatch.setitem(registered, Gate, lambda _: "the same")

    def graph(ex: Executor) -> list[Future[int]]:
        whole = ex.submit(gate.hold, (1, {"deep": 20}))
        return [ex.submit(calls.successor, part) for part in (item(whole, 0), item(item(whole, 1), "deep"))]

    first = graph(jobs())
    names = submitted(slurm, first)
    second = graph(jobs())
    assert submitted(slurm, second) == names
    gate.open()
    assert [future.result() for future in (*first, *second)] == [2, 21, 2, 21]
    assert slurm.commands()["sbatch"] == 2


def test_parts_that_are_not_there(jobs: Jobs, slurm: Cluster, gate: Gate) -> None:
    ex = jobs()
    whole = ex.submit(gate.hold, (1, 2))
    missing = ex.submit(calls.successor, item(whole, 2))
    wrong = ex.submit(calls.successor, unzip(whole, 3)[0])
    gate.arrived()
    submitted(slurm, [whole, missing, wrong])
    gate.open()
    assert isinstance(missing.exception(), IndexError)
    assert notes(missing) == ["callyard: successor <- hold[2]"]
    with pytest.raises(ValueError, match="expected 3 values, the result has 2"):
        wrong.result()


def test_batches(jobs: Jobs) -> None:
    ex = jobs()
    batches = batched([ex.submit(calls.successor, i) for i in range(3)], 2)
    assert sum(ex.submit(sum, batch).result() for batch in batches) == 6


# ------------------------------------------------------------------ resources


def test_what_is_asked_of_the_scheduler(jobs: Jobs, slurm: Cluster) -> None:
    ex = jobs(resource_dict=HELD, walltime=600, calls_per_job=1)
    usual = ex.submit(calls.add, 0)
    limited = ex.with_resources(run_time=100).submit(calls.add, 1)
    large = ex.with_resources(cores_per_rank=2, memory=1.5, gpus_per_rank=1, exclusive=True).submit(calls.add, 2)
    named = ex.with_resources(job_name="mine", partition="low", constraint="virtual", priority=-7).submit(calls.add, 3)
    spread = ex.with_resources(ranks=3, nodes=3).submit(calls.add, 4)
    assert asked(slurm, usual, "TimeLimit") == "00:10:00"
    assert asked(slurm, usual, "JobName") == "add"
    assert asked(slurm, limited, "TimeLimit") == "00:03:00"  # with a minute to begin and to end
    assert asked(slurm, large, "NumCPUs") == asked(slurm, large, "CPUs/Task") == "2"
    assert asked(slurm, large, "MinMemoryNode") == "1.50G"
    assert asked(slurm, large, "OverSubscribe") == "NO"
    assert asked(slurm, named, "JobName") == "mine"
    assert asked(slurm, named, "Partition") == "low"
    assert asked(slurm, named, "Features") == "virtual"
    assert asked(slurm, spread, "NumTasks") == asked(slurm, spread, "NumNodes").partition("-")[0] == "3"


def test_calls_in_one_job_share_its_time(jobs: Jobs, slurm: Cluster) -> None:
    future = jobs(resource_dict=HELD, calls_per_job=5).with_resources(run_time=60).submit(calls.add, 1)
    assert asked(slurm, future, "TimeLimit") == "00:06:00"


def test_what_surrounds_a_call(jobs: Jobs, slurm: Cluster, tmp_path: Path) -> None:
    ex = jobs()
    place, log = tmp_path / "made" / "here", tmp_path / "errors"
    cwd = ex.with_resources(cwd=place).submit(calls.where)
    env = ex.with_resources(env={"COLOUR": "blue 'n' \"$HOME\"\n%a"}).submit(calls.variables, "COLOUR")
    threads = ex.with_resources(cores_per_rank=3).submit(calls.variables, "OMP_NUM_THREADS", "SLURM_CPUS_PER_TASK")
    said = ex.with_resources(error_log_file=log).submit(calls.say, "words")
    failed = ex.with_resources(error_log_file=log).submit(calls.inverse, 0)
    assert cwd.result() == str(place)
    assert env.result() == {"COLOUR": "blue 'n' \"$HOME\"\n%a"}
    assert threads.result() == {"OMP_NUM_THREADS": "3", "SLURM_CPUS_PER_TASK": "3"}
    assert said.result() is None
    assert isinstance(failed.exception(), ZeroDivisionError)
    text = log.read_text()
    assert "WORDS" in text
    assert "words" not in text
    assert "ZeroDivisionError" in text


def test_gpus_are_those_that_the_scheduler_gives(jobs: Jobs, slurm: Cluster) -> None:
    if slurm.gpus < 2:
        pytest.skip("the cluster has no GPUs here")
    ex = jobs(resource_dict={"slurm_cmd_args": [f"--nodelist={slurm.nodes[0]}"]})
    one = ex.submit(calls.variables, "CUDA_VISIBLE_DEVICES", resource_dict={"gpus_per_rank": 1})
    two = ex.submit(calls.variables, "CUDA_VISIBLE_DEVICES", "TWO", resource_dict={"gpus_per_rank": 2})  # another call
    assert one.result()["CUDA_VISIBLE_DEVICES"] in ("0", "1")
    assert two.result()["CUDA_VISIBLE_DEVICES"] == "0,1"


def test_calls_are_told_apart_by_the_nodes_that_they_ask_for(jobs: Jobs, slurm: Cluster) -> None:
    first, *others = slurm.nodes
    ex = jobs()
    named = ex.submit(calls.node, 1, resource_dict={"nodelist": first})
    also = ex.submit(calls.node, 2, resource_dict={"nodelist": [first]})
    elsewhere = ex.submit(calls.node, 3, resource_dict={"exclude": [first, *others[1:]]})
    assert [named.result(), also.result(), elsewhere.result()] == [first, first, others[0]]
    array = named.job_id.partition("_")[0]
    assert (named.job_id, also.job_id) == (f"{array}_0", f"{array}_1")
    assert elsewhere.job_id.partition("_")[0] != array


def test_arguments_are_refused_at_once_and_alone(jobs: Jobs, slurm: Cluster) -> None:
    ex, asked = jobs(), "slurm_cmd_args"
    for words, message in [
        ("--quiet", f"{asked} has '--quiet': then sbatch would not say the job's ID: leave it out"),
        (["job.sh"], f"{asked} has 'job.sh', which sbatch may take for what it is to run"),
        ("--comment='a", f"{asked} must be words as in a shell (No closing quotation)"),
        (["--hint=\0"], f"{asked} must be words without NUL"),
    ]:
        with pytest.raises(ResourceError, match=re.escape(message)):
            ex.submit(calls.add, 1, 2, resource_dict={asked: words})
    assert ex.submit(calls.add, 1, 2, resource_dict={asked: "--hint compute_bound"}).result() == 3
    assert slurm.commands()["sbatch"] == 1


def test_the_teardown_of_a_job(jobs: Jobs, slurm: Cluster, tmp_path: Path) -> None:
    """It runs at the end of each job, whatever has become of the call; the call's outcome is known before."""
    setup = (f"NAME={tmp_path}/$SLURM_ARRAY_TASK_ID", "mkfifo $NAME.pipe")
    ex = jobs(setup=setup, teardown=["read _ < $NAME.pipe", "touch $NAME", "exit 5"])
    good, bad = ex.submit(calls.add, 1, 2), ex.submit(calls.inverse, 0)
    assert good.result() == 3
    assert isinstance(bad.exception(), ZeroDivisionError)
    for element, job, state in ((0, good.job_id, "COMPLETED"), (1, bad.job_id, "FAILED")):
        assert not (tmp_path / str(element)).exists()
        (tmp_path / f"{element}.pipe").write_text("go\n")
        assert slurm.wait_for(str(job), "COMPLETED", "FAILED") == state
        assert (tmp_path / str(element)).exists()


def test_a_teardown_that_nobody_would_run(slurm: Cluster, results: Path) -> None:
    pytest.importorskip("jinja2")
    with pytest.raises(CallyardError, match=r"teardown is given, and the template .* has no \{\{ teardown \}\} for it"):
        Executor(backend=Slurm(template="#!/bin/sh\n{{ command }}\n", teardown="true"), cache=results)


def test_keys_that_a_template_would_drop(jobs: Jobs, slurm: Cluster) -> None:
    pytest.importorskip("jinja2")
    ex = jobs(template="#!/bin/sh\n{% if exclude %}\n#SBATCH --exclude={{ exclude }}\n{% endif %}\n{{ command }}\n")
    for key, value in [("reservation", "lesson"), ("partition", "main"), ("ranks_per_node", 1)]:
        with pytest.raises(ResourceError, match=f"{key}={value!r} means nothing to the template .*leave {key} out"):
            ex.submit(calls.add, 1, 2, resource_dict={key: value, "memory": 0.2})
    with pytest.raises(CallyardError, match=r"exclude_failed_nodes is given, and the template .* no \{\{ exclude \}\}"):
        jobs(template="#!/bin/sh\n{{ command }}\n", exclude_failed_nodes=True)
    first, second, *others = slurm.nodes
    asked = {"exclude": [first, *others], "memory": 0.2}
    assert ex.submit(calls.node, 1, resource_dict=asked).result() == second


def test_a_cache_below_a_backslash(jobs: Jobs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CALLYARD_RUNS", str(tmp_path / "runs"))
    place = tmp_path / "back\\slash %j"
    future, *others = [jobs(cache=place).submit(calls.say, word) for word in ("one", "two", "three")]
    assert [each.result() for each in (future, *others)] == [None] * 3
    assert Cache(place)[future.key].log.splitlines() == ["one", "ONE"]


@pytest.mark.needs("mpi")
def test_ranks_on_one_node(jobs: Jobs) -> None:
    results = jobs().with_resources(ranks=2).submit(calls.rank_of_node).result()
    assert [rank[:2] for rank in results] == [(0, 2), (1, 2)]  # type: ignore[attr-defined]


@pytest.mark.needs("mpi")
def test_the_mpiexec_of_the_node_starts_ranks_each_with_its_gpus(
    jobs: Jobs, slurm: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    launcher = tmp_path / "bin" / "mpiexec"
    launcher.parent.mkdir()
    launcher.write_text(f'#!/bin/sh\nFOUND=there exec "{shutil.which("mpiexec")}" "$@"\n')
    launcher.chmod(0o700)
    here = tmp_path / "here" / "mpiexec"  # which the nodes do not have
    here.parent.mkdir()
    here.write_text("#!/bin/sh\nexit 1\n")
    here.chmod(0o700)
    monkeypatch.setenv("PATH", f"{here.parent}:{os.environ['PATH']}")
    ex = jobs(setup=f"rm -f {here}\nexport PATH={launcher.parent}:$PATH")
    gpus = {"gpus_per_rank": 1} if slurm.gpus > 1 else {}
    first, second = ex.with_resources(ranks=2, nodes=1, **gpus).submit(calls.variables_of_rank, *SEEN).result()
    assert first["FOUND"] == second["FOUND"] == "there"
    assert [rank["CUDA_VISIBLE_DEVICES"] for rank in (first, second)] == (["0", "1"] if gpus else [None] * 2)


@pytest.mark.needs("mpi")
def test_a_node_without_an_mpi(jobs: Jobs, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    for name in ("bash", "env"):
        (tmp_path / "bin" / name).symlink_to(str(shutil.which(name)))
    future = jobs(setup=f"export PATH={tmp_path}/bin").with_resources(ranks=2).submit(calls.rank_of_node)
    with pytest.raises(ResourceError, match=r"'rank_of_node' asks for 2 ranks, and on .* neither mpiexec nor"):
        future.result()


@pytest.mark.needs("mpi")
def test_ranks_for_which_slurm_chooses_several_nodes(
    jobs: Jobs, slurm: Cluster, fitting_mpi: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Slurm starts them, however far the node's mpiexec would have come."""
    if slurm.gpus != 2:
        pytest.skip("no device files that could stand for GPUs")
    monkeypatch.setenv("CALLYARD_RUNS", str(tmp_path / "runs"))
    ranks = jobs().with_resources(ranks=3, gpus_per_rank=1).submit(calls.variables_of_rank, *SEEN).result()
    seen = {(rank["SLURMD_NODENAME"], rank["CUDA_VISIBLE_DEVICES"]) for rank in ranks}
    assert len(seen) == 3
    assert {gpu for _, gpu in seen} == {"0", "1"}
    assert all(rank["SLURM_STEP_NUM_TASKS"] == "3" for rank in ranks)


@pytest.mark.needs("mpi")
def test_ranks_are_placed_and_bound_as_is_asked_for(
    jobs: Jobs, slurm: Cluster, fitting_mpi: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CALLYARD_RUNS", str(tmp_path / "runs"))
    ex, gpus = jobs(), {"gpus_per_rank": 1, "gpu_bind": "map_gpu:1,0"} if slurm.gpus > 1 else {}
    apart = ex.with_resources(ranks=3, ranks_per_node=2, cpu_bind="rank", srun_args="--distribution=block:cyclic")
    spread = apart.submit(calls.variables_of_rank, "SLURMD_NODENAME", "SLURM_CPU_BIND_TYPE", "SLURM_DISTRIBUTION")
    bound = ex.with_resources(ranks=2, cpu_bind="cores", **gpus)  # on one node, where mpiexec would start them else
    there = bound.submit(calls.variables_of_rank, "SLURM_CPU_BIND_TYPE", "CUDA_VISIBLE_DEVICES").result()
    first, second, third = spread.result()
    assert first == second == {**third, "SLURMD_NODENAME": first["SLURMD_NODENAME"]} != third
    assert (first["SLURM_CPU_BIND_TYPE"], first["SLURM_DISTRIBUTION"]) == ("rank", "block:cyclic")
    assert [rank["SLURM_CPU_BIND_TYPE"] for rank in there] == ["cores"] * 2
    assert [rank["CUDA_VISIBLE_DEVICES"] for rank in there] == (["1", "0"] if gpus else [None] * 2)


@pytest.mark.needs("mpi")
def test_ranks_on_two_nodes(jobs: Jobs, fitting_mpi: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CALLYARD_RUNS", str(tmp_path / "runs"))
    ex = jobs().with_resources(ranks=2, nodes=2)
    met = ex.submit(calls.rendezvous, "RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", resource_dict={"nodes": 1})
    results = ex.submit(calls.rank_of_node).result()
    assert [rank[:2] for rank in results] == [(0, 2), (1, 2)]  # type: ignore[attr-defined]
    assert len({rank[2] for rank in results}) == 2  # type: ignore[attr-defined]
    assert [list(rank.values()) for rank in met.result()] == [
        [str(rank), "2", str(rank), "127.0.0.1"] for rank in (0, 1)
    ]


@pytest.mark.needs("mpi")
def test_the_plugin_that_fits_is_found(
    jobs: Jobs, mpich: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CALLYARD_RUNS", str(tmp_path / "runs"))
    results = jobs().with_resources(ranks=2, nodes=2).submit(calls.rank_of_node).result()
    assert [rank[:2] for rank in results] == [(0, 2), (1, 2)]  # type: ignore[attr-defined]
    assert [path.read_text() for path in (tmp_path / "runs").glob("mpi-*")] == ["pmi2"]


@pytest.mark.needs("mpi")
def test_ranks_that_do_not_know_each_other(jobs: Jobs, mpich: None, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    by_slurm = jobs(mpi="none").with_resources(ranks=2).submit(Path.touch, mark)
    by_mpiexec = jobs().with_resources(ranks=2).submit(Path.touch, mark, exist_ok=True)  # that of Open MPI
    with pytest.raises(SchedulerError, match=r"do not know each other.*Slurm\(mpi='none'\) does not fit"):
        by_slurm.result()
    # Open MPI 4 starts ranks that are alone; those of Open MPI 6 this library ends itself.
    with pytest.raises(
        (ResourceError, WorkerLost), match=r"its 2 ranks (do not know each other|did not begin).*mpiexec"
    ):
        by_mpiexec.result()
    assert not mark.exists()


@pytest.mark.needs("mpi")
def test_ranks_that_do_not_begin(jobs: Jobs) -> None:
    future = jobs(mpi="nosuch").with_resources(ranks=2).submit(calls.rank_of_node)
    with pytest.raises(SchedulerError, match=r"its 2 ranks did not begin: .*; if that is for MPI, Slurm\(mpi='nosuch'"):
        future.result()


def test_what_only_workers_have_is_refused(slurm: Cluster, results: Path) -> None:
    with pytest.raises(CallyardError, match="max_tasks_per_child"):
        Executor(backend=Slurm(), cache=results, max_tasks_per_child=1)


# ------------------------------------------------------------------ scripts


def test_setup_launcher_and_python(jobs: Jobs, tmp_path: Path) -> None:
    """Shell lines, then a command before the interpreter, then that interpreter."""
    other = tmp_path / "a python"
    other.write_text(f'#!/bin/sh\nCALLYARD_TRACE="$CALLYARD_TRACE, then begun"\nexec {sys.executable} "$@"\n')
    other.chmod(0o755)
    setup = "CALLYARD_TRACE='set up'\nexport CALLYARD_TRACE"
    launcher = ("env", "CALLYARD_TRACE=launched after setup")
    ex, launched = jobs(setup=setup, python=other), jobs(setup=setup.splitlines(), launcher=launcher)
    futures = ex.submit(calls.trace), launched.with_resources(env={"A": "1"}).submit(calls.trace)
    assert futures[0].result() == "set up, then begun"
    assert futures[1].result() == "launched after setup"


TEMPLATE = """#!/bin/bash
#SBATCH --job-name={{ job_name }}
#SBATCH --cpus-per-task={{ cores_per_rank }}
{% if time_minutes %}
#SBATCH --time={{ time_minutes }}
{% endif %}
export CALLYARD_TRACE={{ colour | quote }}
{{ command }}
"""


@pytest.mark.needs("jinja2")
def test_a_template_with_a_key_of_the_users_own(jobs: Jobs, slurm: Cluster, tmp_path: Path) -> None:
    path = tmp_path / "script.jinja"
    path.write_text(TEMPLATE)
    ex = jobs(template=TEMPLATE)
    assert "colour" not in repr(ex)
    green = ex.with_resources(colour="green 'n' blue")
    assert "colour=\"green 'n' blue\"" in repr(green)
    futures = [
        green.submit(calls.trace),
        ex.submit(
            calls.variables, "CALLYARD_TRACE", "SLURM_CPUS_PER_TASK", resource_dict={"colour": 3, "cores_per_rank": 2}
        ),
        jobs(template=str(path), resource_dict={"colour": "of the file"}).submit(calls.variables, "CALLYARD_TRACE"),
    ]
    assert futures[0].result() == "green 'n' blue"
    assert futures[1].result() == {"CALLYARD_TRACE": "3", "SLURM_CPUS_PER_TASK": "2"}
    assert futures[2].result() == {"CALLYARD_TRACE": "of the file"}


@pytest.mark.needs("jinja2")
def test_a_key_that_the_template_needs_and_nobody_gave(jobs: Jobs, slurm: Cluster) -> None:
    """It fails alone."""
    ex = jobs(template=TEMPLATE)
    without, good = ex.submit(calls.add, 1), ex.submit(calls.add, 2, resource_dict={"colour": "red"})
    with pytest.raises(ResourceError, match="colour"):
        without.result()
    assert good.result() == 2


@pytest.mark.needs("jinja2")
def test_keys_that_no_template_uses(jobs: Jobs, slurm: Cluster) -> None:
    with pytest.raises(ResourceError, match="'colour'"):
        jobs().with_resources(colour="red")
    with pytest.raises(ResourceError, match=r"'color': did you mean 'colour'"):
        jobs(template=TEMPLATE).with_resources(color="red")
    with pytest.raises(ResourceError, match="'others'"):
        jobs(template=TEMPLATE).with_resources(others={"color": "red"})


@pytest.mark.needs("jinja2")
def test_a_template_that_is_none(jobs: Jobs, slurm: Cluster, tmp_path: Path) -> None:
    with pytest.raises(CallyardError, match="cannot be read"):
        jobs(template=str(tmp_path / "nowhere"))
    with pytest.raises(CallyardError, match="line 2 of the template"):
        jobs(template="#!/bin/sh\n{% if %}\n")


# ------------------------------------------------------------------ from within a job


def test_a_job_that_submits_a_job(jobs: Jobs, results: Path, slurm: Cluster) -> None:
    """Nothing of the outer one is the inner one's."""
    outer = {"cores_per_rank": 3, "memory": 2, "job_name": "outer", "slurm_cmd_args": ["--export=ALL,SBATCH_NICE=11"]}
    first, second = jobs(resource_dict=outer).submit(calls.job_in_a_job, results).result()
    assert (first["SLURM_CPUS_PER_TASK"], first["SLURM_JOB_NAME"], first["SLURM_MEM_PER_NODE"]) == (
        "3",
        "outer",
        "2048",
    )
    assert second["SLURM_JOB_ID"] != first["SLURM_JOB_ID"]
    assert second["SLURM_CPUS_PER_TASK"] == "1"
    assert second["SLURM_JOB_NAME"] == "variables"
    assert second.get("SLURM_MEM_PER_NODE") is None


# ------------------------------------------------------------------ what can be seen


def test_what_a_call_prints_is_kept(jobs: Jobs, results: Path) -> None:
    futures = [jobs().submit(calls.say, "alone"), *(jobs(calls_per_job=2).submit(calls.say, text) for text in "ab")]
    callyard_logs = []
    for future in futures:
        future.result()
        (entry,) = [entry for entry in Cache(results) if entry.key == future.key]
        callyard_logs.append(sorted(entry.log.split()))
    assert callyard_logs == [["ALONE", "alone"], ["A", "a"], ["B", "b"]]


def test_what_a_future_says(jobs: Jobs, slurm: Cluster, gate: Gate) -> None:
    ex = jobs()
    assert "detached, each call a job of Slurm, cache in" in repr(ex)
    future = ex.submit(gate.hold, 1)
    assert future.cached is False
    assert not future.running()
    gate.arrived()
    until(future.running)
    (name,) = submitted(slurm, [future])
    assert list(slurm.jobs()) == [name]
    assert "'hold' state=running" in repr(future)
    gate.open()
    assert future.result() == 1
    assert future.job_id == name
    assert not future.running()
    again = ex.submit(gate.hold, 1)
    assert (again.result(), again.cached, again.job_id) == (1, True, None)


def test_without_a_cache(jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gate: Gate) -> None:
    monkeypatch.setenv("CALLYARD_RUNS", str(tmp_path / "runs"))
    ex = jobs(cache=None)
    future = ex.submit(gate.hold, 1)
    gate.arrived()
    (directory,) = (tmp_path / "runs").iterdir()
    assert f"without a cache, in {directory}" in repr(ex)
    assert directory.stat().st_mode & 0o777 == 0o700
    gate.open()
    assert (future.result(), future.key, future.cached) == (1, None, None)


def test_many_threads_submit_a_graph(jobs: Jobs) -> None:
    ex = jobs()
    totals: list[Future[int]] = []

    def graph(number: int) -> None:
        totals.append(ex.submit(calls.add, *[ex.submit(calls.successor, number * 10 + i) for i in range(2)]))

    threads = [threading.Thread(target=graph, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(total.result() for total in totals) == [3, 23, 43]
