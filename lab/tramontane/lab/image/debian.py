"""Fetch the Debian packages of the base: by apt, which checks signatures, and by base.lock.

apt gets a configuration, lists and a cache of its own, so neither root nor the machine's own
suite matter. A package is taken in the version of the lock; where the mirror no longer has it,
because Debian has mended something since, a build says so and stops, unless it may take the newer
one. Digests of what was fetched are compared with the lock's.
"""

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from tramontane.lab.image.recipe import RECIPES, Base
from tramontane.lab.paths import LabError, cache_dir

LOCK = RECIPES / "base.lock"
APT_PACKAGES = "apt dpkg debian-archive-keyring"
# Another mirror of Debian than the machine's own, or an archive of its past days.
ENV_MIRROR = "TRAMONTANE_DEBIAN"
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_TIMEOUT_S = 600


@dataclass(frozen=True, slots=True)
class Package:
    """One package in exactly one version."""

    name: str
    version: str
    sha256: str

    @property
    def file(self) -> str:
        """The name that apt gives the file."""
        return f"{self.name}_{self.version.replace(':', '%3a')}"


def read_lock(path: Path = LOCK) -> tuple[Package, ...]:
    """Return what the lock names, in its order."""
    lines = (line.split("#")[0].split() for line in path.read_text().splitlines())
    return tuple(Package(*words) for words in lines if words)


def write_lock(packages: Iterable[Package], path: Path = LOCK) -> None:
    """Write the lock."""
    head = (
        "# Written by `python -m tramontane.lab.image lock`: name, version, SHA-256 of the .deb.\n"
    )
    rows = (f"{one.name} {one.version} {one.sha256}\n" for one in packages)
    path.write_text(head + "".join(rows))


def lacking() -> list[str]:
    """Return which commands and files a build needs and this machine lacks."""
    commands = [name for name in ("apt-get", "apt-cache", "dpkg-deb") if not shutil.which(name)]
    return commands + ([] if _KEYRING.is_file() else [str(_KEYRING)])


class GoneError(LabError):
    """The mirror has no such version any more."""

    def __init__(self, package: Package, said: str) -> None:
        self.short = f"the mirror has no {package.name} {package.version} any more"
        super().__init__(
            f"image: the mirror must have {package.name} {package.version}, as base.lock says (got:"
            f" {said}); `python -m tramontane.lab.image lock` takes what it has now into the lock,"
            f" {ENV_MIRROR}=<URL of an archive of Debian's past days> finds the old one"
        )


class Apt:
    """apt with lists and a cache of our own; nothing of the machine's is read but the keyring."""

    def __init__(self, base: Base, folder: Path | None = None) -> None:
        self.base = base
        self.folder = folder or cache_dir() / "debian" / base.suite
        self.debs = self.folder / "debs"
        if lacks := lacking():
            raise LabError(
                f"image: apt and Debian's keys must be here (got none of: {', '.join(lacks)});"
                f" apt-get install {APT_PACKAGES}"
            )

    def newest(self) -> tuple[Package, ...]:
        """Ask the mirror; return the newest of each package of the base.

        Raises:
            LabError: the mirror does not answer, or lacks one.
        """
        self._update()
        return tuple(self.candidate(name) for name in self.base.packages)

    def fetch(self, package: Package) -> Path:
        """Return the file of a package, from our cache or from the mirror.

        Raises:
            LabError: nobody has it, or it is not what the lock says.
        """
        path = self.debs / f"{package.file}_{package.sha256[:12]}.deb"
        if not path.is_file():
            draft = self._download(package)
            if (got := _sha256(draft)) != package.sha256:
                raise LabError(
                    f"image: {package.name} {package.version} must have the SHA-256"
                    f" {package.sha256} (got {got}); whoever serves it has changed it"
                )
            draft.replace(path)
        return path

    def _download(self, package: Package) -> Path:
        drafts = self.folder / "drafts"
        shutil.rmtree(drafts, ignore_errors=True)
        drafts.mkdir(parents=True)
        self.debs.mkdir(parents=True, exist_ok=True)
        wanted = f"{package.name}={package.version}"
        for refresh in (self._update_once, self._update):  # what we know may be old
            refresh()
            done = self._run("apt-get", "download", wanted, cwd=drafts)
            if found := sorted(drafts.glob("*.deb")):
                return found[0]
        raise GoneError(package, done.stderr.strip().splitlines()[-1])

    def candidate(self, name: str) -> Package:
        """Return the newest version that the lists have.

        Raises:
            LabError: there is no such package.
        """
        done = self._run("apt-cache", "show", "--no-all-versions", name)
        fields = dict(re.findall(r"^(Version|SHA256): (\S+)$", done.stdout, re.MULTILINE))
        if len(fields) != 2:  # noqa: PLR2004 - version and digest
            raise LabError(
                f"image: {self.base.suite} must have a package {name} (got:"
                f" {done.stderr.strip() or 'none'}); mend images/base.toml"
            )
        return Package(name, fields["Version"], fields["SHA256"])

    def _update_once(self) -> None:
        if not any((self.folder / "lists").glob("*Packages*")):
            self._update()

    def _update(self) -> None:
        self._write()
        done = self._run("apt-get", "update", "-q", "--error-on=any")
        if done.returncode != 0:
            raise LabError(
                "image: Debian's mirror must answer (got:"
                f" {done.stderr.strip()[-300:]}); name another by {ENV_MIRROR}"
            )

    def _write(self) -> None:
        """Write apt's configuration and sources, and make its folders."""
        for name in ("lists/partial", "cache/archives/partial", "etc/preferences.d"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        mirror = os.environ.get(ENV_MIRROR, "").rstrip("/") or _mirror_of(_own_sources())
        security = _security(mirror)
        suite = self.base.suite
        (self.folder / "etc" / "sources.list").write_text(
            f"deb [signed-by={_KEYRING}] {mirror} {suite} main\n"
            f"deb [signed-by={_KEYRING}] {security} {suite}-security main\n"
        )
        self._config.write_text(_config(self.folder, self.base.architecture))

    @property
    def _config(self) -> Path:
        return self.folder / "apt.conf"

    def _run(self, *argv: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self._config.is_file():
            self._write()
        return subprocess.run(  # noqa: S603 - Debian's own tools
            argv,
            cwd=cwd or self.folder,
            env={**os.environ, "APT_CONFIG": str(self._config), "LC_ALL": "C"},
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )


def collect(
    apt: Apt, *, accept_newer: bool = False, say: Callable[[str], None] = lambda _: None
) -> tuple[tuple[Package, ...], dict[str, Path]]:
    """Fetch what the lock names; return the packages, and their files by name.

    Raises:
        LabError: the lock names others than the recipe, or one cannot be had.
    """
    locked = read_lock()
    if [one.name for one in locked] != list(apt.base.packages):
        raise LabError(
            "image: base.lock must name the packages of base.toml in their order (got others);"
            " run `python -m tramontane.lab.image lock`"
        )
    taken = []
    for package in locked:
        try:
            apt.fetch(package)
        except GoneError as gone:
            if not accept_newer:
                raise
            newer = apt.candidate(package.name)
            say(f"base: {gone.short}; taking {newer.version}, so the digest is another one")
            taken.append(newer)
        else:
            taken.append(package)
    return tuple(taken), {one.name: apt.fetch(one) for one in taken}


def _own_sources() -> str:
    """Return the addresses that the machine's own apt asks, one a line."""
    done = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"],  # noqa: S607 - the machine's own
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    return done.stdout


def _mirror_of(sources: str) -> str:
    """Return the first mirror of Debian among addresses.

    Raises:
        LabError: there is none.
    """
    for address in sorted(set(sources.split())):
        if address.rstrip("/").endswith("/debian"):
            return address.rstrip("/")
    raise LabError(
        "image: this machine's apt must have a mirror of Debian among its sources (got none);"
        f" name one by {ENV_MIRROR}"
    )


def _security(mirror: str) -> str:
    """Return where the security suite is: beside the mirror, as mirrors have it."""
    return re.sub(r"/debian(?=/|$)", "/debian-security", mirror)


def _config(folder: Path, architecture: str) -> str:
    places = {
        "Dir::State": folder,
        "Dir::State::lists": folder / "lists",
        "Dir::State::status": "/dev/null",
        "Dir::Cache": folder / "cache",
        "Dir::Etc": folder / "etc",
        "Dir::Etc::parts": "-",
        "Dir::Etc::sourceparts": "-",
        "APT::Architecture": architecture,
        "APT::Sandbox::User": "",
    }
    rows = [f'{key} "{value}";' for key, value in places.items()]
    return "\n".join([*rows, f'APT::Architectures {{ "{architecture}"; }};', ""])


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
