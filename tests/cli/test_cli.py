"""The command line as a whole: commands, help, errors, exit statuses."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from callyard.cli import COMMANDS, main, parser_of, tables


def test_python_m_callyard():
    command = [sys.executable, "-m", "callyard", "doctor", "--json"]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    assert run.returncode == 0
    assert json.loads(run.stdout)["works"] is True


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_lists_the_commands(callyard, option):
    ended = callyard(option)
    assert ended.status == 0
    for name, summary in COMMANDS.items():
        assert f"  {name:11} {summary}\n" in ended.out
    assert "The exit status is 0" in ended.out


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(callyard, command):
    ended = callyard(command, "--help")
    assert ended.status == 0
    assert ended.out.startswith(f"usage: callyard {command} ")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "which command? There are list, show, explain, logs"),
        (["docter"], "there is no command 'docter': did you mean 'doctor'?"),
        (["frobnicate"], "there is no command 'frobnicate': there are list, show, explain, logs"),
        (["doctor", "--loud"], "unrecognized arguments: --loud"),
        (["list"], "which cache? Name its directory, or set CALLYARD_CACHE"),
        (["list", "results", "more"], "what is 'more'?"),
        (["list", "results", "--state", "lost"], "invalid choice: 'lost'"),
        (["show", "-C", "results"], "which call? Give the beginning of its key"),
        (["show", "results"], "which call? Give the beginning of its key"),
        (["explain", "-C", "results"], "which call?"),
        (["explain", "results"], "which call?"),
        (["cancel", "results"], "which calls?"),
        (["explain", "results", "abcdef", "3"], "Arguments follow MODULE:FUNCTION, not a key"),
        (["prune", "results"], "remove what? Give a condition"),
        (["list", "--limit", "0", "results"], "--limit: at least 1, not 0"),
    ],
)
def test_a_command_line_that_makes_no_sense(callyard, cache, words, says):
    ended = callyard(*words)
    assert ended.status == 2
    assert "usage: callyard" in ended.err
    assert says in ended.err
    assert ended.out == ""


def test_the_version(callyard):
    ended = callyard("--version")
    assert ended.status == 0
    assert ended.out.startswith("callyard ")


@pytest.mark.parametrize("command", ["list", "show", "explain", "logs", "retry", "check", "prune --max-size 0"])
def test_a_directory_that_is_not_there_is_not_made(callyard, tmp_path, command):
    key = [] if command.split()[0] in ("list", "check", "prune") else ["abcdef"]
    ended = callyard(*command.split(), "resluts", *key)
    assert ended.status == 1
    assert ended.err.startswith(
        f"callyard {command.split()[0]}: there is no cache 'resluts': name the directory of one"
    )
    assert "Traceback" not in ended.err
    assert not list(tmp_path.iterdir())


def test_what_is_unsafe_is_refused(callyard, cache):
    os.chmod(cache.path, 0o777)
    ended = callyard("list", "results")
    assert ended.status == 1
    assert "can be written by everybody" in ended.err


def test_a_group_can_be_trusted(callyard, cache, store):
    store(1)
    os.chmod(cache.path, 0o770)
    assert callyard("list", "results").status == 1
    assert callyard("list", "results", "--trust", "group").status == 0


def test_warnings_are_lines(callyard, cache, store):
    with open(cache._directory.record(store(1)), "r+b") as file:
        file.truncate(100)
    ended = callyard("list", "results")
    assert ended.status == 0
    assert ended.err.startswith("callyard list: left out: ")
    assert ended.err.count("\n") == 1


def test_the_reader_may_go(cache, store):
    for number in range(3):
        store(number)
    command = f"{sys.executable} -m callyard list results; echo $? >&2"
    ended = subprocess.run(["bash", "-c", f"({command}) | true"], capture_output=True, text=True, check=True)
    assert ended.stderr in ("141\n", "0\n")  # as it may have written before the reader went


def test_a_broken_pipe_is_quiet(monkeypatch, tmp_path, cache):
    def write(*_):
        raise BrokenPipeError

    with open(tmp_path / "out", "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        monkeypatch.setattr("callyard.cli.list_calls.print", write, raising=False)
        assert main(["list", "results"]) == 141


def test_an_interrupt_is_quiet(callyard, monkeypatch, cache):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("callyard.cli.list_calls.open_cache", interrupt)
    assert callyard("list", "results") == (130, "", "")


def test_little_is_imported(store):
    key = store(1)
    code = (
        "import sys; from callyard.cli import main\n"
        f"for words in (['list', '-l'], ['show', '{key}'], ['logs', '{key}'], ['check']):\n"
        "    main([words[0], *words[1:-1], '-C', 'results', *words[1:][-1:]])\n"
        "print({'numpy', 'h5py', 'pandas', 'cloudpickle'} & set(sys.modules))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.endswith("set()\n")


# ------------------------------------------------------------------ tables


HEAD, ROWS = ("KEY", "FUNCTION", "SIZE"), [("a1", "relax", "1 kB"), ("b2", "a_function_with_a_long_name", "12 kB")]


def test_a_table_is_aligned():
    assert tables.table(HEAD, ROWS, frozenset(["SIZE"]), "FUNCTION").splitlines() == [
        "KEY  FUNCTION                      SIZE",
        "a1   relax                         1 kB",
        "b2   a_function_with_a_long_name  12 kB",
    ]


@pytest.mark.parametrize("width", [27, 30])
def test_a_table_fits_the_terminal(monkeypatch, width):
    monkeypatch.setattr(tables, "room", lambda: width)
    lines = tables.table(HEAD, ROWS, frozenset(["SIZE"]), "FUNCTION").splitlines()
    assert max(map(len, lines)) == width
    assert "..." in lines[2]


def test_a_table_stays_readable(monkeypatch):
    monkeypatch.setattr(tables, "room", lambda: 3)
    assert "a_functio..." in tables.table(HEAD, ROWS, frozenset(), "FUNCTION")


def test_a_cell_is_one_line():
    assert tables.fitted("one\n  two", None) == "one two"


# ------------------------------------------------------------------ the documentation


def command_lines() -> list[str]:
    """Those in the documentation."""
    pages = (Path(__file__).parents[2] / "docs").rglob("*.md")
    found = (re.findall(r"^\$ callyard (.+)$", page.read_text(), re.MULTILINE) for page in pages)
    return [re.split(" [|>] ", line)[0] for lines in found for line in lines]


@pytest.mark.parametrize("line", command_lines())
def test_a_command_line_in_the_documentation_is_one(line):
    command, *words = shlex.split(line)
    parser, _ = parser_of(command)
    parser.parse_intermixed_args(words)
