"""A small cluster in memory: an API server, caches that lag, a scheduler, kubelets, faults.

`FakeApi` has the methods of `kube.client.Client` that the controller uses. Writes can be made to
kill the operator, before or after they are done.
"""

import asyncio
import copy
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

from tramontane.api import clock
from tramontane.api.blade import Blade
from tramontane.api.gang import Gang
from tramontane.controllers.informers import blades_of, job_of
from tramontane.controllers.trainingjob import Config, TrainingJobController
from tramontane.kube.errors import AlreadyExists, Conflict, NotFound
from tramontane.kube.resources import BLADES, GANGS, PODS, TRAININGJOBS, Resource
from tramontane.kube.store import Store
from tramontane.kube.views import decode_node, decode_pod
from unit.trainingjob.builders import NOW, a_job, a_pool, quarantined

Raw = dict[str, Any]
KEY = "ml/llama"
_TURNS = 5


class Killed(BaseException):
    """Be what SIGKILL is: nothing of the operator runs after it."""


class FakeApi:
    """Keep raw objects by kind and key; count writes; kill on command."""

    def __init__(self) -> None:
        self.now = NOW
        self.objects: dict[str, dict[str, Raw]] = {}
        self.writes: list[tuple[str, str, str]] = []  # that were done
        self.asked: list[tuple[str, str, str]] = []  # done or refused
        self.kill_in: int | None = None
        self.kill_after_write = False
        self.lines: list[bytes] = []
        self._numbers = itertools.count(1)

    def of(self, resource: Resource) -> dict[str, Raw]:
        return self.objects.setdefault(resource.plural, {})

    async def get(self, resource: Resource, name: str, namespace: str | None = None) -> Raw:
        return copy.deepcopy(self._there(resource, name, namespace))

    async def create(self, resource: Resource, body: Raw) -> Raw:
        key = _key(body["metadata"])
        with self._write("create", resource, key):
            if key in self.of(resource):
                raise AlreadyExists(409, "AlreadyExists", f"{key} already exists")
            made = copy.deepcopy(dict(body))
            made["metadata"] |= {
                "uid": f"uid-{next(self._numbers)}",
                "generation": 1,
                "creationTimestamp": clock.utc(self.now),
            }
            self.of(resource)[key] = made
        return copy.deepcopy(made)

    async def apply(
        self, resource: Resource, body: Raw, *, manager: str, subresource: str | None = None
    ) -> Raw:
        assert manager == "tramontane-operator"
        key = _key(body["metadata"])
        there = self.of(resource).get(key)
        if subresource == "status":
            with self._write("status", resource, key):
                if there is None:
                    raise NotFound(404, "NotFound", key)
                there["status"] = copy.deepcopy(body["status"])
            return copy.deepcopy(there)
        if there is None:
            return await self.create(resource, body)
        with self._write("apply", resource, key):
            if there.get("spec") != body.get("spec"):
                there["metadata"]["generation"] += 1
            there.update(copy.deepcopy({k: v for k, v in body.items() if k in {"spec", "data"}}))
        return copy.deepcopy(there)

    async def merge_patch(
        self, resource: Resource, name: str, patch: Raw, namespace: str | None = None
    ) -> Raw:
        there = self._there(resource, name, namespace)
        with self._write("patch", resource, f"{namespace}/{name}"):
            if patch["metadata"]["uid"] != there["metadata"]["uid"]:
                raise Conflict(409, "Conflict", "another uid")
            there["metadata"]["annotations"] |= patch["metadata"]["annotations"]
        return copy.deepcopy(there)

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        uid: str | None = None,
        grace_period_s: int | None = None,
        propagation: str | None = None,
    ) -> Raw:
        there = self._there(resource, name, namespace)
        with self._write("delete", resource, f"{namespace}/{name}"):
            if uid not in {None, there["metadata"]["uid"]}:
                raise Conflict(409, "Conflict", "another uid")
            if grace_period_s == 0 or propagation is not None:
                del self.of(resource)[f"{namespace}/{name}"]
            else:
                there["metadata"]["deletionTimestamp"] = clock.utc(self.now)
        return {}

    @asynccontextmanager
    async def pod_log(
        self, namespace: str, name: str, **_: Any
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        self._there(PODS, name, namespace)

        async def lines() -> AsyncIterator[bytes]:
            for line in list(self.lines):
                yield line

        yield lines()

    def _there(self, resource: Resource, name: str, namespace: str | None) -> Raw:
        key = f"{namespace}/{name}" if namespace else name
        found = self.of(resource).get(key)
        if found is None:
            raise NotFound(404, "NotFound", f"{resource.plural} {key}")
        return found

    def _write(self, verb: str, resource: Resource, key: str) -> "_Write":
        return _Write(self, (verb, resource.plural, key))


class _Write:
    """Do one write; the operator may be killed just before or just after it."""

    def __init__(self, api: FakeApi, what: tuple[str, str, str]) -> None:
        self._api, self._what = api, what

    def __enter__(self) -> None:
        self._api.asked.append(self._what)
        if self._strikes() and not self._api.kill_after_write:
            self._api.kill_in = None
            raise Killed
        if self._api.kill_in is not None:
            self._api.kill_in -= 1

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._api.writes.append(self._what)
        if self._api.kill_in is not None and self._api.kill_in < 0:
            self._api.kill_in = None
            raise Killed

    def _strikes(self) -> bool:
        return self._api.kill_in == 0


class Cluster:
    """A hall of blades, one job of four seats, and the operator that may die."""

    def __init__(self, blades: int = 8, **spec: Any) -> None:
        self.api = FakeApi()
        self.names = [f"b{number}" for number in range(blades)]
        job = a_job(**spec).to_dict()
        job["metadata"]["uid"] = "job-uid"
        self.api.of(TRAININGJOBS)[KEY] = job
        for name in self.names:
            self.say(name, "Healthy")
            self.api.objects.setdefault("nodes", {})[name] = _node(name)
        self.api.objects["nodepools"] = {"hall": {}}
        self.removed: list[Raw] = []
        self.recorded: set[int] = set()
        self.start_operator()

    # ---- the operator

    def start_operator(self) -> None:
        """Start an operator that knows nothing but what the API server has."""
        self.stores: dict[str, Store[Any]] = {
            name: Store(name) for name in ("pods", "gangs", "blades", "nodes", "pools")
        }
        self.stores["pods"].add_index("job", job_of)
        self.stores["pods"].add_index("node", lambda pod: (pod.node,) if pod.node else ())
        self.stores["gangs"].add_index("blade", blades_of)
        informers: Any = SimpleNamespace(**self.stores)
        recorder: Any = SimpleNamespace(record=lambda *_: None)
        client: Any = self.api
        self.controller = TrainingJobController(
            client, informers, recorder, lambda: self.api.now, Config()
        )
        self.controller.wire()
        self.sync()

    def sync(self) -> None:
        """Bring the caches up to date."""
        objects = self.api.objects
        self.stores["pools"].replace({"hall": a_pool()})
        self.stores["nodes"].replace({k: decode_node(v) for k, v in objects["nodes"].items()})
        blades = {k: Blade.model_validate(v) for k, v in self.api.of(BLADES).items()}
        self.stores["blades"].replace(blades)
        self.stores["gangs"].replace(
            {k: Gang.model_validate(v) for k, v in self.api.of(GANGS).items()}
        )
        self.stores["pods"].replace({k: decode_pod(v) for k, v in self.api.of(PODS).items()})

    async def reconcile(self) -> None:
        """Reconcile once; an operator that is killed in it is started again."""
        try:
            await self.controller.reconcile(KEY)
        except Killed:
            await self.controller.close()
            self.start_operator()
        for incident in self.status.get("incidents", ()):
            self.recorded.update(incident["seats"])

    # ---- everybody else

    def say(self, blade: str, state: str) -> None:
        """Say of a blade what the nodepool controller would."""
        made = quarantined(blade).to_dict() if state == "Quarantined" else None
        self.api.of(BLADES)[blade] = made or {
            "metadata": {"name": blade},
            "spec": {"pool": "hall"},
            "status": {"state": state},
        }

    def healthy(self) -> list[str]:
        return [
            name for name in self.names if self.api.of(BLADES)[name]["status"]["state"] == "Healthy"
        ]

    def schedule(self) -> None:
        """Place the gang, or move its lost seats, as the scheduler does."""
        gang = self.api.of(GANGS).get(KEY)
        if gang is None:
            return
        status = gang.setdefault("status", {})
        status["observedGeneration"] = gang["metadata"]["generation"]
        if not gang["spec"]["active"]:
            status.pop("placement", None)
            status["phase"] = "Inactive"
            return
        held = {pod["spec"]["nodeName"] for pod in self.api.of(PODS).values()}
        seats = status.get("placement", {}).get("seats")
        if seats is None:
            free = [name for name in self.healthy() if name not in held]
            if len(free) < 4:
                status["phase"] = "Pending"
                return
            seats = free[:4]
        else:
            seats = list(seats)
            for lost in gang["spec"]["lost"]:
                if seats[lost["seat"]] != lost["blade"]:
                    continue
                free = [n for n in self.healthy() if n not in held and n not in seats]
                if free:
                    seats[lost["seat"]] = free[0]
        status["phase"] = "Placed"
        status["placement"] = {"size": 4, "seats": seats, "spares": []}

    def kubelets(self) -> None:
        """Run what is there, and end what is to be deleted."""
        for key, pod in list(self.api.of(PODS).items()):
            if "deletionTimestamp" in pod["metadata"]:
                self.remove(key)
            elif pod.get("status", {}).get("phase") is None:
                seat = pod["metadata"]["labels"]["tramontane.dev/seat"]
                pod["status"] = {
                    "phase": "Running",
                    "podIP": f"10.0.0.{seat}",
                    "conditions": [{"type": "Ready", "status": "True"}],
                    "containerStatuses": [{"name": "trainer", "state": {"running": {}}}],
                }

    def remove(self, key: str) -> None:
        self.removed.append(self.api.of(PODS).pop(key))

    # ---- what is there

    @property
    def status(self) -> Raw:
        status: Raw = self.api.of(TRAININGJOBS)[KEY].get("status", {})
        return status

    @property
    def pods(self) -> dict[int, Raw]:
        return {
            int(pod["metadata"]["labels"]["tramontane.dev/seat"]): pod
            for pod in self.api.of(PODS).values()
        }

    async def settle(self, rounds: int = 12) -> None:
        """Let everybody work until nothing is left to do."""
        for _ in range(rounds):
            self.api.now += 1
            self.sync()
            await self.reconcile()
            for _ in range(_TURNS):
                await asyncio.sleep(0)  # what reads logs gets its turn
            self.schedule()
            self.kubelets()
        self.sync()


def _node(name: str) -> Raw:
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": clock.utc(NOW - 1000)}
    return {
        "metadata": {
            "name": name,
            "uid": f"node-{name}",
            "creationTimestamp": clock.utc(NOW - 5000),
        },
        "status": {"conditions": [ready]},
    }


def _key(meta: Raw) -> str:
    return f"{meta['namespace']}/{meta['name']}"
