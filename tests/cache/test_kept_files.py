"""Files in results: their contents are kept beside the entries, once, and count only if they are whole."""

from __future__ import annotations

import errno
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from callyard import Cache, Executor, File, Local
from callyard.cache import incoming_content, kept_files
from callyard.cache.directory import CacheDirectory
from callyard.cache.kept_files import KeptFiles
from callyard.errors import CacheError, UnsafeCache
from callyard.hashing.files import _Seen, content_name, usable_name


@dataclass
class Relaxed:
    structure: File
    energy: float


def relax(text: str, path: str) -> list[Any]:
    with open(path, "w") as file:
        file.write(text)
    return [Relaxed(File(path), -3.1), {"again": File(path)}]


def length(file: File) -> int:
    with open(file) as opened:
        return len(opened.read())


@pytest.fixture
def kept(tmp_path: Path) -> KeptFiles:
    return KeptFiles(CacheDirectory.open(tmp_path / "results"))


def written(path: Path, text: str = "some text") -> File:
    path.write_text(text)
    return File(path)


def contents_of(cache: Cache) -> list[Path]:
    return sorted(Path(cache.path, "files").glob("*/*"))


@pytest.mark.parametrize(
    ("content", "own"), [("5-" + "0" * 64, "../out"), ("5-" + "0" * 64, ".."), ("../../files", "out"), ("", "out")]
)
def test_names_from_another_computer_lead_nowhere_else(kept: KeptFiles, content: str, own: str) -> None:
    for step in (kept.place, kept.find):
        with pytest.raises(CacheError, match="not the name of a"):
            step(content, own)


def test_a_content_is_kept_under_no_name_that_leads_elsewhere(kept: KeptFiles, tmp_path: Path) -> None:
    name = content_name(written(tmp_path / "a"))
    with kept.incoming(name) as incoming, pytest.raises(CacheError, match="not the name of a file"):
        incoming.write(b"some text")
        kept.accept(incoming, "../../out")
    with pytest.raises(CacheError, match="not the name of a content"):
        kept.resumed("../out", 0)


# ------------------------------------------------------------------ calls


def submitted(tmp_path: Path, text: str = "abc", path: Path | None = None, backend: Any = None) -> Any:
    """Return the future of a call, at its end."""
    chosen = backend or Local(cores=1)
    with Executor(backend=chosen, cache=tmp_path / "results") as executor:
        future = executor.submit(relax, text, str(path or tmp_path / "out.xyz"))
        future.result(60)
        return future


def test_a_result_names_the_kept_file_whatever_becomes_of_the_original(tmp_path: Path) -> None:
    first = submitted(tmp_path).result()
    (tmp_path / "out.xyz").write_text("something else")
    (tmp_path / "out.xyz").unlink()
    again = submitted(tmp_path)
    assert again.cached
    relaxed, rest = again.result()
    assert relaxed.energy == -3.1
    assert os.fspath(relaxed.structure) == os.fspath(rest["again"]) == os.fspath(first[0].structure)
    path = Path(relaxed.structure)
    assert path.read_text() == "abc"
    assert path.name == "out.xyz"
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o400, 0o700)
    assert contents_of(Cache(tmp_path / "results")) == [path]


def test_an_executor_of_another_library_does_the_same(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as threads:
        future = submitted(tmp_path, backend=threads)
        assert os.fspath(future.result()[0].structure).startswith(f"{tmp_path}/results/files/")


def test_a_file_of_a_result_is_an_argument_by_its_content(tmp_path: Path) -> None:
    with Executor(backend=Local(cores=1), cache=tmp_path / "results") as executor:
        file = submitted(tmp_path).result()[0].structure
        assert executor.submit(length, file).result(60) == 3
        assert executor.submit(length, written(tmp_path / "same.dat", "abc")).cached


def test_without_a_cache_a_result_names_the_original(tmp_path: Path) -> None:
    with Executor(backend=Local(cores=1)) as executor:
        result = executor.submit(relax, "abc", str(tmp_path / "out.xyz")).result(60)
    assert os.fspath(result[0].structure) == str(tmp_path / "out.xyz")


@pytest.mark.parametrize("harm", ["remove", "shorten", "change"])
def test_a_lost_or_damaged_content_is_a_miss(tmp_path: Path, harm: str) -> None:
    submitted(tmp_path)
    (path,) = contents_of(Cache(tmp_path / "results"))
    kept_files._whole.clear()
    if harm == "remove":
        path.unlink()
    else:
        path.chmod(0o600)
        path.write_text("ab" if harm == "shorten" else "abd")
    with pytest.warns(UserWarning, match="names a file of which the content .* and the call runs again"):
        again = submitted(tmp_path)
    assert not again.cached
    assert Path(again.result()[0].structure).read_text() == "abc"
    assert submitted(tmp_path).cached


def test_a_file_that_is_not_there_at_the_end_is_not_stored(tmp_path: Path) -> None:
    (tmp_path / "gone").touch()
    with Executor(backend=Local(cores=1), cache=tmp_path / "results") as executor:
        with pytest.warns(UserWarning, match="was not stored .* No such file"):
            executor.submit(without_the_file, str(tmp_path / "gone")).result(60)


def without_the_file(path: str) -> File:
    file = File(path)
    os.unlink(path)
    return file


# ------------------------------------------------------------------ contents


def test_equal_contents_are_kept_once_under_all_their_names(kept: KeptFiles, tmp_path: Path) -> None:
    one, own = kept.keep(written(tmp_path / "a.dat"))
    other, _ = kept.keep(written(tmp_path / "b.dat"))
    assert (one, own) == (other, "a.dat")
    assert kept.find(one, "a.dat") != kept.find(one, "b.dat")
    assert os.path.samefile(kept.find(one, "a.dat"), kept.find(one, "c.dat"))
    with pytest.raises(CacheError, match="run the call again"):
        kept.find(one.replace(one[-4:], "0000"), "a.dat")


def test_where_there_are_no_links_the_first_name_serves(
    kept: KeptFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, _ = kept.keep(written(tmp_path / "a.dat"))

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    assert kept.find(content, "b.dat") == kept.find(content, "a.dat")


def test_a_file_that_changes_while_it_is_kept_is_refused(kept: KeptFiles, tmp_path: Path) -> None:
    file = written(tmp_path / "a.dat")
    seen = content_name(file)
    assert file._seen is not None
    (tmp_path / "a.dat").write_text("other text")
    status = os.stat(file)
    state = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    file._seen = _Seen(state, seen, 0.0, settled=True)
    with pytest.raises(CacheError, match="was changed while"):
        kept.keep(file)
    assert os.listdir(kept.path) == []


def test_a_full_disk_leaves_nothing_behind(kept: KeptFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(incoming_content, "write_all", refuse)
    with pytest.raises(OSError, match="No space left"):
        kept.keep(written(tmp_path / "a.dat"))
    assert os.listdir(kept.path) == []


def test_what_others_could_have_written_is_refused(kept: KeptFiles, tmp_path: Path) -> None:
    content, own = kept.keep(written(tmp_path / "a.dat"))
    os.chmod(kept.find(content, own), 0o666)
    with pytest.raises(UnsafeCache):
        kept.damage(content)


@pytest.mark.parametrize(
    ("name", "usable"),
    [("a.dat", "a.dat"), ("../x", "x"), ("..", "file"), ("", "file"), ("a\0b", "ab"), ("a/", "file")],
)
def test_names_lead_nowhere_else(name: str, usable: str) -> None:
    assert usable_name(name) == usable


# ------------------------------------------------------------------ prune and check


def test_prune_removes_the_contents_of_removed_entries_only(tmp_path: Path) -> None:
    submitted(tmp_path, "abc", tmp_path / "one")
    submitted(tmp_path, "abc", tmp_path / "two")
    submitted(tmp_path, "defg", tmp_path / "three")
    cache = Cache(tmp_path / "results")
    assert [path.name for path in contents_of(cache)] == ["one", "two", "three"]
    keys = cache.keys()
    cache.prune(keys=[keys[0], keys[2]])
    assert [path.name for path in contents_of(cache)] == ["one", "two"]  # the other entry has this content, too
    assert submitted(tmp_path, "abc", tmp_path / "two").cached
    cache.prune(max_size=0)
    assert contents_of(cache) == []


def test_the_size_of_an_entry_includes_its_files(tmp_path: Path) -> None:
    submitted(tmp_path, "x" * 1_000_000)
    (entry,) = cache = Cache(tmp_path / "results")
    assert 2_000_000 < entry.size < 2_020_000  # the text is an argument, too
    assert cache.prune(larger_than="1MB", dry_run=True) == [entry]


def test_a_content_that_no_entry_names_goes_after_a_while(kept: KeptFiles, tmp_path: Path) -> None:
    content, _ = kept.keep(written(tmp_path / "a.dat"))
    cache = Cache(tmp_path / "results")
    assert cache.check().ok  # its entry may be on its way
    os.utime(f"{kept.path}/{content}", (0, 0))
    (problem,) = cache.check().problems
    assert problem.kind == "left"
    assert cache.check(repair=True).problems[0].done == "removed"
    assert list(kept.contents()) == []


def test_check_finds_and_repairs_an_entry_without_its_content(tmp_path: Path) -> None:
    submitted(tmp_path)
    cache = Cache(tmp_path / "results")
    assert cache.check().ok
    contents_of(cache)[0].unlink()
    (problem,) = cache.check().problems
    assert problem.kind == "damaged"
    assert "is missing" in problem.text
    cache.check(repair=True)
    assert len(cache) == 0


def test_nothing_is_removed_while_an_entry_cannot_be_read(tmp_path: Path) -> None:
    submitted(tmp_path, "abc", tmp_path / "one")
    submitted(tmp_path, "defg", tmp_path / "two")
    cache = Cache(tmp_path / "results")
    first, second = cache
    first.path.chmod(0o666)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cache.prune(keys=second.key)
    assert len(contents_of(cache)) == 2
