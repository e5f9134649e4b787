"""The driver of nodes that are pretended by one process: that the benchmark of a thousand nodes measures real calls."""

from __future__ import annotations

import pytest

from bench.scale import LONG, SHORT, Scale, driver, gather, measure, submit


@pytest.mark.parametrize("microseconds", [SHORT, LONG])
@pytest.mark.parametrize("cores", [1, 16])
def test_calls_of_many_nodes_end(cores: int, microseconds: int) -> None:
    with driver(Scale(nodes=30, cores=cores, microseconds=microseconds, calls=0)) as (executor, _):
        assert "30 pretended nodes" in repr(executor)
        gather(submit(executor, 2000))


def test_a_measurement() -> None:
    work = measure(Scale(nodes=3, cores=2, microseconds=SHORT, calls=500))
    assert work.rate > 0
    assert work.cpu > 0
