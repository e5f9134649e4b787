"""Who a process is, and what can be proven about one that somebody wrote down."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from callyard.system import process_identity
from callyard.system.process_identity import ProcessIdentity, this_process

BEGAN = 4711


@pytest.fixture
def fresh() -> Iterator[None]:
    """What is kept about this process must not outlive a test that changes it."""
    process_identity._known.clear()
    yield
    process_identity._known.clear()


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh: None) -> Path:
    """A /proc of our own, in which this process began at BEGAN."""
    write_stat(tmp_path, os.getpid())
    (tmp_path / "self").symlink_to(str(os.getpid()))
    (tmp_path / "sys/kernel/random").mkdir(parents=True)
    (tmp_path / "sys/kernel/random/boot_id").write_text("01234567-89ab-cdef-0123-456789abcdef\n")
    set_namespaces(tmp_path, "pid:[4026531836]", "time:[4026531834]")
    (tmp_path / "machine-id").write_text("fedcba98765432100123456789abcdef\n")
    monkeypatch.setattr(process_identity, "_PROC", str(tmp_path))
    monkeypatch.setattr(process_identity, "_MACHINE_ID", (str(tmp_path / "none"), str(tmp_path / "machine-id")))
    monkeypatch.setattr(process_identity, "_SYSTEM", "linux")
    return tmp_path


def write_stat(proc: Path, pid: int, began: int = BEGAN, state: str = "S", threads: int = 1) -> None:
    place = proc / str(pid)
    place.mkdir(exist_ok=True)
    (place / "stat").write_text(f"{pid} (a ) name) {state} {'0 ' * 16}{threads} 0 {began} 0 0\n")


def set_namespaces(proc: Path, *links: str) -> None:
    place = proc / str(os.getpid()) / "ns"
    place.mkdir(exist_ok=True)
    for kind, link in zip(("pid", "time"), links, strict=False):
        (place / kind).unlink(missing_ok=True)
        (place / kind).symlink_to(link)


# ------------------------------------------------------------------ who it is


def test_this_process_lives() -> None:
    assert this_process().state() == "alive"
    assert this_process().pid == os.getpid()
    assert this_process() is this_process()


@pytest.mark.needs("linux", "proc")
def test_linux_tells_everything_about_this_process() -> None:
    this = this_process()
    assert this.boot
    assert this.namespace
    assert this.start > 0


def test_it_is_read_from_proc(proc: Path) -> None:
    expected = ProcessIdentity(
        host=this_process().host,
        machine="fedcba9876543210",
        boot="0123456789abcdef",
        namespace="4026531836.4026531834",
        pid=os.getpid(),
        start=BEGAN,
    )
    assert this_process() == expected


def test_a_system_without_proc_leaves_gaps_and_proves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh: None
) -> None:
    monkeypatch.setattr(process_identity, "_PROC", str(tmp_path / "none"))
    monkeypatch.setattr(process_identity, "_MACHINE_ID", ())
    monkeypatch.setattr(process_identity, "_SYSTEM", "linux")
    this = this_process()
    assert (this.machine, this.boot, this.namespace, this.start) == ("", "", "", 0)
    assert this.state() == "unknown"
    assert this.replace(pid=free_pid()).state() == "unknown"


def test_a_machine_id_that_is_not_there_yet_is_none(proc: Path) -> None:
    (proc / "machine-id").write_text("uninitialized\n")
    assert this_process().machine == ""


def test_a_host_of_any_name_fits_into_a_label(monkeypatch: pytest.MonkeyPatch, fresh: None) -> None:
    name = os.uname_result(("Linux", "../a~b c" + "x" * 200, "", "", ""))
    monkeypatch.setattr(os, "uname", lambda: name)
    this = this_process()
    assert len(this.host) <= 64
    assert not set("/~ ") & set(this.host)
    assert ProcessIdentity.from_label(this.label) == this


@pytest.mark.parametrize("label", ["", "a~b", "a~b~c~d~1~x", "a~b~c~d~-1~2", "a~b~c~d~1~2~3", "a~b~c~d~~2~"])
def test_what_is_no_label_belongs_to_nobody(label: str) -> None:
    assert ProcessIdentity.from_label(label) is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_is_another() -> None:
    before = this_process()
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        os.write(writer, this_process().label.encode())
        os._exit(0)
    os.waitpid(pid, 0)
    child = ProcessIdentity.from_label(os.read(reader, 1000).decode())
    os.close(reader)
    os.close(writer)
    assert child is not None
    assert child.pid == pid != before.pid
    assert child.state() == "gone"


# ------------------------------------------------------------------ is it alive


def free_pid() -> int:
    """The number of a process that is gone."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def start_other() -> tuple[subprocess.Popen[str], ProcessIdentity]:
    code = "import callyard.system.process_identity as i; print(i.this_process().label, flush=True); input()"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, text=True)
    assert process.stdout is not None
    other = ProcessIdentity.from_label(process.stdout.readline().strip())
    assert other is not None
    return process, other


def test_another_process_lives_until_it_is_killed() -> None:
    process, other = start_other()
    with process:
        assert other.state() == "alive"
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody has taken its status
        if sys.platform == "linux":
            assert other.state() == "gone"
    assert other.state() == "gone"


def test_a_stopped_process_lives() -> None:
    process, other = start_other()
    with process:
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        assert other.state() == "alive"
        process.kill()


def test_a_number_that_is_used_again_is_another_process(proc: Path) -> None:
    assert this_process().state() == "alive"
    assert this_process().replace(start=BEGAN - 1).state() == "gone"


@pytest.mark.parametrize(("state", "threads", "expected"), [("Z", 1, "gone"), ("X", 0, "gone"), ("Z", 3, "alive")])
def test_a_zombie_is_gone_unless_threads_of_it_run(proc: Path, state: str, threads: int, expected: str) -> None:
    this = this_process()
    write_stat(proc, os.getpid(), state=state, threads=threads)
    assert this.state() == expected


def test_a_process_that_proc_hides_may_live(proc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    assert this_process().replace(pid=free_pid()).state() == "unknown"


def test_a_proc_that_numbers_otherwise_proves_nothing(proc: Path) -> None:
    this = this_process()
    (proc / "self").unlink()
    (proc / "self").symlink_to("1")
    assert this.replace(start=BEGAN - 1).state() == "unknown"
    assert this.replace(pid=free_pid()).state() == "gone"  # that needs no /proc


def test_a_process_that_ends_between_two_looks_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen(["sleep", "600"]) as process:
        child = this_process().replace(pid=process.pid, start=1)

        def end(_: str) -> None:
            process.kill()
            process.wait()

        monkeypatch.setattr(process_identity, "_read_stat", end)
        assert child.state() == "gone"


def test_where_no_beginning_is_known_the_number_counts() -> None:
    this = this_process()
    if this.boot:
        assert this.replace(start=0).state() == "alive"
        assert this.replace(pid=free_pid(), start=0).state() == "gone"


@pytest.mark.parametrize("pid", [0, -1, 1 << 31, 1 << 80])
def test_no_number_of_a_process(pid: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("no signal must be sent"))
    assert this_process().replace(pid=pid).state() == "unknown"


# ------------------------------------------------------------------ elsewhere


def test_a_host_may_get_another_name(proc: Path) -> None:
    """The boot is the same, and so are the numbers of processes."""
    assert this_process().replace(host="other").state() == "alive"
    assert this_process().replace(host="other", pid=free_pid()).state() == "gone"


@pytest.mark.parametrize("change", [{"machine": "other"}, {"namespace": "1.2"}])
def test_nothing_is_known_of_other_places(proc: Path, change: dict[str, str]) -> None:
    dead = this_process().replace(pid=free_pid())
    assert dead.state() == "gone"
    assert dead.replace(**change).state() == "unknown"


def test_a_boot_later_it_is_gone(proc: Path) -> None:
    assert this_process().replace(boot="other").state() == "gone"


@pytest.mark.parametrize("change", [{"host": "other"}, {"machine": "other"}, {"boot": ""}])
def test_a_boot_of_another_machine_proves_nothing(proc: Path, change: dict[str, str]) -> None:
    assert this_process().replace(**{"boot": "other"} | change).state() == "unknown"


def test_machines_without_an_id_may_be_two_of_one_name(proc: Path) -> None:
    (proc / "machine-id").unlink()
    assert this_process().replace(boot="other").state() == "unknown"


def test_another_boot_seen_in_a_container_may_be_another_machine(proc: Path) -> None:
    set_namespaces(proc, "pid:[77]", "time:[4026531834]")
    assert this_process().namespace == "77.4026531834"
    assert this_process().replace(boot="other").state() == "unknown"
    assert this_process().replace(boot="other", namespace="4026531836.1").state() == "unknown"


@pytest.mark.parametrize("uuid", ["01234567-89AB-CDEF-0123-456789ABCDEF", ""])
def test_a_mac_tells_less(proc: Path, monkeypatch: pytest.MonkeyPatch, uuid: str) -> None:
    """Neither when a process began nor, at times, anything else: the functions for it are not there on Linux."""
    monkeypatch.setattr(process_identity, "_SYSTEM", "darwin")
    monkeypatch.setattr(process_identity, "_PROC", "/none")
    monkeypatch.setattr(process_identity, "_boot_session_of_mac", lambda: uuid)
    monkeypatch.setattr(process_identity, "_host_uuid_of_mac", lambda: "a1" * 8)
    this = this_process()
    assert (this.boot, this.namespace, this.start) == (uuid.replace("-", "").lower()[:16], "darwin", 0)
    assert this.state() == ("alive" if uuid else "unknown")
    assert this.replace(pid=free_pid()).state() == ("gone" if uuid else "unknown")
    assert this.replace(boot="other").state() == ("gone" if uuid else "unknown")


@pytest.mark.needs("linux")
def test_functions_of_a_mac_fail_softly_elsewhere() -> None:
    assert process_identity._boot_session_of_mac() == process_identity._host_uuid_of_mac() == ""


def test_without_time_namespaces(proc: Path) -> None:
    (proc / str(os.getpid()) / "ns/time").unlink()
    assert this_process().namespace == "4026531836."
    assert this_process().state() == "alive"


def test_without_a_namespace_of_processes_nothing_is_proven(proc: Path) -> None:
    (proc / str(os.getpid()) / "ns/pid").unlink()
    assert this_process().namespace == ""
    assert this_process().replace(pid=free_pid()).state() == "unknown"
