"""The floor for foreign gangs: create pods and bind some of them with nothing but a client.

    python -m bench.foreign_client --kubeconfig FILE --pods FILE --in-flight 32 [--nodes FILE]

Without nodes the pods are only created, for a scheduler to bind. Prints when the first request
was sent (monotonic seconds) and how long it took until the last answer.
"""

import argparse
import asyncio
import json
import time
from pathlib import Path
from typing import Any

from tramontane.kube.client import Client
from tramontane.kube.resources import PODS

Raw = dict[str, Any]


async def work(
    kubeconfig: Path, pods: list[Raw], nodes: list[str], in_flight: int
) -> tuple[float, float]:
    """Create all pods, and bind each to its node once it is created."""
    async with await Client.connect(kubeconfig, max_in_flight=in_flight) as client:
        await client.list_page(PODS, "default", limit=1)  # the connection is not what is timed

        async def one(pod: Raw, node: str | None) -> None:
            await client.create(PODS, pod, "default")
            if node is None:
                return
            name = pod["metadata"]["name"]
            target = {"apiVersion": "v1", "kind": "Node", "name": node}
            body = {
                "apiVersion": "v1",
                "kind": "Binding",
                "metadata": {"name": name},
                "target": target,
            }
            await client.create(PODS, body, "default", name=name, subresource="binding")

        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for i, pod in enumerate(pods):
                group.create_task(one(pod, nodes[i] if i < len(nodes) else None))
        return began, time.monotonic() - began


def main() -> None:
    """Parse, work, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--pods", type=Path, required=True)
    parser.add_argument("--nodes", type=Path)
    parser.add_argument("--in-flight", type=int, required=True)
    options = parser.parse_args()
    pods = json.loads(options.pods.read_text())
    nodes = json.loads(options.nodes.read_text()) if options.nodes else []
    print(*asyncio.run(work(options.kubeconfig, pods, nodes, options.in_flight)))


if __name__ == "__main__":
    main()
