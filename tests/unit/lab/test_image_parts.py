"""What is fetched for an image, and what is said about it."""

import hashlib
import json
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tramontane.lab.bundle.cli import of_python
from tramontane.lab.image import debian
from tramontane.lab.image.debian import Apt, GoneError, Package
from tramontane.lab.image.oci import Image
from tramontane.lab.image.recipe import Base, Sieve
from tramontane.lab.image.sbom import write_sbom
from tramontane.lab.paths import LabError

LIBC = Package("libc6", "2.36-9", "aa" * 32)
ZLIB = Package("zlib1g", "1:1.2.13", "bb" * 32)
BASE = Base("bookworm", "amd64", "3.11", ("libc6", "zlib1g"), Sieve())


def test_a_lock_is_read_as_it_was_written(tmp_path: Path) -> None:
    debian.write_lock([LIBC, ZLIB], tmp_path / "lock")
    assert debian.read_lock(tmp_path / "lock") == (LIBC, ZLIB)


class Mirror(Apt):
    """A mirror with some packages, each file holding its version."""

    def __init__(self, folder: Path, *has: Package) -> None:
        self.base, self.folder, self.debs = BASE, folder, folder / "debs"
        self.debs.mkdir()
        self.has = {one.name: one for one in has}

    def _download(self, package: Package) -> Path:
        if self.has[package.name].version != package.version:
            raise GoneError(package, "E: Version was not found")
        path = self.folder / "draft"
        path.write_text(package.version)
        return path

    def candidate(self, name: str) -> Package:
        return self.has[name]


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def lock(monkeypatch: pytest.MonkeyPatch, *packages: Package) -> None:
    monkeypatch.setattr(debian, "read_lock", lambda: packages)


OLD = (Package("libc6", "old", sha("old")), Package("zlib1g", "old", sha("old")))
NEW = Package("zlib1g", "new", sha("new"))


def test_the_packages_of_the_lock_are_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock(monkeypatch, *OLD)
    packages, files = debian.collect(Mirror(tmp_path, *OLD))
    assert packages == OLD
    assert [path.read_text() for path in files.values()] == ["old", "old"]


def test_a_package_that_is_gone_ends_a_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock(monkeypatch, *OLD)
    with pytest.raises(LabError, match=r"must have zlib1g old, as base\.lock says"):
        debian.collect(Mirror(tmp_path, OLD[0], NEW))


def test_a_newer_one_is_taken_where_that_is_wanted_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock(monkeypatch, *OLD)
    said: list[str] = []
    mirror = Mirror(tmp_path, OLD[0], NEW)
    packages, files = debian.collect(mirror, accept_newer=True, say=said.append)
    assert packages == (OLD[0], NEW)
    assert files["zlib1g"].read_text() == "new"
    assert said == [
        "base: the mirror has no zlib1g old any more; taking new, so the digest is another one"
    ]


def test_a_file_that_is_not_what_the_lock_says_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock(monkeypatch, Package("libc6", "old", "00" * 32), OLD[1])
    with pytest.raises(LabError, match="libc6 old must have the SHA-256 0000"):
        debian.collect(Mirror(tmp_path, *OLD))


def test_a_lock_of_another_recipe_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock(monkeypatch, OLD[1], OLD[0])
    with pytest.raises(LabError, match=r"must name the packages of base\.toml in their order"):
        debian.collect(Mirror(tmp_path, *OLD))


@pytest.mark.parametrize(
    ("chosen", "security"),
    [
        ("http://mirror.example/debian", "http://mirror.example/debian-security"),
        (
            "http://snapshot.example/archive/debian/20261101T000000Z",
            "http://snapshot.example/archive/debian-security/20261101T000000Z",
        ),
    ],
)
def test_security_lies_beside_the_mirror(chosen: str, security: str) -> None:
    assert debian._security(chosen) == security


def test_the_machine_s_own_mirror_of_debian_is_taken() -> None:
    sources = (
        "http://a.example/debian-security/\nhttp://m.example/debian/\nhttp://z.example/tools/\n"
    )
    assert debian._mirror_of(sources) == "http://m.example/debian"
    with pytest.raises(LabError, match=r"must have a mirror of Debian .* by TRAMONTANE_DEBIAN"):
        debian._mirror_of("http://archive.example/ubuntu/\n")


IMAGE = Image("tramontane", "1.2.3", "amd64", ("true",), {}, "2026-01-02T03:04:05Z")


def metadata(site: Path, name: str, *lines: str) -> None:
    folder = site / f"{name}-1.dist-info"
    folder.mkdir(parents=True)
    text = "\n".join(["Metadata-Version: 2.4", f"Name: {name}", "Version: 1.0+cpu", *lines, "", ""])
    (folder / "METADATA").write_text(text)


def test_the_bill_of_materials_follows_its_schema_and_states_what_packages_state(
    tmp_path: Path,
) -> None:
    site = tmp_path / "site"
    metadata(site, "Modern_One", "License-Expression: MIT OR Apache-2.0")
    metadata(site, "older", "License: BSD")
    metadata(site, "oldest", "Classifier: License :: OSI Approved :: MIT License")
    metadata(site, "silent")
    path = tmp_path / "bill.json"
    assert write_sbom(IMAGE, f"sha256:{'ab' * 32}", [LIBC, ZLIB], site, path) == 6
    text = path.read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    parts = {one["name"]: one for one in json.loads(text)["components"]}
    assert parts["zlib1g"]["purl"] == "pkg:deb/debian/zlib1g@1%3A1.2.13?arch=amd64"
    assert parts["modern-one"]["purl"] == "pkg:pypi/modern-one@1.0+cpu"
    assert {name: one.get("licenses") for name, one in parts.items()} == {
        "libc6": None,
        "zlib1g": None,
        "modern-one": [{"expression": "MIT OR Apache-2.0"}],
        "older": [{"license": {"name": "BSD"}}],
        "oldest": [{"license": {"name": "MIT License"}}],
        "silent": None,
    }


def test_the_same_image_has_the_same_bill(tmp_path: Path) -> None:
    for name, digest in (("a", "11"), ("b", "11"), ("c", "22")):
        write_sbom(IMAGE, f"sha256:{digest * 32}", [LIBC], tmp_path, tmp_path / name)
    a, b, c = ((tmp_path / name).read_text() for name in "abc")
    assert a == b
    assert a != c


LISTED = """\
numpy==2.4.6 ; python_full_version < '3.12' \\
    --hash=sha256:aa \\
    --hash=sha256:bb
numpy==2.5.5 ; python_full_version >= '3.12' \\
    --hash=sha256:cc
click==8.5.1 \\
    --hash=sha256:dd
colorama==0.4.6 ; sys_platform == 'win32' \\
    --hash=sha256:ee
"""


@pytest.mark.parametrize(("python", "numpy"), [("3.11", "2.4.6"), ("3.12", "2.5.5")])
def test_each_python_gets_the_packages_of_its_markers(python: str, numpy: str) -> None:
    found = list(of_python(LISTED, python))
    assert [one.split()[0] for one in found] == [f"numpy=={numpy}", "click==8.5.1"]
    assert found[1] == "click==8.5.1 \\\n    --hash=sha256:dd\n"
