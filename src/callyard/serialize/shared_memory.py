"""Shared memory: segments, which are nameless files in memory, lent to other processes by descriptor and used again.

The owner of a segment writes a buffer into the segment and lends the descriptor. The borrower maps the file privately,
so that writes in place stay unseen by other processes. After the end of the last object in the mapping, the borrower
gives the segment back, and the owner may fill it again. The pages are resident by then, and page faults of fresh
memory cost more than the copy. Files without names cannot be left behind.
"""

from __future__ import annotations

import mmap
import os
import sys
from collections.abc import Callable
from contextlib import suppress

from ..system.descriptors import DescriptorShare
from ..utils.lite_stdlib import Any
from ..utils.locks import new_lock, under

_SMALLEST = 1 << 18
_KEPT_FREE = 1 << 29  # bytes of free segments that a process keeps for later use

# Beyond these shares of the descriptors a process keeps own buffers in private memory, and copies borrowed ones.
OWNED, BORROWED = DescriptorShare(8), DescriptorShare(8)

# A mapping duplicates the descriptor; from Python 3.13 on this can be switched off.
_UNTRACKED: dict[str, Any] = {"trackfd": False} if sys.version_info >= (3, 13) else {}
_PER_MAPPING = 0 if _UNTRACKED else 1
_PER_SEGMENT = 1 + _PER_MAPPING


def anonymous_file(size: int) -> int:
    """Return a descriptor of `size` bytes of memory without a name in any file system."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("callyard", os.MFD_CLOEXEC)
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


def shared_mapping(fd: int, size: int) -> mmap.mmap:
    """Map a file, with writes visible in all mappings of the file."""
    return mmap.mmap(fd, size, **_UNTRACKED)


class PrivateBytes:
    """Bytes in the memory of this process."""

    __slots__ = ("bytes", "size")

    def __init__(self, content: bytes | bytearray | memoryview) -> None:
        self.bytes, self.size = content, len(content)

    def view(self) -> memoryview:
        return memoryview(bytearray(self.bytes))

    def read(self) -> memoryview:
        return memoryview(self.bytes)


_forks = 0  # of this process so far; each child inherits all mappings


def _count_fork() -> None:
    global _forks
    _forks += 1


os.register_at_fork(after_in_parent=_count_fork)


class _Mapping(mmap.mmap):
    """A private mapping. During its life the segment is not filled again."""

    lender: object = None
    counted = 0  # descriptors taken from the share; 0 until the file is mapped, because a failed mmap is finalized too

    def __del__(self) -> None:
        BORROWED.give_back(self.counted)


def _own_view(fd: int, size: int, lender: object) -> memoryview:
    """Return writable bytes for the caller alone: a private mapping, or a copy without a descriptor left."""
    if BORROWED.take(_PER_MAPPING):
        try:
            mapping = _Mapping(fd, size, access=mmap.ACCESS_COPY, **_UNTRACKED)
        except OSError:
            BORROWED.give_back(_PER_MAPPING)
        else:
            mapping.lender, mapping.counted = lender, _PER_MAPPING
            return memoryview(mapping)
    return memoryview(_copy(fd, size))


def _copy(fd: int, size: int) -> bytearray:
    """Return a copy of the file's bytes."""
    content = bytearray(size)
    offset = 0
    while offset < size:
        count = os.preadv(fd, [memoryview(content)[offset:]], offset)
        if not count:
            raise OSError(f"shared memory ended after {offset} of {size} bytes")
        offset += count
    return content


class _Segment:
    """One file in memory, mapped by its owner."""

    __slots__ = ("capacity", "fd", "mapping")

    def __init__(self, capacity: int) -> None:
        """Make a segment with descriptors already taken from the share. `__del__` returns them, even on failure."""
        self.capacity, self.fd = capacity, -1
        self.fd = anonymous_file(capacity)
        self.mapping = shared_mapping(self.fd, capacity)

    def __del__(self) -> None:
        OWNED.give_back(_PER_SEGMENT)
        if self.fd >= 0:
            os.close(self.fd)  # the mapping closes its own descriptor


class OwnedSegment:
    """A filled segment of this process, free again after the last reference to this object is gone."""

    __slots__ = ("__weakref__", "forks", "pool", "segment", "size")

    def __init__(self, pool: SegmentPool, segment: _Segment, size: int) -> None:
        self.pool, self.segment, self.size = pool, segment, size
        self.forks = _forks

    @property
    def fd(self) -> int:
        return self.segment.fd

    def view(self) -> memoryview:
        return _own_view(self.segment.fd, self.size, self)

    def read(self) -> memoryview:
        return memoryview(self.segment.mapping)[: self.size]

    def spoil(self) -> None:
        """Never fill the segment again: a process that gives no notice may keep a mapping."""
        self.forks = -1

    def __del__(self) -> None:
        self.pool.give_back(self.segment, self.forks == _forks)


class BorrowedSegment:
    """A segment of another process. After the last reference is gone, `give_back` tells the owner.

    A finalizer calls `give_back(clean)`, in any thread and under any lock, so `give_back` must only make a note.
    `clean` is False if this process has forked meanwhile, because the child may still have the segment mapped.
    """

    __slots__ = ("fd", "forks", "give_back", "size")

    def __init__(self, fd: int, size: int, give_back: Callable[[bool], object]) -> None:
        """Take over a descriptor, which the caller has counted in the share."""
        self.fd, self.size, self.give_back = fd, size, give_back
        self.forks = _forks

    def view(self) -> memoryview:
        return _own_view(self.fd, self.size, self)

    def read(self) -> memoryview:
        return self.view().toreadonly()

    def __del__(self) -> None:
        BORROWED.give_back()
        os.close(self.fd)
        self.give_back(self.forks == _forks)


def borrow(fd: int, size: int, give_back: Callable[[bool], object]) -> PrivateBytes | BorrowedSegment:
    """Return memory lent to this process, or a private copy beyond the share. The descriptor is taken over."""
    if BORROWED.take():
        return BorrowedSegment(fd, size, give_back)
    try:
        return PrivateBytes(_copy(fd, size))
    finally:
        os.close(fd)
        give_back(True)


Memory = PrivateBytes | OwnedSegment | BorrowedSegment  # the bytes of one buffer


class SegmentPool:
    """The segments of this process, in use and free."""

    def __init__(self) -> None:
        self._free: dict[int, list[_Segment]] = {}
        self._free_bytes = 0
        self._lock = new_lock()  # reentrant, because finalizers call `give_back`
        self._closed = False

    def fill(self, content: memoryview) -> OwnedSegment | None:
        """Return a segment with a copy of `content`; None if no memory or descriptor is left."""
        filled = self.reserve(content.nbytes)
        if filled is not None:
            # Without the lock, because a copy may take long, and no other thread knows this segment yet.
            filled.segment.mapping[: content.nbytes] = content  # slice assignment: one memcpy
        return filled

    def reserve(self, size: int) -> OwnedSegment | None:
        """Return a segment of this size to be filled by the caller; None if no memory or descriptor is left."""
        capacity = max(_SMALLEST, 1 << (size - 1).bit_length())
        segment = under(self._lock, self._take, capacity) or self._make(capacity)
        return None if segment is None else OwnedSegment(self, segment, size)

    def _take(self, capacity: int) -> _Segment | None:
        """Return a free segment of this capacity; None if there is none."""
        free = self._free.get(capacity)
        if not free:
            return None
        self._free_bytes -= capacity
        return free.pop()

    def _make(self, capacity: int) -> _Segment | None:
        """Make a new segment, and close free ones of other sizes if no room is left otherwise."""
        while True:
            if OWNED.take(_PER_SEGMENT):
                with suppress(OSError):
                    return _Segment(capacity)
            if not under(self._lock, self._drop_free):
                return None

    def _drop_free(self) -> bool:
        """Close all free segments; return True if there were any."""
        dropped, self._free, self._free_bytes = self._free, {}, 0
        return any(dropped.values())

    def give_back(self, segment: _Segment, clean: bool) -> None:
        """Keep an unused segment if it may be filled again; otherwise the segment closes itself."""
        if clean:
            under(self._lock, self._keep, segment)

    def _keep(self, segment: _Segment) -> None:
        if not self._closed and self._free_bytes + segment.capacity <= _KEPT_FREE:
            self._free_bytes += segment.capacity
            self._free.setdefault(segment.capacity, []).append(segment)

    def close(self) -> None:
        """Close the free segments now, and each one in use on its return."""
        self._closed = True
        under(self._lock, self._drop_free)
