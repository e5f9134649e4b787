"""Large contents in shared memory, each once: a hundred calls with equal arrays need the memory of one."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from functools import cache
from typing import Any

from .shared_memory import Memory, OwnedSegment, PrivateBytes, SegmentPool

__all__ = ["StoredContents"]

_SAMPLES = 256  # bytes of a content by which an equal one is looked for


class StoredContents:
    """The contents in segments of this process that are in use."""

    def __init__(self, segments: SegmentPool) -> None:
        self._segments = segments
        self._known: dict[bytes, weakref.ref[OwnedSegment]] = {}  # by size and samples

    def store(self, content: memoryview) -> Memory:
        """Return memory with this content in its present state, perhaps in use already; nobody may write to it."""
        sample = _sample(content)
        known = self._known.get(sample)
        stored = None if known is None else known()
        if stored is not None and _same(stored.read(), content):
            return stored
        filled = self._segments.fill(content)
        if filled is None:
            return PrivateBytes(bytearray(content))
        self._note(sample, filled)
        return filled

    def _note(self, sample: bytes, filled: OwnedSegment) -> None:
        known = self._known

        # Called in any thread when the segment is gone; by then another one may have this sample.
        def forget(reference: weakref.ref[OwnedSegment]) -> None:
            if known.get(sample) is reference:
                known.pop(sample, None)

        known[sample] = weakref.ref(filled, forget)


def _sample(content: memoryview) -> bytes:
    """Return the size and some bytes: equal contents have the same, others rarely."""
    size = content.nbytes
    step = size // _SAMPLES | 1  # odd, so that not all of them are the same byte of their numbers
    return size.to_bytes(8, "little") + bytes(content.cast("B")[::step])


def _same(a: memoryview, b: memoryview) -> bool:
    """Return True if two contiguous buffers of one size have the same bytes; so NaN equals itself."""
    flat = b.cast("B")
    numpy = sys.modules.get("numpy")
    memcmp = _memcmp() if hasattr(numpy, "frombuffer") else None  # where buffers are large, it is loaded nearly always
    if memcmp is not None:
        return memcmp(_address(numpy, a), _address(numpy, flat), a.nbytes) == 0
    # As 8-byte words: `memoryview` compares numbers of one format in C, several times faster than single bytes.
    words = a.nbytes // 8 * 8
    return a[words:] == flat[words:] and a[:words].cast("Q") == flat[:words].cast("Q")


def _address(numpy: Any, content: memoryview) -> int:
    """Return the address of a buffer, which may be read-only; `content` keeps it valid."""
    return int(numpy.frombuffer(content, "u1").__array_interface__["data"][0])


@cache
def _memcmp() -> Callable[[int, int, int], int] | None:
    """Return the function of the C library: other threads run on meanwhile, and it ends at the first difference.

    None if Python cannot call it.
    """
    try:
        import ctypes  # here, because few processes compare large contents

        memcmp = ctypes.CDLL(None).memcmp
    except (ImportError, OSError, AttributeError):
        return None
    memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
    return memcmp
