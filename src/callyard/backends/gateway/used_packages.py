"""The packages that calls use: noted while calls are packed, and compared with those of the other computer."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from importlib import metadata

from ...errors import VersionMismatch
from ...hashing.packages import Package, owner

__all__ = ["UsedPackages", "compare"]

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


def compare(name: str, packages: Iterable[tuple[str, str]], where: str, python: str) -> list[str]:
    """Return warnings about packages that have another version here than on the computer that submitted a call.

    Args:
        name: the name of the call's function.
        packages: names and versions there.
        where: the name of this computer.
        python: the interpreter here.

    Raises:
        VersionMismatch: a package is missing here.
    """
    warnings = []
    for package, version in packages:
        try:
            here = metadata.version(package)
        except metadata.PackageNotFoundError:
            if not _is_module(package):
                raise VersionMismatch(
                    f"{name!r} uses {package}, which is not installed on {where}: "
                    f"{python} -m pip install {package}=={version}"
                ) from None
            continue
        if here != version:
            warnings.append(
                f"{name!r} uses {package} {version}, and on {where} it is {here}: results may differ from those of "
                "this computer"
            )
    return warnings


def _is_module(name: str) -> bool:
    """Return True if there is a module of this name, as some packages say nothing about themselves."""
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False
