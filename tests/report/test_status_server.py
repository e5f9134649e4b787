"""The socket on which a process tells about its executors: who may ask, what is answered, and what is left of it."""

from __future__ import annotations

import gc
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from gate import Gate, until

from callyard import CallyardError, Executor, Local
from callyard.report import status_server
from callyard.report.ask_processes import ProcessAnswer, ask_all
from callyard.report.status_directory import status_directory_here

pytestmark = pytest.mark.wide
ME = os.getpid()
LIMITED = "for one of the running calls to end (max_workers)"


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CALLYARD_STATUS", str(tmp_path / "status"))
    return tmp_path / "status"


@contextmanager
def executor(gate: Gate, *args: Any, **kwargs: Any) -> Iterator[Executor]:
    """Yield an executor whose calls are let through in any case."""
    with Executor(*args, **kwargs) as ex:
        try:
            yield ex
        finally:
            gate.open(100)


def the_one(answers: list[ProcessAnswer]) -> ProcessAnswer:
    (answer,) = answers
    return answer


def test_executors_are_shown_from_their_beginning_to_their_end(directory: Path, gate: Gate) -> None:
    assert ask_all("status") == []
    with executor(gate, 1) as first:
        first.submit(gate.hold)
        waiting = first.submit(abs, -1)
        with Executor(backend=Local(cores=1)) as second:
            gate.arrived()
            process = the_one(ask_all("status"))
            assert (process.pid, process.problem) == (ME, "")
            assert process.answer is not None
            one, two = process.answer["executors"]
            assert one["running"][0]["name"] == "hold"
            assert one["next"] == [{"number": 1, "name": "abs", "reason": LIMITED, "key": None}]
            assert two["calls"] == {}
            assert second.submit(abs, -1).result() == 1
        assert len(the_one(ask_all("status")).answer["executors"]) == 1  # type: ignore[index]
        said = the_one(ask_all("explain", executor=one["number"], call=1)).answer
        assert said is not None
        assert said["sentence"] == waiting.explain() == f"waits {LIMITED}"
        gate.open()
    until(lambda: ask_all("status") == [])
    assert os.listdir(directory) == []


def test_an_executor_that_nobody_waits_for_is_shown_until_its_last_call_ends(directory: Path, gate: Gate) -> None:
    ex = Executor(1)
    held = ex.submit(gate.hold)
    gate.arrived()
    ex.shutdown(wait=False)
    assert the_one(ask_all("status")).answer["executors"][0]["running"][0]["name"] == "hold"  # type: ignore[index]
    gate.open()
    held.result()
    until(lambda: not os.listdir(directory))
    ex.shutdown()


def test_the_thread_ends_with_an_executor_that_is_forgotten(directory: Path) -> None:
    ex = Executor(1)
    assert len(os.listdir(directory)) == 1
    del ex
    gc.collect()
    until(lambda: "callyard-status" not in {thread.name for thread in threading.enumerate()})
    assert os.listdir(directory) == []


def test_a_finalizer_does_not_wait_for_the_thread_that_starts_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    start = status_server.StatusServer.start
    ex = Executor(1)
    ex._running._hide()

    def start_slowly(server: Any) -> None:
        finalizer = threading.Thread(target=ex._running._hide)
        finalizer.start()
        finalizer.join(60)
        assert not finalizer.is_alive()
        start(server)

    monkeypatch.setattr(status_server.StatusServer, "start", start_slowly)
    with Executor(1):
        assert len(ask_all("status")) == 1
    ex.shutdown()


def test_a_server_that_is_not_wanted_any_more_when_it_has_started(monkeypatch: pytest.MonkeyPatch) -> None:
    start = status_server.StatusServer.start
    ex = Executor(1)
    ex.shutdown()

    def start_and_end(server: Any) -> None:
        start(server)
        shown = status_server._shown
        finalizer = threading.Thread(target=lambda: [status_server._hide(shown, each) for each in list(shown)])
        finalizer.start()
        finalizer.join()

    monkeypatch.setattr(status_server.StatusServer, "start", start_and_end)
    with Executor(1):
        until(lambda: ask_all("status") == [])


def test_a_call_behind_another_one_is_ended_too(gate: Gate) -> None:
    with executor(gate, 1) as ex:
        for _ in range(20):  # so that the function counts as short, and calls are sent ahead
            ex.submit(gate.hold)
        gate.open(20)
        gate.arrived(20)
        first, second = ex.submit(gate.hold, 1), ex.submit(gate.hold, 2)
        gate.arrived()
        runner: Any = ex._running.backend
        (call,) = [each for each in runner.unfinished() if each.future is second]
        call.end()
        gate.open()
        assert first.result() == 1
        until(second.done)
        assert second.cancelled()
        assert ex.submit(abs, -2).result() == 2


def test_a_question_at_the_start_of_the_server_does_not_remove_its_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    class AskedEarly(socket.socket):
        def listen(self, backlog: int = 0) -> None:
            asked.append(ask_all("status"))
            super().listen(backlog)

    with monkeypatch.context() as patched:
        patched.setattr(socket, "socket", AskedEarly)
        ex = Executor(1)
    with ex:
        assert asked == [[]]
        assert the_one(ask_all("status")).pid == ME


def test_what_killed_processes_have_left_does_not_pile_up(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_server, "_MOST_LEFT", 3)
    directory.mkdir(mode=0o700)
    for name in ("4711-a", "4711-b", "4712-a"):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(directory / name))
    with Executor(1):
        until(lambda: len(os.listdir(directory)) == 1)
        assert the_one(ask_all("status")).pid == ME


def test_calls_are_cancelled_by_number_or_key(tmp_path: Path, gate: Gate) -> None:
    with executor(gate, 1, cache=tmp_path / "cache") as ex:
        held = ex.submit(gate.hold, resource_dict={"cache_key": "held"})
        waiting = ex.submit(abs, -1, resource_dict={"cache_key": "waiting"})
        other = ex.submit(abs, -3, resource_dict={"cache_key": "wanted"})
        gate.arrived()
        assert the_one(ask_all("cancel", key="nothing")).answer["done"] == []  # type: ignore[index]
        (words,) = the_one(ask_all("cancel", key="wa")).answer["done"]  # type: ignore[index]
        assert words.startswith("cancelled nothing: 2 keys begin with wa, as waiting, wanted;")
        assert not waiting.cancelled()
        assert not other.cancelled()
        done = the_one(ask_all("cancel", key="wait")).answer["done"]  # type: ignore[index]
        assert done == ["cancelled 'abs', key waiting"]
        assert waiting.cancelled()
        number = the_one(ask_all("status")).answer["executors"][0]["number"]  # type: ignore[index]
        done = the_one(ask_all("cancel", ME, executor=number, call=0)).answer["done"]  # type: ignore[index]
        assert done == ["ended 'hold', key held, which was running"]
        until(held.done)
        assert held.cancelled()
        assert ex.submit(abs, -2).result() == 2  # the pool goes on
        assert ex.status().count("cancelled") == 2


def test_a_running_call_of_a_wrapped_executor_is_not_cancelled(gate: Gate) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as threads, executor(gate, backend=threads) as ex:
        held = ex.submit(gate.hold, 3)
        gate.arrived()
        (words,) = the_one(ask_all("cancel", call=0)).answer["done"]  # type: ignore[index]
        assert words == "'hold' runs (in ThreadPoolExecutor), and cannot be ended there alone"
        gate.open()
        assert held.result() == 3


def test_questions_that_make_no_sense(directory: Path) -> None:
    with Executor(1):
        (name,) = os.listdir(directory)
        for said in (b"\xff\xfe\n", b"[]\n", b"3\n", b"{", b"", b"[" * 20_000 + b"\n"):
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(str(directory / name))
                sock.sendall(said)
                sock.shutdown(socket.SHUT_WR)
                try:
                    assert sock.recv(100) == b""
                except ConnectionResetError:  # it was closed with bytes that nobody has read
                    pass
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(directory / name))
            sock.sendall(b'{"protocol": 99, "ask": "status"}\n')
            assert set(json.loads(sock.makefile().readline())) == {"protocol", "version", "pid", "script"}
        assert "no question" in the_one(ask_all("nonsense")).answer["error"]  # type: ignore[index]
        assert "KeyError" in the_one(ask_all("explain")).answer["error"]  # type: ignore[index]


def test_a_directory_that_others_may_enter_is_not_used(directory: Path) -> None:
    directory.mkdir(mode=0o755)
    with Executor(1) as ex:
        assert os.listdir(directory) == []
        assert ex.submit(abs, -1).result() == 1
    with pytest.raises(CallyardError, match="executors cannot be asked"):
        ask_all("status")


def test_sockets_of_dead_processes_are_removed(directory: Path) -> None:
    directory.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(directory / "4711-abcd"))
        sock.listen()
    (directory / "other file").touch()
    assert ask_all("status") == []
    assert os.listdir(directory) == ["other file"]


def test_a_process_of_another_protocol(directory: Path) -> None:
    directory.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(directory / "4711-abcd"))
        sock.listen()

        def serve(answer: bytes) -> None:
            client, _ = sock.accept()
            with client:
                client.recv(1000)
                client.sendall(answer)

        for answer, problem in (
            (b'{"protocol": 2, "version": "9.0"}\n', "is of Callyard 9.0, which answers otherwise"),
            (b"what?\n", "has given an answer that makes no sense"),
        ):
            thread = threading.Thread(target=serve, args=(answer,))
            thread.start()
            assert the_one(ask_all("status")) == ProcessAnswer(4711, None, problem)
            thread.join()


SCRIPT = """
import sys
from callyard import Executor
with Executor(1) as ex:
    print("there", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    script = tmp_path / "study.py"
    script.write_text(SCRIPT)
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, str(script)], stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        yield process
        process.kill()


@pytest.mark.once
def test_a_stopped_process_is_told_as_such(other: subprocess.Popen[str]) -> None:
    assert the_one(ask_all("status")).answer["script"] == "study.py"  # type: ignore[index]
    os.kill(other.pid, 19)
    os.waitpid(other.pid, os.WUNTRACED)
    assert the_one(ask_all("status")) == ProcessAnswer(other.pid, None, "is stopped")
    os.kill(other.pid, 18)
    assert the_one(ask_all("status")).problem == ""
    os.kill(other.pid, 9)
    other.wait()
    assert ask_all("status") == []
    assert os.listdir(status_directory_here()) == []


@pytest.mark.once
def test_a_finalizer_of_the_parent_hides_nothing_in_a_forked_child() -> None:
    with Executor(1) as ex:
        child = os.fork()
        if not child:
            with Executor(1):
                ex._running._hide()
                os._exit(0 if os.getpid() in {answer.pid for answer in ask_all("status")} else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.once
def test_a_forked_child_answers_for_itself_alone(directory: Path) -> None:
    with Executor(1):
        child = os.fork()
        if not child:
            with Executor(1):
                found = {answer.pid: len((answer.answer or {})["executors"]) for answer in ask_all("status")}
            os._exit(0 if found == {ME: 1, os.getpid(): 1} else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert the_one(ask_all("status")).pid == ME
