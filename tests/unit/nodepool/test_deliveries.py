"""The numbers of a tranche are about what was delivered, whatever became of it since."""

from tramontane.kube.resources import NODEPOOLS, NODES
from unit.nodepool.hall import Hall, Raw
from unit.nodepool.steps import (
    BLADE,
    QUALIFICATION,
    clean,
    finish,
    healthy,
    pool,
    sick,
    wait,
)

T1 = {"tramontane.dev/tranche": "t1"}


async def tranche(hall: Hall) -> Raw:
    await hall.advance(2)
    await hall.advance(2)
    (found,) = hall.api.objects[NODEPOOLS]["paris"]["status"]["tranches"]
    return dict(found)


async def test_one_that_was_unplugged_for_its_replacement_still_counts() -> None:
    async with Hall() as hall:
        pool(hall)
        names = [f"gpu-{number}" for number in range(1, 5)]
        for name in names:
            hall.node(name, labels=T1)
        await hall.settle()
        for name in names:
            await clean(hall, name)
        await sick(hall, code="xid-140", action="Replace")
        before = await tranche(hall)
        assert (before["delivered"], before["rma"]) == (4, 1)
        hall.api.drop(NODES, BLADE)
        await hall.settle()
        assert await tranche(hall) == before


async def test_a_node_that_loses_its_label_leaves_the_tranche() -> None:
    async with Hall() as hall:
        await healthy(hall)
        hall.change_node(BLADE, lambda raw: raw["metadata"]["labels"].update(T1))
        await hall.settle()
        assert (await tranche(hall))["delivered"] == 1
        hall.change_node(BLADE, lambda raw: raw["metadata"]["labels"].pop(*T1))
        await hall.settle()
        hall.spec(BLADE, hold={"reason": "fan", "by": "anna", "at": None})
        await hall.settle()
        hall.api.drop(NODES, BLADE)
        await hall.advance(2)
        assert hall.api.objects[NODEPOOLS]["paris"]["status"].get("tranches", []) == []


async def delivered(hall: Hall, code: int = 0) -> None:
    pool(hall, qualification=QUALIFICATION)
    hall.node(BLADE, labels=T1)
    await hall.settle()
    await clean(hall)
    await wait(hall, 61)
    await finish(hall, "burnin", code)
    await wait(hall, 30)


async def test_a_burn_in_that_fails_after_a_repair_takes_no_pass_back() -> None:
    async with Hall() as hall:
        await delivered(hall)
        assert (await tranche(hall))["passRate"] == "1.00"
        await wait(hall, 86_400)
        await sick(hall)
        await wait(hall, 1)
        await finish(hall, "reset")
        await clean(hall)
        await wait(hall, 760)
        await finish(hall, "burnin", 1, reason="slow")
        await wait(hall, 30)
        assert hall.why(BLADE) == "BurnInFailed"
        assert (await tranche(hall))["passRate"] == "1.00"


async def test_a_fault_found_when_a_silent_blade_speaks_again_takes_none_back() -> None:
    async with Hall() as hall:
        await delivered(hall)
        await hall.advance(100)
        assert hall.state(BLADE) == "Unknown"
        await sick(hall)
        assert hall.severity(BLADE) == "Fatal"
        assert (await tranche(hall))["passRate"] == "1.00"


async def test_one_that_failed_at_first_does_not_pass_by_its_repair() -> None:
    async with Hall() as hall:
        await delivered(hall, code=1)
        assert (await tranche(hall))["passRate"] == "0.00"
        release = {"reason": "new fan", "by": "anna", "at": "2027-01-15T09:00:00Z"}
        hall.now += 3600
        hall.spec(BLADE, release=release)
        await clean(hall)
        await wait(hall, 120)
        await finish(hall, "burnin")
        await wait(hall, 30)
        assert hall.state(BLADE) == "Healthy"
        assert (await tranche(hall))["passRate"] == "0.00"
