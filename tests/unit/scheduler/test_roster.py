"""Two informers and our own bindings: a pod is counted once, whatever comes first."""

import random
from dataclasses import replace

import pytest

from tramontane.scheduler.foreign.gangs import ForeignGang
from tramontane.scheduler.foreign.groups import WHOLE, Group, Sizes
from tramontane.scheduler.foreign.member import Member, decode_member
from tramontane.scheduler.foreign.roster import Roster
from tramontane.scheduler.records import PoolRecord
from unit.scheduler.builders import LEVELS, NOW
from unit.scheduler.pods import a_gang, of_gang, raw_pod

POOLS = {"p": PoolRecord("p", LEVELS)}


def roster(sizes: Sizes | None = None) -> Roster:
    return Roster(lambda _, group: sizes if group.api else None)


def pod(name: str = "g-0", size: int = 1, **more: str) -> Member:
    return decode_member(of_gang(name, "g", size, **more))


def seats(book: Roster) -> dict[str, list[str]]:
    """Return gang → nodes of its pods, empty for one that waits."""
    return {key: [m.node for m in gang.pods] for key, gang in book.gangs(POOLS).items()}


def test_a_pod_that_waits_is_bound_assumed_and_seen() -> None:
    book, waits = roster(), pod()
    assert book.show_waiting(waits.key, waits)
    assert seats(book) == {"ml/pods:g": [""]}
    book.assume(waits, "n0", NOW)
    assert seats(book) == {"ml/pods:g": ["n0"]}
    assert not book.show_waiting(waits.key, None), "it left because we bound it"
    assert seats(book) == {"ml/pods:g": ["n0"]}
    book.show_bound(waits.key, replace(waits, node="n0"))
    assert not book.assumed
    assert seats(book) == {"ml/pods:g": ["n0"]}
    book.show_bound(waits.key, None)
    assert seats(book) == {}


def test_the_watch_of_bound_pods_may_come_first() -> None:
    book, waits = roster(), pod()
    book.show_waiting(waits.key, waits)
    book.show_bound(waits.key, replace(waits, node="n0"))
    assert seats(book) == {"ml/pods:g": ["n0"]}
    assert not book.show_waiting(waits.key, replace(waits, priority=1))
    assert not book.show_waiting(waits.key, None)
    assert seats(book) == {"ml/pods:g": ["n0"]}


def test_a_new_pod_replaces_an_old_one_of_its_name_whose_watch_is_late() -> None:
    """Else the new one would be beyond the size of its gang, and go anywhere."""
    book, old, new = roster(), pod(nodeName="n0"), pod(uid="uid-new")
    book.show_bound(old.key, old)
    assert book.show_waiting(new.key, new)
    assert seats(book) == {"ml/pods:g": [""]}
    book.assume(new, "n1", NOW)
    book.show_waiting(new.key, None)
    assert seats(book) == {"ml/pods:g": ["n1"]}
    book.show_bound(old.key, None)
    assert seats(book) == {"ml/pods:g": ["n1"]}
    book.show_bound(new.key, replace(new, node="n1"))
    assert seats(book) == {"ml/pods:g": ["n1"]}


def test_a_pod_that_ends_has_no_seat() -> None:
    book, old = roster(), pod(nodeName="n0")
    book.show_bound(old.key, old)
    book.show_bound(old.key, replace(old, deleting=True))
    assert seats(book) == {}


def test_a_binding_that_failed_makes_the_pod_wait_again() -> None:
    book, waits = roster(), pod()
    book.show_waiting(waits.key, waits)
    book.assume(waits, "n0", NOW)
    book.forget(replace(waits, uid="another"))
    assert seats(book) == {"ml/pods:g": ["n0"]}
    book.forget(waits)
    assert seats(book) == {"ml/pods:g": [""]}
    book.assume(waits, "n1", NOW)
    book.show_waiting(waits.key, None)
    book.forget(waits)
    assert seats(book) == {}


def test_only_a_pod_that_may_make_its_gang_whole_wakes_anybody() -> None:
    book = roster()
    pods = [decode_member(raw) for raw in a_gang("g", range(3), 3)]
    assert [book.show_waiting(one.key, one) for one in pods] == [False, False, True]
    gated = decode_member(raw_pod("x", schedulingGates=[{"name": "x"}]))
    assert not book.show_waiting(gated.key, gated)
    assert book.show_waiting(gated.key, replace(gated, gated=False))


def test_a_pod_made_anew_wakes_though_most_of_its_group_have_finished() -> None:
    book = roster()
    runs = pod("g-0", 8, nodeName="n0")
    book.show_bound(runs.key, runs)
    anew = pod("g-1", 8)
    assert book.show_waiting(anew.key, anew)


def test_a_size_that_becomes_known_makes_a_gang() -> None:
    sizes: dict[str, int] = {}
    book = Roster(lambda _, __: sizes or None)
    waits = decode_member(raw_pod("x", schedulingGroup={"podGroupName": "g"}))
    book.show_waiting(waits.key, waits)
    [gang] = book.gangs(POOLS).values()
    assert gang.lacking
    sizes[WHOLE] = 1
    assert not book.touch(waits.group.api, "other/g")
    assert book.touch(waits.group.api, "ml/g")
    [gang] = book.gangs(POOLS).values()
    assert not gang.lacking


def test_pools_that_come_are_seen() -> None:
    book, waits = roster(), pod()
    book.show_waiting(waits.key, waits)
    assert book.gangs({})["ml/pods:g"].record.flaw
    assert not book.gangs(POOLS)["ml/pods:g"].record.flaw


def test_a_pod_may_change_its_group() -> None:
    book, waits = roster(), pod()
    book.show_waiting(waits.key, waits)
    book.show_waiting(waits.key, replace(waits, group=Group("h")))
    assert seats(book) == {"ml/pods:h": [""]}


@pytest.mark.parametrize("seed", range(200))
def test_no_pod_is_lost_or_counted_twice_in_any_order_of_events(seed: int) -> None:
    """Events of each watch come in order, those of the two watches in any order."""
    chance, book = random.Random(seed), roster()
    count = chance.randint(1, 4)
    waiting: list[tuple[str, Member | None]] = []
    bound: list[tuple[str, Member | None]] = []
    pods = [pod(f"g-{i}", count) for i in range(count)]
    waiting += [(one.key, one) for one in pods]
    for key, member in waiting:
        book.show_waiting(key, member)
    waiting = []
    for one in pods:
        book.assume(one, "n0", NOW)
        waiting.append((one.key, None))
        bound.append((one.key, replace(one, node="n0")))
    while waiting or bound:
        queue = chance.choice([q for q in (waiting, bound) if q])
        key, member = queue.pop(0)
        if queue is waiting:
            book.show_waiting(key, member)
        else:
            book.show_bound(key, member)
        assert seats(book) == {"ml/pods:g": ["n0"] * count}, f"seed {seed}"
    assert not book.assumed
    for one in pods:
        book.show_bound(one.key, None)
    assert seats(book) == {}
    assert not book._families, f"seed {seed}: nothing is kept of pods that are gone"


def test_gangs_are_made_anew_only_where_something_changed() -> None:
    book = roster()
    for name in ("a", "b"):
        raw = decode_member(raw_pod(name))
        book.show_waiting(raw.key, raw)
    before: dict[str, ForeignGang] = book.gangs(POOLS)
    changed = decode_member(raw_pod("a", priority=5))
    book.show_waiting(changed.key, changed)
    after = book.gangs(POOLS)
    assert after["ml/pod:b"] is before["ml/pod:b"]
    assert after["ml/pod:a"].record.priority == 5
