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
import time
from pathlib import Path

from callyard.schedulers.base import JobId

PAGE = Path(__file__).parent.parent.parent / "docs" / "howto" / "backends.md"


def documented() -> str:
    """Return the code of the class, as the page shows it."""
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    (code,) = (block for block in blocks if "class YardScheduler" in block)
    return str(code)


# ------------------------------------------------------------------ the program


def _submit(yard: Path, *words: str) -> None:
    asked = dict[str, list[str]]()
    for word in words:
        name, _, value = word.partition("=")
        asked.setdefault(name, []).append(value)
    job = str(len(list(yard.iterdir())) + 1)
    (yard / job).mkdir()
    (yard / job / "token").write_text(asked["token"][0])
    (yard / job / "queue").write_text(asked["queue"][0])
    before = [str(pid) for name in asked.get("after", ()) for pid in _processes(yard, JobId.parse(name))]
    most, pids = int(asked.get("at_once", ["0"])[0]), list[str]()
    for element in asked.get("track", [""]):
        name = f"{job}_{element}" if element else job
        variables = {"YARD_JOB": name, "YARD_SIDING": "siding-1"}
        variables |= {"YARD_ARRAY": job, "YARD_TRACK": element} if element else {}
        with open(asked["log"][0].replace("%track", element), "ab") as output:
            streams = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output}
            lane = pids[len(pids) - most : len(pids) - most + 1] if 0 < most <= len(pids) else []
            process = subprocess.Popen(
                [sys.executable, __file__, "wait", asked["script"][0], *before, *lane],
                env={**os.environ, **variables}, start_new_session=True, **streams,
            )  # fmt: skip
        pids.append(str(process.pid))
        (yard / job / name).write_text(json.dumps(process.pid))
    print(job)


def _wait(yard: Path, script: str, *before: str) -> None:
    while any(_runs(int(pid)) for pid in before):
        time.sleep(0.02)
    os.execvp("bash", ["bash", script])


def _processes(yard: Path, job: JobId) -> list[int]:
    elements = [each for each in (yard / job.job).iterdir() if each.name not in ("token", "queue")]
    return [json.loads(each.read_text()) for each in elements if job.element is None or each.name == str(job)]


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
    for pid in _processes(yard, job):
        if _runs(pid):
            os.kill(pid, signal.SIGTERM)


def _limit(yard: Path) -> None:
    print(10)


if __name__ == "__main__":
    {"submit": _submit, "state": _state, "find": _find, "cancel": _cancel, "wait": _wait, "limit": _limit}[sys.argv[1]](
        Path(os.environ["YARD"]), *sys.argv[2:]
    )
