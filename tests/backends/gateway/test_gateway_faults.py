"""What goes wrong around a gateway, without a server: lost beginnings, busy sides, directories of others."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import Future as PlainFuture
from io import FileIO
from pathlib import Path
from typing import Any

import pytest
from gate import until

from callyard.backends.batch.call_pickles import LargeContents, pickle_call
from callyard.backends.gateway import connection, message_streams, protocol
from callyard.backends.gateway.backend import GatewayBackend
from callyard.backends.gateway.boot import script
from callyard.backends.gateway.connection import Address, NoConnection
from callyard.backends.gateway.contents import ContentFiles, SentContents
from callyard.backends.gateway.late_cancels import LateCancels
from callyard.backends.gateway.message_streams import MessageReader, MessageWriter
from callyard.backends.gateway.protocol import Message, Opening, SentCall, SentInput
from callyard.backends.gateway.remote import Gateway
from callyard.backends.gateway.remote_place import GatewayPlace
from callyard.errors import CallyardError, UnsafeCache
from callyard.futures import Future
from callyard.resources import Resources

PATIENCE = 60
ADDRESS = Address(("ssh",), "far", "", "python3", ())
OPENING = Opening(b"", "run", True, "use", False)


def anything(resources: Resources) -> None:
    """Let all resources pass."""


class Silence:
    """A stream without a byte."""

    def readinto(self, buffer: Any) -> int:
        return 0

    def fileno(self) -> int:
        raise AssertionError


class Answers(MessageWriter):
    """The messages of a gateway."""

    def __init__(self) -> None:
        self.said: list[tuple[int, int, Any]] = []

    def put(self, kind: int, number: int = 0, content: Any = None) -> None:
        self.said.append((kind, number, content))


class Submitted:
    """A backend that keeps what is submitted."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, tuple[Any, ...]]] = []

    def submit(self, fn: Any, args: Any, kwargs: Any, resources: Any) -> Future[Any]:
        self.calls.append((fn, args))
        return Future("call")


@pytest.fixture
def gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gateway:
    gateway = Gateway(str(tmp_path), MessageReader(Silence()), Answers())
    monkeypatch.chdir(tmp_path)
    gateway._place = GatewayPlace(str(tmp_path))
    gateway._backend = Submitted()  # type: ignore[assignment]
    return gateway


def small_call(fn: Any, *args: Any) -> SentCall:
    pickles = pickle_call((fn, args, {}), [], LargeContents())
    return SentCall("call", Resources(), None, 0, list(map(SentContents().add, pickles)), [], [])


def test_an_input_is_remembered_while_a_call_waits_for_its_contents(gateway: Gateway) -> None:
    """The first call ends, and is forgotten by the driver, while a large argument of the second is on its way."""
    sent, large, sources = SentContents(), os.urandom(1_000_000), list[Any]()
    first: PlainFuture[Any] = PlainFuture()
    pickles = pickle_call((max, (first, large), {}), sources, LargeContents())
    second = SentCall("call", Resources(), None, 0, list(map(sent.add, pickles)), [SentInput(1)], [])
    gateway._on_message(Message(protocol.CALL, 1, small_call(abs, -1), []))
    gateway._on_message(Message(protocol.CALL, 2, second, []))
    ((kind, _, names),) = gateway._writer.said  # type: ignore[attr-defined]
    assert kind == protocol.WANT
    gateway._on_message(Message(protocol.FORGET, 1, None, []))
    for name in names:
        source = sent.of(name)
        assert source is not None
        gateway._on_message(Message(protocol.CONTENT, 0, name, [b"".join(source.pieces(1 << 30))]))
    assert [kind for kind, _, _ in gateway._writer.said] == [protocol.WANT]  # type: ignore[attr-defined]
    assert [fn for fn, _ in gateway._backend.calls] == [abs, max]  # type: ignore[union-attr]
    assert list(gateway._futures) == [2]


def test_contents_that_others_could_have_written_are_refused(tmp_path: Path) -> None:
    """A content may be a pickle."""
    (tmp_path / "contents").mkdir()
    (tmp_path / "contents").chmod(0o777)
    with pytest.raises(UnsafeCache, match="contents"):
        ContentFiles(str(tmp_path / "contents"))


def test_a_directory_that_cannot_be_used_is_a_refusal(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    gateway = Gateway(str(tmp_path / "file" / "below"), MessageReader(Silence()), Answers())
    gateway._on_message(Message(protocol.OPEN, 0, OPENING, []))
    ((kind, _, content),) = gateway._writer.said  # type: ignore[attr-defined]
    assert kind == protocol.REFUSED
    assert r"name a directory of yours there, as SSH(directory=...)" in str(pickle.loads(content)[0])
    gateway._on_message(Message(protocol.CALL, 1, small_call(abs, -1), []))  # which was on its way


def test_a_busy_process_takes_nobody_for_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signs of life that wait to be read were given."""
    reading, writing = os.pipe()
    with FileIO(reading, "rb") as stream:
        reader = MessageReader(stream)
        assert not reader.is_silent()
        monkeypatch.setattr(message_streams, "SILENCE", 0.0)
        assert reader.is_silent()
        os.write(writing, b"".join(message_streams.pieces(protocol.ALIVE)))
        assert not reader.is_silent()
        assert reader.read() is not None
        assert reader.is_silent()
        os.close(writing)
        assert not reader.is_silent()  # the end is there to be read


class Ending:
    """A gateway that ends as soon as it has begun."""

    count = 0

    def __init__(self, address: Address, given_up: Callable[[], bool], sinks: Any) -> None:
        Ending.count += 1
        self.writer = Answers()

    def receive(self) -> None:
        return None

    def words(self) -> str:
        return "Traceback:\nMemoryError: no room\n"

    def close(self, patience: float) -> None: ...


@pytest.mark.parametrize("detached", [False, True])
def test_a_gateway_that_ends_at_once_is_not_started_for_ever(detached: bool) -> None:
    Ending.count = 0
    backend = GatewayBackend(ADDRESS, detached, OPENING, "far", anything, Ending)  # type: ignore[arg-type]
    future = backend.submit(abs, (1,), {}, Resources())
    with pytest.raises(CallyardError, match=r"the gateway on far ended before it took calls \(MemoryError: no room\)"):
        future.result(PATIENCE)
    backend.close(True)
    assert Ending.count == 1


def test_nobody_waits_for_a_login_that_is_not_wanted_any_more(tmp_path: Path) -> None:
    """As after Ctrl-C. This `ssh` waits for as long as its standard input is open."""
    (tmp_path / "ssh").write_text("#!/bin/sh\nexec cat >/dev/null\n")
    (tmp_path / "ssh").chmod(0o700)
    backend = GatewayBackend(ADDRESS._replace(command=(str(tmp_path / "ssh"),)), False, OPENING, "far", anything)
    future = backend.submit(abs, (1,), {}, Resources())
    backend.kill(15)
    backend.close(True)
    assert future.cancelled()


def test_what_ssh_leaves_behind_may_keep_its_stream_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_END", 0.1)
    os.mkfifo(fifo := tmp_path / "fifo")
    (tmp_path / "ssh").write_text(f"#!/bin/sh\nsetsid cat '{fifo}' >/dev/null </dev/null &\nexit 255\n")
    (tmp_path / "ssh").chmod(0o700)
    with open(os.open(fifo, os.O_RDWR), "wb"):  # for as long as it is open here, that process stays
        with pytest.raises(NoConnection, match="no connection to far: ssh failed"):
            connection.Connection(ADDRESS._replace(command=(str(tmp_path / "ssh"),)))
    until(lambda: not any(each.name == "callyard-gateway-words" for each in threading.enumerate()))


def test_calls_that_could_not_be_handed_over_at_the_end_are_told() -> None:
    """A script ends by `shutdown(wait=False)` before there is a connection."""

    def refused(address: Address, given_up: Callable[[], bool], sinks: Any) -> Any:
        gone.result(PATIENCE)
        raise NoConnection("no connection to far: the login was refused", passes=False)

    def answer_and_wait() -> None:
        gone.set_result(None)
        backend.wait_for_end()

    gone: PlainFuture[None] = PlainFuture()
    backend = GatewayBackend(ADDRESS, True, OPENING, "far", anything, refused)
    backend.submit(abs, (1,), {}, Resources())
    backend.begin_end()
    with pytest.warns(UserWarning, match="1 call may not have been submitted on far: no connection to far: the login"):
        answer_and_wait()


def test_no_file_of_the_home_directory_is_taken_for_a_module() -> None:
    text = script("mark", "python3", "", [])
    assert text.index("sys.path[:] =") < text.index("import json")


def test_a_driver_that_leaves_is_waited_for_until_its_calls_are_submitted(gateway: Gateway) -> None:
    """Their large arguments may still be on the way."""
    sent, large = SentContents(), os.urandom(1_000_000)
    pickles = pickle_call((len, (large,), {}), [], LargeContents())
    call = SentCall("call", Resources(), None, 0, list(map(sent.add, pickles)), [], [])
    gateway._on_message(Message(protocol.CALL, 1, call, []))
    gateway._on_message(Message(protocol.CALL, 2, small_call(abs, -1), []))  # it need not wait
    gateway._on_message(Message(protocol.LEAVE, 0, None, []))
    assert [fn for fn, _ in gateway._backend.calls] == [abs]  # type: ignore[union-attr]
    ((_, _, names),) = gateway._writer.said  # type: ignore[attr-defined]
    for name in names:
        source = sent.of(name)
        assert source is not None
        gateway._on_message(Message(protocol.CONTENT, 0, name, [b"".join(source.pieces(1 << 30))]))
    assert [fn for fn, _ in gateway._backend.calls] == [abs, len]  # type: ignore[union-attr]
    until(lambda: gateway._writer.said[-1][0] == protocol.ENDED)  # type: ignore[attr-defined]


def test_a_call_whose_content_cannot_be_stored_fails_alone(gateway: Gateway) -> None:
    sent, large = SentContents(), os.urandom(1_000_000)
    pickles = pickle_call((len, (large,), {}), [], LargeContents())
    call = SentCall("call", Resources(), None, 0, list(map(sent.add, pickles)), [], [])
    gateway._on_message(Message(protocol.CALL, 1, call, []))
    gateway._on_message(Message(protocol.CALL, 2, small_call(abs, -1)._replace(inputs=[SentInput(1)]), []))
    ((_, _, (name,)),) = gateway._writer.said  # type: ignore[attr-defined]
    gateway._on_message(Message(protocol.CONTENT, 0, name, [large[:-1]]))
    said: list[tuple[int, int, Any]] = gateway._writer.said  # type: ignore[attr-defined]
    errors = {number: str(pickle.loads(each.error)[0]) for kind, number, each in said if kind == protocol.ERROR}
    assert "a large argument cannot be used in" in errors[1]
    assert "it was changed meanwhile" in errors[1]
    assert "another call, of which this one needs the result" in errors[2]
    gateway._on_message(Message(protocol.CALL, 3, call, []))  # it is asked for once more
    assert gateway._writer.said[-1][0] == protocol.WANT  # type: ignore[attr-defined]


def test_a_call_is_cancelled_once_its_job_is_found() -> None:
    class Found(Future[Any]):
        job_id: str | None = None  # type: ignore[assignment]

    now = 0.0
    late = LateCancels(lambda: now)
    one, other, last = Found("one"), Found("other"), Found("last")
    for number, future in enumerate((one, other, last)):
        late.add(number, future)
    assert late.ready() == []
    one.job_id = "17"
    assert late.ready() == [0]
    now = 11.0  # s: it has none
    assert late.ready() == [1, 2]
    late.add(3, last)
    assert late.ready(at_once=True) == [3]
    assert late.ready(at_once=True) == []
