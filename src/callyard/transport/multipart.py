"""Messages in small parts: a list of byte frames of any size is cut into parts, and joined again.

    first part: kind, number of frames, length of each; and, if the message is small, the frames themselves
    the others: each frame in pieces

Parts are small for two reasons. libzmq counts only whole parts as a sign of life, so during one long part the other
side would seem dead. And a limit for the size of parts keeps a stranger from making this process allocate memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from struct import Struct, error, unpack_from

__all__ = ["LARGEST_PART", "cut", "join", "kind_of"]

PIECE = 1 << 18
TOGETHER = 1 << 14  # bytes up to which all frames are copied into the first part: one part costs less than two
MOST_FRAMES = 20_000
LARGEST_PART = PIECE + 64  # with the overhead of encryption

_HEAD = Struct("<BI")
_LENGTH = 8

Buffer = bytes | memoryview


def cut(kind: int, frames: Sequence[Buffer]) -> list[Buffer]:
    """Return the parts of a message. The parts of large frames are views of the frames."""
    if len(frames) > MOST_FRAMES:
        raise ValueError(f"a message has at most {MOST_FRAMES} frames, not {len(frames)}")
    buffers = [frame if isinstance(frame, bytes) else _flat(frame) for frame in frames]
    lengths = [len(buffer) for buffer in buffers]
    head = _HEAD.pack(kind, len(buffers)) + Struct(f"<{len(lengths)}Q").pack(*lengths)
    if sum(lengths) <= TOGETHER:
        return [b"".join((head, *buffers))]
    parts: list[Buffer] = [head]
    for buffer in buffers:
        parts += _pieces(buffer)
    return parts


def _flat(frame: memoryview) -> Buffer:
    if not frame.nbytes:
        return b""  # an empty view cannot be cast
    return frame.cast("B") if frame.c_contiguous else frame.tobytes()


def _pieces(buffer: Buffer) -> Iterator[Buffer]:
    if len(buffer) <= PIECE:
        return iter((buffer,) if len(buffer) else ())
    view = memoryview(buffer)
    return (view[place : place + PIECE] for place in range(0, len(view), PIECE))


def kind_of(first: bytes) -> int:
    """Return the kind of a message from its first part, 0 for an empty part."""
    return first[0] if first else 0


def join(parts: Sequence[bytes]) -> list[bytes]:
    """Return the frames of a message.

    Raises:
        ValueError: the parts are not those of a message made by `cut`.
    """
    first = parts[0]
    try:
        _, count = _HEAD.unpack_from(first)
        lengths = unpack_from(f"<{count}Q", first, _HEAD.size)
    except error as wrong:
        raise ValueError(f"a message without a whole head: {wrong}") from None
    place = _HEAD.size + count * _LENGTH
    # A small message: the frames are in the first part.
    if len(first) > place or sum(lengths) == 0:
        return _slices(first, place, lengths)
    return _gather(parts, lengths)


def _slices(part: bytes, place: int, lengths: Sequence[int]) -> list[bytes]:
    if place + sum(lengths) != len(part):
        raise ValueError(f"a message whose frames have {sum(lengths)} bytes instead of {len(part) - place}")
    frames = []
    for length in lengths:
        frames.append(part[place : place + length])
        place += length
    return frames


def _gather(parts: Sequence[bytes], lengths: Sequence[int]) -> list[bytes]:
    frames, place = [], 1
    for length in lengths:
        count = -(-length // PIECE)
        # A frame in one part is passed on without a copy.
        frame = parts[place] if count == 1 and place < len(parts) else b"".join(parts[place : place + count])
        if len(frame) != length:
            raise ValueError(f"a message with a frame of {len(frame)} bytes instead of {length}")
        frames.append(frame)
        place += count
    if place != len(parts):
        raise ValueError(f"a message of {len(parts)} parts instead of {place}")
    return frames
