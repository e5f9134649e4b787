"""The placement: decisions on which call runs on which worker, and when, without processes or clocks.

Events go in (`add`, `started`, `finished`, ...), and `decide()` returns instructions: start a worker, send calls to
one, retire one. Calls of the same shape wait in one queue; the heads of the queues have their turns by priority, then
by age. The resources of a call are given out once:

* cores from the moment of sending a call to a worker until the arrival of its result;
* GPUs and memory for the life of the worker, because an idle process may still hold them. An idle worker is retired
  when a call waits for the resources that this worker holds.

Where no more workers can be started, calls wait for the present ones: idle workers of other shapes make room, and more
workers are wanted again when one has ended, or after a while (`try_again`). Calls fail when there is none to wait for.

A small call may pass a large one that waits. When this has happened often enough, no call passes any more until the
large one has been placed, so the large one is not starved.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterable, Iterator, Mapping
from heapq import heappop
from operator import attrgetter

from .call_queue import CallQueue, CallQueues
from .call_shape import NodeCapacity, WorkerShape
from .start_limits import StartLimits
from .waiting_reasons import FreeResources, calls_before, missing, reason
from .worker import Instruction, RetireWorker, SendToWorker, StartWorker, Worker, WorkerCall

_AHEAD = 0.001  # s of work that may lie before a worker besides the running call
_SHORT = 0.0002  # s; calls of functions that take longer are sent one at a time
_MOST_AHEAD = 256
_PATIENCE = 4  # times the node's cores: so many calls may pass a waiting one

_WorkerQueue = CallQueue[WorkerCall, WorkerShape]


class WorkerPlacement:
    """The workers of one node and the waiting calls."""

    def __init__(self, capacity: NodeCapacity, max_workers: int, max_tasks: int | None = None) -> None:
        self.capacity = capacity
        self.max_workers = max_workers
        self.max_tasks = max_tasks
        self.workers: dict[int, Worker] = {}
        self._queues: CallQueues[WorkerCall, WorkerShape, _WorkerQueue] = CallQueues(attrgetter("shape"), CallQueue)
        self._idle: dict[WorkerShape, list[Worker]] = {}  # most recently used last
        self._cores = capacity.cores
        self._memory = capacity.memory
        self._gpus = list(capacity.gpus)
        self._active = 0  # workers that run a call or start
        self._limits = StartLimits()
        self._numbers = 0
        self._retires_idle = False  # all idle workers go at the next decision
        self._has_worn = False  # some worker is worn, or was
        self._reserved = False  # workers end to make room for a certain one, so no other may start now

    # -- events ----------------------------------------------------------------------------------------

    def add(self, call: WorkerCall) -> bool:
        """Put the call into its queue; return False if the call only waits behind others, so no decision is due."""
        return not self._queues.add(call).stuck

    def started(self, worker: Worker) -> None:
        """Note that the worker is ready."""
        worker.ready = True
        self._limits.started(worker.shape)
        self._now_idle(worker)

    def finished(self, worker: Worker, count: int) -> None:
        """Note that the first `count` calls in flight have ended."""
        in_flight = worker.in_flight
        for _ in range(count):
            in_flight.popleft()
        if not in_flight:
            self._now_idle(worker)

    def withdrawn(self, worker: Worker, calls: Iterable[WorkerCall]) -> None:
        """Put back these calls, the last in flight, without a beginning there now or later."""
        worker.withdrawing = False
        taken = [self._take_back(worker, call) for call in calls]
        self.put_back(reversed(taken))
        if taken and not worker.in_flight:  # with nothing taken back, the worker is idle already, or runs a call
            self._now_idle(worker)

    def _take_back(self, worker: Worker, call: WorkerCall) -> WorkerCall:
        worker.in_flight.remove(call)
        worker.served -= 1
        return call

    def put_back(self, calls: Iterable[WorkerCall]) -> None:
        """Put calls that ran nowhere to the front again; the last given becomes the first."""
        self._queues.put_back(calls)

    def lost(self, worker: Worker) -> list[WorkerCall]:
        """Free the resources of an ended worker; return the calls in flight there."""
        del self.workers[worker.number]
        # Idle and leaving workers have given their cores back already.
        if worker in self._idle.get(worker.shape, ()):
            self._remove_idle(worker)
        elif not worker.leaving:
            self._vacate(worker)
        self._memory += worker.shape.memory
        self._gpus.extend(worker.gpus)
        self._gpus.sort(key=self.capacity.gpus.index)
        in_flight, worker.in_flight = list(worker.in_flight), deque()
        return in_flight

    def not_started(self, shape: WorkerShape, scarce: bool = False, at_once: bool = False) -> list[WorkerCall]:
        """Note that a worker of this shape, lost by now, has failed to start; return the calls given up because of it.

        Args:
            shape: the shape of the worker.
            scarce: the system had no room for another process of any shape.
            at_once: another start would fail, too.
        """
        verdict = self._limits.failed(
            shape, len(self.workers), self._number_of(shape), scarce=scarce, at_once=at_once, idle=bool(self._idle)
        )
        self._retires_idle |= verdict == "make room"
        if verdict != "give up":
            return []
        return [call for queue in self._queues.take_out(shape) for call in queue.calls]

    @property
    def held_back(self) -> bool:
        """True if fewer workers are wanted because starts have failed."""
        return self._limits.in_force

    def try_again(self) -> None:
        """Want as many workers as before, because there may be room for more by now."""
        self._limits.try_again()

    def drain(self, all_of_them: bool = True) -> Iterator[WorkerCall]:
        """Take out the waiting calls one by one, each when the next is asked for, so that an interruption loses none.

        Without `all_of_them`, keep as many as there are starting workers.
        """
        for queue in self._queues:
            kept = self._kept(queue, all_of_them)
            while len(queue.calls) > kept:
                yield queue.calls[-1]
                queue.calls.pop()

    def droppable(self, all_of_them: bool = True) -> list[WorkerCall]:
        """Return the calls that `drain` would take out at this moment. Any thread may ask."""
        return [call for queue in tuple(self._queues) for call in tuple(queue.calls)[self._kept(queue, all_of_them) :]]

    def _kept(self, queue: _WorkerQueue, all_of_them: bool) -> int:
        return 0 if all_of_them else self._starting(queue.need)

    def retire_idle(self) -> None:
        """Let all idle workers go at the next decision: another process is going to use their resources."""
        self._retires_idle = True

    @property
    def waiting(self) -> bool:
        return self._queues.waiting

    @property
    def busy(self) -> bool:
        return self._active > 0

    # -- questions of any thread, about this moment ----------------------------------------------------

    def waiting_calls(self) -> list[WorkerCall]:
        """Return the calls that wait."""
        return self._queues.waiting_calls()

    def free(self) -> FreeResources:
        """Return what could be given to a call now, the GPUs and the memory of idle workers included."""
        idle = [worker for workers in tuple(self._idle.values()) for worker in tuple(workers)]
        memory = self._memory + sum(worker.shape.memory for worker in idle)
        gpus = len(self._gpus) + sum(len(worker.gpus) for worker in idle)
        return FreeResources(self._cores, gpus, memory, self.max_workers - self._active)

    def why_waits(self, call: WorkerCall) -> str:
        """Return what a waiting call waits for, in words that go on from "waits"."""
        waiting = self.waiting_calls()
        starting = sum(1 for w in tuple(self.workers.values()) if not w.ready and w.shape == call.shape)
        if starting and calls_before(call, (other for other in waiting if other.shape == call.shape)) < starting:
            return "for its worker to start"
        held_back = "another worker: there was no room for one" if self.held_back else "its turn"
        return reason(missing(call.shape, self.free()), calls_before(call, waiting), held_back)

    # -- decisions -------------------------------------------------------------------------------------

    def decide(self) -> list[Instruction]:
        """Return the instructions for now, in their order."""
        # A look at all idle workers costs time, so there has to be a reason.
        retires = self.max_tasks is not None or self._retires_idle or self._has_worn
        instructions: list[Instruction] = self._retire_idle_ones() if retires else []
        self._reserved = False
        heads = self._queues.heads()
        passed: list[_WorkerQueue] = []  # by each call that is placed from here on
        while heads:
            rank, _, queue = heappop(heads)
            if self._place(queue, instructions):
                for other in passed:
                    other.passed += 1
                self._queues.push(heads, rank, queue)
            elif not self._starting(queue.need):  # otherwise a worker is starting for this call
                passed.append(queue)
                # No call behind this one may be placed any more: the resources that become free are for this one.
                if queue.passed >= _PATIENCE * self.capacity.cores:
                    break
        return instructions

    def _place(self, queue: _WorkerQueue, instructions: list[Instruction]) -> bool:
        """Place the head of the queue, or start a worker for it; return False if nothing can be done now."""
        shape = queue.need
        queue.stuck = False
        idle = self._idle.get(shape)
        if idle and self._cores >= shape.cores and self._active < self.max_workers:
            worker = idle[-1]
            self._remove_idle(worker)
            self._occupy(worker)
            return self._send(worker, queue, instructions)
        starts = False
        while self._starting(shape) < len(queue.calls) and self._start(shape, instructions):
            starts = True
        if starts:
            return False  # the call stays in its queue until the worker is ready
        # No idle worker and no room for another: short calls may be sent ahead to a busy one.
        for worker in self.workers.values():
            if worker.shape == shape and worker.in_flight and self._send(worker, queue, instructions):
                return True
        queue.stuck = self._active >= self.max_workers
        return False

    def _send(self, worker: Worker, queue: _WorkerQueue, instructions: list[Instruction]) -> bool:
        room = self._room(worker, queue.calls[0])
        calls: list[WorkerCall] = []
        while len(calls) < room and queue.calls:
            call = queue.calls[0]
            if _long(call) and (calls or worker.in_flight):
                break
            begins = call.begin()  # False for a cancelled call; the next one may be of another kind
            if begins:
                calls.append(call)
                worker.served += 1
                worker.in_flight.append(call)
            queue.calls.popleft()  # last: the call is in one of the two at any moment, see `restore`
            if begins and _long(call):
                break
        if not calls:
            if not worker.in_flight:
                self._now_idle(worker)
            return False
        queue.passed = 0
        instructions.append(SendToWorker(worker, calls))
        return True

    def _room(self, worker: Worker, call: WorkerCall) -> int:
        """Return the number of calls like this one that may be sent to the worker now."""
        if worker.leaving or worker.withdrawing or worker.worn:
            return 0
        # The end of a long call cannot be foreseen, so no other call waits behind one.
        if worker.in_flight and _long(worker.in_flight[-1]):
            return 0
        most = 1 if _long(call) else min(_MOST_AHEAD, 1 + int(_AHEAD / max(call.expected(), 1e-6)))
        # Calls in flight count, too, so that no worker gets more than `max_tasks` in all.
        if self.max_tasks is not None:
            most = min(most, self.max_tasks - worker.served + len(worker.in_flight))
        # Topped up when half has been done, so that many calls share one message.
        return most - len(worker.in_flight) if 2 * len(worker.in_flight) <= most else 0

    def _start(self, shape: WorkerShape, instructions: list[Instruction]) -> bool:
        """Start a worker of this shape, or make room for one; return True if one starts."""
        if self._reserved or self._active >= self.max_workers or self._cores < shape.cores:
            return False
        if not self._limits.allow(shape, self._number_of):
            return False
        # Their resources are free soon, so they count before any idle worker has to go.
        leaving = [worker for worker in self.workers.values() if worker.leaving]
        going = self._to_retire_for(shape, leaving)
        if going is None:
            return False
        for worker in going:
            self._retire(worker, instructions)
        full = len(self.workers) >= self._limits.at_most(len(self.workers) + 1)
        if len(leaving) + len(going) > self.max_workers or not self._holds(shape) or full:
            self._reserved = True
            return False  # until the leaving ones have ended
        self._numbers += 1
        gpus, self._gpus = tuple(self._gpus[: shape.gpus]), self._gpus[shape.gpus :]
        worker = self.workers[self._numbers] = Worker(self._numbers, shape, gpus)
        self._memory -= shape.memory
        self._occupy(worker)
        instructions.append(StartWorker(worker))
        return True

    def _holds(self, shape: WorkerShape) -> bool:
        return self._memory >= shape.memory and len(self._gpus) >= shape.gpus

    def _to_retire_for(self, shape: WorkerShape, leaving: list[Worker]) -> list[Worker] | None:
        """Return idle workers with the missing resources; None if all of them together have too little."""
        memory = self._memory + sum(worker.shape.memory for worker in leaving)
        gpus = len(self._gpus) + sum(len(worker.gpus) for worker in leaving)
        places = self._limits.at_most(self.max_workers) - len(self.workers) + len(leaving)
        going: list[Worker] = []
        for worker in (worker for workers in self._idle.values() for worker in workers):
            lacks_memory, lacks_gpus = memory < shape.memory, gpus < shape.gpus
            if places < 1 or (lacks_memory and worker.shape.memory) or (lacks_gpus and worker.gpus):
                going.append(worker)
                memory, gpus, places = memory + worker.shape.memory, gpus + len(worker.gpus), places + 1
        return going if memory >= shape.memory and gpus >= shape.gpus and places > 0 else None

    def _retire(self, worker: Worker, instructions: list[Instruction]) -> None:
        """Retire an idle worker, which uses no core any more, but holds GPUs and memory until the end."""
        self._remove_idle(worker)
        worker.leaving = True
        instructions.append(RetireWorker(worker))

    def _retire_idle_ones(self) -> list[Instruction]:
        instructions: list[Instruction] = []
        most = 0 if self._retires_idle else self.max_tasks
        self._retires_idle = False
        for idle in list(self._idle.values()):
            for worker in [w for w in idle if w.worn or (most is not None and w.served >= most)]:
                self._retire(worker, instructions)
        return instructions

    # -- after an interruption -------------------------------------------------------------------------

    def restore(self, in_flight: Mapping[int, Iterable[WorkerCall]], gone: Container[WorkerCall]) -> list[WorkerCall]:
        """Put everything in order after an exception has interrupted any method above; return the waiting calls.

        `in_flight` has the sent and not ended calls of each started worker. Every other call found here waits, except
        for calls in `gone`, which have ended or are going to be added.
        """
        found = self._queues.waiting_calls()
        found += [call for worker in self.workers.values() for call in worker.in_flight]
        sent = {call for calls in in_flight.values() for call in calls}
        waiting = {call for call in found if call not in sent and call not in gone}
        # A worker without a connection was never started.
        self.workers = {number: worker for number, worker in self.workers.items() if number in in_flight}
        for number, worker in self.workers.items():
            worker.in_flight = deque(in_flight[number])
        self._recount()
        self._queues.clear()
        in_order = sorted(waiting, key=lambda call: call.order)
        for call in in_order:
            self.add(call)
        return in_order

    def _recount(self) -> None:
        """Count anew the resources that are given out, from the present workers."""
        workers = self.workers.values()
        self._memory = self.capacity.memory - sum(worker.shape.memory for worker in workers)
        used = {gpu for worker in workers for gpu in worker.gpus}
        self._gpus = [gpu for gpu in self.capacity.gpus if gpu not in used]
        self._cores, self._active, self._idle = self.capacity.cores, 0, {}
        self._has_worn = any(worker.worn for worker in workers)
        for worker in workers:
            if not worker.leaving:
                self._occupy(worker)
                if worker.ready and not worker.in_flight:
                    self._now_idle(worker)

    # -- accounts --------------------------------------------------------------------------------------

    def _remove_idle(self, worker: Worker) -> None:
        idle = self._idle[worker.shape]
        idle.remove(worker)
        if not idle:
            del self._idle[worker.shape]

    def _occupy(self, worker: Worker) -> None:
        self._active += 1
        self._cores -= worker.shape.cores

    def _vacate(self, worker: Worker) -> None:
        self._active -= 1
        self._cores += worker.shape.cores

    def _now_idle(self, worker: Worker) -> None:
        self._vacate(worker)
        self._idle.setdefault(worker.shape, []).append(worker)

    def _number_of(self, shape: WorkerShape) -> int:
        return sum(1 for w in self.workers.values() if w.shape == shape and not w.leaving)

    def _starting(self, shape: WorkerShape) -> int:
        return sum(1 for w in tuple(self.workers.values()) if not w.ready and w.shape == shape)


def _long(call: WorkerCall) -> bool:
    """Return True if no call should wait behind this one on its worker."""
    return call.alone or call.expected() > _SHORT
