"""Follow Blades, Nodes, NodePools, Pods and Gangs, and wake the cycle when one matters.

| what changes | a pass follows |
|---|---|
| a Gang, unless it only shows our own write | always |
| a Blade, a Node, a NodePool, in what the records keep | always |
| a Pod that goes or takes less | while some gang waits for room |
| a Pod that comes on its node | never: its seat is counted, or it takes room away |
| a Pod that waits for us | once its gang may be whole |

Pods are asked for bound and unfinished, of all namespaces: those of others take GPUs, CPU and
memory as well. What a pod's record keeps is a node, a seat and a shared tuple of amounts. Pods
that name this scheduler are asked for while they are not bound, too, and kept in the roster.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from tramontane.api.names import SCHEDULER_NAME
from tramontane.kube.client import Client
from tramontane.kube.informer import Informer
from tramontane.kube.resources import BLADES, GANGS, NODEPOOLS, NODES, PODS
from tramontane.scheduler.fleet import Fleet, build_fleet, refresh
from tramontane.scheduler.foreign.counts import Counts
from tramontane.scheduler.foreign.gangs import ForeignGang
from tramontane.scheduler.foreign.member import Member, decode_member, is_foreign
from tramontane.scheduler.foreign.roster import Roster
from tramontane.scheduler.gangs import GangRecord, decode_gang
from tramontane.scheduler.memory import Memory
from tramontane.scheduler.records import (
    BladeRecord,
    NodeRecord,
    PodRecord,
    PoolRecord,
    decode_blade,
    decode_node,
    decode_pod,
    decode_pool,
)
from tramontane.scheduler.snapshot import Pods

UNFINISHED = "status.phase!=Succeeded,status.phase!=Failed"
UNFINISHED_AND_BOUND = f"spec.nodeName!=,{UNFINISHED}"
OURS = f"spec.schedulerName={SCHEDULER_NAME},{UNFINISHED}"
OURS_AND_UNBOUND = f"spec.nodeName=,{OURS}"


class World:
    """Hold the caches of one scheduler, and what is derived from them.

    Attributes:
        hungry: whether some gang waits for room; the cycle says so after each pass.
        changed: set when a pass is due.
    """

    def __init__(self, client: Client) -> None:
        self.memory = Memory()
        self.pods = Pods()
        self.hungry = True
        self.changed = asyncio.Event()
        self._counts = Counts(client, self._on_count)
        self.roster = Roster(self._counts.sizes)
        self._fleet: Fleet | None = None
        self._moved: set[str] = set()
        self._gangs = Informer(client, GANGS, decode_gang)
        self._blades = Informer(client, BLADES, decode_blade)
        self._nodes = Informer(client, NODES, decode_node)
        self._pools = Informer(client, NODEPOOLS, decode_pool)
        self._pods = Informer(client, PODS, decode_bound, field_selector=UNFINISHED_AND_BOUND)
        self._waiting = Informer(client, PODS, decode_member, field_selector=OURS_AND_UNBOUND)
        self._gangs.add_listener(self._on_gang)
        self._blades.add_listener(self._on_blade)
        self._nodes.add_listener(self._on_node)
        self._pools.add_listener(self._on_pool)
        self._pods.add_listener(self._on_pod)
        self._waiting.add_listener(self._on_waiting)

    @property
    def _informers(self) -> tuple[Informer[Any], ...]:
        return (
            self._pools,
            self._blades,
            self._nodes,
            self._pods,
            self._waiting,
            self._gangs,
        )

    @property
    def synced(self) -> bool:
        """Return whether every cache is complete."""
        return all(informer.synced for informer in self._informers)

    async def wait_synced(self) -> None:
        """Return when every cache is complete."""
        for informer in self._informers:
            await informer.wait_synced()

    def following(self) -> list[Callable[[], Coroutine[Any, Any, None]]]:
        """Return what must run for as long as the world is looked at."""
        return [*(informer.run for informer in self._informers), self._counts.run]

    def fleet(self) -> Fleet:
        """Return the fleet of this moment."""
        blades, nodes, pools = self._blades.cache, self._nodes.cache, self._pools.cache
        if self._fleet is None:
            self._fleet = build_fleet(blades, nodes, pools)
        elif self._moved:
            self._fleet = refresh(self._fleet, self._moved, blades, nodes, pools)
        self._moved.clear()
        return self._fleet

    def foreign(self) -> dict[str, ForeignGang]:
        """Return the gangs of pods of other controllers, of this moment."""
        return self.roster.gangs(self._pools.cache)

    def _on_gang(self, key: str, _: GangRecord | None, new: GangRecord | None) -> None:
        if self.memory.observe(key, new):
            self.changed.set()

    def _on_blade(self, name: str, _: BladeRecord | None, __: BladeRecord | None) -> None:
        self._moved.add(name)
        self.changed.set()

    def _on_node(self, name: str, _: NodeRecord | None, __: NodeRecord | None) -> None:
        if name in self._blades.cache:
            self._moved.add(name)
            self.changed.set()

    def _on_pool(self, _: str, __: PoolRecord | None, ___: PoolRecord | None) -> None:
        self._fleet = None
        self.changed.set()

    def _on_pod(
        self, key: str, old: PodRecord | Member | None, new: PodRecord | Member | None
    ) -> None:
        self.pods.change(key, _counted(old), _counted(new))
        if isinstance(old, Member) or isinstance(new, Member):
            self.roster.show_bound(key, new if isinstance(new, Member) else None)
        if old is not None and self.hungry:
            self.changed.set()

    def _on_waiting(self, key: str, old: Member | None, new: Member | None) -> None:
        if new is not None:
            self._counts.need(new.group.api)
        echo = old is not None and new is not None and replace(old, said=new.said) == new
        if self.roster.show_waiting(key, new) and not echo:
            self.changed.set()

    def _on_count(self, api: str, of: str) -> None:
        if self.roster.touch(api, of):
            self.changed.set()


def decode_bound(raw: dict[str, Any]) -> PodRecord | Member:
    """Return the record of a bound pod: more of one that names this scheduler."""
    return decode_member(raw) if is_foreign(raw) else decode_pod(raw)


def _counted(pod: PodRecord | Member | None) -> PodRecord | None:
    """Return what is counted of a pod as it is: of one in the roster its gang's seat counts.

    One that is being deleted has no seat any more, and takes its room until it is gone.
    """
    if not isinstance(pod, Member):
        return pod
    return PodRecord(pod.node, "", -1, True, pod.ask.requests) if pod.deleting else None
