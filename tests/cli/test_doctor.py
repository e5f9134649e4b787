"""What `callyard doctor` says of a machine."""

from __future__ import annotations

import json
import os
import platform
import stat
import sys
from importlib import metadata

import pytest

from callyard.cli import doctor, main
from callyard.system import machine


def diagnose(capsys, *options: str) -> tuple[int, str]:
    status = main(["doctor", *options])
    return status, capsys.readouterr().out


def facts(capsys) -> dict:
    _, text = diagnose(capsys, "--json")
    return json.loads(text)["facts"]


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
    monkeypatch.setattr(doctor.memory_control, "delegated", lambda: None)
    monkeypatch.setattr(doctor, "_systemd", lambda: True)
    found = facts(capsys)["memory limits"]
    assert found["value"] == "sampling"
    assert "systemd-run --user --scope --property=Delegate=yes" in found["advice"]


# ------------------------------------------------------------------ Slurm


def sinfo(directory, text: str) -> None:
    for name in ("sinfo", "sbatch"):
        program = directory / name
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o700)


def test_nothing_is_said_of_slurm_where_it_is_not_installed(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "Slurm" not in facts(capsys)


def test_what_slurm_has(capsys, monkeypatch, tmp_path):
    sinfo(tmp_path, "echo 'cpu|cpu*|4|64|256000|(null)'")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    fact = facts(capsys)["Slurm"]
    assert fact["value"] == "4 nodes, 256 cores in the default partition"
    assert "each call becomes a job" in fact["how"]
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "c1")
    assert facts(capsys)["Slurm"]["how"] == "calls go to the nodes around this process: 1 node of Slurm job 7, 1 core"


def test_slurm_does_not_answer(capsys, monkeypatch, tmp_path):
    sinfo(tmp_path, "echo 'sinfo: error: Unable to contact slurm controller' >&2; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    status, text = diagnose(capsys)
    assert status == 0
    assert "Unable to contact slurm controller" in text
    assert facts(capsys)["Slurm"]["value"] is None
