"""The structure of a file: the bytes of HDF5, and the places of the data between them.

The files of one function are alike, so a structure is made once, without data, and kept. A file is then made by putting
its bytes and the data together.
"""

from __future__ import annotations

from ...utils.frozen import Frozen
from ...utils.lite_typing import Any, Iterator, Sequence
from . import hdf5

MAX_RANK = 31  # dimensions of an array; HDF5 allows one more, which is needed for the bytes of dtypes that it lacks
MIN_BLOCK = 1024  # bytes of the user block before the HDF5 part: 512 * 2**k
_KEPT = 256  # structures
_KEPT_BYTES = 1 << 16  # bytes of a structure that is kept, at most


Spec = tuple[str, Any, "tuple[int, ...]", "tuple[tuple[str, str], ...]"]  # see `spec`


def spec(path: str, kind: Any, shape: tuple[int, ...] = (), attributes: tuple[tuple[str, str], ...] = ()) -> Spec:
    """Return the description of a dataset or group to be made. Equal descriptions make equal structures.

    `kind` is "group", "none" (a dataset without data), "text" (UTF-8; `shape` is its length in bytes), or an argument
    of `numpy.dtype`. `attributes` are pairs of name and text.
    """
    return path, kind, shape, attributes


class Structure(Frozen):
    """The HDF5 part of a file without its data. Offsets count from the end of the user block."""

    block: int
    size: int
    data: int  # the offset of the data, behind all headers of HDF5
    offsets: tuple[int, ...]  # of the data of each spec; 0 for a spec without data
    tiles: tuple[bytes | int, ...]  # in the order of the file: bytes of HDF5, or the index of a spec, for its data


_known: dict[tuple[Spec, ...], Structure] = {}


def structure(specs: tuple[Spec, ...], block: int = MIN_BLOCK) -> Structure:
    """Return the structure of a file whose user block has `block` bytes or more."""
    found = _known.get(specs)
    if found is None or found.block < block:
        found = _make(specs, block)
        if sum(len(tile) for tile in found.tiles if isinstance(tile, bytes)) <= _KEPT_BYTES:
            if len(_known) >= _KEPT:
                _known.clear()
            _known[specs] = found
    return found


def _make(specs: Sequence[Spec], block: int) -> Structure:
    lengths = [hdf5.size_of(kind, shape) for _, kind, shape, _ in specs]
    things = list(_tree(specs).all())
    start = end = _place(things, specs, [0] * len(specs))
    offsets = []
    for length in lengths:
        offsets.append(end if length else 0)
        end += _padded(length)
    _place(things, specs, offsets)
    headers = [thing.header.ljust(_padded(len(thing.header)), b"\0") for thing in things]
    tiles: list[bytes | int] = [hdf5.superblock(block, block + end, things[0].at) + b"".join(headers)]
    for index, length in enumerate(lengths):
        if length:
            tiles.extend([index, bytes(_padded(length) - length)])
    return Structure(block, end, start, tuple(offsets), tuple(tile for tile in tiles if tile != b""))


def _padded(length: int) -> int:
    return -(-length // hdf5.ALIGNED) * hdf5.ALIGNED


class _Object:
    """A group, or the dataset of the spec with this index."""

    def __init__(self) -> None:
        self.index: int | None = None
        self.members: dict[str, _Object] = {}
        self.header, self.at = b"", 0

    def all(self) -> Iterator[_Object]:
        yield self
        for member in self.members.values():
            yield from member.all()

    def make_header(self, specs: Sequence[Spec], offsets: Sequence[int]) -> bytes:
        if self.index is None:
            return hdf5.group((name, member.at) for name, member in self.members.items())
        _, kind, shape, attributes = specs[self.index]
        return hdf5.dataset(kind, shape, offsets[self.index], attributes)


def _tree(specs: Sequence[Spec]) -> _Object:
    """Return the root group of the tree of all paths."""
    root = _Object()
    for index, (path, kind, _, _) in enumerate(specs):
        thing = root
        for name in path.split("/"):
            thing = thing.members.setdefault(name, _Object())
        thing.index = None if kind == "group" else index
    return root


def _place(things: Sequence[_Object], specs: Sequence[Spec], offsets: Sequence[int]) -> int:
    """Make the headers, one behind the other, and return their end. Their lengths do not depend on the offsets."""
    end = hdf5.SUPERBLOCK
    for thing in things:
        thing.header, thing.at = thing.make_header(specs, offsets), end
        end += _padded(len(thing.header))
    return end


def is_name(key: Any) -> bool:
    """Return True if a key can be the name of a dataset unchanged."""
    if type(key) is not str or not 0 < len(key) <= 100:
        return False
    return key.isidentifier() or (key.isprintable() and "/" not in key and key not in (".", ".."))
