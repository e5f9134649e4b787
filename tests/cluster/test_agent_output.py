"""How the output of an agent gets into the log of its job."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from callyard.cluster.agent_output import log_path

LIMIT = 1 << 12


def agent(log: Path, body: str) -> subprocess.Popen[bytes]:
    """Start a process with this body, whose output goes to the log."""
    code = (
        "import os, signal, sys, time\n"
        "from callyard.cluster.agent_output import keep_output\n"
        f"keep_output({str(log)!r}, {LIMIT})\n{body}"
    )
    return subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1)


def test_the_last_words_and_the_exit_code(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with agent(log, "print('first', flush=True); sys.exit('last words')") as process:
        assert process.wait(60) == 1
    assert log.read_text() == "first\nlast words\n"
    assert log.stat().st_mode & 0o777 == 0o600


def test_what_was_in_the_log_stays_and_the_limit_is_kept(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("said by the job\n")
    with agent(log, "print('\\n'.join(f'line {i}' for i in range(5000)))") as process:
        assert process.wait(60) == 0
    text = log.read_text()
    assert text.startswith("said by the job\nline 0\n")
    assert text.endswith("line 4999\n")
    assert "bytes were left out here" in text
    assert len(text) <= LIMIT


def test_signals_reach_the_agent(tmp_path: Path) -> None:
    log = tmp_path / "log"
    body = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); print('ready', flush=True); signal.pause()"
    with agent(log, body) as process:
        while not log.exists() or "ready" not in log.read_text():
            assert process.poll() is None
        process.terminate()
        assert process.wait(60) == 7


def test_it_ends_by_the_signal_of_the_agent(tmp_path: Path) -> None:
    with agent(tmp_path / "log", "os.kill(os.getpid(), signal.SIGKILL)") as process:
        assert process.wait(60) == -signal.SIGKILL


def test_without_a_log_the_output_stays_where_it_was(tmp_path: Path) -> None:
    with agent(tmp_path / "nowhere" / "log", "print('here')") as process:
        assert process.communicate(timeout=60)[0] == b"here\n"
        assert process.returncode == 0


def test_the_path_of_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLYARD_NODE", "n1")
    assert log_path("/logs/t-{element}.log", apart=False) == "/logs/t-0.log"
    assert log_path("/logs/t-{element}.log", apart=True) == f"/logs/t-0.{os.environ['CALLYARD_NODE']}.log"
