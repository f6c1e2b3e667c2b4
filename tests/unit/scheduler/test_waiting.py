"""Gangs that wait: promises, who may go before them, smaller sizes, and who gives way."""

from dataclasses import replace
from typing import Any

import pytest

from tramontane.api import clock
from tramontane.api.reasons import PendingReason
from tramontane.scheduler import waiting
from tramontane.scheduler.engine import CLAIM_S, SETTLE_S, decide
from tramontane.scheduler.fleet import build_fleet
from tramontane.scheduler.forecast import Forecast
from tramontane.scheduler.gangs import (
    LONGEST_GRACE_S,
    LONGEST_S,
    Ask,
    GangRecord,
    Order,
    Told,
    decode_gang,
)
from tramontane.scheduler.records import DeliveryRecord, PoolRecord, TenantRecord
from tramontane.scheduler.releases import UNLIMITED_S
from unit.scheduler.builders import LEVELS, NOW, WHOLE, Hall, after, gang, placed


def runs(
    name: str, *seats: str, for_s: float | None, since: float = 0.0, **more: Any
) -> GangRecord:
    """Return a gang that has sat there since NOW + since, and may stay `for_s` in all."""
    told = Told("Placed", 1, ready=True, ready_since_s=NOW + since, placed_s=NOW + since)
    return placed(name, seats, told=told, max_runtime_s=for_s, **more)


def hall() -> Hall:
    """Return four blades in one rack."""
    return Hall([4])


SITS = runs("sits", "r0-0", "r0-1", for_s=100.0)
HEAD = gang("head", 4, created_s=NOW - 60, max_runtime_s=1000.0)


@pytest.mark.parametrize(
    ("limit_s", "reason"),
    [
        pytest.param(90.0, "", id="gone-by-then"),
        pytest.param(100.0, "", id="gone-just-then"),
        pytest.param(101.0, "ReservedForOther", id="one-second-too-long"),
        pytest.param(None, "ReservedForOther", id="no-limit"),
    ],
)
def test_who_comes_after_starts_only_if_he_delays_nobody(
    limit_s: float | None, reason: str
) -> None:
    filler = gang("filler", 2, created_s=NOW - 5, max_runtime_s=limit_s)
    done = hall().decide(SITS, HEAD, filler)
    assert done.outcomes["ns/head"].reserved_s == NOW + 100
    assert done.outcomes["ns/filler"].reason == reason
    if reason:
        assert "Gang ns/head" in done.outcomes["ns/filler"].message


def test_a_promise_is_kept_for_many_and_beyond_them_only_what_delays_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(waiting, "MOST_RESERVED", 2)
    waits = [gang(f"w{i}", 4, created_s=NOW - 50 + i, max_runtime_s=50.0) for i in range(4)]
    done = hall().decide(SITS, *waits)
    promised = [done.outcomes[f"ns/w{i}"].reserved_s for i in range(4)]
    assert promised == [NOW + 100, NOW + 150, None, None]
    short = gang("short", 2, created_s=NOW, max_runtime_s=99.0)
    assert hall().decide(SITS, *waits, short).outcomes["ns/short"].phase == "Placed"


@pytest.mark.parametrize(
    ("has_run_s", "expected_s"), [(60.0, UNLIMITED_S), (2 * UNLIMITED_S, 2 * UNLIMITED_S)]
)
def test_a_run_without_limit_lasts_as_long_again(has_run_s: float, expected_s: float) -> None:
    sits = runs("sits", "r0-0", for_s=None, since=-has_run_s)
    outcome = hall().decide(sits, HEAD).outcomes["ns/head"]
    assert outcome.reserved_s == NOW + expected_s


@pytest.mark.parametrize(("over_s", "expected_s"), [(30.0, 60.0), (400.0, 400.0)])
def test_a_run_over_its_time_is_expected_to_end_soon_and_later_the_longer_it_does_not(
    over_s: float, expected_s: float
) -> None:
    sits = runs("sits", "r0-0", for_s=100.0, since=-100.0 - over_s)
    assert hall().decide(sits, HEAD).outcomes["ns/head"].reserved_s == NOW + expected_s


def test_the_domain_that_is_free_first_is_promised() -> None:
    blades = Hall([2, 2, 2])
    sits = [
        runs("late", "r0-0", for_s=300.0),
        runs("soon", "r1-1", for_s=100.0),
        runs("never", "r2-0", for_s=900.0),
    ]
    wants = gang("wants", 2, pack="rack", required=True, max_runtime_s=50.0)
    assert blades.decide(*sits, wants).outcomes["ns/wants"].reserved_s == NOW + 100


def test_slices_are_promised_when_they_fit_and_not_when_blades_alone_do() -> None:
    blades = Hall([2, 2])
    sits = [runs("a", "r0-0", for_s=100.0), runs("b", "r1-0", for_s=200.0)]
    wants = gang("wants", 4, slice_size=2, slice_level="rack")
    assert blades.decide(*sits, wants).outcomes["ns/wants"].reserved_s == NOW + 200
    two = gang("two", 2, slice_size=2, slice_level="rack")
    assert blades.decide(*sits, two).outcomes["ns/two"].reserved_s == NOW + 100


def test_half_a_blade_is_promised_when_its_half_is_free() -> None:
    half = replace(SITS.slots[0].ask, requests=(("cpu", 8000), ("nvidia.com/gpu", 4)))
    first = runs("first", "r0-0", for_s=50.0, ask=half)
    second = runs("second", "r0-0", for_s=80.0, ask=half)
    blades = Hall([1])
    assert blades.decide(first, second, gang("h", ask=half)).outcomes["ns/h"].reserved_s == NOW + 50
    assert blades.decide(first, second, gang("w")).outcomes["ns/w"].reserved_s == NOW + 80


def test_nothing_is_promised_on_blades_that_are_out() -> None:
    blades = hall()
    blades.break_("r0-3")
    outcome = blades.decide(SITS, HEAD).outcomes["ns/head"]
    assert (outcome.reason, outcome.reserved_s) == ("HealthHold", None)


def test_capacity_to_come_is_an_estimate_and_no_promise() -> None:
    blades = hall()
    big = gang("big", 6)
    pool = PoolRecord("p", LEVELS, deliveries=(DeliveryRecord("t2", 2, NOW + 5000),))
    fleet = build_fleet(blades.blades, blades.nodes, {"p": pool})
    outcome = decide(fleet, {big.key: big}, blades.pods, NOW).outcomes[big.key]
    assert outcome.reason == "ExceedsPool"
    assert outcome.reserved_s is None
    assert outcome.estimate is not None
    assert outcome.estimate.p50_s == NOW + 5000


def test_estimates_follow_what_starts_have_taught() -> None:
    taught = Forecast(tuple((100.0, i / 100) for i in range(1, 101)))
    blades = hall()
    gangs = {one.key: one for one in (SITS, HEAD)}
    outcome = decide(blades.fleet, gangs, blades.pods, NOW, forecast=taught).outcomes["ns/head"]
    assert outcome.estimate is not None
    assert outcome.estimate.p50_s == pytest.approx(NOW + 51)
    assert outcome.estimate.p90_s == pytest.approx(NOW + 91)
    assert outcome.reserved_s == NOW + 100


@pytest.mark.parametrize(
    ("ends_s", "size"), [pytest.param(900.0, 0, id="waits"), pytest.param(1100.0, 2, id="shrinks")]
)
def test_a_smaller_size_is_taken_where_it_ends_sooner(ends_s: float, size: int) -> None:
    sits = runs("sits", "r0-0", "r0-1", for_s=ends_s)
    elastic = gang("elastic", 4, sizes=(4, 2), max_runtime_s=1000.0)
    outcome = hall().decide(sits, elastic).outcomes["ns/elastic"]
    assert len(outcome.placement.seats if outcome.placement else ()) == size
    if not size:
        assert outcome.reserved_s == NOW + ends_s
        assert "sooner" in outcome.message


def test_a_shrunk_gang_is_told_when_there_is_room_for_more() -> None:
    small = runs("small", "r0-0", "r0-1", for_s=1000.0, sizes=(4, 2), slots=HEAD.slots)
    alone = hall().decide(small).outcomes["ns/small"]
    assert (alone.advised_size, alone.placement) == (4, small.placement)
    waits = gang("waits", 4, priority=1)
    assert hall().decide(small, waits).outcomes["ns/small"].advised_size == 0


def test_the_cheapest_gives_way_leaves_when_its_pods_are_gone_and_is_not_asked_twice() -> None:
    blades = hall()
    dear = runs("dear", "r0-0", "r0-1", for_s=None, lost_work=100.0)
    cheap = runs("cheap", "r0-2", "r0-3", for_s=None, lost_work=1.0, grace_s=30.0)
    blades.occupy("r0-2", gang=cheap.key, seat=0)
    urgent = gang("urgent", 2, priority=10, max_runtime_s=500.0)
    done = blades.decide(dear, cheap, urgent)
    told = done.outcomes[cheap.key]
    assert told.phase == "Preempting"
    assert told.placement == cheap.placement
    assert told.order is not None
    assert (told.order.by, told.order.deadline_s) == (urgent.key, NOW + 30)
    assert done.outcomes[dear.key].phase == "Placed"
    waits = done.outcomes[urgent.key]
    assert (waits.reason, waits.reserved_s) == (PendingReason.WAITING_FOR_PREEMPTED, NOW + 30)

    written = [after(one, done.outcomes[one.key]) for one in (dear, cheap, urgent)]
    again = blades.decide(*written, now=NOW + 10)
    assert again.outcomes[cheap.key].order == told.order
    assert again.outcomes[dear.key].phase == "Placed"
    assert again.outcomes[urgent.key].message == waits.message

    late = blades.decide(*written, now=NOW + 32)  # its pod is still there: nobody takes the blade
    assert late.outcomes[cheap.key].phase == "Preempting"
    blades.pods.change("ns/pod-r0-2-0", blades.pods.of_gang[cheap.key]["ns/pod-r0-2-0"], None)
    left = blades.decide(*written, now=NOW + 33)
    assert left.outcomes[urgent.key].phase == "Placed"
    gone = left.outcomes[cheap.key]
    assert (gone.phase, gone.placement, gone.epoch) == ("Pending", None, cheap.told.epoch + 1)


def test_a_gang_without_pods_is_given_time_to_see_that_it_must_leave() -> None:
    sits = runs("sits", "r0-0", for_s=None)
    order = Order("ns/urgent", NOW + 30, "why")
    told = replace(sits.told, phase="Preempting", ready=False, ready_since_s=NOW, order=order)
    sits = replace(sits, told=told)
    urgent = gang("urgent", 9, priority=9)
    early = hall().decide(sits, urgent, now=NOW + SETTLE_S - 1)
    assert early.outcomes[sits.key].phase == "Preempting"
    assert early.look_again_s == NOW + SETTLE_S
    # Nobody else can use the blade any more, so it may have it back.
    assert hall().decide(sits, urgent, now=NOW + SETTLE_S).outcomes[sits.key].phase == "Placed"


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({"priority": 10}, id="not-above-it"),
        pytest.param({"preemptible": False}, id="not-preemptible"),
    ],
)
def test_who_does_not_give_way(more: dict[str, Any]) -> None:
    sits = runs("sits", "r0-0", "r0-1", "r0-2", for_s=None, **more)
    done = hall().decide(sits, gang("urgent", 4, priority=10))
    assert done.outcomes["ns/sits"].phase == "Placed"
    assert done.outcomes["ns/urgent"].reason == PendingReason.WAITING_FOR_CAPACITY


def test_nobody_gives_way_for_what_is_free_soon_anyway() -> None:
    sits = runs("sits", "r0-0", for_s=100.0)
    done = hall().decide(sits, gang("urgent", 4, priority=10))
    assert done.outcomes["ns/sits"].phase == "Placed"


def test_what_a_tenant_borrowed_is_given_back() -> None:
    blades = hall()
    pool = PoolRecord(
        "p", LEVELS, tenants=(TenantRecord("own", guaranteed=16), TenantRecord("lends", 16))
    )
    fleet = build_fleet(blades.blades, blades.nodes, {"p": pool})
    first = runs("first", "r0-0", "r0-1", for_s=None, tenant="own", priority=5, lost_work=9.0)
    borrowed = runs("borrowed", "r0-2", "r0-3", for_s=None, tenant="own", priority=5)
    owner = gang("owner", 2, tenant="lends")
    done = decide(fleet, {g.key: g for g in (first, borrowed, owner)}, blades.pods, NOW)
    phases = {key: outcome.phase for key, outcome in done.outcomes.items()}
    assert sorted(phases.values()) == ["Pending", "Placed", "Preempting"]
    assert phases["ns/owner"] == "Pending"


@pytest.mark.parametrize(("waits_s", "gets_it"), [(CLAIM_S - 1, True), (CLAIM_S + 1, False)])
def test_a_broken_gang_claims_what_comes_free_for_a_bounded_time(
    waits_s: float, gets_it: bool
) -> None:
    blades = Hall([3])
    blades.break_("r0-1")
    told = Told("Placed", 2, reason="WaitingForSpare", ready=False, ready_since_s=NOW - waits_s)
    broken = placed("broken", ["r0-0", "r0-1"], lost=((1, "r0-1"),), told=told)
    urgent = gang("urgent", 1, priority=9)
    done = blades.decide(broken, urgent)
    assert (done.outcomes["ns/broken"].reason == "") is gets_it
    assert (done.outcomes["ns/urgent"].phase == "Placed") is not gets_it


def test_the_spares_of_who_gives_way_are_of_use_too() -> None:
    sits = runs("sits", "r0-0", for_s=None, spares=["r0-1"])
    done = Hall([2]).decide(sits, gang("urgent", 2, priority=5))
    assert done.outcomes["ns/sits"].phase == "Preempting"


def test_who_is_gone_by_then_anyway_is_not_asked() -> None:
    soon = runs("soon", "r0-0", for_s=100.0, grace_s=150.0)
    late = runs("late", "r0-1", for_s=None, grace_s=150.0)
    done = Hall([2]).decide(soon, late, gang("urgent", 2, priority=5))
    assert done.outcomes["ns/soon"].phase == "Placed"
    assert done.outcomes["ns/late"].phase == "Preempting"


def test_a_pod_that_never_goes_keeps_its_blade_and_no_other() -> None:
    blades = hall()
    order = Order("ns/urgent", NOW - 60, "why")
    victim = runs("victim", *(f"r0-{i}" for i in range(4)), for_s=None)
    told = replace(
        victim.told, phase="Preempting", ready=False, ready_since_s=NOW - 99, order=order
    )
    blades.occupy("r0-0", gang=victim.key, seat=0)
    done = blades.decide(replace(victim, told=told), gang("urgent", 3, priority=9))
    placement = done.outcomes["ns/urgent"].placement
    assert placement is not None
    assert placement.seats == ("r0-1", "r0-2", "r0-3")
    assert done.outcomes["ns/victim"].phase == "Pending"


@pytest.mark.parametrize(("graces", "later_s"), [((120.0, 120.0), 0.1), ((600.0, 60.0), 10.0)])
def test_who_was_asked_is_enough_while_it_saves(
    graces: tuple[float, float], later_s: float
) -> None:
    start = NOW + 0.3
    a = runs("a", "r0-0", "r0-1", for_s=None, lost_work=1.0, grace_s=graces[0])
    b = runs("b", "r0-2", "r0-3", for_s=None, lost_work=9.0, grace_s=graces[1])
    records = [a, b, gang("hi", 2, priority=9)]
    done = hall().decide(*records, now=start)
    assert done.outcomes["ns/a"].phase == "Preempting"
    written = [after(one, done.outcomes[one.key], start) for one in records]
    again = hall().decide(*written, now=start + later_s)
    assert again.outcomes["ns/b"].phase == "Placed"


def test_hopeless_gangs_do_not_keep_others_from_asking() -> None:
    blades = Hall([2, 2])
    firm = runs("firm", "r0-0", "r0-1", for_s=None, preemptible=False)
    low = runs("low", "r1-0", "r1-1", for_s=None)
    tied = [
        gang(f"tied{i}", 2, priority=9, ask=Ask(WHOLE, (("hall", "no"),)))
        for i in range(waiting.MOST_HUNTS + 1)
    ]
    for name in ("r0-0", "r0-1"):
        blades.nodes[name] = replace(
            blades.nodes[name], labels={**blades.nodes[name].labels, "hall": "no"}
        )
    done = blades.decide(firm, low, *tied, gang("hi", 2, priority=8))
    assert done.outcomes["ns/low"].phase == "Preempting"


def test_gangs_behind_one_that_waits_for_the_quota_wait_too() -> None:
    blades = hall()
    pool = PoolRecord("p", LEVELS, tenants=(TenantRecord("t", most=32),))
    fleet = build_fleet(blades.blades, blades.nodes, {"p": pool})
    sits = runs("sits", "r0-0", for_s=None, tenant="t", preemptible=False)
    big = gang("big", 4, tenant="t", priority=5)
    small = gang("small", 1, tenant="t")
    done = decide(fleet, {g.key: g for g in (sits, big, small)}, blades.pods, NOW)
    assert done.outcomes["ns/big"].reason == "WaitingForQuota"
    assert done.outcomes["ns/small"].reason == "WaitingForQuota"
    assert "ns/big" in done.outcomes["ns/small"].message


def test_a_broken_gang_whose_claim_is_over_breaks_no_promise() -> None:
    blades = Hall([4])
    blades.break_("r0-3")
    told = Told("Placed", 2, reason="WaitingForSpare", ready=False, ready_since_s=NOW - CLAIM_S - 1)
    broken = placed("broken", ["r0-0", "r0-3"], lost=((1, "r0-3"),), told=told, preemptible=False)
    sits = runs("sits", "r0-1", for_s=500.0, preemptible=False)
    done = blades.decide(broken, sits, gang("hi", 2, priority=50))
    assert done.outcomes["ns/hi"].reserved_s == NOW + 500
    assert done.outcomes["ns/broken"].reason == "WaitingForSpare"


def test_whole_slices_are_promised_however_many_ends_lie_before_them() -> None:
    blades = Hall([10] * 16)
    sits = [
        runs(f"s{i}", f"r{i % 16}-{i // 16}", for_s=1000.0 + i, preemptible=False)
        for i in range(160)
    ]
    big = gang("big", 20, slice_size=10, slice_level="rack")
    outcome = blades.decide(*sits, big).outcomes["ns/big"]
    assert outcome.reserved_s == NOW + 1000 + 145  # the second rack of which all ten have ended


def test_durations_without_measure_are_bounded() -> None:
    raw = {
        "metadata": {"name": "g", "namespace": "ns"},
        "spec": {
            "pool": "p",
            "slots": [{"name": "a", "count": 1}],
            "maxRuntime": "99999999999h",
            "grace": "24h",
        },
    }
    record = decode_gang(raw)
    assert (record.max_runtime_s, record.grace_s) == (LONGEST_S, LONGEST_GRACE_S)
    clock.utc(NOW + LONGEST_S)


@pytest.mark.parametrize(
    "preemptor",
    [
        pytest.param([], id="deleted"),
        pytest.param([gang("urgent", 2, priority=9, deleting=True)], id="on-its-way-out"),
        pytest.param([gang("urgent", 2, priority=9, active=False)], id="suspended"),
    ],
)
def test_an_order_falls_with_the_gang_that_it_is_for(preemptor: list[GangRecord]) -> None:
    sits = runs("sits", "r0-0", "r0-1", "r0-2", "r0-3", for_s=None)
    asked = hall().decide(sits, gang("urgent", 2, priority=9))
    told = after(sits, asked.outcomes[sits.key])
    assert told.told.order is not None
    late_s = told.told.order.deadline_s + SETTLE_S  # its pods are gone, and its time is over
    for now in (NOW + 1, late_s):
        outcome = hall().decide(told, *preemptor, now=now).outcomes[sits.key]
        assert (outcome.phase, outcome.ready, outcome.order) == ("Placed", True, None)
        assert (outcome.placement, outcome.epoch) == (sits.placement, sits.told.epoch)
