"""The most memory that this process has had at once. Jobs load this module, so its imports are few.

Linux keeps the peak of a process's resident memory, and lets the process set it back to the present value. Of the
children that the process has waited for, it keeps the largest peak, for good.
"""

from __future__ import annotations

import os
import resource

from ..utils.lite_stdlib import suppress

__all__ = ["clear_peak", "resident_peak", "waited_children"]

_HIWATER = b"5"  # the word by which the kernel sets the peak back
_NAME = b"\nVmHWM:"


class _FromBefore:
    """The most that `getrusage` has from before this process loaded its program (bytes): from its parent, with vfork.

    It hides later peaks that are lower. A forked child begins without it.
    """

    pid = 0  # of the process that has looked
    peak = 0


def clear_peak() -> bool:
    """Set the peak back to the present resident memory; return False where the system does not allow that."""
    with suppress(OSError):
        descriptor = os.open("/proc/self/clear_refs", os.O_WRONLY | os.O_CLOEXEC)
        try:
            cleared = os.write(descriptor, _HIWATER) == len(_HIWATER)
        finally:
            os.close(descriptor)
        if cleared and _FromBefore.pid != os.getpid():
            _FromBefore.pid, present = os.getpid(), _peak_of_usage()
            _FromBefore.peak = present if present > (_peak_of_status() or 0) else 0
        return cleared
    return False


def resident_peak() -> int | None:
    """Return the peak of this process's resident memory (bytes); None where the system does not tell."""
    if _FromBefore.pid == os.getpid():
        peak = _peak_of_usage()  # some 10 us faster than the other way
        if peak > _FromBefore.peak:
            return peak
    return _peak_of_status()


def _peak_of_usage() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _peak_of_status() -> int | None:
    with suppress(OSError, ValueError, IndexError):
        descriptor = os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)
        try:
            text = os.read(descriptor, 1 << 16)
        finally:
            os.close(descriptor)
        start = text.find(_NAME)
        if start >= 0:
            return 1024 * int(text[start + len(_NAME) :].split(None, 1)[0])
    return None


def waited_children() -> tuple[float, int]:
    """Return the processor time (s) of all children waited for so far, and the largest peak among them (bytes)."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime, 1024 * used.ru_maxrss
