"""Nodes that are kept free for a large call, which smaller ones would pass for ever."""

from __future__ import annotations

from collections.abc import Iterable

from .placement_state import NodeQueue, NodeState, together

__all__ = ["ReservedNodes"]


class ReservedNodes:
    """The reserved nodes, each for the head of one queue."""

    def __init__(self) -> None:
        self._queue_of: dict[NodeState, NodeQueue] = {}

    def is_open(self, node: NodeState, queue: NodeQueue) -> bool:
        """Return True if the head of this queue may have the node."""
        return self._queue_of.get(node, queue) is queue

    def reserve(self, queue: NodeQueue, able: Iterable[NodeState]) -> None:
        """Keep the least busy of the nodes that could hold the queue's head."""
        free = sorted((node for node in able if node not in self._queue_of), key=lambda node: node.cores, reverse=True)
        queue.reserved = together(free, queue.need.nodes) or []
        self._queue_of.update(dict.fromkeys(queue.reserved, queue))

    def release(self, queue: NodeQueue) -> bool:
        """Let all queues use the nodes of this one; return True if it had any."""
        released, queue.reserved = queue.reserved, []
        for node in released:
            self._queue_of.pop(node, None)
        return bool(released)

    def queue_of(self, node: NodeState) -> NodeQueue | None:
        """Return the queue for which the node is kept free."""
        return self._queue_of.get(node)

    def clear(self) -> None:
        self._queue_of.clear()
