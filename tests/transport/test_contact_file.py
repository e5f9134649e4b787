"""The contact file: whole, private, refused where it is not; and the addresses in it."""

from __future__ import annotations

import ipaddress
import json
import os
import socket
import stat
from dataclasses import replace

import psutil
import pytest

from callyard.transport.contact_file import FORMAT, Address, Contact
from callyard.transport.local_addresses import find_addresses

CONTACT = Contact(
    session="5e55",
    version="1.2.3",
    python="3.11",
    addresses=(Address("eth0", "192.0.2.1", 4711), Address("eth0", "2001:db8::1", 4711)),
    driver_certificate="d" * 40,
    agent_certificate="a" * 40,
    agent_key="x" * 40,
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "contact"


def test_what_is_written_is_read(path):
    CONTACT.write(path)
    assert Contact.read(path) == CONTACT
    assert Contact.read(str(path)).addresses[1].port == 4711


def test_nobody_else_can_read_it(path):
    old = os.umask(0)
    try:
        CONTACT.write(path)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_it_is_replaced_as_a_whole_and_nothing_else_is_left(path):
    CONTACT.write(path)
    with open(path) as old:
        replace(CONTACT, session="other").write(path)
        assert json.load(old)["session"] == "5e55"
    assert Contact.read(path).session == "other"
    assert os.listdir(path.parent) == ["contact"]


def test_what_cannot_be_written_leaves_nothing(path, monkeypatch):
    def fail(*_):
        raise OSError("no space")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space"):
        CONTACT.write(path)
    assert os.listdir(path.parent) == []


def test_the_secret_is_not_shown():
    assert CONTACT.agent_key not in repr(CONTACT)
    assert CONTACT.agent_key not in str(CONTACT)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o666])
def test_a_file_that_is_open_to_others_is_refused(path, mode):
    CONTACT.write(path)
    path.chmod(mode)
    with pytest.raises(PermissionError, match=f"is open to others .mode {mode:04o}.*chmod"):
        Contact.read(path)


@pytest.mark.parametrize("mode", [0o750, 0o705, 0o711])
def test_a_directory_that_is_open_to_others_is_refused(path, mode):
    CONTACT.write(path)
    path.parent.chmod(mode)
    for use in (Contact.read, CONTACT.write):
        with pytest.raises(PermissionError, match="is open to others"):
            use(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_what_belongs_to_others_is_refused(path):
    CONTACT.write(path)
    os.chown(path, 12345, -1)
    with pytest.raises(PermissionError, match="contact belongs to the user number 12345"):
        Contact.read(path)
    os.chown(path, 0, -1)
    os.chown(path.parent, 12345, -1)
    for use in (Contact.read, CONTACT.write):
        with pytest.raises(PermissionError, match="run belongs to the user number 12345"):
            use(path)


def test_links_pipes_and_directories_are_refused(path):
    CONTACT.write(path)
    link = path.with_name("link")
    link.symlink_to(path)
    with pytest.raises(PermissionError, match="symbolic link"):
        Contact.read(link)
    pipe = path.with_name("pipe")
    os.mkfifo(pipe, 0o600)
    with pytest.raises(PermissionError, match="not a regular file"):
        Contact.read(pipe)
    with pytest.raises(PermissionError, match="not a regular file"):
        Contact.read(path.parent)


def test_no_file(path):
    path.parent.mkdir(mode=0o700)
    with pytest.raises(FileNotFoundError):
        Contact.read(path)


def test_a_file_of_another_format_is_named(path):
    replace(CONTACT, format=FORMAT + 1).write(path)
    with pytest.raises(ValueError, match=f"contact is not a contact file .* its format is {FORMAT + 1}"):
        Contact.read(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "7", '{"format": 1}', '{"format": 1, "addresses": [1]}'])
def test_what_is_no_contact_file_is_refused(path, text):
    CONTACT.write(path)
    path.write_text(text)
    with pytest.raises(ValueError, match="is not a contact file"):
        Contact.read(path)


def test_addresses_as_they_are_written():
    four, six = CONTACT.addresses
    assert str(four) == "192.0.2.1:4711 (eth0)"
    assert str(six) == "[2001:db8::1]:4711 (eth0)"


# ------------------------------------------------------------------ the addresses of this machine


def as_another_library_finds_them() -> set[tuple[str, str]]:
    found = set()
    up = {name for name, status in psutil.net_if_stats().items() if status.isup}
    for name, addresses in psutil.net_if_addrs().items():
        for address in addresses:
            text = address.address.partition("%")[0]
            link_local = address.family == socket.AF_INET6 and ipaddress.ip_address(text).is_link_local
            if name in up and address.family in (socket.AF_INET, socket.AF_INET6) and not link_local:
                found.add((name, text))
    return found


def test_all_addresses_are_found():
    found = find_addresses()
    assert set(found) == as_another_library_finds_them()
    loopback = [ipaddress.ip_address(address).is_loopback for _, address in found]
    assert loopback == sorted(loopback), "loopback is not last"


def test_one_interface_by_its_name_or_address():
    name = next(name for name, address in find_addresses() if address == "127.0.0.1")
    assert ("127.0.0.1") in [address for _, address in find_addresses(name)]
    assert {interface for interface, _ in find_addresses(name)} == {name}
    assert find_addresses("127.0.0.1") == [(name, "127.0.0.1")]


def test_an_interface_that_is_not_there():
    with pytest.raises(ValueError, match=r"no network interface 'ib7' with an address here; there is .*lo"):
        find_addresses("ib7")
