"""Other computers with troubles of their own: full disks, clocks that differ, shared connections that are dead."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from cluster import Cluster
from gate import Gate, until
from local_daemons import TestedDaemon
from relay import Relay
from sshd import Server

import callyard
from callyard import CallyardError, Executor, Local, Slurm, VersionMismatch
from callyard.backends.gateway import connection

PATIENCE = 60
DAY = 86_400


def setup_for(variables: Mapping[str, str], *places: Path) -> list[str]:
    """Return lines for the shell there, with these variables and places of modules."""
    modules = ":".join(map(str, [*places, Path(callyard.__file__).parents[1]]))
    return [f"export {name}='{value}'" for name, value in {**variables, "PYTHONPATH": modules}.items()]


# ------------------------------------------------------------------ disks and clocks


def test_a_full_disk_there(sshd: Server, small_disk: Path) -> None:
    """What needs room fails and says so, and what needs none goes on."""
    host = sshd.host(sshd.account("full"), directory=small_disk / "there")
    with Executor(backend=Local(detached=False, host=host)) as executor:
        assert executor.submit(abs, -1).result(PATIENCE) == 1
        fill(small_disk / "filler")
        large = executor.submit(len, os.urandom(1 << 20))
        with pytest.raises(CallyardError, match=r"cannot be used in .*there.*cannot be stored: No space left"):
            large.result(PATIENCE)
        assert executor.submit(abs, -2).result(PATIENCE) == 2
        (small_disk / "filler").unlink()
        assert executor.submit(len, os.urandom(1 << 20)).result(PATIENCE) == 1 << 20


def test_the_log_of_a_gateway_is_told_here(
    sshd: Server, small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As where a disk is full on which the daemon there has to write calls down."""
    daemon = TestedDaemon(small_disk / "d")
    monkeypatch.setenv("CALLYARD_DAEMON", str(daemon.directory))
    host = sshd.host("plain", setup=setup_for({"CALLYARD_DAEMON": str(daemon.directory)}))
    with Executor(backend=Local(host=host)) as executor:
        assert executor.submit(abs, -1).result(PATIENCE) == 1
        fill(small_disk / "filler")
        future = executor.submit(abs, -2)
        until(lambda: "callyard: on plain: 1 calls are submitted" in caplog.text)
        assert "No space left on device" in caplog.text
        (small_disk / "filler").unlink()
        assert future.result(PATIENCE) == 2
    fill(small_disk / "filler")
    executor = Executor(backend=Local(host=host), cache=tmp_path / "results")
    executor.submit(abs, -3)
    executor.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    executor.shutdown()
    assert "callyard: on plain: the scheduler has not taken 1 calls yet; `callyard resume" in caplog.text
    (small_disk / "filler").unlink()
    daemon.end()


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file, pytest.raises(OSError):
        while True:
            file.write(bytes(1 << 16))


@pytest.mark.parametrize(("days", "caches"), [(-1, ["results", "results"]), (30, [None])])
def test_clocks_that_differ(
    sshd: Server, slurm: Cluster, tmp_path: Path, days: int, caches: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other side's processes have a clock of their own; that of its files is the one here."""
    (tmp_path / "clock").mkdir()
    (tmp_path / "clock/sitecustomize.py").write_text(
        f"import time\nbefore = time.time\ntime.time = lambda: before() + {days * DAY}\n"
    )
    setup = setup_for(slurm.environment, tmp_path / "clock")
    chosen = Slurm(host=sshd.host("plain", setup=setup, directory=tmp_path / "there"), poll=(0.2, 1), result_grace=2)
    monkeypatch.chdir(tmp_path)
    for cache in caches:
        with Executor(backend=chosen, cache=cache) as executor:
            first = executor.submit(abs, -3)
            assert executor.submit(pow, first, 2, resource_dict={"run_time": 60}).result(PATIENCE) == 9
    assert first.cached is (None if cache is None else True)


def test_paths_below_the_home_there(sshd: Server, daemon: TestedDaemon) -> None:
    """Of a computer with other homes than this one; start-up files and `setup` may have gone elsewhere."""
    name = sshd.account("homely")
    home = sshd.directory / name
    host = sshd.host(name, directory="work", setup=["cd /", *setup_for({"CALLYARD_DAEMON": str(daemon.directory)})])
    for detached in (False, True):
        with Executor(backend=Local(detached=detached, host=host)) as executor:
            asked = {"cwd": "~/runs", "error_log_file": "~/errors"}
            assert executor.submit(os.getcwd).result(PATIENCE) == str(home / "work")
            assert executor.submit(os.getcwd, resource_dict=asked).result(PATIENCE) == str(home / "runs")
            with pytest.raises(ValueError, match="invalid literal"):
                executor.submit(int, "x", resource_dict=asked).result(PATIENCE)
    assert (home / "errors").read_text().count("invalid literal") == 2


# ------------------------------------------------------------------ connections


@contextmanager
def shared_connection(sshd: Server, name: str) -> Iterator[subprocess.Popen[bytes]]:
    """A connection that others use, as a user opens one who has a second factor."""
    master = subprocess.Popen([*sshd.command, "-MN", name], stdin=-3, stdout=-3, stderr=-3)
    try:
        until((sshd.directory / f"{name}.socket").is_socket)
        yield master
    finally:
        master.kill()
        master.wait()


def sharing(sshd: Server, name: str) -> str:
    return sshd.account(name, options=f"ControlPath {sshd.directory}/{name}.socket")


def refuse(sshd: Server, name: str) -> None:
    """Let nobody log in by the key of an account any more."""
    authorized = sshd.directory / "authorized"
    lines = authorized.read_text().splitlines(keepends=True)
    authorized.write_text("".join(line for line in lines if f'/{name}"' not in line))


def test_a_shared_connection_is_used(sshd: Server) -> None:
    """Nothing else would do: by now the login is refused, as one with a second factor would be."""
    name = sharing(sshd, "shared")
    with shared_connection(sshd, name):
        refuse(sshd, name)
        with Executor(backend=Local(detached=False, host=sshd.host(name))) as executor:
            assert executor.submit(abs, -1).result(PATIENCE) == 1


def test_a_shared_connection_that_has_ended(sshd: Server) -> None:
    """Its socket is left."""
    name = sharing(sshd, "ended")
    with shared_connection(sshd, name) as master:
        master.kill()
    with Executor(backend=Local(detached=False, host=sshd.host(name))) as executor:
        assert executor.submit(abs, -1).result(PATIENCE) == 1


def test_a_shared_connection_that_answers_nobody(sshd: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_START", 1.0)
    name = sharing(sshd, "stopped")
    with shared_connection(sshd, name) as master:
        master.send_signal(signal.SIGSTOP)
        with Executor(backend=Local(detached=False, host=sshd.host(name))) as executor:
            with pytest.raises(CallyardError, match=r"nothing was heard for 1 s.*`ssh -O exit stopped`"):
                executor.submit(abs, -1).result(PATIENCE)


def test_a_login_that_is_refused_later_is_not_tried_again(
    sshd: Server, slurm: Cluster, relay: Relay, tmp_path: Path, gate: Gate
) -> None:
    """The calls go on there, and the attempts are counted."""
    name = sshd.account("refused-later", port=relay.port)
    attempts, program = tmp_path / "attempts", tmp_path / "ssh"
    program.write_text(f'#!/bin/sh\necho >> "{attempts}"\nexec {shlex.join(sshd.command)} "$@"\n')
    program.chmod(0o700)
    host = replace(sshd.host(name, setup=setup_for(slurm.environment)), command=str(program))
    with Executor(backend=Slurm(host=host, poll=(0.2, 1)), cache=tmp_path / "results") as executor:
        future = executor.submit(gate.hold, 7)
        gate.arrived()
        refuse(sshd, name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            relay.hang_up()
            error = future.exception(PATIENCE)
        assert "the login was refused, and is not tried again" in str(error)
        assert "calls that were submitted go on there: make them again later" in str(error)
        assert isinstance(executor.submit(abs, -1).exception(PATIENCE), CallyardError)
    assert len(attempts.read_text()) == 2
    gate.open()
    until(lambda: not slurm.jobs())


def test_another_python_there(sshd: Server, tmp_path: Path) -> None:
    python = tmp_path / "python"
    said = '{"python": "3.9", "executable": "/usr/bin/python3.9", "callyard": "0.1"}'
    python.write_text(f"#!/bin/sh\nprintf '\\n%s %s\\n' \"$3\" '{said}'\n")
    python.chmod(0o700)
    with Executor(backend=Local(detached=False, host=sshd.host("plain", python=python))) as executor:
        with pytest.raises(VersionMismatch, match=r"/usr/bin/python3.9 on plain is Python 3.9, and this is 3\."):
            executor.submit(abs, -1).result(PATIENCE)
