"""The file watcher: it looks at the files that jobs write. A look costs one listing for each batch."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from functools import partial

from .batch_state import BatchState
from .call_state_machine import Action
from .delivery import Delivery
from .executor_state_machine import ExecutorState
from .job_errors import unreadable
from .poller import Poller

__all__ = ["FileWatcher"]

_log = logging.getLogger("callyard")


class FileWatcher:
    """The looks at the files of the jobs of one executor."""

    def __init__(self, state: ExecutorState, delivery: Delivery, poller: Poller, clock: Callable[[], float]) -> None:
        self._state, self._delivery, self._poller, self._clock = state, delivery, poller, clock

    def look(self, batches: list[BatchState]) -> None:
        """Look at batches, at each by itself: what is wrong with one hurts no other."""
        now = self._clock()
        for batch in batches:
            with self._stumbling(batch, None, now):
                self._look_at(batch, now)
        self._state.looked(self._clock())

    def _look_at(self, batch: BatchState, now: float) -> None:
        directory = batch.directory
        news = directory.news()
        if not news and not os.path.exists(directory.path):
            self._delivery.vanished(batch)
            return
        batch.is_complete = batch.is_complete or directory.unsent is None
        for number, action in self._state.listed(batch, news, now):
            if action is Action.READ_OUTCOME:
                with self._stumbling(batch, number, now):
                    self._delivery.read_outcome(batch, number)
            elif number in batch.calls:
                self._delivery.show_running(batch.calls[number])
        self._poller.give_up(batch, self._state.ticked(batch, now), now)

    @contextmanager
    def _stumbling(self, batch: BatchState, number: int | None, now: float) -> Iterator[None]:
        """Go on where a file cannot be read, of one call or of all; after a while it is given up."""
        over: Hashable = ("files", number)
        try:
            yield
        except Exception as error:
            if batch.stumbled(over, now):
                self._delivery.end(self._state.give_up(batch, number), partial(unreadable, error=error))
        else:
            batch.recovered(over)
