"""Run the helm binary on the chart, and read what it renders."""

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "tramontane"
NAMESPACE = "tramontane-system"
RELEASE = "tramontane"

Object = dict[str, Any]

# The CRDs are 200 KB; libyaml reads them ten times as fast as Python does.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class Helm:
    """The helm binary with a home of its own, so that no setting of the user's reaches a test."""

    binary: Path
    home: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def run(
        self, *arguments: str, values: Mapping[str, Any] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run one command; `values` go in by standard input. The exit status is the caller's."""
        extra = () if values is None else ("--values", "-")
        return subprocess.run(
            [str(self.binary), *arguments, *extra],
            input=None if values is None else yaml.safe_dump(dict(values)),
            capture_output=True,
            text=True,
            check=False,
            timeout=110,
            env={"HOME": str(self.home), "PATH": "/usr/bin:/bin", **self.environment},
        )

    def template(
        self,
        values: Mapping[str, Any] | None = None,
        *,
        release: str = RELEASE,
        namespace: str = NAMESPACE,
        chart: Path = CHART,
    ) -> tuple[Object, ...]:
        """Return every object of the rendered chart; raise ValueError with helm's own message."""
        done = self.run(
            "template", release, str(chart), "--namespace", namespace, values=values or {}
        )
        if done.returncode != 0:
            raise ValueError(done.stderr)
        return tuple(item for item in yaml.load_all(done.stdout, _LOADER) if item)


def kinds(objects: Sequence[Object], *wanted: str) -> list[Object]:
    """Return the objects of these kinds, in their order."""
    return [item for item in objects if item["kind"] in wanted]


def one(objects: Sequence[Object], kind: str, name: str) -> Object:
    """Return the only object of this kind and name."""
    (found,) = [
        item for item in objects if item["kind"] == kind and item["metadata"]["name"] == name
    ]
    return found


def is_hook(item: Object) -> bool:
    """Tell whether Helm makes an object for a test only, not for the release."""
    return "helm.sh/hook" in item["metadata"].get("annotations", {})


def pods(objects: Sequence[Object]) -> dict[str, Object]:
    """Return each component's pod, as its template, or itself, has it."""
    found = [
        item if item["kind"] == "Pod" else item["spec"]["template"]
        for item in kinds(objects, "Deployment", "DaemonSet", "Pod")
    ]
    return {pod["spec"]["containers"][0]["name"]: pod for pod in found}
