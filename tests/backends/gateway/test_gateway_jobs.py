"""Jobs of another computer: they go on whatever becomes of the driver, the link and the gateway, and run once."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from cluster import Cluster
from gate import Gate, until
from relay import Relay
from sshd import Server

import callyard
from callyard import SSH, Executor, OutOfMemory, Slurm
from callyard.backends.gateway.gateway_call import GatewayFuture
from callyard.testing.executor_contract import ExecutorContract

PATIENCE = 60


def noted(journal: str, gate: Gate | None, value: int) -> int:
    with open(journal, "a") as file:
        file.write(f"{value}\n")
    if gate is not None:
        gate.hold()
    return value + 1


def memory_from(attempt: int) -> float | None:
    """Return the limit of memory in this attempt; take more in each before, the first time by a call within."""
    call = callyard.current()
    assert call is not None
    if call.attempt < attempt:
        raise OutOfMemory("of a call within") if call.attempt == 1 else MemoryError
    return call.memory


def runs(journal: str) -> list[str]:
    return Path(journal).read_text().split() if os.path.exists(journal) else []


def backend(sshd: Server, slurm: Cluster, place: Path, name: str = "plain") -> Slurm:
    """A login node: what the variables of this process say about Slurm is not passed on."""
    source = Path(callyard.__file__).parents[1]
    setup = [f"export {key}='{value}'" for key, value in {**slurm.environment, "PYTHONPATH": str(source)}.items()]
    host = sshd.host(name, setup=setup, directory=place)
    return Slurm(host=host, poll=(0.2, 1), result_grace=2)


def gateways() -> list[psutil.Process]:
    """Return those behind the server of these tests: other tests may run at the same time."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if (process.cmdline() or [""])[0].startswith("callyard: gateway"):
                found.append(process)
    return found


def kill_gateways() -> None:
    for process in gateways():
        with contextlib.suppress(psutil.NoSuchProcess):  # that of an earlier test may just be ending
            process.kill()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "there"


def test_a_graph_of_jobs(sshd: Server, slurm: Cluster, place: Path, journal: str) -> None:
    with Executor(backend=backend(sshd, slurm, place)) as executor:
        first = executor.submit(noted, journal, None, 1)
        second = executor.submit(noted, journal, None, first)
        assert second.result(PATIENCE) == 3
        assert first.job_id is not None
    assert runs(journal) == ["1", "2"]
    assert "detached" in repr(executor)
    assert not list((place / ".callyard" / "runs").iterdir())


def test_limits_in_turn(sshd: Server, slurm: Cluster, place: Path, results: Path) -> None:
    limits = {"memory": [0.5, 0.75]}
    with Executor(backend=backend(sshd, slurm, place), cache=results) as executor:
        enough = executor.submit(memory_from, 2, resource_dict=limits)
        never = executor.submit(memory_from, 3, resource_dict=limits)
        dependent = executor.submit(repr, enough)
        assert dependent.result(PATIENCE) == "0.75"
        with pytest.raises(OutOfMemory, match=r"0\.75 GiB.*; earlier attempts had memory=0\.5 GiB"):
            never.result(PATIENCE)
        assert (enough.attempts, never.attempts) == (2, 2)


@pytest.mark.parametrize("is_told", [False, True])
def test_a_running_call_is_cancelled_by_its_key(
    sshd: Server, slurm: Cluster, place: Path, journal: str, gate: Gate, results: Path, is_told: bool
) -> None:
    """Whether or not the gateway has told that the job runs."""
    with Executor(backend=backend(sshd, slurm, place), cache=results) as executor:
        held = executor.submit(noted, journal, gate, 1)
        gate.arrived()
        if is_told:
            until(held.running)
        assert held.key is not None
        (done,) = executor._running.cancel_call(None, held.key)
        assert done.startswith(("ended 'noted'",) if is_told else ("ended 'noted'", "cancelled 'noted'"))
        assert held.cancelled()
    until(lambda: not slurm.jobs())


def test_a_gateway_is_killed(
    sshd: Server, slurm: Cluster, place: Path, journal: str, gate: Gate, results: Path, recwarn: pytest.WarningsRecorder
) -> None:
    warnings.simplefilter("always")
    with Executor(backend=backend(sshd, slurm, place), cache=results) as executor:
        first = executor.submit(noted, journal, gate, 1)
        second = executor.submit(noted, journal, None, first)
        gate.arrived()
        kill_gateways()
        until(lambda: "the connection to plain" in repr(first))
        gate.open()
        assert second.result(PATIENCE) == 3
    assert runs(journal) == ["1", "2"]
    assert len([each for each in recwarn if "its calls go on there" in str(each.message)]) == 1


def test_the_link_is_cut_while_a_graph_is_on_its_way(
    sshd: Server, slurm: Cluster, place: Path, journal: str, gate: Gate, relay: Relay, results: Path
) -> None:
    name = sshd.account("by-relay", port=relay.port)
    with Executor(backend=backend(sshd, slurm, place, name), cache=results) as executor:
        first = executor.submit(noted, journal, gate, 1)
        gate.arrived()
        second = executor.submit(noted, journal, None, first)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            relay.hang_up()
            gate.open()
            assert second.result(PATIENCE) == 3
    assert sorted(runs(journal)) == ["1", "2"]


DRIVER = """
import sys
from pathlib import Path
from test_gateway_jobs import *
host, journal, results, arrivals = sys.argv[1:]
gate = Gate.__new__(Gate)
gate.arrivals, gate.passes, gate.ends = arrivals, arrivals.replace("arrivals", "passes"), None
import pickle
executor = Executor(backend=pickle.loads(bytes.fromhex(host)), cache=results)
first = executor.submit(noted, journal, gate, 1)
second = executor.submit(noted, journal, None, first)
print(second.result() if len(sys.argv) == 5 else None, flush=True)
executor.shutdown()
"""


def test_a_driver_is_killed_and_another_one_takes_its_results(
    sshd: Server, slurm: Cluster, place: Path, journal: str, gate: Gate, results: Path
) -> None:
    import pickle

    described = pickle.dumps(backend(sshd, slurm, place)).hex()
    paths = os.pathsep.join([*os.environ.get("PYTHONPATH", "").split(os.pathsep), *sys.path])
    words = [sys.executable, "-c", DRIVER, described, journal, str(results), gate.arrivals]
    first = subprocess.Popen(words, env={**os.environ, "PYTHONPATH": paths}, stdout=subprocess.PIPE)
    gate.arrived()
    first.send_signal(signal.SIGKILL)
    first.communicate()
    second = subprocess.Popen(words, env={**os.environ, "PYTHONPATH": paths}, stdout=subprocess.PIPE)
    gate.open()
    assert second.communicate(timeout=PATIENCE)[0].split() == [b"3"]
    assert sorted(runs(journal)) == ["1", "2"]
    nowhere = Slurm(host=SSH("nobody-there", command=sshd.command))
    with Executor(backend=nowhere, cache=results) as executor:  # answered here, without a connection
        assert executor.submit(noted, journal, gate, 1).cached


def test_two_gateways_at_once(
    sshd: Server, slurm: Cluster, place: Path, journal: str, gate: Gate, tmp_path: Path
) -> None:
    """Two drivers with caches of their own, and one cache there: the same call runs once, for both."""
    one, other = tmp_path / "one", tmp_path / "other"
    chosen = backend(sshd, slurm, place)
    with Executor(backend=chosen, cache=one) as a, Executor(backend=chosen, cache=other) as b:
        first = a.submit(noted, journal, gate, 1)
        gate.arrived()
        second = b.submit(noted, journal, gate, 1)
        gate.open()
        assert (first.result(PATIENCE), second.result(PATIENCE)) == (2, 2)
    assert runs(journal) == ["1"]


@pytest.fixture
def no_news(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no word come here of the beginning of calls: it is on its way while a call is cancelled."""
    monkeypatch.setattr(GatewayFuture, "news", lambda *_: None)


def test_a_call_that_began_meanwhile_is_cancelled_there(
    sshd: Server, slurm: Cluster, place: Path, journal: str, gate: Gate, results: Path, no_news: None
) -> None:
    with Executor(backend=backend(sshd, slurm, place), cache=results) as executor:
        running = executor.submit(noted, journal, gate, 1)
        dependent = executor.submit(noted, journal, None, running)
        gate.arrived()
        assert running.cancel()
        assert dependent.cancelled()
        until(lambda: not slurm.jobs())
    assert runs(journal) == ["1"]


def test_a_later_gateway_ends_the_jobs_of_an_earlier_one(
    sshd: Server, slurm: Cluster, place: Path, journal: str, gate: Gate, results: Path
) -> None:
    """They are the same executor's, whichever gateway has submitted them."""
    warnings.simplefilter("ignore")
    with Executor(backend=backend(sshd, slurm, place), cache=results) as executor:
        first = executor.submit(noted, journal, gate, 1)
        second = executor.submit(noted, journal, None, first)
        gate.arrived()
        until(lambda: len(slurm.jobs()) == 2)
        kill_gateways()
        until(lambda: "the connection to plain" in repr(second))
        until(lambda: "the connection to plain" not in repr(second))
        until(lambda: second.job_id)
        assert second.cancel()
        until(lambda: len(slurm.jobs()) == 1)
        executor.kill_workers()
        until(lambda: not slurm.jobs())
    assert runs(journal) == ["1"]


def test_calls_are_cancelled_without_a_connection(
    sshd: Server, slurm: Cluster, place: Path, journal: str, gate: Gate, relay: Relay, results: Path
) -> None:
    """The next gateway ends their jobs."""
    warnings.simplefilter("ignore")
    name = sshd.account("cut-and-cancelled", port=relay.port)
    with Executor(backend=backend(sshd, slurm, place, name), cache=results) as executor:
        first = executor.submit(noted, journal, gate, 1)
        second = executor.submit(noted, journal, None, first)
        third = executor.submit(noted, journal, None, second)
        gate.arrived()
        until(lambda: len(slurm.jobs()) == 3)
        relay.cut = True
        relay.hang_up()
        until(lambda: "the connection to" in repr(second))
        assert second.cancel()
        assert third.cancelled()
        relay.cut = False
        until(lambda: len(slurm.jobs()) == 1)
        gate.open()
        assert first.result(PATIENCE) == 2
    assert runs(journal) == ["1"]


def test_a_call_that_others_wait_for_goes_on(
    sshd: Server, slurm: Cluster, place: Path, journal: str, gate: Gate, tmp_path: Path, no_news: None
) -> None:
    chosen = backend(sshd, slurm, place)
    with Executor(backend=chosen, cache=tmp_path / "a") as a, Executor(backend=chosen, cache=tmp_path / "b") as b:
        first = a.submit(noted, journal, gate, 1)
        gate.arrived()
        second = b.submit(noted, journal, gate, 1)
        until(lambda: len(list((place / ".callyard/cache/jobs").glob("*/at-*"))) == 2)  # both wait for it
        assert first.cancel()
        gate.open()
        assert second.result(PATIENCE) == 2
    assert runs(journal) == ["1"]


class TestTheContract(ExecutorContract):
    """The public contract, with jobs of another computer, and a cache on both sides."""

    @pytest.fixture
    def ex(self, sshd: Server, slurm: Cluster, place: Path, results: Path) -> Iterator[Executor]:
        with Executor(backend=backend(sshd, slurm, place), cache=results) as executor:
            yield executor
