"""The numbers of a run, and the lanes of its timeline."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated_runs import BEGAN, GIB, Simulation

from callyard.events.call_record import CallRecord, RunRecord
from callyard.events.event import Failure, RunBegan, Usage
from callyard.report.lanes import lanes_of
from callyard.report.page import remarks
from callyard.report.summary import asked_cores, asked_memory, asked_time, summary_of


def run_of(*calls: CallRecord, cores: int = 0) -> RunRecord:
    began = RunBegan(0.0, "r", "h", 1, "s.py", "", {"cores": cores} if cores else {})
    return RunRecord(began, None, {call.number: call for call in calls})


def ended(number: int, begin: float, end: float, **more: object) -> CallRecord:
    fields = {"state": "finished", "host": "h", "worker": "w", "started": begin, "ended": end, **more}
    return CallRecord(number, "f", 0.0, **fields)  # type: ignore[arg-type]


def test_what_was_asked_for() -> None:
    assert asked_cores({}) == 1
    assert asked_cores({"ranks": 2, "cores_per_rank": 4}) == 8
    assert asked_memory({"memory": 1.5}) == 1.5 * GIB
    assert asked_memory({"memory": [1, 4]}) == 4 * GIB
    assert asked_memory({}) is None
    assert asked_time({"run_time": "soon"}) is None


def test_the_shares_of_a_run() -> None:
    first = ended(0, 0.0, 10.0, asked={"cores_per_rank": 2}, usage=Usage(10.0, 5.0, GIB))
    second = ended(1, 10.0, 20.0, usage=Usage(10.0, 10.0, 3 * GIB))
    summary = summary_of(run_of(first, second, ended(2, 0.0, 0.0, state="cached", started=None), cores=4), 99.0)
    assert (summary.begin, summary.end) == (0.0, 20.0)
    assert summary.core_seconds == 30.0
    assert summary.cpu_share == 15.0 / 30.0
    assert summary.busy_share == 30.0 / 80.0
    assert [call.number for call in summary.slowest] == [0, 1]
    (function,) = summary.functions
    assert (function.median, function.longest, function.cores, function.memory_used) == (10.0, 10.0, 2, 3 * GIB)


def test_a_run_that_goes_on_ends_now() -> None:
    summary = summary_of(run_of(CallRecord(0, "f", 1.0, "running", started=2.0)), 12.0)
    assert summary.end == 12.0
    assert summary.core_seconds == 10.0
    assert summary.busy_share is None
    assert summary.slowest == ()
    assert summary_of(RunRecord(), 5.0).counts == {}


def test_failures_that_differ_in_numbers_are_one_kind() -> None:
    calls = [ended(i, 0.0, 1.0, state="failed", failure=Failure("ValueError", f"no {i}")) for i in range(3)]
    calls.append(ended(3, 0.0, 1.0, state="failed", failure=Failure("KeyError", "no 1")))
    summary = summary_of(run_of(ended(4, 0.0, 1.0, state="failed"), *calls), 9.0)
    assert [[call.number for call in group.calls] for group in summary.failures] == [[0, 1, 2], [4], [3]]


def test_calls_that_fail_for_an_input_follow_its_failure() -> None:
    failure = Failure("KeyError", "'Xx'")
    first = ended(0, 0.0, 1.0, state="failed", failure=failure)
    others = [
        CallRecord(i, name, 0.0, "failed", inputs=inputs, failure=failure)
        for i, (name, inputs) in enumerate([("g", (0,)), ("h", (1, 7)), ("h", (7,))], 1)
    ]
    groups = summary_of(run_of(first, *others), 9.0).failures
    assert [([call.number for call in group.calls], group.followers) for group in groups] == [([0], 2), ([3], 0)]


def test_remarks_tell_of_requests_far_from_what_was_used() -> None:
    summary = summary_of(Simulation(400).record(), BEGAN)
    told = {each.name: list(remarks(each)) for each in summary.functions}
    assert told["relax"][0].startswith("asked 16 GiB, used 2.0")
    assert told["phonons"] == ["used 4.2 of 8 cores on average", "asked 1 h 0 min, took 5 min 50 s at most"]
    assert told["fit"] == []


def test_a_call_that_ran_out_of_memory_did_not_ask_for_too_much() -> None:
    failure = Failure("OutOfMemory", "'f' took more than its memory of 1 GiB")
    given = {"asked": {"memory": 1}, "usage": Usage(1.0, 1.0, GIB // 100)}
    lost = ended(0, 0.0, 1.0, state="failed", failure=failure, **given)
    (function,) = summary_of(run_of(lost, ended(1, 1.0, 2.0, **given)), 9.0).functions
    assert list(remarks(function)) == ["1 call needed more memory than asked for"]


def test_workers_of_a_node_are_lanes() -> None:
    lanes = lanes_of(Simulation(400).record(), BEGAN)
    assert [lane.host for lane in lanes] == sorted(lane.host for lane in lanes)
    assert {worker for lane in lanes for worker in lane.workers} == {
        f"worker {1000 + 10 * n + w}" for n in range(4) for w in range(8)
    }


def test_nodes_are_in_the_order_of_their_numbers() -> None:
    lanes = lanes_of(run_of(*(ended(i, 0.0, 1.0, host=f"c{i}") for i in (10, 9, 2))), 2.0)
    assert [lane.host for lane in lanes] == ["c2", "c9", "c10"]


@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 9), st.sampled_from("ab"), st.integers(0, 30)), max_size=30)
)
def test_calls_of_a_lane_are_of_workers_that_do_not_overlap(drawn: list[tuple[int, int, str, int]]) -> None:
    calls = [ended(i, float(b), float(b + d), host=host, worker=str(w)) for i, (b, d, host, w) in enumerate(drawn)]
    run = run_of(*calls)
    lanes = lanes_of(run, 99.0)
    assert sorted(number for lane in lanes for number in lane.calls) == list(range(len(calls)))
    for lane in lanes:
        ends = float("-inf")
        for worker in lane.workers:
            mine = [run.calls[number] for number in lane.calls if run.calls[number].worker == worker]
            assert min(call.started for call in mine) >= ends  # type: ignore[type-var]
            ends = max(call.ended for call in mine)  # type: ignore[type-var,assignment]
            assert {call.host for call in mine} == {lane.host}


@pytest.mark.parametrize("jobs", [1, 5000])
def test_jobs_one_after_another_share_a_lane(jobs: int) -> None:
    (lane,) = lanes_of(run_of(*(ended(i, float(i), i + 1.0, worker=f"job {i}") for i in range(jobs))), 0.0)
    assert len(lane.calls) == jobs
