"""Keep watching a cluster and gather what broke an invariant, and when things happened.

One `Watcher` holds informers of its own on pods, gangs, blades, nodes, pools and what people ask
for. It is a bystander: it writes nothing, and shares no code with the operator and the scheduler
but the transport. The demo, the benchmarks and the plane tests read its marks (when was this first
seen) and, at the end, `violations()`.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar

from tramontane.api.names import ANNOTATION_EPOCH, GPU_RESOURCE, LABEL_GANG, LABEL_JOB, LABEL_SEAT
from tramontane.kube.client import Client
from tramontane.kube.informer import Informer
from tramontane.kube.resources import (
    BLADES,
    GANGS,
    INFERENCEDEPLOYMENTS,
    NODEPOOLS,
    NODES,
    PODS,
    TRAININGJOBS,
)
from tramontane.lab import invariants
from tramontane.lab.invariants import Recorded, SeenBlade, SeenGang, SeenPod, Violation

Raw = dict[str, Any]
T = TypeVar("T")


class Watcher:
    """See `watching`; the attributes are caches of raw objects by name or namespace/name."""

    def __init__(self, client: Client) -> None:
        self.pods = Informer[Raw](client, PODS, _same, label_selector=LABEL_GANG)
        self.gangs = Informer[Raw](client, GANGS, _same)
        self.blades = Informer[Raw](client, BLADES, _same)
        self.nodes = Informer[Raw](client, NODES, _same)
        self.pools = Informer[Raw](client, NODEPOOLS, _same)
        self.jobs = Informer[Raw](client, TRAININGJOBS, _same)
        self.deployments = Informer[Raw](client, INFERENCEDEPLOYMENTS, _same)
        self.created_at: dict[str, float] = {}
        self.removed: list[SeenPod] = []
        # Blades that may be condemned; None: any may.
        self.sick: frozenset[str] | None = None
        self._blade_since: dict[str, SeenBlade] = {}
        self._recorded: dict[str, Recorded] = {}
        self._found: dict[str, Violation] = {}
        self._changed = asyncio.Event()
        self.pods.add_listener(self._on_pod)
        self.gangs.add_listener(self._on_gang)
        self.blades.add_listener(self._on_blade)
        self.nodes.add_listener(self._on_any)
        self.pools.add_listener(self._on_any)
        self.jobs.add_listener(self._on_job)
        self.deployments.add_listener(self._on_any)

    def violations(self) -> list[Violation]:
        """Return what was broken so far, restarts without a recorded cause included."""
        late = invariants.restarted_without_cause(self.removed, self._recorded, time.monotonic())
        for violation in late:
            self._found.setdefault(str(violation), violation)
        return list(self._found.values())

    async def until(
        self, what: str, see: Callable[[], T | None], *, timeout_s: float
    ) -> tuple[T, float]:
        """Return what `see` first returned other than None or False, and when (monotonic, s).

        Raises:
            TimeoutError: it did not within `timeout_s`; the message says what was waited for.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            self._changed.clear()
            if seen := see():
                return seen, time.monotonic()
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"{what} must happen within {timeout_s:.0f} s (it did not)")
            try:
                await asyncio.wait_for(self._changed.wait(), min(left, 0.5))
            except TimeoutError:
                continue

    def pods_of(self, job: str) -> dict[int, Raw]:
        """Return the pods of a job ("namespace/name") by seat."""
        namespace, _, name = job.partition("/")
        return {
            int(pod["metadata"]["labels"][LABEL_SEAT]): pod
            for pod in self.pods.cache.values()
            if pod["metadata"]["namespace"] == namespace
            and pod["metadata"]["labels"].get(LABEL_JOB) == name
        }

    def _on_any(self, _key: str, _old: Raw | None, _new: Raw | None) -> None:
        self._changed.set()

    def _on_pod(self, _key: str, old: Raw | None, new: Raw | None) -> None:
        now = time.monotonic()
        if new is not None:
            self.created_at.setdefault(new["metadata"]["uid"], now)
        if old is not None and (new is None or old["metadata"]["uid"] != new["metadata"]["uid"]):
            self._note_removed(old)
        if new is None or new["spec"].get("nodeName") != (old or {}).get("spec", {}).get(
            "nodeName"
        ):
            self._note(self._twice(now))
        self._changed.set()

    def _note_removed(self, old: Raw) -> None:
        pod = see_pod(old)
        job = self.jobs.cache.get(pod.job)
        if job is None or job["metadata"].get("deletionTimestamp") or job["spec"].get("suspend"):
            return
        status = job.get("status", {})
        if status.get("phase") in {"Succeeded", "Failed", "Suspended"}:
            return
        if status.get("handshake", {}).get("why") == "Resize":
            return
        self.removed.append(pod)

    def _twice(self, now: float) -> list[Violation]:
        capacity = {
            name: int(node.get("status", {}).get("capacity", {}).get(GPU_RESOURCE, 0))
            for name, node in self.nodes.cache.items()
        }
        return invariants.gpus_given_twice(map(see_pod, self.pods.cache.values()), capacity, now)

    def _on_gang(self, _key: str, old: Raw | None, new: Raw | None) -> None:
        now = time.monotonic()
        if new is not None:
            before, after = (see_gang(old) if old is not None else None), see_gang(new)
            if before is None or (before.seats, before.spares) != (after.seats, after.spares):
                self._note(invariants.partly_placed(after, now))
                self._note(invariants.seated_on_sick_blades(before, after, self._blade_since, now))
                self._note(invariants.survivors_moved(before, after, now))
                gangs = map(see_gang, self.gangs.cache.values())
                self._note(invariants.seats_given_twice(gangs, now))
        self._changed.set()

    def _on_blade(self, key: str, _old: Raw | None, new: Raw | None) -> None:
        if new is None:
            self._blade_since.pop(key, None)
        else:
            state = new.get("status", {}).get("state", "")
            seen = self._blade_since.get(key)
            if seen is None or seen.state != state:
                now = time.monotonic()
                self._blade_since[key] = seen = SeenBlade(key, state, now)
                if self.sick is not None:
                    self._note(invariants.condemned_without_cause(seen, self.sick, now))
        self._changed.set()

    def _on_job(self, key: str, _old: Raw | None, new: Raw | None) -> None:
        if new is not None:
            recorded = self._recorded.setdefault(key, Recorded())
            for incident in new.get("status", {}).get("incidents", []):
                recorded.incidents.add((incident["cause"], tuple(incident.get("seats", ()))))
        self._changed.set()

    def _note(self, violations: list[Violation]) -> None:
        for violation in violations:
            self._found.setdefault(str(violation), violation)


@asynccontextmanager
async def watching(client: Client) -> AsyncIterator[Watcher]:
    """Yield a synced Watcher; its informers end with the context."""
    watcher = Watcher(client)
    informers = (
        watcher.nodes,
        watcher.pools,
        watcher.blades,
        watcher.jobs,
        watcher.deployments,
        watcher.gangs,
        watcher.pods,
    )
    async with AsyncExitStack() as stack:
        for informer in informers:
            task = asyncio.create_task(informer.run())
            stack.push_async_callback(_end, task)
        await asyncio.gather(*(informer.wait_synced() for informer in informers))
        yield watcher


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _same(raw: Raw) -> Raw:
    return raw


def see_pod(raw: Raw) -> SeenPod:
    """Decode a pod of a gang."""
    meta, spec = raw["metadata"], raw["spec"]
    return SeenPod(
        uid=meta["uid"],
        name=meta["name"],
        job=f"{meta['namespace']}/{meta['labels'].get(LABEL_JOB, '')}",
        seat=int(meta["labels"].get(LABEL_SEAT, -1)),
        node=spec.get("nodeName", ""),
        gpus=sum(
            int(container.get("resources", {}).get("requests", {}).get(GPU_RESOURCE, 0))
            for container in spec["containers"]
        ),
        phase=raw.get("status", {}).get("phase", "Pending"),
        epoch=int(meta.get("annotations", {}).get(ANNOTATION_EPOCH, 0)),
    )


def see_gang(raw: Raw) -> SeenGang:
    """Decode a gang's placement."""
    meta, spec, status = raw["metadata"], raw["spec"], raw.get("status", {})
    placement = status.get("placement") or {}
    return SeenGang(
        name=f"{meta['namespace']}/{meta['name']}",
        count=sum(slot["count"] for slot in spec["slots"]),
        sizes=tuple(spec.get("sizes", ())),
        seats=tuple(placement.get("seats", ())),
        spares=tuple(placement.get("spares", ())),
        epoch=status.get("epoch", 0),
        lost=frozenset((lost["seat"], lost["blade"]) for lost in spec.get("lost", ())),
    )
