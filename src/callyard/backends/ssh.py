"""The public class `SSH`: another computer, on which the backend of an executor runs."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import ResourceError
from ..errors.suggestions import strict_init
from .base import Backend, FactoryElsewhere, Settings
from .shell_lines import check_texts, lines

if TYPE_CHECKING:
    from ..result_cache import Cache
    from .gateway.connection import Address

__all__ = ["SSH"]


@strict_init()
@dataclass(frozen=True)
class SSH:
    """Another computer that `ssh` logs in to: the `host` of a backend.

    A process there, the gateway, holds the very backend that would run if you had logged in, and a cache of its own.
    It is started by your own `ssh`, so the configuration, agents, jump hosts and certificates count that count in your
    terminal. Nobody is asked for a password: log in without one, or over a connection that is shared (ControlMaster).

    Args:
        destination: the host, as after `ssh`: "login", "me@login", or a name of ssh's configuration.
        directory: the directory there, as seen from the home, in which calls begin, and that holds results and large
            arguments, in `.callyard`; the nodes must see it. Default: the home directory.
        python: the interpreter there, of the same minor version, with the same version of Callyard.
        setup: lines of shell there before the interpreter, as "module load python"; one text or several.
        command: the command in the place of `ssh`, as `("ssh", "-F", "cluster.conf")`.

    Raises:
        ResourceError: an argument makes no sense.

    >>> cluster = SSH("me@login", directory="/scratch/me", python="/scratch/me/venv/bin/python")
    >>> with Executor(backend=Slurm(host=cluster), cache="results") as executor:  # doctest: +SKIP
    ...     energy = executor.submit(relax, atoms, resource_dict={"cores": 4, "run_time": "2h"})
    """

    destination: str
    directory: str | os.PathLike[str] | None = None
    python: str | os.PathLike[str] = "python3"
    setup: str | Sequence[str] = ()
    command: str | Sequence[str] = "ssh"

    def __post_init__(self) -> None:
        destination: object = self.destination
        if not isinstance(destination, str) or not re.fullmatch(r"[^-\s][^\s]*", destination):
            raise ResourceError(f"the destination of SSH is a host, as 'me@login', not {destination!r}")
        for name in ("directory", "python"):
            value = getattr(self, name)
            path = os.fspath(value) if isinstance(value, os.PathLike) else value
            if value is not None and not (isinstance(path, str) and path and "\0" not in path):
                raise ResourceError(f"{name} must be a path, not {value!r}")
        for name in ("setup", "command"):
            check_texts(name, getattr(self, name))
        if not self._address().command:
            raise ResourceError("command is the one in the place of `ssh`, and must not be empty")

    def _address(self) -> Address:
        from .gateway.connection import Address

        command = shlex.split(self.command) if isinstance(self.command, str) else tuple(self.command)
        directory = "" if self.directory is None else os.fspath(self.directory)
        return Address(command, self.destination, directory, os.fspath(self.python), lines(self.setup))

    def open(self, backend: FactoryElsewhere, settings: Settings, cache: Cache | None) -> Backend:
        """Make the backend of an executor whose calls run there; `backend` is what is opened there.

        Raises:
            CallyardError: the settings do not go together, or (UnpicklableCall) the initializer cannot be sent.
        """
        from .gateway.open_gateway import open_gateway

        detached = bool(getattr(backend, "detached", False))
        check = backend.resource_check(settings, detached)
        packed = _packed(backend, settings)
        life = "detached" if detached else "live"
        description = f"{life}, {type(backend).__name__} through {self.destination}"
        return open_gateway(self._address(), packed, detached, cache, description, check)


def _packed(backend: Any, settings: Settings) -> bytes:
    """Pickle what is opened there, with the user's modules inside."""
    from ..errors import UnpicklableCall
    from ..hashing.packages import owner
    from ..serialize.function_registry import dumps
    from ..serialize.importable import for_another_computer

    try:
        with for_another_computer(owner):
            return dumps((backend, settings))
    except Exception as error:
        raise UnpicklableCall(f"the initializer cannot be sent to another computer: {error}") from error
