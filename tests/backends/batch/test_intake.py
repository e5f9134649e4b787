"""What is submitted without a pause goes out together."""

from __future__ import annotations

import queue
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from callyard.backends.batch.backend import BatchBackend


class Inbox:
    """Two calls come after a long time, the second one a moment after the first one."""

    def __init__(self, new: list[str]) -> None:
        self.now, self.pauses, self._new = 0.0, [100.0, 0.01], new

    def get(self, block: bool, timeout: float | None) -> Callable[[], object]:
        pause = self.pauses.pop(0) if self.pauses else None
        if pause is None or not block or (timeout is not None and timeout < pause):
            raise queue.Empty
        self.now += pause
        return lambda: self._new.append("call")


def test_calls_after_a_long_silence_go_out_together() -> None:
    new: list[str] = []
    inbox = Inbox(new)
    backend: Any = SimpleNamespace(_inbox=inbox, _state=SimpleNamespace(new=new), _clock=lambda: inbox.now)
    BatchBackend._take_in(backend, None)
    assert len(new) == 2
