r"""Give a directory of weights one digest: that of its manifest.

The manifest is text: for each file one line, sorted by path (by its UTF-8 bytes), paths relative
with `/`:

    <sha256, hex>  <size in bytes>  <path>\n

    digest = "sha256:" + sha256(manifest)

| what lies there | in the manifest |
|---|---|
| regular file | yes |
| link to a file of the same directory | yes, as a file |
| link that leads out of the directory, to a directory, or to nothing | refused |
| device, socket, pipe; a name with a line break or not in UTF-8 | refused |
| hidden file or directory (its name begins with a dot) | no |
| hidden file at the top that an engine may load (`.x.safetensors`) | refused |
| `tramontane-manifest.txt` at the top | no |

Other files of ours are not left out: `tramontane.safetensors` would be loaded like any other.

A saved `tramontane-manifest.txt` must agree with the files. It is not trusted, but names the file
that differs. Nothing is remembered from one start to the next: size and time of a file say nothing
about its bytes, and whoever may write the one may write the other. Reading costs little besides:
the engine then finds the files in memory.

This file and its neighbours go into pods: standard library only, Python 3.8 or later.
"""
# ruff: noqa: PTH105, PTH110, PTH112, PTH114, PTH115, PTH116, PTH118, PTH123, PTH202 - the same calls as in the other files of pods, where start-up time counts

from __future__ import annotations

import hashlib
import os
import re
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, NoReturn

MANIFEST = "tramontane-manifest.txt"
MAX_MANIFEST_B = 64 << 20
READ_B = 8 << 20
THREADS = 8
PROGRESS_S = 10.0
# So many files are named where more differ.
NAMED = 5

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_LINE = re.compile(r"([0-9a-f]{64})  (0|[1-9][0-9]*)  ([^\n]+)")
_LOADED = (".safetensors", ".gguf", ".bin", ".pt", ".pth", ".pkl", ".py")


class WeightsError(Exception):
    """Say why weights cannot be served.

    Attributes:
        reason: as in `tramontane.api.reasons.InferenceReason`.
        code: exit code of the init container.
    """

    reason = "ArtifactMismatch"
    code = 65


class Mismatch(WeightsError):  # noqa: N818 - named for the finding
    """Say that what lies there is not what it must be; another try ends the same."""


class Missing(WeightsError):  # noqa: N818 - the same
    """Say that nothing lies there, or that it went away; it may come back."""

    reason = "SourceMissing"
    code = 66


class FetchFailed(WeightsError):  # noqa: N818 - the same
    """Say that the way to the source, or the disk, failed; another try may go better."""

    reason = "SourceMissing"
    code = 69


class Entry(NamedTuple):
    """Hold one line of a manifest."""

    sha256: str
    size: int
    path: str


def say(event: str, **fields: object) -> None:
    """Print one event as key=value, in one write."""
    words = ["event=" + event, *(f"{name}={value}" for name, value in fields.items())]
    sys.stderr.write("tramontane-weights " + " ".join(words) + "\n")
    sys.stderr.flush()


class Progress:
    """Say every 10 s how many bytes are done; threads share it."""

    def __init__(self, event: str, total_b: int) -> None:
        self.done_b = 0
        self._event = event
        self._total_b = total_b
        self._lock = threading.Lock()
        self._began = self._said = time.monotonic()

    def add(self, count: int) -> None:
        """Count bytes."""
        with self._lock:
            self.done_b += count
            now = time.monotonic()
            if now - self._said < PROGRESS_S:
                return
            self._said = now
        rate = self.done_b / (now - self._began) / (1 << 30)
        done, total = gib(self.done_b), gib(self._total_b)
        say(self._event, done=done, of=total, rate=f"{rate:.2f}GiB/s")


def unique() -> str:
    """Return a word for a file's name: pods that share a folder may have the same process ids."""
    return os.urandom(4).hex()


def gib(count: int) -> str:
    """Return a number of bytes for people."""
    return f"{count / (1 << 30):.1f}GiB"


def some(names: Iterable[str]) -> str:
    """Return names for people: the first ones, and how many more there are."""
    ordered = sorted(names)
    more = len(ordered) - NAMED
    return ", ".join(ordered[:NAMED]) + (f" and {more} more" if more > 0 else "")


def checked_digest(digest: object) -> str:
    """Return a digest that has the form of one.

    Raises:
        Mismatch: it has not.
    """
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise Mismatch(f"digest must be sha256: and 64 hex digits in lower case (got {digest!r})")
    return digest


def sizes(root: str) -> dict[str, int]:
    """Return the size of each file that belongs into the manifest, by path.

    Raises:
        Missing: there is no such directory, it is empty, or it goes away meanwhile.
        Mismatch: something lies there that the digest could not speak for.
    """
    if not os.path.isdir(root):
        what = "a file" if os.path.exists(root) else "nothing there"
        raise Missing(f"{root}: must be a directory of weights (got {what})")
    found: dict[str, int] = {}
    for folder, folders, names in os.walk(root, onerror=_gone):
        inside = os.path.relpath(folder, root)
        here = "" if inside == os.curdir else inside + "/"
        for name in sorted(folders):
            if not name.startswith(".") and os.path.islink(os.path.join(folder, name)):
                raise Mismatch(f"{here}{name}: must not be a link to a directory")
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = here + name
            if name.startswith("."):
                if not here and name.endswith(_LOADED):
                    raise Mismatch(
                        f"{path}: must not be hidden, as an engine may load what no digest covers; "
                        "remove it"
                    )
            elif path != MANIFEST:
                found[_plain(path)] = _size(root, path)
    if not found:
        raise Missing(f"{root}: must have files (got an empty directory)")
    return found


def _gone(error: OSError) -> NoReturn:
    raise Missing(f"{error.filename}: must be readable (got {error.strerror})") from error


def _plain(path: str) -> str:
    """Return a path that a manifest can hold."""
    try:
        path.encode()
    except UnicodeEncodeError:
        raise Mismatch(f"{path!r}: name must be UTF-8") from None
    if "\n" in path or "\r" in path:
        raise Mismatch(f"{path!r}: name must not have a line break")
    return path


def _size(root: str, path: str) -> int:
    whole = os.path.join(root, path)
    try:
        if os.path.islink(whole):
            real = os.path.realpath(whole)
            if not real.startswith(os.path.join(os.path.realpath(root), "")):
                raise Mismatch(
                    f"{path}: must not be a link that leaves the directory "
                    f"(got {os.readlink(whole)}); copy the file"
                )
            if not os.path.exists(real):
                raise Mismatch(f"{path}: must not be a link to nothing")
        found = os.stat(whole)
    except OSError as error:
        _gone(error)
    if not stat.S_ISREG(found.st_mode):
        raise Mismatch(f"{path}: must be a regular file")
    return found.st_size


def entries(root: str, found: Mapping[str, int], threads: int = THREADS) -> list[Entry]:
    """Return the entries of `found` in order, hashing in parallel.

    Memory: `READ_B` per thread. The largest files go first, as a file is read by one thread.

    Raises:
        Missing: a file went away, changed its size meanwhile, or cannot be read.
    """
    progress = Progress("hashing", sum(found.values()))
    local = threading.local()
    stop = threading.Event()

    def work(path: str) -> Entry:
        if not hasattr(local, "buffer"):
            local.buffer = memoryview(bytearray(READ_B))
        try:
            digest, size = _hash(os.path.join(root, path), local.buffer, progress.add, stop)
        except OSError as error:
            stop.set()
            _gone(error)
        if size != found[path] and not stop.is_set():
            stop.set()
            raise Missing(
                f"{path}: must not change while it is read (got {found[path]}, then {size} bytes)"
            )
        return Entry(digest, size, path)

    largest_first = sorted(found, key=lambda path: -found[path])
    with ThreadPoolExecutor(max(1, min(threads, len(found)))) as pool:
        done = list(pool.map(work, largest_first))
    return sorted(done, key=lambda entry: entry.path.encode())


def _hash(
    path: str, buffer: memoryview, count: Callable[[int], None], stop: threading.Event
) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    with open(path, "rb", buffering=0) as file:
        while not stop.is_set():
            read = file.readinto(buffer)
            if not read:
                break
            digest.update(buffer[:read])
            size += read
            count(read)
    return digest.hexdigest(), size


def manifest_of(listed: Iterable[Entry]) -> str:
    """Return the manifest's text."""
    return "".join(f"{entry.sha256}  {entry.size}  {entry.path}\n" for entry in listed)


def digest_of(manifest: str) -> str:
    """Return the digest of a manifest."""
    return "sha256:" + hashlib.sha256(manifest.encode()).hexdigest()


def parsed(manifest: str) -> dict[str, Entry]:
    """Return the entries of a manifest by path.

    Raises:
        Mismatch: it is not one.
    """
    found: dict[str, Entry] = {}
    lines = manifest.split("\n")
    if lines.pop():
        raise Mismatch(f"{MANIFEST}: last line must be whole")
    for number, line in enumerate(lines, 1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise Mismatch(f'{MANIFEST}: line {number} must be "<sha256>  <size>  <path>"')
        entry = Entry(match.group(1), int(match.group(2)), match.group(3))
        if entry.path in found:
            raise Mismatch(f"{MANIFEST}: line {number} must not repeat {entry.path}")
        found[entry.path] = entry
    return found


def saved(root: str) -> str | None:
    """Return the text of the saved manifest, None where there is none.

    Raises:
        Mismatch: what lies under its name cannot be one.
    """
    path = os.path.join(root, MANIFEST)
    try:
        if os.path.getsize(path) > MAX_MANIFEST_B:
            raise Mismatch(f"{MANIFEST}: must be at most {MAX_MANIFEST_B} bytes")
        with open(path, encoding="utf-8", newline="") as file:
            return file.read()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise Mismatch(f"{MANIFEST}: must be readable text (got {error})") from error


def write_manifest(root: str, manifest: str) -> None:
    """Save the manifest, whole or not at all."""
    fresh = os.path.join(root, f".{MANIFEST}.{unique()}")
    with open(fresh, "w", encoding="utf-8", newline="") as file:
        file.write(manifest)
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, os.path.join(root, MANIFEST))


def differences(wanted: Mapping[str, Entry], got: Mapping[str, Entry]) -> str:
    """Return in words how the files differ from those wanted; empty where they do not."""
    both = wanted.keys() & got.keys()
    gone, new = wanted.keys() - got.keys(), got.keys() - wanted.keys()
    by_content = {wanted[path][:2]: path for path in gone}
    renamed = {path: by_content[got[path][:2]] for path in new if got[path][:2] in by_content}
    resized = [
        f"{path} ({got[path].size} bytes for {wanted[path].size})"
        for path in both
        if wanted[path].size != got[path].size
    ]
    changed = [
        path
        for path in both
        if wanted[path].size == got[path].size and wanted[path].sha256 != got[path].sha256
    ]
    parts = (
        ("other size: ", resized),
        ("other content: ", changed),
        ("renamed: ", [f"{old} to {path}" for path, old in renamed.items()]),
        ("missing: ", gone - set(renamed.values())),
        ("not in the manifest: ", new - renamed.keys()),
    )
    return "; ".join(words + some(names) for words, names in parts if names)


def verified(root: str, wanted: str | None, found: Mapping[str, int] | None = None) -> list[Entry]:
    """Return the entries of a directory whose digest is the wanted one.

    1. A saved manifest that has the wanted digest is the wanted one: other names or sizes are
       found before anything is hashed.
    2. All files are hashed.
    3. They must agree with the saved manifest, and with the wanted digest.

    Args:
        root: the directory.
        wanted: digest; None: any.
        found: what `sizes` returned.

    Raises:
        Mismatch: the digest is another, or the saved manifest says otherwise.
        Missing: see `sizes` and `entries`.
    """
    if wanted is not None:
        checked_digest(wanted)
    found = sizes(root) if found is None else found
    text = saved(root)
    listed = None if text is None else parsed(text)
    if text is not None and listed is not None and digest_of(text) == wanted:
        assumed = {
            path: Entry(listed[path].sha256 if path in listed else "", size, path)
            for path, size in found.items()
        }
        quick = differences(listed, assumed)
        if quick:
            raise Mismatch(f"files must be those of digest {wanted} (got {quick})")
    hashed = entries(root, found)
    digest = digest_of(manifest_of(hashed))
    why = "" if listed is None else differences(listed, {entry.path: entry for entry in hashed})
    if wanted is not None and digest != wanted:
        if listed is None:
            hint = f"no {MANIFEST} tells which files differ"
        elif why:
            hint = f"against {MANIFEST}: {why}"
        else:
            hint = f"{MANIFEST} agrees with the files, so these are other weights"
        raise Mismatch(f"digest must be {wanted} (got {digest}; {hint})")
    if why:
        raise Mismatch(f"files must agree with {MANIFEST} (got {why})")
    return hashed
