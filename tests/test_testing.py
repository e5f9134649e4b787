"""What is offered for the tests of others."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

from callyard.hosts.base import Host
from callyard.schedulers.command import Reply
from callyard.testing.hosts import ScriptedHost


def test_a_host_that_answers_from_a_script() -> None:
    def answer(argv: Sequence[str], stdin: str) -> Reply:
        return Reply(0, f"{argv[0]} {stdin}")

    made = ScriptedHost(answer)
    host: Host = made
    assert host.run(["say"], timeout=1.0, stdin="hello").out == "say hello"
    assert made.commands == [["say"]]
    assert host.environment() == {}
    assert host.exists("/nowhere")


def test_only_the_suites_need_pytest() -> None:
    code = "import sys, callyard.testing.hosts; from callyard import *; print('pytest' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "False\n"
