"""The progress line: how many calls are done, how many failed."""

from __future__ import annotations

from typing import Any

from ..errors import CallyardError
from ..futures import Future
from ..utils.locks import new_lock, under


class Progress:
    """A line on stderr, or a bar in a notebook, by tqdm."""

    def __init__(self) -> None:
        try:
            from tqdm.auto import tqdm
        except ImportError:
            raise CallyardError("progress=True needs tqdm; pip install 'callyard[progress]'") from None
        self._bar = tqdm(total=0, unit="call", desc="callyard")
        self._lock = new_lock()  # reentrant, because a finalizer may submit a call while this thread holds it
        self._failed = 0

    def follow(self, future: Future[Any]) -> None:
        """Count a call in the total now, and as finished when it has ended."""
        under(self._lock, self._add_to_total)
        future.add_done_callback(self._done)

    def _add_to_total(self) -> None:
        self._bar.total += 1

    def _done(self, future: Future[Any]) -> None:
        failed = not future.cancelled() and future.failed()
        under(self._lock, self._count, failed)

    def _count(self, failed: bool) -> None:
        self._failed += failed
        if self._failed:
            self._bar.set_postfix(failed=self._failed, refresh=False)
        self._bar.update()

    def close(self) -> None:
        """Leave the line with the final counts."""
        self._bar.close()
