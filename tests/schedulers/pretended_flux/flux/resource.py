"""The part of a pretended Flux that knows its resources: `all` and `up` of the script."""

import json
from types import SimpleNamespace

from . import Answer, Resources, script


def resource_list(handle):
    return Answer(SimpleNamespace(**{name: Resources(json.dumps(script()[name])) for name in ("all", "up")}))
