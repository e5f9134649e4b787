"""Which node runs what, and what is given out there."""

from __future__ import annotations

import os
import signal
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ending_calls
import pytest
from gate import Gate, held
from pretended import Inside, node, same, until, visible

from callyard import Cache, Executor
from callyard.backends.cluster import LocalLaunch
from callyard.cluster.base import AgentProcess, RanksToStart, StartedAgents
from callyard.errors import ResourceError, SchedulerError, TimeLimitExceeded, WorkerLost
from callyard.pool.mpi_launcher import SingleLauncher

Make = Callable[..., Executor]


def test_calls_are_spread_over_the_nodes(make: Make, gate: Gate) -> None:
    ex = make(count=2, each=2)
    Inside(ex).are_there(2)
    running = [ex.submit(held, gate, node) for _ in range(4)]
    gate.arrived(4)
    waiting = ex.submit(same, 1)
    assert not waiting.running()
    gate.open(4)
    assert Counter(future.result() for future in running) == {"n1": 2, "n2": 2}
    assert waiting.result() == 1


def test_a_call_has_its_cores_on_one_node(make: Make, gate: Gate) -> None:
    ex = make(count=2, each=2)
    Inside(ex).are_there(2)
    small = ex.submit(held, gate, node)
    gate.arrived()
    large = ex.with_resources(cores_per_rank=2).submit(node)
    other = large.result()
    gate.open()
    assert {small.result(), other} == {"n1", "n2"}


def test_what_no_node_has_is_refused(make: Make) -> None:
    ex = make(count=2, each=2, gpus=1, memory=4)
    for resources in ({"cores_per_rank": 3}, {"gpus_per_rank": 2}, {"memory": 5}):
        with pytest.raises(
            ResourceError, match="on one node were asked for, and the largest of 2 has 2 cores, 1 GPU, 4 GiB"
        ):
            ex.submit(same, 1, resource_dict=resources)
    with pytest.raises(ResourceError, match="partition is for jobs"):
        ex.submit(same, 1, resource_dict={"partition": "main"})


def test_each_node_gives_out_its_gpus_once(make: Make, gate: Gate) -> None:
    ex = make(count=2, each=4, gpus=2, resource_dict={"gpus_per_rank": 1})
    running = [ex.submit(held, gate, _gpu) for _ in range(4)]
    gate.arrived(4)
    waiting = ex.submit(_gpu)
    gate.open(4)
    assert sorted(future.result() for future in running) == [("n1", "0"), ("n1", "1"), ("n2", "0"), ("n2", "1")]
    assert waiting.result()[1] in ("0", "1")


def _gpu() -> tuple[str, str]:
    return node(), visible()


def test_memory_is_given_out_once(make: Make, gate: Gate) -> None:
    ex = make(count=2, each=4, memory=4, resource_dict={"memory": 3})
    Inside(ex).are_there(2)
    running = [ex.submit(held, gate, node) for _ in range(2)]
    gate.arrived(2)
    waiting = ex.submit(node)
    assert ex.submit(same, 1, resource_dict={"memory": 1}).result() == 1
    assert not waiting.running()
    gate.open(2)
    assert {future.result() for future in running} == {"n1", "n2"}
    waiting.result()


def test_an_exclusive_call_is_alone_on_its_node(make: Make, gate: Gate) -> None:
    ex = make(count=2, each=2)
    Inside(ex).are_there(2)
    first = ex.submit(held, gate, node)
    gate.arrived()
    exclusive = ex.with_resources(exclusive=True).submit(held, gate, node)
    gate.arrived()
    third = ex.submit(held, gate, node)
    gate.arrived()
    gate.open(3)
    assert first.result() == third.result() != exclusive.result()


def test_max_workers_counts_over_all_nodes(make: Make, gate: Gate) -> None:
    ex = make(3, count=2, each=2)
    Inside(ex).are_there(2)
    running = [ex.submit(held, gate, node) for _ in range(6)]
    gate.arrived(3)
    assert sum(future.running() for future in running) == 3
    gate.open(6)
    assert len([future.result() for future in running]) == 6


def test_max_workers_counts_for_short_calls_too(make: Make, tmp_path: Path) -> None:
    ex = make(1, count=2, each=2)
    list(ex.map(same, range(50)))  # now they are known to be short, and sent ahead
    list(ex.map(_alone, [str(tmp_path / "here")] * 300))


def _alone(path: str) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    os.unlink(path)


def test_a_higher_priority_goes_first(make: Make, gate: Gate, tmp_path: Path) -> None:
    ex = make(count=1)
    ex.submit(gate.hold)
    gate.arrived()
    path = str(tmp_path / "order")
    calls = [ex.submit(_note, path, p, resource_dict={"priority": p}) for p in (0, 5, -1, 5)]
    gate.open()
    [call.result() for call in calls]
    assert Path(path).read_text().split() == ["5", "5", "0", "-1"]


def _note(path: str, what: Any) -> None:
    with open(path, "a") as file:
        file.write(f"{what}\n")


def test_a_large_call_is_not_starved(make: Make, gate: Gate) -> None:
    ex = make(count=2, each=2)
    Inside(ex).are_there(2)
    first = [ex.submit(gate.hold) for _ in range(2)]
    gate.arrived(2)
    large = ex.submit(same, "large", resource_dict={"exclusive": True})
    small = [ex.submit(gate.hold) for _ in range(200)]
    until(lambda: large.done() or (gate.open(1) or False))
    assert not all(future.done() for future in small)
    gate.open(300)
    assert [future.result() for future in (*first, *small)] == [None] * 202


def test_many_short_calls_go_in_few_messages(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    ex = make(count=2, each=1)
    driver = Inside(ex).driver
    list(ex.map(same, range(200)))
    sent: list[Any] = []
    transmit = driver._agents._transmit
    monkeypatch.setattr(driver._agents, "_transmit", lambda *args: sent.append(1) or transmit(*args))
    assert [future.result() for future in [ex.submit(same, i) for i in range(5000)]] == list(range(5000))
    assert len(sent) < 1500


def test_calls_behind_one_that_takes_long_go_elsewhere(make: Make, gate: Gate) -> None:
    ex = make(count=2, each=1)
    list(ex.map(_sometimes, [None] * 300))
    futures = [ex.submit(_sometimes, gate if i == 0 else None) for i in range(300)]
    gate.arrived()
    assert [future.result() for future in futures[1:]] == [None] * 299
    gate.open()
    assert futures[0].result() is None


def _sometimes(gate: Gate | None) -> None:
    if gate is not None:
        gate.hold()


# -- what travels ------------------------------------------------------------------------------------------------


def test_a_result_of_one_node_feeds_a_call_on_the_other(make: Make, gate: Gate) -> None:
    ex = make(count=2)
    Inside(ex).are_there(2)
    first = ex.submit(node).result()
    holder = ex.submit(held, gate, node)
    gate.arrived()
    value = ex.submit(same, {"x": 1})
    assert ex.submit(same, [value]).result() == [{"x": 1}]
    gate.open()
    assert {holder.result(), first} <= {"n1", "n2"}


def test_environment_directory_and_log(make: Make, tmp_path: Path) -> None:
    ex = make(count=1, resource_dict={"env": {"COLOUR": "blue"}, "cwd": tmp_path / "new"})
    assert ex.submit(_around).result() == ("blue", str(tmp_path / "new"))
    log = tmp_path / "log"
    failing = ex.submit(int, "x", resource_dict={"error_log_file": log})
    assert isinstance(failing.exception(), ValueError)
    assert "ValueError" in log.read_text()


def _around() -> tuple[str, str]:
    return os.environ["COLOUR"], os.getcwd()


def test_the_directory_of_the_driver(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert make(count=1).submit(os.getcwd).result() == str(tmp_path)


def test_an_initializer_that_fails(make: Make) -> None:
    ex = make(count=1, initializer=int, initargs=("x",))
    with pytest.raises(WorkerLost, match="its initializer raised ValueError") as caught:
        ex.submit(same, 1).result()
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.needs("mpi")
def test_ranks_on_one_node(make: Make) -> None:
    ex = make(count=2, each=2)
    assert ex.submit(_rank, resource_dict={"ranks": 2}).result() == [(0, 2), (1, 2)]


def _rank() -> tuple[int, int]:
    from mpi4py import MPI

    return MPI.COMM_WORLD.Get_rank(), MPI.COMM_WORLD.Get_size()


@pytest.mark.needs("mpi")
def test_a_warning_of_an_agent_is_seen_here(make: Make) -> None:
    ex = make(count=1, each=2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert ex.submit(same, 1, resource_dict={"ranks": 2}).result() == [1, 1]
    assert any("never imported mpi4py" in str(warning.message) for warning in caught)


def test_remembered_calls_are_stored_by_their_runners(make: Make, tmp_path: Path) -> None:
    with make(count=2, cache=tmp_path / "results") as ex:
        assert [future.result() for future in [ex.submit(same, i) for i in (1, 2, 1)]] == [1, 2, 1]
    with make(count=2, cache=tmp_path / "results") as ex:
        again = ex.submit(same, 2)
        assert again.cached
        assert again.result() == 2


def speak_and_fail(x: int) -> int:
    print("failing", x)
    return x // 0


def speak_and_die(x: int) -> None:
    print("dying", x, flush=True)
    os._exit(x)


def speak_and_wait(x: int) -> None:
    print("waiting", x, flush=True)
    while True:
        signal.pause()


@pytest.mark.needs("linux")
def test_failed_calls_of_nodes_are_kept(make: Make, tmp_path: Path) -> None:
    with make(count=1, cache=tmp_path / "results") as ex:
        futures = [ex.submit(speak_and_fail, 1), ex.submit(speak_and_die, 3)]
        limited = ex.submit(speak_and_wait, 2, resource_dict={"run_time": 2, "grace": 0.1})
        errors = [type(future.exception()) for future in (*futures, limited)]
    assert errors == [ZeroDivisionError, WorkerLost, TimeLimitExceeded]
    entries = {entry.function: entry for entry in Cache(tmp_path / "results")}
    assert [entries[name].failure.error for name in ("speak_and_fail", "speak_and_die", "speak_and_wait")] == [
        "ZeroDivisionError", "WorkerLost", "TimeLimitExceeded",
    ]  # fmt: skip
    assert entries["speak_and_fail"].log == "failing 1\n"
    assert entries["speak_and_die"].log == "dying 3\n"
    assert entries["speak_and_die"].failure.exit_code == 3
    assert entries["speak_and_wait"].log.startswith("waiting 2\n")
    assert all(entry.seconds > 0 and entry.facts["pid"] not in (None, os.getpid()) for entry in entries.values())


# -- quiet -------------------------------------------------------------------------------------------------------


def test_an_idle_driver_sleeps_without_end(ex: Executor) -> None:
    assert ex.submit(same, 1).result() == 1
    driver = Inside(ex).are_there(2) and Inside(ex).driver
    assert driver._time_to_wait(0.0) is None


def test_an_executor_without_calls_starts_nothing(make: Make) -> None:
    ex = make()
    ex.shutdown()
    assert not Inside(ex).driver._io.started


def test_functions_that_are_gone_are_forgotten(make: Make) -> None:
    ex = make(count=1)
    for i in range(20):
        function = eval(f"lambda: {i}")
        assert [ex.submit(function).result() for _ in range(3)] == [i] * 3
    (agent,) = Inside(ex).driver._agents._by_peer.values()
    del function
    assert ex.submit(same, 1).result() == 1
    assert len(agent._functions._known) - len(agent._functions._dropped) <= 3


def test_an_idle_driver_lets_nodes_forget_what_its_user_drops(make: Make) -> None:
    ex = make(count=1)
    large = ex.submit(bytes, 1 << 20)
    assert ex.submit(len, large).result() == 1 << 20
    driver = Inside(ex).driver
    (agent,) = driver._agents._by_peer.values()
    until(lambda: driver._asleep)
    assert agent._buffers._numbers
    del large
    until(lambda: not agent._buffers._numbers)


# -- several nodes -----------------------------------------------------------------------------------------------

SPREAD = {"ranks": 2, "nodes": 2}


@pytest.mark.needs("mpi")
def test_a_call_on_several_nodes(make: Make, gate: Gate) -> None:
    ex = make(count=2, each=2)
    Inside(ex).are_there(2)
    small = ex.submit(gate.hold)
    gate.arrived()
    first = ex.submit(same, 1)
    spread = ex.submit(_rank, resource_dict=SPREAD)
    assert first.result() == 1
    assert not spread.running()  # it has its nodes to itself
    gate.open()
    assert spread.result() == [(0, 2), (1, 2)]
    assert small.result() is None
    back = ex.submit(same, spread)
    assert back.result() == [(0, 2), (1, 2)]


@pytest.mark.needs("mpi")
def test_a_rank_on_several_nodes_that_fails(make: Make) -> None:
    ex = make(count=2, each=1)
    with pytest.raises(ZeroDivisionError, match="first"):
        ex.submit(_one_fails, resource_dict=SPREAD).result()
    with pytest.raises(WorkerLost, match=r"lost its ranks on n[12], n[12]"):
        ex.submit(_one_dies, resource_dict=SPREAD).result()
    with pytest.raises(TimeLimitExceeded, match=r"run_time of 0\.5 s"):
        ex.submit(_wait_for_others, resource_dict={**SPREAD, "run_time": 0.5}).result()
    assert ex.submit(_rank, resource_dict=SPREAD).result() == [(0, 2), (1, 2)]


@pytest.mark.needs("mpi")
def test_ranks_on_several_nodes_hear_of_their_end(make: Make, tmp_path: Path) -> None:
    ex, paths = make(count=2, each=1), [tmp_path / "0", tmp_path / "1"]
    warned = {**SPREAD, "run_time": 60, "warn_before": 56, "warn_signal": "USR2"}
    assert ex.submit(ending_calls.warned_on_all_ranks, paths, resource_dict=warned).result() == [(True, "SIGUSR2")] * 2
    limited = {**SPREAD, "run_time": 4, "grace": 30}
    assert ex.submit(ending_calls.save_on_all_ranks, paths, 2.0, resource_dict=limited).result() == ["saved"] * 2
    with pytest.raises(TimeLimitExceeded, match="run_time of 1 s"):
        ex.submit(ending_calls.ignore_the_end, resource_dict={**SPREAD, "run_time": 1, "grace": 0.5}).result()


@pytest.mark.needs("mpi")
def test_ranks_on_several_nodes_have_their_grace_when_workers_are_ended(make: Make, tmp_path: Path) -> None:
    ex, paths = make(count=2, each=1), [tmp_path / "0", tmp_path / "1"]
    future = ex.submit(ending_calls.save_on_all_ranks, paths, 1.5, resource_dict={**SPREAD, "grace": 30})
    until(lambda: all(path.exists() for path in paths))
    ex.terminate_workers()
    assert future.result() == ["saved"] * 2


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["sleep", "1000"], "after 1 s not all of them were there"),
        (["sh", "-c", "echo no such way >&2; exit 1"], "no such way"),
    ],
)
def test_ranks_that_do_not_begin(command: list[str], said: str, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each way to start them is tried, and then it is an error."""
    tried: list[str] = []

    def start(_: LocalLaunch, ranks: RanksToStart, way: str) -> StartedAgents:
        tried.append(way)
        return AgentProcess(ranks.nodes, command, os.environ)

    monkeypatch.setattr(LocalLaunch, "start_ranks", start)
    monkeypatch.setattr(SingleLauncher, "candidates", lambda _: ["one", "other"])
    monkeypatch.setattr("callyard.cluster.mpi_call._JOIN_TIMEOUT", 1.0)
    ex = make(count=2, each=1)
    with pytest.raises(
        SchedulerError, match=f"'same' was not run: its 2 ranks did not begin: {said}; if that is for MPI"
    ):
        ex.submit(same, 1, resource_dict=SPREAD).result()
    assert tried == ["one", "other"]
    assert ex.submit(same, 1).result() == 1


def _one_fails() -> None:
    from mpi4py import MPI

    if MPI.COMM_WORLD.Get_rank() == 0:
        raise ZeroDivisionError("first")
    MPI.COMM_WORLD.Barrier()


def _one_dies() -> None:
    from mpi4py import MPI

    if MPI.COMM_WORLD.Get_rank() == 1:
        os._exit(3)
    MPI.COMM_WORLD.Barrier()


def _wait_for_others() -> None:
    from mpi4py import MPI

    if MPI.COMM_WORLD.Get_rank() == 0:
        MPI.COMM_WORLD.Barrier()
    import signal

    signal.pause()


def test_several_nodes_need_several_ranks(make: Make) -> None:
    ex = make(count=2)
    with pytest.raises(ResourceError, match="at least one on each; ask for ranks=2 or more"):
        ex.submit(same, 1, resource_dict={"nodes": 2})
    with pytest.raises(ResourceError, match="nodes=3 was asked for, and there are at most 2 nodes"):
        ex.submit(same, 1, resource_dict={"nodes": 3, "ranks": 3})
