"""The packages that calls use: noted while calls are packed, and compared with those of the other computer."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from importlib import metadata

from ...errors import VersionMismatch
from ...hashing.packages import Package, owner

__all__ = ["ComparedPackages", "UsedPackages"]

_NO_CONCERN = ("python", "callyard", "cloudpickle")  # compared before, or not the call's own


class UsedPackages:
    """The packages of the modules that pickles of a call name: what is asked for each module while it is packed."""

    def __init__(self) -> None:
        self.found: dict[str, str] = {}  # name and version

    def __call__(self, module: str) -> Package | None:
        """Return the installed package of a module, which is then expected on the other computer, too."""
        package = owner(module)
        if package is not None and package.name not in _NO_CONCERN:
            self.found[package.name] = package.version
        return package


class ComparedPackages:
    """The packages that calls from another computer use, compared with those of this one.

    Args:
        where: the name of this computer.
        python: the interpreter here.
    """

    def __init__(self, where: str, python: str) -> None:
        self._where, self._python = where, python
        self._told: list[tuple[str, str]] = []  # names and versions there
        self._found: set[int] = set()  # the numbers of those that were compared, and are here

    def add(self, packages: Iterable[tuple[str, str]]) -> None:
        """Add packages that the other computer has not told of before; they are numbered on."""
        self._told.extend(packages)

    def compare(self, name: str, numbers: Iterable[int]) -> list[str]:
        """Return warnings about packages of a call that have another version here, each once.

        Args:
            name: the name of the call's function.
            numbers: of the packages that the call uses.

        Raises:
            VersionMismatch: a package is missing here; it is looked for anew at the next call.
        """
        new = [number for number in numbers if number not in self._found]
        words = [self._compared(name, *self._told[number]) for number in new]
        self._found.update(new)
        return list(filter(None, words))

    def _compared(self, name: str, package: str, version: str) -> str:
        """Return a warning about a package, "" for one that needs none."""
        try:
            here = metadata.version(package)
        except metadata.PackageNotFoundError:
            if not _is_module(package):
                raise VersionMismatch(
                    f"{name!r} uses {package}, which is not installed on {self._where}: "
                    f"{self._python} -m pip install {package}=={version}"
                ) from None
            return ""
        if here == version:
            return ""
        return (
            f"{name!r} uses {package} {version}, and on {self._where} it is {here}: results may differ from those of "
            "this computer"
        )


def _is_module(name: str) -> bool:
    """Return True if there is a module of this name, as some packages say nothing about themselves."""
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False
