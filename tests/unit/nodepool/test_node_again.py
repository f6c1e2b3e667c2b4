"""A Node that is deleted and registered again is no way around a person's word."""

from tramontane.api.clock import utc
from tramontane.kube.resources import BLADES, NODES
from unit.nodepool.hall import Hall
from unit.nodepool.steps import BLADE, clean, healthy, sick, wait


async def again(hall: Hall) -> None:
    """Let the Node come back, clean, after a boot."""
    hall.node(BLADE, boot="boot-2")
    await hall.settle()
    await clean(hall, boot="boot-2")
    await wait(hall, 60)


async def test_who_was_given_up_stays_so_until_a_person_releases_it() -> None:
    async with Hall() as hall:
        await healthy(hall)
        await sick(hall, action="Replace", code="xid-64")
        assert hall.state(BLADE) == "RMA"
        counted = hall.blade(BLADE)["status"]["history"]
        hall.api.drop(NODES, BLADE)
        await wait(hall, 3600)
        assert hall.state(BLADE) == "RMA"
        await again(hall)
        assert (hall.state(BLADE), hall.severity(BLADE)) == ("RMA", "Fatal")
        assert hall.taints(BLADE) == {"tramontane.dev/blade": "RMA"}
        assert hall.blade(BLADE)["status"]["history"] == counted
        hall.spec(BLADE, release={"reason": "new", "by": "anna", "at": utc(hall.now)})
        await wait(hall, 60)
        assert hall.state(BLADE) == "Healthy"


async def test_who_is_held_stays_so() -> None:
    async with Hall() as hall:
        await healthy(hall)
        hall.spec(BLADE, hold={"reason": "fan", "by": "anna", "at": utc(hall.now)})
        await hall.settle()
        hall.api.drop(NODES, BLADE)
        await hall.settle()
        await again(hall)
        assert (hall.state(BLADE), hall.why(BLADE)) == ("Quarantined", "HeldByPerson")


async def test_a_release_while_it_is_away_lets_it_go() -> None:
    async with Hall() as hall:
        await healthy(hall)
        await sick(hall, action="Replace", code="xid-64")
        await wait(hall, 60)
        hall.api.drop(NODES, BLADE)
        await hall.settle()
        hall.spec(BLADE, release={"reason": "scrapped", "by": "anna", "at": utc(hall.now)})
        await hall.settle()
        assert BLADE not in hall.api.objects[BLADES]


async def test_any_other_goes_with_its_node() -> None:
    async with Hall() as hall:
        await healthy(hall)
        await sick(hall)
        assert hall.state(BLADE) == "Repairing"
        hall.api.drop(NODES, BLADE)
        await hall.settle()
        assert BLADE not in hall.api.objects[BLADES]
