"""Carry out a plan for a blade: the Node's mark first, because it is what keeps new work away.

1. labels and taint in one patch of the Node; beside it the Blade, where it is missing
2. the Node's condition; beside it Blade.status
3. the event, once all of that was taken
"""

import asyncio
import logging
from contextlib import suppress

from tramontane.api.blade import Blade
from tramontane.api.names import API_VERSION, MANAGER_OPERATOR
from tramontane.controllers import metrics
from tramontane.controllers.informers import Node, decode_blade, decode_operator_node
from tramontane.controllers.nodepool import nodepatch
from tramontane.controllers.nodepool.plan import Note, Plan
from tramontane.controllers.nodepool.written import Written
from tramontane.kube.client import Client, Invalid, NotFound
from tramontane.kube.events import EventRecorder
from tramontane.kube.resources import BLADES, NODES

log = logging.getLogger(__name__)

_MOST_TRIES = 5


class Writer:
    """Writes of Nodes and Blades; what the API server answers is remembered in the overlays."""

    def __init__(
        self,
        client: Client,
        recorder: EventRecorder,
        nodes: Written[Node],
        blades: Written[Blade],
    ) -> None:
        self._client = client
        self._recorder = recorder
        self._nodes = nodes
        self._blades = blades

    async def mark(self, name: str, plan: Plan) -> None:
        """Do step 1 of the module.

        Raises:
            ApiError, Unreachable: the API server did not take all of it; plan again.
        """
        await asyncio.gather(self._patch_node(name, plan), self._apply_blade(name, plan))

    async def tell(self, name: str, plan: Plan) -> None:
        """Do steps 2 and 3 of the module; raises as `mark` does."""
        await asyncio.gather(self._apply_condition(name, plan), self._apply_status(name, plan))
        if plan.delete:
            with suppress(NotFound):
                await self._client.delete(BLADES, name)
            self._blades.forget(name)
            log.info("blade deleted blade=%s", name)
        elif plan.note is not None:
            self._record(name, plan.note)

    async def _patch_node(self, name: str, plan: Plan) -> None:
        node = self._nodes.get(name)
        if not plan.node or node is None:
            return
        operations, uid = list(plan.node), node.uid
        for _ in range(_MOST_TRIES):
            same = {"op": "test", "path": "/metadata/uid", "value": uid}
            try:
                raw = await self._client.json_patch(NODES, name, [same, *operations])
            except Invalid:
                metrics.STALE_NODE_PATCHES.inc()
                node = decode_operator_node(await self._client.get(NODES, name))
                self._nodes.put(name, node)
                operations = nodepatch.plan(node, plan.labels, plan.taint)
                if node.uid != uid or not operations:
                    return
            else:
                self._nodes.put(name, decode_operator_node(raw))
                return
        raise NodeKeepsChanging(name)

    async def _apply_blade(self, name: str, plan: Plan) -> None:
        if plan.blade is None:
            return
        raw = await self._client.apply(BLADES, plan.blade, manager=MANAGER_OPERATOR)
        self._blades.put(name, decode_blade(raw))

    async def _apply_condition(self, name: str, plan: Plan) -> None:
        if plan.condition is None and not plan.uncondition:
            return
        body: dict[str, object] = {"metadata": {"name": name}}
        if plan.condition is not None:
            body["status"] = {"conditions": [plan.condition.to_dict()]}
        try:
            raw = await self._client.apply(
                NODES, body, manager=MANAGER_OPERATOR, subresource="status"
            )
        except NotFound:  # deleted meanwhile; its event brings us back
            return
        self._nodes.put(name, decode_operator_node(raw))

    async def _apply_status(self, name: str, plan: Plan) -> None:
        if plan.status is None:
            return
        body = {"metadata": {"name": name}, "status": plan.status.to_dict()}
        raw = await self._client.apply(BLADES, body, manager=MANAGER_OPERATOR, subresource="status")
        self._blades.put(name, decode_blade(raw))
        log.info(
            "blade state blade=%s state=%s reason=%s message=%r",
            name, plan.status.state, plan.status.reason, plan.status.message or "",
        )  # fmt: skip

    def regarding(self, name: str) -> dict[str, str]:
        """Return whom an event of the blade regards."""
        blade = self._blades.get(name)
        return {
            "apiVersion": API_VERSION,
            "kind": "Blade",
            "name": name,
            "uid": (blade.metadata.uid or "") if blade is not None else "",
        }

    def _record(self, name: str, note: Note) -> None:
        type_ = "Warning" if note.warning else "Normal"
        self._recorder.record(self.regarding(name), type_, note.reason, note.text, note.action)


class NodeKeepsChanging(RuntimeError):  # noqa: N818 - named for the finding
    """Say that a Node changed under each of several patches."""

    def __init__(self, name: str) -> None:
        super().__init__(f"Node {name}: must hold still for one patch (got {_MOST_TRIES} changes)")
