"""The words of a call's status, without a call; and on real graphs, that they fit the future's state."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import Future as StandardFuture
from typing import Any

import pytest
from gate import Gate
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from callyard import Executor, Future
from callyard.status.call_status import CallStatus, ended_status, in_the_queue, sentence

pytestmark = pytest.mark.wide


class Named(StandardFuture[Any]):
    """A future with a name and a status, as ours."""

    def __init__(self, name: str, status: CallStatus) -> None:
        super().__init__()
        self.name, self.call_status = name, status


def test_running() -> None:
    assert sentence(CallStatus("running")) == "runs"
    assert sentence(CallStatus("running", host="c3", worker="worker 4711", seconds=12.7)) == (
        "runs on c3 for 12 s (worker 4711)"
    )
    assert sentence(CallStatus("running", worker="job 17_3", seconds=0.2)) == "runs for less than a second (job 17_3)"


def test_waiting_for_others() -> None:
    relax = Named("relax", CallStatus("running", host="c3", worker="worker 1", seconds=12.0))
    energy = Named("energy", CallStatus("waiting", awaits=(relax,)))
    third = Named("third", CallStatus("waiting", awaits=(energy,)))
    assert sentence(CallStatus("waiting", awaits=(relax,))) == "waits for `relax` (running for 12 s on c3)"
    assert sentence(CallStatus("waiting", awaits=(relax, energy))) == (
        "waits for `relax` (running for 12 s on c3) and 1 other call"
    )
    assert sentence(CallStatus("waiting", awaits=(energy,))) == (
        "waits for `energy`, which waits for `relax` (running for 12 s on c3)"
    )
    assert sentence(CallStatus("waiting", awaits=(third,))) == (
        "waits for `third`, which waits, through 1 other call, for `relax` (running for 12 s on c3)"
    )
    assert sentence(CallStatus("waiting", awaits=(energy, third, relax))) == (
        "waits for `energy`, which waits for `relax` (running for 12 s on c3), and 2 other calls"
    )
    relax.set_result(1)
    assert sentence(CallStatus("waiting", "for its turn", awaits=(relax,))) == "waits for its turn"


def test_a_future_of_another_library() -> None:
    other: StandardFuture[int] = StandardFuture()
    assert sentence(CallStatus("waiting", awaits=(other,))) == "waits for a future of concurrent (waiting for its turn)"
    other.set_running_or_notify_cancel()
    assert sentence(CallStatus("waiting", awaits=(other,))) == "waits for a future of concurrent (running)"


def test_a_long_chain_is_followed_to_its_limit() -> None:
    last = Named("f", CallStatus("running"))
    for _ in range(10_000):
        last = Named("f", CallStatus("waiting", awaits=(last,)))
    assert sentence(CallStatus("waiting", awaits=(last,))).startswith("waits for `f`, which waits, through 1,000 other")


def test_the_queue_of_a_scheduler() -> None:
    assert in_the_queue("Slurm", "Priority", job="17_3") == "in the queue of Slurm as job 17_3: Priority"
    assert in_the_queue("Slurm", "") == "in the queue of Slurm"
    soon = time.time() + 60
    moment = time.strftime("%H:%M", time.localtime(soon))
    assert (
        in_the_queue("Slurm", "Resources", soon) == f"in the queue of Slurm: Resources, expected to start at {moment}"
    )
    later = time.strftime("%Y-%m-%d %H:%M", time.localtime(soon + 1e6))
    assert in_the_queue("Slurm", "", soon + 1e6) == f"in the queue of Slurm: expected to start at {later}"


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def test_ends() -> None:
    assert sentence(ended_status("finished", 1.5)) == "has ended: returned float"
    assert sentence(ended_status("failed", error=ValueError("no\ngood"))) == "has ended: raised ValueError: no good"
    assert sentence(ended_status("failed", error=KeyError())) == "has ended: raised KeyError"
    assert len(sentence(ended_status("failed", error=ValueError("x" * 1000)))) < 320
    red = ended_status("failed", error=ValueError("\x1b[31mred"))
    assert sentence(red) == "has ended: raised ValueError: \\x1b[31mred"
    assert sentence(ended_status("failed", error=Mute())) == "has ended: raised Mute: <exception str() failed>"
    assert sentence(ended_status("cancelled")) == "has ended: was cancelled"
    assert sentence(ended_status("cached")) == "has ended: was in the cache"


def test_a_future_that_nobody_runs() -> None:
    future = Future[int]("alone")
    assert future.explain() == "waits for its turn"
    future.set_running_or_notify_cancel()
    assert future.explain() == "runs"
    future.set_result(3)
    assert future.explain() == "has ended: returned int"


def test_an_owner_that_fails_to_tell_is_no_error() -> None:
    class Owner:
        def cancelled(self) -> None: ...

        def status_of(self, future: object) -> CallStatus:
            raise RuntimeError("dictionary changed size during iteration")

    assert Future[int]("odd", Owner().cancelled).explain() == "waits for its turn"


# ------------------------------------------------------------------ graphs


@pytest.fixture
def two_workers() -> Iterator[Executor]:
    with Executor(2) as ex:
        ex.submit(abs, -1).result()
        yield ex


def combined(gate: Gate | None, *values: object) -> int:
    """Be held, if there is a gate, and return a number."""
    if gate is not None:
        gate.hold()
    return len(values)


def word(future: Future[Any]) -> str:
    if future.done():
        return "has"
    return "runs" if future.running() else "waits"


Graph = list[tuple[bool, list[int]]]  # of each call: is it held, and the places of its inputs counted backwards


@given(
    graph=st.lists(st.tuples(st.booleans(), st.lists(st.integers(1, 4), max_size=3)), min_size=1, max_size=8),
    cancelled=st.sets(st.integers(0, 7), max_size=2),
)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.once
def test_the_word_fits_the_state(two_workers: Executor, gate: Gate, graph: Graph, cancelled: set[int]) -> None:
    futures: list[Future[int]] = []
    for held, inputs in graph:
        given_ones = [futures[-place] for place in inputs if place <= len(futures)]
        futures.append(two_workers.submit(combined, gate if held else None, *given_ones))
    for place in cancelled & set(range(len(futures))):
        futures[place].cancel()
    for _ in range(len(graph) + 1):
        for future in futures:
            before, said = word(future), future.explain()
            if word(future) == before:  # nothing has happened in between
                assert said.split()[0] == before, said
        two_workers.status()
        gate.open()
    for future in futures:
        if not future.cancelled():
            try:
                future.result()
            except BaseException:  # an input was cancelled
                assert future.cancelled()
        assert word(future) == future.explain().split()[0] == "has"
    drained(gate)


def drained(gate: Gate) -> None:
    """Take out of the pipes what calls that never began have left."""
    for descriptor in gate.ends:
        os.set_blocking(descriptor, False)
        try:
            while os.read(descriptor, 1000):
                pass
        except BlockingIOError:
            os.set_blocking(descriptor, True)
