"""Bring the weights to where the engine reads them, and prove that they are the right ones.

Init container of every pod of an InferenceDeployment: `python3 weights.py`. For the model and
each adapter:

1. From an object store: fetch into the blade's cache, or find it there (`weightcache`).
2. Find out whether it is whole, and adapters whether they fit the model (`weightchecks`).
3. Hash all files; their digest must be the wanted one (`weightfiles`). An entry of the cache that
   has gone bad is fetched again, once.

| exit code | reason | meaning |
|---|---|---|
| 0 | | the digests are in the termination log and in $TRAMONTANE_STATE/weights.json |
| 64 | Misconfigured | the environment is not what the operator writes |
| 65 | ArtifactMismatch | what lies there is not what it must be: another try here ends the same |
| 66 | SourceMissing | nothing lies there, or it went away |
| 69 | SourceMissing | the store, the way there or the disk failed |
| 143 | | told to end |

Environment: TRAMONTANE_WEIGHTS, TRAMONTANE_STATE, TRAMONTANE_TERMINATION_LOG
(/dev/termination-log), TRAMONTANE_CACHE_BYTES (absent or 0: 80 % of the file system),
TRAMONTANE_MAX_LORA_RANK (absent: any), and that of `weightstore`.
Standard library only, Python 3.8 or later.
"""
# ruff: noqa: E402, PTH100, PTH103, PTH118, PTH119, PTH120, PTH123 - as in weightfiles.py

from __future__ import annotations

import os
import signal

EXIT_TOLD = 128 + signal.SIGTERM
if __name__ == "__main__":
    # First of all: what has no handler yet, the kernel drops where it is for PID 1.
    signal.signal(signal.SIGTERM, lambda _number, _frame: os._exit(EXIT_TOLD))

import json
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING or __package__:
    from tramontane.controllers.inferencedeployment.podfiles import weightchecks as checks
    from tramontane.controllers.inferencedeployment.podfiles import weightfiles as files
    from tramontane.controllers.inferencedeployment.podfiles.weightcache import (
        WAIT_S,
        Entry,
        adopt,
        make_room,
        note_holds,
        write_whole,
    )
    from tramontane.controllers.inferencedeployment.podfiles.weightfetch import Fetch, fingerprint
    from tramontane.controllers.inferencedeployment.podfiles.weightstore import Item, Store, listing
else:
    # An image may have set PYTHONSAFEPATH.
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import weightchecks as checks
    import weightfiles as files
    from weightcache import WAIT_S, Entry, adopt, make_room, note_holds, write_whole
    from weightfetch import Fetch, fingerprint
    from weightstore import Item, Store, listing

# What must lie beside each other in the pod.
FILES = (
    "weights.py",
    "weightcache.py",
    "weightchecks.py",
    "weightfetch.py",
    "weightfiles.py",
    "weightstore.py",
)
# The kubelet keeps 4,096 bytes of a last word.
MAX_WORD_B = 4000
# Others may only look whether they need the entry.
OTHERS_S = 5.0
EXIT_USAGE = 64


class Source(NamedTuple):
    """Hold where weights lie and what they must be.

    Attributes:
        name: of the adapter; empty: the model.
        names: by which the model is known besides.
    """

    name: str
    path: str
    digest: str | None
    s3: Mapping[str, str] | None
    names: tuple[str, ...]


class Ask(NamedTuple):
    """Hold what is asked of this pod."""

    model: Source
    adapters: tuple[Source, ...]
    engine: str
    max_rank: int | None
    cache_b: int


class Verified(NamedTuple):
    """Hold what was found out about one source."""

    digest: str
    size_b: int
    config: Mapping[str, Any]
    gguf: str | None = None


def ask_of(environ: Mapping[str, str]) -> Ask:
    """Return what the environment asks for.

    Raises:
        ValueError: it is not what the operator writes.
    """
    try:
        raw = json.loads(environ["TRAMONTANE_WEIGHTS"])
        return Ask(
            _source(raw["model"], ""),
            tuple(_source(one, one["name"]) for one in raw.get("adapters") or ()),
            str(raw.get("engine") or "custom"),
            int(environ["TRAMONTANE_MAX_LORA_RANK"])
            if environ.get("TRAMONTANE_MAX_LORA_RANK")
            else None,
            int(environ.get("TRAMONTANE_CACHE_BYTES") or 0),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"must be set as the operator sets it (got {error!r})") from error


def _source(raw: Mapping[str, Any], name: str) -> Source:
    s3 = raw.get("s3")
    if s3 is not None:
        s3 = {key: str(s3.get(key) or "") for key in ("endpoint", "bucket", "prefix")}
    names = [str(one) for one in raw.get("names") or ()]
    if s3 is not None:
        names.append(s3["prefix"])
    return Source(name, str(raw["path"]), raw.get("digest") or None, s3, tuple(names))


class Bringer:
    """Bring and verify the sources of one pod."""

    def __init__(self, ask: Ask, environ: Mapping[str, str]) -> None:
        self._ask = ask
        self._environ = environ
        self.entries: list[Entry] = []

    def run(self) -> tuple[Verified, dict[str, Verified]]:
        """Return what is verified: the model, and the adapters by name.

        Raises:
            WeightsError: the first fault.
        """
        try:
            model = self._bring(self._ask.model, None)
            adapters = {one.name: self._bring(one, model) for one in self._ask.adapters}
            if state := self._environ.get("TRAMONTANE_STATE"):
                note_holds(state, self.entries)
            return model, adapters
        finally:
            for entry in self.entries:
                entry.release()

    def _bring(self, source: Source, model: Verified | None) -> Verified:
        try:
            if source.digest is not None:
                files.checked_digest(source.digest)
            if source.s3 is None:
                return self._verify(source, model)
            return self._cached(source, model)
        except files.WeightsError as error:
            what = f'adapter "{source.name}"' if source.name else "model"
            raise type(error)(f"{what}: {error}") from error
        except OSError as error:
            raise files.FetchFailed(f"{source.path}: must be usable (got {error})") from error

    def _cached(self, source: Source, model: Verified | None) -> Verified:
        """Verify an entry of the cache, its lock shared meanwhile."""
        entry = Entry(source.path)
        self.entries.append(entry)
        had = self._fetch(source, entry)
        if had:
            try:
                return self._verify(source, model)
            except files.Mismatch as error:
                # What lay here may have gone bad, or be of another digest.
                self._alone(entry, str(error))
                files.say("refetching", entry=entry.key, why=json.dumps(str(error)))
                entry.drop()
                self._fetch(source, entry, may_adopt=False)
        try:
            return self._verify(source, model)
        except files.Mismatch:
            # This is what the store has: of no use to anybody.
            if entry.try_to_take():
                entry.drop()
            entry.release()
            raise

    @staticmethod
    def _alone(entry: Entry, why: str) -> None:
        """Take the lock alone. A pod that serves from the entry must not find others in its place.

        Raises:
            FetchFailed: other pods use it.
        """
        if not entry.try_to_take(OTHERS_S):
            raise files.FetchFailed(
                f"{entry.path}: cannot be fetched again while another pod of this blade uses it "
                f"({why}); give each version a prefix of its own"
            )

    def _fetch(self, source: Source, entry: Entry, *, may_adopt: bool = True) -> bool:
        """Return, once the entry is there and its lock shared, whether it lay there before.

        Where a digest is wanted and the entry is there, the store is not even asked: the digest
        says whether it is right.
        """
        s3 = source.s3 or {}
        with Store(s3["endpoint"], s3["bucket"], self._environ) as store:
            had, said = True, time.monotonic()
            items: list[Item] = []
            while True:
                is_shared = entry.is_there and entry.try_to_share() and entry.is_there
                if is_shared and source.digest is not None:
                    return had
                if not is_shared and not entry.try_to_take():
                    if time.monotonic() - said > files.PROGRESS_S:
                        said = time.monotonic()
                        files.say("waiting", entry=entry.key)
                    time.sleep(WAIT_S)
                    continue
                if not is_shared and entry.is_there:
                    continue
                if may_adopt and source.digest is not None and adopt(entry, source.digest):
                    continue
                items = items or listing(store, s3["prefix"])
                if is_shared:
                    if entry.listed() == fingerprint(items):
                        return had
                    self._alone(entry, "the store lists other objects")
                    entry.drop()
                had = False
                self._fill(entry, store, items)

    def _fill(self, entry: Entry, store: Store, items: list[Item]) -> None:
        """Fetch an entry whose lock is held alone."""
        make_room(entry, sum(item.size for item in items), self._ask.cache_b, time.time())
        target = os.path.join(entry.part, "files")
        os.makedirs(target, exist_ok=True)
        Fetch(store, items, target).run(os.path.join(entry.part, "journal"))
        entry.finish(fingerprint(items))

    def _verify(self, source: Source, model: Verified | None) -> Verified:
        ask = self._ask
        found = files.sizes(source.path)
        if model is None:
            config = checks.check_model(source.path, found, ask.engine)
        else:
            names = (*ask.model.names, os.path.basename(ask.model.path.rstrip("/")))
            config = checks.check_adapter(source.path, found, ask.max_rank, model.config, names)
        listed = files.verified(source.path, source.digest, found)
        manifest = files.manifest_of(listed)
        if source.s3 is not None and files.saved(source.path) is None:
            # It makes the next message exact; the entry is as good without.
            with suppress(OSError):
                files.write_manifest(source.path, manifest)
        gguf = checks.gguf_to_load(found)
        return Verified(
            files.digest_of(manifest),
            sum(entry.size for entry in listed),
            config,
            gguf and os.path.join(source.path, gguf),
        )


def report_of(model: Verified, adapters: Mapping[str, Verified], took_s: float) -> dict[str, Any]:
    """Return the last word of a run that went well."""
    return {
        "digest": model.digest,
        "bytes": model.size_b,
        "seconds": round(took_s, 3),
        "adapters": {name: one.digest for name, one in adapters.items()},
        "base": checks.base_of(model.config),
    }


def word_of(word: Mapping[str, Any]) -> str:
    """Return a last word that the kubelet keeps whole: its longest part is cut, if need be."""
    kept = dict(word)
    while len(text := json.dumps(kept, separators=(",", ":"))) > MAX_WORD_B:
        if "message" in kept:
            kept["message"] = kept["message"][: len(kept["message"]) * 9 // 10] + "..."
        else:
            kept["adapters"] = dict(list(kept["adapters"].items())[:-1])
    return text


def leave_word(environ: Mapping[str, str], word: Mapping[str, Any]) -> None:
    """Write the last word where the kubelet takes it from, and to the log."""
    text = word_of(word)
    sys.stderr.write(text + "\n")
    path = environ.get("TRAMONTANE_TERMINATION_LOG") or "/dev/termination-log"
    with suppress(OSError), open(path, "w", encoding="utf-8") as file:
        file.write(text)


def run(environ: Mapping[str, str]) -> int:
    """Return the exit code."""
    began = time.monotonic()
    try:
        ask = ask_of(environ)
    except ValueError as error:
        leave_word(environ, {"reason": "Misconfigured", "message": f"TRAMONTANE_*: {error}"})
        return EXIT_USAGE
    bringer = Bringer(ask, environ)
    try:
        model, adapters = bringer.run()
        report = report_of(model, adapters, time.monotonic() - began)
        state = environ.get("TRAMONTANE_STATE")
        if state:
            file = {"file": model.gguf} if model.gguf else {}  # for the agent alone
            write_whole(os.path.join(state, "weights.json"), json.dumps({**report, **file}))
    except files.WeightsError as error:
        leave_word(environ, {"reason": error.reason, "message": str(error)})
        return error.code
    except OSError as error:
        message = f"TRAMONTANE_STATE: must be writable (got {error})"
        leave_word(environ, {"reason": files.FetchFailed.reason, "message": message})
        return files.FetchFailed.code
    leave_word(environ, report)
    return 0


if __name__ == "__main__":
    sys.exit(run(os.environ))
