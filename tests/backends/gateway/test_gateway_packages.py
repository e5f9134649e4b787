"""The packages that a call uses are compared with those of the other computer."""

from __future__ import annotations

import re
import sys
import types
import warnings
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from sshd import Server

import callyard
from callyard import Executor, Local, VersionMismatch
from callyard.backends.gateway.used_packages import ComparedPackages, UsedPackages
from callyard.serialize.function_registry import dumps
from callyard.serialize.importable import for_another_computer


def mean(values: np.ndarray) -> float:
    return float(np.mean(values))


def test_what_a_pickle_names_is_noted() -> None:
    used = UsedPackages()
    with for_another_computer(used):
        dumps((mean, (np.arange(3),), {}))
    assert used.found == {"numpy": np.__version__}


def test_another_version_is_a_warning_and_none_is_an_error() -> None:
    packages = ComparedPackages("login", "python3")
    packages.add([("numpy", metadata.version("numpy")), ("numpy", "0.9")])
    packages.add([("no-such-thing", "1.0")])
    assert packages.compare("mean", [0]) == []
    (words,) = packages.compare("mean", [0, 1])
    assert "'mean' uses numpy 0.9, and on login it is" in words
    assert packages.compare("mean", [1, 0]) == []  # once
    for _ in range(2):  # every call that uses it fails
        with pytest.raises(VersionMismatch, match=r"'mean' uses no-such-thing, .* -m pip install no-such-thing==1\.0"):
            packages.compare("mean", [0, 2])


def package(place: Path, name: str, version: str) -> str:
    """Install a package with a function `half`; return the place."""
    about = place / f"{name}-{version}.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Name: {name}\nVersion: {version}\n")
    (about / "RECORD").write_text(f"{name}.py,,\n")
    (place / f"{name}.py").write_text("def half(x):\n    return x / 2\n")
    return str(place)


def test_a_package_of_another_version(
    sshd: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    """The gateway's warnings are told here; each once."""
    warnings.simplefilter("always")
    there = package(tmp_path / "there/site-packages", "both_here", "1.4")
    monkeypatch.syspath_prepend(package(tmp_path / "site-packages", "both_here", "1.5"))
    import both_here  # type: ignore[import-not-found]

    host = sshd.host("plain", setup=f"export PYTHONPATH='{there}:{Path(callyard.__file__).parents[1]}'")
    with Executor(backend=Local(detached=False, host=host)) as executor:
        assert executor.submit(both_here.half, 3).result(60) == 1.5
        assert executor.submit(both_here.half, 4).result(60) == 2
    (words,) = [str(each.message) for each in recwarn if each.category is UserWarning]
    assert re.match(r"'half' uses both_here 1\.5, and on .* it is 1\.4: results may differ", words)
    del sys.modules["both_here"]


def test_a_package_that_is_not_there(sshd: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(package(tmp_path / "site-packages", "only_here", "1.5"))
    import only_here  # type: ignore[import-not-found]

    assert isinstance(only_here, types.ModuleType)
    with Executor(backend=Local(detached=False, host=sshd.host("plain"))) as executor:
        for number in (3, 4):
            error = executor.submit(only_here.half, number).exception(60)
            assert isinstance(error, VersionMismatch)
            assert "'half' uses only_here, which is not installed on" in str(error)
    del sys.modules["only_here"]
