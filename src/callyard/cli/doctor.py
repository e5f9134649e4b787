"""Show the resources of this machine for calls, how they were detected, and missing programs and libraries.

The exit status is 0 if calls can run on this machine, 1 otherwise.
"""

from __future__ import annotations

import argparse
import glob
import json
import os
import platform
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

from ..errors import SchedulerError
from ..hosts.ask import Asker
from ..hosts.base import Host
from ..hosts.daemon import ask, directory_here
from ..hosts.open_host import open_host
from ..schedulers.base import Scheduler, Site
from ..schedulers.registry import OWN, open_scheduler, scheduler_here
from ..schedulers.steps import Allocation
from ..system import machine, memory_control
from ..utils.quantities import counted
from . import version

__all__ = ["configure", "run"]

_TIME_LIMIT = 15.0  # s for an answer of the scheduler
PR_GET_CHILD_SUBREAPER = 37


class Fact(NamedTuple):
    name: str
    value: object  # a value of JSON; None, False or () if there is nothing to show
    how: str = ""
    advice: str = ""
    needed: bool = False


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    parser.add_argument(
        "--host", metavar="DESTINATION", help="another computer, as after ssh; the steps to it come first"
    )
    parser.add_argument("--python", metavar="PATH", default="python3", help="the interpreter there (python3)")
    parser.add_argument("--directory", metavar="PATH", help="the directory there (the home)")
    parser.add_argument("--setup", metavar="LINE", action="append", default=[], help="a line of shell there before it")
    parser.add_argument("--ssh", metavar="COMMAND", default="ssh", help="the command in the place of ssh")


def run(options: argparse.Namespace) -> int:
    """Print the facts and return the exit status."""
    facts = _facts() if options.host is None else _facts_of_host(options)
    works = all(fact.value for fact in facts if fact.needed)
    print(_as_json(facts, works) if options.json else _as_text(facts, works))
    return 0 if works else 1


def _facts() -> list[Fact]:
    return [*_software(), *_hardware(), *_mpi(), *_schedulers(), *_system()]


def _facts_of_host(options: argparse.Namespace) -> list[Fact]:
    """Return the steps to another computer, and then the facts about it."""
    from ..backends.local import Local
    from ..backends.ssh import SSH
    from .doctor_host import Step, steps

    host = SSH(
        options.host,
        directory=options.directory,
        python=options.python,
        setup=tuple(options.setup),
        command=options.ssh,
    )
    taken = steps(host, lambda host: Local(detached=False, host=host), _facts)
    return [Fact(*each, needed=True) if isinstance(each, Step) else Fact(*each) for each in taken]


# ------------------------------------------------------------------ the facts


def _software() -> Iterator[Fact]:
    yield Fact("python", platform.python_version(), sys.executable)
    yield Fact("callyard", version("callyard"), os.path.dirname(os.path.dirname(__file__)))
    yield _wanted("cloudpickle", version("cloudpickle"), "sends functions", "pip install cloudpickle", True)


def _hardware() -> Iterator[Fact]:
    yield Fact("cores", *machine.find_cores())
    amount, how = machine.find_memory()
    yield Fact("memory", round(amount, 2), f"GiB, {how}")
    yield Fact("GPUs", *machine.find_gpus())
    way = "cgroup v2" if memory_control.delegated() else "sampling"
    command = "systemd-run --user --scope --property=Delegate=yes python ..."
    advice = f"the kernel keeps them for a script that is started by: {command}"
    yield Fact("memory limits", way, memory_control.enforcement(), advice if way == "sampling" and _systemd() else "")


def _mpi() -> Iterator[Fact]:
    launchers = [steps.launcher for name in OWN if (steps := open_scheduler(name).site().steps) is not None]
    found = [path for name in ("mpiexec", "mpirun", *launchers) if (path := shutil.which(name))]
    advice = "calls with several ranks need an MPI library: module load openmpi, or apt install openmpi-bin"
    yield _wanted("MPI launchers", found, "in PATH", advice)
    advice = "calls with several ranks need it: pip install 'callyard[mpi]'"
    yield _wanted("mpi4py", version("mpi4py"), "lets ranks talk", advice)


def _schedulers() -> Iterator[Fact]:
    """Yield a fact about each installed scheduler: its answer, and how calls would run."""
    for scheduler in map(open_scheduler, OWN):
        if shutil.which(scheduler.site().program) is not None:
            yield _scheduler(scheduler)
    yield from _daemon()
    yield Fact("backend='auto'", scheduler_here(os.environ).lower() or "local", "what this stands for here")


def _daemon() -> Iterator[Fact]:
    """Yield facts about detached calls of this machine; no daemon is started for that."""
    answer = ask("about", _TIME_LIMIT)
    there = None
    if answer is not None and answer.get("code") == 0:
        said = json.loads(answer["out"])
        there = f"process {said['pid']}: {said['running']} running, {said['waiting']} waiting"
    elif answer is not None:
        there = f"process {answer['pid']}, of Callyard {answer['version']}"
    advice = (
        "systemd ends all processes of a user at logout here (KillUserProcesses=yes), those of Local(detached=True), "
        "too: loginctl enable-linger, and start the first call with systemd-run --user --scope python ..."
    )
    kills = any(map(_kills_at_logout, ("/etc/systemd/logind.conf", *glob.glob("/etc/systemd/logind.conf.d/*.conf"))))
    yield Fact("daemon", there, f"of Local(detached=True), in {directory_here()}", advice if kills else "")


def _kills_at_logout(path: str) -> bool:
    with suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        return any(line.replace(" ", "").strip().lower() == "killuserprocesses=yes" for line in file)
    return False


def _scheduler(scheduler: Scheduler) -> Fact:
    site = scheduler.site()
    host = open_host(site)
    around = _allocation(site, host)
    how = "each call becomes a job" if site.steps is None else "each call becomes a job, or nodes= asks for nodes"
    if around is not None:
        cores = sum(node.cores for node in around.nodes)
        here = f"{counted(len(around.nodes), 'node')} of {around.title}, {counted(cores, 'core')}"
        how = f"calls go to the nodes around this process: {here}"
    if site.nodes is None:
        return Fact(scheduler.name, True, how)
    query = site.nodes(None)
    reply = host.run(query.argv, timeout=_TIME_LIMIT, env=site.environment(host.environment()), stdin=query.stdin)
    kinds = query.read(reply.out) if reply.code == 0 else []
    nodes, cores = sum(kind.nodes for kind in kinds), sum(kind.nodes * kind.cores for kind in kinds)
    words = (reply.err.strip() or "no answer").splitlines()[-1]
    there = f"{nodes} nodes, {cores} cores in the default partition" if kinds else "no default partition"
    return _wanted(scheduler.name, there if reply.code == 0 else None, how, f"it does not answer: {words}")


def _allocation(site: Site, host: Host) -> Allocation | None:
    """Return the allocation around this process; None outside, or without an answer."""
    with suppress(ValueError, SchedulerError):
        if site.steps is not None:
            return site.steps.allocation(os.environ, Asker(site, host, _TIME_LIMIT))
    return None


def _system() -> Iterator[Fact]:
    yield _wanted("fork", hasattr(os, "fork"), "starts workers", "workers need Linux or macOS", True)
    advice = "the system refuses Unix sockets: look at its limits (ulimit -n) and its security policy"
    yield _wanted("socket pairs", _works(_socket_pair), "talk to workers", advice, True)
    if sys.platform == "linux":
        advice = "Linux has it since {}, unless the policy of a container forbids it"
        pidfd = _works(lambda: os.close(os.pidfd_open(os.getpid())))
        yield _wanted("pidfd", pidfd, "tells when a process has ended", advice.format("5.3"))
        memfd = _works(lambda: os.close(os.memfd_create("callyard")))
        yield _wanted("memfd", memfd, "passes large arrays on", advice.format("3.17"))
        yield _wanted("subreaper", _works(_subreaper), "finds what calls leave running", advice.format("3.4"))


def _wanted(name: str, value: object, how: str, advice: str, needed: bool = False) -> Fact:
    return Fact(name, value, how, "" if value else advice, needed)


def _systemd() -> bool:
    return bool(shutil.which("systemd-run")) and os.path.isdir("/run/systemd/system")


def _works(attempt: Callable[[], None]) -> bool:
    with suppress(OSError, AttributeError, ImportError):  # missing from this kernel or this Python
        attempt()
        return True
    return False


def _socket_pair() -> None:
    for end in socket.socketpair():
        end.close()


def _subreaper() -> None:
    import ctypes

    answer = ctypes.c_int()
    if ctypes.CDLL(None).prctl(PR_GET_CHILD_SUBREAPER, ctypes.byref(answer), 0, 0, 0) != 0:
        raise OSError


# ------------------------------------------------------------------ output


def _as_json(facts: list[Fact], works: bool) -> str:
    table = {fact.name: {"value": fact.value, "how": fact.how, "advice": fact.advice} for fact in facts}
    return json.dumps({"works": works, "facts": table}, indent=2)


def _as_text(facts: list[Fact], works: bool) -> str:
    rows = [(fact.name, _shown(fact.value), fact.how) for fact in facts]
    first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
    text = [f"{name:{first}}  {value:{second}}  {how}".rstrip() for name, value, how in rows]
    if advice := [f"  {fact.name}: {fact.advice}" for fact in facts if fact.advice]:
        text += ["", "What could be better:", *advice]
    return "\n".join([*text, "", "Calls can run here." if works else "Calls cannot run here."])


def _shown(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)
