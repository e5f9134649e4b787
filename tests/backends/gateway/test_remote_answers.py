"""The answers of a gateway: what they hold in memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np

from callyard import Cache, Executor
from callyard.backends.gateway.message_streams import MOST, LargeMessage
from callyard.backends.gateway.remote_answers import Answers
from callyard.cache.lookup import find
from callyard.futures import Future

COUNT = 4_000_000


class Kept:
    """Takes the place of a writer, and keeps the messages."""

    def __init__(self) -> None:
        self.large: list[Any] = []

    def put_large(self, message: Any) -> None:
        self.large.append(message)


def numbers() -> dict[str, Any]:
    flat = np.arange(COUNT, dtype="f8")
    return {"array": flat.reshape(1000, -1), "few": [1, 2.5, "three"]}


def sent(large: LargeMessage) -> list[bytes]:
    return [b"".join(map(bytes, source.pieces(MOST))) for source in large.sources]


def test_a_large_result_of_a_job_stays_in_its_file(results: Path) -> None:
    with Executor(1, cache=results) as executor:
        key = executor.submit(numbers).key
    future: Future[Any] = Future("numbers")
    found = find(Cache(results)._directory, key or "")
    assert found is not None
    future.finish(found)
    writer: Any = Kept()
    tracemalloc.start()
    try:
        Answers(writer).tell(1, future)
        (make,) = writer.large
        large = make()
        for source in large.sources:
            for piece in source.pieces(MOST):
                assert len(piece) <= MOST
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * COUNT / 10
    whole = numbers()["array"].tobytes()
    assert whole in sent(large)
    assert np.array_equal(found.load()["array"], numbers()["array"])  # the file is as it was
