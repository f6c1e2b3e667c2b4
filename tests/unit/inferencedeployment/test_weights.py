"""The init container as a whole: exit codes, last words, and what it leaves for the agent."""

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tramontane.controllers.inferencedeployment.podfiles import (
    weightcache,
    weightfiles,
    weights,
    weightstore,
)
from unit.inferencedeployment.bucket import SIGNED_ENV, Bucket, serving
from unit.inferencedeployment.modeldirs import adapter_files, model, put

GGUF = b"GGUF\x03\0\0\0"
PARTS = tuple(f"l-0000{part}-of-00002.gguf" for part in (1, 2))

PODFILES = Path(weights.__file__).parent
OTHER = "sha256:" + "0" * 64
PREFIX = "claims/v7/"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weightstore, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(weights, "OTHERS_S", 0.0)
    monkeypatch.setattr(weights, "WAIT_S", 0.01)


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[Bucket]:
    root = model(tmp_path / "origin")
    objects = {PREFIX + path.name: path.read_bytes() for path in root.iterdir()}
    with serving(objects) as found:
        yield found


class Pod:
    """One pod: its environment, and what its init container said."""

    def __init__(self, folder: Path, ask: Mapping[str, Any], **env: str) -> None:
        self.state = folder / "state"
        self.state.mkdir(parents=True, exist_ok=True)
        self.log = folder / "termination-log"
        self.env = {
            "TRAMONTANE_WEIGHTS": json.dumps(ask),
            "TRAMONTANE_STATE": str(self.state),
            "TRAMONTANE_TERMINATION_LOG": str(self.log),
            **env,
        }

    def run(self) -> tuple[int, dict[str, Any]]:
        return weights.run(self.env), self.word()

    def word(self) -> dict[str, Any]:
        word: dict[str, Any] = json.loads(self.log.read_text())
        return word


def asked(path: Path, digest: str | None = None, **more: Any) -> dict[str, Any]:
    return {"model": {"path": str(path), "digest": digest}, "engine": "vllm", **more}


def digest_of(root: Path) -> str:
    found = weightfiles.sizes(str(root))
    return weightfiles.digest_of(weightfiles.manifest_of(weightfiles.entries(str(root), found)))


def test_the_first_load_says_the_digest(tmp_path: Path) -> None:
    root = model(tmp_path / "m")
    code, word = Pod(tmp_path, asked(root)).run()
    assert code == 0
    assert word == {
        "digest": digest_of(root),
        "bytes": sum(path.stat().st_size for path in root.iterdir()),
        "seconds": word["seconds"],
        "adapters": {},
        "base": "org/Little-1B",
    }
    assert json.loads((tmp_path / "state" / "weights.json").read_text()) == word


@pytest.mark.parametrize(
    ("names", "loaded"),
    [(("little.gguf",), "little.gguf"), (PARTS, PARTS[0]), (("mmproj.gguf", "z.gguf"), "z.gguf")],
    ids=["one file", "the first of its parts", "not the projector"],
)
def test_the_agent_is_told_which_file_to_load(
    tmp_path: Path, names: tuple[str, ...], loaded: str
) -> None:
    root = put(tmp_path / "m", dict.fromkeys(names, GGUF))
    code, word = Pod(tmp_path, {**asked(root), "engine": "llamacpp"}).run()
    state = json.loads((tmp_path / "state" / "weights.json").read_text())
    assert (code, state) == (0, {**word, "file": str(root / loaded)})


def test_adapters_are_verified_with_the_model(tmp_path: Path) -> None:
    root, de = model(tmp_path / "m"), put(tmp_path / "de", adapter_files())
    ask = asked(root, digest_of(root), adapters=[{"name": "claims-de", "path": str(de)}])
    code, word = Pod(tmp_path, ask, TRAMONTANE_MAX_LORA_RANK="16").run()
    assert (code, word["adapters"]) == (0, {"claims-de": digest_of(de)})


@pytest.mark.parametrize(
    ("files", "digest", "message"),
    [
        (adapter_files(rank=32), None, "r must be at most 16 (got 32)"),
        (adapter_files(base="x"), None, "one of this model, little-1b or m (got one of x)"),
        (adapter_files(), OTHER, f"digest must be {OTHER} (got sha256:"),
        ({}, None, "must be a directory of weights (got nothing there)"),
    ],
    ids=["rank", "base", "digest", "gone"],
)
def test_an_adapter_that_cannot_be_served(
    tmp_path: Path, files: dict[str, object], digest: str | None, message: str
) -> None:
    root = model(tmp_path / "m")
    put(tmp_path / "de", files)
    one = {"name": "claims-de", "path": str(tmp_path / "de"), "digest": digest}
    pod = Pod(tmp_path, asked(root, adapters=[one]), TRAMONTANE_MAX_LORA_RANK="16")
    code, word = pod.run()
    assert (code, word["reason"]) == ((65, "ArtifactMismatch") if files else (66, "SourceMissing"))
    assert word["message"].startswith('adapter "claims-de": ')
    assert message in word["message"]


@pytest.mark.parametrize(
    ("change", "digest", "code", "message"),
    [
        (None, OTHER, 65, f"model: digest must be {OTHER} (got sha256:"),
        (None, "sha256:12", 65, "model: digest must be sha256: and 64 hex digits in lower case"),
        ({"config.json": b""}, None, 65, "model: config.json: must not be empty"),
        (
            {"config.json": b"x" * (17 << 20)},
            None,
            65,
            "model: config.json: must be at most 16 MiB",
        ),
        ("gone", None, 66, "must be a directory of weights (got nothing there)"),
        ("gone", OTHER, 66, "must be a directory of weights (got nothing there)"),
    ],
    ids=["digest", "form", "empty config", "huge config", "gone", "gone, digest"],
)
def test_a_model_that_cannot_be_served(
    tmp_path: Path, change: object, digest: str | None, code: int, message: str
) -> None:
    root = tmp_path / "m"
    if change != "gone":
        model(root)
    if isinstance(change, dict):
        put(root, change)
    pod = Pod(tmp_path, asked(root, digest))
    got, word = pod.run()
    assert got == code
    assert word["reason"] == ("ArtifactMismatch" if code == 65 else "SourceMissing")
    assert message in word["message"]
    assert not (pod.state / "weights.json").exists()


@pytest.mark.parametrize(
    "env",
    [
        {"TRAMONTANE_WEIGHTS": ""},
        {"TRAMONTANE_WEIGHTS": "{}"},
        {"TRAMONTANE_WEIGHTS": "[]"},
        {"TRAMONTANE_WEIGHTS": '{"model": {}}'},
        {"TRAMONTANE_CACHE_BYTES": "much"},
        {"TRAMONTANE_MAX_LORA_RANK": "high"},
    ],
    ids=str,
)
def test_an_environment_that_the_operator_does_not_write(
    tmp_path: Path, env: dict[str, str]
) -> None:
    code, word = Pod(tmp_path, asked(model(tmp_path / "m")), **env).run()
    assert (code, word["reason"]) == (64, "Misconfigured")


@pytest.mark.parametrize(
    "word",
    [
        {"reason": "ArtifactMismatch", "message": "é\\\n" * 4000},
        {"digest": OTHER, "adapters": {f"{'n' * 60}{i}": OTHER for i in range(32)}, "base": None},
    ],
    ids=["message", "adapters"],
)
def test_a_last_word_is_kept_whole(word: dict[str, Any]) -> None:
    """The kubelet keeps 4,096 bytes."""
    text = weights.word_of(word)
    assert len(text.encode()) <= 4096
    assert json.loads(text).keys() == word.keys()


# from an object store


def s3(bucket: Bucket, cache: Path, digest: str | None = None, key: str = "k1") -> dict[str, Any]:
    source = {"endpoint": bucket.url, "bucket": "models", "prefix": PREFIX}
    return {
        "model": {"s3": source, "digest": digest, "path": str(cache / key)},
        "engine": "vllm",
    }


def test_weights_are_fetched_once_per_blade(tmp_path: Path, bucket: Bucket) -> None:
    cache = tmp_path / "cache"
    pod = Pod(tmp_path / "one", s3(bucket, cache), **SIGNED_ENV)
    code, word = pod.run()
    assert (code, word["digest"]) == (0, digest_of(tmp_path / "origin"))
    [[lock, entry, _]] = json.loads((pod.state / weightcache.HOLDS).read_text())
    assert (lock, entry) == (str(cache / ".k1.lock"), str(cache / "k1"))
    [held] = weightcache.hold(str(pod.state))
    os.close(held)
    asked_before = len(bucket.ranges)
    assert Pod(tmp_path / "two", s3(bucket, cache), **SIGNED_ENV).run()[0] == 0
    assert len(bucket.ranges) == asked_before
    assert not bucket.problems


def test_with_a_digest_the_store_is_not_asked_again(tmp_path: Path, bucket: Bucket) -> None:
    cache, digest = tmp_path / "cache", digest_of(tmp_path / "origin")
    assert Pod(tmp_path / "one", s3(bucket, cache, digest), **SIGNED_ENV).run()[0] == 0
    listings = bucket.listings
    bucket.objects.clear()
    assert Pod(tmp_path / "two", s3(bucket, cache, digest), **SIGNED_ENV).run()[0] == 0
    assert bucket.listings == listings


def test_pods_that_start_together_fetch_once(tmp_path: Path, bucket: Bucket) -> None:
    cache = tmp_path / "cache"
    bucket.gate = threading.Event()
    pods = [Pod(tmp_path / str(i), s3(bucket, cache), **SIGNED_ENV) for i in range(3)]
    codes: list[int] = []
    threads = [
        threading.Thread(target=lambda pod=pod: codes.append(weights.run(pod.env))) for pod in pods
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    bucket.gate.set()
    for thread in threads:
        thread.join()
    assert codes == [0, 0, 0]
    assert len({pod.word()["digest"] for pod in pods}) == 1
    assert bucket.fetched_b == sum(map(len, bucket.objects.values()))


def test_a_cached_file_that_went_bad_is_fetched_again(tmp_path: Path, bucket: Bucket) -> None:
    cache, digest = tmp_path / "cache", digest_of(tmp_path / "origin")
    assert Pod(tmp_path / "one", s3(bucket, cache, digest), **SIGNED_ENV).run()[0] == 0
    path = cache / "k1" / "tokenizer.json"
    path.write_bytes(b"?" * path.stat().st_size)
    pod = Pod(tmp_path / "two", s3(bucket, cache, digest), **SIGNED_ENV)
    assert pod.run() == (0, pod.word() | {"digest": digest})
    assert path.read_bytes() == (tmp_path / "origin" / "tokenizer.json").read_bytes()


def test_a_cached_file_that_went_bad_under_another_pod_is_left(
    tmp_path: Path, bucket: Bucket
) -> None:
    cache, digest = tmp_path / "cache", digest_of(tmp_path / "origin")
    pod = Pod(tmp_path / "one", s3(bucket, cache, digest), **SIGNED_ENV)
    assert pod.run()[0] == 0
    held = weightcache.hold(str(pod.state))
    try:
        put(cache / "k1", {"tokenizer.json": b"?"})
        code, word = Pod(tmp_path / "two", s3(bucket, cache, digest), **SIGNED_ENV).run()
        assert (code, word["reason"]) == (69, "SourceMissing")
        assert "while another pod of this blade uses it" in word["message"]
        assert "tokenizer.json (1 bytes for 13)" in word["message"]
        assert (cache / "k1" / "tokenizer.json").read_bytes() == b"?"
    finally:
        for file in held:
            os.close(file)


def test_another_digest_than_the_stores_is_refused_and_not_kept(
    tmp_path: Path, bucket: Bucket
) -> None:
    cache = tmp_path / "cache"
    code, word = Pod(tmp_path, s3(bucket, cache, OTHER), **SIGNED_ENV).run()
    assert (code, word["reason"]) == (65, "ArtifactMismatch")
    assert f"digest must be {OTHER} (got sha256:" in word["message"]
    assert not (cache / "k1").exists()


def test_without_a_digest_what_the_store_has_now_is_fetched(tmp_path: Path, bucket: Bucket) -> None:
    cache = tmp_path / "cache"
    _, first = Pod(tmp_path / "one", s3(bucket, cache), **SIGNED_ENV).run()
    bucket.objects[PREFIX + "tokenizer.json"] = b'{"new": 1}'
    code, second = Pod(tmp_path / "two", s3(bucket, cache), **SIGNED_ENV).run()
    assert code == 0
    assert second["digest"] != first["digest"]
    assert (cache / "k1" / "tokenizer.json").read_bytes() == b'{"new": 1}'


@pytest.mark.parametrize(
    ("fault", "code"), [("gone", 66), ("403", 69), ("other", 69)], ids=["gone", "403", "other"]
)
def test_a_store_that_fails_leaves_no_entry(
    tmp_path: Path, bucket: Bucket, fault: str, code: int
) -> None:
    cache = tmp_path / "cache"
    bucket.faults = [fault]
    got, word = Pod(tmp_path / "one", s3(bucket, cache), **SIGNED_ENV).run()
    assert (got, word["reason"]) == (code, "SourceMissing")
    assert not (cache / "k1").exists()


def test_the_first_load_is_linked_once_its_digest_is_known(tmp_path: Path, bucket: Bucket) -> None:
    cache = tmp_path / "cache"
    _, word = Pod(tmp_path / "one", s3(bucket, cache, key="address"), **SIGNED_ENV).run()
    bucket.objects.clear()
    ask = s3(bucket, cache, word["digest"], key="digest")
    code, again = Pod(tmp_path / "two", ask, **SIGNED_ENV).run()
    assert (code, again["digest"]) == (0, word["digest"])
    one, two = (cache / key / "config.json" for key in ("address", "digest"))
    assert one.stat().st_ino == two.stat().st_ino


def test_a_link_to_what_went_bad_is_fetched_instead(tmp_path: Path, bucket: Bucket) -> None:
    cache = tmp_path / "cache"
    _, word = Pod(tmp_path / "one", s3(bucket, cache, key="address"), **SIGNED_ENV).run()
    bad = cache / "address" / "tokenizer.json"
    bad.write_bytes(b"?")
    ask = s3(bucket, cache, word["digest"], key="digest")
    assert Pod(tmp_path / "two", ask, **SIGNED_ENV).run()[0] == 0
    assert bad.read_bytes() == b"?"
    assert (cache / "digest" / "tokenizer.json").stat().st_ino != bad.stat().st_ino


def test_old_entries_make_room(tmp_path: Path, bucket: Bucket) -> None:
    cache = tmp_path / "cache"
    assert Pod(tmp_path / "one", s3(bucket, cache, key="old"), **SIGNED_ENV).run()[0] == 0
    os.utime(cache / ".old.lock", (0, 0))
    env = {**SIGNED_ENV, "TRAMONTANE_CACHE_BYTES": "10000"}
    assert Pod(tmp_path / "two", s3(bucket, cache, key="new"), **env).run()[0] == 0
    assert not (cache / "old").exists()


# as a process, with the files as they lie in the pod


def start(pod: Pod, folder: Path, python: str = sys.executable) -> subprocess.Popen[str]:
    folder.mkdir()
    for name in weights.FILES:
        shutil.copy(PODFILES / name, folder)
    command = [python, "-I", str(folder / "weights.py")]
    env = pod.env | {"PYTHONDONTWRITEBYTECODE": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=env, stderr=pipe, text=True, cwd=folder.parent)


def pythons() -> list[str]:
    """Return this Python, and the oldest one that images are expected to have, if it is here."""
    old = shutil.which("python3.8")
    works = old and not subprocess.run([old, "-c", ""], capture_output=True, check=False).returncode
    return [sys.executable, *([old] if old and works else [])]


@pytest.mark.parametrize("python", pythons())
def test_the_files_work_beside_each_other(tmp_path: Path, bucket: Bucket, python: str) -> None:
    pod = Pod(tmp_path, s3(bucket, tmp_path / "cache"), **SIGNED_ENV)
    with start(pod, tmp_path / "agent", python) as process:
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert pod.word()["digest"] == digest_of(tmp_path / "origin")
    assert "tramontane-weights event=fetching files=5" in said


def test_it_ends_when_told_and_the_next_run_goes_on(tmp_path: Path, bucket: Bucket) -> None:
    bucket.gate = threading.Event()
    pod = Pod(tmp_path, s3(bucket, tmp_path / "cache"), **SIGNED_ENV)
    with start(pod, tmp_path / "agent") as process:
        assert process.stderr is not None
        assert "event=fetching" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 143
    bucket.gate.set()
    assert pod.run()[0] == 0


def test_an_order_to_end_that_comes_before_all_is_read_is_not_lost(tmp_path: Path) -> None:
    pod = Pod(tmp_path, asked(model(tmp_path / "m")))
    agent = tmp_path / "agent"
    shutil.copytree(PODFILES, agent)
    # Imported early, and by nobody else.
    (agent / "hashlib.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGTERM)")
    command = [sys.executable, str(agent / "weights.py")]
    assert subprocess.run(command, env=pod.env, check=False, timeout=60).returncode == 143


@pytest.mark.parametrize("name", weights.FILES)
def test_old_pythons_can_read_it(name: str) -> None:
    ast.parse((PODFILES / name).read_text(), name, feature_version=(3, 8))


def test_nothing_is_forgotten() -> None:
    assert {path.name for path in PODFILES.glob("weight*.py")} == set(weights.FILES)


def test_a_shard_that_is_named_but_missing_stops_the_start(tmp_path: Path) -> None:
    root = model(tmp_path / "m")
    (root / "model-00002-of-00002.safetensors").unlink()
    code, word = Pod(tmp_path, asked(root)).run()
    assert code == 65
    assert "got none of model-00002-of-00002.safetensors" in word["message"]
