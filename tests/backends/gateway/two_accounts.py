"""The program behind `test_two_accounts`, in a namespace with another account: a graph goes there, to Slurm.

    unshare --mount --propagation private python two_accounts.py PLACE

The link is cut and the driver killed in the middle; then another driver gets all results, and a third one without a
server.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from accounts import NAME, NUMBER, add_account, open_way
from cluster import Cluster
from gate import Gate
from metal_calls import METALS, STRAINS
from relay import Relay
from sshd import Server

import callyard

PATIENCE = 90  # s
DRIVER = """
import logging, pickle, sys
logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s")
from callyard import Executor
from metal_calls import graph
host, journal, results, gate = pickle.loads(bytes.fromhex(sys.argv[1]))
with Executor(backend=host, cache=results) as ex:
    futures = graph(ex, journal, gate)
    print("the result:", futures[-1].result(), flush=True)
    print("cached", [future.cached for future in futures], flush=True)
"""


class Driver:
    """The user's script, in the account of the tests."""

    def __init__(self, described: str) -> None:
        paths = os.pathsep.join(filter(None, sys.path))
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-W", "ignore", "-c", DRIVER, described],
            env={**os.environ, "PYTHONPATH": paths},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def wait_for(self, words: str) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            print("driver:", line, end="", flush=True)
            if words in line:
                return line
        raise AssertionError(f"the driver has ended and not said {words!r}")

    def end(self) -> None:
        """Wait for its end, if it is to end by itself."""
        stream: IO[str] | None = self.process.stdout
        assert stream is not None
        stream.close()
        self.process.wait(PATIENCE)

    def kill(self) -> None:
        self.process.kill()
        self.end()


@contextmanager
def world(place: Path) -> Iterator[tuple[Server, Cluster]]:
    """A cluster, and a server for the other account, which may enter the directories of both."""
    with Cluster(place / "c") as cluster, Server(place / "s") as server:
        for directory in (cluster.directory, server.directory):
            directory.chmod(0o711)
        yield server, cluster


def described(server: Server, cluster: Cluster, relay: Relay, place: Path, gate: Gate) -> str:
    import pickle

    source = Path(callyard.__file__).parents[1]
    variables = {"SLURM_CONF": cluster.environment["SLURM_CONF"], "PYTHONPATH": source}
    setup = [f"export {name}='{value}'" for name, value in variables.items()]
    host = server.host(server.account("there", port=relay.port, user=NAME), setup=setup)
    slurm = callyard.Slurm(host=host, poll=(0.2, 1), result_grace=2)
    return pickle.dumps((slurm, str(place / "shared/journal"), str(place / "results"), gate)).hex()


def shared(place: Path) -> Gate:
    """Make a directory for both accounts, with a gate."""
    (place / "shared").mkdir()
    (place / "shared").chmod(0o1777)
    gate = Gate(place / "shared")
    for path in (gate.arrivals, gate.passes):
        os.chmod(path, 0o666)
    return gate


def main(place: Path) -> None:
    signal.alarm(PATIENCE)
    signal.signal(signal.SIGALRM, lambda *_: sys.exit("it takes too long"))
    os.umask(0o022)
    add_account(place)
    open_way([sys.prefix, sys.base_prefix, os.path.dirname(callyard.__file__), os.path.dirname(__file__)], place)
    gate = shared(place)
    with world(place) as (server, cluster):
        with Relay(server.port) as relay:
            said = described(server, cluster, relay, place, gate)
            cut_and_killed(Driver(said), relay, gate)
            second = Driver(said)
            second.wait_for("connected to there")
            gate.open()
            result = second.wait_for("the result: ")
            second.end()
    third = Driver(said)  # neither server, relay nor cluster is there any more
    assert third.wait_for("the result: ") == result
    assert "False" not in third.wait_for("cached")
    third.end()
    check(place, result)
    gate.close()


def cut_and_killed(driver: Driver, relay: Relay, gate: Gate) -> None:
    gate.arrived()  # an energy
    relay.cut = True
    relay.hang_up()
    driver.wait_for("its calls go on there")
    gate.open()
    gate.arrived()  # a fit: the graph goes on there
    relay.cut = False
    driver.wait_for("connected to there")
    driver.kill()


def check(place: Path, result: str) -> None:
    expected = {metal: 2 + 3 * len(metal) for metal in METALS}
    assert result == f"the result: ({expected}, {NUMBER})\n"
    journal = place / "shared/journal"
    assert journal.stat().st_uid == NUMBER
    calls = [f"{metal}-{strain}" for metal in METALS for strain in STRAINS]
    assert Counter(journal.read_text().split()) == Counter([*calls, *METALS, "table"])
    there = place / "s/there/work/.callyard"
    assert (there.stat().st_uid, oct(there.stat().st_mode & 0o777)) == (NUMBER, "0o700")
    assert (place / "results").stat().st_uid == os.getuid()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
