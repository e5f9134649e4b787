"""The bytes of a record file, as they are read: at once or in chunks, with a checksum."""

from __future__ import annotations

import mmap
import os

from ...errors import CacheError
from ...hashing import digest
from ...utils.lite_stdlib import Any

_CHUNK = 1 << 20


class BytesInMemory:
    """The content of a small file, or the part of it that begins at `start`; the file is not read again."""

    __slots__ = ("data", "size", "start")

    def __init__(self, data: memoryview, start: int = 0) -> None:
        self.data, self.start, self.size = data, start, start + len(data)

    def read(self, at: int, length: int) -> memoryview:
        _check_span(at, length, self.start, self.size)
        return self.data[at - self.start : at - self.start + length] if length else memoryview(b"")

    def part(self, start: int, end: int) -> BytesInMemory:
        """Return a copy of a part, which does not keep the rest of the file in memory."""
        return BytesInMemory(memoryview(bytes(self.read(start, end - start))), start)

    def read_into(self, at: int, target: memoryview) -> None:
        target[:] = self.read(at, len(target))

    def map(self, at: int, length: int) -> memoryview | None:
        """Return None: there is no file to map."""
        return None


class BytesOnDisk:
    """The content of a large, checked file. The file is opened for each part, and must still be the same.

    Offsets count from the end of the user block of `block` bytes; the content goes from `start` up to `size`. `number`
    is the format of the file.
    """

    __slots__ = ("_block", "_checksum", "_identity", "_number", "_path", "_start", "size")

    def __init__(
        self, path: str, number: int, identity: tuple[int, ...], block: int, start: int, size: int, checksum: str
    ) -> None:
        self._path, self._number, self._identity, self._checksum = path, number, identity, checksum
        self._block, self._start, self.size = block, start, size

    def read(self, at: int, length: int) -> memoryview:
        _check_span(at, length, self._start, self.size)
        target = memoryview(bytearray(length))
        self.read_into(at, target)
        return target

    def read_into(self, at: int, target: memoryview) -> None:
        _check_span(at, len(target), self._start, self.size)
        with open(self._path, "rb", buffering=0) as file:
            self._check(file.fileno())
            file.seek(self._block + at)
            while target:
                count = file.readinto(target)
                if not count:
                    raise CacheError(f"{self._path} became shorter while it was read: ask for the result again")
                target = target[count:]

    def map(self, at: int, length: int) -> memoryview | None:
        """Return None: what a user keeps is read, as the end of a process whose mapped file is shortened is a crash."""
        return None

    def _check(self, fd: int) -> None:
        """Raise CacheError if the content is not the checked one any more; additions behind it are allowed."""
        found = identity(os.fstat(fd))
        if found == self._identity:
            return
        first, end = self._block + self._start, self._block + self.size
        if found[:2] != self._identity[:2] or checksum_of(fd, first, end, self._number) != self._checksum:
            raise CacheError(f"{self._path} was replaced after it had been checked: ask for the result again")
        self._identity = found


class MappedBytes(BytesOnDisk):
    """The content of a large file for a process that passes it on: large arrays stay in the file until then."""

    __slots__ = ("_mapping",)
    _mapping: memoryview | None

    @classmethod
    def of(cls, file: BytesOnDisk) -> MappedBytes:
        """Return the content of this file."""
        made = cls(file._path, file._number, file._identity, file._block, file._start, file.size, file._checksum)
        made._mapping = None
        return made

    def map(self, at: int, length: int) -> memoryview | None:
        """Return a part of a private mapping: writes to it do not reach the file."""
        _check_span(at, length, self._start, self.size)
        if length < _CHUNK:
            return None
        if self._mapping is None:  # one for all arrays, as each keeps a descriptor
            try:
                with open(self._path, "rb", buffering=0) as file:
                    self._check(file.fileno())
                    mapping = mmap.mmap(file.fileno(), self._block + self.size, access=mmap.ACCESS_COPY)
            except OSError:  # no descriptor or address space is left
                return None
            self._mapping = memoryview(mapping)
        return self._mapping[self._block + at : self._block + at + length]


def _check_span(at: int, length: int, start: int, size: int) -> None:
    if length and not start <= at <= at + length <= size:
        raise ValueError("outside of the content")


def identity(status: os.stat_result) -> tuple[int, ...]:
    """Return a tuple that changes when the file is replaced or written to."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def read_at(fd: int, length: int, at: int) -> bytes:
    """Return `length` bytes, fewer at the end of the file."""
    data = os.pread(fd, length, at)
    while len(data) < length:  # the read was interrupted
        more = os.pread(fd, length - len(data), at + len(data))
        if not more:
            break
        data += more
    return data


_BLAKE2_FORMAT = 3  # the first format with BLAKE2 for short parts


def _new_hash(length: int, number: int) -> Any:
    if number >= _BLAKE2_FORMAT:
        return digest.new_hash(length)
    from blake3 import blake3  # here, because it takes long to load, and new files that are small need none of it

    return blake3()


def checksum(data: Any, number: int) -> str:
    """Return the checksum of a part of a file of the format with this number."""
    made = _new_hash(len(data), number)
    made.update(data)
    return str(made.hexdigest())


def checksum_of(fd: int, at: int, end: int, number: int) -> str:
    """Return the checksum of the bytes from `at` to `end`, or to the end of the file."""
    made = _new_hash(end - at, number)
    chunk = memoryview(bytearray(_CHUNK))
    with open(fd, "rb", buffering=0, closefd=False) as file:
        file.seek(at)
        while count := file.readinto(chunk[: max(end - at, 0)]):
            made.update(chunk[:count])
            at += count
    return str(made.hexdigest())
