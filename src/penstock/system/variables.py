"""Environment variables that must be set at a certain moment."""

from __future__ import annotations

# Read by a library when it is loaded; so they are set before the user's first import.
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

_AT_START = ("LD_", "DYLD_", "PYTHON", "MALLOC_", "GLIBC_")


def at_start(name: str) -> bool:
    """Whether the loader or the interpreter reads it when a process starts: a fork is too late for it."""
    return name.startswith(_AT_START)
