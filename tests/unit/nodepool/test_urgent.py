"""What cannot wait does not: not behind a look at the whole hall."""

from collections.abc import Callable
from typing import Any

import pytest

from tramontane.kube.resources import NODEPOOLS
from unit.nodepool.hall import Hall, fault
from unit.nodepool.steps import TEMPLATE, clean, finish, pool, wait

NAMES = [f"gpu-{number}" for number in range(9)]
LAST = NAMES[-1]


def breaks(hall: Hall) -> None:
    hall.report(LAST, fault(at=hall.now, action="Drain"))


def is_held(hall: Hall) -> None:
    hall.spec(LAST, hold={"reason": "fan", "by": "anna", "at": None})


def is_not_ready(hall: Hall) -> None:
    hall.readiness(LAST, "False")


def gets_work(hall: Hall) -> None:
    hall.gang("llama", LAST)


def gets_a_pod(hall: Hall) -> None:
    hall.guest("notebook-0", LAST, gang="")


async def under_test(hall: Hall) -> None:
    """Have healthy blades, of which the last runs its burn-in again."""
    asked = {"soak": "0s", "burnIn": {"template": TEMPLATE}, "repeatIdleEvery": "10m"}
    pool(hall, qualification=asked)
    for name in NAMES:
        hall.node(name)
    await hall.settle()
    for name in NAMES:
        await clean(hall, name)
    await hall.advance(1)
    await finish(hall, "burnin", name=LAST)
    await wait(hall, 300, *NAMES)
    for name in NAMES[:-1]:
        await finish(hall, "burnin", name=name)
    await wait(hall, 390, *NAMES)
    assert [LAST in pod for pod in hall.works()] == [True]


@pytest.mark.parametrize("event", [breaks, is_held, is_not_ready, gets_work, gets_a_pod])
async def test_it_comes_before_all_others(event: Callable[[Hall], None]) -> None:
    async with Hall() as hall:
        await under_test(hall)
        hall.controller._add_all()
        event(hall)
        assert hall.controller.blades._ready.get_nowait()[2] == LAST


async def test_groups_are_not_planned_over_the_whole_pool_at_each_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Hall() as hall:
        collective = {"template": TEMPLATE, "groupSize": 4, "minBandwidth": 300}
        pool(hall, qualification={"soak": "1h", "collective": collective})
        for name in NAMES:
            hall.node(name)
        await hall.settle()
        play, played = hall.controller._works.play, 0

        async def counted(*given: Any) -> Any:
            nonlocal played
            played += 1
            return await play(*given)

        monkeypatch.setattr(hall.controller._works, "play", counted)
        for name in NAMES:
            hall.report(name)
            await hall.advance(0.2)
        assert played <= 3, "once a second"
        assert hall.api.objects[NODEPOOLS]["paris"]["status"]["blades"]["qualifying"] == 9
