"""Memory in nameless files on the disk, for what is large: mapped when needed, and gone with its last user."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable

from ...serialize.shared_memory import Memory, PrivateBytes, borrow
from .message_streams import MOST

__all__ = ["SPOOLED", "DiskSink", "on_disk"]

SPOOLED = 16 << 20  # bytes from which something is kept on the disk


def on_disk(view: memoryview) -> Memory:
    """Return a copy of these bytes: a large one on the disk, if that has room."""
    descriptor = _file_for(view.nbytes) if view.nbytes >= SPOOLED else None
    if descriptor is None:
        return PrivateBytes(bytes(view))
    flat = view.cast("B")
    try:
        for start in range(0, len(flat), MOST):
            _write(descriptor, flat[start : start + MOST], start)
    except OSError:
        os.close(descriptor)
        return PrivateBytes(bytes(view))
    return borrow(descriptor, view.nbytes, _nobody_else)


class DiskSink:
    """A part of a large message, received on the disk."""

    def __init__(self, size: int, descriptor: int, came: Callable[[int], object]) -> None:
        self._size, self._descriptor, self._came = size, descriptor, came
        self._place, self._memory = 0, memoryview(bytearray(MOST))
        self._instead: bytearray | None = None  # the whole, once the disk has refused a piece

    def room(self, size: int) -> memoryview:
        return self._memory[:size]

    def took(self, size: int) -> None:
        piece = self._memory[:size]
        if self._instead is None:
            try:
                _write(self._descriptor, piece, self._place)
            except OSError:
                self._instead = bytearray(self._size)
                os.preadv(self._descriptor, [memoryview(self._instead)[: self._place]], 0)
        if self._instead is not None:
            self._instead[self._place : self._place + size] = piece
        self._place += size
        self._came(size)

    def result(self) -> Memory:
        descriptor, self._descriptor = self._descriptor, -1
        if self._instead is None:
            return borrow(descriptor, self._size, _nobody_else)
        os.close(descriptor)
        return PrivateBytes(self._instead)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    @classmethod
    def of(cls, size: int, came: Callable[[int], object]) -> DiskSink | None:
        """Return a sink for something large; None for what is small, or without room on the disk."""
        descriptor = _file_for(size) if size >= SPOOLED else None
        return None if descriptor is None else cls(size, descriptor, came)


def _file_for(size: int) -> int | None:
    """Return the descriptor of a nameless file with room for so many bytes; None if there is none."""
    try:
        with tempfile.TemporaryFile(buffering=0) as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:  # macOS
                os.ftruncate(file.fileno(), size)
            return os.dup(file.fileno())
    except OSError:
        return None


def _write(descriptor: int, piece: memoryview, place: int) -> None:
    while len(piece):
        written = os.pwrite(descriptor, piece, place)
        piece, place = piece[written:], place + written


def _nobody_else(_: bool) -> None:
    """Tell nobody of the end: no other process has the file."""
