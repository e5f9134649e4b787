"""A pretended Flux for `program.py`: it answers from a script, and writes down what it was asked for.

The variable PRETENDED_FLUX names a file with `jobs` (what is listed), `refused` (words by the name of a job) and
`gone` (IDs of jobs of which nothing is known any more). `attributes` has those of the broker.
"""

import json
import os


def script():
    with open(os.environ["PRETENDED_FLUX"]) as file:
        return json.load(file)


def note(what):
    with open(os.environ["PRETENDED_FLUX"] + ".asked", "a") as file:
        file.write(json.dumps(what) + "\n")


class Resources:
    def __init__(self, text):
        self.text, self.expiration = text, json.loads(text)["execution"]["expiration"]

    def encode(self):
        return self.text


class Answer:
    def __init__(self, value):
        self.value = value

    def get(self):
        if isinstance(self.value, OSError):
            raise self.value
        return self.value


class Flux:
    def __init__(self):
        if "FLUX_URI" not in os.environ:
            raise FileNotFoundError(2, "Unable to connect to Flux: broker socket /run/flux/local was not found")

    def attr_get(self, name):
        return {"size": "4", **script().get("attributes", {})}[name]

    def rpc(self, topic, payload):
        note([topic, payload])
        if topic == "job-info.lookup":
            return Answer({"jobspec": json.dumps(script()["jobspecs"][str(payload["id"])])})
        return Answer({"jobs": script()["jobs"]})
