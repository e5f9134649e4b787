"""`callyard doctor --host`: the steps to another computer, and what to do where one fails."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest
from sshd import Server

import callyard
from callyard.cli import main


def words(sshd: Server, host: str) -> list[str]:
    source = Path(callyard.__file__).parents[1]
    place = sshd.directory / "doctor-there"
    return ["doctor", "--host", host, "--python", sys.executable, "--setup", f"export PYTHONPATH='{source}'",
            "--directory", str(place), "--ssh", shlex.join(sshd.command)]  # fmt: skip


def test_the_steps_to_a_host(sshd: Server, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words(sshd, "plain"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)["facts"]
    assert facts["interpreter"]["how"] == sys.executable
    assert facts["directory"]["value"] == str(sshd.directory / "doctor-there")
    assert facts["callyard"]["value"] == callyard.__version__
    assert facts["cores"]["value"] >= 1


def test_a_step_that_fails(sshd: Server, capsys: pytest.CaptureFixture[str]) -> None:
    name = sshd.account("unknown-to-doctor", known="nothing")
    assert main(words(sshd, name)) == 1
    said = capsys.readouterr().out
    assert "the key of the host is not known yet; connect once by hand" in said
    assert "Calls cannot run here." in said
