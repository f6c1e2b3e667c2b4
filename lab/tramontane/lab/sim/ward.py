"""Look after the blades of a big hall: machines, agents, repairs, and the nodepool planner.

The decisions are `controllers.nodepool.plan`'s, by the same calls in the same order as its shell
makes them; what is left out is what carries them (requests, caches, queues, Events, pool status).
A look that finds nothing to write is followed by the next only twice as long after it as this one
was after the last, an hour at most, unless something happens to the blade: a blade that is away
for days is asked for every 5 s otherwise.
"""

from collections.abc import Callable
from dataclasses import replace

from tramontane.api import clock
from tramontane.api.blade import Action, Blade, BladeState, BladeStatus, Release
from tramontane.api.names import TAINT_BLADE, Work
from tramontane.api.nodepool import NodePool
from tramontane.controllers.informers import Node, decode_operator_node
from tramontane.controllers.nodepool import breaker, incidents, life
from tramontane.controllers.nodepool.budget import Ledger, is_out
from tramontane.controllers.nodepool.plan import Plan, plan
from tramontane.controllers.nodepool.policy import Policy, read
from tramontane.controllers.nodepool.sight import Sight
from tramontane.controllers.nodepool.state import LOST_AFTER_S, Decision, Ruling
from tramontane.controllers.nodepool.works import Outcome, Want, WorkPod
from tramontane.kube.views import TaintView
from tramontane.lab.fleet import Layout
from tramontane.lab.sim import reports
from tramontane.lab.sim.agenda import Agenda, Entry
from tramontane.lab.sim.faults import Fault
from tramontane.lab.sim.iron import Machine, Times, spread_s

# What one write and its way back through a watch take.
ECHO_S = 0.01
# A person who finds the breaker open closes it after this time. An assumption.
_PERSON_S = 1800.0
# Kubernetes' node-monitor-grace-period, after which a silent Node is not Ready.
_USUAL_GRACE_S = 40.0
_SETTLING_LOOKS = 8
_LONGEST_PAUSE_S = 3600.0


class Ward:
    """All blades of one pool.

    Attributes:
        blades, nodes: as the API would have them.
        seated: blades that the gang's placement names; of these `left` are those whose seats it
            has given up (Gang.spec.lost), though there is no other place yet.
        guests: the pod of the gang on each blade.
        changed: called with a blade's name when its Blade or Node has changed.
        died: called when ranks on a blade are dead.
        back: called when a machine without power has come back, empty.
    """

    def __init__(self, agenda: Agenda, layout: Layout, times: Times, pool: NodePool) -> None:
        self._agenda, self._layout, self.times, self._pool = agenda, layout, times, pool
        self._policy: Policy = read(pool)
        self._ledger = Ledger()
        self._window = breaker.Window()
        self._closed_at: float | None = None
        self.machines = {name: Machine(name) for name in layout.names()}
        self.nodes: dict[str, Node] = {}
        self.blades: dict[str, Blade] = {}
        self.seated: frozenset[str] = frozenset()
        self.left: frozenset[str] = frozenset()
        self.gang = ""
        self.guests: dict[str, str] = {}
        self._works: dict[str, WorkPod] = {}
        self._off_since: dict[str, float] = {}
        self._due: dict[str, Entry] = {}
        self._pause_s: dict[str, float] = {}
        self.halts = 0
        self.changed: Callable[[str], None] = lambda _: None
        self.died: Callable[[str], None] = lambda _: None
        self.back: Callable[[str], None] = lambda _: None

    def deliver(self) -> None:
        """Let all blades be there, and be found healthy."""
        at = clock.utc(self._agenda.now)
        for index, name in enumerate(self.machines):
            raw = self._layout.node(name, index)
            raw["metadata"] |= {"uid": f"node-{name}", "creationTimestamp": at}
            ready = {"type": "Ready", "status": "True", "lastTransitionTime": at}
            raw["status"] |= {
                "conditions": [ready],
                "nodeInfo": {"bootID": self.machines[name].boot_id},
            }
            self.nodes[name] = decode_operator_node(raw)
        for name in self.machines:
            for _ in range(_SETTLING_LOOKS):
                if not self._decide(name):
                    break

    def is_healthy(self, name: str) -> bool:
        """Return whether the blade works."""
        return self.blades[name].status.state is BladeState.HEALTHY

    def kills(self, name: str) -> bool:
        """Return whether ranks on the blade are dead."""
        return self.machines[name].kills

    # What happens

    def fail(self, fault: Fault) -> bool:
        """Let a blade have a fault; return whether it was there to have it."""
        machine, state = self.machines[fault.blade], self.blades[fault.blade].status.state
        if machine.kills or state not in {BladeState.HEALTHY, BladeState.SUSPECT}:
            return False
        machine.fault, machine.since_s = fault, self._agenda.now
        self.died(fault.blade)
        if fault.kind.takes_node:
            machine.powered = False
            # Who finds out later is taken to hear the blade speak for so much longer.
            late_s = max(0.0, self.times.node_grace_s - _USUAL_GRACE_S)
            self._off_since[fault.blade] = self._agenda.now + late_s
            self._agenda.after(self.times.node_grace_s, self._ready, fault.blade, False)
            self._agenda.after(late_s + LOST_AFTER_S, self.look, fault.blade)
            away_s = self.times.rma_s if fault.needs_parts else spread_s(fault, self.times.repair_s)
            self._agenda.after(away_s, self._power_on, fault.blade)
        else:
            self._agenda.after(self.times.detect_s, self._report, fault.blade)
        return True

    def _ready(self, name: str, ready: bool) -> None:
        if ready is False and self.machines[name].powered:
            return
        node = self.nodes[name]
        conditions = {**node.conditions, "Ready": "True" if ready else "Unknown"}
        self.nodes[name] = replace(
            node,
            ready=True if ready else None,
            ready_since=self._agenda.now,
            conditions=conditions,
            boot_id=self.machines[name].boot_id if ready else node.boot_id,
        )
        self.changed(name)
        self.look(name)

    def _power_on(self, name: str) -> None:
        machine = self.machines[name]
        machine.renew()
        self._off_since.pop(name, None)
        self.back(name)
        self._ready(name, True)
        self._agenda.after(self.times.detect_s, self._report, name)

    def _report(self, name: str) -> None:
        """Let the agent write what it sees now."""
        machine = self.machines[name]
        if not machine.powered:
            return
        report = reports.of(machine, self._layout, self._agenda.now)
        blade = self.blades[name]
        old = blade.status.report
        if old is None or (old.faults, old.agent.boot_id) != (report.faults, report.agent.boot_id):
            self._put(name, blade.status.model_copy(update={"report": report}))
            self.look(name)

    def _put(self, name: str, status: BladeStatus) -> None:
        self.blades[name] = self.blades[name].model_copy(update={"status": status})
        self.changed(name)

    # What is decided

    def look(self, name: str) -> None:
        """Look at a blade soon: as a worker of the controller's queue would."""
        self._pause_s.pop(name, None)
        if (due := self._due.pop(name, None)) is not None:
            due.cancel()
        self._due[name] = self._agenda.after(ECHO_S, self._look, name)

    def _look(self, name: str) -> None:
        self._due.pop(name, None)
        if self._decide(name):
            self.look(name)

    def _decide(self, name: str) -> bool:
        """Plan for one blade and carry that out; return whether anything was written."""
        sight = self._sight(name)
        planned = plan(sight, lambda decision: self._rule(sight, decision))
        self._book(sight, planned)
        before = self.blades.get(name)
        self._write(name, planned)
        after = self.blades[name].status
        if planned.decision is not None:
            if not planned.keep:
                self._ensure_work(name, planned.want)
            if planned.decision.after_s is not None and name not in self._due:
                longer_s = min(_LONGEST_PAUSE_S, 2 * self._pause_s.get(name, 0.0))
                pause_s = self._pause_s[name] = max(planned.decision.after_s, longer_s)
                self._due[name] = self._agenda.after(pause_s, self._look, name)
        if planned.is_empty:
            return False
        self._call_person(name, before.status if before else BladeStatus(), after)
        self.changed(name)
        return True

    def _sight(self, name: str) -> Sight:
        now, off = self._agenda.now, self._off_since.get(name)
        silence_s = 0.0 if off is None else max(0.0, now - off)
        guest = self.guests.get(name)
        work = self._works.get(name)
        return Sight(
            name=name,
            now=now,
            node=self.nodes[name],
            blade=self.blades.get(name),
            policy=self._policy,
            gangs=(self.gang,) if name in self.seated and name not in self.left else (),
            heard_at=now - silence_s,
            agent_silence_s=silence_s,
            machine_silence_s=silence_s,
            guests=(guest,) if guest else (),
            works=(work,) if work else (),
            breaker_open=self._window.is_open,
        )

    def _rule(self, sight: Sight, decision: Decision) -> Ruling:
        """Return whether a fault may have consequences; as the controller's `_rule`."""
        assert decision.by_fault
        status = sight.blade.status if sight.blade is not None else BladeStatus()
        if status.state in life.OUT:
            return Ruling.GRANTED
        total, rule = self._ledger.total(self._policy.pool), breaker.read(self._pool)
        if not self._ledger.grants(sight.name, self._policy.pool, self._policy.budget(total)):
            fault = incidents.open_fault(status.incidents)
            at = clock.parse(fault.at) if fault is not None and fault.at else sight.now
            self._window.note(sight.name, at, total, rule, sight.now)
            return Ruling.OVER_BUDGET
        if not self._window.grants(sight.name, sight.now, total, rule):
            self._ledger.withdraw(sight.name, self._policy.pool)
            self._halted()
            return Ruling.BREAKER_OPEN
        return Ruling.GRANTED

    def _halted(self) -> None:
        """Have a person close the breaker."""
        if self._closed_at is None:
            self.halts += 1
            self._closed_at = self._agenda.now + _PERSON_S
            self._agenda.after(_PERSON_S, self._close_breaker)

    def _close_breaker(self) -> None:
        total, rule = self._ledger.total(self._policy.pool), breaker.read(self._pool)
        self._window.settle(None, total, rule, self._agenda.now, closed_at=self._closed_at)
        self._window.is_open, self._closed_at = False, None
        for name, blade in self.blades.items():
            if blade.status.state is not BladeState.HEALTHY or blade.status.reason is not None:
                self.look(name)

    def _book(self, sight: Sight, planned: Plan) -> None:
        decision, pool = planned.decision, self._policy.pool
        if decision is None:
            return
        reported = sight.blade is not None and sight.blade.status.report is not None
        out = is_out(decision.state, decision.reason, reported=reported)
        room = self._ledger.note(sight.name, pool, out=out)
        if room:
            for name in self._ledger.refused(pool):
                self.look(name)

    def _write(self, name: str, planned: Plan) -> None:
        """Have the Blade and the Node as planned."""
        if planned.blade is not None:
            raw = planned.blade
            stamp = {"creationTimestamp": clock.utc(self._agenda.now), "generation": 1}
            meta = {**raw["metadata"], "uid": f"blade-{name}", **stamp}
            seen = reports.of(self.machines[name], self._layout, self._agenda.now)
            status = {"report": seen.to_dict()}
            self.blades[name] = Blade.model_validate({**raw, "metadata": meta, "status": status})
        if planned.node:
            self._mark(name, planned)
        if planned.condition is not None:
            node, wanted = self.nodes[name], planned.condition
            conditions = {**node.conditions, "GPUHealthy": wanted.status}
            self.nodes[name] = replace(
                node, conditions=conditions, gpu_healthy_reason=wanted.reason
            )
        if planned.status is not None:
            report = self.blades[name].status.report
            status_ = planned.status.model_copy(update={"report": report})
            self.blades[name] = self.blades[name].model_copy(update={"status": status_})

    def _mark(self, name: str, planned: Plan) -> None:
        node = self.nodes[name]
        labels = {**node.labels, **planned.labels}
        taints = [one for one in node.taints if one.key != TAINT_BLADE]
        if planned.taint is not None:
            taints.append(TaintView(TAINT_BLADE, planned.taint, "NoSchedule"))
        self.nodes[name] = replace(
            node,
            labels={key: value for key, value in labels.items() if value is not None},
            taints=tuple(taints),
        )

    # Repairs and people

    def _ensure_work(self, name: str, want: Want | None) -> None:
        """Have the wanted test or repair run on the blade, and no other."""
        there = self._works.get(name)
        if there is not None and (want is None or want.name != there.name):
            del self._works[name]
            there = None
        if want is None or there is not None:
            return
        self._works[name] = WorkPod(
            want.name, name, self._policy.pool, want.kind, Outcome.RUNNING, self._agenda.now
        )
        takes_s = self.times.reset_s if want.kind is Work.RESET else self.times.reboot_s
        self._agenda.after(takes_s, self._mended, name, want)

    def _mended(self, name: str, want: Want) -> None:
        machine, work = self.machines[name], self._works.get(name)
        if work is None or work.name != want.name:
            return
        boots = want.kind is Work.REBOOT
        machine.mend(boots=boots)
        self._works[name] = replace(work, outcome=Outcome.PASSED)
        if boots:
            self.nodes[name] = replace(self.nodes[name], boot_id=machine.boot_id)
        self._agenda.after(self.times.detect_s, self._report, name)
        self.look(name)

    def _call_person(self, name: str, before: BladeStatus, after: BladeStatus) -> None:
        """Have a person bring new parts, or look at a blade that only a person may release."""
        if after.state is before.state:
            return
        if after.state is BladeState.RMA:
            self._agenda.after(self.times.rma_s, self._released, name)
        elif after.state in {BladeState.QUARANTINED, BladeState.DRAINING}:
            asks = after.verdict is not None and after.verdict.action is Action.INSPECT
            if asks:
                self._agenda.after(self.times.repair_s, self._released, name)

    def _released(self, name: str) -> None:
        machine = self.machines[name]
        machine.renew()
        self.nodes[name] = replace(self.nodes[name], boot_id=machine.boot_id)
        self._report(name)
        blade = self.blades[name]
        at = clock.utc(self._agenda.now)
        release = Release(reason="new parts", by="hall", at=at, skip_burn_in=True)
        spec = blade.spec.model_copy(update={"release": release})
        self.blades[name] = blade.model_copy(update={"spec": spec})
        self.look(name)
