"""Keep one pool's sums: its status, its breaker, what its blades have in common, their groups.

All is made of what the blades' reconciles have entered (tally.py, budget.py), so that it costs
little however big the pool is, and is written at most once a second unless a condition flips.
"""

from collections.abc import Callable

from tramontane.api import clock as api_clock
from tramontane.api.names import API_VERSION, LABEL_JOB, MANAGER_OPERATOR
from tramontane.api.nodepool import BreakerState, BreakerStatus, NodePool, NodePoolStatus
from tramontane.api.reasons import BladeReason, PendingReason
from tramontane.controllers import metrics
from tramontane.controllers.nodepool import breaker, groups
from tramontane.controllers.nodepool import status as pool_status
from tramontane.controllers.nodepool.life import OUT
from tramontane.controllers.nodepool.metrics import POOLS, PoolShown
from tramontane.controllers.nodepool.policy import Policy, Usual, usual_of
from tramontane.controllers.nodepool.shared import Shared
from tramontane.kube.resources import NODEPOOLS

_WRITE_EVERY_S = 1.0
_LOOK_EVERY_S = 0.1
# Groups are planned over all blades of the pool: 0.15 s for 12,500 of them, in which no quarantine
# can start. They are waited for, and their pods may run out of time, without an event.
_PLAY_EVERY_S, _PLAY_AGAIN_S = 1.0, 5.0
_COMPARE_EVERY_S = 60.0
# The share of a pool whose idle blades run their burn-in again at the same time.
_IDLE_TESTS = 0.05
_ALARMS = frozenset({"Stalled", "BudgetExhausted", "BreakerOpen", "TooFewSpares"})


class Pools:
    """The pools of one cluster. `again` has a blade looked at."""

    def __init__(self, hall: Shared, again: Callable[[str], None]) -> None:
        self._hall = hall
        self._again = again
        self._windows: dict[str, breaker.Window] = {}
        self._usual: dict[str, Usual] = {}
        self._compared_s: dict[str, float] = {}
        self._troubles: dict[str, set[str]] = {}
        self._looked_s: dict[str, float] = {}
        self._played_s: dict[str, float] = {}
        self._wrote_s: dict[str, float] = {}

    def usual(self, pool: str) -> Usual:
        """Return what most of the pool's blades have in common."""
        return self._usual.get(pool, Usual())

    async def reconcile(self, name: str) -> float | None:
        """Write the pool's status if it says something new."""
        pool, policy = self._hall.informers.pools.cache.get(name), self._hall.members.policy(name)
        if pool is None or policy is None:
            for kept in (self._windows, self._usual, self._compared_s, self._troubles):
                kept.pop(name, None)
            for at_s in (self._looked_s, self._played_s, self._wrote_s):
                at_s.pop(name, None)
            self._hall.works.forget_pool(name)
            POOLS.forget(name)
            metrics.forget_pool(name)
            return None
        if name not in self._looked_s:
            metrics.begin_pool(name)
        # 1. Not for each of a thousand blades that start at once.
        early_s = self._looked_s.get(name, float("-inf")) + _LOOK_EVERY_S - self._hall.now_s()
        if early_s > 0:
            return early_s
        self._looked_s[name] = self._hall.now_s()
        self._compare(name)
        # 2. The status before the groups, whatever becomes of those: a breaker that has opened
        #    must be seen, and be known to the next leader.
        wait_s = await self._keep_status(pool, policy)
        # 3. Tests of groups, and what people must know of tests.
        again_s = await self._play_groups(name, policy)
        self._tell_trouble(name)
        return min((one for one in (wait_s, again_s) if one is not None), default=None)

    async def _keep_status(self, pool: NodePool, policy: Policy) -> float | None:
        """Write the status where it says something new; return when it may, if not yet."""
        name, sight = policy.pool, self._look_at_pool(pool, policy)
        now = api_clock.utc(self._hall.clock())
        status = pool_status.compute(pool, policy, self._hall.tally.of(name), sight, now)
        self._export(policy, status, sight)
        # 1. Room was made: those who were refused may ask again.
        if sight.refused and sight.out < sight.budget:
            for blade in sight.refused:
                self._again(blade)
        if status == pool.status:
            return None
        # 2. One write, and a condition that flips does not wait.
        flips = pool_status.flips(pool.status.conditions, status.conditions)
        wait_s = self._wrote_s.get(name, float("-inf")) + _WRITE_EVERY_S - self._hall.now_s()
        if wait_s > 0 and not flips:
            return wait_s
        self._wrote_s[name] = self._hall.now_s()
        body = {"metadata": {"name": name}, "status": status.to_dict()}
        await self._hall.client.apply(
            NODEPOOLS, body, manager=MANAGER_OPERATOR, subresource="status"
        )
        self._raise_alarms(pool, status)
        return None

    async def _play_groups(self, name: str, policy: Policy) -> float | None:
        """Have the pool's blades tested in groups; return when to do so again."""
        if policy.care.collective is None and not self._hall.works.is_testing(name):
            return None
        early_s = self._played_s.get(name, float("-inf")) + _PLAY_EVERY_S - self._hall.now_s()
        if early_s > 0:
            return early_s
        self._played_s[name] = self._hall.now_s()
        blades = {
            blade.metadata.name: found
            for blade in self._hall.informers.blades.by_index("pool", name)
            for found in [self._hall.blade.get(blade.metadata.name)]
            if found is not None
        }
        candidates = [
            groups.candidate(
                blade,
                busy=bool(self.guests(key) or self._hall.informers.gangs.by_index("blade", key)),
            )
            for key, blade in sorted(blades.items())
        ]
        now = self._hall.clock()
        await self._hall.works.play(policy, candidates, blades, now, self._again)
        return _PLAY_AGAIN_S if self._hall.works.is_testing(name) else None

    def _tell_trouble(self, name: str) -> None:
        """Raise an event, once, for what no test will decide, and for what may not run."""
        works = self._hall.works
        trouble: dict[str, str] = dict.fromkeys(works.trouble(name), BladeReason.COLLECTIVE_FAILED)
        trouble |= dict.fromkeys(works.refused(name), PendingReason.MISCONFIGURED)
        said = self._troubles.setdefault(name, set())
        if not works.is_testing(name):
            said.intersection_update(trouble)
        for text, reason in trouble.items():
            if text not in said:
                said.add(text)
                self._say(name, reason, text, "Qualify")

    def _look_at_pool(self, pool: NodePool, policy: Policy) -> pool_status.PoolSight:
        name, made = policy.pool, self._hall.informers.blades.cache
        settled = self._settle(pool)
        return pool_status.PoolSight(
            nodes=len(self._hall.informers.nodes.cache),
            missing=sum(node not in made for node in self._hall.members.owned(name)),
            contested={
                node: claim.rivals for node, claim in self._hall.members.contested(name).items()
            },
            unlabelled=self._hall.tally.of(name).lacking,
            refused=self._hall.ledger.refused(name),
            out=self._hall.ledger.out(name),
            budget=policy.budget(self._hall.ledger.total(name)),
            breaker=settled,
            halted=self._halted(name) if settled.state is BreakerState.OPEN else (),
        )

    def _halted(self, name: str) -> tuple[str, ...]:
        """Return the blades that only the open breaker keeps from being quarantined."""
        blades = self._hall.informers.blades.by_index("pool", name)
        return tuple(
            sorted(
                blade.metadata.name
                for blade in blades
                if blade.status.reason is BladeReason.BREAKER_OPEN
            )
        )

    def _compare(self, name: str) -> None:
        """Find what the pool's blades have in common, from time to time; news is for all."""
        now_s = self._hall.now_s()
        if now_s - self._compared_s.get(name, float("-inf")) < _COMPARE_EVERY_S:
            return
        self._compared_s[name] = now_s
        blades = tuple(self._hall.informers.blades.by_index("pool", name))
        reports = (blade.status.report for blade in blades)
        usual = usual_of(report for report in reports if report is not None)
        if usual != self._usual.get(name, Usual()):
            self._usual[name] = usual
            for blade in blades:
                self._again(blade.metadata.name)

    def _export(self, policy: Policy, status: NodePoolStatus, sight: pool_status.PoolSight) -> None:
        shown = PoolShown(
            status=status,
            out=sight.out,
            budget=sight.budget,
            refused=len(sight.refused),
            gpus=policy.gpus,
            busy_gpus=self._hall.tally.of(policy.pool).busy_gpus,
        )
        POOLS.observe(policy.pool, shown)

    def _raise_alarms(self, pool: NodePool, status: NodePoolStatus) -> None:
        was = {c.type for c in pool.status.conditions if c.status == "True"}
        for one in status.conditions:
            if one.type in _ALARMS and one.status == "True" and one.type not in was:
                self._say(pool.metadata.name, one.reason, one.message, one.type)

    def _say(self, name: str, reason: str, text: str, action: str) -> None:
        """Raise an event for people."""
        pool = self._hall.informers.pools.cache[name]
        regarding = {
            "apiVersion": API_VERSION,
            "kind": "NodePool",
            "name": name,
            "uid": pool.metadata.uid or "",
        }
        self._hall.recorder.record(regarding, "Warning", reason, text, action)

    def breaker(self, name: str) -> tuple[breaker.Window, breaker.Rule]:
        """Return the pool's breaker; at first sight as its blades' records have it."""
        pool = self._hall.informers.pools.cache[name]
        threshold = breaker.read(pool)
        window = self._windows.get(name)
        if window is None:
            window = self._windows[name] = breaker.Window()
            now, total = self._hall.clock(), self._hall.ledger.total(name)
            for blade in self._hall.informers.blades.by_index("pool", name):
                at = breaker.called_at(blade.status)
                if at is not None:
                    window.note(blade.metadata.name, at, total, threshold, now)
            self._settle(pool)
        return window, threshold

    def _settle(self, pool: NodePool) -> BreakerStatus:
        """Return what the pool's status must say of its breaker, and follow it."""
        name = pool.metadata.name
        window, threshold = self.breaker(name)
        was_open = window.is_open
        status = window.settle(
            pool.status.breaker,
            self._hall.ledger.total(name),
            threshold,
            self._hall.clock(),
            closed_at=breaker.closed_at(pool.metadata.annotations),
        )
        if was_open and not window.is_open:
            for blade in self._hall.informers.blades.by_index("pool", name):
                if blade.status.state in OUT or blade.status.reason is BladeReason.BREAKER_OPEN:
                    self._again(blade.metadata.name)
        return status

    def guests(self, name: str) -> tuple[str, ...]:
        """Return the pods that use the blade: of gangs, and others that hold GPUs."""
        gangs = self._hall.informers.pods.by_index("node", name)
        others = self._hall.informers.others.by_index("node", name)
        return tuple(
            sorted([*(pod.key for pod in gangs if not pod.finished), *(pod.key for pod in others)])
        )

    def strangers(self, name: str) -> tuple[str, ...]:
        """Return those of them that have no TrainingJob and are not leaving yet."""
        gangs = self._hall.informers.pods.by_index("node", name)
        others = self._hall.informers.others.by_index("node", name)
        foreign = (
            pod.key
            for pod in gangs
            if LABEL_JOB not in pod.labels and not pod.finished and not pod.deleting
        )
        return tuple(sorted([*foreign, *(pod.key for pod in others if not pod.deleting)]))

    def is_halted(self, name: str) -> bool:
        """Return whether the pool's breaker is open."""
        return self.breaker(name)[0].is_open

    def has_idle_slot(self, pool: str, blade: str) -> bool:
        """Return whether an idle blade may be tested, too: a few at a time, capacity first."""
        total = self._hall.ledger.total(pool)
        return self._hall.works.idle_tests(pool, blade) < max(1, int(total * _IDLE_TESTS))
