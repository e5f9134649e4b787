"""One executor with nodes of several kinds, which it asks a real Slurm for."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster
from gate import Gate, held
from instance import Instance
from pretended import Inside, jobs_of, until

from callyard import Executor, Flux, NodeKind, Slurm
from callyard.backends.batch.scheduler_client import SchedulerClient
from callyard.cluster import autoscaler
from callyard.errors import CallyardError, ResourceError, SchedulerError

CPU = NodeKind(nodes=(0, 2), partition="main", gpus=0)
GPU = NodeKind(nodes=(0, 1), partition="gpu")
Make = Callable[..., Executor]


@pytest.fixture
def make(runs: Path) -> Iterator[Make]:
    """Make executors with these kinds of nodes; they end with the test."""
    with ExitStack() as stack:

        def create(*kinds: NodeKind, **described: Any) -> Executor:
            backend = Slurm(kinds=kinds, poll=(0.2, 1), **described)
            return stack.enter_context(Executor(backend=backend))

        yield create


def place() -> tuple[str, str]:
    return os.environ["SLURM_JOB_PARTITION"], os.environ.get("CUDA_VISIBLE_DEVICES", "")


def relax(metal: str) -> tuple[str, str]:
    return metal, os.environ["SLURM_JOB_PARTITION"]


def train(relaxed: list[tuple[str, str]]) -> tuple[list[tuple[str, str]], str, int]:
    return relaxed, os.environ["SLURM_JOB_PARTITION"], len(os.environ["CUDA_VISIBLE_DEVICES"].split(","))


def test_a_graph_over_two_kinds(make: Make, slurm: Cluster) -> None:
    ex = make(CPU, GPU)
    relaxed = [ex.submit(relax, metal) for metal in ("Cu", "Al")]
    model = ex.submit(train, relaxed, resource_dict={"gpus_per_rank": 2})
    again = ex.submit(lambda trained: (trained[1], place()[0]), model)
    assert model.result() == ([("Cu", "main"), ("Al", "main")], "gpu", 2)
    assert again.result() == ("gpu", "main")
    ex.shutdown()
    until(lambda: not jobs_of(slurm))


def test_a_call_is_for_the_first_kind_that_fits(make: Make) -> None:
    ex = make(CPU, GPU)
    assert ex.submit(place).result() == ("main", "")
    assert ex.submit(place, resource_dict={"partition": "gpu"}).result() == ("gpu", "")
    assert ex.submit(place, resource_dict={"gpus_per_rank": 1}).result()[0] == "gpu"


def test_each_kind_grows_and_shrinks_by_itself(
    make: Make, slurm: Cluster, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(autoscaler, "IDLE", 0.5)
    ex = make(CPU, GPU)
    assert (
        "live on 0 nodes, of 0 to 2 that Slurm is asked for in partition main with 0 GPUs; "
        "0 nodes, of 0 to 1 that Slurm is asked for in partition gpu" in repr(ex)
    )
    running = [ex.submit(held, gate, place) for _ in range(5)]  # a node has four cores
    gate.arrived(5)
    assert len(jobs_of(slurm)) == 2
    running.append(ex.submit(held, gate, place, resource_dict={"gpus_per_rank": 1}))
    gate.arrived(1)
    assert len(jobs_of(slurm)) == 3
    assert "live on 2 nodes, of 0 to 2 " in repr(ex)
    assert "; 1 node, of 0 to 1 that Slurm is asked for in partition gpu" in repr(ex)
    gate.open(5)
    until(lambda: len(jobs_of(slurm)) == 1)
    gate.open(1)
    assert sorted(future.result()[0] for future in running) == ["gpu", *["main"] * 5]
    until(lambda: not jobs_of(slurm))


def test_a_kind_that_is_refused_harms_no_other(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    ex = make(CPU, NodeKind(nodes=1, partition="nowhere"))
    with caplog.at_level(logging.WARNING, "callyard"):
        refused = ex.submit(place, resource_dict={"partition": "nowhere"})
        works = ex.submit(place)
        with pytest.raises(
            SchedulerError, match=r"'place' was not run: no nodes in partition nowhere .*invalid partition"
        ):
            refused.result()
        assert works.result() == ("main", "")
        with pytest.raises(SchedulerError, match="no nodes in partition nowhere"):  # who tries again is told again
            ex.submit(place, resource_dict={"partition": "nowhere"}).result()
        assert ex.submit(place).result() == ("main", "")
    assert not caplog.records


def test_a_kind_warns_once_of_refusals(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, gate: Gate
) -> None:
    from callyard.backends.batch.scheduler_client import SubmissionRefused

    submit, refused = SchedulerClient.submit, []

    def limited(client: SchedulerClient, request: Any) -> str:
        if request.resources.partition == "gpu" and len(refused) < 3:
            refused.append(request)
            raise SubmissionRefused("limit", "QOSMaxJobsPerUserLimit")
        return submit(client, request)

    monkeypatch.setattr(SchedulerClient, "submit", limited)
    ex = make(CPU, GPU)
    with caplog.at_level(logging.WARNING, "callyard"):
        waits = ex.submit(held, gate, place, resource_dict={"gpus_per_rank": 1})
        assert ex.submit(place).result() == ("main", "")
        gate.arrived()
        gate.open()
        assert waits.result()[0] == "gpu"
    (record,) = caplog.records
    assert "nodes in partition gpu are asked for again" in record.message


def test_what_no_kind_has_is_refused(make: Make) -> None:
    ex = make(CPU, GPU)
    with pytest.raises(
        ResourceError,
        match=r"^5 cores, 1 GPUs and 0 GiB on one node were asked for, and no kind of nodes has that \(in partition "
        r"main with 0 GPUs: 2 with 4 cores, 0 GPUs, 7.81 GiB; in partition gpu: 1 with 4 cores, 2 GPUs, 7.81 GiB\); ",
    ):
        ex.submit(place, resource_dict={"cores_per_rank": 5, "gpus_per_rank": 1})
    with pytest.raises(
        ResourceError,
        match=r"^constraint='fast' was asked for, and the nodes of this executor are asked for with partition='main' "
        r"or partition='gpu'; leave it out, or add a kind of nodes that has it \(kinds=\)$",
    ):
        ex.submit(place, resource_dict={"constraint": "fast"})
    with pytest.raises(ResourceError, match=r"3 GPUs .* on one node were asked for, and the largest of 1 has"):
        ex.submit(place, resource_dict={"partition": "gpu", "gpus_per_rank": 3})
    with pytest.raises(ResourceError, match="licenses is for jobs"):
        ex.submit(place, resource_dict={"licenses": "tool"})


def test_time_and_memory_choose_a_kind(make: Make) -> None:
    short = NodeKind(nodes=(0, 1), walltime=60, memory=2, gpus=0)
    ex = make(short, NodeKind(nodes=(0, 1), walltime=600, partition="gpu"))
    assert ex.submit(place, resource_dict={"run_time": 30}).result()[0] == "main"
    assert ex.submit(place, resource_dict={"run_time": 300}).result()[0] == "gpu"
    assert ex.submit(place, resource_dict={"memory": 3}).result()[0] == "gpu"
    (small,) = [node for node in Inside(ex).driver._placement.nodes.values() if node.kind == 0]
    assert small.capacity.memory == 2 << 30
    with pytest.raises(ResourceError, match=r"for 700 s were asked for, and no kind .*, for 60 s; .*, for 600 s"):
        ex.submit(place, resource_dict={"run_time": 700})


@pytest.mark.parametrize(
    ("described", "words"),
    [
        ({"kinds": [NodeKind(partition="main")]}, "the number of nodes of NodeKind.* is not known"),
        ({"kinds": [NodeKind(nodes=1, queue="batch")]}, "Slurm has partition="),
        ({"kinds": [GPU], "detached": True}, "leave out kinds="),
        ({"kinds": [GPU, GPU]}, "is there twice in kinds"),
        ({"kinds": "gpu"}, r"kinds must be a list, as \[NodeKind"),
        ({"kinds": GPU}, r"kinds must be a list, as \[NodeKind"),
        ({"kinds": [GPU], "calls_per_job": 2}, "calls_per_job is for calls that are jobs of their own"),
    ],
)
def test_kinds_that_make_no_sense(described: dict[str, Any], words: str, runs: Path) -> None:
    with pytest.raises(CallyardError, match=words):
        Executor(backend=Slurm(**described))


@pytest.mark.parametrize(
    ("described", "words"),
    [
        ({"nodes": 0}, "nodes must be"),
        ({"gpus": -1}, "gpus must be a whole number of at least 0"),
        ({"gres": "gpu:a100:4"}, "say also how many each node has, with gpus="),
        ({"partition": 7}, "partition must be a text"),
        ({"walltime": "soon"}, "walltime must be"),
    ],
)
def test_a_kind_that_makes_no_sense(described: dict[str, Any], words: str) -> None:
    with pytest.raises(ResourceError, match=words):
        NodeKind(**described)


def test_kinds_in_an_allocation(slurm: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"SLURM_JOB_ID": "1", "SLURM_JOB_NODELIST": "n1", "SLURM_JOB_CPUS_PER_NODE": "4"}
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(CallyardError, match="kinds is for nodes to ask for"):
        Executor(backend=Slurm(kinds=[GPU]))


# -- Flux ----------------------------------------------------------------------------------------------


def speak() -> None:
    print("said on the node", flush=True)


@pytest.mark.once
@pytest.mark.needs("flux")
def test_kinds_of_an_instance_of_flux(flux: Instance, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As if it were the system's, on whose login node this process is."""
    monkeypatch.setenv("CALLYARD_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr("callyard.schedulers.flux.instance.read_instance", lambda out: None)
    kinds = [NodeKind(constraint="host:n1"), NodeKind(constraint="host:n2", gpus=0)]
    with Executor(backend=Flux(nodes=(0, 1), kinds=kinds, poll=(0.2, 1))) as ex:
        assert "0 nodes, of 0 to 1 that Flux is asked for with constraint host:n1; 0 nodes" in repr(ex)
        calls = [ex.submit(speak), ex.submit(speak, resource_dict={"constraint": "host:n2"})]
        assert [call.result() for call in calls] == [None, None]
        assert {n.name: n.kind for n in Inside(ex).driver._placement.nodes.values()} == {"n1": 0, "n2": 1}
    logs = [log.read_text() for log in (tmp_path / "runs" / "logs").iterdir()]
    assert logs == ["said on the node\n"] * 2
