"""The directory of a cache: who may have written into it, and that files appear whole."""

from __future__ import annotations

import errno
import grp
import itertools
import os
import pickle
import pwd
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from callyard.cache import directory as home_module
from callyard.cache import permissions
from callyard.cache.directory import CacheDirectory
from callyard.errors import CacheError, UnsafeCache
from callyard.system.process_identity import this_process

DIGEST = "3f" + "a2" * 19
STRANGER = 54321  # neither a user nor a group

Give = Callable[..., None]


@pytest.fixture
def give(monkeypatch: pytest.MonkeyPatch) -> Give:
    """Let a file belong to another user or group: really so for root, else as far as `os` tells."""
    given: dict[tuple[int, int], tuple[int, int]] = {}

    def seen(status: os.stat_result) -> os.stat_result:
        uid, gid = given.get((status.st_dev, status.st_ino), (-1, -1))
        fields = list(status)
        fields[4:6] = [status.st_uid if uid == -1 else uid, status.st_gid if gid == -1 else gid]
        return os.stat_result(fields)

    def looks(look: Callable[..., os.stat_result]) -> Callable[..., os.stat_result]:
        return lambda *args, **kwargs: seen(look(*args, **kwargs))

    def give(path: object, uid: int = -1, gid: int = -1) -> None:
        if os.geteuid() == 0:
            os.chown(str(path), uid, gid, follow_symlinks=False)
        else:
            status = plain(str(path))
            given[status.st_dev, status.st_ino] = uid, gid

    plain = os.lstat
    if os.geteuid() != 0:
        for name in ("lstat", "stat", "fstat"):
            monkeypatch.setattr(os, name, looks(getattr(os, name)))
    return give


@pytest.fixture
def home(tmp_path: Path) -> CacheDirectory:
    return CacheDirectory.open(tmp_path / "cache")


def mode(path: object) -> int:
    return stat.S_IMODE(os.lstat(str(path)).st_mode)


def put(home: CacheDirectory, key: str, content: bytes = b"content") -> None:
    home.publish(key, lambda descriptor: os.write(descriptor, content))


def get(home: CacheDirectory, key: str) -> bytes:
    with open(home.open_record(key), "rb") as file:
        return file.read()


def files(place: object) -> list[str]:
    return sorted(str(path.relative_to(str(place))) for path in Path(str(place)).rglob("*"))


# ------------------------------------------------------------------ opening


def test_it_is_made_for_this_user_alone(tmp_path: Path) -> None:
    home = CacheDirectory.open(tmp_path / "a/b/c")
    assert home.path == os.path.realpath(tmp_path / "a/b/c")
    assert (home.trust, home.writable) == (None, True)
    assert [mode(tmp_path / place) for place in ("a", "a/b", "a/b/c")] == [0o700] * 3


def test_the_umask_does_not_matter(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        home = CacheDirectory.open(tmp_path / "a")
        put(home, DIGEST)
    finally:
        os.umask(before)
    assert (mode(home.path), mode(tmp_path / "a/3f"), mode(home.record(DIGEST))) == (0o700, 0o700, 0o600)


def test_a_relative_path_is_of_where_it_was_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").mkdir()
    assert CacheDirectory.open("x/../results/.").path == os.path.realpath(tmp_path / "results")


def test_one_that_is_missing_is_not_made_for_reading(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match=r"there is no cache '.*a/b': name another directory"):
        CacheDirectory.open(tmp_path / "a/b", writable=False)
    assert not files(tmp_path)


@pytest.mark.parametrize("name", ["file", "file/cache"])
def test_a_file_is_no_cache(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CacheError, match="directory"):
        CacheDirectory.open(tmp_path / name)


def test_only_a_group_can_be_trusted(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="trust is None or \"group\", not 'all'"):
        CacheDirectory.open(tmp_path / "a", trust="all")


def test_it_goes_through_pickle(home: CacheDirectory) -> None:
    assert pickle.loads(pickle.dumps(home)) == home


# ------------------------------------------------------------------ safety of the directory


def test_the_directory_of_another_user(tmp_path: Path, give: Give) -> None:
    CacheDirectory.open(tmp_path / "a")
    give(tmp_path / "a", STRANGER)
    with pytest.raises(UnsafeCache, match=f"a belongs to the user number {STRANGER}, .*: choose another directory"):
        CacheDirectory.open(tmp_path / "a")


def test_who_this_user_is_is_asked_each_time(home: CacheDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    put(home, DIGEST)
    monkeypatch.setattr(os, "geteuid", lambda: STRANGER)
    with pytest.raises(UnsafeCache, match=f"belongs to the user {pwd.getpwuid(os.getuid()).pw_name}"):
        home.open_record(DIGEST)
    with pytest.raises(UnsafeCache):
        CacheDirectory.open(home.path)


@pytest.mark.parametrize(("bits", "who"), [(0o770, "the group"), (0o702, "everybody"), (0o777, "everybody")])
def test_a_directory_that_others_write(tmp_path: Path, bits: int, who: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a").chmod(bits)
    with pytest.raises(UnsafeCache, match=f"a can be written by {who}.*chmod"):
        CacheDirectory.open(tmp_path / "a")
    with pytest.raises(UnsafeCache):
        CacheDirectory.open(tmp_path / "a", writable=False)


def test_a_directory_that_others_read(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir(mode=0o755)
    put(CacheDirectory.open(tmp_path / "a"), DIGEST)


def test_the_link_of_another_user(tmp_path: Path, give: Give) -> None:
    """It leads to a directory of ours, but could lead elsewhere the next time."""
    (tmp_path / "mine").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("mine")
    assert CacheDirectory.open(tmp_path / "link").path == os.path.realpath(tmp_path / "mine")
    give(tmp_path / "link", STRANGER)
    for path in ("link", "link/inner", "link/../mine"):
        with pytest.raises(UnsafeCache, match=f"symbolic link .*link, which belongs to the user number {STRANGER}"):
            CacheDirectory.open(tmp_path / path)
    assert not files(tmp_path / "mine")


def test_a_link_found_behind_another(tmp_path: Path, give: Give) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "second").symlink_to(tmp_path / "real")
    (tmp_path / "first").symlink_to("second/inner/../deep")
    (tmp_path / "real/inner").mkdir()
    assert CacheDirectory.open(tmp_path / "first").path == os.path.realpath(tmp_path / "real/deep")
    give(tmp_path / "second", STRANGER)
    with pytest.raises(UnsafeCache, match="second, which belongs to"):
        CacheDirectory.open(tmp_path / "first")


def test_links_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(UnsafeCache, match="too many symbolic links"):
        CacheDirectory.open(tmp_path / "a")


@pytest.mark.parametrize("bits", [0o777, 0o702])
def test_a_directory_above_in_which_everybody_renames(tmp_path: Path, bits: int) -> None:
    CacheDirectory.open(tmp_path / "a/b/c")
    (tmp_path / "a").chmod(bits)
    with pytest.raises(UnsafeCache, match=r"everybody could put another cache into the place of .*directory .*a "):
        CacheDirectory.open(tmp_path / "a/b/c")
    with pytest.raises(UnsafeCache):
        CacheDirectory.open(tmp_path / "a/b/c", trust="group")


def test_a_directory_above_as_tmp_is(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a").chmod(0o1777)
    put(CacheDirectory.open(tmp_path / "a/b/c"), DIGEST)


def test_a_sticky_directory_of_another_user(tmp_path: Path, give: Give) -> None:
    """Its owner may rename what is in it, whatever belongs to whom."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a").chmod(0o1777)
    give(tmp_path / "a", STRANGER)
    with pytest.raises(UnsafeCache, match=f"the user number {STRANGER} could put another cache"):
        CacheDirectory.open(tmp_path / "a/b")
    assert not files(tmp_path / "a")


def test_a_directory_above_that_a_group_writes(tmp_path: Path, give: Give) -> None:
    (tmp_path / "a").mkdir()
    give(tmp_path / "a", -1, STRANGER)
    (tmp_path / "a").chmod(0o775)
    with pytest.raises(UnsafeCache, match=f"the group number {STRANGER} could put .*mode 0775.* or say trust="):
        CacheDirectory.open(tmp_path / "a/b")


def test_a_directory_above_on_the_way_of_a_link(tmp_path: Path) -> None:
    """Who can exchange the link needs not exchange where it leads to."""
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "mine").mkdir(mode=0o700)
    (tmp_path / "open/link").symlink_to(tmp_path / "mine")
    with pytest.raises(UnsafeCache, match="everybody could put another cache"):
        CacheDirectory.open(tmp_path / "open/link")


def test_the_group_of_a_user_alone_may_write_above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, give: Give) -> None:
    name = pwd.getpwuid(os.geteuid()).pw_name
    (tmp_path / "a").mkdir()
    give(tmp_path / "a", -1, STRANGER)
    (tmp_path / "a").chmod(0o775)
    group = grp.struct_group((name, "x", STRANGER, []))
    monkeypatch.setattr(grp, "getgrgid", lambda gid: group)
    CacheDirectory.open(tmp_path / "a/b")
    group = grp.struct_group((name, "x", STRANGER, ["another"]))
    with pytest.raises(UnsafeCache, match=f"the group {name} could put"):
        CacheDirectory.open(tmp_path / "a/b")
    group = grp.struct_group(("project", "x", STRANGER, []))
    with pytest.raises(UnsafeCache, match="the group project could put"):
        CacheDirectory.open(tmp_path / "a/b")


def test_in_a_container_the_host_belongs_to_nobody(tmp_path: Path, give: Give, monkeypatch: pytest.MonkeyPatch) -> None:
    CacheDirectory.open(tmp_path / "a/b")
    give(tmp_path / "a", 65534)
    with pytest.raises(UnsafeCache):
        CacheDirectory.open(tmp_path / "a/b")
    monkeypatch.setattr(permissions, "_is_outside", lambda uid: uid == 65534)
    CacheDirectory.open(tmp_path / "a/b")


# ------------------------------------------------------------------ trusting a group


def test_the_group_writes_too(tmp_path: Path) -> None:
    home = CacheDirectory.open(tmp_path / "a/b", trust="group")
    put(home, DIGEST)
    aside = home.set_aside(DIGEST, "why")
    put(home, "own.key")
    assert (home.trust, home.group) == ("group", os.stat(home.path).st_gid)
    assert {mode(path) & 0o777 for path in (home.path, tmp_path / "a", tmp_path / "a/b/3f")} == {0o770}
    assert mode(aside) == mode(home.record("own.key")) == 0o660
    with pytest.raises(UnsafeCache, match="can be written by the group"):
        CacheDirectory.open(tmp_path / "a/b")


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a directory to a group of which it is no member")
def test_everything_belongs_to_the_group_of_the_directory(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    os.chown(tmp_path / "a", -1, STRANGER)
    (tmp_path / "a").chmod(0o770)
    home = CacheDirectory.open(tmp_path / "a", trust="group")
    put(home, DIGEST)
    assert {os.stat(tmp_path / "a" / path).st_gid for path in files(home.path)} == {STRANGER}


def test_files_and_shards_of_other_members(tmp_path: Path, give: Give) -> None:
    home = CacheDirectory.open(tmp_path / "a", trust="group")
    put(home, DIGEST)
    give(home.record(DIGEST), STRANGER)
    give(tmp_path / "a/3f", STRANGER)
    assert get(home, DIGEST) == b"content"
    with pytest.raises(UnsafeCache):
        home.replace(trust=None, group=None).open_record(DIGEST)


def test_a_shard_of_another_group(tmp_path: Path, give: Give) -> None:
    home = CacheDirectory.open(tmp_path / "a", trust="group")
    put(home, DIGEST)
    give(tmp_path / "a/3f", -1, STRANGER)
    os.chmod(tmp_path / "a/3f", 0o770)
    with pytest.raises(UnsafeCache, match=f"the directory .*3f can be written by the group number {STRANGER}"):
        home.open_record(DIGEST)


def test_a_directory_of_a_member_of_the_group(tmp_path: Path, give: Give, monkeypatch: pytest.MonkeyPatch) -> None:
    CacheDirectory.open(tmp_path / "a", trust="group")
    give(tmp_path / "a", STRANGER)
    with pytest.raises(UnsafeCache, match="no member of the trusted group"):
        CacheDirectory.open(tmp_path / "a", trust="group")
    group = os.stat(tmp_path / "a").st_gid
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: pwd.struct_passwd(("ann", "x", uid, group, "", "/", "")))
    monkeypatch.setattr(os, "getgrouplist", lambda name, gid: [gid] if name == "ann" else [])
    CacheDirectory.open(tmp_path / "a", trust="group")


def test_a_group_of_which_this_user_is_no_member(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    CacheDirectory.open(tmp_path / "a", trust="group")
    monkeypatch.setattr(os, "geteuid", lambda: STRANGER)
    monkeypatch.setattr(os, "getegid", lambda: STRANGER)
    monkeypatch.setattr(os, "getgroups", lambda: [STRANGER])
    with pytest.raises(UnsafeCache, match="of which you are no member"):
        CacheDirectory.open(tmp_path / "a", trust="group")


def test_everybody_is_not_a_group(tmp_path: Path) -> None:
    home = CacheDirectory.open(tmp_path / "a", trust="group")
    put(home, DIGEST)
    os.chmod(home.record(DIGEST), 0o666)
    with pytest.raises(UnsafeCache, match="can be written by everybody"):
        home.open_record(DIGEST)
    os.chmod(home.path, 0o777)
    with pytest.raises(UnsafeCache, match="can be written by everybody"):
        CacheDirectory.open(tmp_path / "a", trust="group")


def test_another_group_is_not_the_trusted_one(tmp_path: Path, give: Give) -> None:
    home = CacheDirectory.open(tmp_path / "a", trust="group")
    put(home, DIGEST)
    give(home.record(DIGEST), -1, STRANGER)
    with pytest.raises(UnsafeCache, match=f"can be written by the group number {STRANGER}"):
        home.open_record(DIGEST)
    os.chmod(home.record(DIGEST), 0o640)
    assert get(home, DIGEST) == b"content"


# ------------------------------------------------------------------ keys and files


def test_where_records_lie(home: CacheDirectory) -> None:
    assert home.record(DIGEST) == f"{home.path}/3f/{DIGEST}.h5"
    assert home.record("relax-1.2_b") == f"{home.path}/own/relax-1.2_b.h5"
    assert home.record(DIGEST.upper()) == f"{home.path}/own/{DIGEST.upper()}.h5"


@pytest.mark.parametrize("key", ["", ".", "..", ".a", "a/b", "a" * 201, "a b", "a\n", "\u00e9", "a\0", "a+b", "a~"])
def test_what_cannot_be_a_key(home: CacheDirectory, key: str) -> None:
    with pytest.raises(CacheError, match="cannot be a key"):
        home.record(key)
    with pytest.raises(CacheError):
        put(home, key)
    assert not files(home.path)


@pytest.mark.parametrize("key", [DIGEST, "mine", "x" * 200])
def test_a_record_is_put_found_and_removed(home: CacheDirectory, key: str) -> None:
    assert not home.exists(key)
    with pytest.raises(FileNotFoundError):
        home.open_record(key)
    put(home, key)
    assert home.exists(key)
    assert get(home, key) == b"content"
    assert mode(home.record(key)) == 0o600
    put(home, key, b"newer")
    assert get(home, key) == b"newer"
    assert home.remove(key)
    assert not home.remove(key)
    assert not home.exists(key)


def test_what_is_open_stays_what_it_was(home: CacheDirectory) -> None:
    put(home, DIGEST)
    with open(home.open_record(DIGEST), "rb") as file:
        put(home, DIGEST, b"newer")
        assert file.read() == b"content"


def test_a_descriptor_is_for_reading_and_not_inherited(home: CacheDirectory) -> None:
    put(home, DIGEST)
    descriptor = home.open_record(DIGEST)
    with pytest.raises(OSError):
        os.write(descriptor, b"x")
    assert not os.get_inheritable(descriptor)
    os.close(descriptor)


def test_keys_are_those_of_records(home: CacheDirectory) -> None:
    other = "00" + "b" * 38
    for key in (DIGEST, other, "mine", DIGEST[:-1]):
        put(home, key)
    put(home, "damaged-one")
    home.set_aside("damaged-one", "why")
    for name in ("3f/.tmp-x.h5", "3f/notes", f"3f/{other}.h5", "3f/x.h5", f"own/{DIGEST}.h5", "README", "zz"):
        Path(home.path, name).touch()
    assert sorted(home.keys()) == sorted([DIGEST, other, "mine", DIGEST[:-1]])
    assert {key: entry.stat().st_size for key, entry in home.entries()}[DIGEST] == len(b"content")


def test_a_missing_cache_has_no_keys(home: CacheDirectory) -> None:
    os.rmdir(home.path)
    assert not list(home.keys())
    assert home.sweep() == 0


# ------------------------------------------------------------------ safety of files


@pytest.mark.parametrize("bits", [0o602, 0o620, 0o666])
def test_a_file_that_others_write(home: CacheDirectory, bits: int) -> None:
    put(home, DIGEST)
    os.chmod(home.record(DIGEST), bits)
    with pytest.raises(UnsafeCache, match=f"{DIGEST}.h5 can be written by"):
        home.open_record(DIGEST)


def test_the_file_of_another_user(home: CacheDirectory, give: Give) -> None:
    put(home, DIGEST)
    give(home.record(DIGEST), STRANGER)
    with pytest.raises(UnsafeCache, match=f"{DIGEST}.h5 belongs to the user number {STRANGER}"):
        home.open_record(DIGEST)


def test_a_file_that_may_not_be_read(home: CacheDirectory, give: Give, monkeypatch: pytest.MonkeyPatch) -> None:
    put(home, DIGEST)

    def refuse(*args: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        with pytest.raises(PermissionError):
            home.open_record(DIGEST)
        give(home.record(DIGEST), STRANGER)
        with pytest.raises(UnsafeCache, match="belongs to"):
            home.open_record(DIGEST)


def test_a_link_is_no_record(home: CacheDirectory) -> None:
    put(home, "target")
    os.symlink(home.record("target"), home.record("link"))
    with pytest.raises(UnsafeCache, match=r"link\.h5 is a symbolic link"):
        home.open_record("link")


def test_what_is_no_regular_file_is_no_record(home: CacheDirectory) -> None:
    """A pipe is opened without waiting for whoever would write into it."""
    put(home, "mine")
    os.mkfifo(home.record("pipe"))
    os.mkdir(home.record("directory"))
    for key in ("pipe", "directory"):
        with pytest.raises(UnsafeCache, match="not a regular file"):
            home.open_record(key)


def test_the_shard_of_another_user(home: CacheDirectory, give: Give) -> None:
    put(home, DIGEST)
    shard = os.path.dirname(home.record(DIGEST))
    give(shard, STRANGER)
    with pytest.raises(UnsafeCache, match="3f belongs to"):
        home.open_record(DIGEST)
    with pytest.raises(UnsafeCache, match="3f belongs to"):
        put(home, DIGEST)


def test_a_shard_that_others_write(home: CacheDirectory) -> None:
    put(home, DIGEST)
    os.chmod(os.path.dirname(home.record(DIGEST)), 0o777)
    with pytest.raises(UnsafeCache, match="3f can be written by everybody"):
        home.open_record(DIGEST)


def test_a_shard_that_is_a_link(home: CacheDirectory, tmp_path: Path, give: Give) -> None:
    (tmp_path / "disk").mkdir(mode=0o700)
    os.symlink(tmp_path / "disk", f"{home.path}/3f")
    put(home, DIGEST)
    assert get(home, DIGEST) == b"content"
    assert list(home.keys()) == [DIGEST]
    (tmp_path / "disk").chmod(0o770)
    with pytest.raises(UnsafeCache, match=r"3f can be written by the group"):
        home.open_record(DIGEST)
    (tmp_path / "disk").chmod(0o700)
    give(f"{home.path}/3f", STRANGER)
    with pytest.raises(UnsafeCache, match=r"symbolic link .*3f, which belongs to"):
        home.open_record(DIGEST)


# ------------------------------------------------------------------ publishing


class Mishap(Exception):
    pass


def test_a_failure_leaves_what_was_there(home: CacheDirectory) -> None:
    put(home, DIGEST)

    def fail(descriptor: int) -> None:
        os.write(descriptor, b"half of")
        raise Mishap

    with pytest.raises(Mishap):
        home.publish(DIGEST, fail)
    assert get(home, DIGEST) == b"content"
    assert files(home.path) == ["3f", f"3f/{DIGEST}.h5"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_is_told(home: CacheDirectory, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match="No space left"):
        home.publish(DIGEST, lambda descriptor: None, sync=True)
    assert files(home.path) == ["3f"]


def test_a_full_disk_that_is_known_only_at_the_end(home: CacheDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS keeps what is written until the file is closed."""
    close = os.close

    def full(descriptor: int) -> None:
        close(descriptor)
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(os, "close", full)
    with pytest.raises(OSError, match="Disk quota"):
        put(home, DIGEST)
    monkeypatch.undo()
    assert not home.exists(DIGEST)
    assert files(home.path) == ["3f"]


def test_nobody_sees_it_while_it_is_written(home: CacheDirectory) -> None:
    seen = []

    def write(descriptor: int) -> None:
        (name,) = os.listdir(f"{home.path}/3f")
        seen.append((name, mode(f"{home.path}/3f/{name}"), list(home.keys()), home.exists(DIGEST), home.sweep()))

    home.publish(DIGEST, write)
    home.publish(DIGEST[:-1], lambda descriptor: None)
    ((name, bits, *others),) = seen
    assert name.startswith(".tmp-" + this_process().label)
    assert bits == 0o600
    assert others == [[], False, 0]


def test_syncing_reaches_file_and_directory(home: CacheDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(stat.S_IFMT(os.fstat(descriptor).st_mode)))
    put(home, DIGEST)
    assert not synced
    home.publish(DIGEST, lambda descriptor: None, sync=True)
    assert synced == [stat.S_IFREG, stat.S_IFDIR, stat.S_IFDIR]


def test_a_cache_that_was_deleted_is_made_again(home: CacheDirectory) -> None:
    put(home, DIGEST)
    os.unlink(home.record(DIGEST))
    os.rmdir(os.path.dirname(home.record(DIGEST)))
    put(home, DIGEST)
    home.remove(DIGEST)
    os.rmdir(os.path.dirname(home.record(DIGEST)))
    os.rmdir(home.path)
    with pytest.raises(FileNotFoundError):
        home.open_record(DIGEST)
    put(home, DIGEST)
    assert mode(home.path) == mode(f"{home.path}/3f") == 0o700
    assert get(home, DIGEST) == b"content"


def test_it_is_not_made_again_in_what_another_user_put_there(home: CacheDirectory, give: Give) -> None:
    give(home.path, STRANGER)
    with pytest.raises(UnsafeCache):
        put(home, DIGEST)


def test_a_cache_that_is_deleted_just_now(home: CacheDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    subdirectory, deletions = CacheDirectory.subdirectory, iter(range(3))

    def vanishing(self: CacheDirectory, name: str) -> str:
        path = subdirectory(self, name)
        if next(deletions, None) is not None:
            os.rmdir(path)
            os.rmdir(self.path)
        return path

    monkeypatch.setattr(CacheDirectory, "subdirectory", vanishing)
    put(home, DIGEST)
    assert get(home, DIGEST) == b"content"
    deletions = itertools.count()
    os.unlink(home.record(DIGEST))
    with pytest.raises(FileNotFoundError):
        put(home, DIGEST)


def test_a_file_in_the_place_of_a_shard(home: CacheDirectory) -> None:
    Path(home.path, "3f").write_text("what is this")
    with pytest.raises(FileNotFoundError):
        home.open_record(DIGEST)
    assert not home.exists(DIGEST)
    assert not home.remove(DIGEST)
    assert not list(home.keys())
    put(home, DIGEST)
    assert get(home, DIGEST) == b"content"
    (moved,) = Path(home.path).glob("3f.*.damaged")
    assert moved.read_text() == "what is this"


PUBLISH_MANY = """
import sys
from callyard.cache.directory import CacheDirectory
path, trust, number = sys.argv[1], sys.argv[2] or None, int(sys.argv[3])
home = CacheDirectory.open(path, trust=trust)
print("ready", flush=True)
sys.stdin.read()
for shard in range(40):
    home.publish(f"{shard:02x}{number:038x}", lambda descriptor: None)
"""


@pytest.mark.parametrize("trust", ["", "group"])
def test_processes_make_the_same_shards(tmp_path: Path, trust: str) -> None:
    start, go = os.pipe()  # all of them start when its other end is closed
    command = [sys.executable, "-c", PUBLISH_MANY, str(tmp_path / "a"), trust]
    processes = [subprocess.Popen([*command, str(number)], stdin=start, stdout=-1) for number in range(3)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
    os.close(go)
    os.close(start)
    for process in processes:
        process.communicate()
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len(list(CacheDirectory.open(tmp_path / "a", trust=trust or None).keys())) == 120


def test_threads_make_the_same_shards_for_a_group(tmp_path: Path) -> None:
    home = CacheDirectory.open(tmp_path / "a", trust="group")
    barrier = threading.Barrier(4)

    def work(number: int) -> None:
        barrier.wait()
        for shard in range(40):
            put(home, f"{shard:02x}" + f"{number:038x}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(home.keys())) == 160
    assert not [name for name in os.listdir(home.path) if name.startswith(".")]


# ------------------------------------------------------------------ setting aside, sweeping


def test_what_is_set_aside_is_kept_with_the_reason(home: CacheDirectory) -> None:
    paths = []
    for content in (b"first", b"second"):
        put(home, DIGEST, content)
        paths.append(home.set_aside(DIGEST, "the checksum is wrong"))
    assert not home.exists(DIGEST)
    assert [Path(path).read_bytes() for path in paths] == [b"first", b"second"]
    assert {os.path.dirname(path) for path in paths} == {f"{home.path}/damaged"}
    assert Path(paths[0].removesuffix(".h5") + ".txt").read_text() == "the checksum is wrong\n"


def test_what_is_gone_need_not_be_set_aside(home: CacheDirectory) -> None:
    assert not os.path.exists(home.set_aside(DIGEST, "why"))
    Path(home.path, "3f").touch()
    assert not os.path.exists(home.set_aside(DIGEST, "why"))
    assert not os.listdir(f"{home.path}/damaged")


def killed_writer(path: str) -> None:
    """Start a process that dies while it writes."""
    code = (
        "import os, signal, sys; from callyard.cache.directory import CacheDirectory;"
        "home = CacheDirectory.open(sys.argv[1]);"
        "home.publish('mine', lambda descriptor: os.kill(os.getpid(), signal.SIGKILL))"
    )
    assert subprocess.run([sys.executable, "-c", code, path], check=False).returncode == -9


def test_sweeping_removes_what_the_dead_left(home: CacheDirectory) -> None:
    killed_writer(home.path)
    (left,) = os.listdir(f"{home.path}/own")
    stranger = this_process().replace(host="elsewhere", machine="e").label
    others = [f".tmp-{stranger}~abc", f".tmp-{this_process().label}~abc", ".tmp-what", ".tmp-"]
    for name in others:
        Path(home.path, "own", name).touch()
    put(home, "kept")
    assert home.sweep() == 1
    assert sorted(os.listdir(f"{home.path}/own")) == sorted([*others, "kept.h5"])
    assert left.startswith(".tmp-")
    assert home.sweep() == 0


# ------------------------------------------------------------------ reading only


@pytest.fixture
def read_only(home: CacheDirectory) -> Iterator[CacheDirectory]:
    put(home, DIGEST)
    for place in (home.path, f"{home.path}/3f"):
        os.chmod(place, 0o500)
    yield CacheDirectory.open(home.path, writable=False)
    for place in (home.path, f"{home.path}/3f"):
        os.chmod(place, 0o700)


def test_a_cache_that_is_only_read_is_never_changed(read_only: CacheDirectory) -> None:
    before = files(read_only.path)
    assert get(read_only, DIGEST) == b"content"
    assert list(read_only.keys()) == [DIGEST]
    assert not read_only.exists("mine")
    with pytest.raises(FileNotFoundError):
        read_only.open_record("mine")
    assert read_only.set_aside(DIGEST, "why") == read_only.record(DIGEST)
    for change in (lambda: put(read_only, "mine"), lambda: read_only.remove(DIGEST), read_only.sweep):
        with pytest.raises(CacheError, match="is only read here"):
            change()
    assert files(read_only.path) == before


def test_the_module_is_cheap() -> None:
    code = "import sys, callyard.cache.claims; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"numpy", "h5py", "json", "secrets", "hashlib"} & set(loaded)
    assert home_module.__name__ == "callyard.cache.directory"
