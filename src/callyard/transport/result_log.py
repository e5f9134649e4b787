"""The result log: a page that a worker and its driver share, so that the worker's death loses no finished result.

The worker writes the number of each call here before it begins it, and finished results before it sends them.
Both outlive a SIGKILL. So the driver knows which call died with the worker, which had not begun, and which
were finished but still on their way.

Calls that were sent ahead may be withdrawn: while the worker is stopped (SIGSTOP), the range from `begun` to the
last one sent is written here; the worker looks at the range after it wrote `begun`, and skips what lies in it. Should
somebody else let it go on in the middle of that, it is stopped again and the range corrected, which a worker that skips
a call looks for once more.
"""

from __future__ import annotations

import os
from struct import Struct

from ..serialize.shared_memory import anonymous_file, shared_mapping
from ..system.run_clock import StoppedTime

_COUNT = Struct("<I")
_RANGE = Struct("<II")
_BEGUN, _WITHDRAWN, _LENGTH, _STOPPED, _OUTBOX = 0, 64, 128, 192, 256  # one cache line each
SIZE = 1 << 17
ROOM = SIZE - _OUTBOX


class ResultLog:
    """The shared page: `begun`, the range withdrawn, the time in which a call was stopped, an outbox of results."""

    def __init__(self, fd: int) -> None:
        self._page = shared_mapping(fd, SIZE)
        self.stopped = StoppedTime(self._page, _STOPPED)

    # -- the worker's side -----------------------------------------------------------------------------

    def begin(self, sequence: int) -> bool:
        """Note that this call begins; False if it was withdrawn, and so has not begun."""
        _COUNT.pack_into(self._page, _BEGUN, sequence)
        after, last = _RANGE.unpack_from(self._page, _WITHDRAWN)
        return not after < sequence <= last or self._begins_after_all(sequence)

    def _begins_after_all(self, sequence: int) -> bool:
        """Take back that this call begins, unless the range is changed meanwhile so that it does."""
        while True:
            after, last = _RANGE.unpack_from(self._page, _WITHDRAWN)
            if not after < sequence <= last:
                _COUNT.pack_into(self._page, _BEGUN, sequence)
            else:
                _COUNT.pack_into(self._page, _BEGUN, after)
            if _RANGE.unpack_from(self._page, _WITHDRAWN) == (after, last):
                return not after < sequence <= last

    def put(self, frame: bytes, length: int) -> int:
        """Add a frame to an outbox of `length` bytes; the new length. It counts once that is written."""
        end = length + len(frame)
        self._page[_OUTBOX + length : _OUTBOX + end] = frame
        _COUNT.pack_into(self._page, _LENGTH, end)
        return end

    def outbox(self, length: int) -> bytes:
        return self._page[_OUTBOX : _OUTBOX + length]

    def sent(self) -> None:
        _COUNT.pack_into(self._page, _LENGTH, 0)

    # -- the other side --------------------------------------------------------------------------------

    @property
    def begun(self) -> int:
        """The number of the last call that began."""
        return int(_COUNT.unpack_from(self._page, _BEGUN)[0])

    def withdraw(self, last: int) -> int:
        """Let no call up to `last` begin that has not begun; what has. Only while the worker is stopped."""
        begun = self.begun
        _RANGE.pack_into(self._page, _WITHDRAWN, begun, last)
        return begun

    def unsent(self) -> bytes:
        """Results that the worker finished and had perhaps not sent yet."""
        return self.outbox(int(_COUNT.unpack_from(self._page, _LENGTH)[0]))

    def close(self) -> None:
        self._page.close()


def make_result_log() -> tuple[ResultLog, int]:
    """Make a new page, and its descriptor for the other side. Raises OSError where there is none to be had."""
    fd = anonymous_file(SIZE)
    try:
        return ResultLog(fd), fd
    except OSError:
        os.close(fd)
        raise
