"""What goes wrong with one batch ends the calls of that batch, and nothing else, here and in other processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import noted_calls as calls
import pytest
from cluster import Cluster
from drivers import Driver
from failing_calls import Detached, add
from test_resume import resume, write_down

from callyard import CacheError, Executor, ResourceError, SchedulerError
from callyard.cache.directory import CacheDirectory
from callyard.jobs import submission
from callyard.jobs.find_batches import folders, folders_by_age
from callyard.jobs.spool import BatchDirectory

pytestmark = pytest.mark.once

Make = Callable[..., Executor]
Drive = Callable[..., Driver]


def spooled(cache: Path) -> list[str]:
    """Return the names of what lies in the spool."""
    return sorted(os.listdir(cache / "jobs")) if (cache / "jobs").exists() else []


# ------------------------------------------------------------------ writing


def test_arguments_that_do_not_fit_on_the_disk(slurm: Cluster, detached: Detached, small_disk: Path) -> None:
    """Two arrays at once, because they ask for different things; one of them is too large."""
    cache = small_disk / "cache"
    ex = detached(cache=cache)
    large, other = ex.submit(len, bytes(8 << 20), resource_dict={"cores_per_rank": 2}), ex.submit(add, 1, 2)
    dependent = ex.submit(add, large, 1)
    error = large.exception()
    assert type(error) is CacheError
    assert all(word in str(error) for word in ("'len'", str(cache), "No space left on device"))
    assert type(dependent.exception()) is CacheError
    assert other.result() == 3
    assert ex.submit(len, b"123").result() == 3
    ex.shutdown()
    assert spooled(cache) == [], "half of it does not stay"
    assert detached(cache=cache).submit(add, 2, 2).result() == 4


def test_the_directory_of_the_driver_is_gone(ex: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert [ex.submit(add, 1, 2).result(), ex.submit(add, 1, 3, resource_dict={"cwd": tmp_path}).result()] == [3, 4]


def test_a_path_in_the_import_path(ex: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [tmp_path, *sys.path])  # as Python does, jobs take no notice of it
    assert ex.submit(add, 1, 2).result() == 3


# ------------------------------------------------------------------ what no scheduler can be asked for


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        ({"slurm_cmd_args": "--comment='unclosed"}, "slurm_cmd_args"),
        ({"job_name": "a\0b"}, "job_name must be a text on one line"),
        ({"partition": "a\ud800b"}, "partition has a character in it that this system's encoding lacks"),
        ({"cwd": "/tmp/a\0b"}, "cwd must be a path without NUL"),
        ({"env": {"NAME": "a\ud800b"}}, "env must map names to strings"),
        ({"constraint": object()}, "constraint must be a text on one line"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_cannot_be_asked_for_is_refused_at_submit(ex: Executor, resources: dict[str, Any], words: str) -> None:
    with pytest.raises(ResourceError, match=words):
        ex.submit(add, 1, 2, resource_dict=resources)


# ------------------------------------------------------------------ sending


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no request be made of batches whose calls ask for two cores."""
    real = submission.request_of

    def request_of(folder: BatchDirectory, *rest: Any) -> Any:
        if "cores_per_rank" in folder.batch.resources:
            raise RuntimeError("it cannot be asked for")
        return real(folder, *rest)

    monkeypatch.setattr("callyard.backends.batch.submitter.request_of", request_of)


def test_a_batch_that_cannot_be_sent(poisoned: None, slurm: Cluster, detached: Detached, tmp_path: Path) -> None:
    ex = detached()
    bad, good = ex.submit(add, 1, 2, resource_dict={"cores_per_rank": 2}), ex.submit(add, 3, 4)
    error = bad.exception()
    assert type(error) is SchedulerError
    assert "'add' cannot be submitted: RuntimeError: it cannot be asked for" in str(error)
    assert good.result() == 7
    aside = str(error).rpartition(" ")[2]
    assert os.path.isdir(aside)
    assert aside.startswith(f"{tmp_path}/cache/damaged/")
    said = check(tmp_path / "cache")
    assert said.returncode == 0, "it is out of the way"
    assert f"{aside} was set aside: it cannot be submitted: it cannot be asked for" in said.stdout
    again = detached().submit(add, 1, 2)  # the same call, and it asks for less
    assert again.result() == 3


def check(cache: Path, *options: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "callyard", "check", *options, str(cache)]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


TWO = """
    ex = executor(results)
    bad = ex.submit(calls.noted, journal, "bad", resource_dict={"cores_per_rank": 2})
    wait([bad, ex.submit(calls.noted, journal, "good")])
"""


def change_batch(results: Path, change: Callable[[Path, dict[str, Any]], None]) -> str:
    """Change the file of the batch that asks for two cores; return its token."""
    home = CacheDirectory.open(results)
    [folder] = [folder for folder in folders(home) if "cores_per_rank" in folder.batch.resources]
    path = Path(folder.path, "batch")
    change(path, json.loads(path.read_text()))
    return folder.token


def ask_for_nonsense(path: Path, batch: dict[str, Any]) -> None:
    batch["request"]["resources"]["slurm_cmd_args"] = "--nice='unclosed"
    path.write_text(json.dumps(batch))


def damage(path: Path, batch: dict[str, Any]) -> None:
    path.write_text(json.dumps(batch)[:100])


@pytest.mark.parametrize("change", [ask_for_nonsense, damage])
def test_a_poisoned_batch_is_resumed(
    driver: Drive, make: Make, slurm: Cluster, results: Path, journal: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, change: Callable[[Path, dict[str, Any]], None],
) -> None:  # fmt: skip
    write_down(driver, tmp_path / "killing", monkeypatch, TWO)
    token = change_batch(results, change)
    if change is damage:
        said = check(results)
        assert said.returncode == 1
        assert f"{token}/batch is damaged" in said.stdout
    resuming = resume(results)
    out, errors = resuming.communicate()
    assert resuming.returncode == 1
    assert [each["calls"] for each in json.loads(out)["submitted"]] == [1]
    assert f"moved to {results}/damaged/{token}" in errors
    assert f"{results}/damaged/{token}" in check(results).stdout
    ex = make()
    assert ex.submit(calls.noted, journal, "good").result() == "good"
    assert ex.submit(calls.noted, journal, "bad").result() == "bad"
    assert calls.runs(journal) == {"good": 1, "bad": 1}


def test_a_poisoned_batch_is_attached_to(
    driver: Drive,
    make: Make,
    slurm: Cluster,
    results: Path,
    journal: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An executor submits it for the process that is gone; it cannot, and makes the call itself."""
    write_down(driver, tmp_path / "killing", monkeypatch, TWO)
    token = change_batch(results, ask_for_nonsense)
    ex = make()
    futures = [ex.submit(calls.noted, journal, word) for word in ("good", "bad", "other")]
    assert [future.result() for future in futures] == ["good", "bad", "other"]
    assert calls.runs(journal) == {"good": 1, "bad": 1, "other": 1}
    assert f"{results}/damaged/{token}" in check(results).stdout
    assert token not in [folder.token for folder in folders_by_age(CacheDirectory.open(results))]
