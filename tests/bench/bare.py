"""The floor: create given pods with nothing but a client, as fast as the API server takes them.

    python -m bench.bare --kubeconfig FILE --pod FILE --names FILE --in-flight 32

Prints the seconds from the first request to the last answer. It is a process of its own, as the
operator is one, and uses the same transport with the same number of requests in flight.
"""

import argparse
import asyncio
import json
import time
from pathlib import Path
from typing import Any

from tramontane.kube.client import Client
from tramontane.kube.resources import PODS


async def create(kubeconfig: Path, pod: dict[str, Any], nodes: list[str], in_flight: int) -> float:
    """Create one pod per node from the given one; returns the seconds it took."""
    prefix = pod["metadata"]["name"]
    async with await Client.connect(kubeconfig, max_in_flight=in_flight) as client:
        await client.list_page(PODS, "default", limit=1)  # the connection is not what is timed

        async def one(index: int, node: str) -> None:
            body = {
                **pod,
                "metadata": {**pod["metadata"], "name": f"{prefix}-{index}"},
                "spec": {**pod["spec"], "nodeName": node, "hostname": f"{prefix}-{index}"},
            }
            await client.create(PODS, body, "default")

        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for index, node in enumerate(nodes):
                group.create_task(one(index, node))
        return time.perf_counter() - began


def main() -> None:
    """Parse, create, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--pod", type=Path, required=True)
    parser.add_argument("--nodes", type=Path, required=True)
    parser.add_argument("--in-flight", type=int, required=True)
    options = parser.parse_args()
    pod = json.loads(options.pod.read_text())
    nodes = json.loads(options.nodes.read_text())
    print(asyncio.run(create(options.kubeconfig, pod, nodes, options.in_flight)))


if __name__ == "__main__":
    main()
