"""The part of a pretended Flux that knows jobs: the ID of number 7 is "f7"."""

import errno
import json
import re

from . import Answer, note, script


class JobID(int):
    def __new__(cls, text):
        if not re.fullmatch(r"f?\d+", str(text)):
            raise ValueError(text)
        return int.__new__(cls, str(text).lstrip("f"))

    @property
    def f58plain(self):
        return f"f{int(self)}"


submitted = []


def submit_async(handle, jobspec, urgency=16):
    system = json.loads(jobspec)["attributes"]["system"]
    note(["submit", json.loads(jobspec), urgency])
    gone = [each["value"] for each in system["dependencies"] if each["value"] in script()["gone"]]
    words = script()["refused"].get(system["job"]["name"])
    if gone:
        words = f"dependency: afterany: id {gone[0]}: job not found"
    if words:
        return Answer(OSError(errno.EINVAL, words))
    submitted.append(system["job"]["name"])
    return Answer(100 - len(submitted))  # not in the order of submission


def submit_get_id(future):
    return JobID(future.get())


def cancel_async(handle, job):
    note(["cancel", int(job)])
    words = script()["refused"].get(f"f{int(job)}")
    return Answer(OSError(errno.EPERM if words == "not yours" else errno.EINVAL, words) if words else None)
