"""Memory that two processes share: nameless files in memory, lent by descriptor and used again.

Who makes a segment owns it. It writes a buffer into it and lends the descriptor; the borrower maps it
privately, so that a write in place stays its own affair; when the last object that uses the mapping is gone
the borrower says so, and the owner may fill the segment again. The pages stay warm: page faults of fresh
memory cost more than the copy. Nothing has a name, so nothing can be left behind.
"""

from __future__ import annotations

import mmap
import os
import sys
from collections.abc import Callable
from contextlib import suppress

from ..system.descriptors import DescriptorShare
from ..utils.lite_typing import Any
from ..utils.locks import new_lock, under

_SMALLEST = 1 << 18
_KEPT_FREE = 1 << 29  # bytes of unused segments that a process keeps warm

# Past these shares its own buffers wait in private memory, and those of others are copied.
OWNED, BORROWED = DescriptorShare(8), DescriptorShare(8)

# A mapping has a descriptor of its own, but for the newer versions that can do without.
_UNTRACKED: dict[str, Any] = {"trackfd": False} if sys.version_info >= (3, 13) else {}
_PER_MAPPING = 0 if _UNTRACKED else 1
_PER_SEGMENT = 1 + _PER_MAPPING


def anonymous_file(size: int) -> int:
    """A descriptor of `size` bytes of memory that no other process can find by name."""
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
    """The memory that all who map this file see."""
    return mmap.mmap(fd, size, **_UNTRACKED)


class PrivateBytes:
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
    counted = 0  # of the share; set when there is a mapping, since this is finalized where there is none, too

    def __del__(self) -> None:
        BORROWED.give_back(self.counted)


def _own_view(fd: int, size: int, lender: object) -> memoryview:
    """The bytes as the caller's own: a mapping, or a copy where no more mappings are to be had."""
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
    """The bytes of the file; this takes no descriptor."""
    content = bytearray(size)
    place = 0
    while place < size:
        count = os.preadv(fd, [memoryview(content)[place:]], place)
        if not count:
            raise OSError(f"shared memory ended after {place} of {size} bytes")
        place += count
    return content


class _Segment:
    """One file in memory, mapped by the process that owns it."""

    __slots__ = ("capacity", "fd", "mapping")

    def __init__(self, capacity: int) -> None:
        """Takes what was counted of the share, and gives it back at its end, or where there is no memory."""
        self.capacity, self.fd = capacity, -1
        self.fd = anonymous_file(capacity)
        self.mapping = shared_mapping(self.fd, capacity)

    def __del__(self) -> None:
        OWNED.give_back(_PER_SEGMENT)
        if self.fd >= 0:
            os.close(self.fd)  # the mapping closes itself


class OwnedSegment:
    """A filled segment of this process. When nobody refers to it any more, the segment is free again."""

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
        """It must not be filled again: somebody whom nobody hears of may still see it."""
        self.forks = -1

    def __del__(self) -> None:
        self.pool.give_back(self.segment, self.forks == _forks)


class BorrowedSegment:
    """A segment of another process. When nobody refers to it any more, `give_back` tells its owner.

    `give_back(clean)` may be called in any thread and under any lock: it must only make a note. Not `clean`: this
    process has forked meanwhile, and the child may see the segment still.
    """

    __slots__ = ("fd", "forks", "give_back", "size")

    def __init__(self, fd: int, size: int, give_back: Callable[[bool], object]) -> None:
        """Its descriptor has been counted."""
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
    """Memory lent to this process, which takes the descriptor; a private copy when it has borrowed a lot already."""
    if BORROWED.take():
        return BorrowedSegment(fd, size, give_back)
    try:
        return PrivateBytes(_copy(fd, size))
    finally:
        os.close(fd)
        give_back(True)


Memory = (
    PrivateBytes | OwnedSegment | BorrowedSegment
)  # the bytes of one buffer, somewhere; `view` makes them the caller's own


class SegmentPool:
    """The segments that this process owns, in use and free."""

    def __init__(self) -> None:
        self._free: dict[int, list[_Segment]] = {}
        self._free_bytes = 0
        self._lock = new_lock()  # `give_back` is called by finalizers
        self._closed = False

    def fill(self, content: memoryview) -> OwnedSegment | None:
        """A segment with a copy of `content`; None when no more are to be had, so that it must wait elsewhere."""
        capacity = max(_SMALLEST, 1 << (content.nbytes - 1).bit_length())
        segment = under(self._lock, self._take, capacity) or self._make(capacity)
        if segment is None:
            return None
        segment.mapping[: content.nbytes] = content  # slice assignment: one memcpy
        return OwnedSegment(self, segment, content.nbytes)

    def _take(self, capacity: int) -> _Segment | None:
        """A free one."""
        free = self._free.get(capacity)
        if not free:
            return None
        self._free_bytes -= capacity
        return free.pop()

    def _make(self, capacity: int) -> _Segment | None:
        """A new one, for which free ones of other sizes make room if they must."""
        while True:
            if OWNED.take(_PER_SEGMENT):
                with suppress(OSError):
                    return _Segment(capacity)
            if not under(self._lock, self._drop_free):
                return None

    def _drop_free(self) -> bool:
        """Close all that are free; whether there were any."""
        dropped, self._free, self._free_bytes = self._free, {}, 0
        return any(dropped.values())

    def give_back(self, segment: _Segment, clean: bool) -> None:
        """The segment is not in use any more. It is closed when nobody refers to it: kept, if it may be used again."""
        if clean:
            under(self._lock, self._keep, segment)

    def _keep(self, segment: _Segment) -> None:
        if not self._closed and self._free_bytes + segment.capacity <= _KEPT_FREE:
            self._free_bytes += segment.capacity
            self._free.setdefault(segment.capacity, []).append(segment)

    def close(self) -> None:
        """Let go of what is free, and later of what is still in use."""
        self._closed = True
        under(self._lock, self._drop_free)
