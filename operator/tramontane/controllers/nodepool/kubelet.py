"""Ask when a kubelet last renewed its Lease, and do so only while its agent is silent.

Watching all kubelets' Leases at 12,500 nodes is 1,250 events a second for a question that comes
up a few times a day. One silent agent costs one small request every 5 s. If many are silent at
once (a faulty agent was rolled out), one list of all Leases serves them all.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from tramontane.api import clock
from tramontane.kube.client import Client
from tramontane.kube.resources import LEASES

NAMESPACE = "kube-node-lease"
_FRESH_S = 5.0
_MOST_SINGLE = 32
_USUAL_LEASE_S = 40  # nodeLeaseDurationSeconds of a KubeletConfiguration that says nothing


class Kubelets:
    """Answers for one cluster. `now_s` is a monotonic clock."""

    def __init__(self, client: Client, now_s: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._now_s = now_s
        self._asked: deque[float] = deque(maxlen=_MOST_SINGLE)
        self._all: dict[str, float] = {}
        self._listed_s = float("-inf")
        self._listing = asyncio.Lock()

    async def renewed_at(self, node: str) -> float | None:
        """Return the time in the Lease of the node's kubelet, or None if there is no Lease."""
        now_s = self._now_s()
        if len(self._asked) == _MOST_SINGLE and now_s - self._asked[0] < _FRESH_S:
            return (await self._list()).get(node)
        self._asked.append(now_s)
        page = await self._client.list_page(
            LEASES, NAMESPACE, field_selector=f"metadata.name={node}", limit=1
        )
        return next(map(_renewed_at, page["items"]), None)

    async def _list(self) -> dict[str, float]:
        async with self._listing:
            if self._now_s() - self._listed_s < _FRESH_S:
                return self._all
            leases = await self._client.list_all(LEASES, NAMESPACE)
            self._all = {
                lease["metadata"]["name"]: at
                for lease in leases
                for at in [_renewed_at(lease)]
                if at is not None
            }
            self._listed_s = self._now_s()
            return self._all


def _renewed_at(lease: dict[str, Any]) -> float | None:
    """Return when the Lease was renewed, put off by what it lasts longer than a kubelet's 40 s.

    A kubelet with a longer lease renews it less often, and may be silent for so much longer.
    """
    spec = lease.get("spec") or {}
    renewed = spec.get("renewTime")
    if not renewed:
        return None
    extra_s = max(0, int(spec.get("leaseDurationSeconds") or 0) - _USUAL_LEASE_S)
    return clock.parse(renewed) + extra_s
