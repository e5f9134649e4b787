"""Agents, networks and drivers that go away."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ending_calls
import psutil
import pytest
from gate import Gate, held
from pretended import GIB, Inside, node, same, until

import callyard
from callyard import Executor
from callyard.backends.base import Settings
from callyard.backends.cluster import ClusterBackend, LocalLaunch
from callyard.cluster import connected_agents as cluster_agents
from callyard.cluster import driver as cluster_driver
from callyard.cluster import driver_channel
from callyard.cluster.base import AgentProcess, StartedAgents
from callyard.errors import NodeFailure, SchedulerError, VersionMismatch, WorkerLost
from callyard.pool.call_shape import NodeOffer
from callyard.resources import Resources
from callyard.running_executor import RunningExecutor
from callyard.schedulers.slurm.scheduler import SlurmScheduler

Make = Callable[..., Executor]


def test_an_agent_dies(make: Make, gate: Gate) -> None:
    ex = make(count=2)
    agents = Inside(ex).are_there(2)
    running = [ex.submit(held, gate, node) for _ in range(2)]
    gate.arrived(2)
    os.kill(agents["n1"], signal.SIGKILL)
    errors = [future.exception() for future in running if not isinstance(_opened(gate, future), str)]
    assert [type(error) for error in errors] == [NodeFailure]
    assert "'held' lost its node" in str(errors[0])
    assert "n1" in str(errors[0])
    assert "restart_limit=1" in str(errors[0])
    assert ex.submit(same, 1).result() == 1


def _opened(gate: Gate, future: Any) -> Any:
    until(lambda: future.done() or gate.open(1))
    return future.exception() or future.result()


def test_its_calls_run_again_where_that_is_wished(make: Make, gate: Gate) -> None:
    ex = make(count=2, resource_dict={"restart_limit": 1})
    agents = Inside(ex).are_there(2)
    running = [ex.submit(held, gate, node) for _ in range(2)]
    gate.arrived(2)
    os.kill(agents["n1"], signal.SIGKILL)
    gate.open(100)
    assert {future.result() for future in running} <= {"n1", "n2"}


def test_a_node_whose_agent_died_is_used_again(make: Make) -> None:
    ex = make(count=1)
    inside = Inside(ex)
    before = inside.are_there(1)
    os.kill(before["n1"], signal.SIGKILL)
    until(lambda: not inside.agents)
    assert ex.submit(node).result() == "n1"
    assert inside.agents != before


@pytest.mark.needs("proc")
def test_workers_end_with_their_agent(make: Make, gate: Gate) -> None:
    ex = make(count=1)
    agents = Inside(ex).are_there(1)
    running = ex.submit(held, gate, node)
    gate.arrived()
    below = psutil.Process(agents["n1"]).children(recursive=True)
    os.kill(agents["n1"], signal.SIGKILL)
    assert isinstance(running.exception(), NodeFailure)
    assert len(below) == 3  # the zygote, a guard and its worker
    assert not psutil.wait_procs(below, timeout=20)[1]


def test_a_node_that_is_silent_and_comes_back(make: Make, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver_channel, "_SILENCE", 1.0)
    ex = make(count=1)
    inside = Inside(ex)
    agents = inside.are_there(1)
    running = ex.submit(held, gate, node)
    gate.arrived()
    os.kill(agents["n1"], signal.SIGSTOP)
    try:
        assert isinstance(running.exception(), NodeFailure)
    finally:
        os.kill(agents["n1"], signal.SIGCONT)
    assert ex.submit(node).result() == "n1"
    assert inside.agents == agents  # it is the same one, with new workers


def test_a_worker_dies(ex: Executor) -> None:
    with pytest.raises(WorkerLost, match=r"process \d+ on .* ended with exit code 3") as caught:
        ex.submit(os._exit, 3).result()
    assert caught.value.exitcode == 3
    assert not isinstance(caught.value, NodeFailure)
    assert ex.submit(same, 2).result() == 2


# -- the scheduler ends a node's part of its job -----------------------------------------------------------------


def a_preemption(inside: Inside, name: str) -> None:
    """Send SIGTERM to all processes of a node, as a scheduler does; SIGKILL would come later."""
    agent = psutil.Process(inside.agents[name])
    for process in (agent, *agent.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):  # those told before may have ended it by now
            process.send_signal(signal.SIGTERM)


@pytest.mark.needs("proc")
def test_a_call_goes_on_elsewhere_when_its_node_is_taken_away(make: Make, tmp_path: Path) -> None:
    ex, word = make(), tmp_path / "word"
    inside = Inside(ex)
    inside.are_there(2)
    future = ex.submit(ending_calls.ask_when_told_there, word)
    until(lambda: word.exists() and word.read_text())
    first = word.read_text()
    a_preemption(inside, first)
    attempt, second = future.result()
    assert attempt == future.attempts == 2
    assert {first, second} == {"n1", "n2"}


@pytest.mark.needs("proc")
@pytest.mark.parametrize("agent_alone", [False, True])
def test_what_runs_on_a_node_that_is_taken_away_has_its_grace(make: Make, tmp_path: Path, agent_alone: bool) -> None:
    ex = make(count=1, each=3)
    inside = Inside(ex)
    inside.are_there(1)
    words = [tmp_path / name for name in "abc"]
    saving = ex.submit(ending_calls.save_and_return, words[0])
    cleaning = ex.submit(ending_calls.clean_up, words[1])
    ignoring = ex.submit(ending_calls.ignore_the_end, words[2], resource_dict={"grace": 0.5})
    waiting = ex.submit(node)
    until(lambda: all(word.exists() for word in words))
    if agent_alone:
        os.kill(inside.agents["n1"], signal.SIGTERM)
    else:
        a_preemption(inside, "n1")
    assert saving.result() == "saved"
    for future in (cleaning, ignoring):
        with pytest.raises(NodeFailure, match="the agent on n1 was told to end, as at a preemption"):
            future.result()
    assert words[1].read_text() == "ending True"
    assert waiting.result() == "n1", "where another agent was started"
    assert waiting.attempts == 1


@pytest.mark.needs("proc")
def test_a_call_runs_again_whose_node_was_taken_away(make: Make, tmp_path: Path) -> None:
    ex, word = make(count=1), tmp_path / "word"
    inside = Inside(ex)
    inside.are_there(1)
    future = ex.submit(ending_calls.end_at_second_sight, word, resource_dict={"restart_limit": 1})
    until(word.exists)
    a_preemption(inside, "n1")
    assert future.result() == 2
    assert future.attempts == 2


def test_a_call_that_is_ended_alone(ex: Executor) -> None:
    with pytest.raises(WorkerLost, match="SIGTERM") as caught:
        ex.submit(ending_calls.end_itself).result()
    assert not isinstance(caught.value, NodeFailure)


def test_a_warning_before_the_job_of_a_node_ends(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """As newer Slurms tell their jobs when they end; 22.05 does not."""
    names = SlurmScheduler().site().job_variables.environment()
    for variable, value in {**names, "SLURM_JOB_ID": "7", "SLURM_JOB_END_TIME": str(int(time.time()) + 600)}.items():
        monkeypatch.setenv(variable, value)
    ex = make(count=1, each=2)
    in_time, left = ex.submit(ending_calls.until_warned, resource_dict={"warn_before": 3600}).result()
    assert not in_time, "it is warned from the beginning"
    soon = {"warn_before": left - 2, "warn_signal": "USR2"}
    by_time = ex.submit(ending_calls.until_warned, resource_dict=soon)
    by_signal = ex.submit(ending_calls.warned_by, "SIGUSR2", resource_dict=soon)
    assert by_time.result()[1] < left
    assert by_signal.result() == "SIGUSR2"


# -- none comes --------------------------------------------------------------------------------------------------


class Broken(LocalLaunch):
    """What is started instead of agents."""

    code = "import sys; sys.exit('the key is under the mat')"

    def start(self, contact: str, nodes: Sequence[str]) -> Sequence[StartedAgents]:
        return [AgentProcess(nodes, [sys.executable, "-c", self.code], os.environ)]


class Mute(Broken):
    code = "import sys; sys.stdin.read()"


class Impossible(Broken):
    def start(self, contact: str, nodes: Sequence[str]) -> Sequence[StartedAgents]:
        raise OSError("srun is not in PATH")


def _over(launch: Any) -> Executor:
    executor = object.__new__(Executor)
    executor._resources = Resources()
    executor._running = RunningExecutor(ClusterBackend(launch, Settings()), None)
    return executor


OFFER = NodeOffer(1, 0, GIB)


@pytest.mark.parametrize(("kind", "words"), [(Broken, "the key is under the mat"), (Impossible, "not in PATH")])
def test_no_agent_can_be_started(kind: Any, words: str, tmp_path: Path) -> None:
    with _over(kind({"n1": OFFER, "n2": OFFER}, str(tmp_path))) as ex:
        for _ in range(2):  # each call tries anew
            with pytest.raises(SchedulerError, match=words) as caught:
                ex.submit(same, 1).result()
            assert "'same'" in str(caught.value)
            assert "n1, n2" in str(caught.value)


def test_no_agent_connects_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callyard.cluster.driver._WAIT_FOR_NODE", 0.3)
    with _over(Mute({"n1": OFFER}, str(tmp_path))) as ex:
        with pytest.raises(SchedulerError, match=r"the driver listens at 127\.0\.0\.1:"):
            ex.submit(same, 1).result()


def test_another_version(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_agents, "VERSION", "0.0.0")
    ex = make(count=1)
    with pytest.raises(VersionMismatch, match=r"node n1 runs Callyard .* and this is Callyard 0\.0\.0"):
        ex.submit(same, 1).result()


# -- the driver goes ---------------------------------------------------------------------------------------------


@pytest.mark.needs("proc")
def test_agents_and_workers_end_with_the_driver(tmp_path: Path) -> None:
    script = f"""
        import json, os, sys
        sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[1])]!r}
        from pretended import Inside, Nodes, node_and_agent
        from callyard import Executor
        ex = Executor(backend=Nodes(count=2))
        agents = list(Inside(ex).are_there(2).values())
        [future.result() for future in [ex.submit(node_and_agent) for _ in range(4)]]
        print(json.dumps(agents), flush=True)
        sys.stdin.read()
    """
    environment = {**os.environ, "PYTHONPATH": str(Path(callyard.__file__).parents[1])}
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdin=-1, stdout=-1, env=environment
    ) as driver:
        assert driver.stdout is not None
        agents = [psutil.Process(pid) for pid in json.loads(driver.stdout.readline())]
        below = [process for agent in agents for process in (agent, *agent.children(recursive=True))]
        driver.kill()
    assert len(below) >= 4
    assert not psutil.wait_procs(below, timeout=20)[1]


def test_a_forked_process_does_not_keep_agents_alive(make: Make) -> None:
    ex = make(count=1)
    Inside(ex).are_there(1)
    child = os.fork()
    if not child:
        try:
            ex.submit(same, 1)
        except RuntimeError as error:
            os._exit(0 if "belongs to the process that forked" in str(error) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert ex.submit(same, 1).result() == 1


@pytest.mark.parametrize("end", ["terminate_workers", "kill_workers"])
def test_ending_the_workers(make: Make, gate: Gate, end: str) -> None:
    ex = make(count=2)
    running = [ex.submit(gate.hold) for _ in range(2)]
    waiting = [ex.submit(same, 1) for _ in range(3)]
    gate.arrived(2)
    getattr(ex, end)()
    ex.shutdown()
    assert all(isinstance(future.exception(), WorkerLost) for future in running)
    assert all(future.cancelled() for future in waiting)


def test_ending_the_workers_of_an_agent_that_does_not_answer(make: Make, gate: Gate, monkeypatch: Any) -> None:
    monkeypatch.setattr(cluster_driver, "_GRACE", 0.1)
    ex = make(count=1)
    agents = Inside(ex).are_there(1)
    running = ex.submit(gate.hold)
    gate.arrived()
    os.kill(agents["n1"], signal.SIGSTOP)
    try:
        ex.kill_workers()
        assert isinstance(running.exception(), NodeFailure)
    finally:
        os.kill(agents["n1"], signal.SIGCONT)


def test_a_driver_that_is_killed_does_not_go_round(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was due then, such as to start an agent again, is not done any more."""
    driver = Inside(make(count=1)).driver
    monkeypatch.setattr(driver, "_killed_at", 100.0)
    monkeypatch.setattr(driver._agents, "next_look", lambda: 90.0)
    assert driver._time_to_wait(101.0) > 0
