"""A job that the scheduler does not know counts as there as long as it touches a file."""

from __future__ import annotations

import os
from pathlib import Path

from callyard.cache.claims import Claim, Claims
from callyard.cache.directory import CacheDirectory
from callyard.jobs.batch import CallStart
from callyard.jobs.heartbeats import Heartbeats
from callyard.jobs.spool import BatchDirectory


def test_signs_count_by_the_clock_of_who_looks() -> None:
    signs = Heartbeats(5, 100.0)
    assert signs.stillness(5, 130.0) == 30
    assert signs.stillness(6, 140.0) == 0
    assert signs.stillness(6, 150.0) == 10
    assert signs.stillness(None, 160.0) == 20  # the file is gone
    assert Heartbeats(None, 0.0).stillness(None, 50.0) == 50


def test_a_beat_moves_the_heart(tmp_path: Path) -> None:
    folder = BatchDirectory(CacheDirectory.open(tmp_path), "0" * 16)
    os.makedirs(folder.path, mode=0o700)
    os.chmod(f"{tmp_path}/jobs", 0o700)
    assert folder.heart(0) is None
    folder.beat(0)  # nothing is made
    assert os.listdir(folder.path) == []
    folder.begin(0, CallStart("1", "node", "key"))
    os.utime(f"{folder.path}/0.begun", (1, 1))
    before = folder.heart(0)
    folder.beat(0)
    assert before != folder.heart(0)


def test_only_the_owner_of_a_claim_moves_its_heart(tmp_path: Path) -> None:
    claims = Claims(CacheDirectory.open(tmp_path))
    assert claims.last_beat("key") is None
    claims.beat("key", "1")
    claim = claims.take("key", "call", job_id="1")
    assert isinstance(claim, Claim)
    os.utime(tmp_path / "claims/key", (1, 1))
    before = claims.last_beat("key")
    claims.beat("key", "2")
    assert claims.last_beat("key") == before
    claims.beat("key", "1")
    assert claims.last_beat("key") != before
    claim.release()
    assert claims.last_beat("key") is None
