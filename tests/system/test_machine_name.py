"""The name of a machine for its own files: kept when the host is renamed, and unlike those of machines beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from callyard.system import machine_name as module
from callyard.system.machine_name import machine_name
from callyard.system.process_identity import ProcessIdentity

MOUNTS = """\
25 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
26 25 0:40 / /home rw,relatime - nfs4 server:/home rw
27 26 0:41 / /home/my\\040disk rw - btrfs /dev/sdb rw
28 25 0:42 / /scratch rw - ext4 /dev/vdc rw
29 25 0:43 / /scratch rw - lustre server:/scratch rw
"""
LAPTOP = ProcessIdentity("at-home", "fedcba98", "0123", "4026531836.1", 1, 1)


@pytest.fixture(autouse=True)
def mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "mountinfo"
    place.write_text(MOUNTS)
    monkeypatch.setattr(module, "_MOUNTS", str(place))
    monkeypatch.setattr(module.sys, "platform", "linux")
    return place


def named(monkeypatch: pytest.MonkeyPatch, directory: str, here: ProcessIdentity) -> str:
    monkeypatch.setattr(module, "this_process", lambda: here)
    return machine_name(directory)


def test_a_laptop_keeps_its_name_in_another_network(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {named(monkeypatch, "/var/me", LAPTOP.replace(host=host)) for host in ("at-home", "dhcp-17")}
    assert names == {"fedcba98"}


@pytest.mark.parametrize("directory", ["/home", "/home/me/.local", "/scratch/me"])
def test_machines_of_one_image_share_a_directory(monkeypatch: pytest.MonkeyPatch, directory: str) -> None:
    nodes = [named(monkeypatch, directory, LAPTOP.replace(host=host)) for host in ("n1", "n2")]
    assert nodes == ["n1-fedcba98", "n2-fedcba98"]


@pytest.mark.parametrize("directory", ["/homely", "/home/my disk/me", "/"])
def test_the_deepest_mount_counts(monkeypatch: pytest.MonkeyPatch, directory: str) -> None:
    assert named(monkeypatch, directory, LAPTOP) == "fedcba98"


def test_containers_of_one_image_share_a_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    assert named(monkeypatch, "/var/me", LAPTOP.replace(namespace="77.1")) == "at-home-fedcba98"


def test_a_machine_without_an_id_has_its_host_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert named(monkeypatch, "/var/me", LAPTOP.replace(machine="")) == "at-home"


def test_without_a_word_about_mounts_the_host_name_counts(monkeypatch: pytest.MonkeyPatch, mounts: Path) -> None:
    mounts.unlink()
    assert named(monkeypatch, "/var/me", LAPTOP) == "at-home-fedcba98"


def test_a_mac_has_a_disk_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.sys, "platform", "darwin")
    assert named(monkeypatch, "/Users/me", LAPTOP.replace(namespace="darwin")) == "fedcba98"
