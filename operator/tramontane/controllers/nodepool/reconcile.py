"""Run the NodePool controller: two queues, one of blades and one of pools.

A key of the first queue is a Node's name, which is its Blade's too. An event of a Blade, Node,
heartbeat or gang costs one reconcile of that blade, whatever the size of its pool. A key of the
second queue is a pool's name: its status is made of running counts (tally.py), and written at most
once a second unless a condition flips.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace

from tramontane.api import clock as api_clock
from tramontane.api import names
from tramontane.api.blade import Blade, BladeState, BladeStatus, Severity
from tramontane.api.gang import Gang
from tramontane.api.names import Work
from tramontane.api.nodepool import (
    NodePool,
    RemediationMode,
)
from tramontane.api.reasons import BladeReason
from tramontane.controllers import metrics
from tramontane.controllers.informers import Informers, LeaseView, Node, OtherPod, blades_of
from tramontane.controllers.nodepool import history, incidents, life
from tramontane.controllers.nodepool import status as pool_status
from tramontane.controllers.nodepool.budget import Ledger, is_out
from tramontane.controllers.nodepool.care import Raw
from tramontane.controllers.nodepool.drain import Drains
from tramontane.controllers.nodepool.kubelet import Kubelets
from tramontane.controllers.nodepool.members import Members
from tramontane.controllers.nodepool.metrics import BLADES
from tramontane.controllers.nodepool.outages import Outages
from tramontane.controllers.nodepool.plan import Plan, plan
from tramontane.controllers.nodepool.pools import Pools
from tramontane.controllers.nodepool.shared import Shared
from tramontane.controllers.nodepool.sight import (
    ANNOTATION_STALE_REPORT,
    Sight,
    is_kept,
    tranche_of,
)
from tramontane.controllers.nodepool.silence import Beats
from tramontane.controllers.nodepool.state import LOST_AFTER_S, Decision, Ruling
from tramontane.controllers.nodepool.tally import Member, Tally
from tramontane.controllers.nodepool.works import WorkPod
from tramontane.controllers.nodepool.workshell import Works
from tramontane.controllers.nodepool.writer import Writer
from tramontane.controllers.nodepool.written import Written
from tramontane.kube.client import Client
from tramontane.kube.events import EventRecorder
from tramontane.kube.process import StopEvent
from tramontane.kube.views import PodView
from tramontane.kube.workqueue import WorkQueue

log = logging.getLogger(__name__)

_SWEEP_S = 2.0
_COUNTS_S = 0.5
_RESYNC_S = 600.0
_BLADE_WORKERS = 32
_POOL_WORKERS = 2
_REFUSED = frozenset({BladeReason.BUDGET_EXHAUSTED, BladeReason.BREAKER_OPEN})


class NodePoolController:
    """Keeps Blades, Nodes' marks and NodePool.status as they must be.

    Attributes:
        blades: queue of blades, by name.
        pools: queue of pools, by name; kopf pushes into it too.
    """

    def __init__(
        self,
        client: Client,
        informers: Informers,
        recorder: EventRecorder,
        namespace: str = names.SYSTEM_NAMESPACE,
        *,
        reset: Raw | None = None,
        dry_run: bool = False,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.blades: WorkQueue[str] = WorkQueue(name="blades")
        self.pools: WorkQueue[str] = WorkQueue(name="nodepools")
        self._dry_run = dry_run
        self._client = client
        self._informers = informers
        self._recorder = recorder
        self._clock = clock
        self._now_s = monotonic
        self._ledger = Ledger()
        self._tally = Tally()
        self._beats = Beats()
        self._kubelets = Kubelets(client, monotonic)
        self._members = Members(
            informers.pools.cache,
            informers.nodes.cache,
            informers.blades.cache,
            reset,
            dry_run=dry_run,
        )
        self._blade = Written(informers.blades.cache, _version, monotonic)
        self._node: Written[Node] = Written(
            informers.nodes.cache, lambda node: node.version, monotonic
        )
        self._writer = Writer(client, recorder, self._node, self._blade)
        self._drains = Drains(client, recorder)
        self._works = Works(client, informers.works, namespace, monotonic)
        shared = Shared(
            client=client,
            informers=informers,
            recorder=recorder,
            members=self._members,
            blade=self._blade,
            works=self._works,
            clock=clock,
            now_s=monotonic,
            ledger=self._ledger,
            tally=self._tally,
        )
        self._pools = Pools(shared, self.blades.add)
        self._arrived_s: dict[str, float] = {}
        self._outages = Outages()

    def wire(self) -> None:
        """Have the caches push keys into the queues; call before the caches run."""
        self._informers.pools.add_listener(self._on_pool)
        self._informers.nodes.add_listener(self._on_node)
        self._informers.blades.add_listener(self._on_blade)
        self._informers.leases.add_listener(self._on_lease)
        self._informers.gangs.add_listener(self._on_gang)
        self._informers.pods.add_listener(self._on_gang_pod)
        self._informers.others.add_listener(self._on_other_pod)
        self._informers.works.add_listener(self._on_work)

    async def run(self, stop: StopEvent) -> None:
        """Reconcile until `stop` is set; the caches must be filled."""
        self._arrived_s.clear()
        for blade in self._informers.blades.cache.values():
            self._ledger.note_blade(blade)
        self._members.look_at_all()
        self._add_all()
        if self._dry_run:
            log.warning("dry run: no blade is taken out, drained or repaired")
        BLADES.lead(self._informers)
        try:
            await self._run_all(stop)
        finally:
            BLADES.rest()

    async def _run_all(self, stop: StopEvent) -> None:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self.blades.run(self.reconcile_blade, _BLADE_WORKERS)),
                group.create_task(self.pools.run(self._pools.reconcile, _POOL_WORKERS)),
                group.create_task(self._sweep()),
                group.create_task(self._resync()),
            ]
            await stop.wait()
            for task in tasks:
                task.cancel()

    # One blade

    async def reconcile_blade(self, name: str) -> float | None:
        """Make one blade, its Node's marks and its status as they must be."""
        # 1. Ask for what is in no cache. From here to the writes nothing awaits, so that the
        #    budget's question and answer cannot be torn apart.
        kubelet_at = await self._kubelet_at(name)
        # 2. Look and decide.
        sight = self._sight(name, kubelet_at)
        planned = plan(sight, lambda decision: self._rule(sight, decision))
        self._book(sight, planned)
        if planned.is_empty:
            # A queue full of such keys must not keep the heartbeat of our Lease waiting.
            await asyncio.sleep(0)
        else:
            # 3. Write: what keeps work away first.
            await self._writer.mark(name, planned)
            self._measure(sight, planned)
            await self._writer.tell(name, planned)
        self._enter(name)
        # 4. Test or repair: what is written down says which pod that takes.
        if sight.policy is not None and not planned.keep:
            blade = self._blade.get(name) if not planned.delete else None
            gently = planned.decision is None or planned.decision.state is not BladeState.HEALTHY
            if await self._works.ensure(blade, sight.policy, name, planned.want, gently=gently):
                self.blades.add(name)
                self.pools.add(sight.policy.pool)
        # 5. Ask those to leave who read no Blade, and should have left.
        await self._drain(name, planned)
        return planned.decision.after_s if planned.decision is not None else None

    async def _drain(self, name: str, planned: Plan) -> None:
        decision = planned.decision
        reason = str(decision.reason) if decision is not None else ""
        fatal = decision is not None and decision.severity is Severity.FATAL
        regarding = self._writer.regarding(name)
        await self._drains.ensure(regarding, reason, planned.overdue, fatal=fatal)

    async def _kubelet_at(self, name: str) -> float | None:
        """Return the kubelet's last sign of life, where the agent is silent and it matters."""
        beat = self._beats.get(name)
        node = self._informers.nodes.cache.get(name)
        if beat is None or node is None or not node.ready:
            return None
        if beat.silence_s(self._now_s()) < LOST_AFTER_S:
            return None
        if self._members.claim(name).owner is None and name not in self._informers.blades.cache:
            return None
        return await self._kubelets.renewed_at(name)

    def _sight(self, name: str, kubelet_at: float | None) -> Sight:
        node, blade = self._node.get(name), self._blade.get(name)
        if name not in self._informers.nodes.cache:
            node = None
        claim = self._members.claim(name)
        owner, kept_from = claim.owner, None
        if blade is not None and owner != blade.spec.pool:
            if node is None:
                owner = blade.spec.pool
            elif is_kept(blade):
                owner, kept_from = blade.spec.pool, claim
        beat, now_s = self._beats.get(name), self._now_s()
        # A gang that has given the blade up, and waits for another, must not keep it from repair.
        gangs = [
            gang
            for gang in self._informers.gangs.by_index("blade", name)
            if node is None or name not in _given_up(gang)
        ]
        policy = self._members.policy(owner) if owner is not None else None
        pool = policy.pool if policy is not None else ""
        if policy is not None and policy.usual != (usual := self._pools.usual(pool)):
            policy = replace(policy, usual=usual)
        return Sight(
            name=name,
            now=self._clock(),
            node=node,
            blade=blade,
            policy=policy,
            gangs=tuple(sorted(gang.key for gang in gangs)),
            heard_at=beat.renewed_at if beat is not None else None,
            agent_silence_s=beat.silence_s(now_s) if beat is not None else float("inf"),
            machine_silence_s=beat.machine_silence_s(now_s, kubelet_at) if beat is not None else 0,
            guests=self._pools.guests(name),
            strangers=self._pools.strangers(name),
            works=self._works.on(name),
            collective=self._works.collective(pool, name),
            idle_slot=self._pools.has_idle_slot(pool, name),
            breaker_open=policy is not None and self._pools.is_halted(pool),
            kept_from=kept_from,
        )

    def _rule(self, sight: Sight, decision: Decision) -> Ruling:
        """Return whether a fault of this blade may have consequences."""
        policy, blade = sight.policy, sight.blade
        assert policy is not None
        assert decision.by_fault
        if policy.mode is RemediationMode.OFF:
            return Ruling.OFF
        if policy.mode is RemediationMode.DRY_RUN:
            return Ruling.DRY_RUN
        # What serves nobody takes nothing away: it neither opens a breaker nor uses budget.
        status = blade.status if blade is not None else BladeStatus()
        if not _serves(status):
            return Ruling.GRANTED
        # The budget first: who waits for it calls once, when its fault began, not at each look.
        total = self._ledger.total(policy.pool)
        window, threshold = self._pools.breaker(policy.pool)
        if not self._ledger.grants(sight.name, policy.pool, policy.budget(total)):
            fault = incidents.open_fault(status.incidents)
            at = api_clock.parse(fault.at) if fault is not None and fault.at else sight.now
            window.note(sight.name, at, total, threshold, sight.now)
            self.pools.add(policy.pool)
            return Ruling.OVER_BUDGET
        if not window.grants(sight.name, sight.now, total, threshold):
            self._ledger.withdraw(sight.name, policy.pool)
            self.pools.add(policy.pool)
            return Ruling.BREAKER_OPEN
        return Ruling.GRANTED

    def _book(self, sight: Sight, planned: Plan) -> None:
        """Enter the decision in the ledger, and have the pool counted where it changed."""
        decision, policy, name = planned.decision, sight.policy, sight.name
        if planned.delete or decision is None or policy is None:
            self._ledger.forget(name)
            return
        if decision.state in life.OUT or decision.reason not in _REFUSED:
            self._ledger.withdraw(name, policy.pool)
        # What has once reported was capacity; its report may be gone with a Blade made anew.
        status = sight.blade.status if sight.blade is not None else BladeStatus()
        reported = status.report is not None
        worked = history.has_worked(status.qualification, status.incidents)
        out = worked and is_out(decision.state, decision.reason, reported=reported)
        if self._ledger.note(name, policy.pool, out=out) or not planned.is_empty:
            self.pools.add(policy.pool)
        want = planned.want
        if want is not None and want.kind is Work.BURN_IN and decision.state is BladeState.HEALTHY:
            self._works.grant_idle_test(policy.pool, name)

    def _enter(self, name: str) -> None:
        """Have the blade counted as it is now."""
        blade, node = self._blade.get(name), self._informers.nodes.cache.get(name)
        policy = self._members.policy(blade.spec.pool) if blade is not None else None
        if blade is None or policy is None:
            self._tally.enter(name, None)
            return
        status = blade.status
        severity = status.verdict.severity if status.verdict is not None else None
        cordoned = node is None or node.unschedulable
        member = Member(
            pool=policy.pool,
            state=status.state,
            takes_work=pool_status.takes_work(status.state, severity, unschedulable=cordoned),
            tranche=tranche_of(node, blade, policy),
            first_try=history.passed_first_try(status),
            failures=history.failures(status.incidents, self._clock()),
            since=api_clock.parse(blade.metadata.creation_timestamp)
            if blade.metadata.creation_timestamp
            else None,
            lacks=tuple(label for label in policy.levels if label not in node.labels)
            if node is not None
            else (),
        )
        if self._tally.enter(name, member):
            self.pools.add(policy.pool)

    def _measure(self, sight: Sight, planned: Plan) -> None:
        decision, policy = planned.decision, sight.policy
        if decision is None or policy is None:
            return
        arrived_s = self._arrived_s.pop(sight.name, None)
        old = sight.blade.status.state if sight.blade is not None else None
        if decision.state is old:
            return
        status = sight.blade.status if sight.blade is not None else BladeStatus()
        out_s = self._outages.change(sight.name, status, decision.state, sight.now)
        if out_s is not None:
            metrics.OUT_SECONDS.labels(policy.pool).observe(out_s)
        reason = decision.reason or ""
        metrics.TRANSITIONS.labels(policy.pool, decision.state, reason).inc()
        if arrived_s is not None and decision.by_fault:
            metrics.QUARANTINE_SECONDS.observe(self._now_s() - arrived_s)

    # What brings keys

    def _on_pool(self, key: str, old: NodePool | None, new: NodePool | None) -> None:
        if _claims(old) != _claims(new):
            nodes, pools = self._members.look_at_all()
            for blade in self._informers.blades.by_index("pool", key):
                self.blades.add(blade.metadata.name)
            for node in nodes:
                self.blades.add(node)
            for pool in pools:
                self.pools.add(pool)
        self.pools.add(key)

    # Urgent is what takes a blade from work, or work's way to it: a fault must not wait for a look
    # at all blades.

    def _on_node(self, key: str, old: Node | None, new: Node | None) -> None:
        if new is None:
            self._node.forget(key)
        self._look_at(key)
        flips = old is not None and new is not None and old.ready != new.ready
        self.blades.add(key, urgent=flips)

    def _on_blade(self, key: str, old: Blade | None, new: Blade | None) -> None:
        said = new is not None and (old is None or old.status.report != new.status.report)
        if new is None:
            self._blade.forget(key)
            self._outages.forget(key)
            self._works.forget(key)
            self._ledger.forget(key)
            self._tally.enter(key, None)
        elif said:
            self._arrived_s[key] = self._now_s()
        if old is None or new is None:
            self._look_at(key)
            self.blades.add(key)
        else:
            self.blades.add(key, urgent=said or old.spec != new.spec)
        for blade in (old, new):
            if blade is not None:
                self.pools.add(blade.spec.pool)

    def _on_lease(self, key: str, _old: LeaseView | None, new: LeaseView | None) -> None:
        blade = key.partition("/")[2].removeprefix(names.LEASE_BLADE_PREFIX)
        if new is None:
            self._beats.forget(blade)
            self.blades.add(blade)
        elif self._beats.note(blade, new.renewed_at, self._now_s(), self._clock()):
            self.blades.add(blade)

    def _on_gang(self, key: str, old: Gang | None, new: Gang | None) -> None:
        """A blade cares whether it has a seat only where it does not work, or is being tested."""
        self._tally.place(key, new)
        before = set(blades_of(old)) if old is not None else set()
        after = set(blades_of(new)) if new is not None else set()
        for name in (before ^ after) | (_given_up(old) ^ _given_up(new)):
            blade = self._informers.blades.cache.get(name)
            if blade is not None and (
                name not in self._informers.nodes.cache
                or ANNOTATION_STALE_REPORT in blade.metadata.annotations
                or blade.status.state is not BladeState.HEALTHY
                or self._works.on(name)
            ):
                self.blades.add(name, urgent=bool(self._works.on(name)))
        if before == after:
            return
        for gang in (old, new):
            if gang is not None:
                # Only counts follow from it, and many gangs may start at once.
                self.pools.add_after(gang.spec.pool, _COUNTS_S)

    def _on_gang_pod(self, _key: str, old: PodView | None, new: PodView | None) -> None:
        before = old.node if old is not None and not old.finished else None
        after = new.node if new is not None and not new.finished else None
        self._moved(before, after)

    def _on_other_pod(self, _key: str, old: OtherPod | None, new: OtherPod | None) -> None:
        self._moved(old.node if old is not None else None, new.node if new is not None else None)

    def _moved(self, before: str | None, after: str | None) -> None:
        """Look at the blade that a pod has left or come to, where that bears on it.

        A test ends when work comes; a blade that does not work is repaired when the last has left.
        """
        for name in {before, after} - {None} if before != after else ():
            blade = self._informers.blades.cache.get(name or "")
            tested = bool(self._works.on(name or ""))
            if blade is not None and (blade.status.state is not BladeState.HEALTHY or tested):
                self.blades.add(blade.metadata.name, urgent=tested)

    def _on_work(self, _key: str, old: WorkPod | None, new: WorkPod | None) -> None:
        for pod in (old, new):
            if pod is not None:
                self.blades.add(pod.blade)
                self.pools.add(pod.pool)

    def _look_at(self, node: str) -> None:
        for pool in self._members.look_at(node):
            self.pools.add(pool)

    async def _sweep(self) -> None:
        while True:
            for blade in self._beats.sweep(self._now_s()):
                self.blades.add(blade, urgent=True)
            await asyncio.sleep(_SWEEP_S)

    async def _resync(self) -> None:
        """Look at everything once in a while: no missed event is for ever."""
        while True:
            await asyncio.sleep(_RESYNC_S)
            self._add_all()

    def _add_all(self) -> None:
        for cache in (self._informers.nodes.cache, self._informers.blades.cache):
            for name in cache:
                self.blades.add(name)
        for pool in self._informers.pools.cache:
            self.pools.add(pool)


def _serves(status: BladeStatus) -> bool:
    """Return whether the blade is capacity, so that a quarantine takes something away.

    | repair | steps to pass | what it is                                        | serves |
    |--------|---------------|---------------------------------------------------|--------|
    | yes    | any           | out for a fault, also while it is Lost or Unknown | no     |
    | none   | yes           | new, or on its way back                           | no     |
    | none   | none          | at work, silent, or held by a person only         | yes    |
    """
    asked = status.qualification
    return status.repair is None and (asked is None or asked.step is None)


def _claims(pool: NodePool | None) -> object:
    """Return what of a pool bears on its blades; its status does not."""
    return None if pool is None else (pool.spec, pool.metadata.deletion_timestamp)


def _version(blade: Blade) -> int:
    return int(blade.metadata.resource_version or 0)


def _given_up(gang: Gang | None) -> set[str]:
    """Return the blades that the gang's owner has told the scheduler to take away."""
    return {one.blade for one in gang.spec.lost} if gang is not None else set()
