"""What crosses the link: few round trips, each large content once, and streams in pieces."""

from __future__ import annotations

import io
import os
import threading
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gate import Gate, until
from relay import Relay
from sshd import Server

from callyard import PBS, SSH, CallyardError, Executor, File, Flux, GridEngine, Local, NodeKind, ResourceError, Slurm
from callyard.backends.batch.call_pickles import LargeContents, pickle_value
from callyard.backends.gateway import protocol
from callyard.backends.gateway.contents import ContentFiles, SentContents
from callyard.backends.gateway.message_streams import BytesSource, LargeMessage, MessageReader, MessageWriter
from callyard.backends.gateway.protocol import ContentName, Message, SentCall, WantedContent
from callyard.resources import Resources
from callyard.transport.frames import GarbledFrame

PATIENCE = 60
MEGABYTE = 1_000_000


def total(values: np.ndarray, factor: int = 1) -> float:
    return float(values.sum()) * factor


TABLE = os.urandom(20_000)  # a global of the user's script, which travels with the function


def entry(index: int) -> int:
    return TABLE[index]


def negative(value: int) -> int:
    return -value


def zeros(megabytes: int) -> np.ndarray:
    return np.zeros(megabytes * MEGABYTE // 8)


@pytest.mark.parametrize("function", [abs, negative])
def test_a_thousand_calls_cost_few_round_trips(sshd: Server, relay: Relay, function: Callable[[int], int]) -> None:
    """They are counted, so that the machine's speed matters little: each side may be silent for 0.3 s."""
    name = sshd.account(f"far-{function.__name__}", port=relay.port)
    with Executor(backend=Local(detached=False, host=sshd.host(name))) as executor:
        assert executor.submit(function, 1).result(PATIENCE) == function(1)
        relay.quiet = 0.3
        assert list(executor.map(function, range(1000))) == list(map(function, range(1000)))
        assert relay.turns <= 2 * 10
        relay.quiet = None


@pytest.mark.parametrize(
    ("backend", "resources", "why"),
    [
        (Local(detached=False), {"coers": 2}, "coers"),
        (Local(detached=False), {"cores_per_rank": 0}, "cores"),
        (Local(detached=False), {"partition": "cpu"}, "partition is for a scheduler"),
        (Local(), {"cache_key": "k"}, "cache_key and cache_directory are for a cache"),
        (Local(), {"partition": "cpu"}, r"partition is for a scheduler, and Local\(detached=True\) runs without one"),
        (Local(), {"begin": "teatime"}, "begin='teatime' is not read"),
        (Local(cores=2), {"cores_per_rank": 3}, "this executor has 2 cores"),
        (Local(gpus=["a", "b"], detached=False), {"gpus_per_rank": 3}, "this executor has 2 GPUs"),
        (Local(memory="2GB", detached=False), {"memory": 3}, "this executor has 2 GiB"),
        (Slurm(), {"ranks": 4, "ranks_per_node": 2, "nodes": 3}, "leave nodes out"),
        (Slurm(), {"queue": "long"}, "queue"),
        (Slurm(), {"slurm_cmd_args": 'an "unclosed quote'}, "slurm_cmd_args must be words as in a shell"),
        (Slurm(), {"job_name": "zero\0"}, "job_name"),
        (Slurm(), {"cpu_bind": "cores"}, "cpu_bind is for calls with ranks"),
        (Slurm(template="#!/bin/bash\n{{ command }}\n"), {"account": "x"}, "means nothing to the template"),
        (Slurm(nodes=2), {"partition": "gpu"}, "partition='gpu' was asked for"),
        (Slurm(nodes=2), {"ranks": 6, "nodes": 3}, "nodes=3 was asked for, and there are at most 2 nodes"),
        (Slurm(nodes=2, walltime="1h"), {"run_time": "2h"}, "the nodes are there for 3600 s"),
        (Slurm(kinds=[NodeKind(nodes=1, gpus=2)]), {"gpus_per_rank": 3}, "the largest of 1 has 2 GPUs"),
        (Flux(), {"licenses": "x"}, "licenses"),
        (Flux(nodes=2), {"ranks": 4, "nodes": 2}, "starts no ranks on the nodes of jobs from outside"),
        (PBS(), {"wckey": "x"}, "wckey"),
        (GridEngine(), {"cores_per_rank": 2}, "parallel_environment"),
    ],
)
def test_impossible_resources_are_refused_at_once(backend: Any, resources: dict[str, Any], why: str) -> None:
    """What this side can know is said without a connection: nobody is there."""
    chosen = replace(backend, host=SSH("nobody-there", command="false"))
    with Executor(backend=chosen) as executor, pytest.raises(ResourceError, match=why):
        executor.submit(abs, 1, resource_dict=resources)


@pytest.mark.parametrize(
    ("backend", "settings", "why"),
    [
        (Slurm(), {"max_tasks_per_child": 1}, "max_tasks_per_child is for workers"),
        (Local(), {"max_tasks_per_child": 1}, "max_tasks_per_child is for workers"),
        (Slurm(detached=False), {}, r"Slurm\(detached=False\) needs "),
        (Slurm(nodes=2, calls_per_job=3), {}, "calls_per_job is for calls that are jobs of their own"),
        (Slurm(template="#!/bin/bash\n{{ comand }}\n"), {}, r"does not run \{\{ command \}\}"),
    ],
)
def test_settings_that_do_not_go_together_are_refused_at_once(
    backend: Any, settings: dict[str, Any], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    with pytest.raises(CallyardError, match=why):
        Executor(backend=replace(backend, host=SSH("nobody-there", command="false")), **settings)


def test_a_large_argument_crosses_once(sshd: Server, relay: Relay, tmp_path: Path) -> None:
    """Whatever the number of calls, and of executors, that have it."""
    host = sshd.host(sshd.account("large", port=relay.port), directory=tmp_path / "there")
    values = np.random.default_rng(0).random(4 * MEGABYTE // 8)
    for _ in range(2):
        with Executor(backend=Local(detached=False, host=host)) as executor:
            futures = [executor.submit(total, values, factor) for factor in range(5)]
            assert [future.result(PATIENCE) for future in futures] == [total(values, factor) for factor in range(5)]
    assert 4 * MEGABYTE < relay.up < 5 * MEGABYTE


def test_a_function_of_the_users_crosses_once(
    sshd: Server, relay: Relay, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each version of it, on each connection; what counts is the bytes that went over."""
    host = sshd.host(sshd.account("functions", port=relay.port), directory=tmp_path / "there")
    with Executor(backend=Local(detached=False, host=host)) as executor:
        assert executor.submit(entry, 0).result(PATIENCE) == TABLE[0]
        before = relay.up
        assert list(executor.map(entry, range(200))) == list(TABLE[:200])
        assert relay.up - before < 200 * 1000
        before = relay.up
        monkeypatch.setattr(f"{__name__}.TABLE", os.urandom(20_000))
        assert list(executor.map(entry, range(200))) == list(TABLE[:200])
        assert 20_000 < relay.up - before < 20_000 + 200 * 1000


def read(file: File) -> tuple[str, int]:
    with open(file, "rb") as opened:
        return os.fspath(file), len(opened.read())


def test_a_file_goes_there_with_its_content(sshd: Server, relay: Relay, tmp_path: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "values.dat"
    here.write_bytes(os.urandom(MEGABYTE))
    host = sshd.host(sshd.account("files", port=relay.port), directory=there)
    with Executor(backend=Local(detached=False, host=host), cache=tmp_path / "results") as executor:
        path, size = executor.submit(read, File(here)).result(PATIENCE)
        assert size == MEGABYTE
        assert path.startswith(f"{there}/.callyard/files/")
        assert os.path.basename(path) == "values.dat"
        assert os.stat(path).st_mode & 0o777 == 0o400
        assert executor.submit(read, File(here)).cached
        here.write_bytes(b"x")
        assert executor.submit(read, File(here)).result(PATIENCE)[1] == 1
        assert executor.submit(read, File(here), resource_dict={"cores": 1}).result(PATIENCE)[1] == 1
    assert MEGABYTE < relay.up < 2 * MEGABYTE


def test_another_gateway_is_told_the_functions_again(sshd: Server, relay: Relay, tmp_path: Path, gate: Gate) -> None:
    host = sshd.host(sshd.account("again", port=relay.port), directory=tmp_path / "there")
    with Executor(backend=Local(host=host), cache=tmp_path / "here") as executor:
        assert executor.submit(entry, 0).result(PATIENCE) == TABLE[0]
        waits = executor.submit(entry, executor.submit(gate.hold, 1))
        gate.arrived(1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            relay.hang_up()
            until(lambda: "waiting for the connection" in repr(waits))
        gate.open()
        assert waits.result(PATIENCE) == TABLE[1]
        assert executor.submit(entry, 2).result(PATIENCE) == TABLE[2]


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
        writer.put(protocol.CALL, 6, {"a": 1})
        writer.put_large(lambda: LargeMessage(protocol.RESULT, 7, {"b": 2}, [BytesSource(buffer), BytesSource(b"")]))
        writer.close()
        assert reader.read() == Message(protocol.CALL, 6, {"a": 1}, [])
        assert reader.read() == Message(protocol.RESULT, 7, {"b": 2}, [buffer, bytearray()])
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

    writer.put_large(lambda: LargeMessage(protocol.CONTENT, 0, "x", [BytesSource(bytes(MEGABYTE))]))
    writer.run(still_there)
    assert writer.broken
    os.close(reading)
    os.close(writing)


def test_calls_that_have_ended_are_forgotten_with_their_large_contents() -> None:
    sent, pickled = SentContents(), pickle_value(np.arange(1_000_000), LargeContents())
    call = SentCall("call", Resources(), None, 0, [sent.add(pickled)], [], [])
    wanted = ContentName(False, call.pickles[0].contents[0])
    for number in (1, 2):
        sent.note(number, call)
    assert sent.calls_with(wanted) == [1, 2]
    sent.ended(1)
    assert sent.calls_with(wanted) == [2]
    sent.ended(2)
    sent.ended(3)
    assert sent._calls == {} == sent._large


def test_contents_are_files(tmp_path: Path) -> None:
    contents, sent = LargeContents(), SentContents()
    pickled = pickle_value(np.arange(100_000), contents)
    (name,) = sent.add(pickled).contents
    files = ContentFiles(str(tmp_path / "contents"))
    assert files.missing([name, name]) == [name]
    source = sent.of(WantedContent(ContentName(False, name)))
    assert source is not None
    with files.incoming(name, 0) as incoming:
        for piece in source.pieces(1000):
            assert not files.accept(incoming)
            incoming.write(piece)
        assert files.accept(incoming)
    os.utime(tmp_path / "contents" / name, (0, 0))
    assert files.missing([name]) == []
    ContentFiles(str(tmp_path / "contents"))  # of another gateway, which removes old ones
    assert bytes(files.load(name)) == b"".join(source.pieces(1000))
    (tmp_path / "contents" / name).write_bytes(b"cut short")
    assert files.missing([name]) == [name]
    with pytest.raises(ValueError, match="not the name"):
        files.load("../../etc/passwd")
    del pickled, source, piece
    assert sent.of(WantedContent(ContentName(False, name))) is None


def test_an_empty_directory_may_be_removed_meanwhile(tmp_path: Path) -> None:
    files, content = ContentFiles(str(tmp_path / "contents")), os.urandom(1000)
    name = SentContents().add(pickle_value(np.frombuffer(content * 100, "u1"), LargeContents())).contents[0]
    (tmp_path / "contents").rmdir()
    with files.incoming(name, 0) as incoming:
        incoming.write(content * 100)
        assert files.accept(incoming)
    assert files.missing([name]) == []
