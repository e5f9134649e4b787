"""System calls that fail: whichever it is and whenever, every call ends, the next is served, and nothing is left."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from typing import Any

import numpy as np
import pytest

from callyard import CallyardError, Executor, UnpicklableCall, WorkerLost
from callyard.pool import worker_connection as connection_module
from callyard.serialize import shared_memory
from callyard.serialize.packer import LARGE
from callyard.transport import frames
from callyard.transport import stream as stream_module
from callyard.transport.event_loop import EventLoop

SIZE = LARGE // 8
PATIENCE = 60.0  # s; nothing here takes as long


def filled(value: float, size: int = SIZE) -> Any:
    return np.full(size, value)


def several(value: float) -> list[Any]:
    return [np.full(SIZE, value) for _ in range(5)]


def end_of(future: Any) -> object:
    """What a call has ended with. An error must be one that says what happened."""
    error = future.exception(timeout=PATIENCE)
    assert error is None or isinstance(error, CallyardError | OSError), error
    return error


def use(executor: Executor) -> list[Any]:
    """Calls of all kinds: small ones, large arguments, large results, results as arguments."""
    made = [executor.submit(filled, float(i)) for i in range(3)]
    lists = [executor.submit(several, float(i)) for i in range(2)]
    sums = [executor.submit(np.sum, future) for future in made]
    given = [executor.submit(np.sum, filled(1.0, SIZE + i)) for i in range(3)]
    small = [executor.submit(pow, 2, i) for i in range(10)]
    return [*made, *lists, *sums, *given, *small]


def shut_down(executor: Executor) -> None:
    thread = threading.Thread(target=executor.shutdown, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive(), "shutdown does not end"


class Fault:
    """In the place of a function: fails the calls of it that it is told to."""

    def __init__(self, function: Callable[..., Any], number: int, last: int, error: int) -> None:
        self.function, self.number, self.last, self.error = function, number, last, error
        self.calls = count(1)

    def __get__(self, instance: Any, owner: type) -> Any:
        return partial(self, instance)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        if self.number <= next(self.calls) <= self.last:
            raise OSError(self.error, os.strerror(self.error))
        return self.function(*arguments, **options)


PLACES: dict[str, tuple[Any, str, list[int]]] = {
    "send": (
        stream_module,
        "send_with_descriptors",
        [errno.ENOBUFS, errno.ETOOMANYREFS, errno.EBADF],
    ),
    "receive": (frames, "receive", [errno.ENOMEM, errno.ECONNRESET]),
    "memory": (shared_memory.os, "memfd_create", [errno.EMFILE]),
    "size": (shared_memory.os, "ftruncate", [errno.ENOSPC]),
    "map": (shared_memory.mmap, "mmap", [errno.ENOMEM]),
    "view": (shared_memory, "_Mapping", [errno.EMFILE]),
    "pair": (socket, "socketpair", [errno.EMFILE]),
    "watch": (EventLoop, "watch", [errno.ENOSPC]),
}
FAULTS = [(place, error) for place, (_, _, errors) in PLACES.items() for error in errors]


@pytest.mark.needs("linux")
@pytest.mark.parametrize("times", [1, 6])
@pytest.mark.parametrize(("place", "error"), FAULTS, ids=[f"{p}-{errno.errorcode[e]}" for p, e in FAULTS])
def test_whatever_fails_in_the_driver(
    place: str, error: int, times: int, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    where, name, _ = PLACES[place]
    for number in (2,) if times > 1 else (1, 2, 5, 17):
        executor = Executor(2)
        with monkeypatch.context() as patch:
            patch.setattr(where, name, Fault(getattr(where, name), number, number + times - 1, error))
            futures = []
            with contextlib.suppress(OSError):  # without a thread for it no call is taken
                futures = use(executor)
            ends = [end_of(future) for future in futures]
            assert len(ends) == len(futures)
        assert executor.submit(pow, 2, 3).result(PATIENCE) == 8
        shut_down(executor)
    assert "cannot go on" not in caplog.text


def break_sending(error: int, last: int) -> None:
    """In a worker: from the next message on some cannot be sent."""
    send = frames.send_with_descriptors
    frames.send_with_descriptors = Fault(send, 2, 2 + last, error)


@pytest.mark.parametrize("last", [0, 3])
@pytest.mark.parametrize("error", [errno.ENOBUFS, errno.ETOOMANYREFS, errno.ENOMEM])
def test_a_worker_sends_what_could_not_be_sent(error: int, last: int) -> None:
    with Executor(1) as executor:
        executor.submit(break_sending, error, last).result(PATIENCE)
        results = [executor.submit(filled, float(i)) for i in range(4)]
        assert [float(future.result(PATIENCE)[-1]) for future in results] == [0.0, 1.0, 2.0, 3.0]


# ------------------------------------------------------------------ descriptors


@contextlib.contextmanager
def no_more_descriptors() -> Iterator[None]:
    """All that this process may open is open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [os.open("/dev/null", os.O_RDONLY)]
    highest = max(map(int, os.listdir("/dev/fd")))
    while taken[-1] < highest:
        taken.append(os.dup(taken[0]))
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken[-1] + 1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in taken:
            os.close(descriptor)


def test_results_whose_descriptors_find_no_room_are_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    with Executor(2) as executor:
        executor.submit(pow, 2, 2).result(PATIENCE)
        executor.submit(several, 0.0).result(PATIENCE)
        with no_more_descriptors():
            lists = [executor.submit(several, float(i)) for i in range(10)]
            firsts = [[float(array[-1]) for array in future.result(PATIENCE)] for future in lists]
        assert firsts == [[float(i)] * 5 for i in range(10)]
        assert executor.submit(pow, 2, 3).result(PATIENCE) == 8


_kept: Any = None


def take_all_descriptors() -> None:
    global _kept
    _kept = no_more_descriptors()
    _kept.__enter__()


def give_all_back() -> None:
    _kept.__exit__(None, None, None)


def sum_of(arrays: list[Any]) -> float:
    return float(sum(array[-1] for array in arrays))


def test_arguments_whose_descriptors_find_no_room_are_fetched() -> None:
    with Executor(1) as executor:
        made = executor.submit(filled, 3.0)
        executor.submit(take_all_descriptors).result(PATIENCE)
        sums = [executor.submit(sum_of, [filled(float(i)), filled(1.0), made]) for i in range(10)]
        small = [executor.submit(pow, 2, i) for i in range(10)]
        assert [future.result(PATIENCE) for future in sums] == [i + 4.0 for i in range(10)]
        assert [future.result(PATIENCE) for future in small] == [2**i for i in range(10)]
        executor.submit(give_all_back).result(PATIENCE)


def test_what_is_fetched_may_come_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callyard.transport.frame_buffers._PIECE", 1 << 16)
    test_arguments_whose_descriptors_find_no_room_are_fetched()


# ------------------------------------------------------------------ rubbish


def write_to_all(data: bytes) -> None:
    """What a program does that takes descriptors for its own."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2:
            with contextlib.suppress(OSError):
                os.write(int(name), data)


@pytest.mark.needs("proc")
@pytest.mark.parametrize("data", [b"x" * 100, b"\xff" * 100, bytes(100), frames.encode(frames.RESULT, 1, 0, 1, b"x")])
def test_rubbish_from_a_worker_ends_only_that_worker(data: bytes) -> None:
    with Executor(2) as executor:
        executor.submit(pow, 2, 2).result(PATIENCE)
        broken = executor.submit(write_to_all, data)
        with pytest.raises(WorkerLost, match=r"'write_to_all' lost its worker: what it sent could not be read"):
            broken.result(PATIENCE)
        futures = use(executor)
        assert [end_of(future) for future in futures] == [None] * len(futures)


# ------------------------------------------------------------------ too large to be sent


def test_what_cannot_be_sent_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with Executor(2) as executor:
        monkeypatch.setattr(shared_memory.SegmentPool, "fill", lambda *_: None)
        monkeypatch.setattr(frames, "LARGEST", 4 * LARGE)
        large = executor.submit(np.sum, filled(1.0, 8 * SIZE))
        small = executor.submit(np.sum, filled(1.0))
        with pytest.raises(UnpicklableCall, match=r"the arguments of 'sum' cannot be sent.*ulimit -n"):
            large.result(PATIENCE)
        assert small.result(PATIENCE) == SIZE


def without_shared_memory() -> None:
    shared_memory.SegmentPool.fill = lambda *_: None  # type: ignore[method-assign]
    frames.LARGEST = 4 * LARGE


def test_a_result_that_cannot_be_sent_fails_alone() -> None:
    with Executor(1) as executor:
        executor.submit(without_shared_memory).result(PATIENCE)
        large, small = executor.submit(filled, 1.0, 8 * SIZE), executor.submit(filled, 1.0)
        with pytest.raises(UnpicklableCall, match=r"the result cannot be sent back.*ulimit -n"):
            large.result(PATIENCE)
        assert small.result(PATIENCE)[-1] == 1.0


def test_the_traceback_of_a_result_that_cannot_be_pickled_tells_of_one_attempt() -> None:
    with Executor(1) as executor:
        text = str(executor.submit(threading.Lock).exception(PATIENCE).__cause__)  # type: ignore[union-attr]
    assert text.count("Traceback (most recent call last)") == 1
    assert "During handling" not in text


# ------------------------------------------------------------------ the share


def test_workers_beyond_the_share_are_not_started_and_calls_wait_for_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection_module._WORKERS, "_divisor", 1 << 40)
    with Executor(4) as executor:
        with pytest.raises(WorkerLost, match=r"no worker could be started.*descriptors for workers"):
            executor.submit(pow, 2, 2).result(PATIENCE)
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    monkeypatch.setattr(connection_module._WORKERS, "_divisor", soft // (2 * connection_module.EACH))
    with Executor(4) as executor:
        calls = [executor.submit(os.getpid) for _ in range(40)]
        assert len({call.result(PATIENCE) for call in calls}) <= 2
