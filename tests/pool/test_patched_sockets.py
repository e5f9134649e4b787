"""Programs that change how sockets work: ours do not notice."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from callyard import Executor

NOT_BLOCKING = """
import os, socket

def pair(*arguments, pair=socket.socketpair):
    ends = pair(*arguments)
    for end in ends:  # gevent and eventlet do so, and wait in their own way
        os.set_blocking(end.fileno(), False)
    return ends

socket.socketpair = pair
"""
PATCHES = {
    "a default timeout": "import socket; socket.setdefaulttimeout(0.05)",
    "no blocking by default": "import socket; socket.setdefaulttimeout(0)",
    "no socket blocks": NOT_BLOCKING,
    "gevent": "from gevent import monkey; monkey.patch_all()",
    "eventlet": "import eventlet; eventlet.monkey_patch()",
}
USE = """
import os, time
from callyard import Executor

def large(i):
    return bytes(100_000)

def shared(i):
    return [bytes(300_000), i]

if __name__ == "__main__":
    with Executor(1) as executor:
        pids = set()
        for _ in range(3):
            pids.add(executor.submit(os.getpid).result(60))
            time.sleep(0.1)  # longer than the time limit of a socket
        assert len(pids) == 1, pids
    with Executor(2) as executor:
        futures = [executor.submit(each, i) for i in range(60) for each in (large, shared)]
        time.sleep(0.1)  # they wait to be read
        assert [len(future.result(60)) for future in futures] == [100_000, 2] * 60
        inside = executor.submit(os.getpid)
        assert inside.result(60)
    print("well")
"""
EACH = [
    pytest.param(text, id=name, marks=pytest.mark.needs(name) if " " not in name else ())
    for name, text in PATCHES.items()
]


@pytest.mark.parametrize("patch", EACH)
def test_a_program_that_patches_sockets_before_anything_else(patch: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", patch + USE], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.stdout, done.stderr) == ("well\n", "")


def run(text: str) -> None:
    exec(textwrap.dedent(text), {})


@pytest.mark.parametrize("patch", EACH)
def test_a_call_that_patches_sockets_in_its_worker(patch: str) -> None:
    with Executor(1) as executor:
        executor.submit(run, patch).result(60)
        results = [executor.submit(bytes, size).result(60) for size in (10, 100_000, 300_000)]
        assert [len(result) for result in results] == [10, 100_000, 300_000]
        many = [executor.submit(pow, 2, i) for i in range(200)]
        assert [call.result(60) for call in many] == [2**i for i in range(200)]
