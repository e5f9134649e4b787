"""The daemon's life: its directory, its lock, its socket, other versions, a full disk, and its end."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from local_calls import executor
from local_daemons import TestedDaemon
from this_machine import until

from callyard import SchedulerError
from callyard.daemon.job_files import JobFiles, StoredJobs
from callyard.daemon.job_names import JobNames
from callyard.daemon.run_file import RunEnd, claim_run, read_run, write_end
from callyard.hosts.daemon import PROTOCOL, DaemonHost, ask, directory_here, socket_in, start_daemon
from callyard.system import unix_sockets
from callyard.system.machine_name import machine_name
from callyard.system.process_identity import this_process

pytestmark = [pytest.mark.once, pytest.mark.needs("daemon")]

REACH = ["callyard-daemon", "reach"]


def test_it_starts_on_need_and_answers(own_daemon: TestedDaemon) -> None:
    assert not own_daemon.is_there
    assert DaemonHost().run(REACH, timeout=30).code == 0
    assert psutil.Process(own_daemon.pid).terminal() is None
    assert oct(own_daemon.directory.stat().st_mode & 0o777) == "0o700"
    assert own_daemon.log() == ""


def test_each_machine_has_its_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CALLYARD_DAEMON", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert Path(directory_here()).parent == tmp_path / "callyard" / "daemon"
    assert Path(directory_here()).name == machine_name(str(tmp_path))


def test_a_directory_that_others_may_enter_is_refused(own_daemon: TestedDaemon, results: Path) -> None:
    own_daemon.directory.mkdir(mode=0o755)
    own_daemon.directory.chmod(0o755)
    with executor(results) as ex, pytest.raises(SchedulerError, match=r"no daemon for detached calls: .*chmod 700"):
        ex.submit(abs, -1).result()


def test_a_long_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon = TestedDaemon(tmp_path / ("d" * 120))
    monkeypatch.setenv("CALLYARD_DAEMON", str(daemon.directory))
    daemon.start()
    assert daemon.is_there
    daemon.stop()


def test_a_path_that_is_too_long_for_the_system_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS, where a directory has no second name by its descriptor."""
    monkeypatch.setattr(unix_sockets, "_DESCRIPTORS", "/nowhere")
    with pytest.raises(OSError, match="name a directory with a short path in CALLYARD_DAEMON"):
        with socket_in("/" + "d" * 120):
            pass


def test_a_socket_that_was_left_behind(own_daemon: TestedDaemon) -> None:
    own_daemon.start()
    own_daemon.kill()
    assert (own_daemon.directory / "socket").exists()
    assert DaemonHost().run(REACH, timeout=30).code == 0


def test_it_ends_when_idle(own_daemon: TestedDaemon) -> None:
    own_daemon.directory.mkdir(mode=0o700)
    code = (
        "import sys, callyard.daemon.server as server; server._IDLE = 0.1\n"
        "from callyard.daemon.run_daemon import main; main()"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", code, str(own_daemon.directory)], env=environment, check=True)
    until(lambda: not (own_daemon.directory / "socket").exists())
    assert own_daemon.log() == ""


def exchanged(directory: Path, data: bytes) -> dict[str, object]:
    with socket.socket(socket.AF_UNIX) as sock, socket_in(str(directory)) as path:
        sock.connect(path)
        sock.sendall(data)
        with sock.makefile() as answer:
            found: dict[str, object] = json.loads(answer.readline())
            return found


def test_another_version_is_told_so(own_daemon: TestedDaemon, monkeypatch: pytest.MonkeyPatch, results: Path) -> None:
    own_daemon.start()
    answer = exchanged(own_daemon.directory, b'{"protocol": 99, "command": "reach", "input": ""}\n')
    assert answer == {"protocol": PROTOCOL, "version": answer["version"], "pid": own_daemon.pid}
    with monkeypatch.context() as patch, executor(results) as ex:
        patch.setattr("callyard.hosts.daemon.PROTOCOL", 99)
        with pytest.raises(SchedulerError, match="speaks otherwise with it"):
            ex.submit(abs, -1).result()


def test_a_daemon_with_many_who_wait_is_busy_and_not_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux refuses a connection for the moment once as many wait as the listener lets wait."""
    place = tmp_path / "d"
    place.mkdir(mode=0o700)
    monkeypatch.setenv("CALLYARD_DAEMON", str(place))
    with contextlib.ExitStack() as stack, socket_in(str(place)) as path:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(path)
        listener.listen(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
                waiting.setblocking(False)
                waiting.connect(path)
        reply = DaemonHost().run(["callyard-daemon", "reach"], timeout=0.2)
    assert (reply.code, reply.err) == (None, "the daemon does not answer")


def test_nonsense_is_answered(own_daemon: TestedDaemon) -> None:
    own_daemon.start()
    assert exchanged(own_daemon.directory, b"hello\n")["err"] == "this is no command"
    assert DaemonHost().run(["callyard-daemon", "dance"], timeout=30).err == "there is no command 'dance'"
    reply = DaemonHost().run(["callyard-daemon", "submit"], timeout=30, stdin="{}")
    assert reply.code == 1


def test_jobs_of_other_machines_are_not_lost_from_here(own_daemon: TestedDaemon) -> None:
    own_daemon.start()
    (own,) = JobNames.here(str(own_daemon.directory))._replace(host="earlier-name").new(1)
    jobs = json.dumps({"jobs": ["elsewhere-0a-1", own]})
    (line,) = DaemonHost().run(["callyard-daemon", "status"], timeout=30, stdin=jobs).out.splitlines()
    assert json.loads(line) == {"job": "elsewhere-0a-1", "state": "elsewhere", "node": "elsewhere"}
    reply = DaemonHost().run(["callyard-daemon", "cancel"], timeout=30, stdin=jobs)
    assert reply.err == "elsewhere-0a-1 is a job of another machine: cancel it there"


def test_a_daemon_that_cannot_start_says_why(own_daemon: TestedDaemon) -> None:
    own_daemon.directory.mkdir(mode=0o700)
    (own_daemon.directory / "batches").write_text("")
    assert "the daemon cannot be started: " in start_daemon(str(own_daemon.directory))
    assert ask("reach", 1) is None


def test_a_full_disk(small_disk: Path, monkeypatch: pytest.MonkeyPatch, results: Path) -> None:
    daemon = TestedDaemon(small_disk / "d")
    monkeypatch.setenv("CALLYARD_DAEMON", str(daemon.directory))
    daemon.start()
    filler = small_disk / "filler"
    with executor(results) as ex:
        with filler.open("wb") as file, pytest.raises(OSError):
            while True:
                file.write(b"x" * (1 << 16))
                file.flush()
        future = ex.submit(abs, -1)
        until(lambda: future.key)
        filler.unlink()
        assert future.result() == 1
    daemon.end()


# ------------------------------------------------------------------ files


def test_the_file_of_a_run(tmp_path: Path) -> None:
    path = str(tmp_path / "0.run")
    assert read_run(path) is None
    claim_run(path, ("1", "GPU-x"))
    with pytest.raises(FileExistsError):
        claim_run(path, ())
    record = read_run(path)
    assert record == (this_process(), ("1", "GPU-x"), None)
    write_end(path, RunEnd("failed", 3))
    assert read_run(path) == (this_process(), ("1", "GPU-x"), RunEnd("failed", 3))
    assert os.listdir(tmp_path) == ["0.run"]
    (tmp_path / "0.run").write_text("something else")
    damaged = read_run(path)
    assert damaged is not None
    assert damaged.end == RunEnd("killed")


def test_the_files_of_a_submission(tmp_path: Path) -> None:
    files = JobFiles(str(tmp_path))
    stored = StoredJobs("abc.0-0", 5.0, ["h-1-1", "h-1-2"], {"jobs": [{}, {}]}, {"A": "\udcff"}, None)
    files.save(stored)
    assert files.load() == [stored]
    files.cancel("abc.0-0", 1)
    claim_run(files.run_file("abc.0-0", 0), ())
    files.set_lost("abc.0-0", 0, 1)
    assert (files.cancelled("abc.0-0"), files.lost("abc.0-0")) == ({1}, {0: 1})
    ends = [RunEnd("exited", 0), RunEnd("cancelled")]
    files.close("abc.0-0", ends)
    assert files.load() == [stored._replace(ends=ends)]
    assert sorted(os.listdir(tmp_path / "batches" / "abc.0-0")) == ["ends", "request"]
    with pytest.raises(ValueError, match="is not the token"):
        files.save(stored._replace(token="../x"))
    os.utime(tmp_path / "batches" / "abc.0-0" / "ends", (0, 0))
    assert files.load() == []
