"""The identity of a process, unique in the world, for another process to see later whether the first still lives.

A process number alone is not enough: numbers are reused, and other machines and containers have the same ones. So an
identity also names the machine, its boot, and the namespace of the number. With all of this a process can be *proven*
gone, but only from the place of its run. Everything else is `"unknown"`: from afar, a network split, a machine switched
off and a slow machine look alike.
"""

from __future__ import annotations

import os
import sys

from ..utils.lite_stdlib import Frozen, Literal

__all__ = ["ProcessIdentity", "State", "is_hexadecimal", "may_live", "names_one_machine", "this_process"]

State = Literal["alive", "gone", "unknown"]

_SYSTEM: str = sys.platform  # a copy, because type checkers skip code for other systems after comparing the original
_PROC = "/proc"  # tests put another one here
_MACHINE_ID = ("/etc/machine-id", "/var/lib/dbus/machine-id")
_DIGITS = frozenset("0123456789abcdef")
_OF_HOSTS = frozenset("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-")
_FIRST_NAMESPACE = "4026531836"  # Linux's number for its initial namespace


class ProcessIdentity(Frozen):
    """A process. An empty text or a `start` of 0 stands for a value unknown to the system."""

    host: str
    machine: str  # the beginning of the machine id; containers and cloned machines may share one
    boot: str  # random, new at each start of the kernel
    namespace: str  # of the process number, and of the clock of `start`
    pid: int
    start: int  # clock ticks after the boot

    @property
    def label(self) -> str:
        """The identity as one word, fit for a file name."""
        return "~".join(str(getattr(self, name)) for name in ProcessIdentity.fields)

    @classmethod
    def from_label(cls, label: str) -> ProcessIdentity | None:
        """Return the process of a label; None for any other text."""
        parts = label.split("~")
        if len(parts) != len(ProcessIdentity.fields) or not (parts[4] + parts[5]).isdecimal():
            return None
        return cls(parts[0], parts[1], parts[2], parts[3], int(parts[4]), int(parts[5]))

    def state(self) -> State:
        """Return the state of the process, as far as proven from here."""
        here = this_process()
        if self.machine != here.machine:
            return "unknown"
        if self.boot != here.boot:
            same = self.host == here.host and names_one_machine(self) and names_one_machine(here)
            return "gone" if same else "unknown"
        # Of the same boot; the name of the host may have changed since, as laptops take theirs from the network.
        if not self.boot or not self.namespace or self.namespace != here.namespace:
            return "unknown"
        return _look(self.pid, self.start)


def names_one_machine(identity: ProcessIdentity) -> bool:
    """Return True if host and machine id identify one machine, so that another boot proves a restart.

    In a container both may come from the image, and several containers of one image may run at the same time.
    """
    own = identity.namespace.split(".")[0] in (_FIRST_NAMESPACE, "darwin")
    return own and bool(identity.host and identity.machine and identity.boot)


def may_live(label: str) -> bool:
    """Return True if the process of a label may still live; only proof counts against it."""
    process = ProcessIdentity.from_label(label)
    return process is None or process.state() != "gone"


def is_hexadecimal(text: str, length: int | None = None) -> bool:
    """Return True if a text has only lower-case hexadecimal digits, `length` of them if given. (Jobs avoid `re`.)"""
    return bool(text) and length in (None, len(text)) and _DIGITS.issuperset(text)


def this_process() -> ProcessIdentity:
    """Return the identity of this process."""
    return _own()[0]


def own_label() -> str:
    """Return the label of this process."""
    return _own()[1]


_known: dict[int, tuple[ProcessIdentity, str]] = {}  # this process, by number, so that a forked child looks again


def _own() -> tuple[ProcessIdentity, str]:
    pid = os.getpid()
    found = _known.get(pid)
    if found is None:
        identity = _identify(pid)
        found = identity, identity.label
        _known.clear()
        _known[pid] = found
    return found


def _identify(pid: int) -> ProcessIdentity:
    host = "".join(letter if letter in _OF_HOSTS else "_" for letter in os.uname().nodename[:64])
    found = _read_stat("self")
    return ProcessIdentity(host, _machine(), _boot(), _namespace(), pid, found[0] if found else 0)


# ------------------------------------------------------------------ state


def _look(pid: int, start: int) -> State:
    """Return the state of the process with this number, in our namespace, that began at `start`."""
    if not 0 < pid < 1 << 31:  # a signal to 0 or less goes to many processes
        return "unknown"
    if not _is_there(pid):
        return "gone"
    if not start:
        return "alive"  # the system does not tell the start of processes, so the number must do
    found = _read_stat(str(pid)) if _proc_is_ours() else None
    if found is None:  # hidden, or ended since the first look
        return "unknown" if _is_there(pid) else "gone"
    began, ended = found
    return "alive" if began == start and not ended else "gone"


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)  # /proc may hide the processes of others, this call does not
    except ProcessLookupError:
        return False
    except OSError:
        pass  # it is another user's
    return True


def _proc_is_ours() -> bool:
    """Return True if /proc has the numbers of our own namespace; it may be mounted from the namespace outside."""
    try:
        return os.readlink(f"{_PROC}/self") == str(os.getpid())
    except OSError:
        return False


def _read_stat(which: str) -> tuple[int, bool] | None:
    """Return the start of a process, and True if the process has ended and only waits to be reaped."""
    try:
        with open(f"{_PROC}/{which}/stat", "rb") as file:
            text = file.read()
        words = text[text.rindex(b")") + 2 :].split()  # the name before may hold anything
        # A process whose first thread has ended looks like a zombie too, while its other threads run on.
        return int(words[19]), words[0] in (b"Z", b"X") and int(words[17]) <= 1
    except (OSError, ValueError, IndexError):
        return None


# ------------------------------------------------------------------ place
# Sixteen hexadecimal digits of a random id are enough to tell any two apart, and keep file names short.


def _machine() -> str:
    if _SYSTEM == "darwin":
        return _host_uuid_of_mac()
    return next(filter(None, map(_first_word, _MACHINE_ID)), "")[:16]


def _boot() -> str:
    if _SYSTEM == "darwin":
        return _boot_session_of_mac().replace("-", "").lower()[:16]
    return _first_word(f"{_PROC}/sys/kernel/random/boot_id").replace("-", "")[:16]


def _first_word(path: str) -> str:
    """Return the id in a file; an empty text if there is none."""
    try:
        with open(path, "rb") as file:
            word = file.readline().decode("latin-1").strip()
    except OSError:
        return ""
    return word if is_hexadecimal(word.replace("-", "").lower()) else ""  # systemd may have written "uninitialized"


def _namespace() -> str:
    """Return the namespaces of process numbers and, on systems with such namespaces, of clocks."""
    if _SYSTEM != "linux":
        return _SYSTEM
    pids, clocks = map(_number_of_namespace, ("pid", "time"))
    return f"{pids}.{clocks}" if pids else ""


def _number_of_namespace(kind: str) -> str:
    try:
        return "".join(filter(str.isdecimal, os.readlink(f"{_PROC}/self/ns/{kind}")))
    except OSError:
        return ""


def _host_uuid_of_mac() -> str:
    import ctypes

    uuid, at_once = ctypes.create_string_buffer(16), (ctypes.c_long * 2)(0, 0)
    try:
        failed = ctypes.CDLL(None).gethostuuid(uuid, at_once)
    except (OSError, AttributeError):
        return ""
    return "" if failed else uuid.raw.hex()[:16]


def _boot_session_of_mac() -> str:
    """Return the random id of this boot. (Not the time of the boot, which changes when the clock is set.)"""
    import ctypes

    text, size = ctypes.create_string_buffer(64), ctypes.c_size_t(64)
    try:
        failed = ctypes.CDLL(None).sysctlbyname(b"kern.bootsessionuuid", text, ctypes.byref(size), None, 0)
    except (OSError, AttributeError):
        return ""
    return "" if failed else text.value.decode("ascii", "replace")
