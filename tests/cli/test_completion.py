"""The scripts by which shells complete a command line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from callyard.cli import COMMANDS

ASK = """
callyard() {{ {python} -m callyard "$@"; }}
source ./script
COMP_WORDS=({words}) COMP_CWORD=$(( {count} - 1 ))
_callyard
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture
def complete(callyard, tmp_path):
    """What bash offers for a line of which the last word is not complete."""
    (tmp_path / "script").write_text(callyard("completion", "bash").out)

    def ask(*words: str) -> list[str]:
        quoted = " ".join(f"'{word}'" for word in words)
        script = ASK.format(python=sys.executable, words=quoted, count=len(words))
        ended = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, env=os.environ)
        assert ended.stderr == ""
        return ended.stdout.split()

    return ask


def test_commands(complete):
    assert {*COMMANDS, "--help", "--version"} == {*complete("callyard", "")}
    assert complete("callyard", "pr") == ["prune"]
    assert complete("callyard", "xy") == []


def test_options(complete):
    assert complete("callyard", "prune", "--o") == ["--older-than"]
    assert {"--json", "--function", "--state"} <= {*complete("callyard", "list", "results", "--")}
    assert complete("callyard", "list", "--state", "f") == ["finished", "failed"]
    assert complete("callyard", "completion", "") == ["bash", "zsh", "fish"]


def test_directories(complete, tmp_path):
    (tmp_path / "results").mkdir()
    assert complete("callyard", "list", "re") == ["results"]


def test_keys(complete, store, monkeypatch):
    one, other = store(0x12345678), store(0xABCDEF00)
    assert complete("callyard", "show", "results", "1") == [one]
    assert {one, other} <= {*complete("callyard", "retry", "results", "")}
    monkeypatch.setenv("CALLYARD_CACHE", "results")
    assert complete("callyard", "logs", "abc") == [other]


def test_no_keys_without_a_cache(callyard, complete):
    assert complete("callyard", "show", "12") == []
    assert callyard("completion", "keys") == (0, "", "")


def test_zsh(callyard):
    script = callyard("completion", "zsh").out
    assert "bashcompinit" in script
    assert script.endswith(callyard("completion", "bash").out)


def test_fish(callyard, tmp_path):
    script = callyard("completion", "fish").out
    assert "-a prune -d 'remove what is old, large, or no longer wanted'" in script
    assert "-l state -xa 'finished failed' -d 'only these'" in script
    for line in script.splitlines():
        assert line.startswith("complete -c callyard ")
        assert line.count("'") % 2 == 0
    if shutil.which("fish"):
        (tmp_path / "script").write_text(script)
        subprocess.run(["fish", "--no-execute", "script"], check=True)


def test_an_unknown_shell(callyard):
    ended = callyard("completion", "tcsh")
    assert ended.status == 2
    assert "invalid choice: 'tcsh'" in ended.err
