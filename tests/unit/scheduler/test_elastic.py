"""A placed gang is told which size serves it better, and gets it in one step when it asks."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tramontane.api.reasons import PendingReason
from tramontane.scheduler import elastic
from tramontane.scheduler.engine import decide
from tramontane.scheduler.fleet import build_fleet
from tramontane.scheduler.forecast import Forecast
from tramontane.scheduler.gangs import GangRecord, Placement, Slot, Told, decode_gang
from tramontane.scheduler.outcome import Outcome
from tramontane.scheduler.records import PoolRecord, TenantRecord
from tramontane.scheduler.status import Change, change, render
from unit.scheduler.builders import LEVELS, NOW, WHOLE, Hall, after, gang, placed
from unit.scheduler.test_properties import check, gangs, halls, queues, thorough, written
from unit.scheduler.test_waiting import runs


def elastic_gang(*seats: str, count: int = 4, name: str = "e", **more: Any) -> GangRecord:
    """Return a gang that sits there and may have 4, 3, 2 or 1 seats."""
    more.setdefault("sizes", (4, 3, 2, 1))
    record = placed(name, seats, **more)
    return replace(record, slots=(Slot("worker", count, record.slots[0].ask),))


def outcome_of(hall: Hall, record: GangRecord, *others: GangRecord, now: float = NOW) -> Outcome:
    return hall.decide(record, *others, now=now).outcomes[record.key]


def seats_of(outcome: Outcome) -> list[str]:
    return list(outcome.placement.seats) if outcome.placement else []


# What it is advised


def broken(*, seats: int = 3, **more: Any) -> tuple[Hall, GangRecord]:
    """Return a full hall of 3 + 1 blades in which the elastic gang has lost a seat."""
    hall = Hall([4])
    hall.break_("r0-1")
    names = [f"r0-{i}" for i in range(seats)]
    return hall, elastic_gang(*names, lost=((1, "r0-1"),), **more)


@pytest.mark.parametrize(
    ("for_s", "advised"),
    [
        pytest.param(None, 2, id="nobody-knows-when-one-comes-free"),
        pytest.param(elastic.RESTART_S + 1, 2, id="later-than-a-restart-takes"),
        pytest.param(elastic.RESTART_S, 0, id="as-soon-as-a-restart-is-done"),
        pytest.param(10.0, 0, id="soon"),
    ],
)
def test_shrinking_is_advised_where_waiting_takes_longer(for_s: float | None, advised: int) -> None:
    hall, record = broken()
    outcome = outcome_of(hall, record, runs("other", "r0-3", for_s=for_s))
    assert (outcome.reason, outcome.ready) == (PendingReason.WAITING_FOR_SPARE, False)
    assert outcome.advised_size == advised


def test_a_lost_seat_says_when_it_is_likely_to_be_made_good() -> None:
    hall, record = broken()
    outcome = outcome_of(hall, record, runs("other", "r0-3", for_s=1000.0))
    assert outcome.reason == PendingReason.WAITING_FOR_SPARE
    assert outcome.estimate is not None
    assert NOW < outcome.estimate.p50_s <= outcome.estimate.p90_s <= NOW + 1000
    assert "p50" in render(record, outcome, NOW)["status"]["estimatedStart"]

    longer = outcome_of(hall, record, runs("other", "r0-3", for_s=9000.0))
    assert longer.estimate is not None
    assert longer.estimate.p50_s > outcome.estimate.p50_s


def test_what_starts_have_taught_says_how_long_a_replacement_takes() -> None:
    hall, record = broken()
    records = {one.key: one for one in (record, runs("other", "r0-3", for_s=1000.0))}
    for quotient, advised in ((0.1, 0), (0.9, 2)):
        taught = Forecast(((1000.0, quotient),) * 30)
        done = decide(hall.fleet, records, hall.pods, NOW, forecast=taught)
        assert done.outcomes[record.key].advised_size == advised


@pytest.mark.parametrize(
    ("more", "advised"),
    [
        pytest.param({"sizes": (3, 1)}, 1, id="the-largest-that-fits"),
        pytest.param({"sizes": (4, 3)}, 0, id="none-is-smaller"),
        pytest.param({"sizes": ()}, 0, id="not-elastic"),
        pytest.param({"sizes": (3, 2), "slice_size": 3, "slice_level": "rack"}, 2, id="one-slice"),
    ],
)
def test_the_largest_smaller_size_that_fits_is_advised(more: dict[str, Any], advised: int) -> None:
    hall, record = broken(**more)
    taken = runs("other", "r0-3", for_s=None)
    assert outcome_of(hall, record, taken).advised_size == advised


def test_a_gang_whose_seat_moves_is_not_advised_to_shrink() -> None:
    hall, record = broken()
    outcome = outcome_of(hall, record)
    assert seats_of(outcome) == ["r0-0", "r0-3", "r0-2"]
    assert outcome.advised_size == 0


def test_what_is_advised_is_given() -> None:
    hall, record = broken()
    other = runs("other", "r0-3", for_s=None)
    told = after(record, outcome_of(hall, record, other))
    asks = replace(told, resize=told.told.advised_size)
    outcome = outcome_of(hall, asks, other)
    assert (seats_of(outcome), outcome.ready, outcome.reason) == (["r0-0", "r0-2"], True, "")
    assert outcome.epoch == told.told.epoch + 1
    assert outcome.advised_size == 0


# What it gets when it asks


@pytest.mark.parametrize(
    ("seats", "size", "expected"),
    [
        pytest.param(["r0-0", "r0-1"], 4, ["r0-0", "r0-1", "r0-2", "r0-3"], id="grows"),
        pytest.param(["r0-0", "r0-1", "r0-2", "r0-3"], 1, ["r0-0"], id="shrinks"),
        pytest.param(["r0-0", "r0-1"], 2, ["r0-0", "r0-1"], id="has-it"),
        pytest.param(["r0-0", "r0-1"], 0, ["r0-0", "r0-1"], id="does-not-ask"),
    ],
)
def test_a_gang_gets_the_size_it_asks_for(seats: list[str], size: int, expected: list[str]) -> None:
    record = elastic_gang(*seats, resize=size)
    outcome = outcome_of(Hall([4]), record)
    assert (seats_of(outcome), outcome.ready, outcome.reason) == (expected, True, "")
    assert outcome.epoch == record.told.epoch + (expected != seats)
    # What is written reads as done, and nothing happens again.
    again = outcome_of(Hall([4]), after(record, outcome))
    assert again.placement == outcome.placement
    assert again.epoch == outcome.epoch


def test_the_count_may_be_asked_for_though_it_is_none_of_the_sizes() -> None:
    record = elastic_gang("r0-0", sizes=(3, 1), count=4, resize=4)
    outcome = outcome_of(Hall([4]), record)
    assert len(seats_of(outcome)) == 4
    assert outcome_of(Hall([4]), after(record, outcome)).ready


@pytest.mark.parametrize(
    ("record", "others", "reason", "text"),
    [
        pytest.param(
            elastic_gang("r0-0", resize=4),
            [placed("o", ["r0-1"])],
            PendingReason.WAITING_FOR_CAPACITY,
            "needs 4 free blades",
            id="no-room",
        ),
        pytest.param(
            elastic_gang("r0-0", resize=5),
            [],
            PendingReason.MISCONFIGURED,
            "must be one of 4, 3, 2, 1 (got 5)",
            id="none-of-its-sizes",
        ),
        pytest.param(
            elastic_gang("r0-0", resize=3, preemptible=False),
            [runs("o", "r0-1", for_s=100.0), gang("first", 4, priority=5, max_runtime_s=60.0)],
            PendingReason.RESERVED_FOR_OTHER,
            "promised to Gang ns/first",
            id="promised-to-a-higher-rank",
        ),
    ],
)
def test_where_it_does_not_fit_the_placement_stays_and_the_status_says_why(
    record: GangRecord, others: list[GangRecord], reason: PendingReason, text: str
) -> None:
    record = replace(record, generation=7, told=replace(record.told, observed=6))
    outcome = outcome_of(Hall([4]), record, *others)
    assert outcome.placement == record.placement
    assert (outcome.phase, outcome.ready, outcome.reason) == ("Placed", True, reason)
    assert outcome.epoch == record.told.epoch
    assert text in outcome.message
    assert render(record, outcome, NOW)["status"]["observedGeneration"] == 7
    # It is answered once: the owner makes pods again, and a place that comes free later is not
    # taken under them. What was said stays until the request is taken back.
    answered = after(record, outcome)
    later = outcome_of(Hall([4]), answered)
    assert (later.placement, later.message) == (outcome.placement, outcome.message)
    assert change(answered, outcome_of(Hall([4]), answered, *others)) is Change.NONE
    taken_back = outcome_of(Hall([4]), replace(answered, resize=0, generation=8))
    assert (taken_back.reason, taken_back.message) == ("", "")


def test_a_request_that_is_older_than_the_placement_is_none() -> None:
    waits = gang("e", 4, sizes=(4, 2), resize=4, generation=3)
    hall = Hall([4])
    other = runs("o", "r0-0", for_s=None)
    small = after(waits, outcome_of(hall, waits, other))
    assert small.placement is not None
    assert len(small.placement.seats) == 2
    assert outcome_of(hall, small).placement == small.placement


def test_a_gang_is_not_moved_under_its_pods() -> None:
    hall = Hall([4])
    record = elastic_gang("r0-0", "r0-1", resize=4, generation=7)
    record = replace(record, told=replace(record.told, observed=6))
    hall.occupy("r0-0", gang=record.key, seat=0)
    done = hall.decide(record)
    outcome = done.outcomes[record.key]
    assert outcome.placement == record.placement
    assert "its pods must be gone (got 1 pod)" in outcome.message
    assert render(record, outcome, NOW)["status"]["observedGeneration"] == 6
    assert done.hungry  # or the end of a pod would wake nobody
    told = after(record, outcome)
    told = replace(told, told=replace(told.told, observed=6))
    assert change(told, outcome) is Change.NONE
    hall.pods.change("ns/pod-r0-0-0", hall.pods.of_gang[record.key]["ns/pod-r0-0-0"], None)
    assert len(seats_of(outcome_of(hall, told))) == 4


def test_what_it_leaves_a_higher_rank_is_asked_about_first() -> None:
    hall = Hall([4])
    record = elastic_gang("r0-0", "r0-1", "r0-2", "r0-3", resize=2)
    urgent = gang("urgent", 2, priority=9, created_s=NOW)
    filler = gang("filler", 2, created_s=NOW - 1, max_runtime_s=60.0)  # gone before the promise
    records = [replace(record, preemptible=False), urgent, filler]
    done = hall.decide(*records)
    assert len(seats_of(done.outcomes[record.key])) == 2
    assert not seats_of(done.outcomes[filler.key])
    assert done.look_again_s == NOW
    again = hall.decide(*written(records, done))
    assert seats_of(again.outcomes[urgent.key]) == ["r0-2", "r0-3"]
    assert not seats_of(again.outcomes[filler.key])


def test_those_behind_have_what_it_leaves_at_once_where_nobody_is_before_them() -> None:
    record = elastic_gang("r0-0", "r0-1", "r0-2", "r0-3", resize=2, priority=5)
    filler = gang("filler", 2)
    done = Hall([4]).decide(record, filler)
    assert seats_of(done.outcomes[filler.key]) == ["r0-2", "r0-3"]


def test_those_behind_do_not_get_what_it_grows_onto() -> None:
    record = elastic_gang("r0-0", "r0-1", resize=3, priority=5)
    two, one = gang("two", 2), gang("one", 1, max_runtime_s=60.0)
    done = Hall([4]).decide(record, two, one)
    assert seats_of(done.outcomes[record.key]) == ["r0-0", "r0-1", "r0-2"]
    assert not seats_of(done.outcomes[two.key])
    assert seats_of(done.outcomes[one.key]) == ["r0-3"]


def test_a_blade_whose_pod_is_still_there_is_nobody_elses() -> None:
    hall = Hall([4])
    record = elastic_gang("r0-0", "r0-1", "r0-2", "r0-3", resize=3, priority=5)
    hall.occupy("r0-3", gang=record.key, seat=3)
    pod = hall.pods.of_gang[record.key]["ns/pod-r0-3-3"]
    hall.pods.change("ns/pod-r0-3-3", pod, replace(pod, deleting=True))
    done = hall.decide(record, gang("filler", 1))
    assert seats_of(done.outcomes[record.key]) == ["r0-0", "r0-1", "r0-2"]
    assert not seats_of(done.outcomes["ns/filler"])


def test_no_other_gang_gets_its_blades_in_between() -> None:
    """The others come first in the queue, and could use what it has."""
    record = elastic_gang("r0-0", "r0-1", "r0-2", resize=4)
    urgent = gang("urgent", 3, priority=9, max_runtime_s=50.0)
    done = Hall([5]).decide(replace(record, preemptible=False, max_runtime_s=40.0), urgent)
    assert not seats_of(done.outcomes[urgent.key])
    assert set(seats_of(done.outcomes[record.key])) >= {"r0-0", "r0-1", "r0-2"}


@pytest.mark.parametrize(
    ("limit_s", "grows"),
    [
        pytest.param(99.0, True, id="gone-before-the-promise"),
        pytest.param(101.0, False, id="a-second-too-long"),
        pytest.param(None, False, id="no-limit"),
    ],
)
def test_growth_delays_nobody_before_it(limit_s: float | None, grows: bool) -> None:
    hall = Hall([4])
    sits = runs("sits", "r0-0", for_s=100.0)
    record = elastic_gang("r0-1", resize=2, max_runtime_s=limit_s)
    record = replace(record, told=replace(record.told, placed_s=NOW), preemptible=False)
    first = gang("first", 3, priority=5, created_s=NOW - 99)
    records = [replace(sits, preemptible=False), record, first]
    before = hall.decide(*[replace(one, resize=0) for one in records]).outcomes[first.key]
    done = hall.decide(*records)
    assert (len(seats_of(done.outcomes[record.key])) == 2) is grows
    again = hall.decide(*written(records, done)).outcomes[first.key]
    assert before.reserved_s == done.outcomes[first.key].reserved_s == again.reserved_s


def test_a_tenants_maximum_holds() -> None:
    pool = PoolRecord("p", LEVELS, tenants=(TenantRecord("t", most=24),))
    hall = Hall([4])
    fleet = build_fleet(hall.blades, hall.nodes, {"p": pool})
    for size, expected in ((3, 3), (4, 1)):
        record = elastic_gang("r0-0", resize=size, tenant="t")
        outcome = decide(fleet, {record.key: record}, hall.pods, NOW).outcomes[record.key]
        assert len(seats_of(outcome)) == expected
    assert outcome.reason == PendingReason.WAITING_FOR_QUOTA


def test_spares_are_refilled_and_used() -> None:
    record = elastic_gang("r0-0", "r0-1", resize=3)
    record = replace(record, spares=1, placement=Placement(("r0-0", "r0-1"), ("r0-2",)))
    outcome = outcome_of(Hall([4, 1]), record)
    assert seats_of(outcome) == ["r0-0", "r0-1", "r0-2"]
    assert outcome.placement is not None
    assert outcome.placement.spares == ("r0-3",)
    shrinks = elastic_gang("r0-0", "r0-1", "r0-2", resize=2)
    placement = outcome_of(Hall([3]), replace(shrinks, spares=1)).placement
    assert placement is not None
    assert (placement.seats, placement.spares) == (("r0-0", "r0-1"), ("r0-2",))


def test_a_gang_that_gives_way_is_not_resized() -> None:
    record = elastic_gang("r0-0", "r0-1", resize=3, preemptible=True)
    done = Hall([4]).decide(record, gang("urgent", 4, priority=9))
    assert done.outcomes[record.key].phase == "Preempting"
    assert done.outcomes[record.key].placement == record.placement


def test_what_is_asked_is_read_and_what_is_said_reads_back() -> None:
    record = elastic_gang("r0-0", resize=4, generation=2)
    outcome = outcome_of(Hall([4]), record)
    spec = {
        "pool": "p",
        "slots": [{"name": "worker", "count": 4, "requests": dict(WHOLE)}],
        "sizes": [4, 3, 2, 1],
        "resize": 4,
    }
    raw = {**render(record, outcome, NOW), "spec": spec}
    raw["metadata"]["generation"] = 2
    read = decode_gang(raw)
    assert read.resize == 4
    assert change(read, outcome) is Change.NONE


# Whatever happens


@st.composite
def requests(draw: st.DrawFn, records: list[GangRecord]) -> list[GangRecord]:
    """Return the gangs, of which some ask for another size, and some have lost seats."""
    asked = []
    for record in records:
        seats = record.placement.seats if record.placement else ()
        lost = draw(st.sets(st.integers(0, max(0, len(seats) - 1)), max_size=2))
        asked.append(
            replace(
                record,
                lost=tuple((seat, seats[seat]) for seat in sorted(lost) if seat < len(seats)),
                resize=draw(st.sampled_from([0, *sorted(record.sizes_to_resize_to())])),
            )
        )
    return asked


@thorough
@given(halls(), st.data())
def test_a_resized_gang_is_whole_and_nothing_is_given_twice(
    hall: Hall, data: st.DataObject
) -> None:
    queue = [
        replace(one, sizes=tuple(sorted({one.slots[0].count, 1, 3}, reverse=True)))
        for one in data.draw(queues())
    ]
    records = written(queue, hall.decide(*queue))
    asked = data.draw(requests(records))
    done = hall.decide(*asked)
    resized = written(asked, done)
    check(hall, resized)
    for before, now in zip(asked, resized, strict=True):
        if before.placement is None:
            continue
        assert now.placement is not None
        grew = now.told.epoch - before.told.epoch
        assert grew == (now.placement != before.placement)
        size = now.size_of(len(now.placement.seats))
        old = before.size_of(len(before.placement.seats))
        assert size in {old, before.resize}
        if size != old:
            assert not {blade for _, blade in before.lost} & {*now.placement.seats}
            assert all(hall.blades[name].state == "Healthy" for name in now.placement.seats)
        elif before.resize not in {0, old}:
            assert now.told.message
    # A second pass, in which those are asked that waited, takes nothing that anybody has.
    check(hall, written(resized, hall.decide(*resized)))


@thorough
@given(halls(), gangs("e"), queues(), st.integers(1, 6))
def test_growth_never_takes_what_is_kept_for_a_higher_rank(
    hall: Hall, wanted: GangRecord, queue: list[GangRecord], size: int
) -> None:
    first = replace(wanted, sizes=(6, 1), preemptible=False, priority=-1)
    small = after(first, outcome_of(hall, replace(first, sizes=(1,))))
    if small.placement is None or size == 1:
        return
    small = replace(small, sizes=tuple(sorted({1, size}, reverse=True)), max_runtime_s=500.0)
    above = [replace(one, max_runtime_s=100.0, priority=1, spares=0) for one in queue]
    quiet = hall.decide(small, *above)
    asked = replace(small, resize=size)
    done = hall.decide(asked, *above)
    for one in above:
        assert done.outcomes[one.key] == quiet.outcomes[one.key]
    records = written([asked, *above], done)
    # The first that waits is told no later a start in the next pass; those behind it may be
    # overtaken by it, where it starts sooner on what the gang left.
    promised = [(one, r) for one in above if (r := quiet.outcomes[one.key].reserved_s) is not None]
    for one, reserved_s in sorted(promised, key=lambda pair: (pair[0].created_s, pair[0].key))[:1]:
        later = hall.decide(*records).outcomes[one.key]
        assert later.placement is not None or (later.reserved_s or NOW) <= reserved_s


def test_a_told_that_is_not_of_a_resize_does_not_answer_one() -> None:
    told = Told("Placed", 1, message="Gang ns/e: holds 0 of 1 spares", ready=True)
    assert len(seats_of(outcome_of(Hall([4]), elastic_gang("r0-0", resize=2, told=told)))) == 2
