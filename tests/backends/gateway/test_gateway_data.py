"""What crosses the link: few round trips, each large content once, and streams in pieces."""

from __future__ import annotations

import io
import os
import threading
from pathlib import Path
from time import monotonic

import numpy as np
import pytest
from relay import Relay
from sshd import Server

from callyard import Executor, Local
from callyard.backends.batch.call_pickles import LargeContents, pickle_value
from callyard.backends.gateway import protocol
from callyard.backends.gateway.contents import ContentFiles, SentContents
from callyard.backends.gateway.protocol import Message, MessageReader, MessageWriter
from callyard.transport.frames import GarbledFrame

PATIENCE = 60
MEGABYTE = 1_000_000


def total(values: np.ndarray, factor: int = 1) -> float:
    return float(values.sum()) * factor


def zeros(megabytes: int) -> np.ndarray:
    return np.zeros(megabytes * MEGABYTE // 8)


def test_a_thousand_calls_cost_few_round_trips(sshd: Server, relay: Relay) -> None:
    """Fewer than one for ten calls. A round trip is long here, so that the machine's speed does not matter."""
    trip = 0.5
    with Executor(backend=Local(detached=False, host=sshd.host(sshd.account("far", port=relay.port)))) as executor:
        assert executor.submit(abs, -1).result(PATIENCE) == 1
        relay.delay = trip / 2
        begun = monotonic()
        assert list(executor.map(abs, range(1000))) == list(range(1000))
        assert monotonic() - begun < 100 * trip
        relay.delay = 0.0


def test_a_large_argument_crosses_once(sshd: Server, relay: Relay, tmp_path: Path) -> None:
    """Whatever the number of calls, and of executors, that have it."""
    host = sshd.host(sshd.account("large", port=relay.port), directory=tmp_path / "there")
    values = np.random.default_rng(0).random(4 * MEGABYTE // 8)
    for _ in range(2):
        with Executor(backend=Local(detached=False, host=host)) as executor:
            futures = [executor.submit(total, values, factor) for factor in range(5)]
            assert [future.result(PATIENCE) for future in futures] == [total(values, factor) for factor in range(5)]
    assert 4 * MEGABYTE < relay.up < 5 * MEGABYTE


def test_a_result_that_feeds_another_call_need_not_come_first(sshd: Server, relay: Relay) -> None:
    with Executor(backend=Local(detached=False, host=sshd.host(sshd.account("feeding", port=relay.port)))) as executor:
        large = executor.submit(zeros, 8)
        assert executor.submit(total, large).result(PATIENCE) == 0.0
        assert relay.up < MEGABYTE
        assert large.result(PATIENCE).nbytes == 8 * MEGABYTE
        large.result()[0] = 1.0  # the user's own, to write to


# ------------------------------------------------------------------ without a server


def test_messages_pass_a_pipe_whole() -> None:
    reading, writing = os.pipe()
    writer, buffer = MessageWriter(writing), bytearray(os.urandom(3 * MEGABYTE))
    thread = threading.Thread(target=writer.run, args=(lambda: True,))
    thread.start()
    with io.FileIO(reading, "rb") as stream:
        reader = MessageReader(stream)
        writer.put(protocol.CALL, 7, {"a": 1}, [buffer, b""])
        writer.put(protocol.CLOSE)
        writer.close()
        assert reader.read() == Message(protocol.CALL, 7, {"a": 1}, [buffer, bytearray()])
        assert reader.read() == Message(protocol.CLOSE, 0, None, [])
        thread.join()
        os.close(writing)
        assert reader.read() is None


def test_other_bytes_are_no_message() -> None:
    with pytest.raises(GarbledFrame):
        MessageReader(io.BytesIO(b"Segmentation fault, and more words than a head")).read()
    assert MessageReader(io.BytesIO(b"\x5e\xa5")).read() is None  # cut in the middle


def test_a_sender_gives_up_a_silent_receiver() -> None:
    reading, writing = os.pipe()
    writer, asked = MessageWriter(writing), []

    def still_there() -> bool:
        asked.append(True)
        return len(asked) < 2

    writer.put(protocol.CONTENT, 0, "x", [bytes(MEGABYTE)])
    writer.run(still_there)
    assert writer.broken
    os.close(reading)
    os.close(writing)


def test_contents_are_files(tmp_path: Path) -> None:
    contents, sent = LargeContents(), SentContents()
    pickled = pickle_value(np.arange(100_000), contents)
    (name,) = sent.add(pickled).contents
    files = ContentFiles(str(tmp_path / "contents"))
    assert files.missing([name, name]) == [name]
    data = sent.of(name)
    assert data is not None
    files.keep(name, bytearray(data))
    assert files.missing([name]) == []
    assert bytes(files.load(name)) == data
    (tmp_path / "contents" / name).write_bytes(b"cut short")
    assert files.missing([name]) == [name]
    with pytest.raises(ValueError, match="not the name"):
        files.load("../../etc/passwd")
    del pickled
    assert sent.of(name) is None
