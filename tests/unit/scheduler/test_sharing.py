"""Who comes first, who may use how much, and who gives way, in a pool that tenants share."""

import heapq
import random
from collections import Counter, defaultdict
from dataclasses import replace
from typing import Any

import pytest

from tramontane.api.reasons import PendingReason
from tramontane.scheduler.gangs import Ask, GangRecord, Order, Placement, Slot, Told
from tramontane.scheduler.records import GPU, PoolRecord, TenantRecord, amounts
from tramontane.scheduler.sharing import Rank, Shares, gpus_of, shares_of
from tramontane.scheduler.victims import cheapest
from unit.scheduler.builders import LEVELS, NOW, Hall, gang, placed


def pool(*tenants: TenantRecord) -> PoolRecord:
    return PoolRecord("p", LEVELS, tenants)


def of(tenant: str, name: str, seats: int = 1, **more: Any) -> GangRecord:
    return gang(name, seats, tenant=tenant, **more)


def sits(tenant: str, name: str, seats: int = 1, **more: Any) -> GangRecord:
    return placed(name, [f"{name}-{i}" for i in range(seats)], tenant=tenant, **more)


def guaranteed(shares: Shares, *gangs: GangRecord) -> set[str]:
    return {one.key.removeprefix("ns/") for one in gangs if shares.rank(one).guaranteed}


# Who is within the guarantee.

A, B = TenantRecord("a", guaranteed=16), TenantRecord("b", weight=2)


@pytest.mark.parametrize(
    ("gangs", "within"),
    [
        pytest.param([of("a", "x"), of("a", "y")], {"x", "y"}, id="to-the-last-gpu"),
        pytest.param(
            [of("a", "old", 2, created_s=1), of("a", "new", created_s=2)], {"old"}, id="older-first"
        ),
        pytest.param(
            [of("a", "low", 2), of("a", "high", priority=1)], {"high"}, id="priority-first"
        ),
        pytest.param(
            [of("a", "huge", 3, priority=9), of("a", "small")], {"small"}, id="too-big-passed-over"
        ),
        pytest.param([of("a", "x", 4, sizes=(4, 2))], set(), id="the-best-size-counts"),
        pytest.param(
            [of("a", "off", 2, priority=9, active=False), of("a", "x")], {"x"}, id="active-only"
        ),
        pytest.param(
            [of("a", "going", 2, priority=9, deleting=True), of("a", "x")], {"x"}, id="not-deleted"
        ),
        pytest.param(
            [of("a", "there", 2, priority=9, pool="q"), of("a", "x")], {"x"}, id="this-pool-only"
        ),
        pytest.param([of("b", "x"), of("c", "y"), of("", "z")], set(), id="no-guarantee"),
        pytest.param(
            [of("a", "cpu", ask=Ask(amounts({"cpu": "4"})))], set(), id="nothing-to-guarantee"
        ),
        pytest.param(
            [of("a", "x", slots=(Slot("w", 1, Ask(amounts({GPU: "8"}))),) * 2), of("a", "y")],
            {"x"},
            id="all-slots-count",
        ),
    ],
)
def test_who_is_within_the_guarantee(gangs: list[GangRecord], within: set[str]) -> None:
    shares = shares_of(pool(A, B), gangs)
    assert guaranteed(shares, *gangs) == within
    assert guaranteed(shares_of(pool(A, B), gangs[::-1]), *gangs) == within


def test_ranks_do_not_depend_on_what_is_placed() -> None:
    rng = random.Random(1)
    tenants = (A, B, TenantRecord("c", guaranteed=40))
    for _ in range(200):
        waiting = [
            of(rng.choice("abc"), f"g{i}", rng.randint(1, 3), priority=rng.randint(0, 2))
            for i in range(8)
        ]
        seated = [
            replace(one, placement=Placement(tuple(map(str, range(one.slots[0].count)))))
            if rng.random() < 0.5
            else one
            for one in waiting
        ]
        before, after = shares_of(pool(*tenants), waiting), shares_of(pool(*tenants), seated)
        assert [before.rank(one) for one in waiting] == [after.rank(one) for one in seated]
        for tenant in tenants:
            own = [one for one in waiting if one.tenant == tenant.name]
            total = sum(gpus_of(one, one.slots[0].count) for one in own if before.rank(one)[0])
            assert total <= tenant.guaranteed


# Who comes first.


def test_the_order_by_guarantee_priority_share_and_age() -> None:
    gangs = [
        of("b", "b-high", priority=5, created_s=9),
        of("b", "b-old", created_s=1),
        of("b", "b-new", created_s=8),
        of("a", "a-within", 2, created_s=7),
        of("a", "a-beyond", created_s=8),
    ]
    shares = shares_of(pool(A, B), [*gangs, sits("b", "running", 4)])
    names = [one.key.removeprefix("ns/") for one in shares.order(gangs)]
    # Nothing is placed meanwhile: a uses nothing, b 32 GPUs.
    assert names == ["a-within", "b-high", "a-beyond", "b-old", "b-new"]


def test_what_is_placed_counts_from_the_next_gang_on() -> None:
    gangs = [of(tenant, f"{tenant}{i}", created_s=i) for i in range(4) for tenant in "ab"]
    shares = shares_of(pool(TenantRecord("a"), B), gangs)
    order = []
    for one in shares.order(gangs):
        order.append(one.key.removeprefix("ns/"))
        shares.took(one, 1)
    assert order == ["a0", "b0", "b1", "b2", "a1", "b3", "a2", "a3"], "two of b's to one of a's"


def test_without_tenants_the_order_is_priority_then_age_whatever_the_gangs_say() -> None:
    gangs = [
        of("x", "second", created_s=2),
        of("y", "first", created_s=1),
        of("x", "top", priority=1),
    ]
    shares = shares_of(pool(), [*gangs, sits("y", "running", 4)])
    assert [one.key for one in shares.order(gangs)] == ["ns/top", "ns/first", "ns/second"]
    assert all(shares.refusal(one) is None and shares.room(one) is None for one in gangs)


# Who may use how much.

CAPPED = TenantRecord("c", guaranteed=8, most=32)


@pytest.mark.parametrize(
    ("wanted", "running", "reason", "numbers"),
    [
        pytest.param(of("c", "g", 4), 0, None, (), id="to-the-last-gpu"),
        pytest.param(
            of("c", "g", 5), 0, PendingReason.EXCEEDS_MAX_QUOTA, ("32", "got 40"), id="never"
        ),
        pytest.param(
            of("c", "g", 3),
            2,
            PendingReason.WAITING_FOR_QUOTA,
            ("needs 24", "got 16: it uses 16", "8 less"),
            id="not-now",
        ),
        pytest.param(
            of("c", "g", 4), 1, PendingReason.WAITING_FOR_QUOTA, ("needs 32",), id="all-of-it-later"
        ),
        pytest.param(of("c", "g", 5, sizes=(5, 2)), 2, None, (), id="a-smaller-size-may"),
        pytest.param(
            of("c", "g", 9, sizes=(9, 5)),
            0,
            PendingReason.EXCEEDS_MAX_QUOTA,
            ("got 40 at the smallest",),
            id="no-size-ever",
        ),
        pytest.param(
            of("nobody", "g"), 0, PendingReason.MISCONFIGURED, ("c", '"nobody"'), id="unknown"
        ),
        pytest.param(of("", "g"), 0, PendingReason.MISCONFIGURED, ("c", '""'), id="none-named"),
    ],
)
def test_the_limits_of_a_tenant(
    wanted: GangRecord, running: int, reason: PendingReason | None, numbers: tuple[str, ...]
) -> None:
    shares = shares_of(pool(CAPPED), [wanted, sits("c", "running", running)])
    refusal = shares.refusal(wanted)
    if reason is None:
        assert refusal is None
        return
    assert refusal is not None
    assert refusal[0] == reason
    assert all(number in refusal[1] for number in numbers), refusal[1]
    assert not refusal[1].startswith("Gang ")


def test_room_and_the_sizes_within_it() -> None:
    elastic = of("c", "g", 4, sizes=(4, 2, 1))
    shares = shares_of(pool(CAPPED), [elastic, sits("c", "running", 1)])
    assert shares.room(elastic) == 24
    assert shares.within(elastic).sizes == (2, 1)
    shares.took(elastic, 2)
    assert shares.within(elastic).sizes == (1,)
    shares.took(elastic, 1)
    assert (shares.room(elastic), shares.within(elastic)) == (0, elastic)
    shares.took(elastic, 1)  # edited by hand: more is used than may be
    assert shares.room(elastic) == 0


# Who gives way.


@pytest.mark.parametrize(
    ("wanted", "other", "gives_way"),
    [
        pytest.param(of("a", "new"), sits("b", "v"), True, id="guaranteed-over-borrowed"),
        pytest.param(of("a", "new"), sits("b", "v", priority=9), True, id="whatever-its-priority"),
        pytest.param(of("b", "new", priority=9), sits("a", "v"), False, id="not-the-guaranteed"),
        pytest.param(
            of("c", "new", priority=1), sits("a", "v"), False, id="nor-by-another-guarantee"
        ),
        pytest.param(of("b", "new", priority=1), sits("b", "v"), True, id="own-lower-priority"),
        pytest.param(of("b", "new"), sits("b", "v"), False, id="own-equal-priority"),
        pytest.param(
            of("a", "new", priority=1), sits("a", "v", 1), True, id="own-guaranteed-lower-priority"
        ),
        pytest.param(of("b", "new", priority=1), sits("a", "v", 3), True, id="other-beyond-it"),
        pytest.param(of("b", "new"), sits("a", "v", 3), False, id="other-beyond-it-as-important"),
        pytest.param(
            of("a", "new"), sits("a", "v", 3, priority=5), False, id="own-higher-beyond-it"
        ),
        pytest.param(of("a", "new"), sits("b", "v", preemptible=False), False, id="not-asked"),
        pytest.param(of("a", "new"), sits("b", "v", deleting=True), False, id="going-anyway"),
        pytest.param(
            of("a", "new"),
            sits("b", "v", told=Told("Preempting", order=Order("ns/x", NOW))),
            False,
            id="asked-already",
        ),
    ],
)
def test_who_gives_way_to_whom(wanted: GangRecord, other: GangRecord, gives_way: bool) -> None:
    shares = shares_of(pool(A, B, TenantRecord("c", guaranteed=8)), [wanted, other])
    assert shares.may_preempt(wanted, other) is gives_way
    assert not shares.may_preempt(other, wanted) or not gives_way


def test_ranks_in_words() -> None:
    assert Rank(True, 0).over(Rank(False, 9)) == "within its tenant's guarantee"
    assert Rank(True, 5).over(Rank(True, 3)) == "priority 5 over 3"
    assert Rank(True, 0) > Rank(False, 9) > Rank(False, 3)


def test_what_was_borrowed_comes_back_as_whole_gangs() -> None:
    hall = Hall([4])
    borrowed = [
        placed("b0", ["r0-0", "r0-1"], tenant="b", priority=7, lost_work=3.0),
        placed("b1", ["r0-2"], tenant="b", priority=7, lost_work=9.0),
        placed("b2", ["r0-3"], tenant="b", priority=7, lost_work=1.0),
    ]
    owner = of("a", "owner", 2)
    shares = shares_of(pool(A, B), [*borrowed, owner])
    asked = [one for one in borrowed if shares.may_preempt(owner, one)]
    snapshot = hall.snapshot(*borrowed)
    chosen = cheapest(snapshot, snapshot.fleet.pools["p"], owner, asked, now_s=NOW)
    assert chosen is not None
    assert chosen.keys == ("ns/b0",)
    late = of("a", "late", 2, created_s=NOW)
    shares = shares_of(pool(A, B), [*borrowed, owner, late])
    assert not any(shares.may_preempt(late, one) for one in borrowed)


def test_a_waiting_giant_does_not_void_its_tenants_guarantee() -> None:
    giant, small = of("a", "giant", 3, priority=10), of("a", "small", 2)
    others = sits("b", "b", 4, priority=100)
    shares = shares_of(pool(A, B), [giant, small, others])
    assert not shares.may_preempt(giant, others)
    assert shares.may_preempt(small, others)
    running = replace(giant, placement=Placement(("x", "y", "z")))
    assert not shares.may_preempt(small, running), "its own tenant finds that one more important"


# In the long run.


def simulate(
    seed: int, tenants: tuple[TenantRecord, ...], waiting: int, hours: int = 400
) -> dict[str, float]:
    """Return the GPU-hours per tenant on 32 blades, where each always has gangs that wait."""
    rng = random.Random(seed)
    free, now = 32, 0.0
    running: list[tuple[float, str, int]] = []
    queue: list[GangRecord] = []
    sitting: dict[str, GangRecord] = {}
    spent: dict[str, float] = defaultdict(float)
    number = 0
    while now < hours:
        lacking = Counter(one.tenant for one in queue)
        for tenant in tenants:
            for _ in range(waiting - lacking[tenant.name]):
                number += 1
                name, seats = f"g{number}", rng.randint(1, 4)
                queue.append(of(tenant.name, name, seats, created_s=now))
        shares = shares_of(pool(*tenants), [*queue, *sitting.values()])
        for one in shares.order(list(queue)):
            seats = one.slots[0].count
            if seats > free:
                break  # the head is not overtaken
            queue.remove(one)
            sitting[one.key] = replace(one, placement=Placement(("x",) * seats))
            free -= seats
            shares.took(one, seats)
            runs = rng.expovariate(1.0)
            spent[one.tenant] += runs * seats * 8
            heapq.heappush(running, (now + runs, one.key, seats))
        now, key, seats = heapq.heappop(running)
        del sitting[key]
        free += seats
    return spent


@pytest.mark.parametrize("seed", range(3))
def test_gpu_hours_go_by_weight_in_the_long_run(seed: int) -> None:
    spent = simulate(seed, (TenantRecord("a"), TenantRecord("b", weight=2)), 3)
    assert spent["b"] / spent["a"] == pytest.approx(2.0, rel=0.05), (seed, spent)


@pytest.mark.parametrize("seed", range(3))
def test_nobody_starves_beside_a_heavy_tenant(seed: int) -> None:
    tenants = (TenantRecord("a", weight=50), TenantRecord("b"), TenantRecord("c", guaranteed=8))
    spent = simulate(seed, tenants, 3, hours=300)
    total = sum(spent.values())
    assert spent["b"] > total / 200, (seed, spent)
    assert spent["c"] > total / 40, (seed, spent)
