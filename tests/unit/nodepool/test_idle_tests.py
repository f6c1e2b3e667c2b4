"""Idle blades are tested again a few at a time, however many are due at once."""

import pytest

from tramontane.kube.resources import PODS
from unit.nodepool.hall import Hall
from unit.nodepool.steps import TEMPLATE, pool

ASKED = {"soak": "0s", "burnIn": {"template": TEMPLATE}, "repeatIdleEvery": "24h"}
NAMES = [f"gpu-{number:03}" for number in range(100)]


async def a_day_later(hall: Hall) -> None:
    """Have a hundred blades that passed their burn-in a day ago, and are idle since."""
    pool(hall, qualification=ASKED)
    for name in NAMES:
        hall.node(name)
    await hall.settle()
    for name in NAMES:
        hall.report(name)
    await hall.settle()
    await hall.advance(1)
    for pod in hall.works():
        hall.finish(pod)
    await hall.settle()
    await hall.advance(1)
    assert {hall.state(name) for name in NAMES} == {"Healthy"}
    hall.now += 86_400
    for name in NAMES:
        hall.beat(name)
    await hall.settle()


@pytest.mark.parametrize("lags", [False, True])
async def test_five_of_a_hundred(lags: bool) -> None:
    async with Hall() as hall:
        await a_day_later(hall)
        hall.api.lagging = {PODS} if lags else set()
        await hall.advance(0)
        await hall.advance(1)
        hall.api.deliver()
        await hall.advance(1)
        assert len(hall.works()) == 5


async def test_the_next_follow_when_those_have_ended() -> None:
    async with Hall() as hall:
        await a_day_later(hall)
        await hall.advance(1)
        first = hall.works()
        for pod in first:
            hall.finish(pod)
        await hall.settle()
        hall.now += 1
        for name in NAMES:
            hall.beat(name)
        await hall.advance(0)
        assert len(hall.works()) == 5
        assert not set(first) & set(hall.works())
