"""The queues of a placement: calls of the same need, oldest first, and the order of the queues' turns."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from heapq import heappush
from typing import Any, Generic, TypeVar

from .call_shape import Queued

C = TypeVar("C", bound=Queued)
N = TypeVar("N", bound=Hashable)
Q = TypeVar("Q", bound="CallQueue[Any, Any]")

# The highest priority comes first (as the smallest rank), then the oldest call. No two calls have the same order, so a
# comparison of two heads never gets as far as the queues.
Head = tuple[int, int, Q]


class CallQueue(Generic[C, N]):
    """Calls of one priority and need, oldest first."""

    __slots__ = ("calls", "need", "passed", "stuck")

    def __init__(self, need: N) -> None:
        self.need = need
        self.calls: deque[C] = deque()
        self.passed = 0  # calls of other queues that were placed while the head waited; see `_PATIENCE`
        self.stuck = False  # the last turn of the head found no place

    def head(self) -> C | None:
        """Return the first call, after dropping cancelled ones; None if the queue is empty."""
        calls = self.calls
        while calls and calls[0].abandoned():
            calls.popleft()
        return calls[0] if calls else None


class CallQueues(Generic[C, N, Q]):
    """The queues by priority and need. A queue is made with the first call, and dropped when a turn finds it empty."""

    def __init__(self, need_of: Callable[[C], N], make_queue: Callable[[N], Q]) -> None:
        self._need_of, self._make_queue = need_of, make_queue
        self._queues: dict[tuple[int, N], Q] = {}

    def __iter__(self) -> Iterator[Q]:
        return iter(self._queues.values())

    def add(self, call: C) -> Q:
        """Put the call into its queue, and return the queue."""
        key = (-call.priority, self._need_of(call))
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = self._make_queue(key[1])
        queue.calls.append(call)
        return queue

    def put_back(self, calls: Iterable[C]) -> None:
        """Put calls that were sent and not run to the front again; the last given becomes the first."""
        for call in calls:
            self.add(call).calls.rotate(1)  # appended as the last, turned to the front

    def take_out(self, need: N) -> list[Q]:
        """Remove the queues of this need, of all priorities, and return them."""
        keys = [key for key, queue in self._queues.items() if queue.need == need]
        return [self._queues.pop(key) for key in keys]

    def clear(self) -> None:
        self._queues.clear()

    @property
    def waiting(self) -> bool:
        return any(queue.head() is not None for queue in self._queues.values())

    def waiting_calls(self) -> list[C]:
        """Return the calls that wait at this moment. Any thread may ask, because the copy of a container is atomic."""
        return [call for queue in tuple(self._queues.values()) for call in tuple(queue.calls)]

    # -- turns in one decision -------------------------------------------------------------------------

    def heads(self, dropped: Callable[[Q], object] | None = None) -> list[Head[Q]]:
        """Return a heap of the heads of all queues; call `dropped` with each empty queue."""
        heads: list[Head[Q]] = []
        # A copy of the items, because `push` removes empty queues.
        for (rank, _), queue in list(self._queues.items()):
            if not self.push(heads, rank, queue) and dropped is not None:
                dropped(queue)
        return heads

    def push(self, heads: list[Head[Q]], rank: int, queue: Q) -> bool:
        """Put the head of the queue on the heap; without a head drop the queue, and return False."""
        head = queue.head()
        if head is None:
            del self._queues[rank, queue.need]
            return False
        heappush(heads, (rank, head.order, queue))
        return True
