"""The programs of a control plane: found where they are, built from Go modules where not.

Each is looked for in this order: `KUBEBUILDER_ASSETS`, the cache (`bin/`), `PATH`. What
stands in the cache was built from exactly the go.sum of this checkout; what is found
elsewhere must say a version that the lab was tried with, or `unfit` says why it will not do.
"""

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tramontane.lab.paths import GO_MODULES, cache_dir

Version = tuple[int, int]

KUBERNETES = "1.35.4"
MENDING = "_mended"
_OURS = "this checkout's own build"


@dataclass(frozen=True, slots=True)
class Edit:
    """What stands for other words, which are once in a file of a module that we mend."""

    file: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Module:
    """One Go module under `lab/go` and how its commands are linked.

    Attributes:
        mends: path of a module of which some files are replaced by ours, those below `_mended`.
        edits: what is replaced within one of its files.
    """

    name: str
    version: str
    stamp: str  # the linker's -X flags that make a command tell its own version
    tags: str = ""  # build tags, comma-separated
    mends: str = ""
    edits: tuple[Edit, ...] = ()

    @property
    def folder(self) -> Path:
        """Where its go.mod lies."""
        return GO_MODULES / self.name

    @property
    def mending(self) -> list[Path]:
        """Return the files that stand in for others, sorted."""
        return sorted((self.folder / MENDING).rglob("*.go"))

    def key(self) -> str:
        """Name exactly this source: version, a digest of our files, the tags if there are any."""
        ours = [path.read_bytes() for path in (self.folder / "go.sum", *self.mending)]
        ours += [repr(edit).encode() for edit in self.edits]
        digest = hashlib.sha256(b"".join(ours)).hexdigest()[:12]
        return "-".join(filter(None, (self.name, self.version, digest, self.tags)))


@dataclass(frozen=True, slots=True)
class Binary:
    """One command: where its source is and which foreign versions will do as well.

    Attributes:
        must_be: the versions that are usable, in words.
    """

    name: str
    module: Module
    package: str
    version_args: tuple[str, ...]
    must_be: str
    usable: Callable[[Version], bool]
    packages: int  # compiled for it on a cold cache, in the order of BINARIES
    expected_s: int  # seconds that takes on two cores

    @property
    def stamp_file(self) -> Path:
        """Say where the key of the source it was built from is kept."""
        return bin_dir() / ".built" / self.name

    def key(self) -> str:
        """Name exactly its source: that of its module, and our own where it has some."""
        if not self.package.startswith("."):
            return self.module.key()
        sources = sorted((self.module.folder / self.package).glob("*.go"))
        digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]
        return f"{self.module.key()}-{digest}"


_component = "k8s.io/component-base/version"
# KWOK 0.8.0 begins with pods or with nodes, by chance. If with pods, it never asks for these who
# holds their node's Lease, and pods of a blade without power go on starting and ending.
_WHO_HOLDS = Edit(
    "pkg/kwok/controllers/controller.go",
    "ReadOnlyFunc:  c.readOnlyFunc,",
    "ReadOnlyFunc: func(n string) bool { return c.readOnlyFunc != nil && c.readOnlyFunc(n) },",
)
MODULES = {
    module.name: module
    for module in (
        Module("etcd", "3.6.16", ""),
        Module(
            "kubernetes",
            KUBERNETES,
            f"-X {_component}.gitVersion=v{KUBERNETES}"
            f" -X {_component}.gitMajor=1 -X {_component}.gitMinor=35",
        ),
        Module("coredns", "1.14.7", ""),
        Module(
            "kwok",
            "0.8.0",
            "-X sigs.k8s.io/kwok/pkg/consts.Version=v0.8.0",
            mends="sigs.k8s.io/kwok",
            edits=(_WHO_HOLDS,),
        ),
        Module("helm", "4.3.1", "-X helm.sh/helm/v4/internal/version.version=v4.3.1"),
        # With the libraries of Helm 4's go.sum, so that a build of both compiles them once.
        # It knows which Kubernetes it is for by flags only.
        Module(
            "helm3",
            "3.22.0",
            "-X helm.sh/helm/v3/internal/version.version=v3.22.0"
            " -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor=1"
            " -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor=37"
            " -X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMajor=1"
            " -X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMinor=37",
        ),
        # Without service discovery, which nothing here uses: 1,109 packages instead of 1,350.
        Module(
            "prometheus",
            "0.315.1",
            "-X github.com/prometheus/common/version.Version=3.15.1",
            "remove_all_sd",
        ),
    )
}


def _kubernetes(name: str, *args: str, packages: int, expected_s: int, skew: int = 0) -> Binary:
    """Describe a command of Kubernetes; `skew` is how many minors it may be off."""
    return Binary(
        name,
        MODULES["kubernetes"],
        f"k8s.io/kubernetes/cmd/{name}",
        args or ("--version",),
        f"1.{35 - skew} to 1.{35 + skew}" if skew else "1.35",
        lambda version: version[0] == 1 and abs(version[1] - 35) <= skew,
        packages,
        expected_s,
    )


BINARIES = {
    binary.name: binary
    for binary in (
        Binary(
            "etcd",
            MODULES["etcd"],
            "go.etcd.io/etcd/server/v3",
            ("--version",),
            "3.5 or newer",
            lambda version: version >= (3, 5),
            packages=580,
            expected_s=40,
        ),
        _kubernetes("kube-apiserver", packages=1450, expected_s=165),
        _kubernetes("kube-controller-manager", packages=370, expected_s=45),
        _kubernetes("kube-scheduler", packages=6, expected_s=10),
        _kubernetes("kubectl", "version", "--client", packages=200, expected_s=30, skew=1),
        _kubernetes("kubelet", packages=260, expected_s=60),
        Binary(
            "deviceplugin",
            MODULES["kubernetes"],
            "./deviceplugin",
            ("--version",),
            _OURS,
            lambda _: False,  # what goes by this name elsewhere is not ours
            packages=5,
            expected_s=3,
        ),
        Binary(
            "kwok",
            MODULES["kwok"],
            "sigs.k8s.io/kwok/cmd/kwok",
            ("--version",),
            _OURS,
            lambda _: False,  # elsewhere its heartbeats may stop (lab/go/kwok/_mended)
            packages=660,
            expected_s=75,
        ),
        Binary(
            "coredns",
            MODULES["coredns"],
            ".",
            ("-version",),
            "1.11 or newer",
            lambda version: version >= (1, 11),
            packages=420,
            expected_s=80,
        ),
        Binary(
            "helm",
            MODULES["helm"],
            "helm.sh/helm/v4/cmd/helm",
            ("version", "--short"),
            "4",
            lambda version: version[0] == 4,  # noqa: PLR2004 - Helm 4, whose flags the tests use
            packages=900,
            expected_s=180,
        ),
        Binary(
            "helm3",
            MODULES["helm3"],
            "helm.sh/helm/v3/cmd/helm",
            ("version", "--short"),
            "3",
            lambda version: version[0] == 3,  # noqa: PLR2004 - Helm 3
            packages=51,
            expected_s=15,
        ),
        Binary(
            "promtool",
            MODULES["prometheus"],
            "github.com/prometheus/prometheus/cmd/promtool",
            ("--version",),
            "3",
            lambda version: version[0] == 3,  # noqa: PLR2004 - Prometheus 3
            packages=900,
            expected_s=130,
        ),
        Binary(
            "prometheus",
            MODULES["prometheus"],
            "github.com/prometheus/prometheus/cmd/prometheus",
            ("--version",),
            "3",
            lambda version: version[0] == 3,  # noqa: PLR2004 - Prometheus 3
            packages=160,
            expected_s=60,
        ),
    )
}

REAL_NODES = ("kubelet", "deviceplugin", "coredns")
CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kwok")


def version_in(text: str) -> str | None:
    """Return the first version in what a command printed about itself.

    >>> version_in("Kubernetes v1.35.4")
    '1.35.4'
    """
    found = re.search(r"\bv?(\d+\.\d+\.\d+)", text)
    return found[1] if found else None


def minor_of(version: str) -> Version:
    """Return (major, minor).

    >>> minor_of("1.35.4")
    (1, 35)
    """
    major, minor, *_ = version.split(".")
    return int(major), int(minor)


def bin_dir() -> Path:
    """Return the folder that holds what was built; it serves as KUBEBUILDER_ASSETS too."""
    return cache_dir() / "bin"


def built(binary: Binary) -> Path | None:
    """Return the cached build of exactly this checkout's version, if there is one."""
    path = bin_dir() / binary.name
    if not (binary.stamp_file.is_file() and os.access(path, os.X_OK)):
        return None
    return path if binary.stamp_file.read_text() == binary.key() else None


def _why_not(binary: Binary, path: Path) -> str:
    """Ask a command on the machine for its version; return why it will not do, empty if it will."""
    try:
        done = subprocess.run(  # noqa: S603 - the user's own PATH
            [path, *binary.version_args], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        version = None
    else:
        version = version_in(done.stdout + done.stderr)
    if version is not None and binary.usable(minor_of(version)):
        return ""
    return f"{path} is {version or 'of an unknown version'}, must be {binary.must_be}"


def _in_assets(name: str) -> Path | None:
    """Return the command of that name in KUBEBUILDER_ASSETS, usable or not."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    path = Path(assets) / name if assets else None
    return path if path is not None and os.access(path, os.X_OK) else None


def _on_path(name: str) -> Path | None:
    """Return the command of that name on PATH, usable or not."""
    path = shutil.which(name)
    return Path(path) if path else None


def find(name: str) -> Path | None:
    """Return where the command `name` is, or None when it must be built."""
    binary = BINARIES[name]
    asset = _in_assets(name)
    if asset is not None and not _why_not(binary, asset):
        return asset
    if (cached := built(binary)) is not None:
        return cached
    path = _on_path(name)
    return path if path is not None and not _why_not(binary, path) else None


def unfit(binary: Binary) -> Iterator[str]:
    """Yield why what the machine has by the command's name will not do, one by one.

    `/usr/bin/kubectl is 1.32.4, must be 1.34 to 1.36`
    """
    for path in dict.fromkeys((_in_assets(binary.name), _on_path(binary.name))):
        if path is not None and (why := _why_not(binary, path)):
            yield why


def missing(names: Iterable[str] = CONTROL_PLANE) -> list[Binary]:
    """Return those of the commands that are nowhere on this machine."""
    return [BINARIES[name] for name in names if find(name) is None]


def ensure(names: Sequence[str] = CONTROL_PLANE) -> dict[str, Path]:
    """Return a path for each command, building what is missing (minutes, once).

    Raises:
        BuildFailed: Go is missing or too old, or a build failed.
    """
    found = {name: path for name in names if (path := find(name))}
    absent = [BINARIES[name] for name in names if name not in found]
    if absent:
        from tramontane.lab.gobuild import build  # noqa: PLC0415 - rich is slow to import

        build(absent)
        found |= {binary.name: bin_dir() / binary.name for binary in absent}
    return found
