"""Environment variables, and the time by which they must be set."""

from __future__ import annotations

from .lite_stdlib import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

# Libraries read these variables at their loading, so all are set before the user's first import.
THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "RAYON_NUM_THREADS",
    "JULIA_NUM_THREADS",
)

NESTED = "CALLYARD_NESTED"  # inside a call: the depth of nested calls
MAX_NESTED = 10  # deeper nesting is a mistake: a module that makes calls while being imported nests without end

DRY_RUN = "CALLYARD_DRY_RUN"  # if set, executors only plan their calls
_OFF = ("", "0", "no", "false")

_AT_START = ("LD_", "DYLD_", "PYTHON", "MALLOC_", "GLIBC_")


def nested(environ: Mapping[str, str]) -> int:
    """Return how many calls the process with this environment is in, one inside the other."""
    number = environ.get(NESTED, "")
    return int(number) if number.isdecimal() else 0


def forced_dry_run(environ: Mapping[str, str]) -> str | None:
    """Return what the variable for dry runs says: "1", or the path of a file for the plans; None if it is off."""
    said = environ.get(DRY_RUN, "")
    return None if said.lower() in _OFF else said


def at_start(name: str) -> bool:
    """Return True if the loader or the interpreter reads the variable at its start, so not after a fork."""
    return name.startswith(_AT_START)
