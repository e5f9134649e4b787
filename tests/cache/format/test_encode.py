"""Values come back as they were, and the HDF5 part of a file has the same ones."""

from __future__ import annotations

import collections
import dataclasses
import enum
import io
import math
import pickle
import struct
import threading
import typing
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callyard.cache.format.encode import Described, Omitted
from callyard.cache.format.record_file import Stored, read
from callyard.cache.format.record_writer import Record, write


def stored(path: Path, output: Any = None, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Stored:
    record = Record("key", "name", "finished", "token", output, args, kwargs or {})
    with open(path, "wb+", buffering=0) as file:
        write(file.fileno(), record)
        return read(file.fileno(), str(path))


def same(a: Any, b: Any) -> bool:
    """Equal and of the same types, also inside; NaN and -0.0 are themselves."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return struct.pack("<d", a) == struct.pack("<d", b)
    if isinstance(a, np.ndarray):
        return same_array(a, b)
    if isinstance(a, dict):
        return list(map(repr, a)) == list(map(repr, b)) and all(map(same, a.values(), b.values()))
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def same_array(a: Any, b: Any) -> bool:
    if a.dtype != b.dtype or a.dtype.isalignedstruct != b.dtype.isalignedstruct or a.shape != b.shape:
        return False
    if a.dtype.hasobject:
        return all(map(same, a.ravel().tolist(), b.ravel().tolist()))
    return a.tobytes() == b.tobytes()


@dataclasses.dataclass
class Relaxed:
    energy: float
    forces: Any
    steps: list[Any]


class Level(enum.IntEnum):
    LOW = 1


class Colour(enum.Enum):
    RED = 1


class Pair(typing.NamedTuple):
    a: int
    b: Any


class Measured(np.ndarray):
    """A subclass, as units libraries have."""


RECORD = np.dtype([("x", "<f8"), ("n", ">i2", (2, 3)), ("in", [("ok", "?"), ("name", "S5")])], align=True)
GAPS = np.dtype({"names": ["a", "b"], "formats": ["<i4", "<f8"], "offsets": [8, 16], "itemsize": 40})
MIXED = np.dtype([("when", "<M8[s]"), ("what", "<U3")])

ARRAYS = [
    np.arange(6.0).reshape(2, 3),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.arange(24).reshape(2, 3, 4)[:, ::2, ::-1],
    np.array(1.5),
    np.array([], "<f4"),
    np.empty((0, 3), ">i8"),
    np.array([1, 2], ">f8"),
    np.array([True, False]),
    np.array([1 + 2j, float("nan")], "<c8"),
    np.array([1.5], "<f2"),
    np.array([b"ab", b"c\0d"]),
    np.array(["Gr\u00fc\u00df", ""]),
    np.array(["2020-01-01", "NaT"], "M8[ns]"),
    np.array([1, 2], "m8[h]"),
    np.array([(1.5, [[1, 2, 3], [4, 5, 6]], (True, b"abc"))], RECORD),
    np.zeros(2, GAPS),
    np.zeros(2, MIXED),
    np.zeros(3, "V7"),
    np.zeros(3, np.longdouble),
    np.array([1, "two", None, [3.0]], object),
    np.zeros((1,) * 32),
    np.frombuffer(b"12345678", "<i8"),
    np.arange(100000),
    np.arange(100000).reshape(1000, 100).T,
    np.arange(100000)[::3],
]

SCALARS = [
    1.5, -0.0, float("nan"), float("inf"), struct.unpack("<d", b"\1\2\3\4\5\6\xf8\x7f")[0],
    0, -(2**63), 2**63 - 1, 2**63, -(10**40), True, False, None, 1 - 2j, complex(-0.0, math.inf),
    "", "text", "Gr\u00fc\u00df \u4f60\U0001f600", "a\0b", "ends in\0", "\ud800", "x" * 1000, b"", b"a\0", bytes(1000),
    ..., NotImplemented, Colour.RED, range(3), frozenset([1]), bytearray(b"abc"),
]  # fmt: skip

NUMPY_SCALARS = [
    np.float64(1.5), np.float32(-0.0), np.float16(2), np.int8(-1), np.uint64(2**64 - 1), np.bool_(True),
    np.complex64(1j), np.longdouble(1), np.str_("a"), np.bytes_(b"a"), np.datetime64("2020-01-01"),
    np.timedelta64(1, "h"),
]  # fmt: skip

CONTAINERS = [
    (), [], {}, (1, 2.0), [1, [2, (3, None)]], {"energy": -1.5, "converged": True}, {1: 2}, {"a/b": 1, ".": 2, "": 3},
    {"pickle": 1, "array-0": 2}, {"array-0": np.zeros(3), "pickle": np.ones(2), "o": Colour.RED},
    Pair(1, np.zeros(3)), {"\u00fc": 1, "two words": 2}, [float(i) for i in range(1000)], [[[[[[[[1.5]]]]]]]],
    [Colour.RED, {"z": np.arange(3)}], collections.OrderedDict(b=1, a=2), {"b": 1, "a": 2}, [np.float64(1)] * 3,
    {"lone \ud800": np.zeros(2)}, [np.full(3, i) for i in range(200)],
    [Colour.RED, *(np.full(2000, i) for i in range(70))], (np.zeros(2), {3, 4}),
]  # fmt: skip


@pytest.mark.parametrize("value", SCALARS + NUMPY_SCALARS + CONTAINERS + ARRAYS, ids=lambda v: f"{type(v).__name__}")
def test_comes_back(tmp_path: Path, value: Any) -> None:
    here = stored(tmp_path / "f", value, (value, 1), {"x": value})
    assert same(here.output(), value)
    assert same(here.args(), (value, 1))
    assert same(here.kwargs(), {"x": value})


@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: str(a.dtype)[:20])
@pytest.mark.parametrize("wrap", [lambda a: a, lambda a: [Colour.RED, a]], ids=["bare", "in a pickle"])
def test_loaded_arrays_are_new_and_aligned(tmp_path: Path, array: Any, wrap: Any) -> None:
    here = stored(tmp_path / "f", wrap(array))
    first, second = here.output(), here.output()
    if isinstance(first, list):
        first, second = first[1], second[1]
    assert first.flags.aligned
    assert first.flags.f_contiguous or not array.flags.f_contiguous
    assert not np.shares_memory(first, second)


# -- what is answered from a file is what a worker would have sent -------------------------------------------


def fresh(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value, 5))


def details(thing: Any) -> Any:
    """All of it that a program can see."""
    if isinstance(thing, (list, tuple)):
        return type(thing), [details(item) for item in thing]
    if isinstance(thing, dict):
        return type(thing), [(key, details(item)) for key, item in thing.items()]
    if dataclasses.is_dataclass(thing):
        return type(thing), details(vars(thing))
    if not isinstance(thing, np.ndarray):
        return type(thing), repr(thing)
    steps = [step for step, length in zip(thing.strides, thing.shape, strict=True) if length > 1] if thing.size else []
    # What lies between the fields of a record is nobody's.
    content = repr(thing.tolist()) if thing.dtype.hasobject or thing.dtype.names else thing.tobytes()
    return type(thing), details_of_dtype(thing.dtype), thing.shape, steps, thing.flags.writeable, content


def details_of_dtype(dtype: Any) -> Any:
    base = None if dtype.subdtype is None else details_of_dtype(dtype.base)
    fields = [(name, details_of_dtype(dtype.fields[name][0]), dtype.fields[name][1:]) for name in dtype.names or ()]
    metadata = dict(dtype.metadata or {})
    return dtype.str, dtype.type, dtype.itemsize, dtype.isalignedstruct, metadata, dtype.shape, base, fields


_dtypes = st.sampled_from(
    [
        "<f8", ">f8", "<i2", "?", "<c8", "<f2", "S3", "<U2", "<M8[25us]", "<m8[D]", "V5", "O", np.longdouble, RECORD,
        GAPS,
        np.dtype("<f8", metadata={"unit": "eV"}),
        np.dtype([("x", np.dtype("<i4", metadata={"enum": {"a": 1}})), ("y", "<f8", (2,))]),
        np.dtype([(("a title", "x"), "<f8")]),
        np.dtype({"names": ["b", "a"], "formats": ["<i4", "<i8"], "offsets": [8, 0], "itemsize": 24}),
        np.dtype((np.record, [("x", "<f8")])),
    ]
)  # fmt: skip


@st.composite
def arrays(draw: st.DrawFn) -> Any:
    """Of any type, and lying in memory in any way."""
    dtype = np.dtype(draw(_dtypes))
    shape = draw(st.lists(st.integers(0, 3), max_size=4))
    big = draw(st.lists(st.integers(1, 2), min_size=len(shape), max_size=len(shape)))
    base = np.zeros([length * step for length, step in zip(shape, big, strict=True)], dtype)
    if dtype.names is None and dtype.kind != "V":
        base[...] = (np.arange(base.size) % 7).reshape(base.shape).astype(dtype)
    ways = draw(st.lists(st.sampled_from([1, -1]), min_size=len(shape), max_size=len(shape)))
    array = base[(*(slice(None, None, step * way) for step, way in zip(big, ways, strict=True)), ...)]
    array = array.transpose(draw(st.permutations(range(array.ndim))))
    kept = draw(st.sampled_from([None, "C", "F", "broadcast", np.recarray, Measured]))
    if kept in ("C", "F"):
        array = array.copy(kept)
    elif kept == "broadcast":
        array = np.broadcast_to(array, (2, *array.shape))
    elif kept is not None:
        array = array.view(kept)
    if draw(st.booleans()):
        array.flags.writeable = False
    return array


_wraps = st.sampled_from(
    [
        lambda a: a,
        lambda a: [a, 1],
        lambda a: {"a": a, "again": a},
        lambda a: Relaxed(1.0, a, [a]),
        lambda a: (a, a[...], a.T),
        lambda a: (Colour.RED, a, {"deep": [a]}),
    ]
)


@settings(max_examples=300)
@given(arrays(), _wraps)
def test_an_answer_from_the_cache_is_what_a_worker_would_have_sent(
    tmp_path_factory: pytest.TempPathFactory, array: Any, wrap: Any
) -> None:
    value = wrap(array)
    back = stored(tmp_path_factory.getbasetemp() / "like", value).output()
    assert details(back) == details(fresh(value))


@pytest.mark.parametrize(
    "value",
    [
        np.ones((1, 2)).view(np.matrix),
        np.ma.masked_array([1.0, 2.0], [True, False]),
        np.rec.array([(1, 2.5)], dtype=[("a", "<i4"), ("b", "<f8")]),
        np.zeros((2, 0, 3))[:, :, ::-1],
        np.zeros(3, "V0"),
        np.arange(300000.0).reshape(30, 100, 100).transpose(1, 0, 2),
        np.arange(300000.0)[::-1],
        np.lib.stride_tricks.as_strided(np.arange(4), (3, 2), (8, 8)),
        [np.float64(1), np.datetime64("2020-01-01", "25us"), np.void(b"ab"), np.zeros(1, RECORD)[0]],
    ],
    ids=lambda value: type(value).__name__,
)
def test_arrays_that_are_special(tmp_path: Path, value: Any) -> None:
    assert details(stored(tmp_path / "f", value).output()) == details(fresh(value))


def test_an_array_mapped_from_a_file(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(6.0).reshape(2, 3))
    value = np.load(tmp_path / "a.npy", mmap_mode="r")
    assert details(stored(tmp_path / "f", value).output()) == details(fresh(value))


def test_what_cannot_be_written_to_stays_so_in_a_large_file(tmp_path: Path) -> None:
    value = np.arange(300000.0).reshape(30, 100, 100).transpose(1, 0, 2)
    value.flags.writeable = False
    back = stored(tmp_path / "f", [value, Colour.RED]).output()
    assert details(back) == details(fresh([value, Colour.RED]))
    with h5py.File(tmp_path / "f") as file:
        assert np.array_equal(file["output/0"], value)


def test_a_subclass_of_an_array_stays_one(tmp_path: Path) -> None:
    value = np.arange(3).view(Measured)
    back = stored(tmp_path / "f", value).output()
    assert type(back) is Measured
    assert same_array(back, value)


def test_a_user_class_and_what_it_shares(tmp_path: Path) -> None:
    forces = np.ones((4, 3))
    value = Relaxed(1.5, forces, [forces, {"forces": forces}])
    back = stored(tmp_path / "f", value).output()
    assert same_array(back.forces, forces)
    assert back.steps[0] is back.forces
    assert back.steps[1]["forces"] is back.forces


@pytest.mark.parametrize("make", [lambda: [1.5], dict, lambda: np.zeros(3)], ids=["list", "dict", "array"])
def test_what_is_there_twice_stays_one_thing(tmp_path: Path, make: Any) -> None:
    thing = make()
    if isinstance(thing, dict):
        thing["x"] = 1
    first, second = stored(tmp_path / "f", (thing, thing)).output()
    assert first is second


def test_a_list_that_holds_itself(tmp_path: Path) -> None:
    value: list[Any] = [1]
    value.append(value)
    back = stored(tmp_path / "f", value).output()
    assert back[1] is back


_arrays = st.sampled_from(ARRAYS[:20])
_rows = st.lists(st.integers()) | st.lists(st.booleans()).map(tuple) | st.lists(st.floats())
_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.complex_numbers(allow_nan=False) | st.text()
    | st.binary() | _arrays,
    lambda inner: _rows | st.lists(inner) | st.lists(inner).map(tuple)
    | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=20,
)  # fmt: skip


@settings(max_examples=150)
@given(_values)
def test_any_nest_of_values(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    assert same(stored(tmp_path_factory.getbasetemp() / "any", value).output(), value)


# -- what others see ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        1.5,
        -3,
        True,
        1 + 2j,
        "Gr\u00fc\u00df",
        b"ab",
        np.float32(2),
        *ARRAYS[:11],
        *ARRAYS[14:16],
        ARRAYS[-1],
        ARRAYS[-2],
    ],
    ids=lambda v: type(v).__name__,
)
def test_h5py_sees_the_same(tmp_path: Path, value: Any) -> None:
    stored(tmp_path / "f", value, (value,), {"word": value})
    with h5py.File(tmp_path / "f") as file:
        for place in ("output", "arguments/0", "keywords/word"):
            seen = file[place][()]
            if isinstance(value, str):
                assert file[place].asstr()[()] == value
            elif isinstance(value, bytes):
                assert seen.tobytes() == value
            elif isinstance(value, np.ndarray) and value.ndim:
                assert seen.dtype == value.dtype
                assert seen.tobytes() == value.tobytes()
            else:
                assert seen == value


@pytest.mark.parametrize(
    "value", [[1, -2, 1 << 62], (0.5, -0.0, math.inf), [True], [False] * 1000, tuple(range(1000)), [0.1] * 100]
)
def test_numbers_of_one_kind_are_one_dataset(tmp_path: Path, value: Any) -> None:
    back = stored(tmp_path / "f", value, (value,))
    assert same(back.output(), value)
    assert same(back.args(), (value,))
    with h5py.File(tmp_path / "f") as file:
        assert file["output"][()].tolist() == file["arguments/0"][()].tolist() == list(value)


@pytest.mark.parametrize(
    "value", [[1 << 63], [1, 1.0], [True, 1], [1, None], [[1, 2], [3, 4.5]], [Level.LOW, 1], [Level.LOW]]
)
def test_numbers_of_several_kinds_stay_what_they_are(tmp_path: Path, value: Any) -> None:
    assert same(stored(tmp_path / "f", value).output(), value)


@pytest.mark.parametrize(
    "value",
    [
        list(range(60)),
        {f"k{i}": i for i in range(9)},
        {f"k{i}": float(i) for i in range(60)},
        [[i, i + 1] for i in range(30)],
        [f"word {i}" for i in range(50)],
    ],
    ids=lambda value: f"{type(value).__name__} of {len(value)}",
)
def test_a_small_value_makes_a_small_file(tmp_path: Path, value: Any) -> None:
    back = stored(tmp_path / "f", value)
    assert same(back.output(), value)
    assert back.head.size < 11000


def test_h5py_sees_arrays_of_objects_under_their_names(tmp_path: Path) -> None:
    value = Relaxed(1.5, np.ones((4, 3)), [Colour.RED, np.arange(3)])
    stored(tmp_path / "f", {"final": value, "grid": np.zeros(5), 7: np.full(2, 7)})
    with h5py.File(tmp_path / "f") as file:
        output = file["output"]
        assert sorted(output) == ["array-0", "final", "grid", "pickle"]
        assert output["final/forces"].shape == (4, 3)
        assert list(output["final/steps/1"]) == [0, 1, 2]
        assert list(output["array-0"]) == [7, 7]


@pytest.mark.parametrize("array", [np.array(["ab", "c"]), np.array(["2020-01-01"], "M8[s]"), np.zeros(2, MIXED)])
def test_what_hdf5_lacks_is_bytes_and_says_of_what(tmp_path: Path, array: Any) -> None:
    stored(tmp_path / "f", array)
    with h5py.File(tmp_path / "f") as file:
        output = file["output"]
        assert output.attrs["shape"].decode() == str(array.shape)
        assert output.attrs["dtype"].decode() == str(array.dtype)
        assert output[()].tobytes() == array.tobytes()


@pytest.mark.parametrize("fields", [1300, 2000])
def test_records_of_more_fields_than_a_header_can_name(tmp_path: Path, fields: int) -> None:
    array = np.ones(2, [(f"the_field_of_number_{number}", "f8") for number in range(fields)])
    assert same(stored(tmp_path / "f", array).output(), array)
    with h5py.File(tmp_path / "f") as file:
        assert file["output"][()].tobytes() == array.tobytes()


# -- arguments that are not stored ---------------------------------------------------------------------------


@pytest.fixture
def low_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callyard.cache.format.record_writer.ARRAY_LIMIT", 10000)


@pytest.mark.usefixtures("low_limit")
def test_a_large_array_among_the_arguments_is_described(tmp_path: Path) -> None:
    large, small = np.zeros((2, 1000)), np.ones(10)
    args = (large, small, [Colour.RED, large])
    here = stored(tmp_path / "f", large, args[:2], {"all": args})
    omitted = Omitted("float64", (2, 1000))
    assert "float64" in repr(omitted)
    assert "(2, 1000)" in repr(omitted)
    assert here.args()[0] == omitted
    assert same_array(here.args()[1], small)
    assert here.kwargs()["all"][2] == [Colour.RED, omitted]
    assert same_array(here.output(), large)
    assert here.head.size < 30000


@pytest.mark.usefixtures("low_limit")
@pytest.mark.parametrize("value", ["x" * 20000, b"x" * 20000, [object] * 20000, np.array(["a" * 20000, None])])
def test_a_large_argument_is_described(tmp_path: Path, value: Any) -> None:
    here = stored(tmp_path / "f", 1, (1, value), {"a": value, "b": 2})
    assert isinstance(here.args()[1], Described)
    assert here.kwargs()["b"] == 2
    assert here.head.size < 15000


class Stubborn:
    def __reduce__(self) -> Any:
        raise RuntimeError("no")

    def __repr__(self) -> str:
        raise RuntimeError("no")


def test_arguments_that_cannot_be_pickled_are_described(tmp_path: Path) -> None:
    lock = threading.Lock()
    with io.StringIO() as text:
        here = stored(tmp_path / "f", 1, (lock, 2.5, Stubborn()), {"file": text, "n": 1, "strange name/": lock})
    assert repr(lock)[:10] in repr(here.args()[0])
    assert here.args()[1] == 2.5
    assert "Stubborn" in repr(here.args()[2])
    assert list(here.kwargs()) == ["file", "n", "strange name/"]
    assert here.kwargs()["n"] == 1
    with h5py.File(tmp_path / "f") as file:
        assert file["arguments/1"][()] == 2.5
        assert b"lock" in file["arguments/0"][()]


def test_an_output_that_cannot_be_pickled_says_so(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="lock"):
        stored(tmp_path / "f", threading.Lock())
