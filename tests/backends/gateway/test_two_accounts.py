"""From one account to another, by SSH, onto Slurm: a cut of the link, a killed driver, and runs after that."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from accounts import NAMESPACE

pytestmark = [pytest.mark.once, pytest.mark.needs("ssh", "slurm", "accounts")]


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that the other account may enter."""
    path = Path(tempfile.mkdtemp(prefix="callyard-", dir="/tmp"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


def test_a_graph_survives_a_cut_and_a_killed_driver(place: Path) -> None:
    program = Path(__file__).parent / "two_accounts.py"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    words = [*NAMESPACE, sys.executable, str(program), str(place)]
    done = subprocess.run(words, env=environment, stdout=-1, stderr=subprocess.STDOUT, text=True, check=False)
    print(done.stdout)  # seen if the test fails
    assert done.returncode == 0
