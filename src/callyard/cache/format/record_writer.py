"""The writer of record files: the only part of them that a job loads, unless its call has inputs.

A file is a head with the places of all parts, and an HDF5 file behind it: see `record_file`, the reader.
"""

from __future__ import annotations

from types import MappingProxyType

from ...hashing.digest import new_hash
from ...utils.lite_stdlib import Any, Callable, Frozen, Iterable, Mapping, json_compact, json_lenient
from ..directory import write_all
from . import hdf5
from .encode import Datasets, Node, encode, encode_arguments

__all__ = [
    "ARRAY_LIMIT",
    "FAILED",
    "FINISHED",
    "FORMAT",
    "FRAME",
    "MARK",
    "MAX_BLOCK",
    "WHOLE",
    "Record",
    "write",
]

FORMAT = 3  # of new files; those before are read too
MARK = b"CALLYARD "  # with which a file begins
MAX_BLOCK = 1 << 26  # bytes of a user block, at most
FRAME = 256  # bytes of the first line and the checksums, at most
WHOLE = 1 << 20  # bytes; a file up to this size is written, and read, at once
ARRAY_LIMIT = 64 << 20  # bytes; a larger argument is only described
FINISHED, FAILED = "finished", "failed"

_PICKLED_LIMIT = 1 << 20  # bytes of a function's pickle that is stored
_CHUNK = 1 << 20  # bytes of a large file that are hashed and written at once


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


def write(fd: int, record: Record, keep: Callable[[Any], tuple[str, str]] | None = None) -> int:
    """Fill an empty file, and return its size (bytes). Raises OSError, and the exceptions of pickle for the output.

    `keep` keeps the content of a `File` in the output, and returns the names of content and file; by default only the
    path is stored.
    """
    about = _about(record)
    parts = Datasets()
    parts.keep = keep
    nodes = _nodes(record, about, parts)
    structure, text = _lay_out(about, nodes, parts)
    first, *tiles = [tile if isinstance(tile, bytes) else parts.data[tile] for tile in structure.tiles]
    assert len(first) + sum(map(len, tiles)) == structure.size
    block, frame = structure.block, _checksum(first)
    if structure.size <= WHOLE:
        data = b"".join(tiles)
        write_all(fd, _make_head(text, block, frame, _checksum(data)) + first + data, 0)
    else:  # write the head last, so that a half-written file has none
        write_all(fd, first, block)
        data_sum = _write_chunks(fd, tiles, block + len(first), structure.size - len(first))
        write_all(fd, _make_head(text, block, frame, data_sum), 0)
    return block + structure.size


def _lay_out(about: str, nodes: dict[str, Node], parts: Datasets) -> tuple[hdf5.Structure, str]:
    """Return a structure whose user block has room for the head, and the text of the head without its checksums."""
    specs = tuple(parts.specs)
    block = hdf5.MIN_BLOCK
    while True:
        structure = hdf5.structure(specs, block)
        for node, offset in zip(parts.nodes, structure.offsets, strict=True):
            node["at"] = offset
        extent = f'"bytes":{structure.size},"data":{structure.data}'
        files = f',"files":{json_compact(list(parts.files))}' if parts.files else ""
        text = f'{about[:-1]},{extent}{files},"parts":{json_compact(nodes)}'
        if len(text) + FRAME <= structure.block:
            return structure, text
        block = structure.block * 2
        if block > MAX_BLOCK:
            raise ValueError("it consists of too many parts to be stored")


def _about(record: Record) -> str:
    """Return the JSON of a record without its parts."""
    return json_compact(
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
    parts.limit, parts.keep = ARRAY_LIMIT, None
    nodes["arguments"] = encode_arguments(record.args, "arguments", parts)
    nodes["keywords"] = encode_arguments(record.kwargs, "keywords", parts)
    parts.limit = None
    nodes["function"] = parts.add_text("function", record.source.encode(errors="replace"), "str", 256)
    if record.pickled is not None and len(record.pickled) <= _PICKLED_LIMIT:
        nodes["function_pickle"] = parts.add_bytes("function_pickle", record.pickled, "bytes")
    nodes["facts"] = parts.add_text("facts", json_lenient(dict(record.facts)).encode(), "json", 256, b" ")
    parts.add_text("record", about.encode(), "json", 64, b" ")  # the fields of the head again, for readers of HDF5
    return nodes


def _make_head(text: str, block: int, frame: str, checksum: str) -> bytes:
    """Return the user block. `text` is the JSON without its end: the checksums of headers and data, and the brace."""
    data = f'{text},"frame":"{frame}","sum":"{checksum}"}}'.encode()
    line = MARK + b"%d %d %s\n" % (FORMAT, block, _checksum(data).encode())
    return (line + data + b"\n").ljust(block, b"\0")


def _checksum(data: bytes) -> str:
    made = new_hash(len(data))
    made.update(data)
    return str(made.hexdigest())


def _write_chunks(fd: int, tiles: Iterable[Any], at: int, length: int) -> str:
    """Write chunks one after the other, and return the checksum of all, which have this length together."""
    checksum = new_hash(length)
    for tile in tiles:
        view = memoryview(tile)
        for start in range(0, len(view), _CHUNK):
            # A copy, so that the same bytes are hashed and written even if a thread changes the array now.
            chunk = bytes(view[start : start + _CHUNK])
            checksum.update(chunk)
            write_all(fd, chunk, at)
            at += len(chunk)
    return str(checksum.hexdigest())
