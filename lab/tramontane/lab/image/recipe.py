"""What goes into the images: `images/base.toml`, and one file for each image."""

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[4]
RECIPES = ROOT / "images"
IMAGES = ("tramontane", "tramontane-agent")


@dataclass(frozen=True, slots=True)
class Sieve:
    """Which paths of a tree are left out: those that `strip` matches and `keep` does not."""

    strip: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()

    def drops(self, path: str) -> bool:
        """Tell whether a path, relative to the tree, is left out."""
        return _matches(self.strip, path) and not _matches(self.keep, path)


@dataclass(frozen=True, slots=True)
class Base:
    """The first layer: packages of one Debian suite."""

    suite: str
    architecture: str
    python: str
    packages: tuple[str, ...]
    sieve: Sieve


@dataclass(frozen=True, slots=True)
class Recipe:
    """One image above the base.

    Attributes:
        sources: trees and files of the checkout that are its code.
        without: packages that the project asks for, and this image leaves out.
        scripts: commands on PATH, as "module:function".
        files: further files of the checkout, and where they lie beside the modules.
        smoke: commands that must end well in the image.
    """

    name: str
    title: str
    description: str
    sources: tuple[str, ...]
    without: tuple[str, ...]
    sieve: Sieve
    command: tuple[str, ...]
    smoke: tuple[tuple[str, ...], ...]
    scripts: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


def read_base(folder: Path = RECIPES) -> Base:
    """Return the recipe of the first layer."""
    raw = tomllib.loads((folder / "base.toml").read_text())
    sieve = Sieve(tuple(raw["strip"]), tuple(raw["keep"]))
    packages = tuple(raw["packages"])
    return Base(raw["suite"], raw["architecture"], raw["python"], packages, sieve)


def read_recipe(name: str, folder: Path = RECIPES) -> Recipe:
    """Return the recipe of an image."""
    raw = tomllib.loads((folder / f"{name}.toml").read_text())
    return Recipe(
        name=raw["name"],
        title=raw["title"],
        description=raw["description"],
        sources=tuple(raw["sources"]),
        without=tuple(raw["without"]),
        sieve=Sieve(tuple(raw["strip"]), tuple(raw["keep"])),
        command=tuple(raw["command"]),
        smoke=tuple(tuple(one) for one in raw["smoke"]),
        scripts=raw["scripts"],
        files=raw["files"],
    )


def project_version() -> str:
    """Return the version in pyproject.toml: that of images, chart and bundle."""
    raw = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return str(raw["project"]["version"])


def _matches(globs: Iterable[str], path: str) -> bool:
    return any(re.fullmatch(_expression(glob), path) for glob in globs)


def _expression(glob: str) -> str:
    """Return a glob as a regular expression: `*` stays within a name, `**` does not.

    >>> bool(re.fullmatch(_expression("**/tests/**"), "numpy/ma/tests/test_core.py"))
    True
    """
    parts = re.split(r"(\*\*/|\*\*|\*)", glob)
    meaning = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*"}
    return "".join(meaning.get(part, re.escape(part)) for part in parts)
