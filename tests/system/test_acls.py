"""Who may write by an access control list is seen: on files, directories, those above, and on what is made in them."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callyard import Cache, UnsafeCache
from callyard.cache import permissions
from callyard.cache.format.record_writer import Record, write
from callyard.system import acls
from callyard.system.acls import AclEntry, nfs4, posix

STRANGER, READER = 54321, 54322
OWN, USER, GROUP_OWN, GROUP, MASK, OTHER = 1, 2, 4, 8, 16, 32


def listed(*entries: tuple[int, int, int], mask: int = 7) -> bytes:
    """A list of POSIX, as the kernel has it."""
    nobody = 0xFFFFFFFF
    some = [(OWN, 7, nobody), *entries, (GROUP_OWN, 0, nobody), (MASK, mask, nobody), (OTHER, 0, nobody)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in sorted(some))


@pytest.fixture(autouse=True)
def lists(tmp_path: Path) -> None:
    try:
        os.setxattr(tmp_path, "system.posix_acl_access", listed((USER, 5, READER), mask=5))
    except (AttributeError, OSError):
        pytest.skip("the file system has no access control lists")


def allow(path: Path, *entries: tuple[int, int, int], mask: int = 7, default: bool = False) -> None:
    os.setxattr(path, f"system.posix_acl_{'default' if default else 'access'}", listed(*entries, mask=mask))


@pytest.fixture(params=[None, "group"])
def trust(request: Any) -> Any:
    return request.param


@pytest.fixture
def cache(tmp_path: Path, trust: Any) -> Cache:
    """One with a record, in a directory below another one."""
    cache = Cache(tmp_path / "above/cache", trust=trust)
    store(cache)
    return cache


def store(cache: Cache) -> None:
    made = Record("ab" * 20, "f", "finished", "", 3, (), {})
    cache._directory.publish(made.key, lambda descriptor: write(descriptor, made))


def record(cache: Cache) -> Path:
    (key,) = cache.keys()
    return Path(cache._directory.record(key))


def places(cache: Cache) -> dict[str, Path]:
    file = record(cache)
    return {"record": file, "shard": file.parent, "cache": Path(cache.path), "above": Path(cache.path).parent}


def look(cache: Cache) -> Any:
    """Open the cache, and what is in it."""
    (key,) = cache.keys()
    return Cache(cache.path, trust=cache.trust)[key].output


@pytest.mark.parametrize("place", ["record", "shard", "cache", "above"])
@pytest.mark.parametrize("kind", [USER, GROUP])
def test_a_stranger_who_may_write_is_seen(cache: Cache, place: str, kind: int) -> None:
    allow(places(cache)[place], (kind, 6, STRANGER))
    with pytest.raises(UnsafeCache):
        look(cache)


@pytest.mark.parametrize("place", ["record", "shard", "cache", "above"])
@pytest.mark.parametrize(("entry", "mask"), [((USER, 5, READER), 5), ((USER, 7, STRANGER), 5), ((GROUP, 5, READER), 5)])
def test_who_may_only_read_does_no_harm(cache: Cache, place: str, entry: tuple[int, int, int], mask: int) -> None:
    allow(places(cache)[place], entry, mask=mask)
    assert look(cache) == 3


@pytest.mark.parametrize("place", ["record", "shard", "cache", "above"])
def test_members_of_the_trusted_group_are_trusted(tmp_path: Path, place: str, monkeypatch: Any) -> None:
    cache = Cache(tmp_path / "above/cache", trust="group")
    store(cache)
    group = os.stat(cache.path).st_gid
    monkeypatch.setattr(permissions, "_groups_of", lambda uid: [group] if uid == READER else [])
    allow(places(cache)[place], (USER, 7, READER), (USER, 7, os.geteuid()), (GROUP, 7, group))
    assert look(cache) == 3
    allow(places(cache)[place], (USER, 7, READER), (USER, 7, STRANGER))
    with pytest.raises(UnsafeCache, match=f"the user number {STRANGER}"):
        look(cache)


@pytest.mark.parametrize("place", ["cache", "above"])
def test_what_new_files_inherit(tmp_path: Path, place: str) -> None:
    """In a cache for a group files are opened to the list that they inherit; for one user they never are."""
    for trust in (None, "group"):
        directory = tmp_path / f"{trust}/cache"
        directory.mkdir(parents=True)
        directory.chmod(0o2770 if trust else 0o700)
        directory.parent.chmod(0o700)
        allow(directory if place == "cache" else directory.parent, (USER, 7, STRANGER), default=True)
        if trust and place == "cache":
            with pytest.raises(UnsafeCache, match="what is made in"):
                Cache(directory, trust=trust)
        else:
            store(Cache(directory, trust=trust))
            assert look(Cache(directory, trust=trust)) == 3


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give directories away")
@pytest.mark.parametrize(
    ("owner", "group", "mode", "words"),
    [
        (0, STRANGER, 0o770, f"the group number {STRANGER}"),
        (STRANGER, 0, 0o700, f"the user number {STRANGER}"),
        (STRANGER, 0, 0o1777, f"the user number {STRANGER}"),
        (0, 0, 0o777, "everybody"),
        (0, STRANGER, 0o1770, ""),
        (0, STRANGER, 0o750, ""),
    ],
)
def test_directories_above_that_of_a_group(tmp_path: Path, owner: int, group: int, mode: int, words: str) -> None:
    cache = Cache(tmp_path / "above/cache", trust="group")
    os.chown(tmp_path / "above", owner, group)
    (tmp_path / "above").chmod(mode)
    if words:
        with pytest.raises(UnsafeCache, match=words):
            Cache(cache.path, trust="group")
    else:
        Cache(cache.path, trust="group")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give directories away")
def test_the_trusted_group_may_write_above(tmp_path: Path, monkeypatch: Any) -> None:
    cache = Cache(tmp_path / "above/cache", trust="group")
    for place in (tmp_path / "above", Path(cache.path)):
        os.chown(place, READER, READER)
        place.chmod(0o2770)
    monkeypatch.setattr(permissions, "_groups_of", lambda uid: [READER])
    Cache(cache.path, trust="group")
    with pytest.raises(UnsafeCache):
        Cache(cache.path)


# ------------------------------------------------------------------ lists of NFSv4


def entry(name: str, allowed: int, kind: int = 0, flags: int = 0) -> bytes:
    text = name.encode()
    return struct.pack(">4I", kind, flags, allowed, len(text)) + text.ljust(-(-len(text) // 4) * 4, b"\0")


def of_nfs4(*entries: bytes) -> bytes:
    return struct.pack(">I", len(entries)) + b"".join(entries)


@pytest.mark.parametrize("right", [0x2, 0x4, 0x40, 0x10000, 0x40000, 0x80000])
def test_lists_of_nfs4(right: int) -> None:
    harmless = [
        entry("OWNER@", 0x1F01FF), entry("GROUP@", right, flags=0x40), entry("EVERYONE@", 0x1), entry("root@here", 0x1),
        entry("54321", right, kind=1), entry("54321", right, flags=0x8),
    ]  # fmt: skip
    assert nfs4(of_nfs4(*harmless)) == []
    named = of_nfs4(*harmless, entry("54321", right), entry("nobody-of-that-name@here", right, flags=0x40))
    assert nfs4(named) == [AclEntry("user", 54321, "54321"), AclEntry("group", None, "nobody-of-that-name@here")]
    assert nfs4(of_nfs4(entry("EVERYONE@", right))) == [acls.EVERYBODY]
    assert nfs4(of_nfs4(entry("root@here", right))) == [AclEntry("user", 0, "root@here")]


@given(st.binary() | st.binary(min_size=16).map(lambda data: b"\0\0\0\1" + data))
def test_lists_that_make_no_sense(content: bytes) -> None:
    assert all(isinstance(writer, AclEntry) for writer in [*nfs4(content), *posix(content)])
    assert nfs4(content[:3]) == ([acls.EVERYBODY] if content else [])


def test_a_list_of_nfs4_is_asked_for(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = os.getxattr

    def getxattr(target: Any, name: str) -> bytes:
        return of_nfs4(entry("54321", 0x2)) if name == "system.nfs4_acl" else plain(target, name)

    monkeypatch.setattr(acls, "_without", set())
    assert look(cache) == 3
    assert os.stat(cache.path).st_dev in acls._without  # it is not asked for again where there are none
    monkeypatch.setattr(acls, "_without", set())
    monkeypatch.setattr(os, "getxattr", getxattr)
    with pytest.raises(UnsafeCache, match=f"the user number {STRANGER}"):
        look(cache)
