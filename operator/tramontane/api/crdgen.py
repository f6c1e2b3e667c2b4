"""Write one CustomResourceDefinition per kind: `python -m tramontane.api.crdgen crds/`.

With `--check` nothing is written; it fails, naming the files, when they are not what the models
say. The output is committed and never edited.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from tramontane.api import names
from tramontane.api.base import Object
from tramontane.api.blade import Blade
from tramontane.api.gang import Gang
from tramontane.api.inferencedeployment import InferenceDeployment
from tramontane.api.nodepool import NodePool
from tramontane.api.schema import structural, without_defaults
from tramontane.api.trainingjob import TrainingJob

HEADER: Final = (
    "# Generated from tramontane.api, do not edit: change the models, then run `make generate`.\n"
)


@dataclass(frozen=True, slots=True)
class Column:
    """Describe a column of `kubectl get`; priority 1 shows it with `-o wide` only."""

    name: str
    path: str
    type: str = "string"
    priority: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of `additionalPrinterColumns`."""
        entry = {"name": self.name, "type": self.type, "jsonPath": self.path}
        return entry | ({"priority": self.priority} if self.priority else {})


@dataclass(frozen=True, slots=True)
class Kind:
    """Hold what a CustomResourceDefinition says besides its schema.

    `blade` and `gang` are singular names already, and the API server refuses a name twice.
    """

    model: type[Object]
    plural: str
    short_names: tuple[str, ...]
    namespaced: bool
    columns: tuple[Column, ...]

    @property
    def name(self) -> str:
        """Return the kind."""
        return self.model.__name__


def _condition(type_: str) -> str:
    return f'.status.conditions[?(@.type=="{type_}")].status'


_AGE: Final = Column("Age", ".metadata.creationTimestamp", "date")

KINDS: Final = (
    Kind(
        NodePool,
        "nodepools",
        ("np",),
        namespaced=False,
        columns=(
            Column("Healthy", ".status.blades.healthy", "integer"),
            Column("Total", ".status.blades.total", "integer"),
            Column("In-Use", ".status.blades.inUse", "integer"),
            Column("Spare", ".status.blades.spare", "integer"),
            Column("Quarantined", ".status.blades.quarantined", "integer"),
            Column("GPUs", ".status.gpus.allocatable", "integer"),
            Column("Allocated", ".status.gpus.allocated", "integer"),
            Column("Breaker", ".status.breaker.state"),
            Column("Mode", ".spec.remediation.mode", priority=1),
            Column("Failures/1000d", ".status.failureRate", priority=1),
            _AGE,
        ),
    ),
    Kind(
        Blade,
        "blades",
        (),
        namespaced=False,
        columns=(
            Column("State", ".status.state"),
            Column("Verdict", ".status.verdict.severity"),
            Column("Action", ".status.verdict.action"),
            Column("Pool", ".spec.pool"),
            Column("Since", ".status.stateSince", "date"),
            Column("Reason", ".status.reason"),
            Column("Message", ".status.message", priority=1),
            Column("Held-By", ".spec.hold.by", priority=1),
            Column("Driver", ".status.report.agent.driver", priority=1),
        ),
    ),
    Kind(
        Gang,
        "gangs",
        (),
        namespaced=True,
        columns=(
            Column("Phase", ".status.phase"),
            Column("Size", ".status.placement.size", "integer"),
            Column("Epoch", ".status.epoch", "integer"),
            Column("Reason", ".status.reason"),
            Column("Position", ".status.position", "integer"),
            Column("Priority", ".spec.priority", "integer", priority=1),
            Column("Pool", ".spec.pool", priority=1),
            Column("Start-P50", ".status.estimatedStart.p50", priority=1),
            Column("Message", ".status.message", priority=1),
            _AGE,
        ),
    ),
    Kind(
        TrainingJob,
        "trainingjobs",
        ("tj",),
        namespaced=True,
        columns=(
            Column("Phase", ".status.phase"),
            Column("Ready", ".status.ready"),
            Column("GPUs", ".status.gpus", "integer"),
            Column("Step", ".status.step", "integer"),
            Column("Goodput", ".status.goodput.ratio"),
            Column("Restarts", ".status.restarts.infra", "integer"),
            Column("Reason", ".status.reason"),
            Column("Step-Time", ".status.stepTime", priority=1),
            Column("Checkpoint", ".status.lastCheckpoint.at", "date", priority=1),
            Column("Pool", ".spec.nodePool", priority=1),
            Column("Complete", _condition("Complete"), priority=1),
            Column("Message", ".status.message", priority=1),
            _AGE,
        ),
    ),
    Kind(
        InferenceDeployment,
        "inferencedeployments",
        ("inf",),
        namespaced=True,
        columns=(
            Column("Phase", ".status.phase"),
            Column("Ready", ".status.ready"),
            Column("Layout", ".status.plan.layout"),
            Column("SLO", _condition("SLOMet")),
            Column("Endpoint", ".status.endpoint"),
            Column("Reason", ".status.reason"),
            Column("Engine", ".spec.engine.name", priority=1),
            Column("Message", ".status.message", priority=1),
            _AGE,
        ),
    ),
)


def definition(kind: Kind) -> dict[str, Any]:
    """Return the CustomResourceDefinition of a kind."""
    schema = structural(kind.model)
    properties = dict(schema["properties"])
    properties["apiVersion"] = {
        "type": "string",
        "description": f"Version of this form of the object. Example: {names.API_VERSION}.",
    }
    properties["kind"] = {
        "type": "string",
        "description": f"Kind of the object. Example: {kind.name}.",
    }
    properties["metadata"] = {"type": "object"}
    properties["status"] = without_defaults(properties["status"])
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{names.GROUP}"},
        "spec": {
            "group": names.GROUP,
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "names": {
                "plural": kind.plural,
                "singular": kind.name.lower(),
                "kind": kind.name,
                "listKind": f"{kind.name}List",
                "shortNames": list(kind.short_names),
                "categories": [names.CATEGORY],
            },
            "versions": [
                {
                    "name": names.VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [column.to_dict() for column in kind.columns],
                    "schema": {"openAPIV3Schema": schema | {"properties": properties}},
                }
            ],
        },
    }


class _Dumper(yaml.SafeDumper):
    """Write every value out: the API server's readers know no anchors."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - the base class calls it so
        return True


def render(kind: Kind) -> str:
    """Return the file of a kind."""
    body = yaml.dump(
        definition(kind), Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True
    )
    return HEADER + body


def file_name(kind: Kind) -> str:
    """Return the name of a kind's file."""
    return f"{names.GROUP}_{kind.plural}.yaml"


def stale(folder: Path) -> list[Path]:
    """Return the files that are missing in the folder or are not what the models say."""
    wanted = {folder / file_name(kind): render(kind) for kind in KINDS}
    return [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check the files; return the exit code."""
    parser = argparse.ArgumentParser(prog="tramontane.api.crdgen", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the files go, e.g. crds/")
    parser.add_argument("--check", action="store_true", help="fail when the files differ")
    options = parser.parse_args(arguments)
    if options.check:
        different = stale(options.folder)
        for path in different:
            sys.stderr.write(
                f"crdgen: {path} must be what the models say (got other text or no file); "
                "run `make generate`\n"
            )
        return 1 if different else 0
    options.folder.mkdir(parents=True, exist_ok=True)
    for kind in KINDS:
        (options.folder / file_name(kind)).write_text(render(kind))
    return 0


if __name__ == "__main__":
    sys.exit(main())
