"""Count API writes from the API server's own metrics."""

import re
from collections import Counter

from tramontane.kube.client import Client

_LINE = re.compile(r"^apiserver_request_total\{(?P<labels>[^}]*)\} (?P<value>[0-9.e+]+)$")
_LABEL = re.compile(r'(\w+)="([^"]*)"')
_WRITES = frozenset({"POST", "PUT", "PATCH", "APPLY", "DELETE", "DELETECOLLECTION"})
# What a start would cost without us too: heartbeats of nodes and agents, and the kubelets'
# reports of their pods.
_STANDING = frozenset(
    {"leases/", "nodes/", "nodes/status", "pods/status", "blades/status", "nodepools/status"}
)


async def count_writes(client: Client) -> Counter[str]:
    """Return the writes so far by `resource/subresource`."""
    body = await client.get_raw("/metrics")
    found: Counter[str] = Counter()
    for line in body.decode().splitlines():
        if match := _LINE.match(line):
            labels = dict(_LABEL.findall(match["labels"]))
            if labels["verb"] in _WRITES and labels["code"].startswith("2"):
                resource = f"{labels['resource']}/{labels['subresource']}"
                found[resource] += int(float(match["value"]))
    return found


def of_the_start(before: Counter[str], after: Counter[str]) -> dict[str, int]:
    """Return the writes between two counts that starting a job took, by resource."""
    return {
        resource: after[resource] - before[resource]
        for resource in sorted(after)
        if resource not in _STANDING and after[resource] > before[resource]
    }
