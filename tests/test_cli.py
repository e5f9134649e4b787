"""The command line, in this process and as users start it."""

from __future__ import annotations

import json
import os
import platform
import stat
import subprocess
import sys
from importlib import metadata

import pytest

from penstock.cli import doctor, main
from penstock.system import machine


def diagnose(capsys, *options: str) -> tuple[int, str]:
    status = main(["doctor", *options])
    return status, capsys.readouterr().out


def facts(capsys) -> dict:
    _, text = diagnose(capsys, "--json")
    return json.loads(text)["facts"]


# ------------------------------------------------------------------ the commands


def test_python_m_penstock():
    command = [sys.executable, "-m", "penstock", "doctor", "--json"]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    assert run.returncode == 0
    assert json.loads(run.stdout)["works"] is True


def test_help_lists_the_commands(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert "doctor" in capsys.readouterr().out


@pytest.mark.parametrize("argv", [[], ["docter"], ["doctor", "--loud"]])
def test_a_wrong_command_line_ends_with_2(capsys, argv):
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 2
    assert "usage: penstock" in capsys.readouterr().err


def test_the_version(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("penstock ")


# ------------------------------------------------------------------ doctor


def test_doctor_tells_what_the_executor_uses(capsys, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-1,GPU-2")
    found, here = facts(capsys), machine.detect()
    assert found["cores"]["value"] == here.cores
    assert found["memory"]["value"] == pytest.approx(here.memory, abs=0.01)
    assert found["GPUs"] == {"value": ["GPU-1", "GPU-2"], "how": "CUDA_VISIBLE_DEVICES", "advice": ""}


def test_doctor_tells_versions(capsys):
    found = facts(capsys)
    assert found["python"]["value"] == platform.python_version()
    assert found["cloudpickle"]["value"] == metadata.version("cloudpickle")


def test_text_and_json_tell_the_same(capsys):
    _, text = diagnose(capsys)
    for name, fact in facts(capsys).items():
        (row,) = [line for line in text.splitlines() if line.startswith(name + "  ")]
        assert fact["how"] in row


def test_text_is_aligned(capsys):
    _, text = diagnose(capsys)
    table, *_ = text.split("\n\n")
    rows = table.splitlines()
    column = rows[0].index(sys.executable)
    assert {row[column - 2 : column] for row in rows} == {"  "}


def test_what_is_missing_comes_with_advice(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    status, text = diagnose(capsys)
    assert status == 0
    assert "  MPI launchers: calls with several ranks need an MPI library" in text
    assert facts(capsys)["MPI launchers"]["value"] == []


def test_a_launcher_in_the_path_is_found(capsys, monkeypatch, tmp_path):
    launcher = tmp_path / "srun"
    launcher.touch()
    launcher.chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert facts(capsys)["MPI launchers"] == {"value": [str(launcher)], "how": "in PATH", "advice": ""}


def test_what_is_needed_and_missing_is_a_failure(capsys, monkeypatch):
    monkeypatch.delattr(os, "fork")
    status, text = diagnose(capsys)
    assert status == 1
    assert "  fork: workers need Linux or macOS" in text
    assert text.endswith("Calls cannot run here.\n")


@pytest.mark.needs("linux")
def test_what_is_useful_and_missing_is_no_failure(capsys, monkeypatch):
    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(os, "pidfd_open", refuse)
    monkeypatch.delattr(os, "memfd_create")
    status, text = diagnose(capsys)
    assert status == 0
    assert "pidfd: Linux has it since 5.3" in text
    assert "memfd: Linux has it since 3.17" in text


def test_systemd_can_delegate_a_group(capsys, monkeypatch):
    monkeypatch.setattr(doctor.memory, "delegated", lambda: None)
    monkeypatch.setattr(doctor, "_systemd", lambda: True)
    found = facts(capsys)["memory limits"]
    assert found["value"] == "sampling"
    assert "systemd-run --user --scope --property=Delegate=yes" in found["advice"]
