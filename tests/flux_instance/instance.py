"""An instance of Flux with pretended nodes on this machine: brokers that end with the process that made them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from guardian import Guardian, kill
from this_machine import running, tail, until

OF_A_JOB = ("FLUX_", "PMI_")

CONFIGURATION = """
[bootstrap]
curve_cert = "{directory}/curve.cert"
hosts = [{{host="n1", bind="ipc://{directory}/n1", connect="ipc://{directory}/n1"}}{others}]

[resource]
noverify = true

[[resource.config]]
hosts = "n[1-{nodes}]"
cores = "{cores}"
"""


def why_no_flux() -> str:
    """Say why no instance can run here, "" where one can: any user may have one."""
    if sys.platform != "linux":
        return "its brokers are tested on Linux only"
    return "" if shutil.which("flux") else "there is no flux"


class InstanceError(Exception):
    """The instance did not do what it was told; the end of its log is in the message."""


class Instance:
    """An instance in `directory`, which it makes when it starts and removes when it stops; its path must be short.

    Its nodes are called n1, n2, ...; the first has the leader. `settings` are more lines of its configuration.
    """

    def __init__(self, directory: Path, *, nodes: int = 4, cores: int = 4, settings: str = "") -> None:
        self.directory, self.nodes, self._cores, self._settings = directory, nodes, cores, settings
        self._guardian: Guardian | None = None
        self._starts = 0

    def __enter__(self) -> Instance:  # noqa: PYI034  (Self is new in Python 3.11)
        self._guardian = Guardian(self.directory, [])
        try:
            (self.directory / "conf").mkdir()
            (self.directory / "state").mkdir()
            subprocess.run(["flux", "keygen", f"{self.directory}/curve.cert"], check=True, env=self._own)
            others = "".join(f', {{host="n{number}"}}' for number in range(2, self.nodes + 1))
            cores = f"0-{self._cores - 1}" if self._cores > 1 else "0"
            text = CONFIGURATION.format(directory=self.directory, nodes=self.nodes, cores=cores, others=others)
            (self.directory / "conf/instance.toml").write_text(text + self._settings)
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def stop(self) -> None:
        if self._guardian is not None:
            self._guardian.stop()
            self._guardian = None

    # ---------------------------------------------------------------- brokers

    def start(self) -> None:
        """Start the brokers, and wait until all are there. What an earlier start has saved is taken up."""
        assert self._guardian is not None
        self._starts += 1
        log, uri = self.directory / f"log{self._starts}", self.directory / f"uri{self._starts}"
        argv = [
            str(shutil.which("flux")), "start", f"--test-size={self.nodes}", f"--test-hosts=n[1-{self.nodes}]",
            f"--config-path={self.directory}/conf", "--test-exit-mode=leader", f"-Sstatedir={self.directory}/state",
            f"flux getattr local-uri > {uri}.new; mv {uri}.new {uri}; exec sleep inf",
        ]  # fmt: skip
        pid = self._guardian.start(argv, self._own, log)
        assert isinstance(pid, int), pid
        deadline = time.monotonic() + 60
        while not uri.exists():
            if not running(pid) or time.monotonic() > deadline:
                raise InstanceError(f"the instance did not start: {tail(log)}")
            time.sleep(0.01)
        self._uri = uri.read_text().strip()
        self._pid = pid
        until(lambda: self.run("resource", "list", "-n", "-s", "up", "-o", "{nnodes}").split() == [str(self.nodes)])

    def is_up(self) -> bool:
        return running(self._pid)

    def broker(self, rank: int) -> int:
        """Return the process ID of a broker."""
        return int(self.run("exec", "-r", str(rank), "flux", "getattr", "broker.pid"))

    def kill_leader(self) -> None:
        """Kill the leader, as a loss of its node would; the others end with it."""
        kill([self.broker(0)])
        until(lambda: not running(self._pid))

    def kill_broker(self, rank: int) -> None:
        kill([self.broker(rank)], signal.SIGKILL)

    # ---------------------------------------------------------------- clients

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables that make Flux's commands talk to this instance."""
        return {"FLUX_URI": self._uri}

    @property
    def _own(self) -> dict[str, str]:
        """Return the environment of our own commands. What brokers leave when they are killed lies in the directory."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith((*OF_A_JOB, "CALLYARD_"))}
        return {**kept, "TMPDIR": str(self.directory)} | ({"FLUX_URI": self._uri} if hasattr(self, "_uri") else {})

    def run(self, *words: str, extra: Mapping[str, str] | None = None) -> str:
        """Run one of Flux's commands, and return what it printed."""
        env = {**self._own, **(extra or {})}
        done = subprocess.run(["flux", *words], env=env, capture_output=True, text=True, check=False, timeout=60)
        if done.returncode:
            raise InstanceError(f"flux {words[0]} failed ({done.returncode}): {done.stderr or done.stdout}")
        return done.stdout

    def jobs(self, *filters: str) -> dict[str, str]:
        """Return the states of the jobs that have not ended; with the filter "-a", of all."""
        lines = self.run("jobs", "-n", "-c0", "-o", "{id.f58plain} {status}", *filters).splitlines()
        return dict(line.split() for line in lines)

    def restore(self) -> dict[str, str]:
        """End all jobs; return those that were left. One whose work is done may take an instant to end."""
        deadline = time.monotonic() + 5
        while (left := self.jobs()) and time.monotonic() < deadline:
            time.sleep(0.02)
        if left:
            self.run("cancel", "--all", "--quiet")
            until(lambda: not self.jobs())
        return left
