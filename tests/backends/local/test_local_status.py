"""The numbers of calls on this machine, when a result is there."""

from __future__ import annotations

from callyard import Executor, Future


def test_a_result_is_counted_before_anybody_hears_of_it() -> None:
    counts = []

    def count(_: Future[int]) -> None:
        counts.append(ex.status().count("finished"))

    with Executor(1) as ex:
        for number in range(3):
            future = ex.submit(abs, -number)
            future.add_done_callback(count)
            assert future.result() == number
    assert counts == [1, 2, 3]
