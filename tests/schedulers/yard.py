"""The scheduler of the documentation, with the program `yard`: its jobs are processes of this machine.

The class is that of docs/howto/backends.md. `yard submit`, `yard state`, `yard find` and `yard cancel` keep their jobs
below $YARD.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from callyard.schedulers.base import JobId

PAGE = Path(__file__).parent.parent.parent / "docs" / "howto" / "backends.md"


def documented() -> str:
    """Return the code of the class, as the page shows it."""
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    (code,) = (block for block in blocks if "class YardScheduler" in block)
    return str(code)


# ------------------------------------------------------------------ the program


def _submit(yard: Path, script: str, log: str, token: str, queue: str, *elements: str) -> None:
    job = str(len(list(yard.iterdir())) + 1)
    (yard / job).mkdir()
    (yard / job / "token").write_text(token)
    (yard / job / "queue").write_text(queue)
    for element in elements or ("",):
        name = f"{job}_{element}" if element else job
        variables = {"YARD_JOB": name, "YARD_SIDING": "siding-1"}
        variables |= {"YARD_ARRAY": job, "YARD_TRACK": element} if element else {}
        with open(log.replace("{element}", element or "0"), "ab") as output:
            streams = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output}
            process = subprocess.Popen(
                ["bash", script], env={**os.environ, **variables}, start_new_session=True, **streams
            )
        (yard / job / name).write_text(json.dumps(process.pid))
    print(job)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _state(yard: Path, *jobs: str) -> None:
    for job in jobs:
        for element in (yard / job).iterdir() if (yard / job).is_dir() else ():
            if element.name not in ("token", "queue"):
                print(element.name, "runs" if _runs(json.loads(element.read_text())) else "over")


def _find(yard: Path, token: str) -> None:
    for job in yard.iterdir():
        if (job / "token").read_text().startswith(token):
            print((job / "token").read_text(), job.name)


def _cancel(yard: Path, text: str) -> None:
    job = JobId.parse(text)
    for element in (yard / job.job).iterdir():
        if element.name in (text, *([] if job.element is not None else [element.name])) and element.name not in (
            "token",
            "queue",
        ):
            pid = json.loads(element.read_text())
            if _runs(pid):
                os.kill(pid, signal.SIGTERM)


def _limit(yard: Path) -> None:
    print(10)


if __name__ == "__main__":
    {"submit": _submit, "state": _state, "find": _find, "cancel": _cancel, "limit": _limit}[sys.argv[1]](
        Path(os.environ["YARD"]), *sys.argv[2:]
    )
