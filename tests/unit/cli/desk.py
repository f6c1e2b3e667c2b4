"""A person at a desk: commands run against a scripted API server."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from click.testing import CliRunner, Result

from support.scripted import Scripted
from tramontane.cli.main import main

EXAMPLES = Path(__file__).parents[2] / "support" / "examples"
BLADES = "/apis/tramontane.dev/v1alpha1/blades"
POOLS = "/apis/tramontane.dev/v1alpha1/nodepools"
NODES = "/api/v1/nodes"
Raw = dict[str, Any]


def example(kind: str) -> Raw:
    """Return the first example of a kind, with everything in it."""
    text = (EXAMPLES / f"{kind}.yaml").read_text()
    raw: Raw = next(yaml.safe_load_all(text))
    return raw


@dataclass
class Desk:
    """A person's desk: a cluster to reach, and the command."""

    server: Scripted
    kubeconfig: Path
    env: dict[str, str] = field(default_factory=dict)

    def blade(
        self, name: str, state: str | None = "Healthy", pool: str = "paris-a", **status: Any
    ) -> Raw:
        meta = {"labels": {"tramontane.dev/pool": pool}}
        whole = {"state": state, "verdict": {"severity": "None", "action": "None"}, **status}
        spec = {"pool": pool}
        return self.server.put(BLADES, name, kind="Blade", metadata=meta, spec=spec, status=whole)

    def pool(self, name: str = "paris-a", **status: Any) -> Raw:
        raw = example("nodepool")
        return self.server.put(
            POOLS, name, kind="NodePool", spec=raw["spec"], status=raw["status"] | status
        )

    def node(self, name: str, state: str = "Healthy", pool: str = "paris-a", **labels: str) -> Raw:
        """Put a Node with the labels that the operator and its owner write."""
        ours = {"tramontane.dev/pool": pool, "tramontane.dev/blade-state": state}
        return self.server.put(NODES, name, kind="Node", metadata={"labels": ours | labels})

    def put(self, plural: str, name: str, namespace: str = "ml", **fields: Any) -> Raw:
        """Put one of our namespaced objects."""
        collection = f"/apis/tramontane.dev/v1alpha1/namespaces/{namespace}/{plural}"
        return self.server.put(collection, name, **fields)

    def event(self, about: Raw, reason: str, note: str, at: str, **fields: Any) -> None:
        """Put an Event about an object, as a component tells it."""
        meta = about["metadata"]
        namespace = meta.get("namespace") or "default"
        regarding = {"kind": about["kind"], "name": meta["name"], "namespace": namespace}
        self.server.put(
            f"/apis/events.k8s.io/v1/namespaces/{namespace}/events",
            f"{meta['name']}.{reason}.{at}",
            regarding=regarding,
            reason=reason,
            note=note,
            eventTime=at,
            **{"type": "Normal", "reportingController": "tramontane.dev/operator", **fields},
        )

    def get(self, collection: str, name: str) -> Raw:
        return self.server.objects[f"{collection}/{name}"]

    def writes(self) -> list[str]:
        return [path for method, path in self.server.requests if method != "GET"]

    def run(self, *arguments: str) -> Result:
        return CliRunner(env=self.env).invoke(main, arguments)

    def says(self, *arguments: str) -> str:
        """Return what a command that must succeed prints."""
        done = self.run(*arguments)
        assert done.exit_code == 0, done.output
        return done.output

    def refuses(self, *arguments: str) -> str:
        """Return the message of a command that must fail, as one line; it writes nothing."""
        done = self.run(*arguments)
        assert done.exit_code != 0, done.output
        assert "Traceback" not in done.output
        assert not self.writes()
        return " ".join(done.output.split())
