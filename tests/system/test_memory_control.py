"""Keeping calls within their memory: real processes, and directories that behave like /proc and cgroups.

Few machines give cgroup v2 with a memory controller to the tests. So its rules are played by `Kernel`;
the last test but a few asks the real one, where there is one.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from callyard.system import memory_control
from callyard.system.machine import LEAF

MIB = 1 << 20
ME = 1000

# ------------------------------------------------------------------ real processes

# What the programs below share: `hold` takes memory, `fork` runs a function in a child, `ready` tells the
# test and stays until the test closes the pipe, whatever process calls it.
PRELUDE = """
import mmap, os, sys

def hold(mebibytes):
    return bytearray(os.urandom(1 << 20) * mebibytes)

def shared(mebibytes):
    segment = mmap.mmap(-1, mebibytes << 20)
    segment.write(b"x" * (mebibytes << 20))
    return segment

def fork(function):
    if os.fork() == 0:
        function()
        os._exit(0)

def ready():
    os.write(1, b"+")
    os.read(0, 1)
"""


@contextmanager
def program(text: str, ready: int = 1) -> Iterator[int]:
    """Run a program in a session of its own and yield its number once `ready` processes said so."""
    command = [sys.executable, "-c", PRELUDE + textwrap.dedent(text)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as process:
        try:
            assert process.stdout
            assert process.stdout.read(ready) == b"+" * ready
            yield process.pid
        finally:
            os.killpg(process.pid, signal.SIGKILL)


proc = pytest.mark.needs("proc")


@proc
def test_what_a_process_holds():
    with program("held = hold(64); ready()") as pid:
        held = memory_control.sample([pid])[pid]
    assert 64 * MIB < held < 96 * MIB


@proc
def test_the_pages_of_files_are_left_out(tmp_path):
    file = tmp_path / "large"
    file.write_bytes(bytes(64 * MIB))
    text = f"""
    held = mmap.mmap(os.open({str(file)!r}, os.O_RDONLY), 0, prot=mmap.PROT_READ)
    sum(held[::4096]); ready()
    """
    with program(text) as pid:
        assert memory_control.sample([pid])[pid] < 32 * MIB


@proc
def test_descendants_count():
    text = "fork(lambda: (os.setsid(), fork(lambda: (hold(64), ready())), ready())); ready()"
    with program(text, ready=3) as pid, program("ready()") as other:
        held = memory_control.sample([pid, other])
    assert held[pid] > 64 * MIB > held[other]


@proc
def test_the_members_of_the_session_count_though_their_parent_ended():
    text = "fork(lambda: fork(lambda: (hold(64), ready()))); os.wait(); ready()"
    with program(text, ready=2) as pid:
        assert memory_control.sample([pid])[pid] > 64 * MIB


@proc
def test_a_process_that_ended_holds_nothing():
    with program("ready()") as pid:
        pass
    assert memory_control.sample([pid]) == {pid: 0}


@proc
@pytest.mark.needs("linux")
@pytest.mark.parametrize("kind", ["hold", "shared"])
def test_memory_that_processes_share_exceeds_no_limit_twice(kind):
    text = f"held = {kind}(64); [fork(lambda: (sum(held[::4096]), ready())) for _ in range(3)]; ready()"
    with program(text, ready=4) as pid:
        sampler = memory_control.Sampler()
        assert sampler.sample([pid])[pid] > 4 * 64 * MIB
        assert sampler.exceeding({pid: 128 * MIB}) == {}
        # The first look took some time, and the same one would be left alone for ten times that.
        exceeding = memory_control.Sampler().exceeding({pid: 32 * MIB})
    assert 64 * MIB < exceeding[pid] < 128 * MIB


@proc
def test_only_the_tree_that_exceeds_its_limit_is_named():
    with program("held = hold(64); ready()") as large, program("ready()") as small:
        exceeding = memory_control.Sampler().exceeding({large: 32 * MIB, small: 32 * MIB})
    assert list(exceeding) == [large]


@proc
def test_the_members_of_a_tree_are_known_after_a_sample():
    with program("fork(ready); ready()", ready=2) as pid:
        sampler = memory_control.Sampler()
        sampler.sample([pid])
        assert len(sampler.members(pid)) == 2
        assert pid in sampler.members(pid)


@pytest.mark.skipif(shutil.which("ps") is None, reason="needs ps")
def test_without_proc_ps_is_asked():
    with program("held = hold(64); fork(ready); ready()", ready=2) as pid:
        sampler = memory_control.Sampler(proc="/nowhere")
        assert sampler.sample([pid])[pid] > 64 * MIB
        assert len(sampler.members(pid)) == 2
        assert sampler.exceeding({pid: 32 * MIB})[pid] > 64 * MIB


FILES = {
    "nameless": "f = open(os.memfd_create('x'), 'r+b', 0)",
    "tmpfs": "import tempfile; f = tempfile.TemporaryFile(dir='/dev/shm', buffering=0)",
}


@proc
@pytest.mark.needs("linux")
@pytest.mark.parametrize("kind", FILES)
def test_files_in_memory_count_though_nobody_has_mapped_them(kind):
    with program(f"{FILES[kind]}; f.write(bytes(64 << 20)); ready()") as pid:
        sampler = memory_control.Sampler()
        assert 64 * MIB < sampler.sample([pid])[pid] < 120 * MIB
        assert sampler.exceeding({pid: 32 * MIB})[pid] > 64 * MIB


@proc
@pytest.mark.needs("linux")
@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize(
    "more",
    [
        "fork(ready); ready(); [os.read(0, 1) for _ in '1']",  # two hold it
        "m = mmap.mmap(f.fileno(), 64 << 20); m[:]; ready()",  # it is mapped, and so counts already
        "g = f; f = open(f'/proc/self/fd/{g.fileno()}', 'rb'); g.close(); m = mmap.mmap(-1, 64 << 20); m[:]; ready()",
    ],
)
def test_no_file_in_memory_counts_twice(kind, more):
    """The last is only read here: it may be anybody's."""
    processes = 2 if "fork" in more else 1
    with program(f"{FILES[kind]}; f.write(bytes(64 << 20)); {more}", ready=processes) as pid:
        held = memory_control.Sampler().exceeding({pid: 1})[pid]
        assert (64 if processes == 2 else 0) * MIB < held < 120 * MIB


@proc
@pytest.mark.needs("linux")
def test_lent_segments_count_where_they_are_mapped_only():
    text = "f = open(os.memfd_create('callyard'), 'r+b', 0); f.write(bytes(64 << 20)); ready()"
    with program(text) as pid:
        assert memory_control.Sampler().sample([pid])[pid] < 60 * MIB


# ------------------------------------------------------------------ a directory like /proc


class Proc:
    """A directory like /proc, in which this process is there from the start."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.add("self", 0)
        self.add(ME, 1)

    def add(self, pid: int | str, parent: int, session: int = 0, **kilobytes: int) -> None:
        held = {"RssAnon": 0, "RssFile": pid if isinstance(pid, int) else 0, "VmStk": 132} | kilobytes
        lines = [f"Name:\tx{pid}", f"PPid:\t{parent}", f"NSsid:\t{session}\t1"]
        lines += [f"{name}:\t{amount:8} kB" for name, amount in held.items()]
        (self.path / str(pid)).mkdir(exist_ok=True)
        (self.path / str(pid) / "status").write_text("\n".join(lines) + "\n")

    def share(self, pid: int, **kilobytes: int) -> None:
        lines = ["5000-7000 ---p 00000000 00:00 0   [rollup]"]
        lines += [f"{name}:\t{amount:8} kB" for name, amount in kilobytes.items()]
        (self.path / str(pid) / "smaps_rollup").write_text("\n".join(lines) + "\n")

    def remove(self, pid: int) -> None:
        shutil.rmtree(self.path / str(pid))


class Clock:
    """A clock that goes on by `step` with each look at it."""

    def __init__(self, step: float = 0.0) -> None:
        self.now, self.step = 100.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


@pytest.fixture
def me(monkeypatch):
    """Give this process a number that differs from all others in these tests."""
    monkeypatch.setattr(os, "getpid", lambda: ME)


@pytest.fixture
def fake(tmp_path, me):
    return Proc(tmp_path)


def sampler(fake: Proc, clock: Clock | None = None) -> memory_control.Sampler:
    return memory_control.Sampler(str(fake.path), clock or Clock())


def test_anonymous_shared_and_swapped_memory_count(fake):
    fake.add(7, ME, RssAnon=100, RssShmem=20, VmSwap=3, VmRSS=9999, VmData=9999)
    assert sampler(fake).sample([7]) == {7: 123 * 1024}


def test_a_process_counts_for_its_nearest_root(fake):
    fake.add(7, ME, 7, RssAnon=1)
    fake.add(8, 7, 7, RssAnon=10)
    fake.add(9, 8, 9, RssAnon=100)
    fake.add(10, 9, 9, RssAnon=1000)
    fake.add(11, ME, 11, RssAnon=10000)
    assert sampler(fake).sample([7, 9]) == {7: 11 * 1024, 9: 1100 * 1024}


def test_a_process_between_vfork_and_exec_counts_once(fake):
    fake.add(7, ME, 7, RssAnon=5000, RssFile=900)
    fake.add(8, 7, 7, RssAnon=5000, RssFile=900)
    fake.add(9, 7, 7, RssAnon=40, RssFile=500)
    assert sampler(fake).sample([7]) == {7: 5040 * 1024}


def test_who_was_seen_in_a_tree_stays_in_it(fake):
    fake.add(7, ME, 7)
    fake.add(8, 7, 8)
    fake.add(9, 8, 9, RssAnon=10)
    seen = sampler(fake)
    assert seen.sample([7]) == {7: 10 * 1024}
    fake.remove(8)
    fake.add(9, ME, 9, RssAnon=20)  # adopted by this process, in a session of its own
    assert seen.sample([7]) == {7: 20 * 1024}
    assert seen.members(7) == [7, 9]


def test_what_a_guard_has_adopted_is_of_its_worker(fake):
    for guard, worker, orphan, held in ((6, 7, 8, 10), (16, 17, 18, 100)):
        fake.add(guard, ME, 1, RssAnon=10000)
        fake.add(worker, guard, worker, RssAnon=1)
        fake.add(orphan, guard, orphan, RssAnon=held)
        fake.add(orphan + 1, orphan, orphan + 1, RssAnon=held)
    assert sampler(fake).sample([7, 17]) == {7: 21 * 1024, 17: 201 * 1024}


def test_strangers_are_not_read_again_until_their_number_may_be_used_again(fake):
    fake.add(7, ME, 7, RssAnon=1)
    fake.add(8, 1, 8, RssAnon=10)
    clock = Clock()
    seen = sampler(fake, clock)
    assert seen.sample([7]) == {7: 1024}
    fake.add(8, 7, 7, RssAnon=10)  # cannot be: a new process with the number of one that is still there
    assert seen.sample([7]) == {7: 1024}
    clock.now += 2
    assert seen.sample([7]) == {7: 11 * 1024}


def test_a_number_that_was_free_in_between_is_read_again(fake):
    fake.add(7, ME, 7, RssAnon=1)
    fake.add(8, 1, 8, RssAnon=10)
    seen = sampler(fake)
    seen.sample([7])
    fake.remove(8)
    seen.sample([7])
    fake.add(8, 7, 7, RssAnon=10)
    assert seen.sample([7]) == {7: 11 * 1024}


def test_a_process_of_ours_may_become_a_root_later(fake):
    fake.add(7, ME, 7, RssAnon=1)
    fake.add(8, ME, 8, RssAnon=10)
    fake.add(9, 8, 8, RssAnon=100)
    seen = sampler(fake)
    assert seen.sample([7]) == {7: 1024}
    assert seen.sample([8]) == {8: 110 * 1024}


def test_numbers_that_form_a_ring_end(fake):
    fake.add(7, 8)
    fake.add(8, 7)
    assert sampler(fake).sample([99]) == {99: 0}


def test_shares_decide(fake):
    fake.add(7, ME, 7, RssAnon=100)
    fake.add(8, 7, 7, RssAnon=100)
    fake.share(7, Pss=90, Pss_Anon=50, Pss_File=39, Pss_Shmem=1, SwapPss=2)
    fake.share(8, Pss=90, Pss_Anon=50, Pss_File=40)
    assert sampler(fake).exceeding({7: 150 * 1024}) == {}
    assert sampler(fake).exceeding({7: 100 * 1024}) == {7: 103 * 1024}


def test_shares_of_an_old_kernel_count_where_they_are_less(fake):
    fake.add(7, ME, 7, RssAnon=100)
    fake.add(8, 7, 7, RssAnon=100)
    fake.share(7, Pss=60)
    fake.share(8, Pss=500)  # with pages of files in it
    assert sampler(fake).exceeding({7: 1}) == {7: 160 * 1024}


def test_what_cannot_be_looked_into_counts_in_full(fake):
    fake.add(7, ME, 7, RssAnon=100)
    assert sampler(fake).exceeding({7: 1}) == {7: 100 * 1024}


def test_a_tree_that_took_long_to_look_at_is_left_alone_for_a_while(fake):
    fake.add(7, ME, 7, RssAnon=100)
    fake.share(7, Pss_Anon=10)
    clock = Clock(step=0.5)  # so each exact look takes half a second
    seen = sampler(fake, clock)
    assert seen.exceeding({7: 50 * 1024}) == {}
    fake.share(7, Pss_Anon=100)
    assert seen.exceeding({7: 50 * 1024}) == {}
    clock.now += memory_control.PACE * clock.step
    assert seen.exceeding({7: 50 * 1024}) == {7: 100 * 1024}


# ------------------------------------------------------------------ the data limit


def run_limited(text: str) -> str:
    """Run a program that imports `memory` and return what it prints."""
    text = "from callyard.system.memory_control import *\n" + textwrap.dedent(text)
    command = [sys.executable, "-c", text]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


@pytest.mark.needs("linux")
def test_one_large_allocation_is_a_memory_error():
    text = """
    before = limit_data(data_limit(256 << 20))
    try:
        bytearray(1 << 30)
    except MemoryError:
        print("MemoryError")
    bytearray(128 << 20)
    limit_data(before)
    bytearray(1 << 30)
    print("restored")
    """
    assert run_limited(text).split() == ["MemoryError", "restored"]


@pytest.mark.needs("linux")
def test_threads_do_not_use_up_the_data_limit():
    text = """
    import threading
    limit_data(data_limit(64 << 20, threads=33))
    go = threading.Event()
    threads = [threading.Thread(target=go.wait) for _ in range(32)]
    for thread in threads:
        thread.start()
    bytearray(16 << 20)
    go.set()
    print("well")
    """
    assert run_limited(text) == "well\n"


@pytest.mark.needs("linux")
def test_a_hard_data_limit_stays():
    text = """
    import resource
    resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 30))
    print(limit_data(2 << 30) == 1 << 30, limit_data(-1) == 1 << 30, limit_data(1 << 29) == 1 << 30)
    print(limit_data(1 << 30) == 1 << 29)
    """
    assert run_limited(text).split() == ["True"] * 4


# ------------------------------------------------------------------ a directory like cgroup v2


class Kernel:
    """Plays cgroup v2 in a directory: what appears in a new group, and what is refused."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.top = root, root / "sys/fs/cgroup"
        self._mkdir, self._rmdir = os.mkdir, os.rmdir
        (root / "proc/self").mkdir(parents=True)
        (root / "proc/self/mountinfo").write_text("30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
        self.top.mkdir(parents=True)
        (self.top / "cgroup.controllers").write_text("cpu memory\n")
        (self.top / "cgroup.subtree_control").write_text("memory\n")
        monkeypatch.setattr(os, "mkdir", self.mkdir)
        monkeypatch.setattr(os, "rmdir", self.rmdir)
        monkeypatch.setattr(memory_control, "_write", self.write)

    def enter(self, group: Path, *pids: int) -> None:
        """Put processes into a group, the first of them being the one that looks."""
        (self.root / "proc/self/cgroup").write_text(f"0::/{group.relative_to(self.top)}\n")
        (group / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))

    def process(self, pid: int, parent: int) -> None:
        (self.root / f"proc/{pid}").mkdir()
        (self.root / f"proc/{pid}/status").write_text(f"Name:\tx\nPPid:\t{parent}\n")

    def mkdir(self, path, mode: int = 0o777) -> None:
        self._mkdir(path, mode)
        if self.top not in Path(path).parents:
            return
        controllers = (Path(path).parent / "cgroup.subtree_control").read_text()
        files = {"controllers": controllers, "subtree_control": "", "procs": "", "type": "domain\n"}
        contents = {f"cgroup.{name}": text for name, text in files.items()}
        if "memory" in controllers:
            contents |= {"memory.max": "max\n", "memory.swap.max": "max\n", "memory.oom.group": "0\n"}
            contents |= {"memory.events": "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\n"}
        for name, text in contents.items():
            (Path(path) / name).write_text(text)

    def rmdir(self, path) -> None:
        entries = list(Path(path).iterdir())
        if self.top in Path(path).parents:
            if (Path(path) / "cgroup.procs").read_text() or any(entry.is_dir() for entry in entries):
                raise OSError(errno.EBUSY, "busy")
            for entry in entries:
                entry.unlink()
        self._rmdir(path)

    def write(self, path: Path, text: str) -> None:
        group = path.parent
        if not path.exists():
            raise OSError(errno.EACCES, "no such file in this group")
        if path.name == "cgroup.procs":
            self._move(group, text)
        elif path.name == "cgroup.subtree_control":
            if (group / "cgroup.procs").read_text():
                raise OSError(errno.EBUSY, "it has processes of its own")
            path.write_text(text.removeprefix("+") + "\n")
        else:
            path.write_text(text + "\n")

    def _move(self, group: Path, pid: str) -> None:
        if (group / "cgroup.subtree_control").read_text():
            raise OSError(errno.EBUSY, "it hands controllers to groups below")
        for file in self.top.rglob("cgroup.procs"):
            file.write_text("".join(f"{one}\n" for one in file.read_text().split() if one != pid))
        with (group / "cgroup.procs").open("a") as file:
            file.write(f"{pid}\n")


@pytest.fixture
def kernel(tmp_path, monkeypatch, me):
    return Kernel(tmp_path, monkeypatch)


@pytest.fixture
def scope(kernel):
    """A group with this process and its children 20 and 21, as a delegated scope of systemd's."""
    group = kernel.top / "run.scope"
    kernel.mkdir(group)
    kernel.process(ME, 1)
    kernel.process(20, ME)
    kernel.process(21, 20)
    kernel.enter(group, ME, 20, 21)
    return group


def members(group: Path) -> list[int]:
    return sorted(map(int, (group / "cgroup.procs").read_text().split()))


def test_a_group_with_this_process_and_its_descendants_is_delegated(kernel, scope):
    assert memory_control.delegated(kernel.root) == scope
    assert memory_control.delegated(kernel.root, top=ME) == scope


def test_the_top_may_be_a_process_above_this_one(kernel, scope):
    kernel.process(19, 1)
    (kernel.root / f"proc/{ME}/status").write_text("Name:\tx\nPPid:\t19\n")
    kernel.enter(scope, 19, ME, 20)
    assert memory_control.delegated(kernel.root) is None
    assert memory_control.delegated(kernel.root, top=19) == scope


@pytest.mark.parametrize("pid", [1, 30, 0])
def test_a_group_with_others_in_it_is_left_alone(kernel, scope, pid):
    kernel.process(30, 1)
    kernel.enter(scope, ME, pid)
    assert memory_control.delegated(kernel.root) is None
    assert "holds other processes too" in memory_control.enforcement(kernel.root)


def test_a_group_without_the_memory_controller_is_no_use(kernel, scope):
    (scope / "cgroup.controllers").write_text("cpu pids\n")
    assert memory_control.delegated(kernel.root) is None
    assert "does not have the memory controller" in memory_control.enforcement(kernel.root)


def test_a_group_for_threads_is_no_use(kernel, scope):
    (scope / "cgroup.type").write_text("threaded\n")
    assert memory_control.delegated(kernel.root) is None


def test_a_group_that_cannot_be_written_is_not_delegated(kernel, scope, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != scope / "cgroup.subtree_control")
    assert memory_control.delegated(kernel.root) is None
    assert "is not delegated" in memory_control.enforcement(kernel.root)


@pytest.mark.needs("linux")
def test_what_systemd_keeps_for_itself_root_leaves_alone(kernel, scope, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    (kernel.root / "run/systemd/system").mkdir(parents=True)
    assert memory_control.delegated(kernel.root) is None
    monkeypatch.setattr(os, "getxattr", lambda path, name: b"1")
    assert memory_control.delegated(kernel.root) == scope


def test_without_cgroups_there_is_nothing_to_delegate(tmp_path):
    assert memory_control.delegated(tmp_path) is None


@pytest.mark.needs("linux")
def test_how_memory_is_enforced_is_one_sentence(kernel, scope, tmp_path_factory):
    assert (
        memory_control.enforcement(kernel.root) == f"Each call with a memory limit gets a cgroup of its own in {scope}."
    )
    assert "no cgroup v2: none is mounted." in memory_control.enforcement(tmp_path_factory.mktemp("bare"))


def test_a_call_in_a_group_of_its_own(kernel, scope):
    assert memory_control.take_over(scope)
    assert members(scope) == []
    assert members(scope / LEAF) == sorted([ME, 20, 21])
    group = memory_control.make_group(scope, "call-1", 64 * MIB)
    assert (group / "memory.max").read_text() == f"{64 * MIB}\n"
    assert (group / "memory.swap.max").read_text() == "0\n"
    assert (group / "memory.oom.group").read_text() == "1\n"
    memory_control.move(group, 21)
    assert members(group) == [21]
    assert memory_control.oom_kills(group) == 0
    assert not memory_control.remove_group(group)
    (group / "memory.events").write_text("low 0\nmax 12\noom 1\noom_kill 3\n")
    assert memory_control.oom_kills(group) == 3
    memory_control.move(scope / LEAF, 21)
    assert memory_control.remove_group(group)
    assert not group.exists()
    assert memory_control.remove_group(group)


def test_whom_the_kernel_ended_in_the_group_of_a_job(kernel):
    group = kernel.top / "job_5" / "step_batch"
    kernel.mkdir(kernel.top / "job_5")
    kernel.mkdir(group)
    kernel.process(ME, 1)
    kernel.enter(group, ME)
    (group / "memory.events").write_text("oom 1\noom_kill 1\n")
    assert memory_control.oom_kills_within("job_5", kernel.root) == 1
    assert memory_control.oom_kills_within("job_6", kernel.root) == 0


def test_each_of_them_explains_one_end(kernel):
    group = kernel.top / "job_5"
    kernel.mkdir(group)
    kernel.process(ME, 1)
    kernel.enter(group, ME)
    (group / "memory.events").write_text("oom 1\noom_kill 1\n")
    kills = memory_control.OomKills("job_5", kernel.root)
    assert not kills.explain_one(), "of a process that had ended before"
    (group / "memory.events").write_text("oom 2\noom_kill 3\n")
    assert [kills.explain_one() for _ in range(3)] == [True, True, False]
    assert memory_control.OomKills("job_5", kernel.root, explained=0).explain_one()
    assert not memory_control.OomKills("", kernel.root, explained=0).explain_one(), "nothing there has a limit"
    (kernel.root / "proc/meminfo").write_text("MemTotal: 65536 kB\n")
    (kernel.top / "memory.max").write_text("1048576\n")
    assert memory_control.OomKills("", kernel.root, explained=0).explain_one(), "it is the limit of a group above"


def test_version_1_counts_whom_it_ended_elsewhere(tmp_path):
    (tmp_path / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
    assert memory_control.oom_kills(tmp_path) == 2


def test_a_group_that_was_taken_over_is_found_again(kernel, scope):
    memory_control.take_over(scope)
    kernel.enter(scope / LEAF, ME, 20, 21)
    assert memory_control.delegated(kernel.root) == scope
    assert memory_control.take_over(scope)
    kernel.process(30, 1)
    kernel.enter(scope / LEAF, ME, 30)
    assert memory_control.delegated(kernel.root) is None


def test_a_group_is_removed_with_those_below_it(kernel, scope):
    memory_control.take_over(scope)
    group = memory_control.make_group(scope, "call-1", MIB)
    os.mkdir(group / "below")
    assert memory_control.remove_group(group)


def test_a_kernel_without_swap(kernel, scope, monkeypatch):
    def mkdir(path, mode=0o777):
        kernel.mkdir(path, mode)
        (Path(path) / "memory.swap.max").unlink(missing_ok=True)

    memory_control.take_over(scope)
    monkeypatch.setattr(os, "mkdir", mkdir)
    assert not (memory_control.make_group(scope, "call-1", MIB) / "memory.swap.max").exists()


def test_no_group_is_left_where_its_limit_is_refused(kernel, scope):
    with pytest.raises(OSError):
        memory_control.make_group(scope, "call-1", MIB)  # not taken over: no controller, so no such files
    assert not (scope / "call-1").exists()


def test_a_kernel_that_refuses_to_hand_down_the_controller(kernel, scope, monkeypatch):
    def write(path, text):
        if path.name == "cgroup.procs":
            raise OSError(errno.EACCES, "no")

    monkeypatch.setattr(memory_control, "_write", write)
    assert not memory_control.take_over(scope)


def test_a_process_that_has_ended_need_not_be_moved(kernel, scope, monkeypatch):
    def write(path, text):
        raise ProcessLookupError

    monkeypatch.setattr(memory_control, "_write", write)
    memory_control.move(scope, 21)


# ------------------------------------------------------------------ the real kernel

DELEGATED = memory_control.delegated()


@pytest.mark.skipif(DELEGATED is None, reason=memory_control.enforcement())
def test_the_kernel_ends_a_call_that_holds_too_much():
    assert DELEGATED
    assert memory_control.take_over(DELEGATED)
    group = memory_control.make_group(DELEGATED, f"test-{os.getpid()}", 64 * MIB)
    command = [sys.executable, "-c", "input(); held = b'x' * (256 << 20)"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        memory_control.move(group, process.pid)
        process.communicate(b"\n")
    assert process.returncode == -signal.SIGKILL
    assert memory_control.oom_kills(group) >= 1
    assert memory_control.remove_group(group)
