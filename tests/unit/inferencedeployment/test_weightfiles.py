"""The manifest of a directory, its digest, and everything that must not slip past it."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tramontane.controllers.inferencedeployment.podfiles import weightfiles
from tramontane.controllers.inferencedeployment.podfiles.weightfiles import (
    MANIFEST,
    Entry,
    Mismatch,
    Missing,
)
from unit.inferencedeployment.modeldirs import SHARDS, model, put

OTHER = "sha256:" + "0" * 64
FIRST = SHARDS["model-00001-of-00002.safetensors"]
assert isinstance(FIRST, bytes)


def digest_of(root: Path) -> str:
    return weightfiles.digest_of(manifest_of(root))


def manifest_of(root: Path) -> str:
    found = weightfiles.sizes(str(root))
    return weightfiles.manifest_of(weightfiles.entries(str(root), found))


def refusal(root: Path, digest: str | None) -> str:
    with pytest.raises(Mismatch) as caught:
        weightfiles.verified(str(root), digest)
    assert (caught.value.code, caught.value.reason) == (65, "ArtifactMismatch")
    return str(caught.value)


def test_the_manifest_is_what_sha256sum_would_say(tmp_path: Path) -> None:
    put(tmp_path, {"b": b"two", "a": b"", "sub/c": b"3"})
    lines = [
        f"{hashlib.sha256(data).hexdigest()}  {len(data)}  {name}\n"
        for name, data in (("a", b""), ("b", b"two"), ("sub/c", b"3"))
    ]
    assert manifest_of(tmp_path) == "".join(lines)
    assert digest_of(tmp_path) == "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()


def test_paths_are_sorted_by_their_bytes(tmp_path: Path) -> None:
    put(tmp_path, dict.fromkeys(("😀", "ﬀ", "Z", "a-b", "a/b", "a0"), b"x"))
    names = [entry.path for entry in weightfiles.verified(str(tmp_path), None)]
    assert names == ["Z", "a-b", "a/b", "a0", "\ufb00", "\U0001f600"]


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 3 * 4096], ids=str)
def test_files_of_any_size_are_read_whole(
    tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weightfiles, "READ_B", 4096)
    data = os.urandom(size)
    put(tmp_path, {"x": data})
    assert weightfiles.verified(str(tmp_path), None) == [
        Entry(hashlib.sha256(data).hexdigest(), size, "x")
    ]


def test_hidden_files_and_the_manifest_are_left_out(tmp_path: Path) -> None:
    model(tmp_path)
    before = digest_of(tmp_path)
    put(tmp_path, {".cache/x.safetensors": b"1", ".gitattributes": "x"})
    weightfiles.write_manifest(str(tmp_path), manifest_of(tmp_path))
    assert digest_of(tmp_path) == before
    assert weightfiles.verified(str(tmp_path), before)
    assert not [name for name in tmp_path.iterdir() if name.name.startswith(f".{MANIFEST}")]


@pytest.mark.parametrize(
    "name", ["tramontane.safetensors", "tramontane.py", "sub/tramontane-manifest.txt"]
)
def test_what_only_looks_like_ours_is_not_left_out(tmp_path: Path, name: str) -> None:
    model(tmp_path)
    before = digest_of(tmp_path)
    put(tmp_path, {name: b"x"})
    assert digest_of(tmp_path) != before


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda root: (root / "l").symlink_to("/etc/hostname"), "l: must not be a link that leave"),
        (lambda root: (root / "l").symlink_to("../out"), "l: must not be a link that leaves"),
        (lambda root: (root / "l").symlink_to("nothing"), "l: must not be a link to nothing"),
        (lambda root: (root / "l").symlink_to("."), "l: must not be a link to a directory"),
        (lambda root: os.mkfifo(root / "l"), "l: must be a regular file"),
        (lambda root: put(root, {"a\nb": b"x"}), "must not have a line break"),
        (lambda root: put(root, {os.fsdecode(b"\xff"): b"x"}), "name must be UTF-8"),
        (lambda root: put(root, {".x.safetensors": b"x"}), ".x.safetensors: must not be hidden"),
    ],
    ids=["absolute", "parent", "nothing", "directory", "pipe", "line break", "no utf-8", "hidden"],
)
def test_what_no_digest_speaks_for_is_refused(
    tmp_path: Path, prepare: Callable[[Path], object], message: str
) -> None:
    put(tmp_path, {"out": b"x"})
    root = model(tmp_path / "m")
    prepare(root)
    assert message in refusal(root, None)


def test_links_inside_are_files(tmp_path: Path) -> None:
    """As in volumes of ConfigMaps: the kubelet's `..data`."""
    put(tmp_path, {"..data/config.json": b"{}"})
    (tmp_path / "config.json").symlink_to("..data/config.json")
    assert [entry.path for entry in weightfiles.verified(str(tmp_path), None)] == ["config.json"]


@pytest.mark.parametrize(
    ("name", "got"),
    [("gone", "nothing there"), ("file", "a file"), ("empty", "an empty directory")],
)
def test_a_source_that_is_not_there(tmp_path: Path, name: str, got: str) -> None:
    (tmp_path / "empty").mkdir()
    put(tmp_path, {"file": b"x"})
    with pytest.raises(Missing, match=got) as caught:
        weightfiles.verified(str(tmp_path / name), OTHER)
    assert (caught.value.code, caught.value.reason) == (66, "SourceMissing")


def test_a_source_that_disappears_meanwhile(tmp_path: Path) -> None:
    model(tmp_path)
    found = weightfiles.sizes(str(tmp_path))
    (tmp_path / "config.json").unlink()
    with pytest.raises(Missing, match=r"config\.json: must be readable"):
        weightfiles.verified(str(tmp_path), None, found)


def test_a_source_that_changes_meanwhile(tmp_path: Path) -> None:
    model(tmp_path)
    found = weightfiles.sizes(str(tmp_path))
    put(tmp_path, {"config.json": b"{}"})
    with pytest.raises(Missing, match=r"config\.json: must not change while it is read"):
        weightfiles.verified(str(tmp_path), None, found)


@pytest.mark.parametrize(
    "digest",
    ["", "sha256:", "sha256:" + "0" * 63, "sha256:" + "A" * 64, "md5:" + "0" * 64, "0" * 64, 7],
    ids=str,
)
def test_a_digest_of_another_form(digest: object) -> None:
    with pytest.raises(Mismatch, match="must be sha256: and 64 hex digits"):
        weightfiles.checked_digest(digest)


# mutations: each is refused, with what was wanted, what was got, and where


def flip(at: int) -> Callable[[Path], None]:
    def work(root: Path) -> None:
        path = root / "model-00001-of-00002.safetensors"
        data = bytearray(path.read_bytes())
        data[at] ^= 1
        path.write_bytes(data)

    return work


def resize(change: int) -> Callable[[Path], None]:
    def work(root: Path) -> None:
        path = root / "tokenizer.json"
        data = path.read_bytes()
        path.write_bytes(data[:change] if change < 0 else data + b" " * change)

    return work


SIZE = len(FIRST)
MUTATIONS: list[tuple[str, Callable[[Path], object], str]] = [
    *(
        (f"bit of byte {at}", flip(at), "other content: model-00001-of-00002.safetensors")
        for at in (0, 7, 8, 60, SIZE // 2, SIZE - 1)
    ),
    ("cut", resize(-1), "other size: tokenizer.json (12 bytes for 13)"),
    ("emptied", resize(-13), "other size: tokenizer.json (0 bytes for 13)"),
    ("grown", resize(1), "other size: tokenizer.json (14 bytes for 13)"),
    ("removed", lambda root: (root / "tokenizer.json").unlink(), "missing: tokenizer.json"),
    ("added", lambda root: put(root, {"x.py": b"1"}), "not in the manifest: x.py"),
    (
        "renamed",
        lambda root: (root / "tokenizer.json").rename(root / "t.json"),
        "missing: tokenizer.json; not in the manifest: t.json",
    ),
    (
        "swapped",
        lambda root: put(root, {"tokenizer.json": b'{"model": 17}'}),
        "other content: tokenizer.json",
    ),
]


@pytest.mark.parametrize("is_saved", [False, True], ids=["no manifest", "manifest"])
@pytest.mark.parametrize(
    ("mutate", "where"), [one[1:] for one in MUTATIONS], ids=[one[0] for one in MUTATIONS]
)
def test_any_change_is_refused(
    tmp_path: Path, mutate: Callable[[Path], object], where: str, *, is_saved: bool
) -> None:
    model(tmp_path)
    wanted = digest_of(tmp_path)
    if is_saved:
        weightfiles.write_manifest(str(tmp_path), manifest_of(tmp_path))
    assert weightfiles.verified(str(tmp_path), wanted)
    mutate(tmp_path)
    message = refusal(tmp_path, wanted)
    assert wanted in message
    if is_saved:
        assert where in message
        assert "files must agree" in refusal(tmp_path, None)
    else:
        assert digest_of(tmp_path) in message
        assert f"no {MANIFEST} tells which files differ" in message


@given(data=st.data())
def test_any_flipped_bit_changes_the_digest(data: st.DataObject) -> None:
    entries = [Entry("a" * 64, 3, "x"), Entry("b" * 64, 4, "y")]
    text = weightfiles.manifest_of(entries)
    at = data.draw(st.integers(0, len(text) - 1))
    other = text[:at] + chr(ord(text[at]) ^ 1) + text[at + 1 :]
    assert weightfiles.digest_of(other) != weightfiles.digest_of(text)


def test_a_manifest_that_was_changed_with_the_file_is_not_trusted(tmp_path: Path) -> None:
    model(tmp_path)
    wanted = digest_of(tmp_path)
    put(tmp_path, {"tokenizer.json": b"{}"})
    weightfiles.write_manifest(str(tmp_path), manifest_of(tmp_path))
    message = refusal(tmp_path, wanted)
    assert f"digest must be {wanted} (got {digest_of(tmp_path)}" in message
    assert "these are other weights" in message


def test_other_names_and_sizes_are_found_before_anything_is_hashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model(tmp_path)
    wanted = digest_of(tmp_path)
    weightfiles.write_manifest(str(tmp_path), manifest_of(tmp_path))
    (tmp_path / "tokenizer.json").unlink()
    monkeypatch.delattr(weightfiles, "entries")
    assert "missing: tokenizer.json" in refusal(tmp_path, wanted)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense\n", 'line 1 must be "<sha256>  <size>  <path>"'),
        ("a" * 64 + "  01  x\n", "line 1 must be"),
        ("a" * 64 + " 1 x\n", "line 1 must be"),
        (("a" * 64 + "  1  x\n") * 2, "line 2 must not repeat x"),
        ("a" * 64 + "  1  x", "last line must be whole"),
        (b"\xff\n", "must be readable text"),
        ("", "not in the manifest: config.json"),
    ],
    ids=["nonsense", "zero", "blanks", "twice", "cut", "binary", "empty"],
)
def test_a_saved_manifest_that_is_none(tmp_path: Path, text: object, message: str) -> None:
    model(tmp_path)
    put(tmp_path, {MANIFEST: text})
    assert message in refusal(tmp_path, None)


def test_a_renamed_file_is_called_so(tmp_path: Path) -> None:
    model(tmp_path)
    weightfiles.write_manifest(str(tmp_path), manifest_of(tmp_path))
    (tmp_path / "tokenizer.json").rename(tmp_path / "t.json")
    assert "(got renamed: tokenizer.json to t.json)" in refusal(tmp_path, None)


def test_many_differences_are_counted(tmp_path: Path) -> None:
    model(tmp_path)
    weightfiles.write_manifest(str(tmp_path), manifest_of(tmp_path))
    put(tmp_path, {f"new-{i}": b"%d" % i for i in range(9)})
    message = refusal(tmp_path, None)
    assert "not in the manifest: new-0, new-1, new-2, new-3, new-4 and 4 more" in message


def test_progress_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(weightfiles, "PROGRESS_S", 0.0)
    weightfiles.verified(str(model(tmp_path)), None)
    assert "tramontane-weights event=hashing done=0.0GiB of=0.0GiB rate=" in capsys.readouterr().err
