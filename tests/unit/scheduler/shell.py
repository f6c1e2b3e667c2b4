"""A cycle over an API server of dictionaries, and caches that the test fills by hand."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

from tramontane.kube.client import Client
from tramontane.kube.errors import Conflict, NotFound, Unreachable
from tramontane.kube.resources import PODS, Resource
from tramontane.scheduler.cycle import Cycle
from tramontane.scheduler.foreign.member import decode_member
from tramontane.scheduler.gangs import decode_gang
from tramontane.scheduler.world import OURS, World, decode_bound
from unit.scheduler.builders import LEVELS

NOW = 1_800_000_000.0
GPU = "nvidia.com/gpu"


class Server:
    """An API server of dictionaries: Gang statuses and bindings; it fails where it is told to."""

    def __init__(self) -> None:
        self.gangs: dict[str, dict[str, Any]] = {}
        self.version = 100
        self.pods: dict[str, dict[str, Any]] = {}
        self.writes: list[dict[str, Any]] = []
        self.bindings: list[tuple[str, str]] = []
        self.conditions: list[tuple[str, str]] = []
        self.fail: Callable[[str], Exception | None] = lambda _: None
        self.lose_answers = False
        self.unlisted = 0
        self.wrote = asyncio.Queue[str]()

    def add(self, name: str, seats: int, **spec: Any) -> dict[str, Any]:
        slots = [{"name": "w", "count": seats, "requests": {GPU: "8"}}]
        self.version += 1
        raw = {
            "metadata": {
                "namespace": "ns",
                "name": name,
                "uid": f"uid-{name}",
                "generation": 1,
                "resourceVersion": str(self.version),
                "creationTimestamp": "2027-01-15T07:00:00Z",
            },
            "spec": {"pool": "p", "slots": slots, **spec},
        }
        self.gangs[name] = raw
        return raw

    async def apply(self, resource: Resource, body: dict[str, Any], **more: Any) -> dict[str, Any]:
        assert more == {"manager": "tramontane-scheduler", "subresource": "status"}
        name = body["metadata"]["name"]
        if resource is PODS:
            [condition] = body["status"]["conditions"]
            self.conditions.append((name, condition["message"]))
            if error := self.fail(name):
                raise error
            return body
        self.writes.append(body)
        if error := self.fail(name):
            raise error
        self.version += 1
        stored = self.gangs[name]
        stored["status"] = body["status"]
        stored["metadata"]["resourceVersion"] = str(self.version)
        self.wrote.put_nowait(name)
        if self.lose_answers:
            raise Unreachable("no answer")
        return stored

    async def create(
        self, resource: Resource, body: dict[str, Any], namespace: str, **more: Any
    ) -> dict[str, Any]:
        """Bind a pod, as the API server does it: once, and only the pod of this uid."""
        name = body["metadata"]["name"]
        assert (resource, namespace) == (PODS, body["metadata"]["namespace"])
        assert more == {"name": name, "subresource": "binding"}
        self.bindings.append((name, body["target"]["name"]))
        await asyncio.sleep(0)
        if error := self.fail(name):
            raise error
        pod = self.pods.get(name)
        if pod is None:
            raise NotFound(404, "NotFound", f"pods {name} not found")
        if pod["metadata"]["uid"] != body["metadata"]["uid"] or pod["spec"].get("nodeName"):
            raise Conflict(409, "Conflict", f"pod {name} is already assigned to a node")
        pod["spec"]["nodeName"] = body["target"]["name"]
        if self.lose_answers:
            raise Unreachable("no answer")
        return {}

    async def get(self, resource: Resource, name: str, namespace: str) -> dict[str, Any]:
        assert (resource, namespace) == (PODS, "ml")
        if error := self.fail(f"get {name}"):
            raise error
        if name not in self.pods:
            raise NotFound(404, "NotFound", f"pods {name} not found")
        return self.pods[name]

    async def list_page(
        self,
        resource: Resource,
        *,
        continue_: str | None = None,
        field_selector: str | None = None,
    ) -> dict[str, Any]:
        if self.unlisted:
            self.unlisted -= 1
            raise Unreachable("no answer")
        if resource is PODS:
            assert field_selector == OURS
            return {"metadata": {}, "items": list(self.pods.values())}
        names = sorted(self.gangs)
        at = int(continue_ or 0)
        more = str(at + 1) if at + 1 < len(names) else None
        items = [self.gangs[name] for name in names[at : at + 1]]
        return {"metadata": {"continue": more}, "items": items}


class Bench:
    """A cycle over a world whose caches the test fills by hand."""

    def __init__(self, blades: int = 4) -> None:
        self.server = Server()
        self.now = NOW
        self.leads = True
        self.world = World(cast("Client", self.server))
        self.cycle = Cycle(
            cast("Client", self.server),
            self.world,
            leading=lambda: self.leads,
            clock=lambda: self.now,
        )
        self.tell("_pools", "p", {"spec": {"topology": {"levels": levels()}}})
        for number in range(blades):
            name = f"n{number}"
            self.tell("_nodes", name, node())
            self.tell("_blades", name, blade("Healthy"))

    def tell(self, informer: str, name: str, raw: dict[str, Any] | None) -> None:
        """Have an informer's store learn of an object as a watch would."""
        target = getattr(self.world, informer)
        if raw is None:
            target._store.drop(name)
            return
        raw = {"metadata": {"name": name, "labels": raw.get("labels", {})}, **raw}
        target._store.put(name, target._decode(raw))

    def watch(self, name: str) -> None:
        """Let the watch catch up with a gang."""
        store = self.world._gangs._store
        raw = self.server.gangs.get(name)
        if raw is None:
            store.drop(f"ns/{name}")
        else:
            store.put(f"ns/{name}", decode_gang(raw))

    def create_pods(self, *raws: dict[str, Any]) -> None:
        """Have pods of other controllers created, and seen."""
        for raw in raws:
            self.server.pods[raw["metadata"]["name"]] = raw
            self.see(raw["metadata"]["name"])

    def see(self, *names: str) -> None:
        """Let both watches catch up with pods."""
        waiting, bound = self.world._waiting._store, self.world._pods._store
        for name in names:
            key, raw = f"ml/{name}", self.server.pods.get(name)
            if raw is None or raw["spec"].get("nodeName"):
                waiting.drop(key)
            else:
                waiting.put(key, decode_member(raw))
            if raw is not None and raw["spec"].get("nodeName"):
                bound.put(key, decode_bound(raw))
            else:
                bound.drop(key)

    async def run_pass(self) -> float:
        """Run a pass, and wait for what it began."""
        again_s = await self.cycle.run_once()
        await self.cycle._binder.finish()
        return again_s

    def nodes(self) -> dict[str, str]:
        """Return pod → node as the API server has them."""
        return {name: raw["spec"].get("nodeName", "") for name, raw in self.server.pods.items()}

    def events(self) -> list[tuple[str, str]]:
        """Return (pod, reason) of the Events that are to be written."""
        queue = self.cycle._events._queue
        bodies = [queue.get_nowait()[-1].body for _ in range(queue.qsize())]
        return [(body["regarding"]["name"], body["reason"]) for body in bodies]

    def submit(self, name: str, seats: int, **spec: Any) -> None:
        self.server.add(name, seats, **spec)
        self.watch(name)

    def status(self, name: str) -> dict[str, Any]:
        return dict(self.server.gangs[name].get("status") or {})


def levels() -> list[dict[str, str]]:
    return [{"name": name, "label": label} for name, label in LEVELS]


def blade(state: str) -> dict[str, Any]:
    return {"spec": {"pool": "p"}, "status": {"state": state}}


def node(gpus: str = "8", labels: dict[str, str] | None = None) -> dict[str, Any]:
    ready = [{"type": "Ready", "status": "True"}]
    here = {label: "here" for _, label in LEVELS} if labels is None else labels
    return {"labels": here, "status": {"allocatable": {GPU: gpus}, "conditions": ready}}


def pod(node_name: str, gang: str = "", seat: int = 0) -> dict[str, Any]:
    labels = {"tramontane.dev/gang": gang, "tramontane.dev/seat": str(seat)} if gang else {}
    resources = {"requests": {GPU: "8"}}
    return {
        "metadata": {"name": "pod", "namespace": "ns", "labels": labels},
        "spec": {"nodeName": node_name, "containers": [{"resources": resources}]},
    }
