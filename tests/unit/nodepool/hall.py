"""A hall for the NodePool controller: an API server in memory, caches that may lag, and clocks."""

import asyncio
import copy
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from tramontane.api.clock import micro, utc
from tramontane.api.names import MANAGER_AGENT, MANAGER_OPERATOR
from tramontane.controllers import informers as caches
from tramontane.controllers.nodepool.reconcile import NodePoolController
from tramontane.kube.client import AlreadyExists, Invalid, NotFound, TooManyRequests
from tramontane.kube.resources import (
    BLADES,
    GANGS,
    LEASES,
    NODEPOOLS,
    NODES,
    PODS,
    SERVICES,
    Resource,
)

NOW = 1_800_000_000.0
SYSTEM = "tramontane-system"
Raw = dict[str, Any]


class Api:
    """As much of an API server as the controller uses; watches of `lagging` kinds stand still."""

    def __init__(self) -> None:
        self.objects: dict[Resource, dict[str, Raw]] = {
            one: {} for one in (BLADES, GANGS, LEASES, NODEPOOLS, NODES, PODS, SERVICES)
        }
        self.writes: list[tuple[str, str, str]] = []
        self.graces: dict[str, int | None] = {}
        self.guarded: dict[str, str] = {}
        self.lagging: set[Resource] = set()
        self.tell: dict[Resource, Callable[[str, Raw | None], None]] = {
            SERVICES: lambda _key, _raw: None
        }
        self.now: Callable[[], float] = lambda: NOW
        self._held: list[tuple[Resource, str, Raw | None]] = []
        self._versions = itertools.count(1)
        self._uids = itertools.count(1)

    # What tests do

    def put(self, resource: Resource, raw: Raw) -> Raw:
        """Create or change an object, as somebody else would."""
        meta = raw["metadata"]
        key = f"{meta['namespace']}/{meta['name']}" if meta.get("namespace") else meta["name"]
        if not raw.get("spec", {}).get("taints", True):
            del raw["spec"]["taints"]  # the API server keeps no empty list
        meta.setdefault("uid", f"uid-{next(self._uids)}")
        meta.setdefault("creationTimestamp", utc(NOW))
        meta["resourceVersion"] = str(next(self._versions))
        self.objects[resource][key] = raw
        self._changed(resource, key, raw)
        return raw

    def drop(self, resource: Resource, key: str) -> None:
        if self.objects[resource].pop(key, None) is not None:
            self._changed(resource, key, None)

    def deliver(self) -> None:
        """Let the watches catch up."""
        self.lagging.clear()
        held, self._held = self._held, []
        for resource, key, raw in held:
            self.tell[resource](key, raw)

    def _changed(self, resource: Resource, key: str, raw: Raw | None) -> None:
        fact = copy.deepcopy(raw)
        if resource in self.lagging:
            self._held.append((resource, key, fact))
        else:
            self.tell[resource](key, fact)

    # What the controller does

    async def get(self, resource: Resource, name: str, _namespace: str | None = None) -> Raw:
        await asyncio.sleep(0)
        if name not in self.objects[resource]:
            raise NotFound(404, "NotFound", name)
        return copy.deepcopy(self.objects[resource][name])

    async def list_page(self, resource: Resource, namespace: str, **more: Any) -> Raw:
        await asyncio.sleep(0)
        name = more["field_selector"].partition("=")[2]
        found = self.objects[resource].get(f"{namespace}/{name}")
        return {"items": [found] if found else []}

    async def list_all(self, resource: Resource, namespace: str) -> list[Raw]:
        await asyncio.sleep(0)
        return [
            copy.deepcopy(raw)
            for key, raw in self.objects[resource].items()
            if key.startswith(f"{namespace}/")
        ]

    async def json_patch(self, resource: Resource, name: str, patch: Sequence[Raw]) -> Raw:
        raw = await self.get(resource, name)
        for operation in patch:
            _operate(raw, operation)
        self.writes.append(("patch", resource.plural, name))
        keys = [(taint["key"], taint["effect"]) for taint in raw["spec"].get("taints") or ()]
        if len(keys) != len(set(keys)):
            raise Invalid(422, "Invalid", "taints must be unique by key and effect")
        return copy.deepcopy(self.put(resource, raw))

    async def apply(
        self, resource: Resource, body: Raw, *, manager: str, subresource: str | None = None
    ) -> Raw:
        await asyncio.sleep(0)
        name = body["metadata"]["name"]
        self.writes.append(("apply", f"{resource.plural}/{subresource or ''}", name))
        raw = copy.deepcopy(self.objects[resource].get(name))
        if raw is None:
            if subresource is not None:
                raise NotFound(404, "NotFound", name)
            raw = {"metadata": {"name": name, "generation": 1}, "spec": {}}
        before = copy.deepcopy(raw)
        _apply(raw, body, manager, subresource)
        if raw == before:
            return raw
        return copy.deepcopy(self.put(resource, raw))

    async def create(
        self,
        resource: Resource,
        body: Raw,
        namespace: str,
        *,
        name: str | None = None,
        subresource: str | None = None,
    ) -> Raw:
        await asyncio.sleep(0)
        if subresource == "eviction":
            return self._evict(f"{namespace}/{name}", body)
        name = body["metadata"]["name"]
        self.writes.append(("create", resource.plural, name))
        if f"{namespace}/{name}" in self.objects[resource]:
            raise AlreadyExists(409, "AlreadyExists", name)
        raw = copy.deepcopy(body)
        raw["metadata"] |= {"namespace": namespace, "creationTimestamp": utc(self.now())}
        return copy.deepcopy(self.put(resource, raw))

    def _evict(self, key: str, body: Raw) -> Raw:
        """Delete a pod, unless a budget of its owner (`guarded`) says no."""
        assert f"{body['metadata']['namespace']}/{body['metadata']['name']}" == key
        self.writes.append(("evict", "pods", key))
        if key not in self.objects[PODS]:
            raise NotFound(404, "NotFound", key)
        if key in self.guarded:
            raise TooManyRequests(429, "TooManyRequests", self.guarded[key])
        self.drop(PODS, key)
        return {}

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        grace_period_s: int | None = None,
    ) -> None:
        await asyncio.sleep(0)
        assert grace_period_s is None or namespace is not None
        self.writes.append(("delete", resource.plural, name))
        self.graces[name] = grace_period_s
        key = f"{namespace}/{name}" if namespace else name
        if key not in self.objects[resource]:
            raise NotFound(404, "NotFound", name)
        self.drop(resource, key)


def _apply(raw: Raw, body: Raw, manager: str, subresource: str | None) -> None:
    if subresource is None:
        for key in ("labels", "annotations", "ownerReferences"):
            if key in body["metadata"]:
                raw["metadata"][key] = body["metadata"][key]
        raw["spec"] |= body["spec"]
        return
    old, new = raw.setdefault("status", {}), body.get("status", {})
    if manager == MANAGER_AGENT:
        old["report"] = new["report"]
    elif raw["metadata"]["name"].startswith("gpu") and "allocatable" in old:
        kept = [one for one in old.get("conditions", ()) if one["type"] != "GPUHealthy"]
        old["conditions"] = kept + list(new.get("conditions", ()))
    else:
        assert manager == MANAGER_OPERATOR
        assert "report" not in new
        raw["status"] = new | ({"report": old["report"]} if "report" in old else {})


def _operate(raw: Raw, operation: Raw) -> None:
    """Do one operation of a JSON patch, as the API server's library does."""
    *path, last = [
        part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]
    ]
    at: Any = raw
    for part in path:
        at = at[int(part)] if isinstance(at, list) else at.get(part)
        if at is None:
            raise Invalid(422, "Invalid", f"{operation['path']} is not there")
    index: Any = int(last) if isinstance(at, list) and last != "-" else last
    try:
        match operation["op"]:
            case "test":
                got = at.get(index) if isinstance(at, dict) else at[index]
                if got != operation["value"]:
                    raise Invalid(422, "Invalid", f"test of {operation['path']} failed")
            case "remove":
                del at[index]
            case "add" if index == "-":
                at.append(operation["value"])
            case "add":
                at[index] = operation["value"]
    except (KeyError, IndexError) as error:
        raise Invalid(422, "Invalid", f"{operation['path']} is not there") from error


class Recorder:
    """What would become events."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str, str]] = []

    def record(
        self, regarding: Mapping[str, str], type_: str, reason: str, note: str, action: str
    ) -> None:
        assert type_ in {"Normal", "Warning"}
        assert action
        self.said.append((regarding["name"], reason, note))


class Hall:
    """The controller in its hall; `async with` runs its queues."""

    def __init__(
        self,
        api: Api | None = None,
        now: float = NOW,
        *,
        reset: Raw | None = None,
        dry_run: bool = False,
    ) -> None:
        self.api = api or Api()
        self.now = now
        self.recorder = Recorder()
        self.api.now = lambda: self.now
        client: Any = self.api
        self.informers = caches.connect(client, SYSTEM)
        by_resource: Mapping[Resource, Any] = {
            NODEPOOLS: self.informers.pools,
            BLADES: self.informers.blades,
            NODES: self.informers.nodes,
            GANGS: self.informers.gangs,
            LEASES: self.informers.leases,
            PODS: self.informers.pods,
        }
        for resource, informer in by_resource.items():
            self.api.tell[resource] = _teller(informer)
        self.api.tell[PODS] = _split(self.informers)
        for resource in by_resource:
            for key, raw in self.api.objects[resource].items():
                self.api.tell[resource](key, raw)
        recorder: Any = self.recorder
        self.controller = NodePoolController(
            client,
            self.informers,
            recorder,
            reset=reset,
            dry_run=dry_run,
            clock=lambda: self.now,
            monotonic=lambda: self.now - NOW,
        )
        self.controller.wire()
        self.dead = False
        self._stop = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._running = asyncio.create_task(self.controller.run(self._stop))
        await self.settle()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        assert self._running is not None
        await self._running

    async def settle(self) -> None:
        """Return when nothing is left to do at this moment, or nobody to do it."""
        for _ in range(3):
            await asyncio.sleep(0)
        # A queue tells nobody that it has become idle.
        while not self._is_idle:  # noqa: ASYNC110
            await asyncio.sleep(0)

    @property
    def _is_idle(self) -> bool:
        return self.dead or (self.controller.blades.idle and self.controller.pools.idle)

    def die_before_a_pod(self) -> None:
        """Stop the operator when it has written down that a pod must be, and has not made it."""
        works = self.controller._works
        ensure = works.ensure

        async def die(*given: Any, **more: Any) -> bool:
            name, want = given[2], given[3]
            if want is not None and want.name not in self.works(name):
                self.dead = True
                await asyncio.Event().wait()
            return await ensure(*given, **more)

        works.ensure = die  # type: ignore[method-assign] # the one place between two writes

    async def advance(self, seconds: float) -> None:
        """Let time pass, with all that the controller does by the clock."""
        self.now += seconds
        if self.dead:
            return
        for blade in self.controller._beats.sweep(self.now - NOW):
            self.controller.blades.add(blade)
        self.controller._add_all()
        await self.settle()

    # Builders

    def pool(self, name: str = "paris", selector: Raw | None = None, **spec: Any) -> None:
        old = self.api.objects[NODEPOOLS].get(name)
        meta = {
            "name": name,
            "generation": old["metadata"]["generation"] + 1 if old else 1,
            "creationTimestamp": utc(NOW + len(self.api.objects[NODEPOOLS])),
        }
        if old:
            meta |= {key: old["metadata"][key] for key in ("uid", "creationTimestamp")}
        body = {
            "metadata": meta,
            "spec": {
                "nodeSelector": selector or {"matchLabels": {"gpu": "h200"}},
                "gpu": {"count": 8},
                **spec,
            },
        }
        if old and "status" in old:
            body["status"] = old["status"]
        self.api.put(NODEPOOLS, body)

    def node(self, name: str, *, ready: str = "True", boot: str = "", **more: Any) -> None:
        self.api.put(
            NODES,
            {
                "metadata": {
                    "name": name,
                    "labels": {"gpu": "h200", "rack": "r1", **more.get("labels", {})},
                    "creationTimestamp": utc(self.now),
                },
                "spec": {"taints": more.get("taints", []), "unschedulable": more.get("cordoned")},
                "status": {
                    "allocatable": {"nvidia.com/gpu": "8"},
                    "conditions": [{"type": "Ready", "status": ready}],
                    "nodeInfo": {"bootID": boot},
                },
            },
        )

    def change_node(self, name: str, change: Callable[[Raw], None]) -> None:
        raw = copy.deepcopy(self.api.objects[NODES][name])
        change(raw)
        self.api.put(NODES, raw)

    def readiness(self, name: str, status: str) -> None:
        def change(raw: Raw) -> None:
            for one in raw["status"]["conditions"]:
                if one["type"] == "Ready":
                    one["status"] = status

        self.change_node(name, change)

    def beat(self, name: str) -> None:
        self.lease(SYSTEM, f"blade-{name}")

    def kubelet(self, name: str) -> None:
        self.lease("kube-node-lease", name)

    def lease(self, namespace: str, name: str) -> None:
        meta = {"name": name, "namespace": namespace}
        self.api.put(LEASES, {"metadata": meta, "spec": {"renewTime": micro(self.now)}})

    def report(self, name: str, *faults: Raw, gpus: int = 8, **more: Any) -> None:
        raw = copy.deepcopy(self.api.objects[BLADES][name])
        raw.setdefault("status", {})["report"] = {
            "agent": {
                "bootID": more.get("boot", "boot-1"),
                "driver": more.get("driver", "580.95.05"),
                "time": utc(self.now),
            },
            "gpus": [
                {
                    "index": index,
                    "product": more.get("product", "NVIDIA-H200"),
                    "memory": more.get("memory", "141Gi"),
                }
                for index in range(gpus)
            ],
            "faults": list(faults),
            "checks": {"run": 41, "unknown": []},
        }
        self.api.put(BLADES, raw)
        self.beat(name)

    def gang(self, name: str, *seats: str, spares: Sequence[str] = ()) -> None:
        self.api.put(
            GANGS,
            {
                "metadata": {"name": name, "namespace": "ml"},
                "spec": {
                    "pool": "paris",
                    "slots": [
                        {"name": "w", "count": len(seats), "requests": {"nvidia.com/gpu": "8"}}
                    ],
                },
                "status": {
                    "phase": "Placed",
                    "placement": {
                        "size": len(seats), "seats": list(seats), "spares": list(spares),
                    },
                },
            },
        )  # fmt: skip

    def guest(
        self, name: str, blade: str, *, gang: str = "job", job: str = "", gpus: int = 8
    ) -> None:
        """Let a pod be on a blade: of a gang, maybe of a TrainingJob, or of none (empty)."""
        labels = {"tramontane.dev/gang": gang, "tramontane.dev/job": job}
        meta = {"name": name, "namespace": "ml", "labels": {k: v for k, v in labels.items() if v}}
        limits = {"limits": {"nvidia.com/gpu": str(gpus)}} if gpus else {}
        spec = {"nodeName": blade, "containers": [{"name": "main", "resources": limits}]}
        self.api.put(PODS, {"metadata": meta, "spec": spec, "status": {"phase": "Running"}})

    def works(self, blade: str = "") -> list[str]:
        """Return the names of the work pods, of one blade or of all."""
        return [
            raw["metadata"]["name"]
            for raw in self.api.objects[PODS].values()
            if "tramontane.dev/work" in raw["metadata"].get("labels", {})
            and blade in {"", raw["spec"]["nodeName"]}
        ]

    def starts(self, name: str) -> None:
        """Let the container of a work pod run."""
        self._is(name, "Running", {"running": {"startedAt": utc(self.now)}})

    def breaks(self, name: str, waiting: str) -> None:
        """Let a kubelet say why it cannot start a work pod."""
        self._is(name, "Pending", {"waiting": {"reason": waiting}})

    def _is(self, name: str, phase: str, state: Raw) -> None:
        raw = copy.deepcopy(self.api.objects[PODS][f"{SYSTEM}/{name}"])
        raw["status"] = {"phase": phase, "containerStatuses": [{"name": "test", "state": state}]}
        self.api.put(PODS, raw)

    def finish(self, name: str, code: int = 0, **said: Any) -> None:
        """Let a work pod end with an exit code and its last line."""
        ended = {"exitCode": code, "message": json.dumps(said), "reason": "Completed"}
        self._is(name, "Failed" if code else "Succeeded", {"terminated": ended})

    def spec(self, name: str, **fields: Any) -> None:
        raw = copy.deepcopy(self.api.objects[BLADES][name])
        raw["spec"] |= fields
        raw["metadata"]["generation"] += 1
        self.api.put(BLADES, raw)

    # What is there

    def blade(self, name: str) -> Raw:
        return self.api.objects[BLADES][name]

    def state(self, name: str) -> str:
        return str(self.blade(name)["status"]["state"])

    def why(self, name: str) -> str | None:
        reason: str | None = self.blade(name)["status"].get("reason")
        return reason

    def severity(self, name: str) -> str:
        return str(self.blade(name)["status"]["verdict"]["severity"])

    def taints(self, name: str) -> dict[str, str]:
        taints = self.api.objects[NODES][name]["spec"].get("taints") or []
        return {taint["key"]: taint.get("value", "") for taint in taints}

    def labels(self, name: str) -> dict[str, str]:
        return dict(self.api.objects[NODES][name]["metadata"]["labels"])

    def condition(self, name: str) -> tuple[str, str] | None:
        conditions = self.api.objects[NODES][name]["status"]["conditions"]
        return next(
            ((one["status"], one["reason"]) for one in conditions if one["type"] == "GPUHealthy"),
            None,
        )

    def pool_condition(self, pool: str, type_: str) -> Raw:
        status = self.api.objects[NODEPOOLS][pool].get("status") or {}
        return next((one for one in status.get("conditions", ()) if one["type"] == type_), {})


def _split(informers: caches.Informers) -> Callable[[str, Raw | None], None]:
    """Tell each of the three caches of pods what its selectors let through."""
    gangs, works, others = map(_teller, (informers.pods, informers.works, informers.others))

    def tell(key: str, raw: Raw | None) -> None:
        labels = {} if raw is None else raw["metadata"].get("labels") or {}
        ended = raw is not None and raw.get("status", {}).get("phase") in {"Succeeded", "Failed"}
        is_gang, is_work = "tramontane.dev/gang" in labels, "tramontane.dev/work" in labels
        gangs(key, raw if is_gang else None)
        works(key, raw if is_work else None)
        others(key, None if is_gang or is_work or ended else raw)

    return tell


def _teller(informer: Any) -> Callable[[str, Raw | None], None]:
    def tell(key: str, raw: Raw | None) -> None:
        if raw is None:
            informer._store.drop(key)
        elif informer._resource is not LEASES or key.startswith(f"{SYSTEM}/"):
            view = informer._decode(raw)
            if view is not None:
                informer._store.put(key, view)

    return tell


def fault(code: str = "xid-79", severity: str = "Fatal", at: float = NOW, **more: Any) -> Raw:
    return {
        "code": code,
        "check": "xid",
        "gpu": 3,
        "severity": severity,
        "action": "Drain",
        "count": 1,
        "firstSeen": utc(at),
        "lastSeen": utc(at),
        **more,
    }
