"""Put a bundle together: the parts, the checksums, the tar.

1. images, unless those of this checkout are given
2. chart, CRDs, rules, dashboards, manual, command line
3. what is in it and what it needs, checksums of everything, and one tar
"""

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from string import Template

from tramontane.lab.bundle import parts
from tramontane.lab.bundle.cli import PYTHONS, cli
from tramontane.lab.image.build import Built, build
from tramontane.lab.image.layer import sha256_of, write_tar
from tramontane.lab.image.recipe import RECIPES, ROOT, project_version

OUT = ROOT / "build"
SUMS = "SHA256SUMS"
_MIB = 1 << 20


def pack(
    out: Path = OUT,
    *,
    images: Sequence[Built] | None = None,
    accept_newer: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Path:
    """Write the bundle of this checkout into a folder; return its file.

    Raises:
        LabError: a part cannot be made.
    """
    version = project_version()
    name = f"tramontane-{version}-airgap"
    if images is None:
        images = build(out / "images", accept_newer=accept_newer, say=say)
    with tempfile.TemporaryDirectory(prefix="tramontane-bundle-") as folder:
        scratch, top = Path(folder), Path(folder) / name
        top.mkdir()
        _images(images, top)
        package = parts.chart(version, scratch, top / "chart")
        parts.crds(top / "crds.yaml")
        groups = parts.rules(package, top / "rules" / "alerts.yaml")
        boards = parts.dashboards(top / "dashboards")
        parts.manual(top / "docs")
        wheels = cli(scratch, top / "cli")
        say(
            f"bundle: chart, {groups} groups of rules, {boards} dashboards, manual, {wheels} wheels"
        )
        _texts(version, top)
        _sums(top)
        path = out / f"{name}.tar"
        files = {str(one.relative_to(scratch)): one for one in _files(top)}
        write_tar({**files}, path)
    say(f"bundle: {path.name}, {path.stat().st_size / _MIB:.0f} MiB, {sha256_of(path)}")
    return path


def _images(images: Sequence[Built], top: Path) -> None:
    for folder in ("images", "sbom"):
        (top / folder).mkdir()
    for one in images:
        shutil.copyfile(one.archive, top / "images" / one.archive.name)
        shutil.copyfile(one.sbom, top / "sbom" / one.sbom.name)
    head = "# Images of this bundle. Nothing else is pulled unless you name it in a manifest.\n"
    (top / "images.txt").write_text(head + "".join(f"{one.reference}\n" for one in images))


def _texts(version: str, top: Path) -> None:
    text = Template((RECIPES / "BUNDLE.md").read_text())
    (top / "README.md").write_text(text.substitute(version=version, pythons=", ".join(PYTHONS)))
    shutil.copyfile(ROOT / "LICENSE", top / "LICENSE")
    shutil.copy(RECIPES / "load.sh", top)


def _sums(top: Path) -> None:
    rows = [f"{sha256_of(one).partition(':')[2]}  {one.relative_to(top)}\n" for one in _files(top)]
    (top / SUMS).write_text("".join(rows))


def _files(top: Path) -> list[Path]:
    return sorted(one for one in top.rglob("*") if one.is_file())
