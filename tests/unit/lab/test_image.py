"""The images' recipes, layers and archives: what goes in, and that it is the same each time."""

import gzip
import hashlib
import json
import os
import tarfile
from pathlib import Path

import pytest

from tramontane.lab.image import tree
from tramontane.lab.image.layer import Layer, write_layer
from tramontane.lab.image.oci import Image, write_archive
from tramontane.lab.image.recipe import IMAGES, RECIPES, ROOT, Sieve, read_base, read_recipe
from tramontane.lab.image.smoke import unpack


@pytest.mark.parametrize(
    ("glob", "path", "dropped"),
    [
        pytest.param("numpy/f2py/**", "numpy/f2py/auxfuncs.py", True, id="below"),
        pytest.param("numpy/f2py/**", "numpy/f2python.py", False, id="only-below"),
        pytest.param("**/tests/**", "numpy/ma/tests/test_core.py", True, id="anywhere"),
        pytest.param("**/tests/**", "tests/__init__.py", True, id="at-the-top"),
        pytest.param("**/tests/**", "numpy/mytests/x.py", False, id="whole-names"),
        pytest.param("usr/bin/*", "usr/bin/x/y", False, id="one-level"),
        pytest.param("a.b", "a-b", False, id="a-dot-is-a-dot"),
        pytest.param("kubernetes/client/models/*", "kubernetes/client/models/a.py", True, id="in"),
    ],
)
def test_a_star_stays_within_a_name_and_two_do_not(glob: str, path: str, dropped: bool) -> None:
    assert Sieve(strip=(glob,)).drops(path) is dropped


def test_what_is_kept_is_kept_whatever_is_stripped() -> None:
    sieve = Sieve(strip=("usr/bin/**",), keep=("usr/bin/python3.11",))
    assert sieve.drops("usr/bin/perl")
    assert not sieve.drops("usr/bin/python3.11")


def test_the_lock_names_the_packages_of_the_base() -> None:
    lines = [line.split() for line in (RECIPES / "base.lock").read_text().splitlines()]
    assert [words[0] for words in lines if words[0] != "#"] == list(read_base().packages)


@pytest.mark.parametrize("name", IMAGES)
def test_a_recipe_names_what_there_is(name: str) -> None:
    recipe = read_recipe(name)
    assert recipe.name == name
    assert [one for one in (*recipe.sources, *recipe.files) if not (ROOT / one).exists()] == []
    for target in recipe.scripts.values():
        module = target.partition(":")[0].replace(".", "/")
        assert any((ROOT / root / f"{module}.py").is_file() for root in ("operator", "lab"))


def _tree(folder: Path, *, upside_down: bool = False) -> Path:
    files = {"usr/bin/tool": 0o755, "usr/lib/data.txt": 0o644, "etc/passwd": 0o600, "tmp/": 0}
    for name, mode in sorted(files.items(), reverse=upside_down):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir()
        else:
            path.write_text(name)
            path.chmod(mode)
    (folder / "bin").symlink_to("usr/bin")
    return folder


def test_a_layer_does_not_know_when_and_by_whom_it_was_made(tmp_path: Path) -> None:
    first = write_layer(_tree(tmp_path / "a"), tmp_path / "a.tar.gz", "test")
    other = _tree(tmp_path / "b", upside_down=True)
    for path in other.rglob("*"):
        os.utime(path, (1, 1), follow_symlinks=False)
    second = write_layer(other, tmp_path / "b.tar.gz", "test")
    assert (first.digest, first.diff_id) == (second.digest, second.diff_id)
    (other / "etc" / "passwd").write_text("changed")
    assert write_layer(other, tmp_path / "c.tar.gz", "test").digest != first.digest


def test_a_layer_belongs_to_root_and_has_two_modes(tmp_path: Path) -> None:
    layer = write_layer(_tree(tmp_path / "a"), tmp_path / "a.tar.gz", "test")
    with tarfile.open(layer.path) as archive:
        entries = {one.name: one for one in archive}
    assert {(one.uid, one.gid, one.uname, one.mtime) for one in entries.values()} == {
        (0, 0, "", 315532800)
    }
    modes = {name: one.mode for name, one in entries.items() if not one.issym()}
    assert modes == {
        "etc": 0o755, "etc/passwd": 0o644, "tmp": 0o1777, "usr": 0o755, "usr/bin": 0o755,
        "usr/bin/tool": 0o755, "usr/lib": 0o755, "usr/lib/data.txt": 0o644,
    }  # fmt: skip
    assert entries["bin"].linkname == "usr/bin"


@pytest.fixture
def layer(tmp_path: Path) -> Layer:
    return write_layer(_tree(tmp_path / "tree"), tmp_path / "layer.tar.gz", "test")


IMAGE = Image(
    name="tramontane",
    version="1.2.3",
    architecture="amd64",
    command=("tramontane", "--help"),
    labels={"org.opencontainers.image.version": "1.2.3"},
    created="2026-01-02T03:04:05Z",
)


def test_every_blob_of_an_archive_has_its_digest_for_a_name(tmp_path: Path, layer: Layer) -> None:
    path = tmp_path / "image.tar"
    digest = write_archive(IMAGE, [layer], path)
    with tarfile.open(path) as archive:
        files = {one.name: archive.extractfile(one) for one in archive}
        content = {name: file.read() for name, file in files.items() if file is not None}
    blobs = {name: data for name, data in content.items() if name.startswith("blobs/")}
    assert len(blobs) == 3
    assert all(name.endswith(hashlib.sha256(data).hexdigest()) for name, data in blobs.items())
    [entry] = json.loads(content["index.json"])["manifests"]
    assert entry["digest"] == digest
    assert entry["annotations"] == {"org.opencontainers.image.ref.name": "1.2.3"}
    manifest = json.loads(blobs[f"blobs/{digest.replace(':', '/')}"])
    assert [one["size"] for one in manifest["layers"]] == [layer.size]
    packed = blobs[f"blobs/{layer.digest.replace(':', '/')}"]
    assert layer.diff_id == f"sha256:{hashlib.sha256(gzip.decompress(packed)).hexdigest()}"


def test_an_image_runs_as_a_user_with_a_number(tmp_path: Path, layer: Layer) -> None:
    path = tmp_path / "image.tar"
    write_archive(IMAGE, [layer], path)
    with tarfile.open(path) as archive:
        blobs = [archive.extractfile(one) for one in archive if one.name.startswith("blobs/")]
        texts = [file.read() for file in blobs if file is not None]
    [config] = [json.loads(one) for one in texts if b'"rootfs"' in one]
    assert config["config"]["User"] == "65532:65532"
    assert config["config"]["Cmd"] == ["tramontane", "--help"]
    assert config["rootfs"]["diff_ids"] == [layer.diff_id]


def test_an_archive_is_unpacked_as_it_was_packed(tmp_path: Path, layer: Layer) -> None:
    write_archive(IMAGE, [layer], tmp_path / "image.tar")
    environment = unpack(tmp_path / "image.tar", tmp_path / "root")
    assert environment["PATH"] == "/opt/tramontane/bin:/usr/bin"
    assert (tmp_path / "root" / "bin" / "tool").read_text() == "usr/bin/tool"


@pytest.mark.parametrize(
    ("name", "merged"),
    [
        ("./lib/x86_64-linux-gnu/libc.so.6", "usr/lib/x86_64-linux-gnu/libc.so.6"),
        ("./lib64/ld-linux-x86-64.so.2", "usr/lib64/ld-linux-x86-64.so.2"),
        ("./usr/lib/os-release", "usr/lib/os-release"),
        ("./library/x", "library/x"),
    ],
)
def test_paths_of_packages_are_below_usr(name: str, merged: str) -> None:
    assert tree._merged(name) == merged
