"""A machine that is not a login node."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock import Executor, SchedulerError, Slurm


def test_there_are_no_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with Executor(backend=Slurm(detached=True), cache=tmp_path / "results") as ex:
        one = ex.submit(abs, -1)
        other = ex.submit(abs, one)
        for future in one, other:
            with pytest.raises(SchedulerError, match=r"'abs': there is no scontrol .* is this a login node"):
                future.result()
