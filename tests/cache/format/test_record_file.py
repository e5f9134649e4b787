"""Files of finished calls: whole or refused, for this process, for others, and for readers of HDF5."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import textwrap
import tracemalloc
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from blake3 import blake3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from callyard.cache.format import hdf5
from callyard.cache.format.checked_bytes import checksum
from callyard.cache.format.record_file import DamagedFile, Stored, read, read_head
from callyard.cache.format.record_writer import FORMAT, Record, write
from callyard.cache.lookup import find
from callyard.errors import CacheError, VersionMismatch
from callyard.result_cache import Cache

FACTS = {"host": "here", "resources": {"cores": 2}, "log": "Gr\u00fc\u00df\n\0", "ingredients": [["f", "12ab"]] * 20}
SOURCE = "def f(x):\n    return x\n"


def record(output: Any = 1.5, **changes: Any) -> Record:
    fields = {
        "key": "12ab" * 8, "name": "module.f", "state": "finished", "token": "34cd" * 8, "output": output,
        "args": (1, 2.5), "kwargs": {"x": "y"}, "source": SOURCE, "pickled": b"pickle\0", "facts": FACTS,
        "created": 1.7e9, "seconds": 0.25,
    }  # fmt: skip
    return Record(**{**fields, **changes})


def save(path: Path, what: Record) -> int:
    with open(path, "wb", buffering=0) as file:
        return write(file.fileno(), what)


def load(path: Path) -> Stored:
    with open(path, "rb") as file:
        return read(file.fileno(), str(path))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "f.h5"


def test_everything_comes_back(path: Path) -> None:
    size = save(path, record())
    back = load(path)
    assert back.output() == 1.5
    assert back.args() == (1, 2.5)
    assert back.kwargs() == {"x": "y"}
    assert back.source() == SOURCE
    assert back.pickled() == b"pickle\0"
    assert back.facts() == FACTS
    head = back.head
    assert (head.format, head.key, head.name, head.state) == (FORMAT, "12ab" * 8, "module.f", "finished")
    assert (head.token, head.created, head.seconds, head.size) == ("34cd" * 8, 1.7e9, 0.25, size)
    assert size == path.stat().st_size
    with open(path, "rb") as file:
        assert read_head(file.fileno()) == head


def test_a_small_file_is_small(path: Path) -> None:
    assert save(path, record(facts={"text": "x" * 1200})) < 6000


def test_a_failed_call(path: Path) -> None:
    save(path, record(ValueError("no"), state="failed"))
    back = load(path).output()
    assert type(back) is ValueError
    assert back.args == ("no",)
    with h5py.File(path) as file:
        assert "output" not in file
        assert "error" in file


def test_without_a_function(path: Path) -> None:
    save(path, record(source="", pickled=None, facts={}))
    assert load(path).source() == ""
    assert load(path).pickled() is None
    assert load(path).facts() == {}
    save(path, record(pickled=bytes(2 << 20)))
    assert load(path).pickled() is None


def test_facts_that_json_lacks_are_described(path: Path) -> None:
    save(path, record(facts={"path": Path("x")}))
    assert load(path).facts() == {"path": repr(Path("x"))}


def test_h5py_sees_the_same(path: Path) -> None:
    save(path, record())
    with h5py.File(path) as file:
        assert sorted(file) == ["arguments", "facts", "function", "function_pickle", "keywords", "output", "record"]
        assert file["output"][()] == 1.5
        assert [file["arguments/0"][()], file["arguments/1"][()]] == [1, 2.5]
        assert file["keywords/x"].asstr()[()] == "y"
        assert json.loads(file["facts"][()]) == FACTS
        assert file["function"].asstr()[()] == SOURCE
        about = json.loads(file["record"][()])
    assert about == {key: getattr(load(path).head, key) for key in about}
    assert len(about) == 7


def test_offsets_of_the_head_are_those_of_hdf5(path: Path) -> None:
    save(path, record(np.arange(3.0)))
    line, text = path.read_bytes().split(b"\n")[:2]
    block = int(line.split()[2])
    with h5py.File(path) as file:
        assert file.userblock_size == block
        assert file["output"].id.get_offset() == block + json.loads(text)["parts"]["output"]["at"]


@pytest.mark.parametrize("locking", ["TRUE", "FALSE", "BEST_EFFORT"])
def test_whatever_hdf5_thinks_of_locks(path: Path, locking: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HDF5_USE_FILE_LOCKING", locking)
    hdf5._known.clear()
    save(path, record(np.zeros(300000)))
    path.chmod(0o400)
    assert load(path).output().shape == (300000,)


def test_structures_are_made_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5, "_known", {})
    save(path, record(1.5))
    monkeypatch.delattr(hdf5, "_make")
    save(path, record(2.5, name="other.f", facts={**FACTS, "host": "there"}))
    assert load(path).output() == 2.5


def test_equal_records_are_equal_files(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = []
    for _ in range(2):
        monkeypatch.setattr(hdf5, "_known", {})
        save(path, record({"a": np.arange(10), "b": [1, None]}))
        files.append(path.read_bytes())
    assert files[0] == files[1]


def test_structures_do_not_pile_up(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5, "_known", {})
    monkeypatch.setattr(hdf5, "_KEPT", 3)
    for length in range(10):
        save(path, record(bytes(length)))
        assert len(hdf5._known) <= 3


@pytest.mark.parametrize("count", [10, 100, 1500])
def test_a_long_head(path: Path, count: int) -> None:
    value = [{1}, *(np.full(600, i) for i in range(count))]
    save(path, record(value, name="n" * count))
    back = load(path)
    assert [array[0] for array in back.output()[1:]] == list(range(count))
    with open(path, "rb") as file:
        assert read_head(file.fileno()) == back.head
    with h5py.File(path) as file:
        assert file["output/1"][0] == 0


# -- large files ---------------------------------------------------------------------------------------------


@pytest.fixture
def large(path: Path) -> Path:
    save(path, record({"big": np.arange(400000), "turned": np.ones((300, 600)).T}, args=(b"x" * 2000000, 1.5)))
    return path


def test_a_large_file(large: Path) -> None:
    back = load(large)
    assert back.head.size == large.stat().st_size
    assert np.array_equal(back.output()["big"], np.arange(400000))
    assert back.output()["big"].flags.writeable
    assert back.output()["turned"].flags.f_contiguous
    assert back.args() == (b"x" * 2000000, 1.5)
    with h5py.File(large) as file:
        assert file.userblock_size == 1024
        assert np.array_equal(file["output/big"], np.arange(400000))
        assert file["output/turned"].shape == (600, 300)
        assert json.loads(file["facts"][()]) == FACTS


def test_a_large_file_that_was_removed(large: Path) -> None:
    back = load(large)
    large.unlink()
    with pytest.raises(CacheError, match="can no longer be read"):
        back.output()


def test_a_large_file_that_was_replaced(large: Path) -> None:
    back = load(large)
    other = large.with_name("other")
    other.write_bytes(large.read_bytes())
    other.rename(large)
    with pytest.raises(CacheError, match="was replaced"):
        back.output()


def test_a_small_file_is_not_needed_once_it_was_read(path: Path) -> None:
    save(path, record())
    back = load(path)
    path.unlink()
    assert back.output() == 1.5


@pytest.mark.parametrize("where", [0.0, 0.1, 0.5, 0.999999])
def test_a_large_file_with_a_changed_byte(large: Path, where: float) -> None:
    place = int(where * large.stat().st_size)
    with open(large, "r+b", buffering=0) as file:
        byte = os.pread(file.fileno(), 1, place)
        os.pwrite(file.fileno(), bytes([byte[0] ^ 1]), place)
    with pytest.raises(DamagedFile):
        load(large)


def test_a_full_disk_is_an_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = 3000

    def pwrite(fd: int, data: Any, at: int) -> int:
        if at >= room:
            raise OSError(28, "No space left on device")
        return min(len(data), room - at)

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(OSError, match="No space"):
        save(path, record())


# -- damaged files -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("good") / "f"
    save(path, record({"a": [1.5, {2}], "b": np.arange(4)}))
    return path.read_bytes()


def refused(data: bytes, path: Path) -> str:
    """The message, or nothing where what is read is right."""
    path.write_bytes(data)
    try:
        back = load(path)
    except (DamagedFile, VersionMismatch) as error:
        return str(error)
    assert back.output()["a"] == [1.5, {2}]
    assert list(back.output()["b"]) == [0, 1, 2, 3]
    assert (back.args(), back.kwargs(), back.facts(), back.source()) == ((1, 2.5), {"x": "y"}, FACTS, SOURCE)
    assert back.head.key == "12ab" * 8
    return ""


def test_each_message_names_the_file(good: bytes, path: Path) -> None:
    for data, what in [
        (b"", "is empty"),
        (b"hello", "is not a file of Callyard's cache"),
        (good[:-1], r"bytes instead of"),
        (good[:500], "is damaged"),
        (good[:-1] + bytes([good[-1] ^ 1]), "its content does not match"),
        (good.replace(b"module.f", b"module.g", 1), "its head does not match"),
        (good.replace(b"CALLYARD 3 ", b"CALLYARD x ", 1), "its first line makes no sense"),
    ]:
        message = refused(data, path)
        assert what in message
        assert str(path) in message


def test_a_later_format_is_refused_in_one_sentence(good: bytes, path: Path) -> None:
    path.write_bytes(good.replace(b"CALLYARD 3 ", b"CALLYARD 12 ", 1))
    with pytest.raises(VersionMismatch, match=rf"{path} has format 12 .* up to 3: use a newer"):
        load(path)
    with open(path, "rb") as file, pytest.raises(VersionMismatch):
        read_head(file.fileno())


_spot = st.floats(0, 1, exclude_max=True)
_change = st.one_of(
    st.tuples(st.just("flip"), _spot | st.floats(0, 0.2, exclude_max=True), st.binary(min_size=1, max_size=4)),
    st.tuples(st.just("insert"), _spot, st.binary(min_size=1, max_size=600)),
    st.tuples(st.just("cut"), _spot, st.integers(1, 4096)),
    st.tuples(st.just("end"), _spot, st.none()),
)


def changed(data: bytes, change: tuple[str, float, Any]) -> bytes:
    kind, where, what = change
    at = int(where * len(data))
    if kind == "flip":
        return data[:at] + bytes(a ^ b for a, b in zip(data[at:], what, strict=False)) + data[at + len(what) :]
    if kind == "insert":
        return data[:at] + what + data[at:]
    return data[:at] + (data[at + what :] if what else b"")


@settings(max_examples=400)
@given(st.lists(_change, min_size=1, max_size=3))
def test_no_change_gives_a_wrong_value(
    good: bytes, tmp_path_factory: pytest.TempPathFactory, changes: list[Any]
) -> None:
    data = good
    for change in changes:
        data = changed(data, change)
    refused(data, tmp_path_factory.getbasetemp() / "changed")


@settings(max_examples=100)
@given(st.binary(max_size=300), st.sampled_from([b"", b"CALLYARD ", b"CALLYARD 3 ", b"CALLYARD 3 1024 "]))
def test_other_bytes_are_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes, start: bytes) -> None:
    assert refused(start + data, tmp_path_factory.getbasetemp() / "other")


def forged(text: bytes, content: bytes = b"", number: int = 1) -> bytes:
    """A file with right checksums and a head that nobody would write."""
    line = b"CALLYARD %d 2048 " % number + checksum(text, number).encode() + b"\n"
    return (line + text + b"\n").ljust(2048, b"\0") + content


_HEAD = {
    "format": 1, "key": "", "name": "", "state": "finished", "token": "", "created": 0, "seconds": 0, "bytes": 0,
    "sum": blake3(b"").hexdigest(), "parts": {},
}  # fmt: skip


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{}", b"1", b"\xff", b"[" * 1900, json.dumps({**_HEAD, "parts": 1}).encode()]
)
def test_a_head_without_its_fields(path: Path, text: bytes) -> None:
    path.write_bytes(forged(text))
    with pytest.raises(DamagedFile, match="its head has not the fields"):
        load(path)


@pytest.mark.parametrize(
    "node",
    [
        None,
        {},
        {"is": "what"},
        {"is": "float"},
        {"is": "float", "at": 0},
        {"is": "float", "at": -8},
        {"is": "bytes", "at": 0, "bytes": 1 << 60},
        {"is": "array", "at": 0, "dtype": "<f8", "shape": [1 << 50]},
        {"is": "array", "at": 0, "dtype": "<f8", "shape": [-1]},
        {"is": "array", "at": 0, "dtype": "O", "shape": [0]},
        {"is": "array", "at": 0, "dtype": "no", "shape": [0]},
        {"is": "array", "at": 0, "dtype": {}, "shape": [0]},
        {"is": "tuple", "items": 3},
        {"is": "list", "at": 0, "of": "d", "count": 1 << 40},
        {"is": "list", "at": 0, "of": "d", "count": -1},
        {"is": "tuple", "at": 0, "of": "?!", "count": 1},
    ],
)
def test_a_head_that_describes_nonsense(path: Path, node: Any) -> None:
    path.write_bytes(forged(json.dumps({**_HEAD, "parts": {"output": node}}).encode()))
    with pytest.raises(DamagedFile, match="describes its part 'output' wrongly"):
        load(path).output()
    with pytest.raises(DamagedFile, match="describes its part 'facts' wrongly"):
        load(path).facts()


_odd = st.sampled_from([1 << 60, -1, 1e300])
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | _odd,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
_small = st.integers(-9, 60) | _json
_dtype = st.sampled_from(["<f8", "O", "V0", "U9999999", "f8,f8", "<M8[s]", "no", "(((", {}, ["<f8", [1 << 40]]]) | _json
_kinds = st.sampled_from(
    ["float", "int", "bool", "complex", "none", "str", "bytes", "json", "described", "scalar", "array", "omitted",
     "pickle", "list", "tuple", "dict", "pairs"]
)  # fmt: skip
_nodes = st.deferred(lambda: _json | _forged_node)
_members = st.lists(_nodes, max_size=3) | st.dictionaries(st.text(max_size=2), _nodes, max_size=3)
_forged_node = st.fixed_dictionaries(
    {"is": _kinds},
    optional={
        "at": _small, "bytes": _small, "count": _small, "readonly": _json, "items": _members, "arrays": _members,
        "dtype": _dtype, "shape": st.lists(_small, max_size=3) | _json, "order": st.just("F"),
        "axes": st.lists(st.integers(-9, 9), max_size=3), "of": st.sampled_from("dq?s") | _json,
    },
)  # fmt: skip
_parts = st.sampled_from(["output", "error", "arguments", "keywords", "function", "function_pickle", "facts"])
_forged_fields = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("format", "key", "name", "created", "seconds", "bytes", "data", "sum"), _json),
        "state": st.just("failed") | _json,
        "token": st.sampled_from(["ab", "xy", "a"]) | _json,
        "parts": _json | st.dictionaries(_parts, _nodes),
    },
)


@pytest.fixture
def no_pickles(monkeypatch: pytest.MonkeyPatch) -> None:
    def loads(*_: Any, **__: Any) -> Any:
        raise AssertionError("a pickle was opened")

    monkeypatch.setattr("callyard.cache.format.unpickle.pickle.loads", loads)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return Cache(tmp_path_factory.mktemp("forged") / "cache")


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([1, 2, 3]), _forged_fields, st.sampled_from([b"", bytes(64)]))
@pytest.mark.usefixtures("no_pickles")
@pytest.mark.filterwarnings("ignore")
def test_a_forged_head_is_found_damaged_or_does_no_harm(
    one: Cache, number: int, fields: dict[str, Any], content: bytes
) -> None:
    """Whatever it says, with checksums that are right: nothing is raised but what the cache says, and none is run."""
    key = "ab" * 20
    about = {**_HEAD, "format": number, "key": key, "bytes": len(content), "sum": checksum(content, number)}
    path = Path(one._directory.record(key))
    path.parent.mkdir(exist_ok=True, mode=0o700)
    path.write_bytes(forged(json.dumps({**about, **fields}).encode()[:2000], content, number))
    try:
        entry = one.get(key)
        assert repr(entry)
        for name in ("created", "size", "facts", "resources", "host", "versions", "ingredients", "log", "source"):
            with contextlib.suppress(CacheError):
                getattr(entry, name)
    except CacheError:
        pass
    found = find(one._directory, key)
    assert found is None or path.exists()
    path.unlink(missing_ok=True)


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_forged_node)
@pytest.mark.filterwarnings("ignore")
def test_a_forged_node_is_found_damaged(tmp_path: Path, node: Any) -> None:
    content = bytes(64)
    about = {**_HEAD, "bytes": len(content), "sum": blake3(content).hexdigest()}
    text = json.dumps({**about, "parts": {"output": node, "facts": node, "arguments": node}}).encode()
    if len(text) > 1900:
        return
    (tmp_path / "f").write_bytes(forged(text, content))
    back = load(tmp_path / "f")
    for read_part in (back.output, back.facts, back.args, back.output_alone, back.failure):
        with contextlib.suppress(CacheError):
            read_part()


def test_a_head_that_claims_to_be_huge(path: Path) -> None:
    with open(path, "wb") as file:
        file.write(b"CALLYARD 3 999999999 " + b"0" * 64 + b"\n")
        file.truncate(1 << 30)
    tracemalloc.start()
    try:
        with pytest.raises(DamagedFile):
            load(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 22
    finally:
        tracemalloc.stop()


# -- files that a person works with --------------------------------------------------------------------------


VALUE = {"a": np.arange(300.0).reshape(3, 100), "b": 1.5, "none": None, "empty": np.zeros((0, 3)), "text": ""}


def is_whole(path: Path) -> bool:
    back = load(path)
    same = all(np.array_equal(back.output()[name], value) for name, value in VALUE.items())
    return same and (back.args(), back.facts(), back.source()) == ((1, 2.5), FACTS, SOURCE)


def opened(file: h5py.File) -> None:
    pass


def annotated(file: h5py.File) -> None:
    file.attrs["note"] = "the good one"
    file["output/a"].attrs["unit"] = "eV"


def extended(file: h5py.File) -> None:
    file["plot"] = np.arange(100000)
    file["output"].create_dataset("fit", data=[1.5])
    file.create_group("more/of/it")


def crowded(file: h5py.File) -> None:
    for number in range(300):
        file[f"extra {number}"] = np.arange(number)


def renamed(file: h5py.File) -> None:
    file.move("output", "result")
    del file["keywords/x"]


def untitled(file: h5py.File) -> None:
    file.move("output", "result")  # in place: the file does not grow


@pytest.mark.parametrize(
    "change", [opened, annotated, extended, crowded, renamed, untitled], ids=lambda change: change.__name__
)
@pytest.mark.parametrize("libver", ["earliest", "latest"])
@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
def test_notes_in_a_file_do_no_harm(path: Path, change: Any, libver: str, large: bool) -> None:
    args = (1, 2.5) if not large else (1, 2.5, b"x" * 2000000)
    save(path, record(VALUE, args=args))
    before = load(path)
    for _ in range(2 if change in (opened, annotated) else 1):
        with h5py.File(path, "r+", libver=libver) as file:
            change(file)
    back = load(path)
    assert np.array_equal(back.output()["a"], VALUE["a"])
    assert (back.args(), back.facts(), back.source()) == (args, FACTS, SOURCE)
    assert back.head.size == path.stat().st_size
    assert np.array_equal(before.output()["a"], VALUE["a"])


def test_a_changed_bit_in_what_is_hdf5s_own_is_damage(path: Path) -> None:
    save(path, record(VALUE))
    good = path.read_bytes()
    fields = json.loads(good.split(b"\n")[1])
    end = len(good) - fields["bytes"] + fields["data"]
    for at in range(len(good) - fields["bytes"], end, 7):
        path.write_bytes(good[:at] + bytes([good[at] ^ 4]) + good[at + 1 :])
        with contextlib.suppress(DamagedFile):
            load(path)
            assert not any(good[at : at + 1])  # between two headers


def test_a_changed_dataset_is_damage(path: Path) -> None:
    for name in ("output/a", "arguments/1", "facts"):
        save(path, record(VALUE))
        with h5py.File(path, "r+") as file:
            file[name][...] = b"{}" if name == "facts" else 7
        with pytest.raises(DamagedFile, match="its content does not match"):
            load(path)


@pytest.mark.parametrize(("length", "made_by"), [((1 << 14) - 1, "blake2b"), (1 << 14, "blake3")])
def test_short_parts_have_checksums_of_the_interpreter(length: int, made_by: str) -> None:
    """Where BLAKE3 would take longer to load than to be of use; before format 3 all checksums were of that."""
    data = bytes(length)
    expected = {"blake2b": hashlib.blake2b(data, digest_size=32).hexdigest(), "blake3": blake3(data).hexdigest()}
    assert checksum(data, 3) == expected[made_by]
    assert checksum(data, 2) == checksum(data, 1) == expected["blake3"]


def as_format_2(data: bytes) -> bytes:
    """The same file as the version before has written it: all checksums are BLAKE3."""
    line, text = data.split(b"\n")[:2]
    block = int(line.split()[2])
    fields = json.loads(text)
    start = block + fields["data"]
    sums = {"frame": blake3(data[block:start]).hexdigest(), "sum": blake3(data[start:]).hexdigest()}
    text = json.dumps({**fields, "format": 2, **sums}, separators=(",", ":")).encode()
    head = b"CALLYARD 2 %d %s\n%s\n" % (block, blake3(text).hexdigest().encode(), text)
    return head.ljust(block, b"\0") + data[block:]


@pytest.mark.parametrize("value", [VALUE, np.arange(3000), np.arange(400000)], ids=["small", "array", "on disk"])
def test_files_of_the_second_format_are_read(path: Path, value: Any) -> None:
    save(path, record(value))
    path.write_bytes(as_format_2(path.read_bytes()))
    assert load(path).head.format == 2
    np.testing.assert_equal(load(path).output(), value)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(DamagedFile, match="its content does not match"):
        load(path)


def as_format_1(data: bytes) -> bytes:
    """The same file as earlier versions have written it: the checksum is of all behind the user block."""
    line, text = data.split(b"\n")[:2]
    block = int(line.split()[2])
    fields = json.loads(text)
    del fields["data"], fields["frame"]
    text = json.dumps({**fields, "format": 1, "sum": blake3(data[block:]).hexdigest()}).encode()
    head = b"CALLYARD 1 %d %s\n%s\n" % (block, blake3(text).hexdigest().encode(), text)
    return head.ljust(block, b"\0") + data[block:]


def test_files_of_the_first_format_are_read(path: Path) -> None:
    save(path, record(VALUE))
    path.write_bytes(as_format_1(path.read_bytes()))
    assert is_whole(path)
    assert load(path).head.format == 1
    assert load(path).output_alone().output()["b"] == 1.5
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(DamagedFile, match="bytes instead of"):
        load(path)


def test_files_of_the_first_format_that_are_large(path: Path) -> None:
    save(path, record(np.arange(400000)))
    path.write_bytes(as_format_1(path.read_bytes()))
    assert np.array_equal(load(path).output(), np.arange(400000))


# -- other processes -----------------------------------------------------------------------------------------


def run(script: str, *args: Any) -> list[str]:
    """Run a script in a process of its own; the lines that it prints."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(script), *map(str, args)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment, timeout=60)
    assert not done.stderr
    return done.stdout.splitlines()


USE = """
import sys
from callyard.cache.format.record_file import read
from callyard.cache.format.record_writer import Record, write
def save(value, path, **fields):
    with open(path, "wb") as file:
        write(file.fileno(), Record("k", "n", "finished", "t", value, (), {}, **fields))
def load(path):
    with open(path, "rb") as file:
        return read(file.fileno(), path).output()
"""

CLASSES = """
import dataclasses, enum, typing
SCALE = 10
def scaled(x):
    return Point(x * SCALE, None)
@dataclasses.dataclass
class Point:
    x: float
    other: typing.Any
    def scaled(self):
        return scaled(self.x)
    class Inner:
        pass
class Colour(enum.Enum):
    RED = 1
class Slotted:
    __slots__ = ("a",)
class Failure(Exception):
    pass
def made():
    class Local:
        pass
    return Local
"""


@pytest.fixture
def from_a_script(path: Path) -> Path:
    run(
        USE
        + CLASSES
        + """
slotted = Slotted()
slotted.a = 1
point = Point(1.5, [Colour.RED, Failure("no"), slotted, Point.Inner(), made()(), scaled, Point])
save(point, sys.argv[1])
assert load(sys.argv[1]).__class__ is Point
""",
        path,
    )
    return path


def test_classes_of_a_script_are_there_without_it(from_a_script: Path) -> None:
    lines = run(
        USE
        + """
main = sys.modules["__main__"]
first, second = load(sys.argv[1]), load(sys.argv[1])
assert sys.modules["__main__"] is main and not hasattr(main, "Point")
print(first.scaled().x, [getattr(item, "__name__", type(item).__name__) for item in first.other])
print(type(first) is type(second), first == second or first.x, first.other[0] is second.other[0])
print(first.other[5](2).x, first.other[6] is type(first), first.other[2].a, first.other[1].args)
print(isinstance(first.scaled(), first.other[6]))
""",
        from_a_script,
    )
    assert lines == [
        "15.0 ['Colour', 'Failure', 'Slotted', 'Inner', 'Local', 'scaled', 'Point']",
        "True 1.5 True",
        "20 True 1 ('no',)",
        "True",
    ]


def test_classes_of_a_script_are_those_of_the_script_that_reads(from_a_script: Path) -> None:
    lines = run(
        USE
        + CLASSES
        + """
SCALE = 100
back = load(sys.argv[1])
print(type(back) is Point, back.scaled().x, back.other[0] is Colour.RED, type(back.other[1]) is Failure)
print(type(back.other[2]) is Slotted, type(back.other[3]) is Point.Inner, back.other[6] is Point)
""",
        from_a_script,
    )
    assert lines == ["True 150.0 True True", "True True True"]


def test_code_of_another_python_is_not_run(from_a_script: Path) -> None:
    other = """
import callyard.cache.format.unpickle as unpickles
unpickles.CODE = "other-1"
"""
    with pytest.raises(subprocess.CalledProcessError) as caught:
        run(USE + other + "load(sys.argv[1])", from_a_script)
    assert "VersionMismatch" in caught.value.stderr
    assert f"{from_a_script}: its part 'output' cannot be loaded here" in caught.value.stderr


def test_a_class_that_is_here_needs_no_code_of_another_python(path: Path) -> None:
    run(USE + CLASSES + "save([Point(1.5, Colour.RED)], sys.argv[1])", path)
    lines = run(
        USE
        + CLASSES
        + """
import callyard.cache.format.unpickle as unpickles
unpickles.CODE = "other-1"
print(load(sys.argv[1]) == [Point(1.5, Colour.RED)])
""",
        path,
    )
    assert lines == ["True"]


def test_a_class_that_a_worker_was_sent(path: Path) -> None:
    lines = run(
        USE
        + CLASSES
        + """
import callyard
def store(point, path):
    save(Point(point.x + 1, [point, Colour.RED]), path)
if __name__ == "__main__":
    with callyard.Executor(max_workers=1) as executor:
        executor.submit(store, Point(1, None), sys.argv[1]).result()
    back = load(sys.argv[1])
    print(type(back) is Point, back.scaled().x, back.other[0] == Point(1, None), back.other[1] is Colour.RED)
""",
        path,
    )
    assert lines == ["True 20 True True"]
    assert run(USE + "back = load(sys.argv[1]); print(back.scaled().x, type(back.other[0]) is type(back))", path) == [
        "20 True"
    ]


def test_what_cannot_be_imported_here_is_an_error_of_the_cache(path: Path, tmp_path: Path) -> None:
    (tmp_path / "lab_of_records.py").write_text("class Sample: pass\n")
    where = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import lab_of_records\n"
    run(where + USE + "save(lab_of_records.Sample(), sys.argv[1])", path)
    with pytest.raises(
        CacheError, match=r"f.h5: its part 'output' cannot be loaded here: ModuleNotFoundError"
    ) as caught:
        load(path).output()
    assert not isinstance(caught.value, DamagedFile)
    assert load(path).args() == ()


def test_a_process_that_reads_imports_no_large_library(path: Path) -> None:
    save(path, record({"energy": -1.5, "steps": [1, 2]}))
    lines = run(USE + "print(load(sys.argv[1]), {'numpy', 'h5py', 'cloudpickle'} & set(sys.modules))", path)
    assert lines == ["{'energy': -1.5, 'steps': [1, 2]} set()"]


def test_a_value_without_arrays_does_not_import_numpy_to_be_described() -> None:
    lines = run(
        """
        import sys
        from callyard.cache.format.encode import Datasets, encode
        encode([{"a": 1.5}, {1, 2}], "output", Datasets())
        print("numpy" in sys.modules)
        """
    )
    assert lines == ["False"]
