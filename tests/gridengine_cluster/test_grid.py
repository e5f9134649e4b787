"""The test cluster is what it says it is."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from grid import Grid
from this_machine import until


def test_a_job_runs_as_the_user_of_the_tests(gridengine: Grid, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(f"#!/bin/bash\nid -u > {tmp_path}/inside\nhostname\n")
    argv = ["qsub", "-terse", "-sync", "y", "-j", "y", "-o", f"{tmp_path}/log", str(script)]
    subprocess.run(argv, check=True, capture_output=True)
    assert (tmp_path / "inside").read_text() == "1000\n"
    assert (tmp_path / "inside").stat().st_uid == os.getuid()
    assert (tmp_path / "log").read_text() == "gridhost\n"


def test_what_is_left_is_found_and_ended(grid: Grid) -> None:
    script = grid.directory / "home" / "script"
    script.write_text("#!/bin/bash\nsleep 1000\n")
    array = grid.run("qsub", "-terse", "-h", "-t", "3-4", str(script)).partition(".")[0]
    job = grid.run("qsub", "-terse", "-o", "/dev/null", "-j", "y", str(script)).strip()
    until(lambda: grid.jobs().get(job) == "r")
    assert grid.restore(0) == {f"{array}.3": "hqw", f"{array}.4": "hqw", job: "r"}
    assert grid.restore() == {}
