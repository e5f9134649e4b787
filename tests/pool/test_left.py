"""Directories of drivers that are gone are removed, and no others."""

from __future__ import annotations

import os
from pathlib import Path

from callyard.cluster.driver_channel import _remove_left
from callyard.system.process_identity import this_process


def test_only_what_is_provably_left_is_removed(tmp_path: Path) -> None:
    here = this_process()
    names = {
        f"live-{here.label}~a_b": True,
        f"live-{here.replace(start=here.start + 1).label}~x": not here.start,
        f"live-{here.replace(namespace='1.2', start=1).label}~x": True,
        f"live-{here.replace(host='elsewhere', boot='b007', start=1).label}~x": True,
        f"live-{os.uname().nodename}-1-x": True,  # of an earlier version: a number says nothing
        f"live-{os.uname().nodename}-{1 << 22}-x": True,
        "mine": True,
    }
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "contact").touch()
    _remove_left(str(tmp_path))
    assert {name: (tmp_path / name).exists() for name in names} == names
