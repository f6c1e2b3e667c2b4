"""A repair that is owed, and a person who must look: the one does not make the other forgotten."""

import pytest

from unit.nodepool.hall import Hall, fault
from unit.nodepool.steps import BLADE, CLEAR_AFTER_S, REPAIR, clean, healthy, message, wait

NO_PODS = {"maxUnavailable": 2}


async def seen(hall: Hall, *actions: str, gpus: int = 8) -> None:
    """Let the agent report these actions; of 7 GPUs the inventory asks for Inspect."""
    faults = [fault(at=hall.now, code="xid-95", action=one, bootID="boot-1") for one in actions]
    hall.report(BLADE, *faults, gpus=gpus)
    await hall.settle()
    await hall.advance(1)


@pytest.mark.parametrize("action", ["Reset", "Reboot"])
@pytest.mark.parametrize("first", ["before", "beside"])
async def test_it_is_owed_when_both_are_gone(action: str, first: str) -> None:
    async with Hall() as hall:
        await healthy(hall, remediation=NO_PODS)
        if first == "before":
            await seen(hall, action)
        await seen(hall, action, gpus=7)
        assert hall.state(BLADE) == "Quarantined"
        assert "a person must look" in message(hall)
        await clean(hall)
        await wait(hall, 2 * CLEAR_AFTER_S)
        assert hall.state(BLADE) == "Repairing"
        assert f"waits for a person to {action.lower()} it" in message(hall)
        await clean(hall, boot="boot-2")
        await wait(hall, CLEAR_AFTER_S + 60)
        assert hall.state(BLADE) == "Healthy"


async def test_it_begins_when_there_is_nothing_more_to_look_at() -> None:
    async with Hall() as hall:
        await healthy(hall)
        await seen(hall, gpus=7)
        await seen(hall, "Reset", gpus=7)
        assert hall.works() == []
        await seen(hall, "Reset")
        assert [pod.split("-")[0] for pod in hall.works()] == ["reset"]


async def test_where_nothing_is_owed_it_ends_with_its_sign() -> None:
    async with Hall() as hall:
        await healthy(hall, remediation=NO_PODS | REPAIR)
        await seen(hall, gpus=7)
        await clean(hall)
        await wait(hall, CLEAR_AFTER_S + 60)
        assert (hall.state(BLADE), hall.works()) == ("Healthy", [])
