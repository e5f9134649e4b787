"""Commands are run on this machine: within their time, without a shell, and leaving nothing."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from callyard.hosts.this_machine import LocalHost, Reply

LONG = 60.0  # seconds; nothing here takes that long unless it fails


def python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", code, *arguments]


def test_a_command_answers() -> None:
    code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    assert LocalHost().run(python(code), timeout=LONG) == Reply(3, "out\n", "err\n")


def test_words_mean_themselves() -> None:
    words = ["$HOME", "a b", "; echo no", "*", "", "ü"]
    reply = LocalHost().run(python("import sys; print(sys.argv[1:])", *words), timeout=LONG)
    assert reply.out == f"{words}\n"


def test_what_is_no_text_is_replaced() -> None:
    reply = LocalHost().run(python(r"import sys; sys.stdout.buffer.write(b'a\xffb')"), timeout=LONG)
    assert reply.out == "a�b"


def test_there_is_no_input() -> None:
    assert LocalHost().run(python("import sys; print(repr(sys.stdin.read()))"), timeout=LONG).out == "''\n"


@pytest.mark.parametrize("stop", [None, threading.Event()])
def test_a_command_gets_the_input_that_is_meant_for_it(stop: threading.Event | None) -> None:
    code = "import sys, time; time.sleep(0.3); print(len(sys.stdin.read()))"  # later than the first look at `stop`
    assert LocalHost().run(python(code), timeout=LONG, stdin="ü\n" * 500_000, stop=stop).out == "1000000\n"


def test_a_command_need_not_read_its_input() -> None:
    assert LocalHost().run(python("pass"), timeout=LONG, stdin="x" * 1_000_000) == Reply(0, "", "")


def test_input_that_cannot_be_kept_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a full disk for temporary files."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    reply = LocalHost().run(["cat"], timeout=LONG, stdin="words")
    assert reply.code == 126
    assert reply.err.startswith("cat cannot be run on ")


def test_more_output_than_a_pipe_holds() -> None:
    reply = LocalHost().run(
        python("import sys; print('x' * 1_000_000); print('y' * 1_000_000, file=sys.stderr)"), timeout=LONG
    )
    assert (len(reply.out), len(reply.err)) == (1_000_001, 1_000_001)


def test_the_environment_is_the_one_that_is_given() -> None:
    code = "import os; print(os.environ.get('HERE_GIVEN'), os.environ.get('HERE_OURS'))"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HERE_OURS", "1")
        assert LocalHost().run(python(code), timeout=LONG, env={"HERE_GIVEN": "2"}).out == "2 None\n"
        assert LocalHost().run(python(code), timeout=LONG).out == "None 1\n"


def test_a_signal_is_told_from_an_exit_code() -> None:
    assert LocalHost().run(python("import os, signal; os.kill(os.getpid(), signal.SIGKILL)"), timeout=LONG).code == -9


def test_descriptors_are_not_inherited() -> None:
    ours, other = os.pipe()
    os.set_inheritable(ours, True)
    try:
        code = "import os, sys\ntry: os.fstat(int(sys.argv[1]))\nexcept OSError: print('closed')"
        assert LocalHost().run(python(code, str(ours)), timeout=LONG).out == "closed\n"
    finally:
        os.close(ours)
        os.close(other)


def test_a_command_leads_its_own_session() -> None:
    code = "import os; print(os.getsid(0) == os.getpid() == os.getpgid(0))"
    assert LocalHost().run(python(code), timeout=LONG).out == "True\n"


def test_at_the_time_limit_all_of_it_ends(tmp_path: Path) -> None:
    # The child holds the pipe open: if it lived on, so would this test. What is left behind fails the test besides.
    child = "import time; time.sleep(1000)"
    code = (
        "import subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, '-c', {child!r}])\n"
        "print('started', flush=True); time.sleep(1000)"
    )
    reply = LocalHost().run(python(code), timeout=2.0)
    assert reply.code is None
    assert reply.out in {"started\n", ""}  # "" on a machine that takes 2 s to start an interpreter


def test_nobody_wants_to_know_any_more(tmp_path: Path) -> None:
    """Whoever waits in another thread for the command has its end at once, and what it said until then."""
    begun, stop, replies = tmp_path / "begun", threading.Event(), list[Reply]()
    code = "import signal, sys; print('so far', flush=True); open(sys.argv[1], 'w'); signal.pause()"

    def run() -> None:
        replies.append(LocalHost().run(python(code, str(begun)), timeout=1e6, stop=stop))

    thread = threading.Thread(target=run)
    thread.start()
    while not begun.exists():
        time.sleep(0.01)
    stop.set()
    thread.join()
    assert replies == [Reply(None, "so far\n", "")]


def test_the_time_limit_is_kept_while_it_may_be_stopped() -> None:
    reply = LocalHost().run(python("import time; time.sleep(1000)"), timeout=0.5, stop=threading.Event())
    assert reply.code is None


def test_the_time_limit_is_kept_if_somebody_left_the_group(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    # A fork that holds the pipes open in a session of its own. The rename makes the whole number appear at once.
    code = (
        "import os, sys, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    open(sys.argv[1] + '~', 'w').write(str(os.getpid()))\n"
        "    os.rename(sys.argv[1] + '~', sys.argv[1])\n"
        "time.sleep(1000)"
    )
    reply = LocalHost().run(python(code, str(pid)), timeout=5.0)
    while not pid.exists():
        time.sleep(0.01)
    os.kill(int(pid.read_text()), signal.SIGKILL)
    assert reply.code is None


def test_a_missing_command_is_a_sentence() -> None:
    reply = LocalHost().run(["no-such-sbatch", "--parsable"], timeout=LONG)
    assert reply.code == 127
    assert reply.err.startswith("there is no no-such-sbatch on the PATH of ")


def test_a_command_is_looked_for_on_the_path_that_is_given(tmp_path: Path) -> None:
    program = tmp_path / "own-command"
    program.write_text("#!/bin/sh\necho found\n")
    assert LocalHost().run(["own-command"], timeout=LONG, env={"PATH": str(tmp_path)}).code == 126  # not executable
    program.chmod(0o700)
    assert LocalHost().run(["own-command"], timeout=LONG, env={"PATH": str(tmp_path)}).out == "found\n"
    assert LocalHost().run(["own-command"], timeout=LONG).code == 127


def test_a_path_that_is_not_there() -> None:
    assert "there is no /no/such/program on" in LocalHost().run(["/no/such/program"], timeout=LONG).err


def test_threads_may_run_commands_at_the_same_time() -> None:
    replies: list[Reply] = []

    def run(number: int) -> None:
        replies.append(LocalHost().run(python(f"print({number})"), timeout=LONG))

    threads = [threading.Thread(target=run, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(reply.out for reply in replies) == ["0\n", "1\n", "2\n", "3\n"]


def test_an_interrupt_ends_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: object, timeout: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("subprocess.Popen.communicate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        LocalHost().run(python("import time; time.sleep(1000)"), timeout=LONG)
