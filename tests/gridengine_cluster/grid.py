"""A Grid Engine cluster on this machine: its daemons have namespaces of their own, and end with the process that made
them.

Grid Engine runs no jobs of root, and wants a host name with an address that others reach it by. So its daemons run in
private mount, network and host-name namespaces, where the only network is loopback, and in a user namespace: there the
user of the tests, who must be root, is an ordinary user, and Grid Engine's root is nobody elsewhere. Its commands enter
these namespaces by wrappers in `bin`.
"""

from __future__ import annotations

import functools
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree as ET

from grid_files import FILES, HOST, ONE_SLOT, QUEUE, configuration, filled
from guardian import Guardian
from this_machine import program, running, tail, until

OF_A_JOB = ("SGE_", "JOB_ID", "QUEUE", "PE_HOSTFILE")
PROGRAMS = Path("/usr/lib/gridengine")
CLIENTS = ("qsub", "qstat", "qdel", "qacct", "qconf", "qalter", "qhold", "qrls", "qmod")
USER = 1000  # the number of the tests' user in the namespace
# Inside, outside, how many: Grid Engine's root and its like; the user; the groups by which it knows processes of jobs.
IDS = ((0, 100_000, 1000), (USER, 0, 1), (65_400, 200_000, 101))
PORTS = {"SGE_QMASTER_PORT": "6444", "SGE_EXECD_PORT": "6445"}


@functools.cache
def why_no_grid() -> str:
    """Say why no cluster can run here, "" where one can."""
    if sys.platform != "linux":
        return "its daemons are tested on Linux only"
    if missing := [
        name for name in ("sge_qmaster", "sge_execd", "qsub", "unshare", "nsenter", "ip") if not program(name)
    ]:
        return f"there is no {', '.join(missing)}"
    if not (PROGRAMS / "spoolinit").exists():
        return f"there is no {PROGRAMS}, where Debian's packages have Grid Engine's tools"
    tried = subprocess.run(["unshare", "-m", "-n", "-u", "unshare", "-U", "true"], capture_output=True, check=False)
    if os.getuid() != 0 or tried.returncode:
        return "its namespaces need root's rights"
    return ""


class GridError(Exception):
    """The cluster did not do what it was told; the end of its log is in the message."""


class Grid:
    """A cluster in `directory`, which it makes when it starts and removes when it stops.

    It has one node, `HOST`, with the queues `all.q` (eight slots) and `one.q` (one slot, and at most a minute), and the
    parallel environment `smp`. A job that is deleted gets SIGUSR2 five seconds before SIGKILL. `settings` replace those
    of the cluster's configuration.
    """

    def __init__(self, directory: Path, settings: Mapping[str, str] | None = None) -> None:
        self.directory, self._settings = directory, settings or {}
        self._guardian: Guardian | None = None
        self._pids: dict[str, int] = {}

    def __enter__(self) -> Grid:  # noqa: PYI034  (Self is new in Python 3.11)
        self._guardian = Guardian(self.directory, [])
        try:
            self._make_files()
            self._make_namespaces()
            self._make_data_base()
            self.start_master()
            self._set_up()
            self.start_node()
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

    # ---------------------------------------------------------------- files and namespaces

    def _make_files(self) -> None:
        for name in ("log", "bin", "home", "tmp", "sge/default/common", "spool/db", "spool/node", "spool/job_scripts"):
            (self.directory / name).mkdir(parents=True)
        for name in ("bin", "lib", "util", "utilbin"):
            (self.directory / "sge" / name).symlink_to(f"/var/lib/gridengine/{name}")
        for name, text in FILES.items():
            (self.directory / name).write_text(filled(text, self.directory))
        text = (Path("/usr/share/gridengine") / "default-configuration").read_text()
        (self.directory / "global").write_text(configuration(text, self.directory, self._settings))
        (self.directory / "tmp").chmod(0o777)
        for name in ("spool", "spool/db", "spool/node", "spool/job_scripts", "sge/default/common"):
            os.chown(self.directory / name, IDS[0][1], IDS[0][1])

    def _make_namespaces(self) -> None:
        binds = [f"mount --bind {shlex.quote(f'{self.directory}/etc.{name}')} /etc/{name}" for name in
                 ("hosts", "passwd", "group", "nsswitch.conf")]  # fmt: skip
        script = "; ".join(["set -e", f"hostname {HOST}", "ip link set lo up", *binds, "exec unshare -U sleep inf"])
        pid = self._start("namespaces", ["unshare", "-m", "-n", "-u", "sh", "-c", script])
        ours = os.readlink("/proc/self/ns/user")
        self._wait_for("namespaces", lambda: os.readlink(f"/proc/{pid}/ns/user") != ours)
        text = "".join(f"{inside} {outside} {count}\n" for inside, outside, count in IDS)
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{pid}/{name}").write_text(text)
        for name in CLIENTS:
            wrapper = self.directory / "bin" / name
            # The scheduler begins its round a second after a submission, unless it is told to begin at once.
            at_once = f"; code=$?; {shlex.join(self._entering(0))} {program('qconf')} -tsm >/dev/null 2>&1; exit $code"
            wrapper.write_text(
                f'#!/bin/sh\nif [ "$(hostname)" = {HOST} ]; then exec {program(name)} "$@"; fi\n'
                f'{shlex.join(self._entering(USER))} --wd="$PWD" {program(name)} "$@"{at_once * (name == "qsub")}\n'
            )
            wrapper.chmod(0o755)

    def _entering(self, user: int) -> list[str]:
        target = ["nsenter", f"--target={self._pids['namespaces']}", "--user", "--mount", "--net", "--uts"]
        return [*target, f"--setuid={user}", f"--setgid={user}"]

    def _make_data_base(self) -> None:
        self.admin(str(PROGRAMS / "spoolinit"), "berkeleydb", "libspoolb", f"{self.directory}/spool/db", "init")
        resources = "/usr/share/gridengine/util/resources"
        for words in (
            ("configuration", f"{self.directory}/global"),
            ("complexes", f"{resources}/centry"),
            ("usersets", f"{resources}/usersets"),
            ("managers", "root"),
        ):
            self.admin(str(PROGRAMS / "spooldefaults"), *words)

    def _set_up(self) -> None:
        self.admin("qconf", "-as", HOST)
        self.admin("qconf", "-Ap", f"{self.directory}/smp")
        text = self.admin("qconf", "-ssconf")
        quick = {"schedule_interval": "0:0:1", "flush_submit_sec": "1", "flush_finish_sec": "1"}
        lines = (line.split(None, 1) for line in text.splitlines())
        kept = "".join(f"{name} {quick.get(name, value)}\n" for name, value in lines)
        (self.directory / "schedule").write_text(kept)
        self.admin("qconf", "-Msconf", f"{self.directory}/schedule")
        self.admin("qconf", "-Ae", f"{self.directory}/node")
        for name, slots, limit in (("all.q", 8, "INFINITY"), (ONE_SLOT, 1, "0:1:0")):
            (self.directory / name).write_text(QUEUE.format(name=name, slots=slots, limit=limit, place=self.directory))
            self.admin("qconf", "-Aq", f"{self.directory}/{name}")

    # ---------------------------------------------------------------- daemons

    def _start(self, name: str, argv: list[str]) -> int:
        assert self._guardian is not None, "the cluster is not running"
        answer = self._guardian.start([program(argv[0]), *argv[1:]], self._own, self.directory / "log" / name)
        if isinstance(answer, str):
            raise GridError(f"{argv[0]} could not be started: {answer}")
        self._pids[name] = answer
        return answer

    def start_master(self) -> None:
        self._start("qmaster", [*self._entering(0), program("sge_qmaster")])
        self._wait_for("qmaster", lambda: self._reply(0, "qconf", "-sss").returncode == 0)

    def start_node(self) -> None:
        """Start the node's daemon, and wait until it takes jobs."""
        self._start("execd", [*self._entering(0), program("sge_execd")])
        self._wait_for("execd", lambda: " lx-" in self.admin("qhost"))

    @contextmanager
    def stalled(self) -> Iterator[None]:
        """Suspend the master: it takes connections and does not answer."""
        pid = self._pids["qmaster"]
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def _wait_for(self, name: str, condition: Callable[[], bool], patience: float = 45) -> None:
        deadline = time.monotonic() + patience
        while not condition():
            if not running(self._pids[name]) or time.monotonic() > deadline:
                raise GridError(f"{name} is not as it should be: {tail(self.directory / 'log' / name)}")
            time.sleep(0.01)

    # ---------------------------------------------------------------- clients

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables that make Grid Engine's commands talk to this cluster."""
        place = {"SGE_ROOT": f"{self.directory}/sge", "SGE_CELL": "default", **PORTS}
        return {**place, "PATH": f"{self.directory}/bin:{os.environ['PATH']}"}

    @property
    def _own(self) -> dict[str, str]:
        """Return the environment of our own commands and daemons; SGE_ND keeps these in the foreground."""
        return {**self.environment, "PATH": os.environ["PATH"], "SGE_ND": "1"}

    def _reply(self, user: int, *words: str) -> subprocess.CompletedProcess[str]:
        argv = [*self._entering(user), *words]
        return subprocess.run(argv, env=self._own, capture_output=True, text=True, check=False, timeout=60)

    def admin(self, *words: str) -> str:
        """Run a command as Grid Engine's administrator, and return what it printed."""
        return self._run(0, *words)

    def run(self, *words: str) -> str:
        """Run a command as the user of the tests, and return what it printed."""
        return self._run(USER, *words)

    def _run(self, user: int, *words: str) -> str:
        done = self._reply(user, *words)
        if done.returncode:
            raise GridError(f"{' '.join(words)} failed ({done.returncode}): {done.stderr or done.stdout}")
        return done.stdout

    def jobs(self) -> dict[str, str]:
        """Return the states of the jobs that have not ended; of each element of an array, as "12.3"."""
        found = {}
        for job in ET.fromstring(self.run("qstat", "-xml", "-g", "d")).iter("job_list"):
            number, task = job.findtext("JB_job_number", ""), job.findtext("tasks")
            found[f"{number}.{task}" if task else number] = job.findtext("state", "")
        return found

    def reconfigure(self, **settings: str) -> None:
        """Change the configuration of the cluster."""
        text = self.admin("qconf", "-sconf")
        (self.directory / "global").write_text(configuration(text, self.directory, settings))
        self.admin("qconf", "-Mconf", f"{self.directory}/global")

    def restore(self, grace: float = 5) -> dict[str, str]:
        """Make the cluster as new; return the jobs that were left. One that is done may take a moment to end."""
        deadline = time.monotonic() + grace
        while (left := self.jobs()) and time.monotonic() < deadline:
            time.sleep(0.02)
        if left:
            self._reply(0, "qdel", "-u", "*")
            until(lambda: not self.jobs())
        return left
