"""The identity of a process, unique in the world, by which another process tells later whether it still lives.

A process number says little: it is used again, other machines and containers have the same. So an identity also
names the machine, its boot, and the namespace in which the number counts. From these a process can be *proven*
gone, but only from where it ran. Whatever cannot be proven is `"unknown"`: a network split, a machine that is
switched off and one that is only slow all look alike from afar.
"""

from __future__ import annotations

import os
import sys

from ..utils.frozen import Frozen
from ..utils.lite_typing import Literal

__all__ = ["ProcessIdentity", "State", "is_hexadecimal", "may_live", "this_process"]

State = Literal["alive", "gone", "unknown"]

_SYSTEM: str = sys.platform  # not compared itself, so that the checks of types see the code for every system
_PROC = "/proc"  # tests put another one here
_MACHINE_ID = ("/etc/machine-id", "/var/lib/dbus/machine-id")
_DIGITS = frozenset("0123456789abcdef")
_OF_HOSTS = frozenset("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-")
_FIRST_NAMESPACE = "4026531836"  # the number that Linux gives the namespace in which it starts


class ProcessIdentity(Frozen):
    """A process. An empty text or a `start` of 0 is what the system does not tell."""

    host: str
    machine: str  # the beginning of its machine id; containers and cloned machines may share one
    boot: str  # random, new at each start of the kernel
    namespace: str  # where the process number counts, and by which clock `start` does
    pid: int
    start: int  # clock ticks after the boot

    @property
    def label(self) -> str:
        """All of it as one word, fit for the name of a file."""
        return "~".join(str(getattr(self, name)) for name in ProcessIdentity.fields)

    @classmethod
    def from_label(cls, label: str) -> ProcessIdentity | None:
        """Return whose label it is, None if it is nobody's."""
        parts = label.split("~")
        if len(parts) != len(ProcessIdentity.fields) or not (parts[4] + parts[5]).isdecimal():
            return None
        return cls(parts[0], parts[1], parts[2], parts[3], int(parts[4]), int(parts[5]))

    def state(self) -> State:
        """Tell whether the process lives, as far as that can be proven from here."""
        here = this_process()
        if self.host != here.host or self.machine != here.machine:
            return "unknown"
        if self.boot != here.boot:
            return "gone" if _names_one_machine(self) and _names_one_machine(here) else "unknown"
        if not self.boot or not self.namespace or self.namespace != here.namespace:
            return "unknown"
        return _look(self.pid, self.start)


def _names_one_machine(identity: ProcessIdentity) -> bool:
    """Tell whether host and machine id are those of a machine, so that another boot means that it was restarted.

    In a container they may come from its image, and the same one may run elsewhere at the same time.
    """
    own = identity.namespace.split(".")[0] in (_FIRST_NAMESPACE, "darwin")
    return own and bool(identity.host and identity.machine and identity.boot)


def may_live(label: str) -> bool:
    """Tell whether the process of a label is not provably gone."""
    process = ProcessIdentity.from_label(label)
    return process is None or process.state() != "gone"


def is_hexadecimal(text: str, length: int | None = None) -> bool:
    """Tell whether it is a number of so many small digits. (A job does without `re`, where it can.)"""
    return bool(text) and length in (None, len(text)) and _DIGITS.issuperset(text)


def this_process() -> ProcessIdentity:
    """Return which process this one is."""
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


# ------------------------------------------------------------------ is it there


def _look(pid: int, start: int) -> State:
    """Tell whether there is a process of that number in our namespace that began at `start`."""
    if not 0 < pid < 1 << 31:  # to send a signal to 0 or less is to send it to many
        return "unknown"
    try:
        os.kill(pid, 0)  # /proc may hide the processes of others, but this does not
    except ProcessLookupError:
        return "gone"
    except OSError:
        pass  # it is there, and is not ours
    if not start:
        return "alive"  # the system does not tell when a process began: its number is all there is
    found = _read_stat(str(pid)) if _proc_is_ours() else None
    if found is None:
        return "unknown"  # hidden, or it went just now
    began, ended = found
    return "alive" if began == start and not ended else "gone"


def _proc_is_ours() -> bool:
    """Tell whether /proc numbers processes as we do; it may belong to the namespace outside of ours."""
    try:
        return os.readlink(f"{_PROC}/self") == str(os.getpid())
    except OSError:
        return False


def _read_stat(which: str) -> tuple[int, bool] | None:
    """Return when a process began and whether it has ended and only waits for its parent to notice."""
    try:
        with open(f"{_PROC}/{which}/stat", "rb") as file:
            text = file.read()
        words = text[text.rindex(b")") + 2 :].split()  # the name before may hold anything
        # A process whose first thread has ended looks like a zombie too, while its other threads run on.
        return int(words[19]), words[0] in (b"Z", b"X") and int(words[17]) <= 1
    except (OSError, ValueError, IndexError):
        return None


# ------------------------------------------------------------------ where it is
# Sixteen hexadecimal digits of what is random tell any two apart, and keep names of files short.


def _machine() -> str:
    if _SYSTEM == "darwin":
        return _host_uuid_of_mac()
    return next(filter(None, map(_first_word, _MACHINE_ID)), "")[:16]


def _boot() -> str:
    if _SYSTEM == "darwin":
        return _boot_session_of_mac().replace("-", "").lower()[:16]
    return _first_word(f"{_PROC}/sys/kernel/random/boot_id").replace("-", "")[:16]


def _first_word(path: str) -> str:
    """Return the first word of a file that holds an id, an empty text if there is none."""
    try:
        with open(path, "rb") as file:
            word = file.readline().decode("latin-1").strip()
    except OSError:
        return ""
    return word if is_hexadecimal(word.replace("-", "").lower()) else ""  # systemd may have written "uninitialized"


def _namespace() -> str:
    """Return the namespaces of process numbers and, where there is one, of clocks."""
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
    """Return a random id of this boot. (The time of the boot is no good: it changes when the clock is set.)"""
    import ctypes

    text, size = ctypes.create_string_buffer(64), ctypes.c_size_t(64)
    try:
        failed = ctypes.CDLL(None).sysctlbyname(b"kern.bootsessionuuid", text, ctypes.byref(size), None, 0)
    except (OSError, AttributeError):
        return ""
    return "" if failed else text.value.decode("ascii", "replace")
