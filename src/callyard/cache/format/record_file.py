"""The reader of record files: a head with the places of all parts, and an HDF5 file behind it.

The head is a text in the user block of the HDF5 file. With it Callyard reads a result by one `read`, without the HDF5
library; other programs read the HDF5 part, in which the same bytes are datasets. `docs/file-format.md` describes both.
"""

from __future__ import annotations

import os

from ...errors import CacheError, VersionMismatch
from ...utils.lite_stdlib import Any, Iterator, json_loads
from . import hdf5
from .checked_bytes import BytesInMemory, BytesOnDisk, MappedBytes, checksum, checksum_of, identity, read_at
from .decode import Unloadable, decode
from .encode import Node
from .header import DamagedFile, Header, damaged, load_head
from .record_writer import FAILED, WHOLE

__all__ = ["FAILED", "DamagedFile", "Header", "Stored", "read", "read_head", "read_noted"]

_PEEK = 4096  # bytes of the first read, because most heads are shorter
_EIGHT_BYTES = ("float", "int")  # the most frequent outputs


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
    head, block, fields, data = load_head(fd, size, path, size if whole or size <= WHOLE else _PEEK)
    start, end, meant = fields["data"], fields["bytes"], fields["sum"]
    content: BytesInMemory | BytesOnDisk
    if len(data) >= block + end:
        content = BytesInMemory(memoryview(data)[block + start : block + end], start)
        found = checksum(content.data, head.format)
    else:
        content = BytesOnDisk(path, head.format, identity(status), block, start, end, meant)
        found = checksum_of(fd, block + start, block + end, head.format)
    if found != meant or (size == block + end and not _is_sound(head, data, fd, block, start, fields["frame"])):
        raise damaged(path, "its content does not match its checksum")
    return Stored(head, path, fields["parts"], content)


def read_noted(fd: int, path: str = "the file") -> tuple[Header, dict[str, Any]]:
    """Return the head, checked, and the facts, whose checksum would take reading the whole file: they are for people.

    Without facts that make sense, they are empty.
    """
    head, block, fields, data = load_head(fd, os.fstat(fd).st_size, path, _PEEK)
    try:
        node = fields["parts"]["facts"]
        start, length = block + node["at"], node["bytes"]
        if node["is"] != "json" or not 0 <= length <= WHOLE:
            return head, {}
        text = data[start : start + length] if start + length <= len(data) else read_at(fd, length, start)
        facts = json_loads(text)
    except (LookupError, TypeError, ValueError):
        return head, {}
    return head, facts if isinstance(facts, dict) else {}


def _is_sound(head: Header, data: bytes, fd: int, block: int, length: int, meant: str) -> bool:
    """Return True if the HDF5 headers, `length` bytes, are as they were written, or correctly changed by HDF5 since."""
    frame = data[block : block + length] if len(data) >= block + length else read_at(fd, length, block)
    return not length or checksum(frame, head.format) == meant or hdf5.is_sound(frame)


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

    def mapped(self) -> Stored:
        """Return the same record, for a process that passes its arrays on: see `MappedBytes`."""
        content = self._content
        if isinstance(content, BytesOnDisk):
            content = MappedBytes.of(content)
        return Stored(self.head, self._path, self._nodes, content)

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
            if self.head.files and name in ("output", "error"):
                from .unpickle import files_in

                # Beside the shard in which the entry is.
                with files_in(os.path.dirname(os.path.dirname(self._path))):
                    return decode(self._nodes[name], self._content)
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
