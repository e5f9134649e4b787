"""The HDF5 part of a record file: its structure, with places for the data, and the bytes of the headers in it.

Made here and not by the HDF5 library, because loading the library takes longer than most short jobs. The bytes are the
library's own, by the specification of the format (version 3, readable with HDF5 1.8 and later): the superblock, groups,
and contiguous datasets. Addresses count from the end of the user block.

The files of one function are alike, so a structure is made once, without data, and kept. A file is then made by putting
its bytes and the data together.
"""

from __future__ import annotations

from ...utils.lite_stdlib import Any, Frozen, Iterable, Iterator, Sequence, struct

__all__ = [
    "MAX_RANK",
    "MIN_BLOCK",
    "Spec",
    "Structure",
    "fits",
    "is_name",
    "is_sound",
    "spec",
    "structure",
]

MAX_RANK = 31  # dimensions of an array; HDF5 allows one more, which is needed for the bytes of dtypes that it lacks
MIN_BLOCK = 1024  # bytes of the user block before the HDF5 part: 512 * 2**k
_KEPT = 256  # structures
_KEPT_BYTES = 1 << 16  # bytes of a structure that is kept, at most

SUPERBLOCK = 48  # bytes
ALIGNED = 8  # bytes; all headers and data begin at multiples of this

_NOWHERE = 0xFFFFFFFFFFFFFFFF  # the address of a dataset without data
_DATASPACE, _LINK_INFO, _DATATYPE, _FILL_VALUE, _LINK, _LAYOUT, _GROUP_INFO, _ATTRIBUTE = 1, 2, 3, 5, 6, 8, 10, 12
_UTF8 = 1
_WORD = 0xFFFFFFFF
_SEAL = 4  # bytes of a checksum
_LONGEST = 1000  # bytes of an attribute
_MESSAGE = 0xFFFF  # bytes of a message at most

# By the size in bytes: the bits of sign, exponent and mantissa, and the bias.
_FLOATS = {2: (15, 10, 5, 10, 15), 4: (31, 23, 8, 23, 127), 8: (63, 52, 11, 52, 1023)}


# -- the structure -----------------------------------------------------------------------------------------

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
    lengths = [size_of(kind, shape) for _, kind, shape, _ in specs]
    things = list(_tree(specs).all())
    start = end = _place(things, specs, [0] * len(specs))
    offsets = []
    for length in lengths:
        offsets.append(end if length else 0)
        end += _padded(length)
    _place(things, specs, offsets)
    headers = [_sealed(thing.header).ljust(_padded(len(thing.header) + _SEAL), b"\0") for thing in things]
    tiles: list[bytes | int] = [superblock(block, block + end, things[0].at) + b"".join(headers)]
    for index, length in enumerate(lengths):
        if length:
            tiles.append(index)
        if padding := _padded(length) - length:
            tiles.append(bytes(padding))
    return Structure(block, end, start, tuple(offsets), tuple(tiles))


def _padded(length: int) -> int:
    return -(-length // ALIGNED) * ALIGNED


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
            return group((name, member.at) for name, member in self.members.items())
        _, kind, shape, attributes = specs[self.index]
        return dataset(kind, shape, offsets[self.index], attributes)


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
    """Make the headers, one behind the other, and return their end. Their lengths do not depend on the offsets.

    Their checksums are made at the end only, as they take most of the time.
    """
    end = SUPERBLOCK
    for thing in things:
        thing.header, thing.at = thing.make_header(specs, offsets), end
        end += _padded(len(thing.header) + _SEAL)
    return end


def is_name(key: Any) -> bool:
    """Return True if a key can be the name of a dataset unchanged."""
    if type(key) is not str or not 0 < len(key) <= 100:
        return False
    return key.isidentifier() or (key.isprintable() and "/" not in key and key not in (".", ".."))


# -- superblock, groups and datasets -------------------------------------------------------------------------


def superblock(base: int, end: int, root: int) -> bytes:
    """Return the superblock of a file of `end` bytes, `base` of them its user block, with the root group at `root`."""
    data = b"\x89HDF\r\n\x1a\n" + struct.pack("<4B4Q", 2, 8, 8, 0, base, _NOWHERE, end, root)
    return _sealed(data)


def group(links: Iterable[tuple[str, int]]) -> bytes:
    """Return the header of a group with these names and addresses, without its checksum."""
    info = [(_LINK_INFO, struct.pack("<2B2Q", 0, 0, _NOWHERE, _NOWHERE)), (_GROUP_INFO, b"\0\0")]
    return _header([*info, *((_LINK, _link(name.encode(), address)) for name, address in links)])


def _link(name: bytes, address: int) -> bytes:
    return struct.pack("<3BH", 1, 0b10001, _UTF8, len(name)) + name + struct.pack("<Q", address)


def dataset(kind: Any, shape: tuple[int, ...], address: int, attributes: Iterable[tuple[str, str]]) -> bytes:
    """Return the header of a dataset, without its checksum; `kind`, `shape` and `attributes` as in `spec`."""
    size = size_of(kind, shape)
    fill = struct.pack("<2B", 3, 0b0101)  # allocate early, never write a fill value
    place = struct.pack("<2B2Q", 3, 1, address if size else _NOWHERE, size)
    described = [(_DATASPACE, _space(kind, shape)), (_DATATYPE, _type(kind, shape)), (_FILL_VALUE, fill)]
    return _header([*described, (_LAYOUT, place), *((_ATTRIBUTE, _attribute(*pair)) for pair in attributes)])


def size_of(kind: Any, shape: tuple[int, ...]) -> int:
    """Return the size of the data of a dataset (bytes)."""
    if kind in ("group", "none"):
        return 0
    size = 1 if kind == "text" else _parsed(kind)[2]
    for length in shape:
        size *= length
    return size


def fits(kind: Any) -> bool:
    """Return True if a dtype fits into a header; records of a thousand fields and more do not."""
    return len(_number(kind)) <= _MESSAGE


def _attribute(name: str, value: str) -> bytes:
    cut = value.encode(errors="replace")[:_LONGEST].decode(errors="ignore")  # never within a character
    label, text = name.encode() + b"\0", cut.encode() or b" "
    kind, space = _text(len(text)), _space("text", ())
    return struct.pack("<2B3HB", 3, 0, len(label), len(kind), len(space), _UTF8) + label + kind + space + text


def _space(kind: Any, shape: tuple[int, ...]) -> bytes:
    if kind == "none":
        return struct.pack("<4B", 2, 0, 0, 2)
    dimensions = () if kind == "text" else shape
    return struct.pack(f"<4B{len(dimensions)}Q", 2, len(dimensions), 0, bool(dimensions), *dimensions)


# -- types -------------------------------------------------------------------------------------------------


def _type(kind: Any, shape: tuple[int, ...]) -> bytes:
    if kind == "text":
        return _text(*shape)
    return _integer("<", 1, signed=False) if kind == "none" else _number(kind)


def _parsed(kind: Any) -> tuple[str, str, int]:
    """Return byte order, letter and size of a dtype, or of the text of one."""
    if not isinstance(kind, str):
        return kind.str[0], kind.kind, kind.itemsize
    return ("|", "b", 1) if kind == "?" else (kind[0], kind[1], int(kind[2:]))


def _number(kind: Any) -> bytes:
    """Return the HDF5 datatype of a dtype."""
    order, letter, size = _parsed(kind)
    if not isinstance(kind, str) and kind.subdtype is not None:
        return _array(*kind.subdtype)
    if not isinstance(kind, str) and kind.names is not None:
        members = sorted((kind.fields[name][1], name, _number(kind.fields[name][0])) for name in kind.names)
        return _compound([(name, offset, member) for offset, name, member in members], size)
    if letter == "c":
        half = _float(order, size // 2)
        return _compound([("r", 0, half), ("i", size // 2, half)], size)
    if letter == "b":
        return _message(8, 2, 1, _integer("<", 1, signed=True) + b"FALSE\0TRUE\0\0\1")
    if letter == "S":
        return _message(3, 1, size)  # padded with zeros
    return _float(order, size) if letter == "f" else _integer(order, size, signed=letter == "i")


def _message(number: int, bits: int, size: int, properties: bytes = b"") -> bytes:
    """Return a datatype of the class with this number."""
    return struct.pack("<2I", (bits << 8) | 0x30 | number, size) + properties


def _text(length: int) -> bytes:
    return _message(3, 1 | _UTF8 << 4, length)


def _integer(order: str, size: int, *, signed: bool) -> bytes:
    return _message(0, (order == ">") | signed << 3, size, struct.pack("<2H", 0, 8 * size))


def _float(order: str, size: int) -> bytes:
    sign, *places = _FLOATS[size]
    exponent, bits, mantissa, bias = places
    properties = struct.pack("<2H4BI", 0, 8 * size, exponent, bits, 0, mantissa, bias)
    return _message(1, (order == ">") | 2 << 4 | sign << 8, size, properties)


def _compound(members: Sequence[tuple[str, int, bytes]], size: int) -> bytes:
    length = (size.bit_length() + 7) // 8  # bytes of an offset
    parts = (name.encode() + b"\0" + offset.to_bytes(length, "little") + kind for name, offset, kind in members)
    return _message(6, len(members), size, b"".join(parts))


def _array(base: Any, shape: tuple[int, ...]) -> bytes:
    properties = struct.pack(f"<B{len(shape)}I", len(shape), *shape) + _number(base)
    return _message(10, 0, size_of(base, shape), properties)


# -- headers -----------------------------------------------------------------------------------------------


def _header(messages: Iterable[tuple[int, bytes]]) -> bytes:
    body = b"".join(struct.pack("<BHB", kind, len(data), 0) + data for kind, data in messages)
    return b"OHDR" + struct.pack("<2BI", 2, 0b10, len(body)) + body


def _sealed(header: bytes) -> bytes:
    """Return a header with its checksum behind it."""
    return header + _checksum(header)


def _checksum(data: bytes) -> bytes:
    """Return the checksum of HDF5, which is Bob Jenkins' lookup3."""
    length = -(-len(data) // 12) * 12
    words = struct.unpack(f"<{length // 4}I", data.ljust(length, b"\0"))
    a = b = c = (0xDEADBEEF + len(data)) & _WORD
    for i in range(0, len(words), 3):
        a, b, c = (a + words[i]) & _WORD, (b + words[i + 1]) & _WORD, (c + words[i + 2]) & _WORD
        if i < len(words) - 3:
            for turn in (4, 6, 8, 16, 19, 4):
                a, b, c = b, (c + b) & _WORD, (a - c ^ (c << turn | c >> 32 - turn)) & _WORD
    for turn in (14, 11, 25, 16, 4, 14, 24):
        a, b, c = b, ((c ^ b) - ((b << turn | b >> 32 - turn) & _WORD)) & _WORD, a
    return struct.pack("<I", b)


def is_sound(frame: bytes) -> bool:
    """Return True if a superblock and the headers behind it have the right checksums.

    The checksums are right as written, and after changes by HDF5, which leaves headers in place and continues a growing
    header elsewhere.
    """
    at, end = 0, SUPERBLOCK
    while at < len(frame):
        if end > len(frame) or _checksum(frame[at : end - 4]) != frame[end - 4 : end]:
            return False
        at = end + -end % ALIGNED
        start = min(at + 10, len(frame))
        end = start + int.from_bytes(frame[at + 6 : start], "little") + 4
    return True
