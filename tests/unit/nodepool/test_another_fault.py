"""A fault that comes after the repair of another one has attempts and a record of its own."""

from typing import Any

from tramontane.api.blade import BladeStatus
from tramontane.api.clock import parse
from tramontane.controllers.nodepool import history
from unit.nodepool.hall import Hall
from unit.nodepool.steps import (
    BLADE,
    CLEAR_AFTER_S,
    QUALIFICATION,
    clean,
    finish,
    healthy,
    message,
    pool,
    sick,
    wait,
)


def record(hall: Hall) -> list[tuple[Any, ...]]:
    found = hall.blade(BLADE)["status"]["incidents"]
    return [(one["code"], one["gpu"], one["from"], one["to"], one.get("outcome")) for one in found]


async def repaired(hall: Hall) -> None:
    """Have both attempts used up by a fault of GPU 3, which the second has repaired."""
    await healthy(hall)
    await sick(hall)
    await finish(hall, "reset")
    await sick(hall)
    await wait(hall, 31)
    await clean(hall, boot="boot-2")
    assert hall.blade(BLADE)["status"]["repair"]["attempts"] == 2


async def test_it_is_not_sent_away_for_the_attempts_of_the_other() -> None:
    async with Hall() as hall:
        await repaired(hall)
        await wait(hall, 300)
        await sick(hall, boot="boot-2", gpu=5, code="xid-119")
        repair = hall.blade(BLADE)["status"]["repair"]
        assert (hall.state(BLADE), repair["code"], repair["gpu"]) == ("Repairing", "xid-119", 5)
        assert [pod.split("-")[0] for pod in hall.works()] == ["reset"]
        assert record(hall) == [
            ("xid-95", 3, "Healthy", "Quarantined", "reboot x2, then xid-119"),
            ("xid-119", 5, "Repairing", "Quarantined", None),
        ]
        await finish(hall, "reset")
        await clean(hall, boot="boot-2")
        await wait(hall, CLEAR_AFTER_S + 30)
        assert hall.state(BLADE) == "Healthy"
        assert record(hall)[-1][-1] == "reset, back in 10m"


async def test_it_goes_to_rma_under_its_own_name() -> None:
    async with Hall() as hall:
        await repaired(hall)
        await sick(hall, boot="boot-2", gpu=5, code="xid-119")
        await wait(hall, 31)
        await finish(hall, "reset", 1)
        await sick(hall, boot="boot-3", gpu=5, code="xid-119")
        await wait(hall, 31)
        assert hall.state(BLADE) == "RMA"
        assert message(hall).startswith("xid-119: 2 repairs did not help")


async def test_the_same_fault_again_is_a_repair_that_did_not_help() -> None:
    async with Hall() as hall:
        await repaired(hall)
        await wait(hall, 300)
        await sick(hall, boot="boot-2")
        assert (hall.state(BLADE), hall.why(BLADE)) == ("RMA", "RepairFailed")
        assert len(record(hall)) == 1


async def test_one_that_comes_while_the_first_is_not_repaired_is_part_of_it() -> None:
    async with Hall() as hall:
        await healthy(hall, remediation={"maxUnavailable": 2})
        await sick(hall)
        await clean(hall)
        await wait(hall, 60)
        await sick(hall, gpu=5, code="xid-119")
        await clean(hall)
        await wait(hall, 2 * CLEAR_AFTER_S)
        assert (hall.state(BLADE), len(record(hall))) == ("Repairing", 1)


async def test_one_that_comes_in_the_tests_is_of_its_own_too() -> None:
    async with Hall() as hall:
        await healthy(hall)
        pool(hall, qualification=QUALIFICATION)
        await sick(hall)
        await finish(hall, "reset")
        await clean(hall)
        await wait(hall, CLEAR_AFTER_S + 30)
        assert hall.state(BLADE) == "Requalifying"
        await sick(hall, gpu=5, code="xid-119")
        assert hall.blade(BLADE)["status"]["repair"]["attempts"] == 1
        assert record(hall)[-1] == ("xid-119", 5, "Requalifying", "Quarantined", None)


async def test_another_after_each_repair_calls_a_person() -> None:
    async with Hall() as hall:
        await healthy(hall)
        for gpu in range(3):
            await sick(hall, gpu=gpu)
            await finish(hall, "reset")
            await clean(hall)
            await wait(hall, 60)
        assert (hall.state(BLADE), hall.why(BLADE)) == ("Quarantined", "Flapping")


async def test_it_is_no_other_failure_at_work_and_the_blade_has_been_out_all_the_time() -> None:
    async with Hall() as hall:
        await repaired(hall)
        await wait(hall, 300)
        await sick(hall, boot="boot-2", gpu=5, code="xid-119")
        assert hall.controller._tally.of("paris").failures == 1
        status = BladeStatus.model_validate(hall.blade(BLADE)["status"])
        assert history.left_at(status) == parse(status.incidents[0].at or "")
