"""Keep fetched weights on the blade, for all pods there, within a number of bytes.

    <cache>/<key>/            an entry: the files, whole
    <cache>/.<key>.part/      an entry that is being fetched: `files/` and `journal`
    <cache>/.<key>.lock       who uses the entry; its time is that of the last use
    <cache>/.<key>.listing    what the store listed when the entry was fetched
    <cache>/.<key>.gone-*/    an entry that is being removed
    <cache>/.evict.lock       one pod at a time makes room

A pod that fetches holds the entry's lock alone, so that one pod of a blade fetches and the others
wait for it. A pod that uses an entry shares the lock: the init container while it verifies, then
the agent in the engine's container for as long as it lives (`hold`). The kernel lets go of a lock
when its process ends, however it ends, so nothing is left behind that says "in use" for ever. In
between nobody has the lock: the agent finds by the entry's manifest whether it is still the same.

An entry is removed, least recently used first, only when

| the entry | is removed |
|---|---|
| is locked by anybody | never |
| was used in the last hour | never: its engine may still be about to start, and to take its lock |
| neither | when the cache would exceed its bytes, or the disk be full |

Its bytes are those that it is told, else 80 % of the file system's size; 15 % stay free besides,
where that is possible: with less, the kubelet removes images, and then pods. A cache may exceed its
bytes while all of it is in use. An entry is renamed before it is removed,
so that nobody finds a part of one. What lies there under another key, such as that of a first load
without a digest, is linked, not fetched again (`adopt`).

Standard library only, Python 3.8 or later.
"""
# ruff: noqa: PTH100, PTH103, PTH104, PTH105, PTH108, PTH112, PTH118, PTH123, PTH204, PTH208
# as in weightfiles.py

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING or __package__:
    from tramontane.controllers.inferencedeployment.podfiles.weightfiles import (
        FetchFailed,
        Mismatch,
        digest_of,
        gib,
        saved,
        say,
        unique,
    )
else:
    from weightfiles import FetchFailed, Mismatch, digest_of, gib, saved, say, unique

RECENT_S = 3600.0
# Of the file system: what a cache may have that is not told, and what is left to others.
SHARE = 0.8
RESERVED = 0.15
WAIT_S = 0.2
# Others take the lock for a moment, to see whether they need it.
HOLD_S = 5.0
# In the folder of the pod's state: the locks that the agent is to share.
HOLDS = "holds.json"


class Entry:
    """Hold one entry and its lock."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.root, self.key = os.path.split(os.path.abspath(path))
        if not self.key or self.key.startswith("."):
            raise FetchFailed(f"{path}: must have a plain name")
        self.lock_path = self._beside("lock")
        self.listing_path = self._beside("listing")
        self.part = self._beside("part")
        self._file: int | None = None

    def _beside(self, what: str) -> str:
        return os.path.join(self.root, f".{self.key}.{what}")

    def unused(self) -> str:
        """Return a path beside the entry where nothing lies; later runs clear it if we crash."""
        return self._beside(f"gone-{unique()}")

    @property
    def is_there(self) -> bool:
        """Return whether the entry is whole."""
        return os.path.isdir(self.path)

    def try_to_share(self) -> bool:
        """Return whether the lock could be shared at once; the entry then counts as used now.

        Changing a lock is not one step, and may lose it: look again whether the entry is there.
        """
        if not self._try(fcntl.LOCK_SH):
            return False
        os.utime(self.lock_path)
        return True

    def try_to_take(self, patience_s: float = 0.0) -> bool:
        """Return whether the lock could be had alone; if not, it is not even shared any more."""
        end = time.monotonic() + patience_s
        while not self._try(fcntl.LOCK_EX):
            self.release()
            if time.monotonic() >= end:
                return False
            time.sleep(WAIT_S)
        return True

    def _try(self, kind: int) -> bool:
        if self._file is None:
            os.makedirs(self.root, exist_ok=True)
            self._file = os.open(self.lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(self._file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def release(self) -> None:
        """Let go of the lock."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def finish(self, listing: str) -> None:
        """Make what was fetched the entry, all at once and safe from a power cut."""
        files = os.path.join(self.part, "files")
        for folder, _, _ in os.walk(files, topdown=False):
            _sync(folder)
        write_whole(self.listing_path, listing)
        os.rename(files, self.path)
        _sync(self.root)
        shutil.rmtree(self.part, ignore_errors=True)

    def drop(self) -> None:
        """Remove the entry; the lock must be held alone."""
        with suppress(FileNotFoundError):
            os.unlink(self.listing_path)
        for path in (self.path, self.part):
            gone = self.unused()
            with suppress(FileNotFoundError):
                os.rename(path, gone)
                shutil.rmtree(gone, ignore_errors=True)

    def listed(self) -> str:
        """Return the listing that the entry was fetched by; empty where it is unknown."""
        try:
            with open(self.listing_path, encoding="utf-8") as file:
                return file.read()
        except OSError:
            return ""


def adopt(entry: Entry, digest: str) -> bool:
    """Return whether an entry, whose lock is held alone, could be made of one that lies there.

    By hard links, from an entry whose saved manifest has this digest; whether its files have it too
    is found out as always. The links are made in a folder of their own: into an entry's `part`
    another pod may fetch, and must not write into the files of two.
    """
    for key in sorted(_keys(entry.root) - {entry.key}):
        other = Entry(os.path.join(entry.root, key))
        try:
            text = saved(other.path)
            if text is None or digest_of(text) != digest:
                continue
            if not (other.try_to_share() and other.is_there):
                continue
            fresh = entry.unused()
            shutil.copytree(other.path, fresh, copy_function=os.link)
            os.rename(fresh, entry.path)
        except (OSError, Mismatch) as error:
            say("unlinked", entry=key, why=json.dumps(str(error)))
            continue
        finally:
            other.release()
        say("linked", entry=entry.key, to=key)
        return True
    return False


def _sync(folder: str) -> None:
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def write_whole(path: str, text: str) -> None:
    """Write a file so that nobody sees a part of it."""
    fresh = f"{path}.{unique()}"
    with open(fresh, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)


def make_room(entry: Entry, needed_b: int, limit_b: int, now: float) -> None:
    """Remove what is least recently used until `entry`, whose lock is held, has room.

    Args:
        entry: what is to be fetched.
        needed_b: bytes of it; what lies there of it already counts.
        limit_b: bytes that the cache may have; 0: SHARE of the file system's.
        now: Unix time.

    Raises:
        FetchFailed: the disk is too small for it.
    """
    guard = os.open(os.path.join(entry.root, ".evict.lock"), os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(guard, fcntl.LOCK_EX)
        _clear(entry.root)
        sizes = _sizes(entry.root)
        size_b, _ = _disk(entry.root)
        most_b, reserve_b = limit_b or int(SHARE * size_b), int(RESERVED * size_b)
        missing_b = max(0, needed_b - sizes.pop(entry.key, 0))
        for key in sorted(sizes, key=lambda key: _used_at(entry.root, key)):
            is_over = sum(sizes.values()) + needed_b > most_b
            if not is_over and _disk(entry.root)[1] >= missing_b + reserve_b:
                break
            if _evict(os.path.join(entry.root, key), now):
                say("evicted", entry=key, bytes=sizes[key])
                sizes = _sizes(entry.root)
                sizes.pop(entry.key, None)
        _, free = _disk(entry.root)
        if free < missing_b:
            raise FetchFailed(
                f"{entry.root}: must have {gib(missing_b)} free (got {gib(free)}, and "
                f"{gib(sum(sizes.values()))} of weights in use or used in the last hour)"
            )
    finally:
        os.close(guard)


def _evict(path: str, now: float) -> bool:
    """Return whether an entry could be removed."""
    other = Entry(path)
    if now - _used_at(other.root, other.key) < RECENT_S:
        return False
    try:
        if not other.try_to_take():
            return False
        # Somebody may have come and gone while we looked.
        if now - _used_at(other.root, other.key) < RECENT_S:
            return False
        other.drop()
    except OSError as error:
        say("kept", entry=other.key, why=json.dumps(str(error)))
        return False
    finally:
        other.release()
    return True


def _clear(root: str) -> None:
    """Remove what a crash left of a removal."""
    for name in os.listdir(root):
        if name.startswith(".") and ".gone-" in name:
            shutil.rmtree(os.path.join(root, name), ignore_errors=True)


def _keys(root: str) -> set[str]:
    found = set()
    for name in os.listdir(root):
        if name.startswith("."):
            if name.endswith(".part"):
                found.add(name[1 : -len(".part")])
        elif os.path.isdir(os.path.join(root, name)):
            found.add(name)
    return found


def _sizes(root: str) -> dict[str, int]:
    return {key: _size(root, key) for key in _keys(root)}


def _size(root: str, key: str) -> int:
    """Return the bytes on the disk of an entry, whole or in part; its part of what is linked."""
    total = 0
    for top in (key, f".{key}.part"):
        for folder, _, names in os.walk(os.path.join(root, top)):
            for name in names:
                with suppress(OSError):
                    found = os.lstat(os.path.join(folder, name))
                    total += found.st_blocks * 512 // found.st_nlink
    return total


def _used_at(root: str, key: str) -> float:
    try:
        return os.path.getmtime(os.path.join(root, f".{key}.lock"))
    except OSError:
        return 0.0


def _disk(root: str) -> tuple[int, int]:
    """Return the bytes of the file system, and those of it that are free."""
    found = os.statvfs(root)
    return found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize


def note_holds(state: str, entries: list[Entry]) -> None:
    """Tell the agent of this pod which locks to share; they must be shared now."""
    holds = [[entry.lock_path, entry.path, _mark(entry.path)] for entry in entries]
    write_whole(os.path.join(state, HOLDS), json.dumps(holds))


def hold(state: str) -> list[int]:
    """Share the locks of the entries that this pod uses, until this process ends.

    For the agent, before it starts the engine. Returns the open files; they must stay open.

    Raises:
        FetchFailed: what was verified was replaced, or is being replaced, since.
    """
    try:
        with open(os.path.join(state, HOLDS), encoding="utf-8") as file:
            holds = [tuple(one) for one in json.load(file)]
    except (OSError, ValueError, TypeError):
        return []
    held: list[int] = []
    try:
        for lock_path, path, mark in holds:
            # Reading is enough, as the cache is mounted read-only.
            held.append(os.open(lock_path, os.O_RDONLY | os.O_CLOEXEC))
            _share(held[-1], path, mark)
    except BaseException as error:
        for one in held:
            os.close(one)
        if isinstance(error, OSError):
            raise FetchFailed(f"{path}: must be usable (got {error})") from error
        raise
    return held


def _share(file: int, path: str, mark: str) -> None:
    """Share a lock, and find the entry as it was verified."""
    end = time.monotonic() + HOLD_S
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                raise FetchFailed(f"{path}: must not be fetched again by another pod") from None
            time.sleep(WAIT_S)
        else:
            break
    if not os.path.isdir(path) or _mark(path) != mark:
        raise FetchFailed(f"{path}: must not be replaced once it is verified (got another)")


def _mark(path: str) -> str:
    """Return what tells an entry from another one in its place: its saved manifest, in short."""
    try:
        text = saved(path) or ""
    except Mismatch:
        text = ""
    return hashlib.sha256(text.encode()).hexdigest()
