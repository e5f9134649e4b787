"""The result log: a page shared by a worker and its driver, so that the worker's death loses no finished result.

The worker writes the number of each call into the log before the call begins, and finished results before they are
sent. Both outlive a SIGKILL. So the driver knows the call that died with the worker, the calls that had not begun, and
the results that were finished but still on their way.

Calls that were sent ahead may be withdrawn. While the worker is stopped (SIGSTOP), the driver's side writes the range
from `begun` to the last sent call into the log. The worker looks at the range after each change of `begun`, and skips a
call in the range. If another process lets the worker go on in the middle of this, the worker is stopped again and the
range corrected. So a worker that skips a call reads the range once more.
"""

from __future__ import annotations

import os
from struct import Struct

from ..serialize.shared_memory import anonymous_file, shared_mapping
from ..system.run_clock import StoppedTime

_COUNT = Struct("<I")
_RANGE = Struct("<II")
_BYTES = Struct("<Q")
_START = Struct("<ddd")
_BEGUN, _WITHDRAWN, _LENGTH, _STOPPED, _OUTBOX = 0, 64, 128, 192, 256  # one cache line each
_STARTED = _BEGUN + 16
_COUNTED = _STOPPED + StoppedTime.SIZE
SIZE = 1 << 17
ROOM = SIZE - _OUTBOX


class ResultLog:
    """The shared page: `begun`, the withdrawn range, the stopped time of a call, and an outbox of finished results.

    Of a call whose usage is measured, also the start, and the memory counted by the zygote.
    """

    def __init__(self, fd: int) -> None:
        self._page = shared_mapping(fd, SIZE)
        self.stopped = StoppedTime(self._page, _STOPPED)

    # -- the worker's side -----------------------------------------------------------------------------

    def begin(self, sequence: int) -> bool:
        """Note that this call begins; return False, and take the note back, if the call was withdrawn."""
        # The note first, then the range: a worker that is stopped in between is seen to have begun.
        _COUNT.pack_into(self._page, _BEGUN, sequence)
        after, last = _RANGE.unpack_from(self._page, _WITHDRAWN)
        return not after < sequence <= last or self._begins_after_all(sequence)

    def _begins_after_all(self, sequence: int) -> bool:
        """Take the note back, unless the range meanwhile loses the call again; return True if the call begins."""
        while True:
            after, last = _RANGE.unpack_from(self._page, _WITHDRAWN)
            if not after < sequence <= last:
                _COUNT.pack_into(self._page, _BEGUN, sequence)
            else:
                _COUNT.pack_into(self._page, _BEGUN, after)
            # Written, then read once more: after a change in between the decision is made anew.
            if _RANGE.unpack_from(self._page, _WITHDRAWN) == (after, last):
                return not after < sequence <= last

    def measure_from(self, now: float, cpu: float, largest: int) -> None:
        """Note the start of a measured call.

        `now` is of the monotonic clock (s), `cpu` the processor time of the worker so far (s), and `largest` the peak
        of the largest process that it has waited for (bytes).
        """
        _START.pack_into(self._page, _STARTED, now, cpu, largest)

    def put(self, frame: bytes, length: int) -> int:
        """Add a frame to an outbox of `length` bytes; return the new length.

        The frame counts once the length is written.
        """
        end = length + len(frame)
        self._page[_OUTBOX + length : _OUTBOX + end] = frame
        # The length last: only the length makes the frame count.
        _COUNT.pack_into(self._page, _LENGTH, end)
        return end

    def outbox(self, length: int) -> bytes:
        """Return the first `length` bytes of the outbox."""
        return self._page[_OUTBOX : _OUTBOX + length]

    def sent(self) -> None:
        """Empty the outbox, whose results have been sent."""
        _COUNT.pack_into(self._page, _LENGTH, 0)

    # -- the other side --------------------------------------------------------------------------------

    @property
    def begun(self) -> int:
        """The number of the last call that began."""
        return int(_COUNT.unpack_from(self._page, _BEGUN)[0])

    def withdraw(self, last: int) -> int:
        """Let no call up to `last` begin from now on; return the last call that has begun.

        The worker must be stopped.
        """
        begun = self.begun
        _RANGE.pack_into(self._page, _WITHDRAWN, begun, last)
        return begun

    @property
    def measured_from(self) -> tuple[float, float, float]:
        """The start of the last measured call, as given to `measure_from`; zeros before the first."""
        now, cpu, largest = _START.unpack_from(self._page, _STARTED)
        return now, cpu, largest

    @property
    def counted_memory(self) -> int:
        """The most memory (bytes) of the processes of the call with a limit that runs, or ran last; 0 if unknown."""
        return int(_BYTES.unpack_from(self._page, _COUNTED)[0])

    def count_memory(self, most: int) -> None:
        """Note this memory (bytes), at once: `pack_into` would write zeros first."""
        self._page[_COUNTED : _COUNTED + _BYTES.size] = _BYTES.pack(most)

    def unsent(self) -> bytes:
        """Return the finished results that the worker has perhaps not sent."""
        return self.outbox(int(_COUNT.unpack_from(self._page, _LENGTH)[0]))

    def close(self) -> None:
        self._page.close()


def make_result_log() -> tuple[ResultLog, int]:
    """Make a page; return the log and the descriptor for the other side.

    Raises:
        OSError: there is no memory or descriptor left.
    """
    fd = anonymous_file(SIZE)
    try:
        return ResultLog(fd), fd
    except OSError:
        os.close(fd)
        raise
