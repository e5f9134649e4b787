"""What detached executors refuse when they are made; no cluster is needed for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from callyard import Cache, CallyardError, Executor, ResourceError, Slurm


def test_a_cache_that_is_only_read(tmp_path: Path) -> None:
    Cache(tmp_path / "results")
    cache = Cache(tmp_path / "results", mode="read-only")
    with pytest.raises(CallyardError, match="mode='read-only' forbids"):
        Executor(backend=Slurm(detached=True), cache=cache)


@pytest.mark.parametrize(
    ("name", "settings"),
    [("setup", {"setup": "echo a\0b"}), ("python", {"python": "/a\0b"}), ("launcher", {"launcher": ("a\ud800b",)})],
    ids=["setup", "python", "launcher"],
)
def test_settings_that_no_script_can_have(tmp_path: Path, name: str, settings: dict[str, Any]) -> None:
    with pytest.raises(ResourceError, match=f"{name}.* has a character"):
        Executor(backend=Slurm(detached=True, **settings), cache=tmp_path / "results")


def test_fresh_workers(tmp_path: Path) -> None:
    with pytest.raises(CallyardError, match="max_tasks_per_child is for workers"):
        Executor(backend=Slurm(detached=True), max_tasks_per_child=1)
