"""The process of a job and its call, without a scheduler."""

from __future__ import annotations

import json
import operator
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from callyard.cache.claims import Claim, Claims
from callyard.cache.directory import CacheDirectory
from callyard.cache.messages import RunRequest
from callyard.jobs.batch import Batch, CallFile, CallPosition, StoredPickle
from callyard.jobs.spool import BatchDirectory
from callyard.schedulers.slurm.scheduler import SlurmScheduler
from callyard.version import VERSION

TOKEN, KEY, JOB = "0123456789abcdef", "ab" * 20, "7"


@pytest.fixture
def folder(tmp_path: Path) -> BatchDirectory:
    """A batch of one call, as its submitter writes it."""
    home = CacheDirectory.open(tmp_path / "cache")
    request = RunRequest(
        directory=home.path, inode=home.inode(), trust=None, key=KEY, name="add", afresh=False, failures=False,
        references=(), code_only=False, source="", facts={},
    )  # fmt: skip
    call = CallFile(
        data=(StoredPickle(pickle.dumps((operator.add, (1, 2), {}))),), apart=None, inputs=(), order=request,
        meaning=None, initializer=None, options={}, run_time=None, memory=None, ranks=1, launcher=(), wait=60.0,
    ).dump()  # fmt: skip
    batch = Batch(
        token=TOKEN, scheduler="Slurm", calls=(CallPosition("call", "add", 0, len(call)),), elements=None,
        calls_per_job=1, needs=(), resources={}, environment={}, restart_limit=0, paths=tuple(sys.path),
        cwd=str(tmp_path), umask=0o077, submitter="", created=0.0,
        python=f"{sys.version_info[0]}.{sys.version_info[1]}", callyard=VERSION, request={},
    )  # fmt: skip
    made = BatchDirectory(home, TOKEN)
    made.create(batch, [call], "")
    return made


def run_job(folder: BatchDirectory) -> int:
    names = SlurmScheduler().site().job_variables.environment()
    command = [sys.executable, "-c", "from callyard.worker.job import main; main()", folder.home.path, "", TOKEN]
    environment = {**os.environ, **names, "SLURM_JOB_ID": JOB}
    return subprocess.run(command, env=environment, timeout=60, check=False).returncode


def claim_from_another_node(home: CacheDirectory) -> None:
    """Leave the claim of an earlier start of the job, of which nobody can tell here that it has ended."""
    claim = Claims(home).take(KEY, "add", job_id=JOB)
    assert isinstance(claim, Claim)
    Path(home.path, "claims", KEY).write_text(json.dumps(vars(claim.owner.replace(host="another", boot="b007"))))
    holder = Claims(home).holder(KEY)
    assert holder is not None
    assert holder.state() == "unknown"


def test_a_claim_of_the_same_job_from_another_node_is_no_obstacle(folder: BatchDirectory) -> None:
    claim_from_another_node(folder.home)
    assert run_job(folder) == 0
    end = folder.ended(0)
    assert end is not None
    assert end.state == "finished"
    assert Claims(folder.home).holder(KEY) is None


def test_a_claim_of_the_same_job_goes_if_its_result_is_stored_already(folder: BatchDirectory) -> None:
    """The job was started again between the storing of the result and the release of the claim."""
    assert run_job(folder) == 0
    os.unlink(f"{folder.path}/0.end")
    stored = os.stat(folder.home.record(KEY)).st_ino
    claim_from_another_node(folder.home)
    assert run_job(folder) == 0
    end = folder.ended(0)
    assert end is not None
    assert end.state == "finished"
    assert os.stat(folder.home.record(KEY)).st_ino == stored  # the call has not run again
    assert Claims(folder.home).holder(KEY) is None
