"""What a person's release brings back, what it forgives, and what it cannot."""

from typing import Any

import pytest

from tramontane.api.clock import utc
from unit.nodepool.hall import Hall
from unit.nodepool.steps import (
    BLADE,
    CLEAR_AFTER_S,
    QUALIFICATION,
    REPAIR,
    clean,
    finish,
    healthy,
    pool,
    sick,
    wait,
)

GONE: dict[str, Any] = {"check": "gpu-lost", "code": "gpu-lost", "action": "Drain"}


def hold(hall: Hall) -> None:
    hall.spec(BLADE, hold={"reason": "fan", "by": "anna", "at": utc(hall.now)})


def release(hall: Hall, **more: Any) -> None:
    hall.spec(BLADE, release={"reason": "new fan", "by": "anna", "at": utc(hall.now), **more})


async def state_fault_at(hall: Hall, at: float, **how: Any) -> None:
    """Let a state begin; its report says so from then on and never again."""
    await sick(hall, **(GONE | how))
    assert hall.blade(BLADE)["status"]["report"]["faults"][0]["lastSeen"] == utc(at)


@pytest.mark.parametrize("skip", [False, True], ids=["tests", "skipBurnIn"])
async def test_what_is_still_wrong_counts_after_a_hold(skip: bool) -> None:
    async with Hall() as hall:
        await healthy(hall)
        hold(hall)
        await wait(hall, 60)
        await state_fault_at(hall, hall.now)
        await wait(hall, 60)
        release(hall, skipBurnIn=skip)
        await wait(hall, 3600)
        assert (hall.state(BLADE), hall.severity(BLADE)) == ("Quarantined", "Fatal")
        assert hall.taints(BLADE)
        await clean(hall)
        await wait(hall, CLEAR_AFTER_S - 60)
        assert hall.state(BLADE) == "Quarantined", "a fault after the word clears by itself"
        await wait(hall, 120)
        assert hall.state(BLADE) == "Healthy"


async def test_what_is_still_wrong_counts_after_a_quarantine() -> None:
    async with Hall() as hall:
        await healthy(hall)
        pool(hall, qualification=QUALIFICATION)
        await state_fault_at(hall, hall.now)
        assert hall.state(BLADE) == "Quarantined"
        await wait(hall, 60)
        release(hall)
        await wait(hall, 3600)
        assert (hall.state(BLADE), hall.works()) == ("Quarantined", [])
        record = hall.blade(BLADE)["status"]["incidents"]
        assert [one.get("outcome") for one in record] == ["released by anna: new fan", None]
        assert len(record) == 2, "one release, one incident more"


async def test_what_is_still_wrong_after_a_release_from_repair_is_repaired_and_clears() -> None:
    async with Hall() as hall:
        await healthy(hall)
        await state_fault_at(hall, hall.now, action="Reset")
        assert hall.state(BLADE) == "Repairing"
        await wait(hall, 60)
        release(hall)
        await wait(hall, 60)
        await finish(hall, "reset")
        await clean(hall)
        await wait(hall, CLEAR_AFTER_S + 60)
        assert (hall.state(BLADE), hall.severity(BLADE)) == ("Healthy", "None")
        first, second = hall.blade(BLADE)["status"]["incidents"]
        assert first["outcome"] == "released by anna: new fan"
        assert (second["to"], second["outcome"][:14]) == ("Quarantined", "reset, back in")


async def test_what_has_happened_is_forgiven() -> None:
    async with Hall() as hall:
        await healthy(hall)
        await sick(hall, code="xid-79", action="Inspect")
        await wait(hall, 60)
        release(hall)
        await wait(hall, 60)
        assert (hall.state(BLADE), hall.severity(BLADE)) == ("Healthy", "None")
        await sick(hall, code="xid-79", action="Inspect")
        assert hall.state(BLADE) == "Quarantined", "the next one is not"


async def test_a_word_from_a_clock_that_is_ahead_forgives_nothing_to_come() -> None:
    async with Hall() as hall:
        await healthy(hall)
        await sick(hall, code="xid-79", action="Inspect")
        await wait(hall, 60)
        word = {"reason": "new fan", "by": "anna", "at": utc(hall.now + 3600)}
        hall.spec(BLADE, release=word)
        await wait(hall, 60)
        assert (hall.state(BLADE), hall.severity(BLADE)) == ("Healthy", "None"), "at once"
        await sick(hall, code="xid-79", action="Inspect")
        for _ in range(3):
            await wait(hall, 1770)
            assert (hall.state(BLADE), hall.severity(BLADE)) == ("Quarantined", "Fatal")
        record = hall.blade(BLADE)["status"]["incidents"]
        assert [one.get("outcome") for one in record] == ["released by anna: new fan", None]
        hold(hall)
        await wait(hall, 60)
        assert hall.why(BLADE) == "HeldByPerson", "nor does it end a later hold"


@pytest.mark.parametrize("by", ["release", "removal"])
async def test_after_a_hold_the_pools_tests_come_first(by: str) -> None:
    async with Hall() as hall:
        await healthy(hall)
        pool(hall, qualification=QUALIFICATION)
        hold(hall)
        await wait(hall, 60)
        if by == "release":
            release(hall)
        else:
            hall.spec(BLADE, hold=None)
        await wait(hall, 30)
        assert hall.state(BLADE) == "Requalifying"
        await wait(hall, 61)
        await finish(hall, "burnin")
        assert (hall.state(BLADE), hall.taints(BLADE)) == ("Healthy", {})


async def test_a_person_may_skip_them() -> None:
    async with Hall() as hall:
        await healthy(hall)
        pool(hall, qualification=QUALIFICATION)
        hold(hall)
        await wait(hall, 60)
        release(hall, skipBurnIn=True)
        await wait(hall, 30)
        assert (hall.state(BLADE), hall.works()) == ("Healthy", [])
        hold(hall)
        await wait(hall, 60)
        hall.spec(BLADE, hold=None)
        await wait(hall, 30)
        assert hall.state(BLADE) == "Requalifying", "that word was for an earlier hold"


async def test_a_blade_that_worked_on_through_its_hold_is_not_tested_under_the_job() -> None:
    async with Hall() as hall:
        await healthy(hall)
        pool(hall, qualification=QUALIFICATION)
        hall.gang("llama", BLADE)
        hall.guest("llama-0", BLADE)
        hold(hall)
        await wait(hall, 60)
        release(hall)
        await wait(hall, 120)
        assert (hall.state(BLADE), hall.works()) == ("Healthy", [])


async def test_a_release_ends_a_drain_and_the_job_stays() -> None:
    async with Hall() as hall:
        await healthy(hall)
        pool(hall, qualification=QUALIFICATION)
        hall.gang("llama", BLADE)
        await sick(hall)
        await wait(hall, 60)
        assert hall.state(BLADE) == "Draining"
        release(hall)
        await wait(hall, 60)
        assert (hall.state(BLADE), hall.works()) == ("Healthy", [])


async def test_tests_that_a_fault_broke_off_begin_anew_and_can_be_skipped() -> None:
    async with Hall() as hall:
        pool(hall, qualification=QUALIFICATION)
        hall.node(BLADE)
        await hall.settle()
        await clean(hall)
        await wait(hall, 70)
        assert [name.split("-")[0] for name in hall.works()] == ["burnin"]
        await sick(hall, code="xid-95", action="Reset")
        await finish(hall, "reset")
        pool(hall, qualification=QUALIFICATION, remediation={"mode": "DryRun", **REPAIR})
        await hall.settle()
        await clean(hall)
        await wait(hall, CLEAR_AFTER_S + 120)
        asked = hall.blade(BLADE)["status"]["qualification"]
        assert (asked["step"], "startedAt" in asked) == ("burnIn", True)
        release(hall, skipBurnIn=True)
        await wait(hall, 60)
        assert hall.state(BLADE) == "Healthy"
