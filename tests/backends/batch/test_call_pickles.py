"""How calls are pickled for their jobs, and what of that is on the disk."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster
from failing_calls import until_submitted
from gate import Gate
from hypothesis import given
from hypothesis import strategies as st

from callyard import CallyardError, Executor
from callyard.backends.batch.call_pickles import BufferFile, LargeContents, packed_call, pickle_call
from callyard.serialize.importable import apart, for_another_computer, sending_apart, sending_far

LARGE = 1 << 16


def opened(parts: Any) -> Any:
    """Return function, arguments and keywords, as a job opens them."""
    return packed_call(pickle_call(parts, [], LargeContents())).load()


def stored(*calls: Any) -> int:
    """Return how many bytes are kept apart of these calls."""
    contents, file = LargeContents(), BufferFile()
    pickles = [pickle_call(parts, [], contents) for parts in calls]
    for each in pickles:
        file.store(each)
    return sum(map(len, file.contents))


values = st.recursive(
    st.integers() | st.text(max_size=5) | st.sampled_from([b"", b"x" * LARGE, "y" * LARGE]),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=3), each, max_size=3),
    max_leaves=8,
)


@given(args=st.lists(values, max_size=3), kwargs=st.dictionaries(st.sampled_from("abc"), values, max_size=2))
def test_any_arguments(args: list[Any], kwargs: dict[str, Any]) -> None:
    assert opened((max, tuple(args), kwargs)) == (max, tuple(args), kwargs)


def test_large_arguments_of_many_calls_are_there_once() -> None:
    large = list(range(100_000))
    size = stored((max, (large,), {}))
    assert size > LARGE
    assert stored(*((fn, (large,), {}) for fn in (max, min, sum))) == size
    assert stored((max, (large,), {}), (max, (large[1:],), {})) > size


def test_with_the_modules_of_the_user_inside_only_these_are_there_twice() -> None:
    large = list(range(100_000))
    contents, file = LargeContents(), BufferFile()
    usual = pickle_call((stored, (large,), {}), [], contents)
    with apart([__name__]):
        other = pickle_call((stored, (large,), {}), [], contents)
    file.store(usual)
    file.store(other)
    assert len(file.contents) == 1
    assert len(other[0].data) > len(usual[0].data)
    assert packed_call(other).load()[1:] == ((large,), {})


def test_what_function_and_arguments_share_stays_one_object() -> None:
    shared = list(range(100_000))

    def both(given: Any) -> bool:
        return given is shared

    function, args, _ = opened((both, (shared,), {}))
    assert function(*args)


def test_contents_are_those_of_the_moment_and_go_with_the_last_call() -> None:
    numpy = pytest.importorskip("numpy")
    array, contents = numpy.arange(100_000), LargeContents()
    first = pickle_call((max, (array,), {}), [], contents)
    again = pickle_call((max, (array,), {}), [], contents)
    array[0] = 7
    later = pickle_call((max, (array,), {}), [], contents)
    assert first[0].buffers[0] is again[0].buffers[0]
    assert [packed_call(each).load()[1][0][0] for each in (first, again, later)] == [0, 0, 7]
    loaded = packed_call(first).load()[1][0]
    loaded[1] = 9  # it is writable, and its own
    assert packed_call(first).load()[1][0][1] == 1
    assert len(contents._known) == 2
    del first, again
    assert len(contents._known) == 1


@pytest.mark.parametrize("writable", [True, False])
def test_arrays_are_as_writable_as_they_were(writable: bool) -> None:
    numpy = pytest.importorskip("numpy")
    array = numpy.zeros(LARGE)
    array.flags.writeable = writable
    assert opened((max, (array,), {}))[1][0].flags.writeable is writable


# ------------------------------------------------------------------ in jobs

Detached = Callable[..., Executor]


def total(gate: Gate, array: Any, number: int) -> Any:
    gate.hold()
    return array.sum() + number


@pytest.mark.once
def test_an_array_of_many_calls_is_on_the_disk_once(
    slurm: Cluster, detached: Detached, gate: Gate, tmp_path: Path
) -> None:
    numpy = pytest.importorskip("numpy")
    array, ex = numpy.ones(LARGE), detached()
    futures = [ex.submit(total, gate, array, number) for number in range(3)]
    gate.arrived(3)
    files = [path for path in (tmp_path / "cache" / "jobs").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files if path.name == "buffers") == array.nbytes
    assert sum(path.stat().st_size for path in files) < 1.5 * array.nbytes
    gate.open(3)
    assert [future.result() for future in futures] == [LARGE, LARGE + 1, LARGE + 2]
    ex.shutdown()
    assert not list((tmp_path / "cache" / "jobs").iterdir())


HELPER = "def twice(x):\n    return 2 * x\n"
CODE = """
import threading
import edited_helper

LOCK = threading.Lock()

class Point:
    def __init__(self, x):
        self.x = x
    def double(self):
        return 1 * edited_helper.twice(self.x)

def work(point):
    return point.double()

def plain(x):
    return 1 * edited_helper.twice(x)

def locked(x):
    with LOCK:
        return 1 * x
"""


@pytest.fixture
def edit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str, str], None]]:
    """Edits one of two modules, which are imported at first."""
    monkeypatch.setenv("CALLYARD_RUNS", str(tmp_path / "runs"))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    (tmp_path / "edited_helper.py").write_text(HELPER)
    (tmp_path / "edited_meanwhile.py").write_text(CODE)

    def edit(module: str, old: str, new: str) -> None:
        path = tmp_path / f"{module}.py"
        path.write_text(path.read_text().replace(old, new))

    yield edit
    for name in ("edited_meanwhile", "edited_helper"):
        sys.modules.pop(name, None)


@pytest.mark.once
@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("edited", ["edited_meanwhile", "edited_helper"])
def test_modules_that_are_edited_run_as_they_were_submitted(
    slurm: Cluster, detached: Detached, tmp_path: Path, edit: Callable[..., None], edited: str, cached: bool
) -> None:
    import edited_meanwhile  # type: ignore[import-not-found]

    ex = detached() if cached else detached(cache=None)
    point = edited_meanwhile.Point(4)
    held = {"slurm_cmd_args": ["--hold"]}
    futures = [
        ex.submit(edited_meanwhile.work, point, resource_dict=held),
        ex.submit(doubled, point, resource_dict=held),
        ex.submit(edited_meanwhile.plain, 4, resource_dict=held),
    ]
    jobs = [until_submitted(slurm, future) for future in futures]
    edit(edited, "1 * " if edited == "edited_meanwhile" else "2 * ", "3 * ")
    slurm.run("scontrol", "release", *jobs)
    assert [future.result() for future in futures] == [8, 8, 8]


@pytest.mark.once
def test_code_with_a_lock_runs_unless_it_was_edited(
    slurm: Cluster, detached: Detached, edit: Callable[..., None]
) -> None:
    import edited_meanwhile

    ex = detached(cache=None)
    assert ex.submit(edited_meanwhile.locked, 4).result() == 4
    future = ex.submit(edited_meanwhile.locked, 5, resource_dict={"slurm_cmd_args": ["--hold"]})
    job = until_submitted(slurm, future)
    edit("edited_meanwhile", "1 * x", "3 * x")
    slurm.run("scontrol", "release", job)
    with pytest.raises(CallyardError, match="was not run: the code of edited_meanwhile has changed since"):
        future.result()


def doubled(point: Any) -> Any:
    return point.double()


def test_a_call_that_a_finalizer_submits_meanwhile_changes_nothing() -> None:
    with for_another_computer(lambda _: False):
        with apart(["other"]):
            assert sending_apart()
        assert sending_far()
    assert not sending_apart()
    assert not sending_far()


def test_a_pickled_call_does_not_keep_the_arguments() -> None:
    """Not even until the next garbage collection: an array may be large."""
    numpy = pytest.importorskip("numpy")
    array, contents = numpy.arange(100_000), LargeContents()
    alive = weakref.ref(array)
    pickles = pickle_call((max, (array,), {}), [], contents)
    gc.disable()
    try:
        del array
        assert alive() is None
    finally:
        gc.enable()
    assert packed_call(pickles).load()[1][0][-1] == 99_999
