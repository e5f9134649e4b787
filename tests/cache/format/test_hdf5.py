"""What is written as HDF5 is what h5py reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from callyard.cache.format import hdf5
from callyard.cache.format.hdf5 import Spec, spec, structure

SCALARS = ["<f8", "<i8", "?", "<c16", "|u1", "<f2", "<f4", "<c8", "<u2", "|i1"]
ORDERS = [np.dtype(kind) for kind in (">f4", ">f8", ">i8", ">u4", ">c16", "S7", "?", "u1")]
INNER = np.dtype([("yes", "?"), ("text", "S5"), ("z", "<c8")])
RECORDS = [
    np.dtype([("a", "<f8"), ("b", ">i2", (2, 3)), ("c", INNER)], align=True),
    np.dtype({"names": ["first", "second"], "formats": ["<i4", "<f4"], "offsets": [0, 8], "itemsize": 20}),
    np.dtype([("wide", "S300"), ("\u00e4", "<i8")]),
    np.dtype([("wider", "S70000"), ("last", "?")]),
]


def save(path: Path, specs: list[Spec], data: list[bytes], block: int = 1024) -> None:
    made = structure(tuple(specs), block)
    content = b"".join(tile if isinstance(tile, bytes) else data[tile] for tile in made.tiles)
    assert len(content) == made.size
    path.write_bytes(bytes(block) + content)


@pytest.mark.parametrize("shape", [(), (3,), (2, 0), (2, 3, 1)], ids=str)
@pytest.mark.parametrize("kind", [*SCALARS, *ORDERS, *RECORDS], ids=str)
def test_a_dataset(tmp_path: Path, kind: Any, shape: tuple[int, ...]) -> None:
    length = hdf5.size_of(kind, shape)
    data = bytes(number % 2 for number in range(length))
    save(tmp_path / "f", [spec("x", kind, shape)], [data])
    with h5py.File(tmp_path / "f") as file:
        assert file["x"].dtype == np.dtype(kind)
        assert file["x"].shape == shape
        assert file["x"].id.get_storage_size() == length == np.dtype(kind).itemsize * int(np.prod(shape))
        assert np.array_equal(np.asarray(file["x"]).astype(kind), np.frombuffer(data, kind).reshape(shape))
        types = file["x"].id.get_type()
        assert types == h5py.h5t.py_create(np.dtype(kind), logical=True)


def test_fields_in_another_order_than_their_places(tmp_path: Path) -> None:
    kind = np.dtype({"names": ["second", "first"], "formats": ["<i4", "<f4"], "offsets": [4, 0]})
    save(tmp_path / "f", [spec("x", kind)], [np.array((7, 1.5), kind).tobytes()])
    with h5py.File(tmp_path / "f") as file:
        assert (file["x"]["first"], file["x"]["second"]) == (1.5, 7)


def test_texts_and_what_has_no_data(tmp_path: Path) -> None:
    specs = [spec("text", "text", (64,)), spec("nothing", "none"), spec("group", "group")]
    save(tmp_path / "f", specs, ["h\u00e4".encode().ljust(64, b"\0"), b"", b""])
    with h5py.File(tmp_path / "f") as file:
        assert file["text"].asstr()[()] == "h\u00e4"
        assert h5py.check_string_dtype(file["text"].dtype) == ("utf-8", 64)
        assert file["nothing"].shape is None
        assert list(file["group"]) == []


def test_attributes(tmp_path: Path) -> None:
    notes = (("dtype", "<M8[s]"), ("shape", "(2,)"), ("long", "\u00e4" * 5000), ("empty", ""))
    save(tmp_path / "f", [spec("x", "|u1", (2, 8), notes)], [bytes(16)])
    with h5py.File(tmp_path / "f") as file:
        found = {name: value.decode() for name, value in file["x"].attrs.items()}
    assert found == dict(notes) | {"long": "\u00e4" * 500, "empty": " "}


def test_a_long_attribute_is_cut_between_letters(tmp_path: Path) -> None:
    save(tmp_path / "f", [spec("x", "<i8", (), (("text", "a" + 600 * "\u00e4"),))], [bytes(8)])
    with h5py.File(tmp_path / "f") as file:
        found = file["x"].attrs["text"]
        assert (found if isinstance(found, str) else found.decode()) == "a" + 499 * "\u00e4"


@pytest.mark.parametrize("block", [512, 1024, 65536])
def test_groups_on_the_way_and_user_blocks(tmp_path: Path, block: int) -> None:
    save(tmp_path / "f", [spec("a/b/\u00e4 c/d", "<i8"), spec("a/e", "<i8")], [bytes([1, *bytes(7)])] * 2, block)
    with h5py.File(tmp_path / "f") as file:
        assert file.userblock_size == block
        assert file["a/b/\u00e4 c/d"][()] == file["a/e"][()] == 1
        assert list(file["a"]) == ["b", "e"]


def test_a_group_with_many_members(tmp_path: Path) -> None:
    specs = [spec(f"many/{number}", "<i8") for number in range(5000)]
    save(tmp_path / "f", specs, [number.to_bytes(8, "little") for number in range(5000)])
    with h5py.File(tmp_path / "f") as file:
        assert len(file["many"]) == 5000
        assert all(file[f"many/{number}"][()] == number for number in range(0, 5000, 100))


def test_other_programs_may_change_it(tmp_path: Path) -> None:
    save(tmp_path / "f", [spec("x/y", "<i8")], [bytes(8)])
    with h5py.File(tmp_path / "f", "r+") as file:
        file["x/y"][()] = 5
        file["x"].attrs["note"] = "hello"
        file["more/of/it"] = np.arange(10)
        del file["x/y"]
    with h5py.File(tmp_path / "f") as file:
        assert file["x"].attrs["note"] == "hello"
        assert list(file["more/of/it"]) == list(range(10))
        assert "y" not in file["x"]
