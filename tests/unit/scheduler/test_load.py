"""What the metrics say of a pool after a pass."""

import pytest

from tramontane.scheduler.load import loads
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
