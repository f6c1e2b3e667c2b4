"""Build the images: packages, trees, layers, archives, bills of materials.

1. Debian's packages, by the lock; the base's tree and layer, once for both images
2. for each image the packages of uv.lock, then our code: a layer each
3. the archive, and the bill of materials of what is in it
"""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tramontane.lab.image import debian, python, tree
from tramontane.lab.image.layer import Layer, write_layer
from tramontane.lab.image.oci import Image, write_archive
from tramontane.lab.image.recipe import (
    IMAGES,
    ROOT,
    Base,
    Recipe,
    project_version,
    read_base,
    read_recipe,
)
from tramontane.lab.image.sbom import write_sbom

OUT = ROOT / "build" / "images"
_SOURCE = "https://tramontane.dev"
_MIB = 1 << 20
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Built:
    """A built image, and where its files are."""

    name: str
    version: str
    digest: str
    archive: Path
    sbom: Path
    layers: tuple[Layer, ...]

    @property
    def reference(self) -> str:
        """The line of images.txt: name, tag and digest, without a registry."""
        return f"{self.name}:{self.version}@{self.digest}"


@dataclass(frozen=True, slots=True)
class Stand:
    """The checkout as labels tell it."""

    revision: str
    created: str  # RFC 3339

    @classmethod
    def here(cls) -> "Stand":
        """Return the commit and its time; SOURCE_DATE_EPOCH overrides the time."""
        revision = _git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
        seconds = os.environ.get("SOURCE_DATE_EPOCH") or _git("log", "-1", "--format=%ct") or "0"
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(seconds)))
        return cls(revision or "unknown", created)


def build(
    out: Path = OUT,
    names: Iterable[str] = IMAGES,
    *,
    accept_newer: bool = False,
    say: Say = lambda _: None,
) -> tuple[Built, ...]:
    """Build images into a folder, which is emptied; return what was built.

    With `accept_newer` a Debian package that the mirror has replaced is taken as it is there now.

    Raises:
        LabError: something is missing on this machine, or cannot be fetched.
    """
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="tramontane-image-") as scratch:
        site = _Site(Path(scratch), out, read_base(), say)
        site.lay_base(accept_newer=accept_newer)
        built = tuple(site.build(read_recipe(name)) for name in names)
    (out / "images.txt").write_text("".join(f"{one.reference}\n" for one in built))
    return built


class _Site:
    """Where images are built: above one base, from one state of the checkout."""

    def __init__(self, scratch: Path, out: Path, base: Base, say: Say) -> None:
        self._scratch, self._out, self._base, self._say = scratch, out, base, say
        self._root = scratch / "base"
        self._stand, self._version = Stand.here(), project_version()
        self._packages: tuple[debian.Package, ...] = ()
        self._ground: Layer

    def lay_base(self, *, accept_newer: bool) -> None:
        """Make the layer that all images share."""
        apt = debian.Apt(self._base)
        self._packages, debs = debian.collect(apt, accept_newer=accept_newer, say=self._say)
        tree.base_tree(self._base, debs, self._root)
        path = self._scratch / "base.tar.gz"
        self._ground = write_layer(self._root, path, _made_of("base.lock"))
        suite, sizes = self._base.suite, _sizes([self._ground])
        self._say(f"base: {len(debs)} packages of Debian {suite}, {sizes}")

    def build(self, recipe: Recipe) -> Built:
        """Build one image."""
        base, version = self._base, self._version
        scratch = self._scratch / recipe.name
        packages, deps, code = scratch / "packages", scratch / "deps", scratch / "code"
        python.install(python.requirements(recipe.without), base.python, packages)
        tree.deps_tree(base, self._root, packages, recipe, deps)
        tree.code_tree(base, self._root, recipe, version, code)
        layers = (
            self._ground,
            write_layer(deps, scratch / "deps.tar.gz", _made_of("uv.lock")),
            write_layer(code, scratch / "code.tar.gz", _made_of(f"{recipe.name}.toml")),
        )
        image = Image(
            name=recipe.name,
            version=version,
            architecture=base.architecture,
            command=recipe.command,
            labels=_labels(recipe, self._stand, version),
            created=self._stand.created,
        )
        archive = self._out / f"{recipe.name}-{version}.oci.tar"
        sbom = self._out / f"{recipe.name}-{version}.cdx.json"
        digest = write_archive(image, layers, archive)
        listed = write_sbom(image, digest, self._packages, tree.site(base, deps), sbom)
        self._say(f"{recipe.name}: {digest}, {listed} packages, {_sizes(layers)}")
        return Built(recipe.name, version, digest, archive, sbom, layers)


def _labels(recipe: Recipe, stand: Stand, version: str) -> dict[str, str]:
    said = {
        "title": recipe.title,
        "description": recipe.description,
        "version": version,
        "revision": stand.revision,
        "created": stand.created,
        "licenses": "Apache-2.0",
        "url": _SOURCE,
        "vendor": "Tramontane",
    }
    return {f"org.opencontainers.image.{key}": value for key, value in said.items()}


def _made_of(file: str) -> str:
    return f"tramontane.lab.image: {file}"


def _sizes(layers: Sequence[Layer]) -> str:
    packed = sum(one.size for one in layers) / _MIB
    unpacked = sum(one.unpacked for one in layers) / _MIB
    return f"{packed:.1f} MiB packed, {unpacked:.1f} MiB unpacked"


def _git(*words: str) -> str:
    """Ask git about the checkout; empty where there is none."""
    git = shutil.which("git")
    if git is None:
        return ""
    done = subprocess.run(  # noqa: S603 - the user's own git, and it is only asked
        [git, *words],
        cwd=ROOT,
        env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() if done.returncode == 0 else ""
