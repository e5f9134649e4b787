"""What every test gets: capabilities it may need, and a check that it leaves nothing behind."""

from __future__ import annotations

import functools
import gc
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import psutil
import pytest
from accounts import why_no_other_account
from gate import Gate
from grid import why_no_grid
from instance import why_no_flux
from sshd import why_no_server
from this_machine import why_no_cluster

# The same examples each time, and none is too slow for a busy machine.
hypothesis.settings.register_profile("callyard", derandomize=True, database=None, deadline=None)
hypothesis.settings.load_profile("callyard")

GRACE = 5.0  # seconds for what is just ending; spent only when there is something left
SESSION = "CALLYARD_TEST_SESSION"  # in the environment of every process that the tests start
OLDER = frozenset(psutil.pids())  # what ran before the tests is not theirs, and need not be looked at

# A shell starts programs in the background without Ctrl-C, `nohup` without SIGHUP; what the tests start inherits that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Of tests/slurm_cluster, flux_instance, gridengine_cluster, daemon and ssh_server: fixtures that others need, too.
pytest_plugins = ["clusters", "mpi_libraries", "instances", "grids", "local_daemons", "ssh_servers"]

# ------------------------------------------------------------------ capabilities


def _module(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _program(name: str) -> bool:
    return shutil.which(name) is not None


def _can_make_networks() -> bool:
    """Tell by trying: it takes rights and programs that containers may lack."""
    name = f"callyard-{os.getpid()}-try"
    tried = [["ip", "netns", "add", name], ["ip", "netns", "del", name]]
    return _program("ip") and not any(subprocess.run(each, capture_output=True).returncode for each in tried)


# What a test may need, beside importable modules of that name; and why it is not there, if that needs words.
CAPABILITIES: dict[str, Callable[[], bool]] = {
    "mpi": lambda: _program("mpiexec") and _module("mpi4py"),
    "gpu": lambda: _program("nvidia-smi"),
    "slurm": lambda: not WHY_NOT["slurm"](),
    "slurmdbd": lambda: not WHY_NOT["slurmdbd"](),
    "flux": lambda: not WHY_NOT["flux"](),
    "gridengine": lambda: not WHY_NOT["gridengine"](),
    "ssh": lambda: not WHY_NOT["ssh"](),
    "accounts": lambda: not WHY_NOT["accounts"](),
    "chromium": lambda: _program("chromium-headless-shell"),
    "csh": lambda: _program("csh"),
    "fish": lambda: _program("fish"),
    "dash": lambda: _program("dash"),
    "linux": lambda: sys.platform == "linux",
    "daemon": lambda: sys.platform == "linux",  # one that the tests can find and end
    "netns": functools.cache(_can_make_networks),
    "proc": lambda: Path("/proc/self/status").exists(),
}
WHY_NOT: dict[str, Callable[[], str]] = {
    "slurm": why_no_cluster,
    "flux": why_no_flux,
    "gridengine": why_no_grid,
    "ssh": why_no_server,
    "accounts": why_no_other_account,
    "slurmdbd": lambda: why_no_cluster(
        "slurmdbd", "sacct", "mariadbd", "mariadb-install-db", "mariadb-admin", "mariadb"
    ),
}


def has(name: str) -> bool:
    """Tell whether this machine has a capability: one of the table, or a module of that name."""
    return CAPABILITIES.get(name, lambda: _module(name))()


# ------------------------------------------------------------------ what not every Python needs to run

# Tests that depend little on the Python and take long: `make test` runs them on the newest one only.
WIDE = (
    "backends/batch", "backends/cached", "backends/dry_run", "backends/local/test_local_large_data.py",
    "backends/local/test_local_resources.py", "backends/local/test_mpi.py", "cache", "cli", "cluster", "daemon",
    "deaths", "flux_instance", "gridengine_cluster",
    "hosts", "interrupts", "jobs", "pool", "report/test_page.py",
    "schedulers", "serialize/test_packer.py", "serialize/test_shared_memory.py",
    "slurm_cluster", "ssh_server", "system",
    "test_docs.py", "test_layers.py", "test_typing.py", "transport/test_contact_file.py",
    "transport/test_channel.py", "transport/test_frames.py", "transport/test_strangers.py",
    "utils/test_command_thread.py",
)  # fmt: skip


def _is_wide(path: Path) -> bool:
    return path.relative_to(Path(__file__).parent).as_posix().startswith(WIDE)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave files unread of which no test would be run: to read them takes longer than many tests."""
    return True if "not wide" in config.option.markexpr and _is_wide(collection_path) else None


def pytest_itemcollected(item: pytest.Item) -> None:
    if _is_wide(item.path):
        item.add_marker(pytest.mark.wide)


@pytest.fixture(scope="module", autouse=True)
def short_collections_of_garbage() -> None:
    """Exempt what is there before a module's tests from collections of garbage, of which some tests make hundreds.

    The collected tests and the libraries imported so far stay for the whole session, and are most of all objects.
    """
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Tell of no failures that tests have not asked for: the last line is the summary."""
    from callyard.futures import unasked

    unasked.forget_all()


def pytest_runtest_setup(item: pytest.Item) -> None:
    required = os.environ.get("CALLYARD_REQUIRE", "").replace(",", " ").split()
    for marker in item.iter_markers("needs"):
        for name in marker.args:
            if has(name):
                continue
            why = f": {WHY_NOT[name]()}" if name in WHY_NOT else ""
            if name in required:
                pytest.fail(f"this test needs {name}, which CALLYARD_REQUIRE lists and is not here{why}", pytrace=False)
            pytest.skip(f"needs {name}{why}")


# ------------------------------------------------------------------ what tests of several folders share


@pytest.fixture
def short_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for what has Unix sockets, whose paths have at most 107 bytes: `tmp_path` bears the test's name."""
    return tmp_path_factory.mktemp("s")


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """A place at which calls are held; at the end it is open, so that a failed test does not hang."""
    gate = Gate(tmp_path)
    yield gate
    gate.open(1000)
    gate.close()


@pytest.fixture
def journal(tmp_path: Path) -> str:
    """The path of a file in which each run of a call leaves a line."""
    return str(tmp_path / "journal")


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A fresh directory of a cache."""
    path = tmp_path / "results"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m,mode=700", "callyard-tests", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a file system, and not everywhere")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


# ------------------------------------------------------------------ nothing is left behind


Found = dict[object, str]  # what identifies a thing that is there, and a line about it


def _threads() -> Found:
    """Return the threads that would outlive a test: those that are not daemons, and Callyard's own."""
    return {
        thread: f"thread {thread.name}"
        for thread in threading.enumerate()
        if not thread.daemon or thread.name.startswith("callyard")
    }


def _processes(known: Found) -> Found:
    """Return those of our descendants, and of orphans that carry this session's mark, that are not known to be there.

    To look at a process takes a hundred times as long as to see its number, and most tests start none.
    """
    new = set(psutil.pids()) - OLDER - known.keys()
    return {pid: text for pid in new if (text := _describe(pid))}


def _is_ours(process: psutil.Process) -> bool:
    """Whether we, or one that we started, have started it. What ended and was not waited for has no environment."""
    try:
        if process.environ().get(SESSION) == os.environ[SESSION]:
            return True
    except psutil.Error:
        pass  # another user's, or a zombie
    return any(parent.pid == os.getpid() for parent in process.parents())


def _describe(pid: int) -> str | None:
    """Return a line about a process; None where it is not ours, gone, or multiprocessing's, which stays by design."""
    try:
        process = psutil.Process(pid)
        if pid == os.getpid() or not _is_ours(process):
            return None
        command, state = " ".join(process.cmdline()), process.status()
    except psutil.NoSuchProcess as gone:
        # Gone and not waited for is a leak too.
        return f"process {pid}: zombie" if isinstance(gone, psutil.ZombieProcess) else None
    except psutil.Error:
        command, state = "?", "?"
    if "multiprocessing.resource_tracker" in command or "multiprocessing.forkserver" in command:
        return None
    from local_daemons import stays  # here: a plugin must not be imported before pytest does it

    if command.strip().removeprefix("callyard: daemon in ") in stays:
        return None
    return f"process {pid} ({state}): {command}"


def _descriptors() -> Found:
    found: Found = {}
    for name in os.listdir("/dev/fd"):
        try:
            status = os.fstat(int(name))
        except OSError:
            continue  # the one that listed them
        found[int(name), status.st_dev, status.st_ino] = f"descriptor {name}{_target(name)}"
    return {key: text for key, text in found.items() if key[0] not in _multiprocessing_descriptors()}  # type: ignore[index]


def _target(descriptor: str) -> str:
    try:
        return " -> " + os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return ""


def _multiprocessing_descriptors() -> set[object]:
    """Return the pipes to multiprocessing's helper processes: like these, they stay by design."""
    tracker = sys.modules.get("multiprocessing.resource_tracker")
    server = sys.modules.get("multiprocessing.forkserver")
    return {
        tracker and tracker._resource_tracker._fd,
        server and server._forkserver._forkserver_alive_fd,
    }


def _files(place: Path, anybodys: bool = False) -> Found:
    """Return what bears our name in the temporary directory, and in /dev/shm what nobody else who lives has made.

    `anybodys`: in /dev/shm all that is there, as the number of a maker who is gone may be that of another process.
    """
    found = list(place.rglob("*callyard*"))
    for path in Path("/dev/shm").glob("callyard-*-*"):
        maker = int(path.name.split("-")[1])
        if anybodys or maker == os.getpid() or not psutil.pid_exists(maker):
            found.append(path)
    return {path: str(path) for path in found}


def _before() -> Found:
    """Return what is there; of processes only their numbers."""
    return _threads() | _descriptors() | dict.fromkeys(psutil.pids(), "")


def _after(before: Found) -> Found:
    return _threads() | _descriptors() | _processes(before)


def _left(look: Callable[[], Found], before: Found) -> str:
    """Describe what is there beyond `before`, after a grace in which it may end."""
    deadline = time.monotonic() + GRACE
    while True:
        left = [text for key, text in look().items() if key not in before]
        if not left or time.monotonic() > deadline:
            return "".join("\n  " + text for text in left)
        gc.collect()
        time.sleep(0.02)


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves threads, processes or descriptors."""
    if request.node.get_closest_marker("leaves"):
        yield
        return
    before = _before()
    yield
    if left := _left(lambda: _after(before), before):
        pytest.fail("this test left behind:" + left, pytrace=False)


@pytest.fixture(scope="session", autouse=True)
def own_temporary_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give the session a temporary directory of its own, in which nothing of Callyard's may remain."""
    # Below pytest's own, which removes it some runs later: multiprocessing cleans up in it at exit.
    place = tmp_path_factory.getbasetemp() / "t"  # short: the path of a Unix socket has at most 104 bytes
    place.mkdir(mode=0o700)
    before = _files(place, anybodys=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(place))
        patch.setattr(tempfile, "tempdir", None)
        patch.setenv(SESSION, uuid.uuid4().hex)
        patch.setenv("CALLYARD_STATUS", str(place / "status"))  # a socket there is a file left behind
        yield place
    if left := _left(lambda: _files(place), before):
        pytest.fail("left in the temporary directory:" + left, pytrace=False)


@pytest.fixture(scope="session", autouse=True)
def mpi_as_anybody() -> Iterator[None]:
    """Let Open MPI run as root and with more ranks than cores, as it must in containers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMPI_ALLOW_RUN_AS_ROOT", "1")
        patch.setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
        patch.setenv("OMPI_MCA_rmaps_base_oversubscribe", "1")  # Open MPI 4
        patch.setenv("PRTE_MCA_rmaps_default_mapping_policy", ":oversubscribe")  # Open MPI 5
        yield
