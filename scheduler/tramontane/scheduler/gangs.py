"""Hold what a Gang asks for and where its status says it sits.

Decoding never fails on what a person wrote by hand: what cannot be read is kept as `flaw`, in
words, and the engine answers with Misconfigured.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tramontane.api import clock
from tramontane.api.errors import InvalidValue
from tramontane.api.quantity import parse_duration
from tramontane.scheduler.affinity import Term, decode_terms
from tramontane.scheduler.records import Raw, Requests, amounts

PENDING: Final = "Pending"
PLACED: Final = "Placed"
PREEMPTING: Final = "Preempting"
# Beyond these a duration means no more: ten years, and what others can be made to wait for a save.
LONGEST_S: Final = 10 * 365 * 86_400.0
LONGEST_GRACE_S: Final = 1800.0
INACTIVE: Final = "Inactive"


@dataclass(frozen=True, slots=True)
class Toleration:
    """Hold one toleration as Kubernetes matches it against a taint."""

    key: str
    operator: str
    value: str
    effect: str


@dataclass(frozen=True, slots=True)
class Ask:
    """Hold what one pod of a slot needs of a blade; equal asks fit the same blades."""

    requests: Requests
    selector: tuple[tuple[str, str], ...] = ()
    tolerations: tuple[Toleration, ...] = ()
    affinity: tuple[Term, ...] = ()

    def amount(self, resource: str) -> int:
        """Return how much of a resource a pod asks for."""
        return next((n for name, n in self.requests if name == resource), 0)


@dataclass(frozen=True, slots=True)
class Slot:
    """Hold a group of identical pods."""

    name: str
    count: int
    ask: Ask


@dataclass(frozen=True, slots=True)
class Placement:
    """Hold where a gang sits: index = seat."""

    seats: tuple[str, ...]
    spares: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Order:
    """Hold the order to give way: for which gang, until when (Unix seconds), and why."""

    by: str
    deadline_s: float
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Hold when a gang is likely to start, in Unix seconds: in half, and nine of ten cases."""

    p50_s: float
    p90_s: float


@dataclass(frozen=True, slots=True)
class Told:
    """Hold what a Gang's status says now, apart from the placement."""

    phase: str = ""
    epoch: int = 0
    reason: str = ""
    message: str = ""
    position: int = 0
    ready: bool | None = None
    ready_since_s: float | None = None
    observed: int = 0
    placed_s: float | None = None
    order: Order | None = None
    estimate: Estimate | None = None
    advised_size: int = 0


@dataclass(frozen=True, slots=True)
class GangRecord:
    """Hold one Gang. Times are Unix seconds; `key` is `namespace/name`.

    `lost_work` is what a preemption now would waste, in GPU-hours; None where nobody says.
    `resize` is the count of the first slot to be placed anew at; 0 where nobody asks.
    """

    key: str
    uid: str = ""
    version: int = 0
    generation: int = 0
    created_s: float = 0.0
    deleting: bool = False
    pool: str = ""
    slots: tuple[Slot, ...] = ()
    sizes: tuple[int, ...] = ()
    spares: int = 0
    pack: str = ""
    required: bool = False
    relax_after_s: float | None = None
    slice_size: int = 0
    slice_level: str = ""
    priority: int = 0
    preemptible: bool = True
    max_runtime_s: float | None = None
    grace_s: float = 120.0
    tenant: str = ""
    shares_blades: bool = False
    lost_work: float | None = None
    lost: tuple[tuple[int, str], ...] = ()
    avoid: frozenset[str] = frozenset()
    active: bool = True
    resize: int = 0
    told: Told = Told()
    placement: Placement | None = None
    flaw: str = ""

    def counts(self, size: int) -> tuple[int, ...]:
        """Return the pods per slot where the first slot has `size`."""
        return (size, *(slot.count for slot in self.slots[1:]))

    def wanted_sizes(self) -> tuple[int, ...]:
        """Return the acceptable counts of the first slot, best first."""
        return self.sizes or (self.slots[0].count,)

    def sizes_to_resize_to(self) -> frozenset[int]:
        """Return the counts of the first slot that its owner may ask a placed gang to have."""
        return frozenset({*self.wanted_sizes(), self.slots[0].count}) if self.slots else frozenset()

    def size_of(self, seats: int) -> int:
        """Return the count of the first slot in a placement with so many seats."""
        return max(0, seats - sum(slot.count for slot in self.slots[1:]))

    def slot_of_seats(self, seats: int) -> tuple[int, ...]:
        """Return the slot of each seat; what later slots leave belongs to the first."""
        if len(self.slots) == 1:
            return (0,) * seats
        counts = self.counts(self.size_of(seats))
        owners = [i for i, count in enumerate(counts) for _ in range(count)]
        return tuple(owners[:seats])

    def lost_seats(self) -> tuple[int, ...]:
        """Return the seats whose present blade is given as lost, ascending."""
        seats = self.placement.seats if self.placement else ()
        return tuple(
            sorted({i for i, blade in self.lost if 0 <= i < len(seats) and seats[i] == blade})
        )

    def waiting_since_s(self) -> float | None:
        """Return since when the gang has had no whole place, or None where that is not so.

        | its status says | since |
        |---|---|
        | nothing yet            | it was created |
        | Ready is False         | that is so |
        | Ready is True, or the gang was not active | not at all: it begins now, if it does |
        """
        if self.told.ready is None:
            return self.created_s
        if self.told.ready or self.told.phase == INACTIVE:
            return None
        return self.told.ready_since_s

    def relaxed(self, now_s: float) -> bool:
        """Return whether Required has waited so long that it means Preferred."""
        after, since = self.relax_after_s, self.waiting_since_s()
        return after is not None and since is not None and now_s >= since + after


def decode_gang(raw: Raw) -> GangRecord:
    """Return the record of a Gang; never raises on what the API server accepted."""
    meta = raw["metadata"]
    key = f"{meta['namespace']}/{meta['name']}"
    fields: dict[str, Any] = {
        "key": sys.intern(key),
        "uid": meta.get("uid", ""),
        "version": int(version) if (version := meta.get("resourceVersion", "")).isdecimal() else 0,
        "generation": meta.get("generation", 0),
        "deleting": bool(meta.get("deletionTimestamp")),
    }
    if created := meta.get("creationTimestamp"):
        fields["created_s"] = clock.parse(created)
    told, placement = _status(raw.get("status") or {})
    try:
        fields |= _spec(raw.get("spec") or {})
    except (InvalidValue, KeyError, TypeError, ValueError, AttributeError) as error:
        fields["flaw"] = f"the spec must be readable (got {type(error).__name__}: {error})"
    return GangRecord(**fields, told=told, placement=placement)


def decode_ask(slot: Raw) -> Ask:
    """Return what one pod of a slot needs."""
    return Ask(
        requests=amounts(slot.get("requests") or {}),
        selector=tuple(sorted((slot.get("nodeSelector") or {}).items())),
        tolerations=tuple(
            Toleration(
                t.get("key") or "",
                t.get("operator") or "Equal",
                t.get("value") or "",
                t.get("effect") or "",
            )
            for t in slot.get("tolerations") or ()
        ),
        affinity=decode_terms(slot.get("nodeAffinity") or ()),
    )


def _spec(spec: Raw) -> dict[str, Any]:
    slots = tuple(
        Slot(slot.get("name", ""), int(slot["count"]), decode_ask(slot))
        for slot in spec.get("slots") or ()
    )
    topology = spec.get("topology") or {}
    slice_ = topology.get("slice") or {}
    return {
        "pool": spec.get("pool") or "",
        "slots": slots,
        "sizes": tuple(int(size) for size in spec.get("sizes") or ()),
        "spares": int(spec.get("spares") or 0),
        "pack": topology.get("pack") or "",
        "required": topology.get("mode") == "Required" and bool(topology.get("pack")),
        "relax_after_s": _seconds(topology.get("relaxAfter"), LONGEST_S),
        "slice_size": int(slice_.get("size") or 0),
        "slice_level": slice_.get("level") or "",
        "priority": int(spec.get("priority") or 0),
        "preemptible": spec.get("preemptible", True) is not False,
        "max_runtime_s": _seconds(spec.get("maxRuntime"), LONGEST_S),
        "grace_s": _seconds(spec.get("grace") or "120s", LONGEST_GRACE_S),
        "tenant": spec.get("tenant") or "",
        "lost_work": None if (cost := spec.get("cost")) is None else float(cost["lostWork"]),
        "lost": tuple((int(entry["seat"]), entry["blade"]) for entry in spec.get("lost") or ()),
        "avoid": frozenset(spec.get("avoid") or ()),
        "active": spec.get("active", True) is not False,
        "resize": int(spec.get("resize") or 0),
        "flaw": "" if slots else "spec.slots must name at least one slot (got none)",
    }


def _seconds(duration: str | None, most_s: float) -> float | None:
    """Return a duration in seconds, `most_s` at most; None where there is none."""
    return min(parse_duration(duration), most_s) if duration else None


def _status(status: Raw) -> tuple[Told, Placement | None]:
    ready: Mapping[str, Any] = next(
        (c for c in status.get("conditions") or () if c.get("type") == "Ready"), {}
    )
    since = ready.get("lastTransitionTime")
    placed_at, preempt = status.get("placedAt"), status.get("preempt") or {}
    estimated = status.get("estimatedStart") or {}
    told = Told(
        phase=status.get("phase") or "",
        epoch=int(status.get("epoch") or 0),
        reason=status.get("reason") or "",
        message=status.get("message") or "",
        position=int(status.get("position") or 0),
        ready={"True": True, "False": False}.get(ready.get("status", "")),
        ready_since_s=clock.parse(since) if since else None,
        observed=int(status.get("observedGeneration") or 0),
        placed_s=clock.parse(placed_at) if placed_at else None,
        order=Order(
            preempt["by"],
            clock.parse(preempt["deadline"]) if preempt.get("deadline") else 0.0,
            preempt.get("reason") or "",
        )
        if preempt
        else None,
        estimate=Estimate(clock.parse(estimated["p50"]), clock.parse(estimated["p90"]))
        if estimated.keys() >= {"p50", "p90"}
        else None,
        advised_size=int(status.get("advisedSize") or 0),
    )
    placed = status.get("placement") or {}
    seats = tuple(sys.intern(str(seat)) for seat in placed.get("seats") or ())
    if not seats:
        return told, None
    return told, Placement(seats, tuple(sys.intern(str(s)) for s in placed.get("spares") or ()))
