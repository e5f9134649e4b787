"""A worker as it is accounted for: its shape, its GPUs, the calls that were sent to it; and what it can be told."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple, Protocol

from .call_shape import QueuedCall, WorkerShape


class WorkerCall(QueuedCall, Protocol):
    """A call, as far as the placement is concerned."""

    @property
    def shape(self) -> WorkerShape: ...


class Worker:
    """One worker of a pool, a process or a group of MPI ranks.

    `in_flight` holds the calls sent to it, in the order in which it runs them. One that is `worn` gets no further
    calls, and is retired when it is idle.
    """

    __slots__ = ("gpus", "in_flight", "leaving", "number", "ready", "served", "shape", "withdrawing", "worn")

    def __init__(self, number: int, shape: WorkerShape, gpus: tuple[str, ...]) -> None:
        self.number, self.shape, self.gpus = number, shape, gpus
        self.in_flight: deque[WorkerCall] = deque()
        self.ready = self.worn = False
        self.leaving = False  # it was told to end
        self.withdrawing = False  # calls are being taken back from it, so it gets no others
        self.served = 0  # calls, those in flight included

    def __repr__(self) -> str:
        return f"<Worker {self.number} {len(self.in_flight)} calls>"


class StartWorker(NamedTuple):
    """Start this worker."""

    worker: Worker


class SendToWorker(NamedTuple):
    """Send these calls to this worker."""

    worker: Worker
    calls: list[WorkerCall]


class RetireWorker(NamedTuple):
    """Let this worker end."""

    worker: Worker


Instruction = StartWorker | SendToWorker | RetireWorker
