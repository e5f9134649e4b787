"""The program that speaks with Flux: `flux python -c TEXT COMMAND`, with a request as JSON on standard input.

Its text is what the rest of this folder sends, so nothing here is run in Callyard's own processes. Flux's own Python
runs it, whichever that is (from 3.6 on), without Callyard. One program with all jobs takes a tenth of the time of a
command for each, and it alone is told which ID belongs to which job.
"""

import errno
import json
import os
import re
import shlex
import subprocess
import sys
import time
from typing import Any

INACTIVE = 64  # state of jobs that have ended
ASKED = (
    *("state", "result", "waitstatus", "nodelist", "t_run"),
    *("exception_type", "exception_severity", "exception_note"),
)
URGENCIES = {"hold": 0, "default": 16, "expedite": 31}


def main() -> int:
    """Do what the first argument says; the exit status is 0 if all of it was done."""
    commands = (submit, status, find, cancel, reach, instance, left)
    try:
        return next(each for each in commands if each.__name__ == sys.argv[1])(json.load(sys.stdin))
    except OSError as error:
        tell(error)
        return 1


def tell(error: OSError, before: str = "") -> None:
    """Say in one line what went wrong."""
    words = error.strerror or str(error)
    if "broker socket" in words and "FLUX_URI" not in os.environ:
        words += ", and FLUX_URI names no other instance"
    print(f"{before}{words}", file=sys.stderr)


def opened() -> Any:
    """Return a connection to the instance."""
    import flux
    import flux.job

    return flux.Flux()


def reach(asked: Any) -> int:  # noqa: ARG001
    """Print the number of brokers."""
    print(opened().attr_get("size"))
    return 0


def instance(asked: Any) -> int:  # noqa: ARG001
    """Print whose the instance is; if it is the user's, also its job, hosts, resources that are up, and end."""
    handle = opened()
    from flux.resource import resource_list

    said: Any = {"owner": int(handle.attr_get("security.owner")), "user": os.getuid()}
    if said["owner"] == said["user"]:
        found = resource_list(handle).get()
        said.update(
            level=int(handle.attr_get("instance-level")),
            job=job_around(handle),
            hostlist=handle.attr_get("hostlist"),
            R=json.loads(found.up.encode()),
            expiration=found.all.expiration,
        )
    print(json.dumps(said))
    return 0


def job_around(handle: Any) -> str:
    """Return the ID of the job that the instance is, in the instance above; empty for none."""
    import flux.job

    try:
        return str(flux.job.JobID(handle.attr_get("jobid")).f58plain)
    except (OSError, ValueError):
        return ""


# ------------------------------------------------------------------ submitting


def submit(asked: Any) -> int:
    """Submit jobs that differ in little; print their IDs, in order, or why some were not taken."""
    options = [*asked["options"], *(directives(asked["script"]) if asked["templated"] else ())]
    argv = ["flux", "submit", "--dry-run", *options, "--", *asked["command"]]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, universal_newlines=True) as describing:
        handle = opened()  # meanwhile
        text, _ = describing.communicate()
    if describing.returncode != 0:
        return describing.returncode
    described, urgency = json.loads(text), urgency_of(options)
    submissions = [Submission(handle, described, urgency, job) for job in asked["jobs"]]
    taken, refused = [], []
    while submissions:
        each = submissions.pop(0)  # which lets go of its descriptor: there may be a thousand
        try:
            taken.append(each.number())
        except OSError as error:
            refused.append(error)
    if refused:
        tell(refused[0], f"callyard: {len(taken)} jobs were taken, the first of the others was not: " if taken else "")
    for number in taken:
        print(number)
    return 1 if refused else 0


def directives(script: str) -> Any:
    """Return the options in the script, from lines such as "# flux: -N2 --queue=batch"."""
    with open(script) as file:
        found = re.findall(r"^#\s*(?:flux|FLUX):\s*(.*)$", file.read(), re.MULTILINE)
    return [word for line in found for word in shlex.split(line, comments=True)]


def urgency_of(options: Any) -> int:
    """Return the urgency, which the description of a job does not contain."""
    named = [word[len("--urgency=") :] for word in options if word.startswith("--urgency=")]
    return int(URGENCIES.get(named[-1], named[-1])) if named else URGENCIES["default"]


class Submission:
    """One job on its way to the instance."""

    def __init__(self, handle: Any, described: Any, urgency: int, job: Any) -> None:
        self.handle, self.described, self.urgency, self.job = handle, described, urgency, job
        self.future = self.begun()

    def begun(self) -> Any:
        import flux.job

        system = self.described["attributes"]["system"]
        system["job"] = {"name": self.job["name"]}
        system["environment"].update(self.job["variables"])
        system["shell"]["options"]["output"]["stdout"]["path"] = self.job["log"]
        system["dependencies"] = [{"scheme": "afterany", "value": each} for each in self.job["after"]]
        system["dependencies"] += [{"scheme": "singleton", "value": ""}] if self.job["alone"] else []
        self.described["attributes"]["user"] = {"callyard": self.job["token"]}
        return flux.job.submit_async(self.handle, json.dumps(self.described), urgency=self.urgency)

    def number(self) -> str:
        """Return the ID, once it is known. Nobody waits for jobs that have ended and are forgotten."""
        import flux.job

        while True:
            try:
                return str(flux.job.submit_get_id(self.future).f58plain)
            except OSError as error:
                gone = re.search(r"id (\S+): job not found", error.strerror or "")
                if not gone or not self.leave_out(gone.group(1)):
                    raise
                self.future = self.begun()

    def leave_out(self, gone: str) -> bool:
        """Wait for this job no more; return whether it was waited for."""
        import flux.job

        left = [each for each in self.job["after"] if flux.job.JobID(each) != flux.job.JobID(gone)]
        fewer = len(left) < len(self.job["after"])
        self.job["after"] = left
        return fewer


# ------------------------------------------------------------------ asking and cancelling


def listed(handle: Any, attributes: Any) -> Any:
    """Return this user's jobs, raw: Flux's own listing makes an object of each, which takes forty times as long."""
    asked = {"max_entries": 0, "attrs": list(attributes), "constraint": {"userid": [os.getuid()]}}
    return handle.rpc("job-list.list", asked).get()["jobs"]


def numbers_of(jobs: Any) -> Any:
    """Return IDs as Flux counts them, without those of other schedulers."""
    import flux.job

    found = {}
    for job in jobs:
        try:
            found[int(flux.job.JobID(job))] = job
        except ValueError:
            continue
    return found


def status(asked: Any) -> int:
    """Print a line of JSON for each job that is known."""
    handle = opened()
    wanted = numbers_of(asked["jobs"])
    for job in listed(handle, ASKED):
        if job["id"] in wanted:
            print(json.dumps({**job, "job": wanted[job["id"]]}))
    return 0


def left(asked: Any) -> int:
    """Print a line of JSON with the time left (s) for each job that runs; null for no limit."""
    handle = opened()
    wanted = numbers_of(asked["jobs"])
    now = time.time()
    for job in listed(handle, ["t_run", "expiration"]):
        if job["id"] in wanted and job.get("t_run"):
            ends = job.get("expiration") or 0
            print(json.dumps({"job": wanted[job["id"]], "left": ends - now if ends else None}))
    return 0


def find(asked: Any) -> int:
    """Print ID and token of each job whose token begins so: it is the end of its name, or else in its description."""
    handle = opened()
    import flux.job

    for job in listed(handle, ["name"]):
        name = job.get("name", "")
        word = token_of(handle, job["id"]) if asked["lane"] in name else name
        found = re.search(r"(?:^|\.)({}(?:\.\d+-\d+)?)$".format(re.escape(asked["token"])), word)
        if found:
            print(flux.job.JobID(job["id"]).f58plain, found.group(1))
    return 0


def token_of(handle: Any, job: int) -> str:
    """Return the token in the description of a job whose name is that of its lane."""
    found = handle.rpc("job-info.lookup", {"id": job, "keys": ["jobspec"], "flags": 0}).get()
    return str(json.loads(found["jobspec"])["attributes"].get("user", {}).get("callyard", ""))


def cancel(asked: Any) -> int:
    """Cancel jobs; those that have ended, or are not known, are none that could be."""
    handle = opened()
    import flux.job

    pending = [flux.job.cancel_async(handle, job) for job in numbers_of(asked["jobs"])]
    failed = 0
    while pending:
        try:
            pending.pop(0).get()
        except OSError as error:
            if error.errno not in {errno.ENOENT, errno.EINVAL}:
                tell(error)
                failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
