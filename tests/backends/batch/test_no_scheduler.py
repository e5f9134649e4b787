"""A machine that is not a login node."""

from __future__ import annotations

from pathlib import Path

import pytest

from callyard import Executor, SchedulerError, Slurm

NOT_INSTALLED = r"'abs' was not run: Slurm is not installed here: there is no scontrol .* is this a login node"
NOT_CONFIGURED = r"'abs' was not run: no Slurm cluster is configured here \(scontrol: {}.*\): set SLURM_CONF"


def both_say(cache: Path, words: str) -> None:
    """Let a call fail, and one that waits for it."""
    with Executor(backend=Slurm(detached=True), cache=cache) as ex:
        one = ex.submit(abs, -1)
        other = ex.submit(abs, one)
        for future in one, other:
            with pytest.raises(SchedulerError, match=words):
                future.result()


def test_there_are_no_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    both_say(tmp_path / "results", NOT_INSTALLED)


@pytest.mark.needs("slurm")
def test_there_is_no_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_CONF", raising=False)
    if Path("/etc/slurm/slurm.conf").exists():
        pytest.skip("this machine is part of a cluster")
    both_say(tmp_path / "results", NOT_CONFIGURED.format("Could not establish a configuration source"))


@pytest.mark.parametrize("name", ["", "nowhere/slurm.conf"])
def test_the_configuration_is_not_where_it_is_said_to_be(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"{tmp_path}/{name}" if name else ""
    monkeypatch.setenv("SLURM_CONF", path)
    both_say(tmp_path / "results", NOT_CONFIGURED.format(f"cannot stat file '{path}'"))


@pytest.mark.needs("slurm")
def test_the_configuration_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slurm.conf").write_text("ClusterName=here\n")
    monkeypatch.setenv("SLURM_CONF", f"{tmp_path}/slurm.conf")
    both_say(tmp_path / "results", NOT_CONFIGURED.format("Unable to process configuration file"))


@pytest.mark.needs("slurm")
def test_nodes_cannot_be_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slurm.conf").write_text("ClusterName=here\n")
    monkeypatch.setenv("SLURM_CONF", f"{tmp_path}/slurm.conf")
    monkeypatch.setenv("CALLYARD_RUNS", str(tmp_path / "runs"))
    with Executor(backend=Slurm(nodes=1)) as ex:
        with pytest.raises(
            SchedulerError, match=r"no Slurm cluster is configured here \(scontrol: .*\): set SLURM_CONF"
        ):
            ex.submit(abs, -1).result()
