"""A rank of a call on several nodes."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from callyard.cluster.mpi_remote_rank import Bridge


@pytest.mark.parametrize("run_time", [None, 100.0])
def test_a_rank_knows_the_run_time(run_time: float | None) -> None:
    sent: list[Any] = []
    bridge: Any = SimpleNamespace(_connection=SimpleNamespace(send=sent.extend, refused=list))
    began = time.monotonic()
    Bridge.start(bridge, SimpleNamespace(plan=SimpleNamespace(run_time=run_time, options={}), deadline=None))  # type: ignore[arg-type]
    (call,) = sent
    if run_time is None:
        assert call.deadline is None
    else:
        assert began + run_time <= call.deadline <= time.monotonic() + run_time
