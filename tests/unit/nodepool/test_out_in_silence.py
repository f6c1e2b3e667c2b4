"""Lost and Unknown say what the moment is like; what a blade was on its way through stays."""

from typing import Any

import pytest

from tramontane.api.clock import parse, utc
from tramontane.kube.resources import NODEPOOLS
from unit.nodepool.hall import Hall
from unit.nodepool.steps import (
    BLADE,
    CLEAR_AFTER_S,
    QUALIFICATION,
    REPAIR,
    TEMPLATE,
    clean,
    finish,
    healthy,
    message,
    pool,
    sick,
    wait,
)

TEN = [f"gpu-{number}" for number in range(10)]
BREAKER = {"maxUnavailable": "50%", "breaker": {"threshold": "30%", "window": "5m"}, **REPAIR}


async def qualified(hall: Hall, *names: str, **spec: Any) -> None:
    """Have blades that have passed soak and burn-in, and work."""
    pool(hall, qualification=QUALIFICATION, **spec)
    for name in names:
        hall.node(name)
    await hall.settle()
    for name in names:
        await clean(hall, name)
    await wait(hall, 61, *names)
    for name in names:
        await finish(hall, "burnin", 0, name)
    assert {hall.state(name) for name in names} == {"Healthy"}


async def kubelet_away(hall: Hall, seconds: float = CLEAR_AFTER_S + 60) -> None:
    hall.readiness(BLADE, "False")
    await hall.settle()
    await wait(hall, seconds)
    assert hall.state(BLADE) == "Lost"
    hall.readiness(BLADE, "True")
    await wait(hall, 30)


def passed(hall: Hall, since: float, name: str = BLADE) -> list[str]:
    """Return the steps passed since then."""
    results = hall.blade(name)["status"]["qualification"]["results"]
    return [one["step"] for one in results if one["passed"] and parse(one["at"]) > since]


def breaker(hall: Hall) -> str:
    return str(hall.api.objects[NODEPOOLS]["paris"]["status"]["breaker"]["state"])


class TestBreakerAndBudget:
    async def test_a_check_that_is_wrong_after_a_silence_opens_the_breaker(self) -> None:
        async with Hall() as hall:
            await qualified(hall, *TEN, remediation=BREAKER)
            await hall.advance(100)
            assert {hall.state(name) for name in TEN} == {"Unknown"}
            for name in TEN:
                await sick(hall, name, code="xid-79", action="Drain")
            await hall.advance(5)
            assert breaker(hall) == "Open"
            assert sum(hall.state(name) == "Quarantined" for name in TEN) <= 3

    async def test_blades_that_are_lost_use_the_budget(self) -> None:
        async with Hall() as hall:
            await qualified(hall, *TEN)
            for name in TEN[:2]:
                hall.readiness(name, "False")
            await wait(hall, 60, *TEN)
            await sick(hall, TEN[5], code="xid-79", action="Drain")
            assert (hall.state(TEN[5]), hall.why(TEN[5])) == ("Healthy", "BudgetExhausted")

    async def test_a_delivery_whose_agents_are_slow_uses_none(self) -> None:
        async with Hall() as hall:
            pool(hall, qualification=QUALIFICATION, remediation={"maxUnavailable": 1})
            for name in TEN:
                hall.node(name)
            await hall.settle()
            await hall.advance(100)
            assert {hall.state(name) for name in TEN} == {"Unknown"}
            for name in TEN:
                await sick(hall, name, action="Drain")
                await clean(hall, name)
            await wait(hall, CLEAR_AFTER_S + 30, *TEN)
            assert {hall.state(name) for name in TEN} == {"Requalifying"}
            assert hall.controller._ledger.out("paris") == 0
            incidents = [hall.blade(name)["status"]["incidents"] for name in TEN]
            assert {one["from"] for record in incidents for one in record} == {"Qualifying"}

    async def test_one_that_requalifies_counts_as_out_although_its_fault_came_in_a_silence(
        self,
    ) -> None:
        async with Hall() as hall:
            await qualified(hall, BLADE)
            await hall.advance(100)
            await sick(hall, action="Drain")
            await clean(hall)
            await wait(hall, CLEAR_AFTER_S + 30)
            assert hall.state(BLADE) == "Requalifying"
            assert hall.controller._ledger.out("paris") == 1

    async def test_one_that_comes_back_from_its_own_reboot_asks_nobody_again(self) -> None:
        async with Hall() as hall:
            await qualified(hall, *TEN)
            await sick(hall, TEN[0], action="Reboot", code="xid-79")
            hall.readiness(TEN[0], "False")
            for name in TEN[1:3]:
                hall.spec(name, hold={"reason": "cables", "by": "anna", "at": utc(hall.now)})
            await wait(hall, 300, *TEN[1:])
            hall.readiness(TEN[0], "True")
            back = hall.now
            await clean(hall, TEN[0], boot="boot-2")
            assert hall.state(TEN[0]) == "Repairing"
            await wait(hall, CLEAR_AFTER_S + 90, *TEN)
            await finish(hall, "burnin", 0, TEN[0])
            assert (hall.state(TEN[0]), passed(hall, back, TEN[0])) == (
                "Healthy",
                ["soak", "burnIn"],
            )

    async def test_blades_that_come_back_from_their_reboots_are_no_new_calls(self) -> None:
        async with Hall() as hall:
            await qualified(hall, *TEN, remediation=BREAKER)
            for name in TEN[:3]:
                await sick(hall, name, action="Reboot", code="xid-79")
                await wait(hall, 360, *TEN)
                hall.readiness(name, "False")
            await wait(hall, 120, *TEN[3:])
            for name in TEN[:3]:
                hall.readiness(name, "True")
                await clean(hall, name, boot="boot-2")
            await wait(hall, 30, *TEN)
            assert (breaker(hall), {hall.state(name) for name in TEN[:3]}) == (
                "Closed",
                {"Repairing"},
            )

    @pytest.mark.parametrize("by", ["repair", "release"])
    async def test_burn_ins_that_fail_on_the_way_back_are_no_new_calls(self, by: str) -> None:
        async with Hall() as hall:
            await qualified(hall, *TEN, remediation=BREAKER)
            for name in TEN[:3]:
                await sick(hall, name)
                await wait(hall, 360, *TEN)
            for name in TEN[:3]:
                await finish(hall, "reset", 0, name)
                await clean(hall, name)
                if by == "release":
                    word = {"reason": "new GPU", "by": "anna", "at": utc(hall.now)}
                    hall.spec(name, release=word)
            await wait(hall, CLEAR_AFTER_S + 120 if by == "repair" else 90, *TEN)
            for name in TEN[:3]:
                await finish(hall, "burnin", 1, name, reason="slow")
            await wait(hall, 30, *TEN)
            assert {hall.why(name) for name in TEN[:3]} == {"BurnInFailed"}
            assert breaker(hall) == "Closed"


class TestWayBack:
    async def test_a_kubelet_that_is_away_when_the_fault_clears_saves_no_test(self) -> None:
        async with Hall() as hall:
            await qualified(hall, BLADE)
            await sick(hall)
            await finish(hall, "reset")
            await clean(hall)
            await kubelet_away(hall)
            back = hall.now
            assert (hall.state(BLADE), hall.taints(BLADE)) == (
                "Requalifying",
                {"tramontane.dev/blade": "Requalifying"},
            )
            await wait(hall, 62)
            await finish(hall, "burnin")
            assert (hall.state(BLADE), passed(hall, back)) == ("Healthy", ["soak", "burnIn"])

    async def test_a_fault_in_the_last_step_makes_it_begin_with_the_first(self) -> None:
        async with Hall() as hall:
            await qualified(hall, BLADE)
            asked = {"template": TEMPLATE, "groupSize": 4, "minBandwidth": 300}
            pool(hall, qualification=QUALIFICATION | {"collective": asked})
            await sick(hall, action="Drain")
            await clean(hall)
            await wait(hall, CLEAR_AFTER_S + 120)
            await finish(hall, "burnin")
            assert "collective" in message(hall)
            await sick(hall, action="Drain")
            await clean(hall)
            await kubelet_away(hall)
            assert (hall.state(BLADE), message(hall)[:5]) == ("Requalifying", "soak:")

    async def test_one_that_flaps_still_waits_for_a_person(self) -> None:
        async with Hall() as hall:
            await healthy(hall)
            for _ in range(3):
                await sick(hall, code="xid-79", action="Drain")
                await clean(hall)
                await wait(hall, CLEAR_AFTER_S + 60)
            assert hall.why(BLADE) == "Flapping"
            await kubelet_away(hall)
            assert (hall.state(BLADE), hall.why(BLADE)) == ("Quarantined", "Flapping")


@pytest.mark.parametrize("kubelet", ["there", "away"])
async def test_no_soak_passes_in_a_silence(kubelet: str) -> None:
    async with Hall() as hall:
        pool(hall, qualification={"soak": "1h"})
        hall.node(BLADE)
        await hall.settle()
        await clean(hall)
        await wait(hall, 60)
        if kubelet == "away":
            hall.readiness(BLADE, "False")
        for _ in range(40):
            await hall.advance(100)
        hall.readiness(BLADE, "True")
        await wait(hall, 3540)
        assert hall.state(BLADE) == "Qualifying"
        await wait(hall, 90)
        assert hall.state(BLADE) == "Healthy"
