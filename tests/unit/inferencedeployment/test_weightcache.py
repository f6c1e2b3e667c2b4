"""The cache of a blade: shared by its pods, within its bytes, and nothing in use ever goes."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tramontane.controllers.inferencedeployment.podfiles import weightcache
from tramontane.controllers.inferencedeployment.podfiles.weightcache import Entry, make_room
from tramontane.controllers.inferencedeployment.podfiles.weightfiles import (
    FetchFailed,
    write_manifest,
)

NOW = 1_800_000_000.0
BLOCK = 4096
HOLDER = """
import sys
sys.path.insert(0, sys.argv[1])
import weightcache
held = weightcache.hold(sys.argv[2])
print(len(held), flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def empty_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weightcache, "_disk", lambda _root: (1 << 44, 1 << 44))


def entry(root: Path, key: str, blocks: int = 1, used_before_s: float = 7200.0) -> Entry:
    """Return an entry of that many blocks, last used so long ago."""
    folder = root / key
    folder.mkdir(parents=True)
    (folder / "x").write_bytes(os.urandom(blocks * BLOCK))
    found = Entry(str(folder))
    Path(found.lock_path).touch()
    os.utime(found.lock_path, (NOW - used_before_s,) * 2)
    return found


def keys(root: Path) -> set[str]:
    return {path.name for path in root.iterdir() if not path.name.startswith(".")}


def room(root: Path, blocks: int, limit: int) -> None:
    new = Entry(str(root / "new"))
    assert new.try_to_take()
    try:
        make_room(new, blocks * BLOCK, limit * BLOCK, NOW)
    finally:
        new.release()


@contextmanager
def agent(state: Path, *entries: Entry) -> Iterator[subprocess.Popen[str]]:
    """Hold entries as the agent of a running pod does: in another process."""
    state.mkdir(exist_ok=True)
    weightcache.note_holds(str(state), list(entries))
    folder = str(Path(weightcache.__file__).parent)
    command = [sys.executable, "-c", HOLDER, folder, str(state)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"{len(entries)}\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("blocks", "limit", "left"),
    [
        (1, 0, {"a", "b", "c"}),
        (1, 7, {"a", "b", "c"}),
        (2, 7, {"b", "c"}),
        (3, 7, {"b", "c"}),
        (4, 7, {"c"}),
        (7, 7, set()),
        (99, 7, set()),
    ],
    ids=["no limit", "fits", "one over", "just enough", "two go", "all go", "too large"],
)
def test_the_least_recently_used_go_first(
    tmp_path: Path, blocks: int, limit: int, left: set[str]
) -> None:
    entry(tmp_path, "b", 2, 8000)
    entry(tmp_path, "a", 2, 9000)
    entry(tmp_path, "c", 2, 7000)
    room(tmp_path, blocks, limit)
    assert keys(tmp_path) == left
    assert not [path for path in tmp_path.iterdir() if ".gone-" in path.name]


def test_what_was_used_lately_stays(tmp_path: Path) -> None:
    entry(tmp_path, "old", used_before_s=3601)
    entry(tmp_path, "young", used_before_s=3599)
    entry(tmp_path, "of a clock that ran ahead", used_before_s=-500)
    room(tmp_path, 9, 1)
    assert keys(tmp_path) == {"young", "of a clock that ran ahead"}


def test_what_a_running_pod_uses_stays_until_it_ends(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    held = entry(root, "held", used_before_s=99_999)
    entry(root, "free", used_before_s=7200)
    with agent(tmp_path / "state", held):
        room(root, 9, 1)
        assert keys(root) == {"held"}
    room(root, 9, 1)
    assert keys(root) == set()


def test_two_pods_may_use_one_entry(tmp_path: Path) -> None:
    held = entry(tmp_path / "cache", "held")
    with agent(tmp_path / "one", held), agent(tmp_path / "two", held):
        assert held.try_to_share()
        assert not held.try_to_take()
    assert held.try_to_take(5.0)
    held.release()


def test_an_agent_without_holds_holds_nothing(tmp_path: Path) -> None:
    assert weightcache.hold(str(tmp_path)) == []
    (tmp_path / weightcache.HOLDS).write_text("oops")
    assert weightcache.hold(str(tmp_path)) == []


def test_what_was_replaced_since_it_was_verified_is_not_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weightcache, "HOLD_S", 0.0)
    one = entry(tmp_path / "cache", "one")
    weightcache.note_holds(str(tmp_path), [one])
    assert one.try_to_take()
    with pytest.raises(FetchFailed, match="must not be fetched again by another pod"):
        weightcache.hold(str(tmp_path))
    one.release()
    [file] = weightcache.hold(str(tmp_path))
    os.close(file)
    write_manifest(one.path, "another\n")
    with pytest.raises(FetchFailed, match="must not be replaced once it is verified"):
        weightcache.hold(str(tmp_path))
    assert one.try_to_take(), "nothing of it is held"
    one.drop()
    Path(one.lock_path).unlink()
    with pytest.raises(FetchFailed, match="must be usable"):
        weightcache.hold(str(tmp_path))


def test_the_remains_of_a_crash_are_removed(tmp_path: Path) -> None:
    for name in (".a.gone-12ab/x", ".b.part/files/x"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(bytes(BLOCK))
    room(tmp_path, 1, 1)
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == set()


def test_what_is_being_fetched_counts_once(tmp_path: Path) -> None:
    """A fetch that goes on needs no more room for what it has."""
    entry(tmp_path, "other", 2)
    part = tmp_path / ".new.part" / "files"
    part.mkdir(parents=True)
    (part / "x").write_bytes(os.urandom(3 * BLOCK))
    room(tmp_path, 4, 6)
    assert keys(tmp_path) == {"other"}
    assert (part / "x").exists()


def test_linked_files_count_once_and_either_may_go(tmp_path: Path) -> None:
    for key, used in (("a", 9000), ("b", 8000)):
        entry(tmp_path, key, 2, used)
    (tmp_path / "b" / "x").unlink()
    (tmp_path / "b" / "x").hardlink_to(tmp_path / "a" / "x")
    room(tmp_path, 4, 6)
    assert keys(tmp_path) == {"a", "b"}
    room(tmp_path, 5, 6)
    assert keys(tmp_path) == set()


def test_a_full_disk_makes_room_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("a", "b", "c"):
        entry(tmp_path, key, used_before_s=9000 - ord(key))
    # 15 of 100 blocks are for others; of the rest, one is free, and what goes becomes so.
    monkeypatch.setattr(
        weightcache, "_disk", lambda root: (100 * BLOCK, (19 - len(keys(Path(root)))) * BLOCK)
    )
    room(tmp_path, 3, 0)
    assert len(keys(tmp_path)) == 1


@pytest.mark.parametrize(("blocks", "left"), [(2, 6), (3, 5), (8, 0)], ids=["fits", "over", "all"])
def test_a_cache_that_is_not_told_its_bytes_has_its_share_of_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blocks: int, left: int
) -> None:
    for key in "abcdef":
        entry(tmp_path, key)
    monkeypatch.setattr(weightcache, "_disk", lambda _root: (10 * BLOCK, 10 * BLOCK))
    room(tmp_path, blocks, 0)
    assert len(keys(tmp_path)) == left


def test_a_disk_that_is_too_small_is_said(tmp_path: Path) -> None:
    entry(tmp_path, "young", used_before_s=1)
    with pytest.raises(FetchFailed, match=r"must have .*GiB free \(got .*in use or used in the la"):
        room(tmp_path, 1 << 50, 0)
    assert keys(tmp_path) == {"young"}


def test_an_entry_appears_whole(tmp_path: Path) -> None:
    new = Entry(str(tmp_path / "new"))
    assert new.try_to_take()
    (Path(new.part) / "files" / "sub").mkdir(parents=True)
    (Path(new.part) / "files" / "sub" / "x").write_bytes(b"1")
    assert not new.is_there
    new.finish("listing")
    assert new.is_there
    assert new.listed() == "listing"
    assert not Path(new.part).exists()
    new.drop()
    assert not new.is_there
    assert new.listed() == ""
    new.release()


def test_sharing_counts_as_use(tmp_path: Path) -> None:
    old = entry(tmp_path, "old")
    assert old.try_to_share()
    assert abs(Path(old.lock_path).stat().st_mtime - time.time()) < 60
    old.release()


@pytest.mark.parametrize("path", ["/cache/.hidden", "/"], ids=str)
def test_a_key_that_is_none(path: str) -> None:
    with pytest.raises(FetchFailed, match="must have a plain name"):
        Entry(path)
