"""A gang that has room but no turn gets it after the change that is named, and not after less."""

import os
import random
from dataclasses import replace
from typing import Any

from tramontane.scheduler.gangs import GangRecord, Told
from tramontane.scheduler.records import PoolRecord, TenantRecord
from tramontane.scheduler.unblocking.turns import Decided, decided, turns
from tramontane.scheduler.unblocking.whatif import Case, Change, Kind, WayOut
from unit.scheduler.builders import NOW, Hall, gang, placed

SEEDS = int(os.environ.get("TRAMONTANE_EXAMPLES", "60"))
SINCE = Told("Placed", 1, ready=True, ready_since_s=NOW, placed_s=NOW)


def case_of(hall: Hall, one: GangRecord, *others: GangRecord) -> Case:
    return Case(hall.fleet, {g.key: g for g in (one, *others)}, hall.pods, one, NOW)


def reserved(**more: Any) -> Decided:
    """Return a gang of one for which a blade is free, but kept for one of four from in an hour."""
    hall = Hall([4])
    sits = placed(
        "sits", ["r0-0", "r0-1", "r0-2"], told=SINCE, max_runtime_s=3600.0, preemptible=False
    )
    ahead = gang("ahead", 4, priority=5)
    return decided(case_of(hall, gang("one", 1, **more), sits, ahead))


def named(now: Decided, kind: Kind) -> WayOut:
    ways = {way.kind: way for way in turns(now)}
    assert kind in ways, (now.outcome, ways)
    assert starts(now, ways[kind].change)
    return ways[kind]


def starts(now: Decided, change: Change) -> bool:
    return decided(change.apply(now.case)).outcome.placement is not None


def test_the_longest_run_that_is_over_in_time_is_named() -> None:
    now = reserved()
    assert now.outcome.reason == "ReservedForOther"
    way = named(now, Kind.LIMIT)
    assert way.words == "maxRuntime: at most 1h"
    longer = replace(now.case.gang, max_runtime_s=3661.0)
    assert not starts(now, Change(gang=longer))


def test_the_lowest_priority_that_is_high_enough_is_named() -> None:
    way = named(reserved(priority=3), Kind.PRIORITY)
    assert way.words == "priority 6 instead of 3"


def test_a_tenant_at_its_maximum_ends_its_largest_gangs() -> None:
    hall = Hall([6])
    record = PoolRecord("p", hall.levels, tenants=(TenantRecord("a", most=24),))
    case = case_of(
        hall,
        gang("one", 2, tenant="a"),
        placed("small", ["r0-0"], tenant="a", told=SINCE),
        placed("large", ["r0-1", "r0-2"], tenant="a", told=SINCE, lost_work=3.0),
    )
    pools = {"p": replace(case.fleet.pools["p"], record=record)}
    now = decided(replace(case, fleet=replace(case.fleet, pools=pools)))
    assert now.outcome.reason == "WaitingForQuota"
    way = named(now, Kind.END)
    assert way.words == "1 gang of tenant a ended: ns/large"
    assert (way.change.ended, way.gpu_hours) == (("ns/large",), 3.0)


def test_nothing_is_named_where_room_is_what_is_lacking() -> None:
    hall = Hall([1])
    now = decided(case_of(hall, gang("one"), placed("sits", ["r0-0"], told=SINCE)))
    assert turns(now) == ()


def random_queue(rng: random.Random) -> tuple[Hall, list[GangRecord]]:
    hall = Hall([rng.randint(1, 5) for _ in range(4)])
    names = list(hall.blades)
    rng.shuffle(names)
    gangs: list[GangRecord] = []
    for number in range(4):
        size = rng.randint(1, max(1, len(hall.blades) // 4))
        seats, names = names[:size], names[size:]
        limit = rng.choice([None, 1800.0, 7200.0])
        if seats:
            gangs.append(placed(f"s{number}", seats, told=SINCE, max_runtime_s=limit))
    gangs += [
        gang(
            f"w{number}",
            rng.randint(1, len(hall.blades)),
            priority=rng.randint(0, 2),
            max_runtime_s=rng.choice([None, 3600.0, 14_400.0]),
            created_s=NOW - rng.randint(1, 99),
        )
        for number in range(5)
    ]
    return hall, gangs


def test_in_random_queues_each_change_gives_the_turn() -> None:
    looked = 0
    for seed in range(SEEDS):
        hall, gangs = random_queue(random.Random(seed))
        done = decided(case_of(hall, *gangs)).done
        for one in gangs:
            case = case_of(hall, one, *(other for other in gangs if other is not one))
            now = Decided(case, done)
            for way in turns(now):
                looked += 1
                assert starts(now, way.change), f"seed {seed}: {one.key} {way}"
    assert looked > SEEDS // 3
