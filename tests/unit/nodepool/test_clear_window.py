"""When a fault that is gone has cleared: by one clock, once, and not before it is repaired."""

import copy
from collections.abc import Mapping
from typing import Any

import pytest

from tramontane.api.clock import utc
from tramontane.kube.resources import BLADES
from unit.nodepool.hall import Hall, fault
from unit.nodepool.steps import (
    BLADE,
    CLEAR_AFTER_S,
    REPAIR,
    clean,
    finish,
    healthy,
    message,
    pool,
    sick,
    wait,
)

REFUSED: Mapping[str, Any] = {"maxUnavailable": 0, **REPAIR}
LOST_GPU: Mapping[str, Any] = {"code": "gpu-lost", "check": "gpu-lost", "action": "Reboot"}


def incident(hall: Hall) -> dict[str, Any]:
    found: dict[str, Any] = hall.blade(BLADE)["status"]["incidents"][-1]
    return found


async def report_at(hall: Hall, at: float, *faults: Mapping[str, Any]) -> None:
    """Let the agent report, by a clock of its own."""
    hall.report(BLADE, *map(dict, faults))
    raw = copy.deepcopy(hall.blade(BLADE))
    raw["status"]["report"]["agent"]["time"] = utc(at)
    hall.api.put(BLADES, raw)
    await hall.settle()


@pytest.mark.parametrize("skew_s", [-900.0, 0.0, 7200.0])
async def test_a_blades_clock_does_not_matter(skew_s: float) -> None:
    async with Hall() as hall:
        await healthy(hall)
        await report_at(hall, hall.now + skew_s, fault(code="xid-95", at=hall.now + skew_s))
        await wait(hall, 60)
        await report_at(hall, hall.now + skew_s)
        await wait(hall, CLEAR_AFTER_S - 30)
        assert hall.state(BLADE) == "Quarantined"
        await wait(hall, 60)
        assert hall.state(BLADE) == "Healthy"


async def test_a_report_that_changes_for_other_reasons_begins_no_other_window() -> None:
    async with Hall() as hall:
        await healthy(hall)
        await sick(hall, severity="Degraded", action="Drain", code="fabric-recovering")
        await clean(hall)
        began = incident(hall)["goneSince"]
        for count in (1, 2):
            await wait(hall, CLEAR_AFTER_S / 2 - 30)
            noted = fault(code="xid-43", severity="None", action="None", count=count, at=hall.now)
            hall.report(BLADE, noted)
            await hall.settle()
            assert (hall.state(BLADE), incident(hall)["goneSince"]) == ("Suspect", began)
        await wait(hall, 90)
        assert hall.state(BLADE) == "Healthy"


async def test_the_faults_return_does() -> None:
    async with Hall() as hall:
        await healthy(hall)
        await sick(hall, action="Drain")
        await clean(hall)
        await wait(hall, CLEAR_AFTER_S - 60)
        await sick(hall, action="Drain")
        assert "goneSince" not in incident(hall)
        await clean(hall)
        await wait(hall, CLEAR_AFTER_S - 60)
        assert hall.state(BLADE) == "Quarantined"
        await wait(hall, 120)
        assert hall.state(BLADE) == "Healthy"


async def test_a_driver_that_hangs_does() -> None:
    async with Hall() as hall:
        await healthy(hall)
        await sick(hall, severity="Degraded", action="Drain")
        await clean(hall)
        await wait(hall, CLEAR_AFTER_S - 60)
        await sick(hall, severity="Unknown", code="nvml-unresponsive", check="nvml", action="None")
        assert hall.state(BLADE) == "Unknown"
        await wait(hall, 60)
        await clean(hall)
        await wait(hall, CLEAR_AFTER_S - 60)
        assert hall.state(BLADE) == "Suspect"
        await wait(hall, 120)
        assert hall.state(BLADE) == "Healthy"


async def test_another_operator_goes_on_with_it() -> None:
    async with Hall() as hall:
        await healthy(hall)
        await sick(hall, action="Drain")
        await clean(hall)
        await wait(hall, CLEAR_AFTER_S - 60)
    async with Hall(hall.api, hall.now) as again:
        await wait(again, 30)
        assert again.state(BLADE) == "Quarantined"
        await wait(again, 60)
        assert again.state(BLADE) == "Healthy"


class TestRefused:
    """What budget or breaker did not let out, and asks for more than time."""

    async def test_it_is_repaired_before_it_works_again_although_it_is_gone(self) -> None:
        async with Hall() as hall:
            await healthy(hall, remediation=REFUSED)
            await sick(hall, **LOST_GPU)
            await clean(hall)
            await wait(hall, 3 * CLEAR_AFTER_S)
            assert (hall.state(BLADE), hall.why(BLADE)) == ("Healthy", "BudgetExhausted")
            assert (hall.severity(BLADE), incident(hall).get("goneSince")) == ("Fatal", None)
            assert "gpu-lost is gone, but not repaired" in message(hall)
            pool(hall)
            await wait(hall, 60)
            assert (hall.state(BLADE), incident(hall)["to"]) == ("Repairing", "Quarantined")
            await finish(hall, "reboot")
            await clean(hall, boot="boot-2")
            await wait(hall, CLEAR_AFTER_S - 60)
            assert hall.state(BLADE) == "Repairing"
            await wait(hall, 120)
            assert (hall.state(BLADE), hall.severity(BLADE)) == ("Healthy", "None")

    async def test_a_reboot_by_somebody_else_is_its_repair(self) -> None:
        async with Hall() as hall:
            await healthy(hall, remediation=REFUSED)
            await sick(hall, **LOST_GPU)
            await wait(hall, 60)
            await clean(hall, boot="boot-2")
            await wait(hall, CLEAR_AFTER_S - 60)
            assert hall.severity(BLADE) == "Fatal"
            await wait(hall, 90)
            assert (hall.state(BLADE), hall.severity(BLADE)) == ("Healthy", "None")
            assert incident(hall)["outcome"] == "clean for 10m"

    async def test_a_reboot_that_did_not_help_is_none(self) -> None:
        async with Hall() as hall:
            await healthy(hall, remediation=REFUSED)
            await sick(hall, **LOST_GPU)
            await sick(hall, boot="boot-2", **LOST_GPU)
            await clean(hall, boot="boot-2")
            await wait(hall, 2 * CLEAR_AFTER_S)
            assert (hall.severity(BLADE), incident(hall)["bootID"]) == ("Fatal", "boot-2")

    async def test_a_person_may_release_it(self) -> None:
        async with Hall() as hall:
            await healthy(hall, remediation=REFUSED)
            await sick(hall, **LOST_GPU)
            await clean(hall)
            await wait(hall, 60)
            hall.spec(BLADE, release={"reason": "riser", "by": "anna", "at": utc(hall.now)})
            await wait(hall, 30)
            assert (hall.state(BLADE), hall.severity(BLADE)) == ("Healthy", "None")

    async def test_one_that_became_worse_is_remembered_as_that(self) -> None:
        async with Hall() as hall:
            await healthy(hall, remediation=REFUSED)
            await sick(hall, severity="Degraded", action="Drain", code="pcie-width")
            await sick(hall, action="Drain", code="xid-120")
            assert (incident(hall)["code"], incident(hall)["severity"]) == ("xid-120", "Fatal")
            await sick(hall, action="Reset", code="xid-95")
            await clean(hall)
            await wait(hall, 2 * CLEAR_AFTER_S)
            assert (hall.severity(BLADE), incident(hall)["action"]) == ("Fatal", "Reset")

    async def test_one_that_asks_for_no_repair_clears(self) -> None:
        async with Hall() as hall:
            await healthy(hall, remediation=REFUSED)
            await sick(hall, action="Drain")
            await clean(hall)
            await wait(hall, CLEAR_AFTER_S + 30)
            assert (hall.state(BLADE), hall.severity(BLADE)) == ("Healthy", "None")


async def test_a_pool_that_was_described_wrongly_comes_back_when_that_is_put_right() -> None:
    names = [f"gpu-{number}" for number in range(4)]
    async with Hall() as hall:
        pool(hall, remediation={"maxUnavailable": 1, **REPAIR})
        for name in names:
            hall.node(name)
        await hall.settle()
        for name in names:
            await clean(hall, name)
        pool(hall, remediation={"maxUnavailable": 1, **REPAIR}, gpu={"count": 9})
        await wait(hall, 60, *names)
        assert sorted(hall.state(name) for name in names) == [*["Healthy"] * 3, "Quarantined"]
        pool(hall, remediation={"maxUnavailable": 1, **REPAIR})
        await wait(hall, CLEAR_AFTER_S + 60, *names)
        assert {(hall.state(name), hall.severity(name)) for name in names} == {("Healthy", "None")}
