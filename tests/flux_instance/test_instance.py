"""The test instance is what it says it is."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from instance import Instance
from this_machine import until


def test_a_job_runs_on_a_named_node(flux: Instance, tmp_path: Path) -> None:
    argv = ["flux", "submit", "--wait", "--requires=host:n3", f"--output={tmp_path}/log", "--env=NODE={{node.name}}"]
    subprocess.run([*argv, "sh", "-c", "echo $NODE"], check=True, capture_output=True)
    assert "n3\n" in (tmp_path / "log").read_text()


def test_what_is_left_is_found_and_ended(instance: Instance) -> None:
    job = instance.run("submit", "--urgency=hold", "true", extra={"FLUX_F58_FORCE_ASCII": "1"}).strip()
    assert instance.restore() == {job: "SCHED"}
    assert instance.restore() == {}


@pytest.mark.needs("flux")
def test_a_killed_leader_starts_again_and_knows_what_it_had_saved(short_path: Path) -> None:
    with Instance(short_path / "i", nodes=1) as own:
        job = own.run("submit", "--urgency=hold", "true", extra={"FLUX_F58_FORCE_ASCII": "1"}).strip()
        own.run("shutdown", "--quiet")
        until(lambda: not own.is_up())
        own.start()
        assert own.jobs() == {job: "SCHED"}
