"""A daemon, or the keepers that it starts, that kill themselves at a chosen step."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from steps import is_step

CODE = "import dying; dying.start({who!r}, {step}, {directory!r})"


def start_dying(directory: Path, who: str, step: int) -> None:
    """Start a daemon that dies, as `start_daemon` starts one that does not; it may be dead on return."""
    code = CODE.format(who=who, step=step, directory=str(directory))
    place = os.path.dirname(__file__)
    paths = os.pathsep.join([place, os.path.join(os.path.dirname(place), "slurm_cluster"), *filter(None, sys.path)])
    environment = {**os.environ, "PYTHONPATH": paths}
    subprocess.run([sys.executable, "-c", code], env=environment, check=False, start_new_session=True)


def start(who: str, step: int, directory: str) -> None:
    """Run `main` of the daemon, with steps counted in the daemon or in each keeper."""
    from callyard.daemon import job_processes, run_daemon

    count, counting = 0, who == "daemon"
    keep = job_processes.keep

    def look(event: str, args: tuple[Any, ...]) -> None:
        nonlocal count
        if counting and is_step(event, args, directory):
            count += 1
            if count == step:
                Path(directory, f"{who}-{step}").write_text(f"{event} {args[:2]}")
                os.kill(os.getpid(), signal.SIGKILL)

    def keep_and_count(*args: Any) -> None:
        nonlocal counting
        counting = who == "keeper"
        keep(*args)

    job_processes.keep = keep_and_count  # type: ignore[assignment]
    sys.addaudithook(look)
    sys.argv[1:] = [directory]
    run_daemon.main()
