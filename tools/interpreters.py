#!/usr/bin/env python3
"""Find the Pythons on this machine that Callyard supports, one for each minor version.

    python tools/interpreters.py            3.10 3.11 ...: the versions found
    python tools/interpreters.py 3.11       the interpreter of that version
    python tools/interpreters.py --default  the version that `make check`, `docs`, `demo` and `bench` use

It looks at PATH and at pyenv's versions. What is absent or does not start is told on stderr and left out.
"""

import os
import subprocess
import sys
from pathlib import Path

SUPPORTED = ("3.10", "3.11", "3.12", "3.13", "3.14", "3.15")
# ssl, zlib, ctypes: what pip and numpy need, and a Python built by hand may lack.
PROBE = "import sys, ssl, zlib, ctypes; print('%d.%d' % sys.version_info[:2]); print(sys.executable)"


def candidates(version):
    """Return the files that may be this version, best first: what PATH says, then pyenv's newest patch."""
    name = "python" + version
    on_path = [Path(folder) / name for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    roots = [Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser(), Path.home() / ".pyenv"]
    pyenv = [found for root in roots for found in (root / "versions").glob(version + ".*/bin/python")]
    newest_first = sorted(pyenv, key=patch_number, reverse=True)
    return [path for path in on_path + newest_first if path.exists() and "shims" not in path.parts]


def patch_number(path):
    digits = path.parent.parent.name.split(".")[-1]
    return int(digits) if digits.isdigit() else -1  # 3.14.0rc1 after every release


def probe(path, version):
    """Return the interpreter behind `path`, or None with a line on stderr when it does not work."""
    command = [str(path), "-I", "-c", PROBE]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return complain(path, error)
    lines = run.stdout.split("\n")
    if run.returncode or lines[0] != version:
        return complain(path, run.stderr.strip().split("\n")[-1] or "is Python " + lines[0])
    return lines[1]


def complain(path, reason):
    print(f"{path} does not work and is left out: {reason}", file=sys.stderr)


def find(version):
    """Return the first working interpreter of this version, or None."""
    return next((found for path in candidates(version) if (found := probe(path, version))), None)


def default():
    """Return the version of the Python that runs this script, else the newest one found."""
    own = "{}.{}".format(*sys.version_info[:2])
    return own if own in SUPPORTED else next(filter(find, reversed(SUPPORTED)), None)


def list_all():
    versions = [version for version in SUPPORTED if find(version)]
    absent = [version for version in SUPPORTED if version not in versions]
    if absent:
        print("Not on this machine, so not tested: Python " + ", ".join(absent), file=sys.stderr)
    return " ".join(versions)


def main(arguments):
    if not arguments:
        answer = list_all()
    elif arguments == ["--default"]:
        answer = default()
    else:
        answer = find(arguments[0])
    if not answer:
        sys.exit("Found no Python {} that works.".format("3.10 to 3.15" if not arguments else arguments[0]))
    print(answer)


if __name__ == "__main__":
    main(sys.argv[1:])
