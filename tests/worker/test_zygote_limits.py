"""The zygote as the keeper of limits."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest

from callyard.worker import zygote
from callyard.worker.zygote import Zygote


def test_limits_are_looked_at_before_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker may end itself at its deadline, and only its limit tells the reason."""
    order: list[str] = []

    def reap(before: object) -> list[Any]:
        order.append("reap")
        return []

    monkeypatch.setattr(zygote, "reap", reap)
    readable, writable = os.pipe()
    try:
        os.write(writable, b".")
        fake: Any = SimpleNamespace(
            wake_read=readable,
            hear_births=lambda: None,
            clock=lambda: 5.0,
            keep_limits=lambda now: order.append(f"limits at {now}"),
            end_group=None,
            end_orphans=lambda: None,
        )
        Zygote.child_changed(fake, 1)
    finally:
        os.close(readable)
        os.close(writable)
    assert order == ["limits at 5.0", "reap"]
