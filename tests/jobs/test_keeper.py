"""The process of a job that waits for the one that makes a call."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from penstock.errors import NodeFailure
from penstock.version import VERSION
from penstock.worker.job import Job


@pytest.mark.parametrize("error", [None, PermissionError(), AttributeError()])
def test_the_end_of_a_call_is_seen_without_a_pidfd(monkeypatch: pytest.MonkeyPatch, error: Exception | None) -> None:
    """Kernels before 5.3 know none, and a sandbox may refuse it."""

    def refuse(pid: int) -> int:
        assert error is not None
        raise error

    if error is not None:
        monkeypatch.setattr(os, "pidfd_open", refuse, raising=False)
    folder: Any = SimpleNamespace(batch=SimpleNamespace(calls_per_job=1))
    parcel: Any = SimpleNamespace(wait=60.0, private=True)
    job = Job(folder)
    job.runs = 0, parcel
    job.pid = os.posix_spawn(sys.executable, [sys.executable, "-c", "raise SystemExit(3)"], os.environ)
    assert job._wait() == (None, 3)


def test_a_job_that_was_started_again_before_its_call_had_begun_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slurm does that where a node was gone without its knowing, whatever it was told."""
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    begun: list[Any] = [None]
    batch = SimpleNamespace(
        calls_per_job=1,
        python=f"{sys.version_info[0]}.{sys.version_info[1]}",
        penstock=VERSION,
        restart_limit=0,
        calls=(SimpleNamespace(name="add"),),
    )
    folder: Any = SimpleNamespace(batch=batch, begun=lambda number: begun[0], log=lambda number: "0.log")
    job = Job(folder)
    assert job._refusal(0) is None
    begun[0] = object()
    assert isinstance(job._refusal(0), NodeFailure)
