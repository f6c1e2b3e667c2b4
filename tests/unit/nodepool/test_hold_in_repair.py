"""A hold while a repair runs: what has begun on the machine is not cut short, nothing begins."""

from tramontane.api.clock import utc
from tramontane.kube.resources import PODS
from unit.nodepool.hall import SYSTEM, Hall
from unit.nodepool.steps import BLADE, CLEAR_AFTER_S, clean, finish, healthy, message, sick, wait


async def held(hall: Hall) -> None:
    hall.spec(BLADE, hold={"reason": "fan", "by": "anna", "at": utc(hall.now)})
    await hall.settle()
    assert (hall.state(BLADE), hall.why(BLADE)) == ("Quarantined", "HeldByPerson")


async def test_a_reset_that_runs_ends_and_is_not_done_again() -> None:
    async with Hall() as hall:
        await healthy(hall)
        await sick(hall)
        (pod,) = hall.works()
        hall.starts(pod)
        await held(hall)
        assert hall.works() == [pod]
        assert message(hall) == "held by anna: fan; the reset that runs will end first"
        await finish(hall, "reset")
        assert (message(hall), hall.works()) == ("held by anna: fan", [])
        await clean(hall)
        hall.spec(BLADE, hold=None)
        await wait(hall, 60)
        assert (hall.state(BLADE), hall.works()) == ("Repairing", [])
        await wait(hall, CLEAR_AFTER_S)
        assert hall.state(BLADE) == "Healthy"


async def test_one_that_has_not_begun_is_taken_away_and_follows_later() -> None:
    async with Hall() as hall:
        await healthy(hall)
        await sick(hall)
        await held(hall)
        assert hall.works() == []
        hall.spec(BLADE, hold=None)
        await wait(hall, 30)
        assert [pod.split("-")[0] for pod in hall.works()] == ["reset"]


async def test_one_that_somebody_deletes_is_not_made_again() -> None:
    async with Hall() as hall:
        await healthy(hall)
        await sick(hall)
        (pod,) = hall.works()
        hall.starts(pod)
        await held(hall)
        hall.api.drop(PODS, f"{SYSTEM}/{pod}")
        await wait(hall, 60)
        assert hall.works() == []


async def test_a_reboot_whose_container_cannot_start_has_not_begun() -> None:
    async with Hall() as hall:
        await healthy(hall)
        await sick(hall, action="Reboot", code="xid-79")
        (pod,) = hall.works()
        hall.breaks(pod, "ImagePullBackOff")
        await held(hall)
        assert (message(hall), hall.works()) == ("held by anna: fan", [])


async def test_a_reboot_that_was_ordered_is_not_ordered_twice() -> None:
    async with Hall() as hall:
        await healthy(hall)
        await sick(hall, action="Reboot", code="xid-79")
        (pod,) = hall.works()
        await finish(hall, "reboot", 137)
        await held(hall)
        await clean(hall, boot="boot-2")
        hall.spec(BLADE, hold=None)
        await wait(hall, CLEAR_AFTER_S + 60)
        assert hall.state(BLADE) == "Healthy"
        made = [name for verb, what, name in hall.api.writes if (verb, what) == ("create", "pods")]
        assert made == [pod]
