"""The dispatcher's lock: what a thread may count on that finds it taken by another one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from gate import Gate, until

from callyard import Executor
from callyard.pool.dispatcher import Dispatcher


def dispatcher_of(executor: Executor) -> Dispatcher:
    found: Dispatcher = executor._running.backend._runner._dispatcher  # type: ignore[attr-defined]
    return found


@contextmanager
def busy(dispatcher: Dispatcher) -> Iterator[None]:
    """Let another thread be in the middle of a decision until a new event lies in the inbox."""
    has_lock, lets_go = threading.Event(), threading.Event()

    def decide() -> None:
        with dispatcher.lock:
            has_lock.set()
            lets_go.wait()

    thread = threading.Thread(target=decide)
    thread.start()
    has_lock.wait()
    yield
    until(lambda: dispatcher.inbox)
    lets_go.set()
    thread.join()


def test_calls_are_cancelled_once_the_caller_goes_on(gate: Gate) -> None:
    cancelled: list[bool] = []
    with Executor(1) as executor:
        held = executor.submit(gate.hold, "done")
        gate.arrived()
        waiting = [executor.submit(abs, number) for number in range(20)]

        def cancel() -> None:
            executor._running.backend.cancel_pending()  # the first step of `shutdown(cancel_futures=True)`
            cancelled.extend(future.cancelled() for future in waiting)

        thread = threading.Thread(target=cancel)
        with busy(dispatcher_of(executor)):
            thread.start()
        thread.join()
        assert cancelled == [True] * 20
        gate.open()
        assert held.result() == "done"


def test_a_finalizer_in_a_decision_leaves_the_cancelling_to_it(gate: Gate) -> None:
    with Executor(1) as executor:
        held = executor.submit(gate.hold, "done")
        gate.arrived()
        waiting = executor.submit(abs, -1)
        dispatcher = dispatcher_of(executor)
        with dispatcher.lock:
            executor._running.backend.cancel_pending()
            assert not waiting.cancelled()
        dispatcher.pump()
        assert waiting.cancelled()
        gate.open()
        assert held.result() == "done"
