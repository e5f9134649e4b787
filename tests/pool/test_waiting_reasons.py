"""The words for what a call waits for, from needs and free resources."""

from __future__ import annotations

import pytest

from callyard.pool.call_shape import WorkerShape
from callyard.pool.waiting_reasons import FreeResources, missing, reason

pytestmark = pytest.mark.wide

ENOUGH = FreeResources(4, 2, 8 << 30, 4)


@pytest.mark.parametrize(
    ("shape", "free", "words"),
    [
        (WorkerShape(1), ENOUGH, "for its turn"),
        (WorkerShape(1), ENOUGH._replace(cores=0), "for a core"),
        (WorkerShape(8), ENOUGH, "for 8 cores"),
        (WorkerShape(1, 1), ENOUGH._replace(gpus=0), "for a GPU"),
        (WorkerShape(1, 2), ENOUGH._replace(gpus=1, cores=0), "for 2 GPUs and a core"),
        (WorkerShape(1, 0, 3 << 29), ENOUGH._replace(memory=0), "for 1.5 GiB of memory"),
        (WorkerShape(1), ENOUGH._replace(workers=0), "for one of the running calls to end (max_workers)"),
        (WorkerShape(1), ENOUGH._replace(workers=None), "for its turn"),
    ],
)
def test_what_is_missing(shape: WorkerShape, free: FreeResources, words: str) -> None:
    assert reason(missing(shape, free), 0) == words


def test_calls_before() -> None:
    assert reason(["2 GPUs"], 1) == "for 2 GPUs; 1 call is before it"
    assert reason(["2 GPUs"], 3) == "for 2 GPUs; 3 calls are before it"
    assert reason([], 0, "another worker") == "for another worker"
