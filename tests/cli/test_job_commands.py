"""The commands on calls that are jobs, of a real cluster and of this machine: queued, running, failed, made again."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import drivers
import local_calls
import noted_calls as calls
import pytest
from gate import Gate
from this_machine import until

from callyard import Cache, Executor
from callyard.report.runs import runs_at

Command = Callable[..., Any]


class Kind(NamedTuple):
    """A kind of jobs.

    Attributes:
        executor: makes an executor of a cache.
        held: resources of a call that waits.
        job: the pattern of an ID.
    """

    executor: Callable[..., Executor]
    held: dict[str, Any]
    job: str


KINDS = {
    "slurm": Kind(drivers.executor, {"slurm_cmd_args": ["--hold"]}, r"\d+(_\d+)?"),
    "daemon": Kind(local_calls.executor, {"begin": "now+7days"}, r"[\w.-]+-[0-9a-f]{16}-\d+"),
}


class Submitted(NamedTuple):
    """Calls in each state, and their cache."""

    ex: Executor
    cache: Path
    done: str  # their keys, or IDs
    running: str
    dependent: str  # takes the results of both
    waiting: str
    failed: str


@pytest.fixture(
    scope="session",
    params=[pytest.param(name, marks=[pytest.mark.needs(name), pytest.mark.once]) for name in KINDS],
)
def started(request: pytest.FixtureRequest) -> str:
    """The name of a kind whose daemons run: of the session, as they stay after a test."""
    request.getfixturevalue({"slurm": "cluster", "daemon": "running_daemon"}[request.param])
    return str(request.param)


@pytest.fixture
def kind(started: str, request: pytest.FixtureRequest) -> Kind:
    request.getfixturevalue(started)
    return KINDS[started]


@pytest.fixture
def make(kind: Kind, results: Path) -> Iterator[Callable[..., Executor]]:
    made: list[Executor] = []

    def create() -> Executor:
        made.append(kind.executor(results))
        return made[-1]

    yield create
    for each in made:
        each.kill_workers()
        each.shutdown()


@pytest.fixture
def submitted(
    make: Callable[..., Executor], kind: Kind, results: Path, journal: str, gate: Gate, callyard: Command
) -> Submitted:
    ex = make()
    done = ex.submit(calls.noted, journal, "done")
    assert done.result() == "done"
    running = ex.submit(calls.held, journal, gate, "running")
    dependent = ex.submit(calls.noted, journal, "dependent", running, done)
    waiting = ex.submit(calls.noted, journal, "waiting", resource_dict=kind.held)
    failed = ex.submit(calls.failing, journal, "failed")
    assert isinstance(failed.exception(), ValueError)
    gate.arrived()
    until(lambda: waiting.job_id and dependent.job_id)
    job = f"job {dependent.job_id}"
    (unkeyed,) = [row["key"] for row in listed(callyard, results) if row["where"] == job]
    return Submitted(ex, results, done.key, running.key, unkeyed, waiting.key, failed.key)


def listed(callyard: Command, cache: Path, *options: str) -> list[dict[str, Any]]:
    ended = callyard("list", str(cache), "--json", *options)
    assert ended.status == 0
    rows: list[dict[str, Any]] = json.loads(ended.out)
    return rows


def fields(text: str) -> dict[str, str]:
    """The names and values that `show` prints."""
    return dict(re.findall(r"^(\w+) +(\S.*)$", text, re.MULTILINE))


# ------------------------------------------------------------------ looking at calls that have no result


def test_show_a_call_in_each_state(callyard: Command, submitted: Submitted, kind: Kind) -> None:
    shown = {
        name: fields(callyard("show", str(submitted.cache), getattr(submitted, name)[:10]).out)
        for name in ("done", "running", "dependent", "waiting", "failed")
    }
    states = {name: each["state"] for name, each in shown.items()}
    assert states == {
        "done": "finished", "running": "running", "dependent": "queued", "waiting": "queued", "failed": "failed"
    }  # fmt: skip
    for name, each in shown.items():
        assert each["key"].startswith(getattr(submitted, name)), name
        assert re.fullmatch(kind.job, each["job"]), name
        assert ("began" in each) == ("took" in each) == (states[name] != "queued"), name
    assert shown["dependent"]["inputs"] == "held, noted"
    assert shown["failed"]["error"] == "ValueError: failed"
    assert Path(shown["failed"]["log"]).read_text() == "about to fail\n"


def test_show_as_json(callyard: Command, submitted: Submitted) -> None:
    waiting = json.loads(callyard("show", str(submitted.cache), submitted.waiting, "--json").out)
    assert (waiting["state"], waiting["created"], waiting["seconds"], waiting["error"]) == ("queued", None, None, None)
    assert waiting["submitted"] <= time.time()
    failed = json.loads(callyard("show", str(submitted.cache), submitted.failed, "--json").out)
    assert failed["error"] == "ValueError('failed')"
    assert failed["traceback"].startswith("Traceback")
    done = json.loads(callyard("show", str(submitted.cache), submitted.done, "--json").out)
    assert done["job"]


def test_explain_a_call_without_a_result(callyard: Command, submitted: Submitted) -> None:
    for key in (submitted.running, submitted.waiting, submitted.failed):
        ended = callyard("explain", str(submitted.cache), key[:10])
        assert (ended.status, ended.err) == (0, "")
        assert f"key {key}\nwhat went into the key:\n" in ended.out
        assert "argument word" in ended.out
    assert (
        f"from the nearest other entry, {submitted.done}, it differs in:"
        in callyard("explain", str(submitted.cache), submitted.waiting).out
    )
    ended = callyard("explain", str(submitted.cache), submitted.dependent)
    assert ended.status == 1
    assert "its key will be made from the results of its inputs (held, noted)" in ended.err


def test_the_report_has_calls_without_a_result(callyard: Command, submitted: Submitted) -> None:
    [run] = runs_at(str(submitted.cache))
    assert sorted((call.name, call.state) for call in run.calls.values()) == [
        ("failing", "failed"), ("held", "running"), ("noted", "finished"), ("noted", "waiting"), ("noted", "waiting"),
    ]  # fmt: skip
    ended = callyard("graph", str(submitted.cache))
    assert (ended.status, ended.out.count('waiting"]')) == (0, 2)


def test_logs_of_a_call_that_has_not_printed(callyard: Command, submitted: Submitted) -> None:
    ended = callyard("logs", str(submitted.cache), submitted.waiting)
    assert (ended.status, ended.err) == (
        1,
        f"callyard logs: {submitted.waiting}, which is queued, has printed nothing yet\n",
    )


def test_a_beginning_of_several_keys(callyard: Command, submitted: Submitted) -> None:
    for command in ("show", "explain", "logs", "retry", "cancel"):
        ended = callyard(command, str(submitted.cache), "")
        assert ended.status == 1
        assert "several keys begin with ''" in ended.err or "give at least 6 characters" in ended.err


# ------------------------------------------------------------------ times


def test_when_a_call_began_and_how_long_it_took(callyard: Command, submitted: Submitted, gate: Gate) -> None:
    rows = {row["key"]: row for row in listed(callyard, submitted.cache)}
    for key in (submitted.waiting, submitted.dependent):
        assert (rows[key]["created"], rows[key]["seconds"]) == (None, None)
    took = rows[submitted.failed]["seconds"]
    assert took >= 0
    later = {row["key"]: row for row in listed(callyard, submitted.cache)}
    assert later[submitted.failed]["seconds"] == took  # it has ended
    running = rows[submitted.running]
    assert later[submitted.running]["created"] == running["created"]
    assert later[submitted.running]["seconds"] > running["seconds"]


@pytest.mark.parametrize("started", ["slurm"], indirect=True)
@pytest.mark.needs("slurm")
@pytest.mark.once
def test_a_requeued_call_began_when_it_was_started_again(
    callyard: Command, make: Callable[..., Executor], results: Path, journal: str, gate: Gate
) -> None:
    future = make().submit(calls.held, journal, gate, "again", resource_dict={"restart_limit": 1})
    gate.arrived()
    (first,) = listed(callyard, results)
    subprocess.run(["scontrol", "requeue", str(future.job_id)], check=True)
    gate.arrived()
    (second,) = listed(callyard, results)
    assert (first["state"], second["state"]) == ("running", "running")
    assert second["created"] > first["created"]
    gate.open()
    assert future.result() == "again"


# ------------------------------------------------------------------ submitting again


@pytest.mark.parametrize("other", [True, False], ids=["by another process", "by the same"])
def test_a_failed_call_that_is_submitted_again_is_listed_once(
    callyard: Command, make: Callable[..., Executor], results: Path, journal: str, gate: Gate, other: bool
) -> None:
    first = make()
    together = [first.submit(calls.held, journal, gate, "held"), first.submit(calls.failing, journal, "failed")]
    assert isinstance(together[1].exception(), ValueError)  # its batch goes on with the other call
    if other:
        gate.open()
        together[0].result()
    again = (make() if other else first).submit(calls.failing, journal, "failed")
    assert isinstance(again.exception(), ValueError)
    found = [row for row in listed(callyard, results) if row["function"] == "failing"]
    assert [(row["state"], row["where"].split()[1]) for row in found] == [("failed", again.job_id)]
    gate.open()
    together[0].result()
    assert callyard("cancel", "--all", str(results)).out == ""


def test_nothing_is_forgotten_twice(callyard: Command, submitted: Submitted) -> None:
    ended = callyard("retry", str(submitted.cache), submitted.failed)
    assert ended.status == 0
    assert ended.out == (
        f"there is nothing to forget of {submitted.failed}; the next submission runs the call again\n"
    )  # its future has the error already


def test_a_failure_that_nobody_received_is_forgotten_once(
    callyard: Command, make: Callable[..., Executor], results: Path, journal: str
) -> None:
    ex = make()
    future = ex.submit(calls.failing, journal, "failed")
    assert isinstance(future.exception(), ValueError)
    ex.shutdown()
    (received,) = results.glob("jobs/*/0.seen")
    received.rename(received.with_suffix(".end"))  # as if the executor had ended before
    out = [callyard("retry", str(results), str(future.key)).out for _ in range(2)]
    assert [text.partition(" of ")[0] for text in out] == ["forgot the failure", "there is nothing to forget"]


def test_the_way_to_the_failure_of_a_call_that_never_began(
    callyard: Command, make: Callable[..., Executor], results: Path, journal: str
) -> None:
    with make() as ex:
        failed = ex.submit(calls.failing, journal, "failed")
        dependent = ex.submit(calls.noted, journal, "dependent", failed)
        assert isinstance(dependent.exception(), ValueError)
    (key,) = [row["key"] for row in listed(callyard, results) if row["function"] == "noted"]
    tree = [line.split()[1:3] for line in callyard("show", "--upstream", str(results), key).out.splitlines()]
    assert tree == [["noted", "failed"], ["failing", "failed"]]
    assert fields(callyard("show", str(results), key).out)["inputs"] == "failing"
    explained = callyard("explain", str(results), key)
    assert (explained.status, explained.out) == (1, "")
    assert "has failed before it began, so no key was made from the results of its inputs (failing)" in explained.err


def test_an_error_of_a_class_that_is_not_here(
    make: Callable[..., Executor], results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    text = "class Odd(Exception):\n    pass\n\n\ndef fail():\n    raise Odd('as it was')\n"
    (tmp_path / "elsewhere" / "odd_errors.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path / "elsewhere")
    with make() as ex:
        future = ex.submit(importlib.import_module("odd_errors").fail)
        assert type(future.exception()).__name__ == "Odd"
    for command in ("show", "logs"):  # in a process that does not find the module
        words = [sys.executable, "-m", "callyard", command, str(results), str(future.key)]
        ended = subprocess.run(words, capture_output=True, text=True, check=True)
        assert "Odd: as it was" in ended.stdout
        assert "cannot be opened" not in ended.stdout


def test_the_error_of_a_job_is_a_sentence(make: Callable[..., Executor]) -> None:
    with make() as ex:
        message = str(ex.submit(threading.Lock).exception())
    assert re.match(r"'\w*lock\w*', job \S+ on \S+: the result of '\w*lock\w*', of type lock, cannot be sent", message)


# ------------------------------------------------------------------ cancel and prune


def test_several_keys_and_a_default_cache(
    callyard: Command, submitted: Submitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CALLYARD_CACHE", str(submitted.cache))
    ended = callyard("cancel", submitted.waiting[:10], submitted.dependent[:10])
    assert (ended.status, ended.err) == (0, "")
    assert [line.partition(", key ")[2].partition(",")[0] for line in ended.out.splitlines()] == [
        submitted.waiting, submitted.dependent
    ]  # fmt: skip
    assert callyard("cancel", str(submitted.cache), submitted.running[:10]).status == 0  # a directory comes first


def test_all_are_cancelled_only_after_a_yes(callyard: Command, submitted: Submitted) -> None:
    place = str(submitted.cache)
    before = listed(callyard, submitted.cache)
    refused = callyard("cancel", place, "--all")
    assert (refused.status, refused.out) == (1, "")
    assert refused.err.splitlines()[0].split() == ["FUNCTION", "CALLS", "SIZE", "FIRST", "LAST"]
    assert refused.err.splitlines()[-1] == (
        "callyard cancel: nothing was done, as there is no terminal to ask on: say --yes; "
        "`callyard list` lists the calls"
    )
    assert [row["state"] for row in listed(callyard, submitted.cache)] == [row["state"] for row in before]
    assert submitted.waiting in callyard("cancel", place, "--all", "--yes").out


def test_inputs_of_waiting_calls_are_not_pruned(callyard: Command, submitted: Submitted, gate: Gate) -> None:
    ended = callyard("prune", str(submitted.cache), "--older-than", "0s", "--yes")
    assert ended.out.splitlines()[-1].startswith("removed 1 call, ")  # the failed one
    assert ended.out.splitlines()[-1].endswith("; the inputs of waiting calls stay")
    assert Cache(submitted.cache).prune(max_size=0) == []
    assert submitted.done in Cache(submitted.cache)
    gate.open()
    until(lambda: submitted.running in Cache(submitted.cache))


def test_failed_jobs_that_are_pruned_are_counted(
    callyard: Command, make: Callable[..., Executor], results: Path, journal: str
) -> None:
    ex = make()
    failed = ex.submit(calls.failing, journal, "failed")
    assert isinstance(failed.exception(), ValueError)
    ex.shutdown()
    for word, options in (("would remove", ["--dry-run"]), ("removed", ["--yes"])):
        ended = callyard("prune", str(results), "--state", "failed", *options)
        assert ended.out.splitlines()[-2].split()[:2] == ["failing", "1"]
        total = rf"{word} 1 call, [\d.]+ kB, with the files and logs of 1 submission"
        assert re.fullmatch(total, ended.out.splitlines()[-1])
    assert callyard("prune", str(results), "--state", "failed").out == "removed 0 calls, 0 B\n"


# ------------------------------------------------------------------ after a script that was killed

KILLED = """
    from callyard.hosts import daemon
    from local_calls import executor

    def killed(*args):
        os.kill(os.getpid(), signal.SIGKILL)

    ex = executor(results)
    begun = ex.submit(calls.held, journal, gate, "begun")
    wait_for_ids([begun])
    daemon._asked = killed
    wait([ex.submit(calls.noted, journal, "unsent", begun)])
"""


@pytest.mark.parametrize("started", ["daemon"], indirect=True)
@pytest.mark.needs("daemon")
@pytest.mark.once
def test_resume_what_a_killed_script_has_not_submitted(
    callyard: Command, make: Callable[..., Executor], results: Path, journal: str, gate: Gate, tmp_path: Path
) -> None:
    driver = drivers.Driver(KILLED, {"results": str(results), "journal": journal, "gate": gate}, tmp_path)
    driver.finish()
    driver.end()
    gate.arrived()
    assert {row["function"]: row["state"] for row in listed(callyard, results)} == {
        "held": "running",
        "noted": "unsent",
    }
    (sent,) = json.loads(callyard("resume", str(results), "--json").out)["submitted"]
    assert sent["calls"] == 1
    assert json.loads(callyard("resume", str(results), "--json").out)["submitted"] == []
    assert {row["function"]: row["state"] for row in listed(callyard, results)} == {
        "held": "running",
        "noted": "queued",
    }
    gate.open()
    ex = make()
    begun = ex.submit(calls.held, journal, gate, "begun")
    assert ex.submit(calls.noted, journal, "unsent", begun).result() == "unsent+begun"
    assert calls.runs(journal) == {"begun": 1, "unsent": 1}
