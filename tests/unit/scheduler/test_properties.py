"""What must hold for every fleet, every set of gangs and every loss."""

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tramontane.scheduler.engine import Pass
from tramontane.scheduler.explain import Refusal
from tramontane.scheduler.gangs import Ask, GangRecord, Placement, Slot
from tramontane.scheduler.place import Plan, place
from tramontane.scheduler.records import GPU, amounts
from unit.scheduler.builders import CAPACITY, NOW, WHOLE, Hall, after, gang

# A hall takes milliseconds to build, and more on a busy machine.
thorough = settings(max_examples=int(os.environ.get("TRAMONTANE_EXAMPLES", "60")), deadline=None)

ASKS = st.sampled_from(
    [
        Ask(WHOLE),
        Ask(amounts({GPU: "4", "cpu": "16"})),
        Ask(amounts({GPU: "8"}), (("disk", "nvme"),)),
        Ask(amounts({"cpu": "4"})),
    ]
)
NAMES = [*(f"r{rack}-{i}" for rack in range(5) for i in range(5)), "nowhere"]
STATES = st.sampled_from(["Healthy"] * 6 + ["Quarantined", "Unknown", "Lost"])


@st.composite
def halls(draw: st.DrawFn) -> Hall:
    hall = Hall([])
    for rack in range(draw(st.integers(1, 5))):
        for _ in range(draw(st.integers(0, 5))):
            nvme = draw(st.booleans())
            hall.add(
                rack,
                state=draw(STATES),
                severity=draw(st.sampled_from(["None", "None", "Info", "Degraded"])),
                lemon=draw(st.sampled_from([0.0, 0.0, 0.4])),
                ready=draw(st.sampled_from([True, True, True, False])),
                cordoned=draw(st.sampled_from([False, False, False, True])),
                labels={"disk": "nvme"} if nvme else {},
            )
    for name in hall.blades:
        if draw(st.integers(0, 5)) == 0:
            hall.occupy(name, gpus=draw(st.integers(1, 8)))
    return hall


@st.composite
def gangs(draw: st.DrawFn, name: str) -> GangRecord:
    slots = [Slot("a", draw(st.integers(1, 6)), draw(ASKS))]
    if draw(st.integers(0, 3)) == 0:
        slots.append(Slot("b", draw(st.integers(1, 3)), draw(ASKS)))
    more: dict[str, Any] = {}
    if draw(st.booleans()):
        more |= {"pack": draw(st.sampled_from(["block", "rack"])), "required": draw(st.booleans())}
    if len(slots) == 1 and draw(st.booleans()):
        more |= {"slice_size": draw(st.integers(1, 3)), "slice_level": "rack"}
    if len(slots) == 1 and draw(st.integers(0, 3)) == 0:
        more["sizes"] = tuple(sorted({slots[0].count, draw(st.integers(1, 6))}, reverse=True))
    return gang(
        name,
        slots=tuple(slots),
        spares=draw(st.integers(0, 2)),
        priority=draw(st.integers(0, 2)),
        created_s=draw(st.floats(0, 9)),
        **more,
    )


@st.composite
def queues(draw: st.DrawFn) -> list[GangRecord]:
    return [draw(gangs(f"g{i}")) for i in range(draw(st.integers(1, 6)))]


def written(records: list[GangRecord], done: Pass) -> list[GangRecord]:
    return [after(record, done.outcomes[record.key]) for record in records]


def used(hall: Hall, records: list[GangRecord]) -> Mapping[tuple[str, str], int]:
    """Return the amounts per (blade, resource) that seats and pods take together."""
    total: Counter[tuple[str, str]] = Counter()
    for name, sums in hall.pods.plain.items():
        total.update({(name, resource): amount for resource, amount in sums.items()})
    for record in records:
        seats = record.placement.seats if record.placement else ()
        for owner, seat in zip(record.slot_of_seats(len(seats)), seats, strict=True):
            total.update({(seat, r): n for r, n in record.slots[owner].ask.requests})
    return total


def check(hall: Hall, records: list[GangRecord]) -> None:
    """Assert what must hold of any set of placements, whatever led to it."""
    for (_, resource), amount in (taken := used(hall, records)).items():
        assert amount <= dict(CAPACITY)[resource]
    spares = [s for r in records if r.placement for s in r.placement.spares]
    assert len(spares) == len(set(spares))
    for record in records:
        if record.placement is None:
            continue
        seats = record.placement.seats
        rest = sum(slot.count for slot in record.slots[1:])
        assert len(seats) - rest in record.wanted_sizes()
        assert len(set(seats)) == len(seats)
        assert not set(seats) & set(spares)
        assert all(not taken.get((spare, GPU)) for spare in record.placement.spares)
        assert len(record.placement.spares) <= record.spares


def domains(hall: Hall, names: tuple[str, ...], level: str) -> set[str]:
    labels = [hall.nodes[name].labels for name in names]
    return {" ".join(own[f"topology/{at}"] for at in ("block", level)) for own in labels}


def check_fresh(hall: Hall, record: GangRecord) -> None:
    """Assert what must hold where a gang was just placed."""
    if record.placement is None:
        return
    for owner, seat in zip(
        record.slot_of_seats(len(record.placement.seats)), record.placement.seats, strict=True
    ):
        blade, node = hall.blades[seat], hall.nodes[seat]
        assert (blade.state, node.ready, node.cordoned) == ("Healthy", True, False)
        assert blade.severity in {"None", "Info"}
        assert dict(record.slots[owner].ask.selector).items() <= node.labels.items()
    if record.required:
        together = (*record.placement.seats, *record.placement.spares)
        assert len(domains(hall, together, record.pack)) == 1
    size = record.slice_size
    for first in range(0, len(record.placement.seats), size) if size > 1 else ():
        assert len(domains(hall, record.placement.seats[first : first + size], "rack")) == 1


@thorough
@given(halls(), queues())
def test_whole_gangs_on_healthy_blades_and_nothing_given_twice(
    hall: Hall, queue: list[GangRecord]
) -> None:
    records = written(queue, hall.decide(*queue))
    check(hall, records)
    for record in records:
        check_fresh(hall, record)
        assert (record.placement is None) == bool(record.told.reason)


@thorough
@given(halls(), queues())
def test_the_same_world_gives_the_same_plan_whatever_the_order_it_is_told_in(
    hall: Hall, queue: list[GangRecord]
) -> None:
    again = Hall([])
    again.blades = dict(reversed(hall.blades.items()))
    again.nodes = dict(reversed(hall.nodes.items()))
    again.pods = hall.pods
    assert again.decide(*reversed(queue)).outcomes == hall.decide(*queue).outcomes


@thorough
@given(halls(), queues())
def test_a_restart_changes_nothing(hall: Hall, queue: list[GangRecord]) -> None:
    records = written(queue, hall.decide(*queue))
    # Pods now run on the seats; a new process sees only these objects. Spares may be refilled
    # in the second pass where an earlier gang's refusal held them back in the first.
    for record in records:
        for seat, name in enumerate(record.placement.seats if record.placement else ()):
            owner = record.slot_of_seats(len(record.placement.seats))[seat]  # type: ignore[union-attr]
            requests = record.slots[owner].ask.requests
            hall.occupy(name, gpus=dict(requests).get(GPU, 0), gang=record.key, seat=seat)
    later = written(records, hall.decide(*records, now=NOW + 60))
    for record, after_restart in zip(records, later, strict=True):
        if record.placement is not None:
            assert after_restart.placement is not None
            assert after_restart.placement.seats == record.placement.seats
    check(hall, later)
    assert hall.decide(*later).outcomes == hall.decide(*later).outcomes


@thorough
@given(halls(), gangs("g"), st.integers(0, 4), st.booleans())
def test_one_blade_more_never_turns_a_plan_into_a_refusal(
    hall: Hall, wanted: GangRecord, rack: int, nvme: bool
) -> None:
    before = place(hall.snapshot(), wanted, NOW)
    hall.add(rack, labels={"disk": "nvme"} if nvme else {})
    later = place(hall.snapshot(), wanted, NOW)
    if isinstance(before, Plan):
        assert isinstance(later, Plan)
        assert len(later.placement.seats) >= len(before.placement.seats)
    elif isinstance(later, Refusal):
        assert later.message


@thorough
@given(halls(), queues(), st.data())
def test_survivors_never_move(hall: Hall, queue: list[GangRecord], data: st.DataObject) -> None:
    records = written(queue, hall.decide(*queue))
    struck: list[GangRecord] = []
    for record in records:
        seats = record.placement.seats if record.placement else ()
        lost = data.draw(st.sets(st.integers(0, max(0, len(seats) - 1)), max_size=3))
        entries = tuple((seat, seats[seat]) for seat in sorted(lost) if seat < len(seats))
        hall.break_(*(blade for _, blade in entries))
        struck.append(replace(record, lost=entries))
    done = hall.decide(*struck)
    healed = written(struck, done)
    check(hall, healed)
    for before, now in zip(struck, healed, strict=True):
        if before.placement is None or now.placement is None:
            assert now.placement is None or before.placement is None
            continue
        moved = {i for i, s in enumerate(now.placement.seats) if s != before.placement.seats[i]}
        assert moved <= set(before.lost_seats())
        assert len(now.placement.seats) == len(before.placement.seats)
        grew = now.told.epoch - before.told.epoch
        assert grew == (now.placement != before.placement)
        waiting = set(before.lost_seats()) - moved
        assert (now.told.reason == "WaitingForSpare") == bool(waiting)
        for seat in moved:
            new = now.placement.seats[seat]
            assert hall.blades[new].state == "Healthy"
            owner = before.slot_of_seats(len(before.placement.seats))[seat]
            selector = dict(before.slots[owner].ask.selector)
            assert selector.items() <= hall.nodes[new].labels.items()
        before_racks = domains(hall, before.placement.seats, "rack")
        if before.required and before.pack == "rack" and len(before_racks) == 1 and not waiting:
            assert len(domains(hall, now.placement.seats, "rack")) == 1


@thorough
@given(halls(), queues(), st.lists(st.sampled_from(NAMES), max_size=6))
def test_any_hand_edited_placement_is_survived(
    hall: Hall, queue: list[GangRecord], seats: list[str]
) -> None:
    records = written(queue, hall.decide(*queue))
    edited = replace(records[0], placement=Placement(tuple(seats[:3]), tuple(seats[3:])))
    done = hall.decide(edited, *records[1:])
    outcome = done.outcomes[edited.key]
    if seats[:3]:
        assert outcome.placement is not None
        assert outcome.placement.seats == tuple(seats[:3])
    for record in records[1:]:
        if record.placement is not None:
            kept = done.outcomes[record.key].placement
            assert kept is not None
            assert kept.seats == record.placement.seats
