"""Arrays and other large data: what arrives, whose copy it is, and how often it is stored."""

from __future__ import annotations

import os
import pickle
import resource
import subprocess
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import pytest
from gate import Gate

from callyard import Executor, item
from callyard.serialize.packer import LARGE
from callyard.transport.frames import MOST_DESCRIPTORS

np = pytest.importorskip("numpy")

Make = Callable[..., Executor]
BIG = 1 << 20  # elements: well beyond what travels in the socket


def same(value: Any) -> Any:
    return value


def kind_of(array: Any) -> tuple[Any, ...]:
    return array.dtype.str, array.shape, bool(array.flags.f_contiguous), bool(array.flags.writeable)


ARRAYS: dict[str, Callable[[], Any]] = {
    "C order": lambda: np.arange(BIG, dtype=float).reshape(1024, -1),
    "Fortran order": lambda: np.asfortranarray(np.arange(BIG, dtype=float).reshape(1024, -1)),
    "every other": lambda: np.arange(BIG)[::2],
    "reversed": lambda: np.arange(BIG)[::-1],
    "transposed part": lambda: np.arange(BIG).reshape(1024, -1)[10:900, 5:600].T,
    "broadcast": lambda: np.broadcast_to(np.arange(1024.0), (1024, 1024)),
    "no elements": lambda: np.empty((0, 5)),
    "no dimensions": lambda: np.array(3.5),
    "small": lambda: np.arange(3),
    "structured": lambda: np.zeros(BIG // 4, dtype=[("x", "f8"), ("name", "U3"), ("v", "i4", (2,))]),
    "objects": lambda: np.array([1, "two", [3]] * 100, dtype=object),
    "text": lambda: np.array(["a", "bcd"] * 50_000),
    "other byte order": lambda: np.arange(BIG, dtype=">f4"),
    "dates": lambda: np.arange(BIG).astype("datetime64[s]"),
    "complex": lambda: np.ones(BIG // 4, dtype=complex),
    "truth values": lambda: np.ones(BIG, dtype=bool),
    "NaN": lambda: np.full(BIG, np.nan),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays_there_and_back(ex: Executor, kind: str) -> None:
    array = ARRAYS[kind]()
    result = ex.submit(same, array).result()
    np.testing.assert_array_equal(result, array)
    assert result.dtype == array.dtype
    assert ex.submit(same, {"deep": [array]}).result()["deep"][0].shape == array.shape


@pytest.mark.parametrize("size", [10, BIG])
def test_copies_can_be_written(ex: Executor, size: int) -> None:
    def change(array: Any) -> Any:
        array += 1
        return array

    array = np.zeros(size)
    result = ex.submit(change, array).result()
    result += 1
    assert result.min() == result.max() == 2
    assert array.max() == 0


@pytest.mark.parametrize("size", [10, BIG])
def test_readonly_stays_readonly(ex: Executor, size: int) -> None:
    array = np.zeros(size)
    array.flags.writeable = False
    assert ex.submit(lambda a: a.flags.writeable, array).result() is False
    assert ex.submit(same, array).result().flags.writeable is False


BUFFERS: dict[str, Callable[[], Any]] = {
    "bytes": lambda: b"abc" * BIG,
    "bytearray": lambda: bytearray(b"abc" * BIG),
    "text": lambda: "äb" * BIG,
    "PickleBuffer": lambda: pickle.PickleBuffer(bytearray(b"abc" * BIG)),
    "many": lambda: [bytearray([i]) * (1 << 18) for i in range(20)],
    "nested": lambda: {"a": (np.ones(BIG), b"x" * BIG), "b": bytearray(BIG)},
}


@pytest.mark.parametrize("kind", BUFFERS)
def test_other_large_objects(ex: Executor, kind: str) -> None:
    value = BUFFERS[kind]()
    result = ex.submit(same, value).result()
    if kind == "PickleBuffer":
        assert bytes(result) == value.raw()
    elif kind == "nested":
        assert result["a"][0].sum() == BIG
        assert result["a"][1] == value["a"][1]
        result["b"][0] = 7
    else:
        assert result == value
        assert type(result) is type(value)


def test_a_memoryview(ex: Executor) -> None:
    view = memoryview(b"abc" * BIG)[3:]
    assert bytes(ex.submit(same, view).result()) == view


def test_pandas(ex: Executor) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": np.arange(BIG), "b": ["x", "y"] * (BIG // 2)})
    pandas.testing.assert_frame_equal(ex.submit(same, frame).result(), frame)


# ------------------------------------------------------------------ whose copy it is


def overwrite(array: Any) -> float:
    before = float(array[0])
    array[:] = -1
    return before


def test_a_change_in_place_reaches_nobody_else(make: Make) -> None:
    ex = make(2)
    array = np.ones(BIG)
    assert [ex.submit(overwrite, array).result() for _ in range(4)] == [1] * 4  # the same worker among them
    futures = [ex.submit(overwrite, array) for _ in range(8)]
    assert [future.result() for future in futures] == [1] * 8
    assert array.min() == 1


def test_a_change_of_a_dependency_reaches_nobody_else(make: Make) -> None:
    ex = make(2)
    made = ex.submit(np.ones, BIG)
    assert [future.result() for future in [ex.submit(overwrite, made) for _ in range(6)]] == [1] * 6
    result = made.result()
    assert result.min() == 1
    result[:] = 5
    assert ex.submit(overwrite, result).result() == 5


def test_the_content_is_that_of_submit(make: Make, gate: Gate) -> None:
    ex = make(1)
    ex.submit(gate.hold)
    array = np.zeros(BIG)
    futures = []
    for i in range(5):
        array[:] = i
        futures.append(ex.submit(np.max, array))
    array[:] = 99
    gate.open()
    assert [float(future.result()) for future in futures] == [0, 1, 2, 3, 4]


def test_a_result_that_the_worker_keeps_and_changes(make: Make) -> None:
    def give() -> Any:
        global kept
        kept = np.ones(BIG)
        return kept

    def spoil() -> None:
        kept[:] = -1

    ex = make(1)
    result = ex.submit(give).result()
    ex.submit(spoil).result()
    assert result.min() == 1


kept: Any = None


# ------------------------------------------------------------------ how often it is stored


def descriptors() -> int:
    return len(os.listdir("/dev/fd"))


@pytest.mark.needs("linux")
def test_one_array_for_many_calls_is_stored_once(make: Make, gate: Gate) -> None:
    ex = make(1)
    ex.submit(gate.hold)
    gate.arrived()
    array = np.ones(BIG)
    first = [ex.submit(np.sum, array)]
    before = descriptors()
    futures = [
        *first,
        *(ex.submit(np.sum, array) for _ in range(200)),
        *(ex.submit(np.add, array, i) for i in range(3)),
    ]
    assert descriptors() == before
    gate.open()
    assert [float(np.sum(future.result())) for future in futures[:201]] == [BIG] * 201


FEW_DESCRIPTORS = """
    import resource
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    import numpy as np
    from callyard import Executor

    with Executor(2) as ex:
        futures = [ex.submit(np.full, 40_000, i) for i in range(600)]
        sums = [ex.submit(np.sum, future) for future in futures]
        arrays = [np.full(40_000, i) for i in range(600)]
        more = [ex.submit(np.sum, array) for array in arrays]
        results = [future.result() for future in futures]
        assert [int(r[-1]) for r in results] == list(range(600))
        assert [int(s.result()) for s in sums] == [int(s.result()) for s in more] == [40_000 * i for i in range(600)]
        results[0][:] = 1
    print("well")
"""


def test_hundreds_of_results_with_few_descriptors() -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert soft >= 256
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(FEW_DESCRIPTORS)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("well\n", "")


def filled(number: int) -> Any:
    return np.full(LARGE // 8, float(number))


def firsts(arrays: list[Any]) -> list[float]:
    return [float(array[0]) for array in arrays]


@pytest.mark.parametrize("as_futures", [True, False], ids=["results", "arguments"])
def test_more_large_inputs_than_a_message_takes_descriptors(make: Make, as_futures: bool) -> None:
    ex = make()
    count = MOST_DESCRIPTORS + 50
    inputs = [ex.submit(filled, i) if as_futures else filled(i) for i in range(count)]
    assert ex.submit(firsts, inputs).result() == list(map(float, range(count)))


class Watched:
    """Notes in which processes it was unpickled."""

    def __init__(self) -> None:
        self.pids: list[int] = []

    def __getstate__(self) -> dict[str, Any]:
        return {"pids": self.pids}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.pids = [*state["pids"], os.getpid()]


def test_results_are_forwarded_without_being_opened(make: Make) -> None:
    ex = make(2)
    value = ex.submit(Watched)
    for _ in range(3):
        value = ex.submit(same, value)
    last = ex.submit(lambda watched: watched.pids, value)
    assert os.getpid() not in last.result()
    assert len(last.result()) == 4


def test_many_large_results_in_turn(make: Make) -> None:
    ex = make(2)
    before = None
    for i in range(60):
        array = ex.submit(np.full, BIG // 4, i).result()
        assert array[0] == array[-1] == i
        before = before or descriptors()
    assert descriptors() <= before + 4  # what is free is used again


def test_parts_of_a_large_result(make: Make) -> None:
    ex = make(2)
    pair = ex.submit(lambda: (np.ones(BIG), np.zeros(BIG)))
    assert float(ex.submit(np.sum, item(pair, 0)).result()) == BIG
    assert float(ex.submit(np.sum, item(pair, 1)).result()) == 0


def test_large_error(ex: Executor) -> None:
    def fail() -> None:
        raise ValueError(np.ones(BIG))

    error = ex.submit(fail).exception()
    assert isinstance(error, ValueError)
    assert error.args[0].sum() == BIG
