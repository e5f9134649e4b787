"""A pool in whose rules an exception arrives: once restored, it is as good as one that was never interrupted."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import hypothesis.strategies as st
from hypothesis import given, settings
from pool.test_worker_placement import LONG, SHORT, FakeCall, Site

from callyard.pool import start_limits, worker_placement
from callyard.pool.call_shape import WorkerShape
from callyard.pool.worker import SendToWorker, StartWorker

PLACEMENT = {module.__file__ for module in (start_limits, worker_placement)}


class Interruption(BaseException):
    pass


def interrupted_at(number: int, step: Any, *arguments: Any) -> bool:
    """Whether the n-th line of the pool that this runs has raised."""
    left = number

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if frame.f_code.co_filename not in PLACEMENT:
            return None
        if event == "line":
            left -= 1
            if left == 0:
                raise Interruption
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        step(*arguments)
    except Interruption:
        return True
    finally:
        sys.settrace(before)
    return False


def restore(site: Site) -> None:
    """By what the site has been told and has done: which workers it started, which calls it gave them."""
    started = {each.worker.number for each in site.log if isinstance(each, StartWorker)} & set(site.pool.workers)
    flights: dict[int, list[FakeCall]] = {number: [] for number in started}
    for each in site.log:
        if isinstance(each, SendToWorker) and each.worker.number in started:
            flights[each.worker.number] += [call for call in each.calls if call.state == "running"]  # type: ignore[attr-defined]
    gone = [call for call in site.sent if call.state == "done"]
    for call in site.pool.restore(flights, gone):
        call.state = "waiting"  # type: ignore[attr-defined]


CALLS = st.lists(
    st.builds(
        lambda cores, gpus, seconds, priority: FakeCall(WorkerShape(cores, gpus), priority, seconds),
        st.integers(1, 2), st.integers(0, 1), st.sampled_from([LONG, SHORT]), st.integers(0, 1),
    ),
    min_size=2, max_size=8,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(calls=CALLS, number=st.integers(1, 150), finishing=st.booleans())
def test_no_call_is_lost_and_nothing_stays_given_out(calls: list[FakeCall], number: int, finishing: bool) -> None:
    site = Site(cores=3, gpus=1, max_workers=3)
    site.submit(*calls[: len(calls) // 2])
    site.ready()

    def step() -> None:
        if finishing:
            for worker in site.busy[:1]:
                site.finish(worker, len(worker.in_flight))
        site.submit(*calls[len(calls) // 2 :])

    if interrupted_at(number, step):
        restore(site)
        for call in calls:  # those that had not arrived in a line yet are still in the node's inbox
            if call.state == "waiting" and not any(call in queue.calls for queue in site.pool._queues):
                site.pool.add(call)
        for worker in site.leaving:  # each is told again
            site.pool.lost(worker)
        site.decide()
    site.run_all()
    assert [call.state for call in calls] == ["done"] * len(calls)
    assert sorted(site.sent, key=lambda call: call.order) == calls
    site.pool.retire_idle()
    site.decide()
    site.gone()
    assert (site.pool._cores, site.pool._gpus, site.pool._active, site.pool._idle) == (3, ["0"], 0, {})
