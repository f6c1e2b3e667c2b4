"""What is under way when a pool stops to act: mode DryRun or Off, or an open breaker."""

import copy

import pytest

from tramontane.api.clock import utc
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

both = pytest.mark.parametrize("mode", ["DryRun", "Off"])


def watch(hall: Hall, mode: str, **spec: object) -> None:
    pool(hall, remediation={"maxUnavailable": 2, "mode": mode, **REPAIR}, **spec)


@both
class TestWatching:
    async def test_a_repair_that_runs_ends_and_none_follows(self, mode: str) -> None:
        async with Hall() as hall:
            await healthy(hall)
            await sick(hall)
            (pod,) = hall.works()
            watch(hall, mode)
            await hall.settle()
            assert (hall.state(BLADE), hall.works()) == ("Repairing", [pod])
            await finish(hall, "reset", 1)
            await wait(hall, 60)
            assert hall.works() == []
            assert (hall.state(BLADE), hall.severity(BLADE)) == ("Healthy", "Fatal")
            assert hall.taints(BLADE) == {}
            await wait(hall, CLEAR_AFTER_S)
            assert hall.works() == []

    async def test_with_auto_again_it_is_out_again(self, mode: str) -> None:
        async with Hall() as hall:
            await healthy(hall)
            await sick(hall)
            watch(hall, mode)
            await finish(hall, "reset", 1)
            await wait(hall, 60)
            pool(hall)
            await hall.settle()
            assert hall.state(BLADE) == "Repairing"

    async def test_no_repair_begins_of_a_blade_that_drains(self, mode: str) -> None:
        async with Hall() as hall:
            await healthy(hall)
            hall.gang("llama", BLADE)
            await sick(hall, action="Replace")
            assert hall.state(BLADE) == "Draining"
            watch(hall, mode)
            await hall.settle()
            assert (hall.state(BLADE), hall.severity(BLADE)) == ("Healthy", "Fatal")
            hall.gang("llama", "gpu-2")
            await wait(hall, 60)
            assert (hall.state(BLADE), hall.works()) == ("Healthy", [])

    async def test_who_was_given_up_stays_so(self, mode: str) -> None:
        async with Hall() as hall:
            await healthy(hall)
            await sick(hall, action="Replace")
            assert hall.state(BLADE) == "RMA"
            watch(hall, mode)
            await clean(hall)
            await wait(hall, CLEAR_AFTER_S + 60)
            assert hall.state(BLADE) == "RMA"

    async def test_a_new_blade_that_fails_is_told_once_and_not_tested_again(
        self, mode: str
    ) -> None:
        async with Hall() as hall:
            watch(hall, mode, qualification=QUALIFICATION)
            hall.node(BLADE)
            await hall.settle()
            await clean(hall)
            await wait(hall, 61)
            await finish(hall, "burnin", 1, reason="GPU 3: 211 GB/s")
            before = len(hall.api.writes)
            await wait(hall, CLEAR_AFTER_S)
            assert (hall.state(BLADE), hall.why(BLADE)) == ("Qualifying", "BurnInFailed")
            assert (hall.severity(BLADE), hall.works()) == ("Fatal", [])
            assert "GPU 3: 211 GB/s" in message(hall)
            assert hall.taints(BLADE) == {"tramontane.dev/blade": "Qualifying"}
            assert [why for _, why, _ in hall.recorder.said].count("BurnInFailed") == 1
            assert len(hall.api.writes) - before <= 2, "nothing more to say"
            hall.spec(BLADE, release={"reason": "new GPU", "by": "anna", "at": utc(hall.now)})
            await wait(hall, 90)
            await finish(hall, "burnin")
            assert hall.state(BLADE) == "Healthy"

    async def test_the_others_of_a_bad_group_are_not_tested_again(self, mode: str) -> None:
        async with Hall() as hall:
            names = [f"gpu-{number}" for number in range(4)]
            asked = {"template": TEMPLATE, "groupSize": 4, "minBandwidth": 300}
            watch(hall, mode, qualification={"soak": "1s", "collective": asked})
            for name in names:
                hall.node(name)
            await hall.settle()
            for name in names:
                await clean(hall, name)
            for _ in range(60):
                await wait(hall, 2, *names)
                groups: dict[str, set[str]] = {}
                pods = list(hall.works())
                for pod in pods:
                    group = pod.rpartition("-")[0].rpartition("-")[2]
                    groups.setdefault(group, set()).add(pod)
                for pod in pods:
                    group = pod.rpartition("-")[0].rpartition("-")[2]
                    bad = any("gpu-2" in one for one in groups[group])
                    hall.finish(pod, value=120.0 if bad else 341.5, unit="GB/s")
                await hall.settle()
            assert hall.why("gpu-2") == "CollectiveFailed"
            assert {hall.state(name) for name in names if name != "gpu-2"} == {"Healthy"}
            before = len(hall.api.writes)
            await wait(hall, 600, *names)
            assert len(hall.api.writes) - before <= 4
            assert hall.works() == []

    async def test_an_idle_blade_that_fails_works_on_and_says_so(self, mode: str) -> None:
        async with Hall() as hall:
            asked = {"soak": "1s", "burnIn": {"template": TEMPLATE}, "repeatIdleEvery": "1h"}
            watch(hall, mode, qualification=asked)
            hall.node(BLADE)
            await hall.settle()
            await clean(hall)
            await wait(hall, 2)
            await finish(hall, "burnin")
            await wait(hall, 3660)
            await finish(hall, "burnin", 1, reason="wrong product")
            assert (hall.state(BLADE), hall.why(BLADE)) == ("Healthy", "BurnInFailed")
            assert (hall.severity(BLADE), hall.works()) == ("Fatal", [])


class TestOpenBreaker:
    async def test_no_repair_begins_until_a_person_closes_it(self) -> None:
        async with Hall() as hall:
            names = [f"gpu-{number:02}" for number in range(20)]
            remediation = {"maxUnavailable": "100%", "breaker": {"threshold": "30%"}, **REPAIR}
            pool(hall, remediation=remediation)
            for name in names:
                hall.node(name)
            await hall.settle()
            for name in names:
                await clean(hall, name)
            for name in names[:10]:
                hall.now += 3
                await sick(hall, name, action="Reboot", code="xid-79")
            condition = hall.pool_condition("paris", "BreakerOpen")
            assert condition["status"] == "True"
            running = set(hall.works())
            assert 0 < len(running) <= 6, "those that had begun before it opened"
            for pod in running:
                hall.finish(pod, 1)
            await wait(hall, 3600, *names)
            assert hall.works() == []
            states = {hall.state(name) for name in names}
            assert states == {"Healthy", "Quarantined"}, "nobody is given up"
            out = [name for name in names if hall.state(name) == "Quarantined"]
            assert len(out) == 6
            assert all("breaker" in message(hall, name) for name in out)
            close(hall)
            hall.now += 2
            await hall.settle()
            assert len(hall.works()) >= 6, "without waiting for anything else"

    async def test_who_must_be_replaced_waits_as_well(self) -> None:
        async with Hall() as hall:
            names = [f"gpu-{number:02}" for number in range(10)]
            pool(hall, remediation={"maxUnavailable": "100%", "breaker": {"threshold": 2}})
            for name in names:
                hall.node(name)
            await hall.settle()
            for name in names:
                await clean(hall, name)
            hall.gang("llama", *names[:2])
            for name in names[:2]:
                await sick(hall, name, action="Replace")
            hall.gang("llama", *names[4:6])
            await wait(hall, 600, *names)
            assert {hall.state(name) for name in names[:2]} == {"Quarantined"}
            close(hall)
            hall.now += 2
            await hall.settle()
            assert {hall.state(name) for name in names[:2]} == {"RMA"}

    async def test_a_person_is_called_once(self) -> None:
        async with Hall() as hall:
            names = [f"gpu-{number}" for number in range(6)]
            pool(hall, remediation={"maxUnavailable": "100%", "breaker": {"threshold": 2}})
            for name in names:
                hall.node(name)
            await hall.settle()
            for name in names:
                await clean(hall, name)
            for name in names[:4]:
                await sick(hall, name)
            await wait(hall, 600, *names)
            said = [note for name, why, note in hall.recorder.said
                    if (name, why) == ("paris", "BreakerOpen")]  # fmt: skip
            assert len(said) == 1
            assert "tramontane breaker close paris" in said[0]


def close(hall: Hall) -> None:
    raw = copy.deepcopy(hall.api.objects[NODEPOOLS]["paris"])
    raw["metadata"]["annotations"] = {"tramontane.dev/breaker-closed": utc(hall.now + 1)}
    hall.api.put(NODEPOOLS, raw)


class TestOperatorsDryRun:
    """`--dry-run`: every pool that would act only says so."""

    async def test_a_fault_is_told_and_has_no_consequence(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with Hall(dry_run=True) as hall:
            await healthy(hall)
            await sick(hall)
            assert (hall.state(BLADE), hall.severity(BLADE)) == ("Healthy", "Fatal")
            assert message(hall).startswith("DryRun, would quarantine: GPU 3: xid-95")
            assert (hall.taints(BLADE), hall.works()) == ({}, [])
            told = hall.pool_condition("paris", "DryRun")
            assert (told["status"], told["reason"]) == ("True", "AskedByOperator")
            assert "start it without" in told["message"]
        assert "dry run: no blade is taken out" in caplog.text

    async def test_the_next_operator_without_it_acts(self) -> None:
        async with Hall(dry_run=True) as hall:
            await healthy(hall)
            await sick(hall)
        async with Hall(hall.api, hall.now) as again:
            await again.advance(1.0)
            assert again.state(BLADE) == "Repairing"
            conditions = again.api.objects[NODEPOOLS]["paris"]["status"]["conditions"]
            assert "DryRun" not in {one["type"] for one in conditions}

    async def test_a_pool_that_asks_for_it_says_so_too(self) -> None:
        async with Hall() as hall:
            await healthy(hall)
            watch(hall, "DryRun")
            await hall.advance(1.0)
            assert hall.pool_condition("paris", "DryRun")["reason"] == "AskedByPool"

    async def test_a_pool_that_is_off_stays_off(self) -> None:
        async with Hall(dry_run=True) as hall:
            await healthy(hall)
            watch(hall, "Off")
            await sick(hall)
            assert message(hall).startswith("remediation is Off")
