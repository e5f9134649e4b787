"""The measurement of live calls in an instance of Flux: the tests' own, of four nodes on this machine, new for each."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from bench.peers import WORKERS, Peer, Pool, load
from bench.rows import Effort, elapsed, repeated, together, warm

ROOT = Path(__file__).resolve().parent.parent


def present() -> bool:
    return sys.platform == "linux" and shutil.which("flux") is not None


@contextmanager
def instance() -> Iterator[None]:
    """An instance that is this process's own."""
    sys.path += [str(ROOT / "tests/slurm_cluster"), str(ROOT / "tests/flux_instance")]
    from instance import OF_A_JOB, Instance

    for name in [name for name in os.environ if name.startswith(OF_A_JOB)]:
        del os.environ[name]
    with tempfile.TemporaryDirectory() as directory:
        with Instance(Path(directory, "f"), nodes=4, cores=4) as started:
            os.environ.update(started.environment)
            yield


def live_rate(peer: Peer, effort: Effort) -> float:
    with instance(), LIVE[peer.name]() as executor:
        pool = Pool(executor.submit)
        warm(pool)
        return effort.live / median(repeated(lambda: elapsed(lambda: together(pool, effort.live)), 1.0, 3))


def _callyard() -> Any:
    flux = load("callyard:Flux")
    return load("callyard:Executor")(WORKERS, backend=flux(nodes=WORKERS))


def _executorlib(**options: Any) -> Any:
    """It needs Flux's bindings, which are for the Python that Flux was built with."""
    where = "import os, flux; print(os.path.dirname(os.path.dirname(flux.__file__)))"
    found = subprocess.run(["flux", "python", "-c", where], check=True, capture_output=True, text=True)
    sys.path.append(found.stdout.strip())
    return load("executorlib:FluxJobExecutor")(max_workers=WORKERS, block_allocation=True, **options)


LIVE: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "callyard": _callyard,
    "executorlib": _executorlib,
    "executorlib-nodeps": partial(_executorlib, disable_dependencies=True),
}
