"""A rank of an MPI call in a job."""

from __future__ import annotations

import os
import sys
import time
from types import SimpleNamespace
from typing import Any

import pytest

from callyard.worker import mpi_job_rank
from callyard.worker.current_call import DEADLINE


@pytest.mark.parametrize("left", [None, 100.0])
def test_ranks_hear_of_the_deadline(monkeypatch: pytest.MonkeyPatch, left: float | None) -> None:
    """The call's process tells it; 50 s that the call was suspended do not count."""
    heard: list[Any] = []
    deadline = None if left is None else time.monotonic() - 50 + left
    process = SimpleNamespace(
        options={DEADLINE: deadline}, now=lambda: time.monotonic() - 50, listen_in_job=lambda *said: heard.extend(said)
    )
    call_file = SimpleNamespace(options={"warn_before": 5.0}, ranks=2, gpus_per_rank=None)
    folder: Any = SimpleNamespace(
        home=SimpleNamespace(path="", trust=None),
        token="t",
        path="p",
        call=lambda number: b"",
        again=lambda number: None,
    )
    monkeypatch.setattr(mpi_job_rank, "running", process)
    monkeypatch.setattr(mpi_job_rank, "default_signals", lambda: None)
    monkeypatch.setattr(mpi_job_rank, "CacheDirectory", SimpleNamespace(open=lambda path, trust: None))
    monkeypatch.setattr(mpi_job_rank, "CallFiles", lambda home, token: folder)
    monkeypatch.setattr(mpi_job_rank, "CallFile", SimpleNamespace(load=lambda packed: call_file))
    monkeypatch.setattr(mpi_job_rank, "_meet", lambda place, ranks: 0)
    monkeypatch.setattr(mpi_job_rank, "_make", lambda path, call: None)
    monkeypatch.setattr(mpi_job_rank, "keep_in_thread", lambda end, read, every: None)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    command = mpi_job_rank._rank_command(folder, 0, apart=False)
    monkeypatch.setattr(sys, "argv", command[2:-1])  # its own code removes the path
    mpi_job_rank.main()
    options, told, *_ = heard
    assert options == {"warn_before": 5.0}
    assert told == (None if left is None else pytest.approx(time.monotonic() + left, abs=20))
