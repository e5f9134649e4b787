"""Where CPython's tests of concurrent.futures are, and how they are imported.

The interpreter's own are taken. Some installations lack them. Then those of an older Python that is installed
beside it serve, if there is one: they ask nothing of `test.support` that a newer one does not have.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

NAME = "test.test_concurrent_futures"
DIRECTORY = "CALLYARD_CPYTHON_TESTS"  # of another Python's tests; the processes that a test starts see it too
OVERLAY = str(Path(__file__).parent / "overlay")
MISSING = "no copy of CPython's test.test_concurrent_futures here, nor in an older Python beside this one"


def make_importable() -> bool:
    """Make CPython's tests importable, here and in processes started from here; False if there are none."""
    if _has_tests(Path(sysconfig.get_path("stdlib"), "test")):
        return True
    directory = os.environ.get(DIRECTORY) or next(map(str, _beside()), None)
    if directory is None:
        return False
    os.environ[DIRECTORY] = directory
    if OVERLAY not in sys.path:
        sys.path.insert(0, OVERLAY)
    return True


def module(name: str) -> ModuleType:
    """Import one module of the package; in older Pythons all of them are one module."""
    package = importlib.import_module(NAME)
    return importlib.import_module(f"{NAME}.{name}") if hasattr(package, "__path__") else package


def version() -> tuple[int, ...]:
    """Return which Python the tests are of."""
    return _version(Path(os.environ[DIRECTORY])) if OVERLAY in sys.path else sys.version_info[:2]


def _has_tests(directory: Path) -> bool:
    names = ("test_concurrent_futures", "test_concurrent_futures.py")
    return any((directory / name).exists() for name in names)


def _beside() -> list[Path]:
    """Return the test directories of older Pythons installed next to this one, the newest first."""
    found = Path(sys.base_prefix).parent.glob("*/lib/python3.*/test")
    usable = [path for path in found if (3, 10) <= _version(path) < sys.version_info[:2] and _has_tests(path)]
    return sorted(usable, key=_version, reverse=True)


def _version(path: Path) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", path.parent.name)))
