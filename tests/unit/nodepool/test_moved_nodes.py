"""A Node that gets another pool's labels is no way around a person's word either."""

from typing import Any

import pytest

from tramontane.api.clock import utc
from tramontane.kube.resources import NODEPOOLS
from unit.nodepool.hall import Hall, Raw
from unit.nodepool.steps import BLADE, REPAIR, clean, message, sick, wait

MOVES = {"lyon": "its Node matches pool lyon", "": "its Node matches no pool"}


async def two_pools(hall: Hall) -> None:
    """Have a healthy blade in paris, which wants p=a; lyon wants p=b."""
    for name, value in (("paris", "a"), ("lyon", "b")):
        remediation = {"maxUnavailable": 2, **REPAIR}
        hall.pool(name, {"matchLabels": {"p": value}}, remediation=remediation)
    hall.node(BLADE, labels={"p": "a"})
    await hall.settle()
    await clean(hall)


async def relabelled(hall: Hall, value: str) -> None:
    def change(raw: Raw) -> None:
        raw["metadata"]["labels"]["p"] = value

    hall.change_node(BLADE, change)
    await hall.settle()
    await clean(hall)
    await wait(hall, 3600)


async def out(hall: Hall, by: str) -> None:
    if by == "hold":
        word: dict[str, Any] = {"reason": "PSU smokes", "by": "anna", "at": utc(hall.now)}
        hall.spec(BLADE, hold=word)
        await hall.settle()
    else:
        await sick(hall, code="xid-140", action="Replace")
        await wait(hall, 1)


@pytest.mark.parametrize("moves", [pytest.param("lyon", id="lyon"), pytest.param("", id="none")])
@pytest.mark.parametrize(("by", "state"), [("hold", "Quarantined"), ("rma", "RMA")])
async def test_who_is_out_stays_out_and_says_why(by: str, state: str, moves: str) -> None:
    async with Hall() as hall:
        await two_pools(hall)
        await out(hall, by)
        await relabelled(hall, "b" if moves else "c")
        assert (hall.blade(BLADE)["spec"]["pool"], hall.state(BLADE)) == ("paris", state)
        assert hall.taints(BLADE) == {"tramontane.dev/blade": state}
        assert MOVES[moves] in message(hall)
        told = [note for name, _, note in hall.recorder.said if name == BLADE]
        assert [MOVES[moves] in note for note in told].count(True) == 1, "once"
        assert hall.api.objects[NODEPOOLS]["paris"]["status"]["blades"]["total"] == 1


@pytest.mark.parametrize("by", ["hold", "rma"])
async def test_a_release_lets_it_move(by: str) -> None:
    async with Hall() as hall:
        await two_pools(hall)
        await out(hall, by)
        await relabelled(hall, "b")
        hall.spec(BLADE, release={"reason": "new one", "by": "anna", "at": utc(hall.now)})
        await hall.settle()
        await clean(hall)
        await wait(hall, 700)
        assert (hall.blade(BLADE)["spec"]["pool"], hall.state(BLADE)) == ("lyon", "Healthy")
        assert hall.taints(BLADE) == {}


async def test_who_came_back_under_its_old_labels_has_never_been_away() -> None:
    async with Hall() as hall:
        await two_pools(hall)
        await out(hall, "hold")
        await relabelled(hall, "b")
        await relabelled(hall, "a")
        assert message(hall) == "held by anna: PSU smokes"


async def test_a_pool_that_goes_takes_its_mark_along() -> None:
    async with Hall() as hall:
        await two_pools(hall)
        await out(hall, "hold")
        await relabelled(hall, "c")
        hall.api.drop(NODEPOOLS, "paris")
        await wait(hall, 60)
        assert hall.taints(BLADE) == {}


async def test_any_other_moves_at_once() -> None:
    async with Hall() as hall:
        await two_pools(hall)
        await relabelled(hall, "b")
        assert (hall.blade(BLADE)["spec"]["pool"], hall.state(BLADE)) == ("lyon", "Healthy")
