"""Fetch weights from an object store into a folder, so that a later run can go on with it.

1. Parts of 64 MiB are fetched by ranges, several at once, each held to the object's ETag, so that
   an object that is replaced meanwhile is noticed.
2. Each part is written in its place, synced, and then noted in a journal: who comes after a crash
   fetches only what is not noted. The journal holds for one listing: once any object is another,
   all is fetched anew.

Whether these are the right bytes says the manifest's digest, afterwards.

Standard library only, Python 3.8 or later.
"""
# ruff: noqa: PTH103, PTH107, PTH118, PTH120, PTH123 - as in weightfiles.py

from __future__ import annotations

import hashlib
import http.client
import json
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING or __package__:
    from tramontane.controllers.inferencedeployment.podfiles.weightfiles import (
        FetchFailed,
        Mismatch,
        Progress,
        say,
    )
    from tramontane.controllers.inferencedeployment.podfiles.weightstore import (
        PARTIAL,
        Again,
        Item,
        Patience,
        Store,
    )
else:
    from weightfiles import FetchFailed, Mismatch, Progress, say
    from weightstore import PARTIAL, Again, Item, Patience, Store

PART_B = 64 << 20
READ_B = 1 << 20
THREADS = 16


def fingerprint(items: Sequence[Item]) -> str:
    """Return one word for a listing: another one if any object is another."""
    text = json.dumps([PART_B, *sorted(items)])
    return hashlib.sha256(text.encode()).hexdigest()


class Journal:
    """Remember over crashes which parts lie on the disk."""

    def __init__(self, path: str, listing: str) -> None:
        self._lock = threading.Lock()
        try:
            with open(path, encoding="utf-8") as old:
                lines = old.read().split("\n")
        except FileNotFoundError:
            lines = []
        fresh = lines[:1] != [listing]
        self._done = set() if fresh else set(lines[1:])
        self._file: IO[str] = open(path, "w" if fresh else "a", encoding="utf-8")  # noqa: SIM115 - closed by close
        # The last line of a crashed run may be half a line.
        self._write(listing if fresh else "")

    def has(self, item: Item, at: int) -> bool:
        """Return whether the part that begins at `at` is there."""
        return self._line(item, at) in self._done

    def add(self, item: Item, at: int) -> None:
        """Note a part that is on the disk."""
        with self._lock:
            self._write(self._line(item, at))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, line: str) -> None:
        self._file.write(line + "\n")
        self._file.flush()

    @staticmethod
    def _line(item: Item, at: int) -> str:
        return json.dumps([item.path, at])


class Fetch:
    """Bring the objects of one listing into a folder."""

    def __init__(self, store: Store, items: Sequence[Item], folder: str) -> None:
        if len({item.path for item in items}) != len(items):
            raise Mismatch("objects must have different paths")
        self._store = store
        self._items = items
        self._folder = folder
        self._stop = threading.Event()
        self._fault: BaseException | None = None
        self._progress = Progress("fetching", 0)

    def run(self, journal_path: str) -> None:
        """Return when all objects are there, going on where a former run was ended.

        Memory: 1 MiB for each of 16 threads.

        Raises:
            Missing: an object went away.
            FetchFailed: the store, the way or the disk failed, or an object changed.
        """
        try:
            journal = Journal(journal_path, fingerprint(self._items))
            try:
                self._run(journal)
            finally:
                journal.close()
        except OSError as error:
            raise FetchFailed(f"{self._folder}: must take the weights (got {error})") from error

    def _run(self, journal: Journal) -> None:
        self._make_files()
        parts = [
            (item, at)
            for item in self._items
            for at in range(0, item.size, PART_B)
            if not journal.has(item, at)
        ]
        total_b = sum(min(PART_B, item.size - at) for item, at in parts)
        had_b = sum(item.size for item in self._items) - total_b
        say("fetching", files=len(self._items), bytes=total_b, had=had_b)
        self._progress = Progress("fetching", total_b)

        def work(part: tuple[Item, int]) -> None:
            if self._stop.is_set():
                return
            try:
                self._part(*part)
                journal.add(*part)
            except BaseException as error:  # noqa: BLE001 - raised below: the first one says why
                if not self._stop.is_set():
                    self._fault = error
                self._stop.set()

        with ThreadPoolExecutor(max(1, min(THREADS, len(parts)))) as pool:
            list(pool.map(work, parts))
        if self._fault is not None:
            raise self._fault

    def _make_files(self) -> None:
        """Make each file in its full size, and remove those that do not belong here."""
        paths = {item.path for item in self._items}
        for here, _, names in os.walk(self._folder):
            for name in names:
                whole = os.path.join(here, name)
                if os.path.relpath(whole, self._folder) not in paths:
                    os.remove(whole)
        for item in self._items:
            whole = os.path.join(self._folder, item.path)
            os.makedirs(os.path.dirname(whole), exist_ok=True)
            with open(whole, "ab") as file:
                file.truncate(item.size)

    def _part(self, item: Item, at: int) -> None:
        """Write one part and sync it, asking for the rest of it after each failure."""
        end = min(item.size, at + PART_B)
        patience = Patience(self._stop)
        with open(os.path.join(self._folder, item.path), "r+b", buffering=0) as file:
            while at < end:
                try:
                    for block in self._blocks(item, at, end):
                        os.pwrite(file.fileno(), block, at)
                        at += len(block)
                        self._progress.add(len(block))
                        patience.progressed()
                except Again as error:
                    patience.after(error)
            os.fdatasync(file.fileno())

    def _blocks(self, item: Item, at: int, end: int) -> Iterator[bytes]:
        """Yield the bytes from `at` to `end`, as many as come.

        Raises:
            Again: not all of them came.
        """
        extra = {"range": f"bytes={at}-{end - 1}"}
        if item.etag:
            extra["if-match"] = item.etag
        answer = self._store.get(item.key, extra=extra)
        what = f"{self._store.name}/{item.key}"
        wanted = f"bytes {at}-{end - 1}/{item.size}"
        if answer.status == PARTIAL:
            got = answer.getheader("content-range") or "no content-range"
        else:
            got = f"bytes 0-{int(answer.getheader('content-length') or 0) - 1}/{item.size}"
        if got != wanted:
            self._store.drop()
            raise FetchFailed(f"{what}: must give {wanted} (got {got})")
        while at < end:
            block = b""
            try:
                if not self._stop.is_set():
                    block = answer.read(min(READ_B, end - at))
            except (OSError, http.client.HTTPException) as error:
                self._store.drop()
                raise Again(f"{what}: must come whole (got {type(error).__name__})") from error
            if not block:
                self._store.drop()
                raise Again(f"{what}: must come whole (got {at} of {end} bytes)")
            at += len(block)
            yield block
