"""What the metrics say of a pool after a pass."""

import pytest
from prometheus_client import CollectorRegistry

from tramontane.scheduler import metrics
from tramontane.scheduler.load import loads
from tramontane.scheduler.records import TenantRecord
from unit.scheduler.builders import Hall, gang, placed


def test_a_pool_is_counted_by_use_and_by_domain() -> None:
    hall = Hall([2, 2, 2, 2])
    hall.break_("r0-0")
    hall.occupy("r1-0", gpus=3)
    sits = placed("sits", ["r2-0"], ["r2-1"])
    gangs = [sits, gang("fits", 1, priority=1), gang("waits", 6, created_s=0.0, pack="block")]
    [load] = loads(hall.decide(*gangs), {one.key: one for one in gangs})
    assert load.gpus == {"out": 8, "held": 8, "allocated": 8 + 3 + 8, "free": 29}
    assert sum(load.gpus.values()) == 64
    assert load.placeable == {"b0": 1, "b1": 2}
    assert load.fragmented == pytest.approx(5 / 29)
    assert load.largest_waiting == 6
    assert load.reservations == 1
    assert load.oddities == 0


def test_a_pool_without_levels_is_one_domain() -> None:
    hall = Hall([3], levels=())
    [load] = loads(hall.decide(), {})
    assert (load.placeable, load.largest_waiting, load.fragmented) == ({"the pool": 3}, 0, 0.0)


def test_tenants_are_told_with_what_they_may_use() -> None:
    tenants = (TenantRecord("labs", 8, 24), TenantRecord("guests"))
    hall = Hall([4], tenants=tenants)
    sits = placed("sits", ["r0-0"], ["r0-1"], tenant="labs")
    gangs = [sits, gang("fits", 1, tenant="labs"), gang("waits", 4, tenant="guests")]
    [load] = loads(hall.decide(*gangs), {one.key: one for one in gangs})
    assert load.tenants == {
        "labs": {"used": 16, "guaranteed": 8, "maximum": 24},  # a spare is nobody's use
        "guests": {"used": 0, "guaranteed": 0},
    }


def test_who_has_waited_longest_is_told_by_pool() -> None:
    hall = Hall([1])
    gangs = [gang("late", 4, created_s=50.0), gang("early", 2, created_s=20.0), gang("fits", 1)]
    done, known = hall.decide(*gangs), {one.key: one for one in gangs}
    assert [load.waiting_since_s for load in loads(done, known)] == [20.0]
    [alone] = loads(hall.decide(gangs[2]), known)
    assert alone.waiting_since_s is None


def test_a_scrape_goes_on_with_the_wait() -> None:
    hall, waits = Hall([1]), gang("waits", 4, created_s=20.0)
    registry, collector = CollectorRegistry(), metrics._Loads(lambda: 100.0)
    registry.register(collector)
    collector.show(hall.decide(waits), {waits.key: waits})
    pool = {"pool": "p"}
    assert registry.get_sample_value("tramontane_scheduler_oldest_wait_seconds", pool) == 80
    collector.show(hall.decide(), {})
    assert registry.get_sample_value("tramontane_scheduler_oldest_wait_seconds", pool) == 0
