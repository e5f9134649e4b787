"""Which call runs on which worker, and when: decisions only, no processes, no clocks.

Events go in (`add`, `started`, `finished`, ...), and `decide()` tells what to do now: start a worker, send calls
to one, let one go. Calls that ask for the same wait in one line; the heads of the lines are looked at by priority,
then by age. What a call asks for is given out once:

* cores from the moment a call is sent to a worker until its result is there;
* GPUs and memory for as long as the worker lives, because an idle process may still hold them. An idle worker is
  let go when somebody waits for what it holds.

Where no more workers can be started, calls wait for those that are there: idle ones of other shapes make room, and more
are wanted again when one has ended, or after a while (`try_again`). Calls fail when there is none to wait for.

A small call may pass a large one that waits. When that has happened often enough, nothing passes any more until
the large one has been placed, so it is not starved.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterable, Iterator, Mapping
from heapq import heappop, heappush
from typing import NamedTuple, Protocol

from .call_shape import NodeCapacity, QueuedCall, WorkerShape

_AHEAD = 0.001  # s of work that may lie before a worker besides what it runs
_SHORT = 0.0002  # s; calls of functions that take longer are sent one at a time
_MOST_AHEAD = 256
_PATIENCE = 4  # so many times the node's size may calls pass one that waits
_START_TRIES = 3  # workers that may die while starting before the calls that need them fail


class WorkerCall(QueuedCall, Protocol):
    """A call, as far as the pool is concerned."""

    @property
    def shape(self) -> WorkerShape: ...


class Worker:
    """A worker as the pool sees it: `flight` holds the calls sent to it, in the order in which it runs them.

    One that is `worn` gets no further calls, and is let go when it is idle.
    """

    __slots__ = ("flight", "gpus", "leaving", "number", "ready", "served", "shape", "withdrawing", "worn")

    def __init__(self, number: int, shape: WorkerShape, gpus: tuple[str, ...]) -> None:
        self.number, self.shape, self.gpus = number, shape, gpus
        self.flight: deque[WorkerCall] = deque()
        self.ready = self.worn = False
        self.leaving = False
        self.withdrawing = False
        self.served = 0

    def __repr__(self) -> str:
        return f"<Worker {self.number} {len(self.flight)} calls>"


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


class _CallQueue:
    """Calls of one shape and priority, oldest first."""

    __slots__ = ("calls", "passed", "shape", "stuck")

    def __init__(self, shape: WorkerShape) -> None:
        self.shape = shape
        self.calls: deque[WorkerCall] = deque()
        self.passed = 0  # calls behind the head that were placed before it
        self.stuck = False  # when last looked at, the head could only wait for calls that run

    def head(self) -> WorkerCall | None:
        calls = self.calls
        while calls and calls[0].abandoned():
            calls.popleft()
        return calls[0] if calls else None


class WorkerPlacement:
    """The workers of one node and the calls that wait for them."""

    def __init__(self, capacity: NodeCapacity, max_workers: int, max_tasks: int | None = None) -> None:
        self.capacity = capacity
        self.max_workers = max_workers
        self.max_tasks = max_tasks
        self.workers: dict[int, Worker] = {}
        self._lines: dict[tuple[int, WorkerShape], _CallQueue] = {}
        self._idle: dict[WorkerShape, list[Worker]] = {}  # most recently used last
        self._cores = capacity.cores
        self._memory = capacity.memory
        self._gpus = list(capacity.gpus)
        self._active = 0  # workers that run something or start
        self._failed_starts: dict[WorkerShape, int] = {}  # in a row, while no worker of that shape was there
        self._room_made: set[WorkerShape] = set()  # shapes for which idle workers went because theirs failed to start
        self._most: int | None = None  # workers that this machine seems to have room for, if less than wanted
        self._most_of: dict[WorkerShape, int] = {}  # likewise, of one shape
        self._numbers = 0
        self._lets_go = False  # of all idle workers, at the next decision
        self._has_worn = False  # perhaps
        self._reserved = False  # workers end to make room for a certain one, so no other may start now

    # -- events ----------------------------------------------------------------------------------------

    def add(self, call: WorkerCall) -> bool:
        """Put the call into its line; False if it only waits behind others for what others use."""
        key = (-call.priority, call.shape)
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = _CallQueue(call.shape)
        line.calls.append(call)
        return not line.stuck

    def started(self, worker: Worker) -> None:
        """The worker has said that it is ready."""
        worker.ready = True
        self._failed_starts.pop(worker.shape, None)
        self._room_made.discard(worker.shape)
        self._at_rest(worker)

    def finished(self, worker: Worker, count: int) -> None:
        """The first `count` calls in flight have ended."""
        flight = worker.flight
        for _ in range(count):
            flight.popleft()
        if not flight:
            self._at_rest(worker)

    def withdrawn(self, worker: Worker, calls: Iterable[WorkerCall]) -> None:
        """These calls, the last in flight, did not begin and never will there."""
        worker.withdrawing = False
        taken = [self._taken_back(worker, call) for call in calls]
        self.put_back(reversed(taken))
        if taken and not worker.flight:  # with nothing taken it is at rest already, or runs something
            self._at_rest(worker)

    def _taken_back(self, worker: Worker, call: WorkerCall) -> WorkerCall:
        worker.flight.remove(call)
        worker.served -= 1
        return call

    def put_back(self, calls: Iterable[WorkerCall]) -> None:
        """Calls that ran nowhere go to the front again, the last given first in line."""
        for call in calls:
            self.add(call)
            line = self._lines[(-call.priority, call.shape)]
            line.calls.rotate(1)

    def lost(self, worker: Worker) -> list[WorkerCall]:
        """The worker has ended. Its resources are free; what was in flight is returned."""
        del self.workers[worker.number]
        if worker in self._idle.get(worker.shape, ()):
            self._forget_idle(worker)
        elif not worker.leaving:
            self._stop_using(worker)
        self._memory += worker.shape.memory
        self._gpus.extend(worker.gpus)
        self._gpus.sort(key=self.capacity.gpus.index)
        flight, worker.flight = list(worker.flight), deque()
        return flight

    def not_started(self, shape: WorkerShape, scarce: bool = False, at_once: bool = False) -> list[WorkerCall]:
        """A worker of this shape, lost by now, has failed to start; returned are the calls that are given up for it.

        `scarce`: the system had no room for another process, of whatever shape; `at_once`: the next would fail too.
        """
        if scarce and self.workers:
            self._most = len(self.workers)
            return []
        if number := self._number_of(shape):
            self._most_of[shape] = number
            return []
        self._failed_starts[shape] = self._failed_starts.get(shape, 0) + 1
        if not at_once and (self._failed_starts[shape] < _START_TRIES or self._make_room(shape)):
            return []
        self._room_made.discard(shape)
        self._failed_starts.pop(shape, None)
        keys = [key for key, line in self._lines.items() if line.shape == shape]
        return [call for key in keys for call in self._lines.pop(key).calls]

    def _make_room(self, shape: WorkerShape) -> bool:
        """Let the idle workers of other shapes go, once, before this one is given up; whether there were any."""
        if not self._idle or shape in self._room_made:
            return False
        self._room_made.add(shape)
        self._failed_starts.pop(shape, None)
        self._lets_go = True
        return True

    @property
    def held_back(self) -> bool:
        """Whether fewer workers are wanted because some have failed to start."""
        return self._most is not None or bool(self._most_of)

    def try_again(self) -> None:
        """There may be room for more workers by now."""
        self._most = None
        self._most_of.clear()

    def drain(self, all_of_them: bool = True) -> Iterator[WorkerCall]:
        """The calls that wait, each of which waits until the next is asked for.

        Without those for which a worker is being started, unless `all_of_them` are meant.
        """
        for line in self._lines.values():
            kept = 0 if all_of_them else self._starting(line.shape)
            while len(line.calls) > kept:
                yield line.calls[-1]
                line.calls.pop()

    def let_idle_go(self) -> None:
        """Somebody else is going to use what idle workers hold."""
        self._lets_go = True

    @property
    def waiting(self) -> bool:
        return any(line.head() is not None for line in self._lines.values())

    @property
    def busy(self) -> bool:
        return self._active > 0

    # -- decisions -------------------------------------------------------------------------------------

    def decide(self) -> list[Instruction]:
        """What to do now."""
        retires = self.max_tasks is not None or self._lets_go or self._has_worn
        todo: list[Instruction] = self._served_enough() if retires else []
        self._reserved = False
        heads: list[tuple[int, int, _CallQueue]] = []
        for (rank, _), line in list(self._lines.items()):
            self._queue(heads, rank, line)
        passed: list[_CallQueue] = []  # by whatever is placed from here on
        while heads:
            rank, _, line = heappop(heads)
            if self._place(line, todo):
                for other in passed:
                    other.passed += 1
                self._queue(heads, rank, line)
            elif not self._starting(line.shape):  # else it has its place already
                passed.append(line)
                if line.passed >= _PATIENCE * self.capacity.cores:
                    break
        return todo

    def _queue(self, heads: list[tuple[int, int, _CallQueue]], rank: int, line: _CallQueue) -> None:
        """Let the head of the line be looked at in its turn: the highest priority, then the oldest."""
        head = line.head()
        if head is None:
            del self._lines[rank, line.shape]
        else:
            heappush(heads, (rank, head.order, line))

    def _place(self, line: _CallQueue, todo: list[Instruction]) -> bool:
        """Do something for the head of the line; False if nothing can be done now."""
        shape = line.shape
        line.stuck = False
        idle = self._idle.get(shape)
        if idle and self._cores >= shape.cores and self._active < self.max_workers:
            worker = idle[-1]
            self._forget_idle(worker)
            self._use(worker)
            return self._send(worker, line, todo)
        starts = False
        while self._starting(shape) < len(line.calls) and self._start(shape, todo):
            starts = True
        if starts:
            return False  # the call stays in line until the worker is ready
        for worker in self.workers.values():
            if worker.shape == shape and worker.flight and self._send(worker, line, todo):
                return True
        line.stuck = self._active >= self.max_workers
        return False

    def _send(self, worker: Worker, line: _CallQueue, todo: list[Instruction]) -> bool:
        room = self._room(worker, line.calls[0])
        calls: list[WorkerCall] = []
        while len(calls) < room and line.calls:
            call = line.calls[0]
            if _long(call) and (calls or worker.flight):
                break
            begins = call.begin()  # or it has just been cancelled, and the next one may be of another kind
            if begins:
                calls.append(call)
                worker.served += 1
                worker.flight.append(call)
            line.calls.popleft()  # last: it is in one of the two at any moment, see `restore`
            if begins and _long(call):
                break
        if not calls:
            if not worker.flight:
                self._at_rest(worker)
            return False
        line.passed = 0
        todo.append(SendToWorker(worker, calls))
        return True

    def _room(self, worker: Worker, call: WorkerCall) -> int:
        """How many calls like this one may be sent to the worker now."""
        if worker.leaving or worker.withdrawing or worker.worn:
            return 0
        if worker.flight and _long(worker.flight[-1]):
            return 0
        most = 1 if _long(call) else min(_MOST_AHEAD, 1 + int(_AHEAD / max(call.expected(), 1e-6)))
        if self.max_tasks is not None:
            most = min(most, self.max_tasks - worker.served + len(worker.flight))
        # Topped up when half has been done, so that many calls share one message.
        return most - len(worker.flight) if 2 * len(worker.flight) <= most else 0

    def _start(self, shape: WorkerShape, todo: list[Instruction]) -> bool:
        """Start a worker of this shape, or make room for one."""
        if self._reserved or self._active >= self.max_workers or self._cores < shape.cores:
            return False
        if shape in self._most_of and self._number_of(shape) >= self._most_of[shape]:
            return False
        leaving = [worker for worker in self.workers.values() if worker.leaving]
        going = self._who_must_go(shape, leaving)
        if going is None:
            return False
        for worker in going:
            self._retire(worker, todo)
        if len(leaving) + len(going) > self.max_workers or not self._holds(shape) or self._full():
            self._reserved = True
            return False  # until those have ended
        self._numbers += 1
        gpus, self._gpus = tuple(self._gpus[: shape.gpus]), self._gpus[shape.gpus :]
        worker = self.workers[self._numbers] = Worker(self._numbers, shape, gpus)
        self._memory -= shape.memory
        self._use(worker)
        todo.append(StartWorker(worker))
        return True

    def _full(self) -> bool:
        return self._most is not None and len(self.workers) >= self._most

    def _holds(self, shape: WorkerShape) -> bool:
        return self._memory >= shape.memory and len(self._gpus) >= shape.gpus

    def _who_must_go(self, shape: WorkerShape, leaving: list[Worker]) -> list[Worker] | None:
        """Idle workers that hold what is missing; None if all of them do not hold enough, so that none need go."""
        memory = self._memory + sum(worker.shape.memory for worker in leaving)
        gpus = len(self._gpus) + sum(len(worker.gpus) for worker in leaving)
        most = self.max_workers if self._most is None else min(self.max_workers, self._most)
        places = most - len(self.workers) + len(leaving)
        going: list[Worker] = []
        for worker in (worker for workers in self._idle.values() for worker in workers):
            lacks_memory, lacks_gpus = memory < shape.memory, gpus < shape.gpus
            if places < 1 or (lacks_memory and worker.shape.memory) or (lacks_gpus and worker.gpus):
                going.append(worker)
                memory, gpus, places = memory + worker.shape.memory, gpus + len(worker.gpus), places + 1
        return going if memory >= shape.memory and gpus >= shape.gpus and places > 0 else None

    def _retire(self, worker: Worker, todo: list[Instruction]) -> None:
        """Let an idle worker go. It uses no core any more, but holds its GPUs and memory until it has ended."""
        self._forget_idle(worker)
        worker.leaving = True
        todo.append(RetireWorker(worker))

    def _served_enough(self) -> list[Instruction]:
        todo: list[Instruction] = []
        most = 0 if self._lets_go else self.max_tasks
        self._lets_go = False
        for idle in list(self._idle.values()):
            for worker in [w for w in idle if w.worn or (most is not None and w.served >= most)]:
                self._retire(worker, todo)
        return todo

    # -- after an interruption -------------------------------------------------------------------------

    def restore(self, flights: Mapping[int, Iterable[WorkerCall]], gone: Container[WorkerCall]) -> list[WorkerCall]:
        """Put everything in order after an exception has interrupted any of the above; the calls that wait now.

        `flights` has, for each worker that was started, what has been sent to it and has not ended. What else is
        found here waits, but for what is `gone`: it has ended, or is going to be added.
        """
        found = [call for line in self._lines.values() for call in line.calls]
        found += [call for worker in self.workers.values() for call in worker.flight]
        sent = {call for calls in flights.values() for call in calls}
        waiting = {call for call in found if call not in sent and call not in gone}
        self.workers = {number: worker for number, worker in self.workers.items() if number in flights}
        for number, worker in self.workers.items():
            worker.flight = deque(flights[number])
        self._recount()
        self._lines.clear()
        in_order = sorted(waiting, key=lambda call: call.order)
        for call in in_order:
            self.add(call)
        return in_order

    def _recount(self) -> None:
        """Take account of what is given out."""
        workers = self.workers.values()
        self._memory = self.capacity.memory - sum(worker.shape.memory for worker in workers)
        used = {gpu for worker in workers for gpu in worker.gpus}
        self._gpus = [gpu for gpu in self.capacity.gpus if gpu not in used]
        self._cores, self._active, self._idle = self.capacity.cores, 0, {}
        self._has_worn = any(worker.worn for worker in workers)
        for worker in workers:
            if not worker.leaving:
                self._use(worker)
                if worker.ready and not worker.flight:
                    self._at_rest(worker)

    # -- accounts --------------------------------------------------------------------------------------

    def _forget_idle(self, worker: Worker) -> None:
        idle = self._idle[worker.shape]
        idle.remove(worker)
        if not idle:
            del self._idle[worker.shape]

    def _use(self, worker: Worker) -> None:
        self._active += 1
        self._cores -= worker.shape.cores

    def _stop_using(self, worker: Worker) -> None:
        self._active -= 1
        self._cores += worker.shape.cores

    def _at_rest(self, worker: Worker) -> None:
        self._stop_using(worker)
        self._idle.setdefault(worker.shape, []).append(worker)

    def _number_of(self, shape: WorkerShape) -> int:
        return sum(1 for w in self.workers.values() if w.shape == shape and not w.leaving)

    def _starting(self, shape: WorkerShape) -> int:
        return sum(1 for w in self.workers.values() if not w.ready and w.shape == shape)


def _long(call: WorkerCall) -> bool:
    """Whether nothing should wait behind this call on its worker."""
    return call.alone or call.expected() > _SHORT
