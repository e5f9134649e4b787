"""The contact of a driver, by which agents on other nodes reach it, and the file with the contact.

A process that can read the file can pose as an agent of this session. So the file is readable for its user alone, in a
directory closed to all others, and the agent refuses the file otherwise. The file names addresses, never only a host
name, because a node's name, and the machines that can resolve the name, differ between clusters.
"""

from __future__ import annotations

import json
import os
import stat
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

__all__ = ["FORMAT", "Address", "Contact"]

FORMAT = 2  # of the file, and of the channel's own messages

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # another user may have put a link or a pipe there
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OTHERS = 0o077


class Address(NamedTuple):
    interface: str  # as the driver's system names it
    host: str  # IPv4 or IPv6, in digits
    port: int

    @property
    def is_ipv6(self) -> bool:
        return ":" in self.host

    def __str__(self) -> str:
        host = f"[{self.host}]" if self.is_ipv6 else self.host
        return f"{host}:{self.port} ({self.interface})"


@dataclass(frozen=True)
class Contact:
    """The addresses of the driver of one session, and what agents need to prove who they are."""

    session: str
    version: str  # of Callyard
    python: str  # "3.11"
    addresses: tuple[Address, ...]
    driver_certificate: str  # this and the others: PEM
    agent_certificate: str
    agent_key: str = field(repr=False)  # secret
    format: int = FORMAT

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the file at once and as a whole, after making the directory if need be, both for this user alone.

        Raises:
            PermissionError: the directory exists, and others can enter it.
        """
        path = os.fspath(path)
        directory = os.path.dirname(path) or "."
        os.makedirs(directory, mode=0o700, exist_ok=True)
        _require_private(directory, os.stat(directory))
        temporary = f"{path}.{os.urandom(6).hex()}"
        try:
            with open(os.open(temporary, _CREATE, 0o600), "w") as file:
                json.dump(asdict(self), file, indent=1)
                file.flush()
                os.fsync(file.fileno())  # agents read the file on other nodes
            os.rename(temporary, path)
        except BaseException:
            if os.path.lexists(temporary):
                os.unlink(temporary)
            raise

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Contact:
        """Return the contact in a file. The caller compares the versions.

        Raises:
            PermissionError: others could have read or written the file.
            ValueError: the file is no contact file.
            OSError: there is no such file, or the system cannot read it.
        """
        path = os.fspath(path)
        try:
            descriptor = os.open(path, _READ)
        except OSError as error:
            if os.path.islink(path):
                raise PermissionError(f"{path} is a symbolic link, which contact files never are") from error
            raise
        try:
            status = os.fstat(descriptor)  # of the open file: the name may mean another file by now
            if not stat.S_ISREG(status.st_mode):
                raise PermissionError(f"{path} is not a regular file, so its content may come from anywhere")
            _require_private(path, status)
            directory = os.path.dirname(path) or "."
            _require_private(directory, os.stat(directory))
            with open(descriptor, closefd=False) as file:
                text = file.read()
        finally:
            os.close(descriptor)
        return _parse(text, path)


def _require_private(path: str, status: os.stat_result) -> None:
    if status.st_uid != os.geteuid():
        raise PermissionError(
            f"{path} belongs to the user number {status.st_uid}, who could connect workers to another driver: "
            "only what is your own is used"
        )
    # Where an access control list lets another user in, the mode shows the list's mask as rights of the group.
    if status.st_mode & _OTHERS:
        change = "go-rwx"
        raise PermissionError(
            f"{path} is open to others (mode {stat.S_IMODE(status.st_mode):04o}), who could pose as workers with the "
            f"keys in it: run `chmod {change} {path}` and start again"
        )


def _parse(text: str, path: str) -> Contact:
    try:
        content: dict[str, Any] = json.loads(text)
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']!r}, not {FORMAT}")
        content["addresses"] = tuple(Address(str(i), str(host), int(port)) for i, host, port in content["addresses"])
        return Contact(**content)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is not a contact file of this version of Callyard: {error}") from error
