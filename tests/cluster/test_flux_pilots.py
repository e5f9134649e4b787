"""Live calls on nodes that an executor asks a real Flux for, as from the login node of a system's instance."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import ending_calls
import pytest
from flux_live_calls import job, node, time_left
from gate import Gate, held
from instance import Instance
from pretended import same, until, visible

import callyard
from callyard import Executor, Flux
from callyard.errors import NodeFailure, ResourceError, SchedulerError

pytestmark = [pytest.mark.once, pytest.mark.needs("flux")]

Make = Callable[..., Executor]
# The instance is the tests' own; only the answer to the question whose it is is another one.
ANOTHERS = "callyard.schedulers.flux.instance.read_instance"


@pytest.fixture
def make(flux: Instance, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Make]:
    """Make executors that ask for nodes; they end with the test."""
    monkeypatch.setenv("CALLYARD_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(ANOTHERS, lambda out: None)
    with ExitStack() as stack:

        def create(nodes: int | tuple[int, int], **described: Any) -> Executor:
            return stack.enter_context(Executor(backend=Flux(nodes=nodes, **{"poll": (0.2, 1), **described})))

        yield create


def test_calls_run_on_as_many_nodes_as_they_need(make: Make, flux: Instance, gate: Gate) -> None:
    ex = make((0, 3))
    assert "live on 0 nodes, of 0 to 3 that Flux is asked for" in repr(ex)
    assert not flux.jobs()
    running = [ex.submit(held, gate, node) for _ in range(9)]  # a node has four cores
    gate.arrived(9)
    assert len(flux.jobs()) == 3
    gate.open(9)
    assert len({future.result() for future in running}) == 3
    assert [future.result() for future in [ex.submit(same, i) for i in range(300)]] == list(range(300))
    assert ex.submit(job).result() in flux.jobs()
    ex.shutdown()
    until(lambda: not flux.jobs())


def test_nodes_are_there_for_the_walltime(make: Make) -> None:
    ex = make(1, walltime=600)
    assert 300 < ex.submit(time_left, resource_dict={"run_time": 500}).result() <= 500
    with pytest.raises(ResourceError, match=r"is there for so long as it may take \(walltime=\)"):
        ex.submit(same, 1, resource_dict={"run_time": 700}).result()


def test_a_node_comes_with_its_gpus(
    own_instance: Callable[..., Instance], monkeypatch: pytest.MonkeyPatch, gate: Gate
) -> None:
    own_instance(nodes=1, cores=2, settings='gpus = "0-1"\n')
    monkeypatch.setattr(ANOTHERS, lambda out: None)
    with Executor(backend=Flux(nodes=1, poll=(0.2, 1))) as ex:
        running = [ex.submit(held, gate, visible, resource_dict={"gpus_per_rank": 1}) for _ in range(2)]
        gate.arrived(2)
        gate.open(2)
        assert sorted(future.result() for future in running) == ["0", "1"]


def test_a_call_has_its_grace_when_the_walltime_is_over(make: Make, tmp_path: Path) -> None:
    ex = make(1, walltime=8)
    saving = ex.submit(ending_calls.save_and_return, tmp_path / "saving")
    losing = ex.submit(ending_calls.clean_up, tmp_path / "losing")
    assert saving.result() == "saved"
    with pytest.raises(NodeFailure, match=r"the agent on n\d \(job f\w+\) was told to end"):
        losing.result()
    assert (tmp_path / "losing").read_text() == "ending True"


@pytest.mark.needs("mpi")
def test_ranks_are_on_one_node(make: Make) -> None:
    ex = make(1)
    assert [rank[:2] for rank in ex.submit(rank_of, resource_dict={"ranks": 2}).result()] == [(0, 2), (1, 2)]


def rank_of() -> tuple[int, int]:
    from mpi4py import MPI

    return MPI.COMM_WORLD.Get_rank(), MPI.COMM_WORLD.Get_size()


def test_what_cannot_be_had(make: Make, flux: Instance) -> None:
    ex = make(1)
    with pytest.raises(ResourceError, match=r"nodes=2: Flux starts no ranks on the nodes of jobs from outside"):
        ex.submit(same, 1, resource_dict={"ranks": 2, "nodes": 2})
    with pytest.raises(ResourceError, match="no node has what it asks for"):
        ex.submit(same, 1, resource_dict={"cores_per_rank": 99}).result()
    with pytest.raises(SchedulerError, match="'nowhere' is not a valid queue"):
        make(1, queue="nowhere").submit(same, 1).result()


def test_a_node_is_lost(make: Make, flux: Instance, gate: Gate) -> None:
    ex = make((0, 1))
    running = ex.submit(held, gate, job)
    gate.arrived()
    (lost,) = flux.jobs()
    flux.run("cancel", lost)
    assert isinstance(running.exception(), NodeFailure)
    again = ex.submit(held, gate, job, resource_dict={"restart_limit": 1})
    gate.arrived()
    (other,) = flux.jobs()
    flux.run("cancel", other)
    gate.open(2)
    assert again.result() not in (lost, other)


@pytest.mark.needs("proc")
def test_jobs_end_with_a_driver_that_is_killed(make: Make, flux: Instance) -> None:
    text = """
        import callyard.schedulers.flux.instance as instance
        from flux_live_calls import job
        from pretended import Inside
        from callyard import Executor, Flux
        instance.read_instance = lambda out: None
        ex = Executor(backend=Flux(nodes=2, poll=(0.2, 1)))
        Inside(ex).are_there(2)
        print(ex.submit(job).result(), flush=True)
        sys.stdin.read()
    """
    folder = Path(__file__).parent
    before = f"import os, sys; sys.path[:0] = {[str(folder), str(folder.parent)]!r}"
    environment = {**os.environ, "PYTHONPATH": str(Path(callyard.__file__).parents[1])}
    command = [sys.executable, "-c", f"{before}\n{textwrap.dedent(text)}"]
    with subprocess.Popen(command, stdin=-1, stdout=-1, env=environment, text=True) as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline().strip() in flux.jobs()
        assert len(flux.jobs()) == 2
        driver.send_signal(signal.SIGKILL)
    until(lambda: not flux.jobs())
