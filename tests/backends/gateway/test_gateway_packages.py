"""The packages that a call uses are compared with those of the other computer."""

from __future__ import annotations

import sys
import types
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from sshd import Server

from callyard import Executor, Local, VersionMismatch
from callyard.backends.gateway.used_packages import UsedPackages, compare
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
    assert compare("mean", [("numpy", metadata.version("numpy"))], "login", "python3") == []
    (words,) = compare("mean", [("numpy", "0.9")], "login", "python3")
    assert "'mean' uses numpy 0.9, and on login it is" in words
    with pytest.raises(VersionMismatch, match=r"'mean' uses no-such-thing, .* -m pip install no-such-thing==1\.0"):
        compare("mean", [("no-such-thing", "1.0")], "login", "python3")


def test_a_package_that_is_not_there(sshd: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "site-packages"
    (place / "only_here-1.5.dist-info").mkdir(parents=True)
    (place / "only_here-1.5.dist-info" / "METADATA").write_text("Name: only_here\nVersion: 1.5\n")
    (place / "only_here-1.5.dist-info" / "RECORD").write_text("only_here.py,,\n")
    (place / "only_here.py").write_text("def half(x):\n    return x / 2\n")
    monkeypatch.syspath_prepend(str(place))
    import only_here  # type: ignore[import-not-found]

    assert isinstance(only_here, types.ModuleType)
    with Executor(backend=Local(detached=False, host=sshd.host("plain"))) as executor:
        error = executor.submit(only_here.half, 3).exception(60)
    assert isinstance(error, VersionMismatch)
    assert "'half' uses only_here, which is not installed on" in str(error)
    del sys.modules["only_here"]
