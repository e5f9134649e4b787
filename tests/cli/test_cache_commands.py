"""The commands that look into a cache."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from callyard import Cache
from callyard.cache.claims import Claims
from callyard.cache.format.record_writer import Record, write
from callyard.cli import prune
from callyard.hashing.call_key import call_key
from callyard.utils import quantities

BEGAN = 1_700_000_000.0  # as in conftest


def lines(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


@pytest.fixture
def claim_of_the_dead(cache):
    """A claim that a process has made which is gone."""

    def make(key: str) -> None:
        code = "import sys; from callyard import Cache; Cache(sys.argv[1])._claims.take(sys.argv[2], 'relax')"
        subprocess.run([sys.executable, "-c", code, cache.path, key], check=True)

    return make


@pytest.fixture
def claim_from_afar(cache, monkeypatch):
    """A claim that a process on another machine has made."""

    def make(key: str) -> None:
        claim = Claims(cache._directory).take(key, "relax")
        path = f"{cache.path}/claims/{key}"
        with open(path) as file:
            owner = json.load(file)
        claim.release()
        with open(path, "w") as file:
            json.dump(owner | {"host": "node7", "machine": "other"}, file)

    return make


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A module of the user's in the working directory."""

    def make(text: str) -> None:
        (tmp_path / "lab_of_mine.py").write_text(text)

    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # Python takes a new text as long and as old for the same
    make("SCALE = 2\n\n\ndef relax(x, force=0.1):\n    return x * SCALE + force\n")
    yield make
    sys.modules.pop("lab_of_mine", None)


# ------------------------------------------------------------------ list


def test_list(callyard, store):
    store(2, seconds=1.5)
    store(1, (ValueError(), ""), state="failed", name="energy")
    ended = callyard("list", "results")
    assert ended.status == 0
    head, first, second, _, total = lines(ended.out)
    assert head == ["KEY", "FUNCTION", "STATE", "BEGAN", "TOOK", "SIZE"]
    assert first[:3] == ["00000001" + "0000", "energy", "failed"]
    assert second[:3] == ["00000002" + "0000", "relax", "finished"]
    assert second[5:7] == ["1.5", "s"]
    began = datetime.fromtimestamp(1_700_000_002).strftime("%Y-%m-%d %H:%M:%S")  # noqa: DTZ006  # as people read it
    assert " ".join(second[3:5]) == began
    size = sum(row["size"] for row in json.loads(callyard("list", "results", "--json").out))
    assert " ".join(total) == f"2 calls: 1 failed, 1 finished; {quantities.size(size)}"


def test_list_nothing(callyard, cache):
    assert callyard("list", "results").out == f"no calls in {cache.path}\n"
    assert callyard("list", "results", "--json").out == "[]\n"


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        ([], [1, 2, 3, 4]),
        (["--function", "energy"], [1, 3]),
        (["--state", "failed"], [3, 4]),
        (["--state", "finished", "--function", "energy"], [1]),
        (["--state", "running"], []),
        (["-n", "2"], [3, 4]),
        (["--function", "energy", "--limit", "1"], [3]),
    ],
)
def test_list_some(callyard, store, options, numbers):
    for number in (4, 3, 2, 1):
        state, output = ("failed", (ValueError(), "")) if number > 2 else ("finished", 42)
        store(number, output, name="energy" if number % 2 else "relax", state=state)
    rows = json.loads(callyard("list", "results", "--json", *options).out)
    assert [int(row["key"][:8]) for row in rows] == numbers


@pytest.mark.parametrize("words", [["results"], ["-C", "results"], ["--cache=results"], []])
def test_ways_to_name_the_cache(callyard, store, monkeypatch, words):
    store(1)
    if not words:
        monkeypatch.setenv("CALLYARD_CACHE", "results")
    assert callyard("list", *words).out.partition("\n\n")[2].startswith("1 call: 1 finished; ")
    assert callyard("show", *words, "000000").status == 0
    assert callyard("show", *words, "--source", "000000").status == 0


def test_list_as_json(callyard, cache, store):
    key = store(1, seconds=1.5)
    (row,) = json.loads(callyard("list", "results", "--json").out)
    assert row == {
        "key": key, "function": "relax", "state": "finished", "created": "2023-11-14T22:13:21+00:00", "seconds": 1.5,
        "size": cache[key].size, "path": cache._directory.record(key), "where": None,
    }  # fmt: skip


def test_list_with_arguments(callyard, store):
    store(17)
    assert callyard("list", "-l", "results").out.partition("\n\n")[0].endswith("x=17")
    (row,) = json.loads(callyard("list", "--long", "--json", "results").out)
    assert row["arguments"] == "x=17"


def test_list_what_is_running(callyard, cache, claim_of_the_dead):
    claim_of_the_dead("a" * 40)
    claim = Claims(cache._directory).take("b" * 40, "relax")
    rows = json.loads(callyard("list", "results", "--json").out)
    assert [(row["key"][0], row["state"], row["size"]) for row in rows] == [("a", "gone", None), ("b", "running", None)]
    assert f"process {os.getpid()} on " in rows[1]["where"]
    assert f"process {os.getpid()} on " in callyard("list", "results", "-l", "--state", "running").out
    assert callyard("list", "results", "--state", "gone").out.endswith("\n\n1 call: 1 gone\n")
    claim.release()


def test_list_does_not_write(callyard, cache, store):
    store(1)
    os.chmod(cache.path, 0o500)
    assert callyard("list", "results").status == callyard("show", "results", "000000").status == 0
    assert (
        callyard("check", "results").status == callyard("prune", "--dry-run", "--max-size", "0", "results").status == 0
    )
    os.chmod(cache.path, 0o700)


# ------------------------------------------------------------------ show


def test_show(callyard, cache, store):
    facts = {"host": "node1", "pid": 17, "resources": {"memory": 2, "ranks": 3}, "python": "3.11.2"}
    key = store(1, {"a": 1}, facts=facts, source="def relax(): ...\n", seconds=182)
    ended = callyard("show", "results", key[:9])
    assert ended.status == 0
    shown = ended.out.splitlines()
    assert shown[0] == f"key        {key}"
    assert "took       3 min 2 s" in shown
    assert "host       node1, process 17" in shown
    assert "resources  memory=2, ranks=3" in shown
    assert "versions   python 3.11.2" in shown
    assert shown[shown.index("arguments  1") + 1] == "           force=0.1"
    assert "output     {'a': 1}" in shown
    assert "def relax" not in ended.out
    assert callyard("show", "results", key[:9], "--source").out == ended.out + "\ndef relax(): ...\n"


def test_show_as_json(callyard, cache, store):
    key = store(1, {"a": 1})
    found = json.loads(callyard("show", "--json", "results", key).out)
    assert (found["key"], found["function"], found["state"]) == (key, "relax", "finished")
    assert (found["args"], found["kwargs"], found["output"]) == (["1"], {"force": "0.1"}, "{'a': 1}")
    assert (found["error"], found["traceback"], found["host"]) == (None, None, "node1")
    assert found["ingredients"] == {"argument x": "7f 1"}


def test_show_a_failure(callyard, store):
    key = store(1, (ValueError("too small"), "Traceback:\n  here"), state="failed")
    shown = callyard("show", "results", key).out
    assert "error      ValueError: too small\ntraceback  Traceback:\n             here\n" in shown
    found = json.loads(callyard("show", "--json", "results", key).out)
    assert (found["error"], found["output"]) == ("ValueError('too small')", None)
    assert found["traceback"] == "Traceback:\n  here"


def test_show_what_is_long(callyard, store):
    key = store(1, ["a" * 5000] * 1000)
    assert len(callyard("show", "results", key).out) < 50_000
    assert len(json.loads(callyard("show", "--json", "results", key).out)["output"]) > 5_000_000


@pytest.mark.needs("numpy")
def test_show_an_array(callyard, store):
    import numpy as np

    assert "output     array([0., 0., 0.])" in callyard("show", "results", store(1, np.zeros(3))).out


def test_show_what_cannot_be_loaded_here(callyard, store, lab):
    lab("class Atom:\n    pass\n")
    sys.path.insert(0, os.getcwd())
    import lab_of_mine

    key = store(1, lab_of_mine.Atom())
    del sys.modules["lab_of_mine"]
    sys.path.remove(os.getcwd())
    assert "output     <lab_of_mine.Atom object at" in callyard("show", "results", key).out
    del sys.modules["lab_of_mine"]
    lab("")
    ended = callyard("show", "results", key)
    assert ended.status == 0
    assert "cannot be loaded" in ended.out


def test_show_an_unknown_key(callyard, store):
    store(0x12345678)
    ended = callyard("show", "results", "12345687")
    assert (ended.status, ended.out) == (1, "")
    assert ended.err.startswith("callyard show: there is no call '12345687' in ")
    assert "did you mean '12345678" in ended.err


def test_show_what_list_shows_of_calls_without_a_result(callyard, cache, claim_of_the_dead):
    claim_of_the_dead("a" * 40)
    claim = Claims(cache._directory).take("b" * 40, "relax")
    gone, running = json.loads(callyard("list", "results", "--json").out)
    assert json.loads(callyard("show", "results", "aaaaaa", "--json").out) == gone
    shown = callyard("show", "results", "bbbbbb")
    assert (shown.status, shown.err) == (0, "")
    rows = dict(line.split(maxsplit=1) for line in shown.out.splitlines())
    assert list(rows) == ["key", "function", "state", "began", "took", "where"]
    assert (rows["state"], rows["where"]) == ("running", running["where"])
    claim.release()


def test_what_is_running_has_nothing_to_explain(callyard, cache):
    claim = Claims(cache._directory).take("a" * 40, "relax")
    ended = callyard("explain", "results", "aaaaaa")
    assert ended.status == 1
    assert f"{'a' * 40} is being run by process {os.getpid()} on " in ended.err
    claim.release()


def test_what_is_running_is_shown(callyard, cache):
    key = "a" * 40
    claim = Claims(cache._directory).take(key, "relax", arguments="metal='Cu', force=0.1")
    (row,) = json.loads(callyard("list", "--json", "results").out)
    assert (row["state"], row["arguments"]) == ("running", "metal='Cu', force=0.1")
    assert "arguments  metal='Cu', force=0.1\n" in callyard("show", "results", "aaaaaa").out
    ended = callyard("logs", "results", "aaaaaa")
    assert (ended.status, ended.err) == (1, f"callyard logs: {key}, which is running, has printed nothing yet\n")
    log = Path(cache._directory.log(key))
    log.parent.mkdir(mode=0o700)
    log.write_text("so far\n")
    assert callyard("logs", "results", "aaaaaa") == (0, "so far\n", "")
    claim.release()


# ------------------------------------------------------------------ a write-protected cache


WITHOUT_PRIVILEGES = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]  # root writes anywhere


@pytest.mark.skipif(os.geteuid() == 0 and not shutil.which("setpriv"), reason="root writes everywhere")
def test_each_command_on_a_write_protected_cache(cache, store):
    finished, failed = store(1), store(2, (ValueError(), "Traceback"), state="failed")
    os.chmod(cache.path, 0o500)
    before = WITHOUT_PRIVILEGES if os.geteuid() == 0 else []

    def run(*words: str) -> tuple[int, str]:
        command = [*before, sys.executable, "-m", "callyard", words[0], "-C", "results", *words[1:]]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        return ended.returncode, ended.stderr

    for words in (["list"], ["show", finished], ["explain", finished], ["logs", failed], ["check"]):
        assert run(*words) == (0, "")
    assert run("prune", "--max-size", "0", "--dry-run") == (0, "")
    for words in (
        ["retry", failed],
        ["cancel", "--all"],
        ["resume"],
        ["prune", "--max-size", "0"],
        ["check", "--repair"],
    ):
        sentence = f"callyard {words[0]}: the cache {cache.path} is write-protected: run this as its owner, or make it"
        status, said = run(*words)
        assert status == 1
        assert said.startswith(sentence)
        assert said.count("\n") == 1
    os.chmod(cache.path, 0o700)
    assert len(cache) == 2


# ------------------------------------------------------------------ explain


def remember(cache: Cache, function, *args) -> str:
    call = call_key(function, args, {})
    facts = {"ingredients": call.ingredients()}
    record = Record(call.hex, function.__name__, "finished", "", 1, args, {}, facts=facts, created=1.7e9)
    cache._directory.publish(call.hex, lambda descriptor: write(descriptor, record))
    return call.hex


@pytest.fixture
def relaxed(cache, lab) -> str:
    """The key of `relax("Cu")`."""
    sys.path.insert(0, os.getcwd())
    import lab_of_mine

    key = remember(cache, lab_of_mine.relax, "Cu")
    del sys.modules["lab_of_mine"]
    sys.path.remove(os.getcwd())
    return key


def test_explain_a_key(callyard, store):
    one, other = store(1), store(2)
    ended = callyard("explain", "results", one)
    assert ended.status == 0
    assert ended.out == (
        f"'relax', key {one}\nwhat went into the key:\n  argument x  7f 1\n"
        f"from the nearest other entry, {other}, it differs in:\n  argument x: 2 -> 1\n"
    )
    found = json.loads(callyard("explain", "--json", "results", one).out)
    assert found["nearest"] == other
    assert found["hit"]
    assert found["differences"] == ["argument x: 2 -> 1"]
    assert found["ingredients"] == {"argument x": "7f 1"}


def test_explain_the_only_entry(callyard, store):
    ended = callyard("explain", "results", store(1, facts={}))
    assert ended.out.endswith("what went into the key:\n  (not noted)\n")


@pytest.mark.parametrize("words", [["Cu"], ["'Cu'"], ["x=Cu"], ["x='Cu'", "force=0.1"], ["Cu", "0.1"]])
def test_explain_a_call_that_is_remembered(callyard, relaxed, words):
    ended = callyard("explain", "results", "lab_of_mine:relax", *words)
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.startswith("'relax' is cached since ")
    assert relaxed in ended.out


def test_explain_a_call_that_is_not(callyard, relaxed, lab):
    lab("SCALE = 3\n\n\ndef relax(x, force=0.1):\n    return x * SCALE + force\n")
    ended = callyard("explain", "results", "lab_of_mine:relax", "Cu", "-1")
    assert ended.status == 1
    assert f"the nearest entry is {relaxed}" in ended.out
    assert "  global lab_of_mine.SCALE: 2 -> 3\n" in ended.out
    assert ended.out.endswith("  argument force: 0.1 -> -1\n")
    found = json.loads(callyard("explain", "--json", "-C", "results", "lab_of_mine:relax", "Cu").out)
    assert (found["hit"], found["nearest"], len(found["differences"])) == (False, relaxed, 1)


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("lab_of_mine:relaxx", "there is no lab_of_mine:relaxx"),
        ("lab_of_nobody:relax", "No module named 'lab_of_nobody'"),
        ("lab_of_mine:SCALE", "lab_of_mine:SCALE is no function but 2"),
    ],
)
def test_explain_what_is_no_function(callyard, cache, lab, target, says):
    ended = callyard("explain", "results", target)
    assert ended.status == 1
    assert says in ended.err


def test_explain_without_a_required_argument(callyard, relaxed):
    ended = callyard("explain", "results", "lab_of_mine:relax", "force=0.2")
    assert (ended.status, ended.out.splitlines()[0]) == (1, "'relax' cannot be called so: argument x is missing")
    found = json.loads(callyard("explain", "--json", "results", "lab_of_mine:relax", "force=0.2").out)
    assert (found["missing"], found["key"]) == (["x"], "")


def test_explain_shows_the_change_of_code(callyard, relaxed, lab):
    lab("SCALE = 2\n\n\ndef relax(x, force=0.1):\n    return SCALE * x + force\n")
    ended = callyard("explain", "results", "lab_of_mine:relax", "Cu")
    assert "  code of lab_of_mine.relax changed\n" in ended.out


STUDY = """
from callyard import Executor

def relax(x, force=0.1):
    return 3 * x + force

open("ran", "a").close()
with Executor(cache="results") as ex:
    print(ex.submit(relax, 7).result())
"""


def test_a_module_that_runs_a_study_is_not_imported_without_a_word(callyard, cache, lab, tmp_path):
    lab(STUDY)
    ended = callyard("explain", "results", "lab_of_mine:relax", "1")
    assert ended.status == 1
    assert f"which does more than define (line 7 of {tmp_path / 'lab_of_mine.py'})" in ended.err
    assert not (tmp_path / "ran").exists()
    ended = callyard("explain", "--yes", "results", "lab_of_mine:relax", "1")
    assert ended.status == 1
    assert "lab_of_mine cannot be imported without computing, as it asks for results" in ended.err
    assert len(cache) == 0
    lab(STUDY.replace(".result()", ""))
    assert callyard("explain", "--yes", "results", "lab_of_mine:relax", "1").status == 1
    assert len(cache) == 0
    assert "CALLYARD_DRY_RUN" not in os.environ


def test_names_that_the_terminal_cannot_show(cache, store):
    store(1, name="relax_\u2192\udcff")
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    words = [sys.executable, "-m", "callyard", "list", "results"]
    ended = subprocess.run(words, env=environment, capture_output=True, check=True)
    assert rb"relax_\u2192\udcff" in ended.stdout


# ------------------------------------------------------------------ logs


def test_logs(callyard, store):
    key = store(1, facts={"log": "one\ntwo\n"})
    assert callyard("logs", "results", key) == (0, "one\ntwo\n", "")
    assert json.loads(callyard("logs", "--json", "results", key).out) == {
        "key": key, "function": "relax", "state": "finished", "log": "one\ntwo\n", "traceback": None,
        "error": None,
    }  # fmt: skip


def test_logs_of_several(callyard, store):
    first, second = store(1, facts={"log": "one\n"}), store(2, name="melt", facts={"log": "two\n"})
    assert callyard("logs", "results", first, second).out == (
        f"==> relax, {first[:12]}, finished <==\none\n\n==> melt, {second[:12]}, finished <==\ntwo\n\n"
    )


def test_show_the_calls_before(callyard, cache, store):
    first = store(1)
    second = store(2, name="melt", facts={"inputs": {first: "relax", "b" * 40: "gone"}})
    last = store(
        3, name="cool", facts={"inputs": {second: "melt", first: "relax"}, "ingredients": {"argument x": "7f 5"}}
    )
    lines = callyard("show", "--upstream", "results", last).out.splitlines()
    assert [line[: line.index("0" if "0" in line else "b")] for line in lines] == ["", "  ", "    ", "    ", "  "]
    assert [line.split()[1:3] for line in lines] == [
        ["cool", "finished"], ["melt", "finished"], ["relax", "finished"], ["gone", "not"], ["relax", "finished"],
    ]  # fmt: skip
    assert lines[0].endswith("x=5")
    found = json.loads(callyard("show", "--upstream", "--json", "results", last).out)
    assert [(call["depth"], call["key"]) for call in found] == [
        (0, last), (1, second), (2, first), (2, "b" * 40), (1, first),
    ]  # fmt: skip


def test_logs_of_a_failure(callyard, store):
    key = store(1, (ValueError(), "Traceback: here\nValueError"), state="failed", facts={"log": "one\n"})
    assert callyard("logs", "results", key).out == "one\nTraceback: here\nValueError\n"


def test_logs_of_a_process_that_has_died(callyard, store):
    told = {"error": "WorkerLost", "message": "'relax' was killed by SIGSEGV", "signal": "SIGSEGV"}
    key = store(1, (ValueError(), ""), state="failed", facts={"log": "one", "failure": told})
    assert callyard("logs", "results", key).out == "one\nWorkerLost: 'relax' was killed by SIGSEGV\n"


class Mute(Exception):
    def __repr__(self):
        raise RuntimeError("no words")

    __str__ = __repr__


def test_an_error_that_cannot_be_shown(callyard, store):
    key = store(1, (Mute(), "Traceback: here"), state="failed")
    assert json.loads(callyard("show", "--json", "results", key).out)["error"].startswith("<cannot be shown: Runtime")
    assert callyard("logs", "results", key).out == "Traceback: here\nMute: <exception str() failed>\n"
    assert callyard("report", "results").status == 0


def test_a_terminal_obeys_nothing_in_what_is_shown(callyard, store):
    told = {"error": "ValueError", "message": "one\n\x1b[2Jtwo", "traceback": "Trace\x07"}
    key = store(1, (ValueError(), ""), state="failed", facts={"failure": told, "log": "\x1b[31mred"})
    shown = callyard("show", "results", key).out
    assert "error      ValueError: one\n           \\x1b[2Jtwo\ntraceback  Trace\\x07\n" in shown
    assert "printed    \\x1b[31mred\n" in shown
    assert callyard("logs", "results", key).out.startswith("\x1b[31mred\n")  # as it was printed


def test_logs_without_any_failure(callyard, cache, store):
    store(1)
    ended = callyard("logs", "results")
    assert (ended.status, ended.out) == (0, "")
    assert ended.err == f"no failed calls in {cache.path}; of other calls name the keys\n"
    assert callyard("logs", "--json", "results").out == "[]\n"


def test_no_logs(callyard, store):
    key = store(1)
    ended = callyard("logs", "results", key)
    assert (ended.status, ended.out) == (1, "")
    assert "printed nothing that was kept" in ended.err
    assert callyard("logs", "--json", "results", key).status == 1


# ------------------------------------------------------------------ retry


def test_retry_a_failure(callyard, cache, store):
    key = store(1, (ValueError(), ""), state="failed")
    ended = callyard("retry", "results", key[:8])
    assert ended.status == 0
    assert ended.out == f"forgot the failure of 'relax', key {key}; the next submission runs the call again\n"
    assert len(cache) == 0


def test_retry_what_has_finished(callyard, cache, store):
    key = store(1)
    ended = callyard("retry", "results", key)
    assert ended.status == 1
    assert f"nothing to retry: `callyard prune {cache.path} --key {key}` forgets it" in ended.err
    assert len(cache) == 1


def test_retry_what_a_dead_process_ran(callyard, cache, claim_of_the_dead):
    claim_of_the_dead("a" * 40)
    ended = callyard("retry", "results", "aaaaaa", "--json")
    assert ended.status == 0
    assert "forgot the run of 'relax' by process" in json.loads(ended.out)["done"][0]
    assert list(cache._claims.running()) == []


def test_retry_what_is_running(callyard, cache):
    claim = Claims(cache._directory).take("a" * 40, "relax")
    for force in ([], ["--force"]):
        ended = callyard("retry", "results", "aaaaaa", *force)
        assert ended.status == 1
        assert "wait for it, or end it first" in ended.err
    claim.release()


def test_retry_what_cannot_be_seen(callyard, cache, claim_from_afar):
    claim_from_afar("a" * 40)
    ended = callyard("retry", "results", "aaaaaa")
    assert ended.status == 1
    assert "on node7" in ended.err
    assert "say --force" in ended.err
    assert callyard("retry", "results", "aaaaaa", "--force").status == 0
    assert list(cache._claims.running()) == []


# ------------------------------------------------------------------ prune


@pytest.fixture
def answer(monkeypatch) -> Callable[[str], None]:
    """Sit at a terminal, and give an answer there."""

    def answer(text: str) -> None:
        typed = io.StringIO(text)
        typed.isatty = lambda: True
        monkeypatch.setattr(sys, "stdin", typed)
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)

    return answer


@pytest.fixture
def three_calls(store) -> list[str]:
    return [store(number, name="energy" if number == 2 else "relax") for number in (1, 2, 3)]


def test_prune(callyard, cache, three_calls):
    would = callyard("prune", "results", "--function", "relax", "--dry-run")
    assert would.status == 0
    calls, _, total = would.out.partition("\n\n")
    assert [line[0] for line in lines(calls)] == ["KEY", "000000010000", "000000030000"]
    head, relax, _ = lines(total)
    size = sum(entry.size for entry in cache if entry.function == "relax")
    assert head == ["FUNCTION", "CALLS", "SIZE", "FIRST", "LAST"]
    assert " ".join(relax[:4]) == f"relax 2 {quantities.size(size)}"
    assert relax[5][-1] == "1"  # the second in which the first began
    assert relax[7][-1] == "3"
    assert total.endswith(f"would remove 2 calls, {quantities.size(size)}\n")
    assert len(cache) == 3
    done = callyard("prune", "results", "--function", "relax", "--yes")
    assert done == (0, total.replace("would remove", "removed"), "")
    assert [entry.function for entry in cache] == ["energy"]


def test_prune_without_a_terminal_shows_and_removes_nothing(callyard, cache, three_calls):
    ended = callyard("prune", "results", "--max-size", "0")
    assert (ended.status, ended.out) == (1, "")
    assert [line[:2] for line in lines(ended.err)[1:3]] == [["energy", "1"], ["relax", "2"]]
    assert "would remove 3 calls, " in ended.err
    assert ended.err.endswith(
        "callyard prune: nothing was done, as there is no terminal to ask on: say --yes; --dry-run lists the calls\n"
    )
    assert len(cache) == 3


@pytest.mark.parametrize(
    ("text", "left"), [("y\n", 1), ("YES\n", 1), ("n\n", 3), ("\n", 3), ("", 3), ("yesterday\n", 3)]
)
def test_prune_asks_on_a_terminal(callyard, cache, three_calls, answer, text, left):
    answer(text)
    ended = callyard("prune", "results", "--function", "relax")
    assert "would remove 2 calls, " in ended.err
    assert "Remove them? [y/N] " in ended.err
    assert len(cache) == left
    assert ended.status == (1 if left == 3 else 0)
    assert ("removed 2 calls, " in ended.out) == (left == 1)


def test_prune_removes_what_was_shown_and_nothing_else(callyard, cache, store, three_calls, monkeypatch):
    def meanwhile(*_: object) -> None:
        store(1, output="stored anew", created=BEGAN + 100)
        cache._directory.remove(three_calls[1])
        store(4)

    monkeypatch.setattr(prune, "confirm", meanwhile)
    ended = callyard("prune", "results", "--max-size", "0")
    assert "removed 1 call, " in ended.out
    assert sorted(entry.key[:8] for entry in cache) == ["00000001", "00000004"]


def test_prune_by_several_conditions(callyard, cache, store):
    keys = [store(number) for number in (1, 2, 3)]
    words = ["--key", keys[0], "--key", keys[2][:8], "--older-than", "2w", "--json", "-y"]
    ended = callyard("prune", "-C", "results", *words)
    assert [row["key"] for row in json.loads(ended.out)] == [keys[0], keys[2]]
    assert cache.keys() == [keys[1]]


def test_prune_nothing(callyard, store):
    store(1)
    assert callyard("prune", "results", "--larger-than", "1GB") == (0, "removed 0 calls, 0 B\n", "")


def test_prune_by_what_makes_no_sense(callyard, cache, store):
    store(1)
    ended = callyard("prune", "results", "--older-than", "long")
    assert ended.status == 2
    assert "--older-than: 'long' should be seconds" in ended.err
    assert "--older-than: '30' has no unit" in callyard("prune", "results", "--older-than", "30", "--yes").err
    assert callyard("prune", "results", "--max-size", "many").status == 2
    assert len(cache) == 1


# ------------------------------------------------------------------ check


def test_check(callyard, cache, store):
    store(1)
    size = cache[store(2)].size
    with open(cache._directory.record(store(3)), "r+b") as file:
        file.truncate(600)
    ended = callyard("check", "results")
    assert ended.status == 1
    assert ended.out.startswith("damaged: ")
    assert ended.out.endswith(f"2 calls are whole, {2 * size / 1000:.3g} kB\n")
    repaired = callyard("check", "results", "--repair", "--json")
    assert repaired.status == 0
    found = json.loads(repaired.out)
    assert (found["ok"], found["whole"], found["size"]) == (True, 2, 2 * size)
    assert [problem["kind"] for problem in found["problems"]] == ["damaged", "aside"]
    assert callyard("check", "results").status == 0
