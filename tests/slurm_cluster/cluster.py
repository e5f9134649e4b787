"""A Slurm cluster of virtual nodes on this machine: daemons on loopback, which end with the process that made them."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import daemons
from allocation import allocated
from cluster_files import check_paths, device_files, write_files
from guardian import Guardian, kill, remove_cgroups
from slurm_conf import Layout
from this_machine import PATH, ClusterError, can_track_by_cgroup, marked, program, reserve_ports, running, tail, until

OF_A_JOB = ("SLURM_", "SLURMD_", "SBATCH_", "SALLOC_", "SRUN_", "SQUEUE_", "SINFO_", "SACCT_")


class Cluster:
    """A cluster in `directory`, which it makes when it starts and removes when it stops; its path must be short.

    Partitions: `main` (default), `low` (its jobs make room for those of `main`, by being requeued), `spare` (likewise,
    by being cancelled after five seconds of grace), `short` (the first node, at most a minute) and `gpu` (the last
    node). `memory` in MiB per node; `min_job_age` in s: how long the controller remembers an ended job, at least.
    `settings` and `lines` go into slurm.conf; the former take the place of what is there.

    `nodes` are the names of the nodes, which differ between clusters; `gpus`: how many each has, which may be fewer
    than were asked for. `kills_by_memory` tells whether a job beyond its memory is killed at once and ends as
    OUT_OF_MEMORY; elsewhere it is killed within some seconds, and ends as FAILED.
    """

    def __init__(
        self,
        directory: Path,
        *,
        nodes: int = 4,
        cpus: int = 4,
        memory: int = 8000,
        gpus: int = 2,
        accounting: bool = False,
        max_array_size: int = 1001,
        min_job_age: int = 300,
        settings: Mapping[str, object] | None = None,
        lines: Sequence[str] = (),
    ) -> None:
        self.directory, self._conf = directory, f"{directory}/slurm.conf"
        self._reserved, port = reserve_ports(nodes + 2)
        self.layout = Layout(
            directory=directory,
            port=port,
            nodes=tuple(f"t{port}n{number}" for number in range(1, nodes + 1)),
            cpus=cpus,
            memory=memory,
            gpus=device_files(directory, gpus),
            cgroups=can_track_by_cgroup(),
            accounting=accounting,
            user=pwd.getpwuid(os.getuid()).pw_name,
            settings={"MaxArraySize": max_array_size, "MinJobAge": min_job_age, **(settings or {})},
            lines=tuple(lines),
        )
        self.nodes, self.gpus, self.kills_by_memory = self.layout.nodes, len(self.layout.gpus), self.layout.cgroups
        self._pids: dict[str, int] = {}
        self._guardian: Guardian | None = None

    # ---------------------------------------------------------------- start and stop

    def start(self) -> None:
        try:
            check_paths(self.layout)
            self._guardian = Guardian(self.directory, [f"slurm_{node}" for node in self.nodes])
            write_files(self.layout)
            self._daemon("munged", daemons.munged(self.layout))
            self._wait_for("munged", self.layout.munge.exists)
            if self.layout.accounting:
                self._start_accounting()
            self.start_controller()  # first: a slurmd that nobody answers tries again a second later
            for node in self.nodes:
                self._start_slurmd(node)
            self._wait_for("slurmctld", lambda: self._ready(*self.nodes))
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Kill everything and remove the directory; may be called again."""
        if self._guardian is not None:
            self._guardian.stop()
            self._guardian = None
        self._reserved.close()

    def __enter__(self) -> Cluster:  # noqa: PYI034  (Self is new in Python 3.11)
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def _daemon(self, name: str, argv: Sequence[str], **environment: str) -> None:
        """Start a daemon; its log is `log/<name>` in the cluster's directory."""
        assert self._guardian is not None, "the cluster is not running"
        environment = {"PATH": PATH, "SLURM_CONF": self._conf, **environment}
        answer = self._guardian.start([program(argv[0]), *argv[1:]], environment, self.directory / "log" / name)
        if isinstance(answer, str):
            raise ClusterError(f"{argv[0]} could not be started: {answer}.")
        self._pids[name] = answer

    def _start_accounting(self) -> None:
        self._daemon("install", daemons.mariadb_install(self.layout))
        self._wait_for("", lambda: not running(self._pids["install"]))
        self._daemon("mariadbd", daemons.mariadbd(self.layout))
        self._wait_for("mariadbd", lambda: self._answers(*daemons.mariadb_ping(self.layout)))
        self.run(*daemons.make_data_base(self.layout))
        self._daemon("slurmdbd", ["slurmdbd", "-D"], MYSQL_UNIX_PORT=str(self.layout.mysql))
        self._wait_for("slurmdbd", lambda: self._answers("sacctmgr", "-n", "show", "cluster"))

    def _start_slurmd(self, node: str) -> None:
        conf = f"{self.directory}/conf/{node}/slurm.conf"
        # What slurmd starts inherits the node's name, by which kill_node finds it.
        self._daemon(node, ["slurmd", "-D", "-f", conf, "-N", node], SLURM_CONF=conf, SLURMD_NODENAME=node)

    # ---------------------------------------------------------------- clients

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables that make Slurm's commands talk to this cluster, and be counted."""
        return {"SLURM_CONF": self._conf, "PATH": f"{self.directory}/bin:{PATH}"}

    def commands(self) -> Counter[str]:
        """Return how often each of Slurm's commands was run by way of `environment`."""
        return Counter({path.name: path.stat().st_size for path in (self.directory / "counts").iterdir()})

    def run(self, *argv: str, timeout: float = 60) -> str:
        """Run a command, not counted, and return what it printed."""
        reply = self._reply(argv, timeout)
        if reply.returncode:
            raise ClusterError(f"{argv[0]} failed ({reply.returncode}): {reply.stderr.strip() or reply.stdout.strip()}")
        return reply.stdout

    def _answers(self, *argv: str) -> bool:
        return self._reply(argv).returncode == 0

    def _reply(self, argv: Sequence[str], timeout: float = 60) -> subprocess.CompletedProcess[str]:
        argv = [program(argv[0]), *argv[1:]]
        return subprocess.run(argv, env=self._own, capture_output=True, text=True, check=False, timeout=timeout)

    @property
    def _own(self) -> dict[str, str]:
        """Return the environment of our own commands: as if typed outside of all jobs."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(OF_A_JOB)}
        return kept | {"PATH": PATH, "SLURM_CONF": self._conf}

    def jobs(self) -> dict[str, str]:
        """Return the state of each job that has not ended: an array's elements each, as "12_3"."""
        return dict(line.split() for line in self.run("squeue", "-h", "-r", "-o", "%i %T").splitlines())

    def state(self, job: str) -> str:
        """Return the state of a job or an array's element, "" where the controller does not know it."""
        return self._reply(["squeue", "-h", "-r", "-t", "all", "-j", job, "-o", "%T"]).stdout.strip()

    def wait_for(self, job: str, *states: str) -> str:
        """Wait until a job is in one of these states, and return it."""
        until(lambda: self.state(job) in states)
        return self.state(job)

    def cancel_all(self) -> None:
        """Cancel what there is, and wait until nothing runs."""
        cancel, begun = ["scancel", f"--user={self.layout.user}"], time.monotonic()

        def none_left() -> bool:
            states = set(self.jobs().values())
            if "RUNNING" in states:  # a script that is asked politely takes seconds; one just starting hears nothing
                self._reply([*cancel, "--full", "--signal=KILL"])
            if "PENDING" in states:
                self._reply([*cancel, "--state=PENDING"])
            if time.monotonic() > begun + 2 and states - {"COMPLETING"}:  # an allocation has no process
                self._reply(cancel)
            return not states

        self._wait_for("slurmctld", none_left)

    @contextmanager
    def allocation(self, nodes: int = 1, *options: str) -> Iterator[dict[str, str]]:
        """Hold an allocation; give the variables that salloc adds to the environment of a process inside it."""
        argv = [program("salloc"), "--immediate=30", f"--nodes={nodes}", *options]
        with allocated(argv, self._own, self.directory / "log/salloc") as added:
            yield added

    # ---------------------------------------------------------------- failures

    def node_down(self, node: str) -> None:
        """Take a node out as an administrator does: its jobs fail, and it stays down until node_up."""
        self.run("scontrol", "update", f"nodename={node}", "state=down", "reason=test")

    def node_up(self, node: str) -> None:
        """Put a node back into service, and wait until it takes jobs."""
        if self._states()[node].startswith(("down", "drain")):
            self._reply(["scontrol", "update", f"nodename={node}", "state=resume"])
        self._wait_for(node, lambda: self._ready(node))

    def _all_up(self) -> None:
        if not self._ready(*self.nodes):
            for node in self.nodes:
                self.node_up(node)

    def kill_node(self, node: str) -> None:
        """Kill a node's slurmd and whatever runs there, as a loss of power would. Slurm notices half a minute later."""
        assert self._guardian is not None, "the cluster is not running"
        while found := marked(self._guardian.pid, f"SLURMD_NODENAME={node}"):
            kill(found, signal.SIGSTOP)  # first, so that none can tell of the end of another
            kill(found)
        remove_cgroups(f"slurm_{node}")

    def start_node(self, node: str) -> None:
        """Start a killed node, and wait until it takes jobs."""
        self._start_slurmd(node)
        self._wait_for(node, lambda: self._ready(node))

    def stop_controller(self, sign: signal.Signals = signal.SIGTERM) -> None:
        """Stop slurmctld. By SIGKILL it forgets what it did not `save`: it does so some seconds late."""
        pid = self._pids["slurmctld"]
        os.kill(pid, sign)
        self._wait_for("", lambda: not running(pid))

    def save(self, job: str) -> None:
        """Wait until slurmctld has written down what it knows of a job by now."""
        mark = uuid.uuid4().hex
        self.run("scontrol", "update", f"jobid={job}", f"admincomment={mark}")
        until(lambda: mark.encode() in self._saved())

    def _saved(self) -> bytes:
        """Return what it has written down: nothing in the moment in which it replaces the file."""
        try:
            return (self.directory / "state/job_state").read_bytes()
        except FileNotFoundError:
            return b""

    def start_controller(self, *options: str) -> None:
        """Start slurmctld and wait until it answers. After a restart it takes some seconds to hear of the nodes."""
        self._daemon("slurmctld", ["slurmctld", "-D", *options])
        self._wait_for("slurmctld", lambda: self._answers("scontrol", "ping"))

    @contextmanager
    def stalled(self, daemon: str = "slurmctld") -> Iterator[None]:
        """Suspend a daemon (slurmctld, slurmdbd, a node's name): it takes connections and does not answer."""
        pid = self._pids[daemon]
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    @contextmanager
    def failing_prolog(self) -> Iterator[None]:
        """Let each job's prolog fail, on every node; Slurm drains the nodes, which this undoes."""
        self.layout.fail_prolog.touch()
        try:
            yield
        finally:
            self.layout.fail_prolog.unlink()
            self._all_up()

    def restore(self) -> dict[str, str]:
        """Make the cluster as new: all daemons, all nodes, no jobs, no command counted. Return the jobs that were left.

        A job whose work is done may take an instant to end, so it has some seconds.
        """
        if not running(self._pids["slurmctld"]):
            self.start_controller()
        for node in self.nodes:
            if not running(self._pids[node]):
                self._start_slurmd(node)
        left = self._left()
        self.cancel_all()
        self._all_up()
        for path in (self.directory / "counts").iterdir():
            path.unlink()
        return left

    def _left(self, grace: float = 5) -> dict[str, str]:
        deadline = time.monotonic() + grace
        while (left := self.jobs()) and time.monotonic() < deadline:
            time.sleep(0.02)
        return left

    def _ready(self, *nodes: str) -> bool:
        states = self._states()
        return all(states.get(node) in {"idle", "mixed", "allocated", "completing"} for node in nodes)

    def _states(self) -> dict[str, str]:
        """Return the state of each node: a "*" at its end says that the node does not respond."""
        text = self._reply(["sinfo", "-h", "-N", "-p", "main", "-o", "%N %T"]).stdout
        return dict(line.split() for line in text.splitlines())

    def _wait_for(self, daemon: str, condition: Callable[[], bool], patience: float = 45) -> None:
        deadline, log = time.monotonic() + patience, self.directory / "log" / daemon
        while not condition():
            if daemon in self._pids and not running(self._pids[daemon]):
                raise ClusterError(f"{daemon} has ended: {tail(log)}")
            if time.monotonic() > deadline:
                raise ClusterError(f"{daemon} is not as it should be after {patience} s: {tail(log)}")
            time.sleep(0.01)
