"""Large contents in shared memory, each once: a hundred calls with equal arrays need the memory of one."""

from __future__ import annotations

import sys
import weakref

from .shared_memory import Memory, OwnedSegment, PrivateBytes, SegmentPool

__all__ = ["StoredContents"]

_SAMPLES = 256  # bytes of a content by which an equal one is looked for
_AT_ONCE = 1 << 20  # bytes that are compared before the comparison may end


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
    return all(
        _same_part(a[place : place + _AT_ONCE], flat[place : place + _AT_ONCE])
        for place in range(0, a.nbytes, _AT_ONCE)
    )


def _same_part(a: memoryview, b: memoryview) -> bool:
    # As 8-byte words: `memoryview` compares numbers of one format in C, several times faster than single bytes.
    words = a.nbytes // 8 * 8
    if a[words:] != b[words:]:
        return False
    numpy = sys.modules.get("numpy")
    if not hasattr(numpy, "array_equal"):  # not loaded, or another thread is loading it now
        return a[:words].cast("Q") == b[:words].cast("Q")
    # Twice as fast, and where buffers are large, numpy is loaded nearly always.
    one, other = (numpy.frombuffer(each[:words], "u8") for each in (a, b))  # type: ignore[union-attr]
    return bool(numpy.array_equal(one, other))  # type: ignore[union-attr]
