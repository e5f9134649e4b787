"""The numbers of calls on this machine, when a result is there."""

from __future__ import annotations

from pathlib import Path

from callyard import Executor, File, Future


def write(path: str) -> File:
    Path(path).write_text("data")
    return File(path)


def test_a_result_with_files_is_counted_once(tmp_path: Path) -> None:
    with Executor(1, cache=tmp_path / "results") as ex:
        for _ in range(2):
            ex.submit(write, str(tmp_path / "data")).result()
            assert ex.status().count("finished") == 1
        assert ex.status().count("cached") == 1


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
