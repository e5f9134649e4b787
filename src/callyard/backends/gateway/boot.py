"""The start of a gateway: the words for `ssh`, the script for the shell there, and the first line of the answer.

sshd hands one text to the user's login shell, be it bash, csh or fish. So the command has plain words only, and all
else comes by standard input, as a script for /bin/sh. What the user's start-up files print comes before the answer; so
the answer is looked for behind a mark that cannot be there by chance.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from ...errors import VersionMismatch
from ...version import VERSION

__all__ = ["Hello", "check_versions", "script", "ssh_command"]

_OPTIONS = {
    "BatchMode": "yes",  # nobody is asked for a password behind the user's back
    "ServerAliveInterval": "10",  # without these, a dead link is never noticed
    "ServerAliveCountMax": "3",
    "ConnectTimeout": "20",
    "RemoteCommand": "none",  # of the user's configuration
    # A shared connection is used, not opened: its other users would lose it with this process.
    "ControlMaster": "no",
}

# Python 2 understands this, too, so that it can say what it is. The module is imported only by an equal version.
_BOOT = """
import sys
sys.path[:] = [place for place in sys.path if place]  # no file of the home directory is taken for a module
import json, os
mark, expected, directory = sys.argv[1:4]
said = {"python": "%d.%d" % sys.version_info[:2], "executable": sys.executable}
try:
    import callyard
    said["callyard"] = callyard.__version__
except Exception as error:
    said["error"] = "%s: %s" % (type(error).__name__, error)
os.write(1, ("\\n%s %s\\n" % (mark, json.dumps(said))).encode("ascii"))
if [said["python"], said.get("callyard")] == json.loads(expected):
    from callyard.backends.gateway.run_gateway import main
    main(directory)
"""


class Hello(NamedTuple):
    """The first words of a gateway."""

    python: str = ""
    executable: str = ""
    callyard: str = ""
    error: str = ""


def own_python() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def ssh_command(command: Sequence[str], destination: str) -> list[str]:
    """Return the words that start a shell at the destination, without a terminal and without a question."""
    options = [word for name, value in _OPTIONS.items() for word in ("-o", f"{name}={value}")]
    return [*command, "-T", *options, "--", destination, "exec", "/bin/sh", "-s"]


def script(mark: str, python: str, directory: str, setup: Sequence[str]) -> str:
    """Return the script for /bin/sh, which ends as the gateway.

    With `setup` lines it is bash that reads them where there is one, with what the system prepares for a login: that
    is where `module` comes from.
    """
    lines = []
    if setup:
        lines = ["[ -r /etc/profile ] && . /etc/profile </dev/null", *(f"{{ {line}\n}} </dev/null" for line in setup)]
    words = [python, "-c", _BOOT, mark, json.dumps([own_python(), VERSION]), directory]
    missing = shlex.quote(f"\n{mark} {json.dumps({'error': 'missing'})}\n")
    start = " ".join([_unless_home(word) for word in words])
    lines += [f"if command -v {_unless_home(python)} >/dev/null 2>&1; then exec {start}; fi"]
    lines += [f"printf %s {missing}; exit 127"]
    text = "\n".join([*lines, ""])
    # As an argument: a shell that reads commands from its input may have read more of that than it has carried out.
    return f"command -v bash >/dev/null 2>&1 && exec bash -c {shlex.quote(text)}\n{text}" if setup else text


def _unless_home(word: str) -> str:
    """Quote a word, but leave "~/" at its beginning to the shell, which knows the home there."""
    home, slash, rest = word.partition("/")
    if slash and re.fullmatch(r"~[A-Za-z0-9._-]*", home):
        return f"{home}/{shlex.quote(rest)}" if rest else word
    return shlex.quote(word)


def read_hello(line: bytes, mark: str) -> Hello | None:
    """Return the first words of a gateway, None if the line is something else's."""
    head = mark.encode() + b" "
    if not line.startswith(head):
        return None
    said: dict[str, Any] = json.loads(line[len(head) :])
    return Hello(**{name: str(said.get(name) or "") for name in Hello._fields})


def check_versions(said: Hello, where: str, python: str) -> None:
    """Raise VersionMismatch unless both sides have the same minor version of Python, and the same Callyard."""
    if said.error == "missing":
        raise VersionMismatch(
            f"there is no {python} on {where}: give the path of an interpreter there, as SSH(python=...), or what "
            "makes it known, as SSH(setup='module load python')"
        )
    if said.python != own_python():
        raise VersionMismatch(
            f"{said.executable} on {where} is Python {said.python}, and this is {own_python()}: functions would not "
            f"be understood there; give an interpreter of Python {own_python()}, as SSH(python=...)"
        )
    install = f"ssh {where} {said.executable} -m pip install callyard=={VERSION}"
    if said.error:
        raise VersionMismatch(f"{said.executable} on {where} has no Callyard ({said.error}); install it: {install}")
    if said.callyard != VERSION:
        raise VersionMismatch(
            f"{said.executable} on {where} has Callyard {said.callyard}, and this is {VERSION}; install it: {install}"
        )
