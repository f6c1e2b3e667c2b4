"""The parts of a bundle that come from the chart and the docs."""

import os
import shutil
from pathlib import Path
from typing import Any

import yaml

from tramontane.lab.binaries import ensure
from tramontane.lab.calls import call
from tramontane.lab.image.layer import MTIME
from tramontane.lab.image.recipe import ROOT
from tramontane.lab.manual import site
from tramontane.lab.paths import LabError, crd_dir

CHART = ROOT / "charts" / "tramontane"
_RULE = "PrometheusRule"


def chart(version: str, scratch: Path, out: Path) -> Path:
    """Package the chart into a folder; return the file, the same for the same chart.

    helm keeps the times of files, so it gets a copy in which all are the same.
    """
    copy = scratch / CHART.name
    shutil.copytree(CHART, copy)
    for path in (copy, *copy.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
        os.utime(path, (MTIME, MTIME))
    out.mkdir(parents=True, exist_ok=True)
    _helm("package", str(copy), "--version", version, "--app-version", version, "-d", str(out))
    return out / f"tramontane-{version}.tgz"


def crds(out: Path) -> None:
    """Write all CRDs into one file, for `kubectl apply --server-side`."""
    texts = [path.read_text() for path in sorted(crd_dir().glob("*.yaml"))]
    out.write_text("".join(f"---\n{text.removeprefix('---').lstrip()}" for text in texts))


def rules(package: Path, out: Path) -> int:
    """Write the alerts as a Prometheus without an operator reads them; return how many groups."""
    text = _helm("template", "tramontane", str(package), "--set", "prometheusRule.enabled=true")
    found = [one for one in yaml.safe_load_all(text) if one and one["kind"] == _RULE]
    groups: list[Any] = [group for one in found for group in one["spec"]["groups"]]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(yaml.safe_dump({"groups": groups}, sort_keys=False, width=100))
    return len(groups)


def dashboards(out: Path) -> int:
    """Copy the boards; return how many there are."""
    found = sorted((CHART / "files" / "dashboards").glob("*.json"))
    out.mkdir(parents=True, exist_ok=True)
    for path in found:
        shutil.copyfile(path, out / path.name)
    return len(found)


def manual(out: Path, root: Path = ROOT) -> None:
    """Build the manual from the pages of a checkout: what `make docs` left there may be older.

    Raises:
        LabError: it cannot be built.
    """
    if wrong := site.build(out, root):
        raise LabError(f"bundle: the manual must build; `make docs` says the same (got\n{wrong})")


def _helm(*argv: str) -> str:
    helm = ensure(["helm"])["helm"]
    must = f"bundle: `helm {argv[0]}` must succeed"
    return call([helm, *argv], must, "try `make chart`", env={**os.environ, "TZ": "UTC"})
