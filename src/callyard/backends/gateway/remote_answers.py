"""The answers of a gateway: the ends of calls, results packed for the driver, and the files that results name."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from ...cache.lookup import CachedResult
from ...errors import RemoteTraceback
from ...futures import Future
from ...hashing.files import File, TravellingFile, noting_files
from ...serialize.dump import Dump
from ...serialize.packed import Packed
from ...serialize.packer import keep_large
from ...worker.exceptions import dump_error, traceback_text
from ..cached.cached_future import CachedFuture
from . import protocol
from .contents import FileSource
from .message_streams import LARGE, BytesSource, LargeMessage, MessageWriter, Source, pieces
from .protocol import SentFailure, SentFile, SentResult, WantedContent

__all__ = ["Answers", "dumped"]

_BESIDE = 1 << 16  # bytes of a buffer that is sent beside the pickle
_FILES = re.compile(re.escape(File.__module__.encode()))  # in a pickle that may name files


class Answers:
    """The ends of calls, as the driver is told of them."""

    def __init__(self, writer: MessageWriter) -> None:
        self._writer = writer
        self._files: dict[int, list[TravellingFile]] = {}  # of results, by call, until the driver forgets the call

    def tell(self, number: int, future: Future[Any]) -> None:
        """Tell of an end. A result is opened, where need be, in the sending thread; a large one when its turn comes."""
        if future.usage is not None:
            self._writer.put(protocol.USAGE, number, future.usage.known())
        if future.cancelled():
            self._writer.put(protocol.CANCELLED, number)
        elif future.failed() or not _may_be_large(future):
            self._writer.put_later(lambda: pieces(*self._answer(number, future)))
        else:
            self._writer.put_large(partial(self._large_answer, number, future))

    def forget(self, number: int) -> None:
        """Forget a call of which the driver has the result."""
        self._files.pop(number, None)

    def source(self, wanted: WantedContent) -> Source | None:
        """Return the content of a file that a result names; None if no result does."""
        for files in list(self._files.values()):
            for each in files:
                if each.content == wanted.name.name:
                    return FileSource(each.content, each.path, wanted.start)
        return None

    def _large_answer(self, number: int, future: Future[Any]) -> LargeMessage:
        kind, number, content, memories = self._answer(number, future)
        return LargeMessage(kind, number, content, list(map(BytesSource, memories)))

    def _answer(self, number: int, future: Future[Any]) -> tuple[int, int, Any, Sequence[Any]]:
        """Return kind, number, content and buffers of the message about an end."""
        try:
            future.take()
            if not future.failed():
                return self._result(number, future)
            future.asked()  # by the other side
            packed = future.packed_failure()
            error = packed.load() if packed is not None else future.exception()
            assert error is not None, "the call has failed"
        except Exception as failure:  # what cannot be opened, or packed again
            error = failure
        return protocol.ERROR, number, SentFailure(dumped(error), _run_of(future), future.attempts), ()

    def _result(self, number: int, future: Future[Any]) -> tuple[int, int, Any, Sequence[Any]]:
        packed, files = future._packed, list[TravellingFile]()
        if isinstance(packed, Packed) and not _names_files(packed):
            data, spans = packed.data, packed.spans
            memories = [memory.read() for memory in packed.memories]
        else:
            if isinstance(packed, CachedResult):
                value = packed.load_mapped()
            else:
                value = future.result() if packed is None else packed.load()
            with noting_files() as files:
                data, memories = _pickled(value)
            spans = tuple((place, 0, memory.nbytes) for place, memory in enumerate(memories))
        if files:
            self._files[number] = files
        named = [SentFile(each.content, each.own) for each in dict.fromkeys(files)]
        token = getattr(future, "_token", None)
        result = SentResult(data, spans, token, future.job_id, future.attempts, named, _run_of(future))
        return protocol.RESULT, number, result, memories


def _run_of(future: Future[Any]) -> Mapping[str, Any] | None:
    """Return what the cache here knows of the run of a call."""
    return future.run_facts() if isinstance(future, CachedFuture) else None


def _may_be_large(future: Future[Any]) -> bool:
    """Return True if a result is large, or of unknown size."""
    packed = future._packed
    if isinstance(packed, Packed):
        return sum(memory.size for memory in packed.memories) >= LARGE
    return not isinstance(packed, CachedResult) or packed.size >= LARGE


def _names_files(packed: Packed) -> bool:
    """Return True if a pickle may have a `File` in it."""
    if packed.data is not None:
        return _FILES.search(packed.data) is not None
    which, start, length = packed.spans[0]
    return _FILES.search(packed.memories[which].read()[start : start + length]) is not None


def _pickled(value: Any) -> tuple[bytes | None, list[memoryview]]:
    """Pickle a result, and return the large buffers beside; None for a large pickle, which is the first of these."""
    buffers: list[pickle.PickleBuffer] = []
    dump = Dump(value, buffer_callback=keep_large(buffers, _BESIDE), to_driver=True, again=buffers.clear)
    memories = [buffer.raw() for buffer in buffers]
    if len(dump.data) < _BESIDE:
        return dump.data, memories
    return None, [memoryview(dump.data), *memories]


def dumped(error: BaseException) -> bytes:
    """Pickle an exception with the text of its traceback."""
    cause = error.__cause__
    return dump_error(error, str(cause) if isinstance(cause, RemoteTraceback) else traceback_text(error))
