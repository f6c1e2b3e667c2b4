"""Give the gang its places in a big hall, by the scheduler's own engine.

`scheduler.engine.decide` is called as the scheduler's cycle calls it, on the same records. A pass
is left out where it could only say the same again: while no blade goes out of service or comes
back, no gang's spec changes and nobody waits for room, nothing that it reads has changed.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tramontane.api.gang import Gang
from tramontane.api.nodepool import NodePool
from tramontane.kube.views import PodView
from tramontane.lab.paths import LabError
from tramontane.lab.sim.agenda import Agenda, Entry
from tramontane.lab.sim.ward import Ward
from tramontane.scheduler.engine import decide
from tramontane.scheduler.fleet import Fleet, build_fleet, out_of_service, refresh
from tramontane.scheduler.gangs import GangRecord, decode_gang
from tramontane.scheduler.records import (
    BladeRecord,
    NodeRecord,
    PodRecord,
    Taint,
    amounts,
    decode_pool,
)
from tramontane.scheduler.snapshot import Pods
from tramontane.scheduler.status import Change, change, render

Raw = dict[str, Any]

# The cycle waits so long for what comes together, beside the way of a change through its watch.
COALESCE_S = 0.03


class Places:
    """The scheduler of one pool and one gang.

    Attributes:
        gang: as the API would have it; None before it was made.
        passes: how often it was decided.
        told: called when Gang.status has changed.
        moved: called with blades before and after a placement was written, to be judged.
    """

    def __init__(self, agenda: Agenda, ward: Ward, pool: NodePool, gpus: Mapping[str, str]) -> None:
        self._agenda, self._ward = agenda, ward
        self._pools = {pool.metadata.name: decode_pool(pool.to_dict())}
        self._capacity = amounts(gpus)
        self._blades: dict[str, BladeRecord] = {}
        self._nodes: dict[str, NodeRecord] = {}
        self._fleet: Fleet | None = None
        self._stale: set[str] = set()
        self._pods = Pods()
        self._of_seat: dict[int, PodRecord] = {}
        self._record: GangRecord | None = None
        self._raw: Raw = {}
        self._hungry = True
        self._due: Entry | None = None
        self.gang: Gang | None = None
        self.passes = 0
        self.told: Callable[[], None] = lambda: None

    def start(self) -> None:
        """Read all blades."""
        for name in self._ward.blades:
            self._read(name)
        self._fleet = build_fleet(self._blades, self._nodes, self._pools)

    def blade_changed(self, name: str) -> None:
        """Take a change of a Blade or its Node; decide where it comes or goes."""
        was = out_of_service(self._blades[name], self._nodes.get(name))
        self._read(name)
        self._stale.add(name)
        if bool(was) != bool(out_of_service(self._blades[name], self._nodes.get(name))):
            self.soon()

    def pod_changed(self, seat: int, pod: PodView | None) -> None:
        """Take a change of a seat's pod; None: it is gone."""
        gang = self._record
        assert gang is not None
        old, new = self._of_seat.pop(seat, None), None
        if pod is not None:
            requests = gang.slots[0].ask.requests
            new = PodRecord(pod.node or "", gang.key, seat, pod.deleting, requests)
            self._of_seat[seat] = new
        if old != new:
            self._pods.change(f"{gang.key}-{seat}", old, new)
            if old is not None and self._hungry:
                self.soon()

    def gang_applied(self, raw: Raw) -> None:
        """Take the Gang that the operator has applied (metadata and spec)."""
        old = self._raw
        generation = old["metadata"]["generation"] + 1 if old else 1
        meta = {**raw["metadata"], "uid": "gang", "generation": generation}
        self._set({**raw, "metadata": meta, "status": old.get("status", {})})
        seats = ((old.get("status") or {}).get("placement") or {}).get("seats") or ()
        if _read_of(raw["spec"], seats) != _read_of(old.get("spec") or {}, seats):
            self.soon()

    def soon(self) -> None:
        """Have a pass soon."""
        if self._due is None:
            self._due = self._agenda.after(COALESCE_S, self._pass)

    def _pass(self) -> None:
        self._due = None
        record = self._record
        if record is None or self._fleet is None:
            return
        if self._stale:
            self._fleet = refresh(self._fleet, self._stale, self._blades, self._nodes, self._pools)
            self._stale.clear()
        now = self._agenda.now
        done = decide(self._fleet, {record.key: record}, self._pods, now)
        self.passes += 1
        self._hungry = done.hungry
        outcome = done.outcomes.get(record.key)
        if outcome is not None and change(record, outcome) is not Change.NONE:
            body = render(record, outcome, now)
            before = self._raw.get("status", {}).get("placement") or {}
            self._judge(before, body["status"].get("placement") or {})
            self._set({**self._raw, "status": body["status"]})
            self.told()
        if done.look_again_s is not None:
            self._agenda.after(done.look_again_s - now, self.soon)

    def _judge(self, before: Raw, after: Raw) -> None:
        """Refuse a placement that breaks what must always hold.

        Raises:
            LabError: a blade given twice, a gang partly placed, a seat on a blade out of service.
        """
        assert self._fleet is not None
        seats, spares = after.get("seats", ()), after.get("spares", ())
        named = [*seats, *spares]
        if len(named) != len(set(named)):
            raise LabError("placement: each blade must be given once (got one twice)")
        if after and len(seats) != after["size"]:
            raise LabError(f"placement: all {after['size']} seats must be given (got {len(seats)})")
        kept = {*before.get("seats", ()), *before.get("spares", ())}
        for name in named:
            row = self._fleet.row_of[name]
            if name not in kept and not self._fleet.in_service[row]:
                out = self._fleet.out[row]
                raise LabError(
                    f"placement: a new seat must be on a healthy blade (got {name}: {out})"
                )

    def _set(self, raw: Raw) -> None:
        meta = {**raw["metadata"], "resourceVersion": str(self.passes + 1)}
        self._raw = {**raw, "metadata": meta}
        self.gang = Gang.model_validate(self._raw)
        self._record = decode_gang(self._raw)

    def _read(self, name: str) -> None:
        blade, node = self._ward.blades[name], self._ward.nodes[name]
        status = blade.status
        severity = status.verdict.severity if status.verdict is not None else ""
        lemon = status.history.lemon_score if status.history is not None else None
        self._blades[name] = BladeRecord(
            name,
            blade.spec.pool,
            str(status.state or "Unknown"),
            str(severity),
            float(lemon or 0),
            False,
        )
        self._nodes[name] = NodeRecord(
            name,
            node.labels,
            self._capacity,
            tuple(Taint(one.key, one.value, one.effect) for one in node.taints),
            node.unschedulable,
            node.ready is True,
            node.deleting,
        )


def _read_of(spec: Raw, seats: Sequence[str]) -> Raw:
    """Return what of a Gang's spec bears on its place.

    Not what it would cost to preempt it: that matters to gangs that wait, and here is no other.
    Nor a lost seat that has been moved: it is found where the placement still says so.
    """
    lost = [
        one
        for one in spec.get("lost") or ()
        if one["seat"] < len(seats) and seats[one["seat"]] == one["blade"]
    ]
    return {**spec, "cost": None, "lost": lost}
