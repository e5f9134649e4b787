"""The file of a finished call: a head with the places of all parts, and an HDF5 file behind it.

The head is a text in the user block of the HDF5 file. With it Callyard reads a result by one `read`, without the HDF5
library; other programs read the HDF5 part, in which the same bytes are datasets. `docs/file-format.md` describes both.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from blake3 import blake3

from ...errors import CacheError, VersionMismatch
from ...utils import lite_json
from ...utils.frozen import Frozen
from ...utils.lite_typing import Any
from . import hdf5, hdf5_structure
from .checked_bytes import BytesInMemory, BytesOnDisk, checksum_of, identity, read_at, write_all, write_chunks
from .decode import Unloadable, decode
from .encode import Datasets, Node, encode, encode_arguments
from .header import FORMAT, FRAME, MAX_BLOCK, DamagedFile, Header, damaged, load_head, make_head

__all__ = [
    "ARRAY_LIMIT", "FAILED", "FINISHED", "FORMAT",
    "DamagedFile", "Header", "Record", "Stored", "read", "read_head", "write",
]  # fmt: skip

ARRAY_LIMIT = 64 << 20  # bytes; a larger argument is only described
FINISHED, FAILED = "finished", "failed"

_WHOLE = 1 << 20  # bytes; a file up to this size is kept in memory after reading
_PEEK = 4096  # bytes of the first read, because most heads are shorter
_EIGHT_BYTES = ("float", "int")  # the most frequent outputs
_PICKLED_LIMIT = 1 << 20  # bytes of a function's pickle that is stored


class Record(Frozen):
    """The record of a finished call; where the state is "failed", `output` is the exception."""

    key: str
    name: str
    state: str
    token: str
    output: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    source: str = ""
    pickled: bytes | None = None
    facts: Mapping[str, Any] = MappingProxyType({})
    created: float = 0.0
    seconds: float = 0.0


# -- writing -----------------------------------------------------------------------------------------------


def write(fd: int, record: Record) -> int:
    """Fill an empty file, and return its size (bytes). Raises OSError, and the exceptions of pickle for the output."""
    about = _about(record)
    parts = Datasets()
    nodes = _nodes(record, about, parts)
    structure, text = _lay_out(about, nodes, parts)
    first, *tiles = [tile if isinstance(tile, bytes) else parts.data[tile] for tile in structure.tiles]
    assert len(first) + sum(map(len, tiles)) == structure.size
    block, frame = structure.block, blake3(first).hexdigest()
    if structure.size <= _WHOLE:
        data = b"".join(tiles)
        write_all(fd, make_head(text, block, frame, blake3(data).hexdigest()) + first + data, 0)
    else:  # write the head last, so that a half-written file has none
        write_all(fd, first, block)
        write_all(fd, make_head(text, block, frame, write_chunks(fd, tiles, block + len(first))), 0)
    return block + structure.size


def _lay_out(about: str, nodes: dict[str, Node], parts: Datasets) -> tuple[hdf5_structure.Structure, str]:
    """Return a structure whose user block has room for the head, and the text of the head without its checksums."""
    specs = tuple(parts.specs)
    block = hdf5_structure.MIN_BLOCK
    while True:
        structure = hdf5_structure.structure(specs, block)
        for node, offset in zip(parts.nodes, structure.offsets, strict=True):
            node["at"] = offset
        extent = f'"bytes":{structure.size},"data":{structure.data}'
        text = f'{about[:-1]},{extent},"parts":{lite_json.compact(nodes)}'
        if len(text) + FRAME <= structure.block:
            return structure, text
        block = structure.block * 2
        if block > MAX_BLOCK:
            raise ValueError("it consists of too many parts to be stored")


def _about(record: Record) -> str:
    """Return the JSON of a record without its parts."""
    return lite_json.compact(
        {
            "format": FORMAT,
            "key": record.key,
            "name": record.name,
            "state": record.state,
            "token": record.token,
            "created": record.created,
            "seconds": record.seconds,
        }
    )


def _nodes(record: Record, about: str, parts: Datasets) -> dict[str, Node]:
    """Add all values of a record to `parts`, and return their nodes by their names in HDF5."""
    output = "error" if record.state == FAILED else "output"
    nodes = {output: encode(record.output, output, parts)}
    parts.limit = ARRAY_LIMIT
    nodes["arguments"] = encode_arguments(record.args, "arguments", parts)
    nodes["keywords"] = encode_arguments(record.kwargs, "keywords", parts)
    parts.limit = None
    nodes["function"] = parts.add_text("function", record.source.encode(errors="replace"), "str", 256)
    if record.pickled is not None and len(record.pickled) <= _PICKLED_LIMIT:
        nodes["function_pickle"] = parts.add_bytes("function_pickle", record.pickled, "bytes")
    nodes["facts"] = parts.add_text("facts", lite_json.lenient(dict(record.facts)).encode(), "json", 256, b" ")
    parts.add_text("record", about.encode(), "json", 64, b" ")  # the fields of the head again, for readers of HDF5
    return nodes


# -- reading -----------------------------------------------------------------------------------------------


def read_head(fd: int, path: str = "the file") -> Header:
    """Return the head alone, checked, without reading the rest of the file."""
    return load_head(fd, os.fstat(fd).st_size, path, _PEEK)[0]


def read(fd: int, path: str, whole: bool = False) -> Stored:
    """Read and check a file; `path` is its name in messages.

    A large file is opened there again for each part, unless `whole` asks to keep all of it in memory.

    Raises:
        DamagedFile: the content is not as written.
        VersionMismatch: the file has a later format.
    """
    status = os.fstat(fd)
    size = status.st_size
    head, block, fields, data = load_head(fd, size, path, size if whole or size <= _WHOLE else _PEEK)
    start, end, meant = fields["data"], fields["bytes"], fields["sum"]
    content: BytesInMemory | BytesOnDisk
    if len(data) >= block + end:
        content = BytesInMemory(memoryview(data)[block + start : block + end], start)
        checksum = blake3(content.data).hexdigest()
    else:
        content = BytesOnDisk(path, identity(status), block, start, end, meant)
        checksum = checksum_of(fd, block + start, block + end)
    if checksum != meant or (size == block + end and not _is_sound(data, fd, block, start, fields["frame"])):
        raise damaged(path, "its content does not match its checksum")
    return Stored(head, path, fields["parts"], content)


def _is_sound(data: bytes, fd: int, block: int, length: int, meant: str) -> bool:
    """Return True if the HDF5 headers, `length` bytes, are as they were written, or correctly changed by HDF5 since."""
    frame = data[block : block + length] if len(data) >= block + length else read_at(fd, length, block)
    return not length or blake3(frame).hexdigest() == meant or hdf5.is_sound(frame)


class Stored:
    """A record in its file. Each method makes a new object at each call.

    Each method raises CacheError if the object cannot be made in this process; the message gives the reason.
    """

    __slots__ = ("_content", "_nodes", "_path", "head")

    def __init__(self, head: Header, path: str, nodes: dict[str, Node], content: BytesInMemory | BytesOnDisk) -> None:
        self.head = head
        self._path, self._nodes, self._content = path, nodes, content

    @property
    def token(self) -> bytes:
        """The token of the result as an argument of other calls; empty if it is not known."""
        try:
            return bytes.fromhex(self.head.token)
        except ValueError:
            raise damaged(self._path, "its token is no number") from None

    def output(self) -> Any:
        """Return the result of the call, or the stored pair of exception and traceback."""
        return self._part("error" if self.head.state == FAILED else "output")

    def failure(self) -> tuple[BaseException, Any]:
        """Return the exception of a failed call, and its traceback."""
        failure = self.output()
        if not (isinstance(failure, tuple) and len(failure) == 2 and isinstance(failure[0], BaseException)):
            raise damaged(self._path, "it has no exception where one should be")
        return failure[0], str(failure[1])

    def output_alone(self) -> Stored:
        """Return a record with the output alone, which does not hold the other parts in memory."""
        name = "error" if self.head.state == FAILED else "output"
        try:
            node = self._nodes[name]
            content = self._content if isinstance(self._content, BytesOnDisk) else self._cut(name, self._content)
        except (AttributeError, LookupError, TypeError, ValueError, RecursionError):
            raise self._wrongly_described(name) from None
        return Stored(self.head, self._path, {name: node}, content)

    def _cut(self, name: str, content: BytesInMemory) -> BytesInMemory:
        """Return the content from the first byte of a part up to the next part."""
        node = self._nodes[name]
        if node.get("is") in _EIGHT_BYTES:
            return content.part(node["at"], node["at"] + 8)
        own = sorted(_places(node, content.start))
        if not own:
            return content.part(content.start, content.start)
        parts = (part for other, part in self._nodes.items() if other != name)
        others = (place for part in parts for place in _places(part, content.start) if place > own[-1])
        return content.part(own[0], min(others, default=content.size))

    def args(self) -> tuple[Any, ...]:
        """Return the positional arguments, with `encode.Omitted` or `encode.Described` for those not stored."""
        args: tuple[Any, ...] = self._typed("arguments", tuple)
        return args

    def kwargs(self) -> dict[str, Any]:
        kwargs: dict[str, Any] = self._typed("keywords", dict)
        return kwargs

    def facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = self._typed("facts", dict, "json")
        return facts

    def source(self) -> str:
        return str(self._typed("function", str, "str"))

    def pickled(self) -> bytes | None:
        """Return the pickle of the function, if it was stored."""
        return bytes(self._typed("function_pickle", bytes, "bytes")) if "function_pickle" in self._nodes else None

    def _typed(self, name: str, kind: type, form: str | None = None) -> Any:
        """Return a part of a type; with `form`, refuse a node of any other kind, so that no pickle is loaded."""
        node = self._nodes.get(name)
        if form is not None and not (isinstance(node, dict) and node.get("is") == form):
            raise self._wrongly_described(name)
        part = self._part(name)
        if not isinstance(part, kind):
            raise self._wrongly_described(name)
        return part

    def _wrongly_described(self, name: str) -> DamagedFile:
        return damaged(self._path, f"its head describes its part {name!r} wrongly")

    def _part(self, name: str) -> Any:
        try:
            return decode(self._nodes[name], self._content)
        except Unloadable as error:
            kind = VersionMismatch if isinstance(error.__cause__, VersionMismatch) else CacheError
            raise kind(f"{self._path}: its part {name!r} cannot be loaded here: {error}") from error.__cause__
        except (CacheError, MemoryError):
            raise
        except OSError as error:
            raise CacheError(f"{self._path} can no longer be read: {error.strerror}") from error
        except Exception as error:  # the head breaks the rules of this format
            raise self._wrongly_described(name) from error


def _places(node: Any, start: int) -> Iterator[int]:
    """Yield the offsets of the bytes of a node and of all nodes in it; a node without bytes has the offset 0."""
    if isinstance(node, dict):
        if isinstance(node.get("at"), int) and node["at"] >= start:
            yield node["at"]
        for inside in node.values():
            yield from _places(inside, start)
    elif isinstance(node, list):
        for inside in node:
            yield from _places(inside, start)
