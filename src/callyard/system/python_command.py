"""The command that starts a process of this package in an interpreter of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

__all__ = ["python_command"]

_PACKAGE = os.path.abspath(Path(__file__).parents[2])
_STANDARD = os.path.dirname(os.__file__)

# The package is found where this process has it, whatever else is installed. Other modules are found where this process
# would find them (perhaps nowhere else: in a vendored directory, in an archive), but the standard library comes first,
# so that no file of the user's is taken for a module of the library. The modules loaded here are never garbage: a
# freeze keeps the collector away.
_CODE = """
import gc, sys
gc.disable()
package, *places = sys.argv.pop(1).split("\\n")
sys.path[:] = [*places, *(place for place in sys.path if place and place not in places)]
import __future__
sys.path.insert(0, package)
import callyard
del sys.path[0]
from {module} import {function}
gc.freeze()
gc.enable()
{function}()
"""


def python_command(module: str, function: str, *arguments: str) -> list[str]:
    """Return the command that runs a function of this package in a new interpreter with this one's options."""
    if not sys.executable:
        raise OSError("sys.executable is not set: set it to the path of this Python, from which workers are started")
    options = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # as multiprocessing does
    code = _CODE.format(module=module, function=function)
    return [sys.executable, *options, "-c", code, "\n".join([_PACKAGE, *_places()]), *arguments]


def _places() -> list[str]:
    """Return the import path: that of this process, but the standard library first."""
    places = [place for place in map(str, sys.path) if place]
    return sorted([*places, _PACKAGE], key=lambda place: not _is_standard(place))


def _is_standard(place: str) -> bool:
    archive = f"python{sys.version_info.major}{sys.version_info.minor}.zip"
    return place == _STANDARD or os.path.basename(place) in ("lib-dynload", archive)
