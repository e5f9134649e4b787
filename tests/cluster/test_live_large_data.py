"""Large arguments and results on nodes: what crosses, what waits, and what passes meanwhile."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError

import pytest
from gate import Gate, held
from pretended import Inside, node, same, until

from callyard import Executor
from callyard.cluster import agent_connection
from callyard.errors import WorkerLost
from callyard.serialize.shared_memory import Memory
from callyard.transport import tls_connection
from callyard.transport.channel import Listener
from callyard.transport.channel_messages import SendQueue

Make = Callable[..., Executor]


@pytest.mark.needs("numpy")
def test_large_data_there_and_back(make: Make) -> None:
    import numpy as np

    ex = make(count=2)
    array = np.arange(4_000_000, dtype="f8")
    back = ex.submit(np.negative, array)
    array[:] = 0  # what counts is what it was
    twice = ex.submit(np.negative, back)  # through the driver, unopened
    both = ex.submit(same, [back, twice]).result()
    expected = np.arange(4_000_000, dtype="f8")
    assert (both[1] == expected).all()
    assert (both[0] == -expected).all()
    both[0][0] = 1  # it is the caller's own


@pytest.mark.needs("numpy")
def test_a_large_argument_crosses_to_a_node_once(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    ex = make(count=1)
    crossed: list[tuple[int, int]] = []

    def send(self: Listener, peer: int, head: bytes, beside: Sequence[Memory] = (), bulk: bool = False) -> None:
        crossed.extend((id(memory), memory.size) for memory in beside)
        sent(self, peer, head, beside, bulk)

    sent = Listener.send
    monkeypatch.setattr(Listener, "send", send)
    array = np.arange(1_000_000, dtype="f8")
    assert [future.result() for future in [ex.submit(np.sum, array) for _ in range(20)]] == [array.sum()] * 20
    assert [size for _, size in crossed] == [8_000_000]
    agent = Inside(ex).driver._agents._by_name["n1"]
    ex.submit(same, 1).result()
    until(lambda: not agent._buffers._numbers)  # and is forgotten with the last call
    array[0] = 1
    assert ex.submit(np.sum, array).result() == array.sum()
    assert len(crossed) == 2


class Bulk:
    """The bulk of the driver's connections, which stops where the test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pieces = 0
        self.stops_at = 1 << 30
        bulk = self

        class Queue(SendQueue):
            def __bool__(self) -> bool:
                return bool(self._next) or (bool(self._bulk) and bulk.pieces < bulk.stops_at)

            def head(self) -> bytes | memoryview | None:
                return super().head() if self else None

            def _cut(self) -> None:
                bulk.pieces += 1
                super()._cut()

        monkeypatch.setattr(tls_connection, "SendQueue", Queue)

    def goes_on(self, ex: Executor) -> None:
        self.stops_at = 1 << 30
        driver = Inside(ex).driver
        listener = driver._agents._channel._listener
        driver._tell(lambda: [*map(listener._watch, listener._peers.values())])  # what waits is known to the loop again


@pytest.fixture
def bulk(monkeypatch: pytest.MonkeyPatch) -> Bulk:
    return Bulk(monkeypatch)


@pytest.mark.needs("numpy")
def test_small_calls_are_answered_while_a_large_argument_is_on_its_way(make: Make, bulk: Bulk) -> None:
    import numpy as np

    ex = make(count=1, each=3)
    Inside(ex).are_there(1)
    bulk.stops_at = bulk.pieces + 5
    array = np.arange(2_500_000, dtype="f8")
    large = ex.submit(np.sum, array)
    until(lambda: bulk.pieces == bulk.stops_at)
    for number in range(50):
        assert ex.submit(same, number).result() == number
    again = ex.submit(np.max, array)  # it waits for the same buffer, and for nothing else
    assert ex.submit(same, "small").result() == "small"
    assert not large.done()
    assert bulk.pieces == bulk.stops_at
    bulk.goes_on(ex)
    assert (large.result(), again.result()) == (array.sum(), array.max())


@pytest.mark.needs("numpy")
def test_a_signal_passes_a_large_argument_whose_call_never_begins(make: Make, bulk: Bulk, gate: Gate) -> None:
    import numpy as np

    ex = make(count=1, each=2)
    running = ex.submit(held, gate, node)
    gate.arrived()
    bulk.stops_at = bulk.pieces + 5
    large = ex.submit(np.sum, np.arange(2_500_000, dtype="f8"))
    until(lambda: bulk.pieces == bulk.stops_at)
    running.add_done_callback(lambda _: bulk.goes_on(ex))
    ex.kill_workers()
    assert isinstance(running.exception(), WorkerLost)
    with pytest.raises(CancelledError):
        large.result()


@pytest.mark.needs("numpy")
def test_calls_on_their_way_find_their_requirements(make: Make, bulk: Bulk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many calls, each with requirements of its own, so that the agent is told to forget the older ones."""
    import numpy as np

    monkeypatch.setattr(agent_connection, "_MOST_PLANS", 3)
    ex = make(count=1, each=2)
    arrays = [np.full(100_000, number) for number in range(10)]
    large = [ex.submit(np.sum, array, resource_dict={"priority": n}) for n, array in enumerate(arrays)]
    small = [ex.submit(same, n, resource_dict={"priority": n + 10}) for n in range(20)]
    assert [future.result() for future in large] == [100_000 * n for n in range(10)]
    assert [future.result() for future in small] == [*range(20)]


@pytest.mark.needs("numpy")
def test_a_hundred_calls_with_equal_arrays_take_the_memory_of_one(make: Make, gate: Gate) -> None:
    """In the driver and on the node."""
    import numpy as np

    ex = make(count=1, each=2)
    agent = Inside(ex).are_there(1)["n1"]
    running = [ex.submit(held, gate, node) for _ in range(2)]
    gate.arrived(2)
    before = len(_segments(os.getpid())), len(_segments(agent))
    array = np.arange(250_000, dtype="f8")
    waiting = [ex.submit(np.sum, array if n % 2 else array.copy()) for n in range(100)]
    assert len(_segments(os.getpid())) - before[0] <= 1
    gate.open(2)
    assert [future.result() for future in waiting] == [array.sum()] * 100
    assert {future.result() for future in running} == {"n1"}
    assert len(_segments(os.getpid())) - before[0] <= 1
    assert len(_segments(agent)) - before[1] <= 1


def _segments(pid: int) -> set[int]:
    """Return the files of memory that a process has open, by their number."""
    found = set()
    for fd in os.scandir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            if "memfd:callyard" in os.readlink(fd.path) and os.stat(fd.path).st_size >= 1 << 18:
                found.add(os.stat(fd.path).st_ino)
    return found
