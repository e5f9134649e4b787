"""What a call uses, as measured in this process."""

from __future__ import annotations

import subprocess
import sys

import pytest

from callyard.events.usage import Usage
from callyard.system import memory_peak
from callyard.worker import usage_meter
from callyard.worker.usage_meter import UsageMeter

MIB = 1 << 20


def touch(size: int) -> None:
    block = bytearray(size)
    block[:: 1 << 12] = b"1" * len(range(0, size, 1 << 12))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_peak_is_that_of_the_call_alone():
    touch(200 * MIB)
    meter = UsageMeter(17)
    touch(50 * MIB)
    large = meter.usage(5)
    meter = UsageMeter()
    small = meter.usage()
    assert large.peak_memory is not None
    assert small.peak_memory is not None
    assert 45 * MIB < large.peak_memory - small.peak_memory < 55 * MIB
    assert (large.bytes_in, large.bytes_out) == (17, 5)
    assert (small.bytes_in, small.bytes_out) == (None, None)
    assert large.wall > 0
    assert large.cpu is not None
    assert large.cpu > 0


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_processes_that_were_waited_for_count(monkeypatch: pytest.MonkeyPatch):
    own = memory_peak.resident_peak()  # of pytest, which may be large
    assert own is not None
    size = own + 100 * MIB
    meter = UsageMeter()
    subprocess.run([sys.executable, "-c", f"sum(range(10**6)); b'1' * {size}"], check=True)
    usage = meter.usage()
    assert usage.peak_memory is not None
    assert usage.peak_memory > size
    assert usage.cpu is not None
    assert usage.cpu > 0.01
    meter = UsageMeter()
    assert (meter.usage().peak_memory or 0) < usage.peak_memory, "no process was waited for in this one"


def test_where_the_peak_cannot_be_set_back_only_a_higher_one_counts(monkeypatch: pytest.MonkeyPatch):
    peaks = iter([70, 70, 70, 90])
    monkeypatch.setattr(usage_meter, "clear_peak", lambda: False)
    monkeypatch.setattr(usage_meter, "resident_peak", lambda: next(peaks))
    assert UsageMeter().usage().peak_memory is None
    assert UsageMeter().usage().peak_memory == 90


def test_what_others_have_counted_counts():
    assert UsageMeter(counted=lambda: 1 << 50).usage().peak_memory == 1 << 50


def test_only_the_first_stop_counts(monkeypatch: pytest.MonkeyPatch):
    meter = UsageMeter()
    meter.stop()
    first = meter.usage()
    meter.stop()
    assert meter.usage() == first


def test_a_system_that_tells_no_peaks(monkeypatch: pytest.MonkeyPatch):
    def no_file(*_: object) -> int:
        raise FileNotFoundError

    monkeypatch.setattr(memory_peak.os, "open", no_file)
    monkeypatch.setattr(memory_peak._FromBefore, "pid", 0)
    assert not memory_peak.clear_peak()
    assert memory_peak.resident_peak() is None


LATER = """
import os
from callyard.system import memory_peak

def peak():
    assert memory_peak.clear_peak()
    block = bytearray(10 << 20)
    block[:: 1 << 12] = bytes(len(range(0, len(block), 1 << 12)))
    return abs(memory_peak.resident_peak() - memory_peak._peak_of_status())

assert max(peak(), peak()) < 2 << 20
if os.fork() == 0:
    os._exit(max(peak(), peak()) >= 2 << 20)
assert os.wait()[1] == 0
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("size", [1, 300])
def test_the_memory_of_the_parent_is_not_taken_for_a_peak(size: int):
    """The kernel tells it of a process made by vfork, as here, but not of the children that this process forks."""
    block = bytearray(size * MIB)
    block[:: 1 << 12] = b"1" * len(range(0, size * MIB, 1 << 12))
    subprocess.run([sys.executable, "-c", LATER], check=True)


def test_ranks_together():
    one = Usage(2.0, 1.5, 100, 10, None, ("0", "1"))
    other = Usage(3.0, None, 50, 10, 4, ("1",))
    assert Usage.together([one, other]) == Usage(3.0, 1.5, 150, 20, 4, ("0", "1"))


@pytest.mark.parametrize("usage", [Usage(1.5), Usage(1.0, 2.0, 3, 4, 5, ("6",))])
def test_a_usage_is_read_as_it_was_written(usage: Usage):
    assert Usage.of({**usage.known(), "of a later version": 1}) == usage
    with pytest.raises(ValueError, match="no usage"):
        Usage.of({"cpu": 1.0})
