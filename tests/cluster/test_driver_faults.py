"""A driver that cannot go on: each call ends all the same."""

from __future__ import annotations

from collections import deque
from functools import partial
from types import SimpleNamespace
from typing import Any, NoReturn

from callyard.cluster.agent_connection import CallEnd
from callyard.cluster.driver import ClusterDriver
from callyard.errors import NodeFailure, WorkerLost
from callyard.futures import Future
from callyard.pool.call import Call, CallDurations, CallPlan
from callyard.pool.call_shape import WorkerShape
from callyard.serialize.packed import Packed


def call() -> Call:
    future: Future[Any] = Future()
    future.set_running_or_notify_cancel()
    return Call(future, None, Packed(b""), CallPlan(WorkerShape(1)), CallDurations(), 0)


def leave(future: object) -> NoReturn:
    raise SystemExit


def test_ends_behind_a_callback_that_exits_are_told() -> None:
    ends, lost, returned, leaving = [call() for _ in range(3)], call(), call(), call()
    ends[0].future.add_done_callback(leave)
    agents = SimpleNamespace(
        ends=deque(CallEnd(each, "lost", NodeFailure("gone")) for each in ends),
        lost=[(lost, "its node is gone")],
        returned=[returned],
        doubtful=[],
        ranks_leave=[leaving],
    )
    driver: Any = SimpleNamespace(
        _agents=agents, _placement=SimpleNamespace(drain=list, nodes={}), _take_in=lambda: None, _killed_at=None
    )
    for step in ClusterDriver._end_calls, ClusterDriver._fail_or_run_with_more:
        setattr(driver, step.__name__, partial(step, driver))
    ClusterDriver._fail_all(driver, SystemExit())
    for each in ends:
        assert isinstance(each.future.exception(0), NodeFailure)
    for each in (lost, returned, leaving):
        assert isinstance(each.future.exception(0), WorkerLost)
