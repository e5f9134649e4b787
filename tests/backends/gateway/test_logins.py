"""Logins of all kinds: shells and start-up files there, and what is said where none succeeds."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from relay import Relay
from sshd import Server

import callyard
from callyard import SSH, CallyardError, Executor, Local, ResourceError, VersionMismatch
from callyard.backends.gateway.boot import Hello, check_versions, read_hello, script, ssh_command
from callyard.backends.gateway.ssh_words import last_words, refusal_of

PATIENCE = 60
SHELLS = ("csh", "fish", "dash")


def answer(host: SSH) -> int:
    with Executor(backend=Local(detached=False, host=host)) as executor:
        return executor.submit(abs, -7).result(PATIENCE)


def refusal(host: SSH) -> str:
    with Executor(backend=Local(detached=False, host=host)) as executor:
        first = executor.submit(abs, -7)
        error = first.exception(PATIENCE)
        assert isinstance(error, CallyardError)
        assert isinstance(executor.submit(abs, first).exception(PATIENCE), CallyardError)  # and no second attempt
    return str(error)


@pytest.mark.parametrize("shell", [pytest.param(shell, marks=pytest.mark.needs(shell)) for shell in SHELLS])
def test_login_shells(sshd: Server, shell: str) -> None:
    assert answer(sshd.host(sshd.account(f"has-{shell}", shell=shutil.which(shell) or ""))) == 7


def test_start_up_files_that_print_and_take_their_time(sshd: Server) -> None:
    noise = "echo Welcome to the cluster; echo callyard-gateway- {}; head -c 3000 /dev/zero; sleep 0.2; echo oops >&2\n"
    assert answer(sshd.host(sshd.account("noisy", start_up=noise))) == 7


def test_a_start_up_file_that_exits(sshd: Server) -> None:
    said = refusal(sshd.host(sshd.account("leaving", start_up="exit 0\n")))
    assert "start-up file" in said
    assert "status 0" in said


def test_no_python_there(sshd: Server) -> None:
    assert "there is no /no/python on plain" in refusal(sshd.host("plain", python="/no/python"))


def test_no_callyard_there(sshd: Server, tmp_path: Path) -> None:
    (tmp_path / "callyard.py").write_text("raise ImportError('no such thing')")
    said = refusal(sshd.host("plain", setup=f"export PYTHONPATH='{tmp_path}'"))
    assert "has no Callyard (ImportError: no such thing)" in said
    assert "-m pip install callyard==" in said


def test_a_failing_setup_is_told(sshd: Server) -> None:
    assert "mod-of-no-cluster" in refusal(sshd.host("plain", setup="mod-of-no-cluster load python\nexit 3"))


def test_a_refused_login(sshd: Server) -> None:
    name = sshd.account("refused")
    authorized = sshd.directory / "authorized"
    authorized.write_text(
        "".join(line for line in authorized.read_text().splitlines(keepends=True) if f'/{name}"' not in line)
    )
    said = refusal(sshd.host(name))
    assert "no connection to refused: the login was refused" in said
    assert "Permission denied" in said


def test_an_unknown_host(sshd: Server) -> None:
    said = refusal(sshd.host(sshd.account("unknown", known="nothing")))
    assert "the key of the host is not known yet; connect once by hand, `ssh unknown`" in said


def test_no_server(sshd: Server) -> None:
    with Relay(1) as relay:
        port = relay.port
    assert "no SSH server answers there" in refusal(sshd.host(sshd.account("gone", port=port)))


def test_no_ssh_here() -> None:
    assert "/no/ssh: No such file" in refusal(SSH("host", command="/no/ssh"))


# ------------------------------------------------------------------ decisions without a server


def test_versions() -> None:
    own = Hello(f"{sys.version_info.major}.{sys.version_info.minor}", "/bin/python3", callyard.__version__)
    check_versions(own, "login", "python3")
    for other, words in [
        (own._replace(python="2.7"), "/bin/python3 on login is Python 2.7, and this is 3."),
        (own._replace(callyard="0.0.1"), "has Callyard 0.0.1, and this is"),
    ]:
        with pytest.raises(VersionMismatch, match=words):
            check_versions(other, "login", "python3")


def test_only_plain_words_are_on_the_command_line() -> None:
    words = ssh_command(["ssh"], "me@login")
    assert all(
        set(word) <= set("@/._=-") or word.replace("-", "").replace("=", "").replace("/", "").replace("@", "").isalnum()
        for word in words
    )
    assert words[-5:] == ["--", "me@login", "exec", "/bin/sh", "-s"]


def test_values_of_the_user_stay_words() -> None:
    text = script("mark", "~/my venv/bin/python", "/a dir/$HOME", [])
    assert "~/'my venv/bin/python'" in text
    assert "'/a dir/$HOME'" in text


def test_the_answer_is_behind_its_mark() -> None:
    assert read_hello(b"Welcome", "mark") is None
    assert read_hello(b'mark {"python": "3.11"}', "mark") == Hello("3.11")


@pytest.mark.parametrize(
    ("words", "passes"),
    [
        ("ssh: connect to host h port 22: Connection timed out", True),
        ("Timeout, server h not responding.", True),
        ("kex_exchange_identification: Connection closed by remote host", True),
        ("ssh: connect to host h port 22: Network is down", True),
        ("ssh_dispatch_run_fatal: Connection to 127.0.0.1 port 22: message authentication code incorrect", True),
        ("cat: /etc/motd: Permission denied\nConnection reset by 127.0.0.1 port 22", True),  # a start-up file's words
        ("me@h: Permission denied (publickey).", False),
        ("Host key verification failed.", False),
        ("@@@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @@@\nHost key verification failed.", False),
    ],
)
def test_what_passes_by_itself(words: str, passes: bool) -> None:
    found = refusal_of(words, 255, "h")
    assert found.passes is passes
    assert "no connection to h" in found.sentence


def test_the_words_of_the_shell_there_are_not_those_of_ssh() -> None:
    found = refusal_of("exec: /tmp: Permission denied (publickey).", 126, "h")
    assert "the shell there ended with status 126 before Python began; it wrote: exec: /tmp" in found.sentence
    assert "no connection to h: ssh failed" in refusal_of("", -9, "h").sentence  # it was killed here


def test_the_last_words_of_a_connection() -> None:
    said = "Connection to h closed by remote host.\n\n"
    assert last_words("", own_only=False) == last_words("14\n", own_only=True) == ""
    assert last_words(f"{said}14\n", own_only=True) == " (Connection to h closed by remote host.)"
    assert last_words(f"{said}MemoryError\n", own_only=False) == " (MemoryError)"


@pytest.mark.parametrize("destination", ["", "-oProxyCommand=x", "two words", None])
def test_destinations(destination: object) -> None:
    with pytest.raises(ResourceError, match="destination"):
        SSH(destination)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["directory", "python"])
@pytest.mark.parametrize("path", ["", "a\0b", b"bytes", 1])
def test_paths_that_are_none(name: str, path: object) -> None:
    with pytest.raises(ResourceError, match=f"{name} must be a path"):
        SSH("login", **{name: path})  # type: ignore[arg-type]


def test_a_host_that_is_none() -> None:
    with pytest.raises(ResourceError, match=r"host must be SSH\(\.\.\.\)"):
        Local(detached=False, host="login")  # type: ignore[arg-type]
