"""A worker in the accounts of the placement: its shape, GPUs and calls; and the instructions for workers."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple, Protocol

from .call_shape import QueuedCall, WorkerShape


class WorkerCall(QueuedCall, Protocol):
    """A call as the placement sees it."""

    @property
    def shape(self) -> WorkerShape: ...


class Worker:
    """One worker of a pool, a process or a group of MPI ranks.

    `in_flight` holds the sent calls in the order of their runs. A worker that is `worn` gets no further calls, and is
    retired when idle.
    """

    __slots__ = ("gpus", "in_flight", "leaving", "number", "ready", "served", "shape", "withdrawing", "worn")

    def __init__(self, number: int, shape: WorkerShape, gpus: tuple[str, ...]) -> None:
        self.number, self.shape, self.gpus = number, shape, gpus
        self.in_flight: deque[WorkerCall] = deque()
        self.ready = self.worn = False
        self.leaving = False  # told to end
        self.withdrawing = False  # calls are being taken back, so no others may be sent
        self.served = 0  # calls so far, with those in flight

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
