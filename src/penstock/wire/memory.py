"""Memory that two processes share: nameless files in memory, lent by descriptor and used again.

Who makes a segment owns it. It writes a buffer into it and lends the descriptor; the borrower maps it
privately, so that a write in place stays its own affair; when the last object that uses the mapping is gone
the borrower says so, and the owner may fill the segment again. The pages stay warm: page faults of fresh
memory cost more than the copy. Nothing has a name, so nothing can be left behind.
"""

from __future__ import annotations

import mmap
import os
import resource
import threading
from collections.abc import Callable

_SMALLEST = 1 << 18
_KEPT_FREE = 1 << 29  # bytes of unused segments that a process keeps warm

# Each segment in use holds a descriptor or two, and the process may have only so many: past this number, its own
# buffers wait in private memory, and those of others are copied.
MOST = max(16, min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 1 << 16) // 8)


def anonymous_file(size: int) -> int:
    """A descriptor of `size` bytes of memory that no other process can find by name."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("penstock", os.MFD_CLOEXEC)
    else:
        import tempfile

        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    try:
        os.ftruncate(fd, size)
    except OSError:
        os.close(fd)
        raise
    return fd


class Private:
    """Bytes in the memory of this process."""

    __slots__ = ("bytes", "size")

    def __init__(self, content: bytes | bytearray) -> None:
        self.bytes, self.size = content, len(content)

    def view(self) -> memoryview:
        return memoryview(bytearray(self.bytes))

    def read(self) -> memoryview:
        return memoryview(self.bytes)


_forks = 0  # of this process so far: each child inherits the mappings that there are


def _count_fork() -> None:
    global _forks
    _forks += 1


os.register_at_fork(after_in_parent=_count_fork)


class _Mapping(mmap.mmap):
    """A private mapping that keeps what it maps from being used again while it lives."""

    lender: object = None


def _private_mapping(fd: int, size: int, lender: object) -> memoryview:
    mapping = _Mapping(fd, size, access=mmap.ACCESS_COPY)
    mapping.lender = lender
    return memoryview(mapping)


class _Segment:
    """One file in memory, mapped by the process that owns it."""

    __slots__ = ("capacity", "fd", "mapping")

    def __init__(self, capacity: int) -> None:
        self.capacity, self.fd = capacity, -1
        self.fd = anonymous_file(capacity)
        self.mapping = mmap.mmap(self.fd, capacity)

    def __del__(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)  # the mapping closes itself


class Owned:
    """A filled segment of this process. When nobody refers to it any more, the segment is free again."""

    __slots__ = ("__weakref__", "forks", "pool", "segment", "size")

    def __init__(self, pool: Segments, segment: _Segment, size: int) -> None:
        self.pool, self.segment, self.size = pool, segment, size
        self.forks = _forks

    @property
    def fd(self) -> int:
        return self.segment.fd

    def view(self) -> memoryview:
        return _private_mapping(self.segment.fd, self.size, self)

    def read(self) -> memoryview:
        return memoryview(self.segment.mapping)[: self.size]

    def spoil(self) -> None:
        """It must not be filled again: somebody whom nobody hears of may still see it."""
        self.forks = -1

    def __del__(self) -> None:
        self.pool.give_back(self.segment, self.forks == _forks)


class Borrowed:
    """A segment of another process. When nobody refers to it any more, `give_back` tells its owner.

    `give_back(clean)` may be called in any thread and under any lock: it must only make a note. Not `clean`: this
    process has forked meanwhile, and the child may see the segment still.
    """

    __slots__ = ("fd", "forks", "give_back", "size")
    count = 0  # how many there are; only a guide, so no lock

    def __init__(self, fd: int, size: int, give_back: Callable[[bool], object]) -> None:
        self.fd, self.size, self.give_back = fd, size, give_back
        self.forks = _forks
        Borrowed.count += 1

    def view(self) -> memoryview:
        return _private_mapping(self.fd, self.size, self)

    def read(self) -> memoryview:
        return self.view().toreadonly()

    def __del__(self) -> None:
        Borrowed.count -= 1
        os.close(self.fd)
        self.give_back(self.forks == _forks)


def borrow(fd: int, size: int, give_back: Callable[[bool], object]) -> Private | Borrowed:
    """Memory lent to this process; a private copy when it has borrowed a lot already."""
    borrowed = Borrowed(fd, size, give_back)
    return borrowed if Borrowed.count <= MOST else Private(bytearray(borrowed.read()))


Memory = Private | Owned | Borrowed  # the bytes of one buffer, somewhere; `view` makes them the caller's own


class Segments:
    """The segments that this process owns, in use and free."""

    def __init__(self) -> None:
        self._free: dict[int, list[_Segment]] = {}
        self._free_bytes = 0
        self._used = 0
        self._lock = threading.RLock()  # reentrant: `give_back` is called by finalizers
        self._closed = False

    def fill(self, content: memoryview) -> Owned | None:
        """A segment with a copy of `content`; None when so many are in use that it must wait elsewhere."""
        segment = self._take(content.nbytes)
        if segment is None:
            return None
        segment.mapping[: content.nbytes] = content  # slice assignment: one memcpy
        return Owned(self, segment, content.nbytes)

    def _take(self, size: int) -> _Segment | None:
        capacity = max(_SMALLEST, 1 << (size - 1).bit_length())
        with self._lock:
            if self._used >= MOST:
                return None
            self._used += 1
            free = self._free.get(capacity)
            if free:
                self._free_bytes -= capacity
                return free.pop()
        try:
            return _Segment(capacity)
        except OSError:
            with self._lock:
                self._used -= 1
            return None

    def give_back(self, segment: _Segment, clean: bool) -> None:
        """The segment is not in use any more. It is closed when nobody refers to it: kept, if it may be used again."""
        with self._lock:
            self._used -= 1
            if clean and not self._closed and self._free_bytes + segment.capacity <= _KEPT_FREE:
                self._free_bytes += segment.capacity
                self._free.setdefault(segment.capacity, []).append(segment)

    def close(self) -> None:
        """Let go of what is free, and later of what is still in use."""
        with self._lock:
            self._closed = True
            self._free, self._free_bytes = {}, 0
