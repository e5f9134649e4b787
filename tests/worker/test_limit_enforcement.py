"""The limits of calls, on a clock of the test's and with a cgroup that is only pretended."""

from __future__ import annotations

from pathlib import Path

import pytest

from callyard.system import memory_control
from callyard.worker.limit_enforcement import Limits


@pytest.fixture
def no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_control, "delegated", lambda **_: None)


class Groups:
    """Stands for the kernel's: notes what is asked of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
        self.said: list[tuple[object, ...]] = []
        self.kills = 0
        monkeypatch.setattr(memory_control, "delegated", lambda **_: place)
        monkeypatch.setattr(memory_control, "take_over", lambda group: True)
        monkeypatch.setattr(memory_control, "make_group", self.make)
        monkeypatch.setattr(memory_control, "move", lambda group, pid: self.said.append(("move", group.name, pid)))
        monkeypatch.setattr(memory_control, "remove_group", lambda group: self.said.append(("remove", group.name)))
        monkeypatch.setattr(memory_control, "oom_kills", lambda group: self.kills)

    def make(self, parent: Path, name: str, limit: int) -> Path:
        self.said.append(("make", name, limit))
        return parent / name


def test_a_deadline(no_group: None) -> None:
    limits = Limits(1)
    assert limits.patience(0.0) is None
    limits.watch(7, 10.0, None, "run_time")
    assert limits.patience(4.0) == 6.0
    assert limits.exceeded(9.9) == {}
    assert limits.exceeded(10.0) == {7: "run_time"}
    assert limits.exceeded(11.0) == {}, "told once"
    assert limits.patience(11.0) is None
    assert limits.ended(7) is None


def test_a_deadline_that_was_taken_back(no_group: None) -> None:
    limits = Limits(1)
    limits.watch(7, 10.0, None, "run_time")
    limits.unwatch(7)
    limits.unwatch(7)
    assert limits.patience(0.0) is None
    assert limits.exceeded(20.0) == {}


def test_memory_is_sampled_where_there_is_no_group(no_group: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        memory_control.Sampler, "exceeding", lambda self, limits: {p: m for p, m in limits.items() if m < 50}
    )
    limits = Limits(1)
    limits.watch(7, None, 100, "run_time")
    limits.watch(8, 99.0, 10, "run_time")
    assert limits.patience(0.0) == pytest.approx(0.1)
    assert limits.exceeded(0.05) == {}, "not yet time to look"
    assert limits.exceeded(0.2) == {8: "memory"}
    assert limits.exceeded(0.4) == {}


def test_a_group_for_each_call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    groups = Groups(monkeypatch, tmp_path)
    limits = Limits(1)
    limits.watch(7, None, 100, "run_time")
    assert limits.patience(0.0) is None, "the kernel watches"
    limits.unwatch(7)
    limits.watch(7, None, 200, "run_time")
    groups.kills = 1
    assert limits.ended(7) == "memory"
    assert groups.said == [
        ("make", "call-1-1", 100),
        ("move", "call-1-1", 7),
        ("move", "callyard", 7),
        ("remove", "call-1-1"),
        ("make", "call-1-2", 200),
        ("move", "call-1-2", 7),
        ("remove", "call-1-2"),
    ]


def test_a_group_that_cannot_be_made_is_done_without(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    groups = Groups(monkeypatch, tmp_path)

    def refuse(*_: object) -> None:
        raise OSError(13, "Permission denied")

    monkeypatch.setattr(memory_control, "make_group", refuse)
    limits = Limits(1)
    limits.watch(7, None, 100, "run_time")
    assert limits.patience(0.0) is not None
    assert not groups.said
