"""The part of an API server that an agent talks to, in memory and with trouble on demand."""

from typing import Any, cast

from tramontane.api.blade import Report
from tramontane.api.names import MANAGER_AGENT
from tramontane.kube.client import Client, NotFound, Unreachable
from tramontane.kube.resources import BLADES, LEASES, Resource


class ApiServer:
    """Holds one Blade (or none) and counts what was asked."""

    def __init__(self) -> None:
        self.blade: dict[str, Any] | None = None
        self.away = False
        self.reads = 0
        self.applied: list[dict[str, Any]] = []
        self.beats: list[str] = []
        self.refused = 0

    def create_blade(self, **spec: Any) -> None:
        self.blade = {
            "metadata": {"name": "gpu-0001"},
            "spec": {"pool": "p", **spec},
            "status": {"state": "Healthy"},
        }

    @property
    def client(self) -> Client:
        return cast("Client", self)

    @property
    def report(self) -> Report:
        assert self.blade is not None
        return Report.model_validate(self.blade["status"]["report"])

    @property
    def codes(self) -> list[str]:
        return [fault.code for fault in self.report.faults]

    # What the agent calls.

    async def get(
        self, resource: Resource, name: str, namespace: str | None = None
    ) -> dict[str, Any]:
        assert (resource, name, namespace) == (BLADES, "gpu-0001", None)
        self.reads += 1
        self._answer()
        if self.blade is None:
            raise NotFound(404, "NotFound", "no such blade")
        return self.blade

    async def apply(
        self,
        resource: Resource,
        body: dict[str, Any],
        *,
        manager: str,
        subresource: str | None = None,
        force: bool = True,
    ) -> dict[str, Any]:
        assert (resource, manager, subresource, force) == (BLADES, MANAGER_AGENT, "status", True)
        self._answer()
        if self.blade is None:
            raise NotFound(404, "NotFound", "no such blade")
        assert set(body) == {"apiVersion", "kind", "metadata", "status"}
        assert body["metadata"] == {"name": "gpu-0001"}
        assert set(body["status"]) == {"report"}
        self.applied.append(body)
        self.blade["status"]["report"] = body["status"]["report"]
        return self.blade

    async def merge_patch(
        self,
        resource: Resource,
        name: str,
        patch: dict[str, Any],
        namespace: str | None = None,
    ) -> dict[str, Any]:
        assert (resource, namespace) == (LEASES, "tramontane-system")
        self._answer()
        self.beats.append(name)
        return patch

    def _answer(self) -> None:
        if self.away:
            self.refused += 1
            raise Unreachable("API server: must answer (got nothing)")
