"""Work that runs on a blade comes first: drain before repair, RMA and tests, and by whose word."""

from typing import Any, ClassVar

import pytest

from tramontane.kube.resources import PODS
from unit.nodepool.hall import Hall, fault
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

DEGRADED = {"severity": "Degraded", "code": "nvlink-down"}


class TestDraining:
    async def test_a_fault_that_heals_meanwhile_disturbs_no_job(self) -> None:
        async with Hall() as hall:
            await healthy(hall)
            hall.gang("llama", BLADE)
            hall.guest("llama-0", BLADE)
            await sick(hall, **DEGRADED)
            await wait(hall, CLEAR_AFTER_S + 30)
            assert (hall.state(BLADE), hall.severity(BLADE)) == ("Draining", "Degraded")
            await clean(hall)
            await wait(hall, 3 * CLEAR_AFTER_S)
            assert (hall.state(BLADE), hall.works()) == ("Draining", []), "gone is not repaired"
            assert hall.severity(BLADE) == "Degraded", "onDegraded still says when the job leaves"
            assert "ml/llama" in message(hall)
            hall.gang("llama", "gpu-2")
            hall.api.drop(PODS, "ml/llama-0")
            await hall.settle()
            assert hall.state(BLADE) == "Repairing"
            await finish(hall, "reset")
            await wait(hall, 30)
            assert hall.state(BLADE) == "Healthy"

    async def test_what_a_contained_memory_error_leaves_waits_for_the_jobs_end(self) -> None:
        left = [("ecc-uncorrected", "ecc-errors"), ("row-remap-pending", "remapped-rows")]
        async with Hall() as hall:
            await healthy(hall)
            hall.gang("llama", BLADE)
            asks: dict[str, Any] = {"severity": "Degraded", "action": "Reset", "at": hall.now}
            faults = [fault(code=code, check=check, **asks) for code, check in left]
            hall.report(BLADE, *faults, fault(code="xid-63", **asks))
            await wait(hall, 5 * CLEAR_AFTER_S)
            assert hall.state(BLADE) == "Suspect", "the job is not disturbed"
            hall.gang("llama", "gpu-2")
            await hall.settle()
            assert hall.state(BLADE) == "Repairing"
            assert [pod.split("-")[0] for pod in hall.works()] == ["reset"]

    @pytest.mark.parametrize("code", ["row-remap-failure", "retired-pages-limit"])
    async def test_what_must_be_replaced_waits_for_the_job_too(self, code: str) -> None:
        async with Hall() as hall:
            await healthy(hall, remediation={"maxUnavailable": 2, "drain": {"onFatal": "WhenIdle"}})
            hall.gang("llama", BLADE)
            hall.guest("llama-0", BLADE, job="llama")
            await sick(hall, code=code, action="Replace")
            await wait(hall, 60)
            assert (hall.state(BLADE), hall.severity(BLADE)) == ("Draining", "Fatal")
            await clean(hall)
            await wait(hall, CLEAR_AFTER_S + 60)
            assert (hall.state(BLADE), hall.severity(BLADE)) == ("Draining", "Fatal")
            hall.gang("llama", "gpu-2")
            hall.api.drop(PODS, "ml/llama-0")
            await hall.settle()
            assert hall.state(BLADE) == "RMA"
            hall.guest("stray", BLADE)
            await wait(hall, 60)
            assert hall.state(BLADE) == "RMA", "nothing brings it back but a person"

    async def test_a_pod_with_gpus_is_work_whoever_made_it(self) -> None:
        async with Hall() as hall:
            await healthy(hall)
            hall.guest("notebook-0", BLADE, gang="")
            await sick(hall, code="xid-79", action="Reboot")
            assert (hall.state(BLADE), hall.works()) == ("Draining", [])
            assert "ml/notebook-0" in message(hall)
            hall.api.drop(PODS, "ml/notebook-0")
            await hall.settle()
            assert [pod.split("-")[0] for pod in hall.works()] == ["reboot"]

    async def test_a_pod_without_gpus_is_none(self) -> None:
        async with Hall() as hall:
            await healthy(hall)
            hall.guest("exporter", BLADE, gang="", gpus=0)
            await sick(hall, code="xid-79", action="Reboot")
            assert hall.state(BLADE) == "Repairing"

    async def test_our_own_pods_are_none(self) -> None:
        asks = {"resources": {"limits": {"nvidia.com/gpu": 8}}}
        template = {"spec": {"containers": [{"name": "t", "image": "i", **asks}]}}
        async with Hall() as hall:
            await healthy(hall)
            pool(hall, remediation={"maxUnavailable": 2, "reset": {"template": template}})
            await sick(hall)
            await wait(hall, 60)
            assert (hall.state(BLADE), len(hall.works())) == ("Repairing", 1)


class TestForeignWork:
    """Pods whose controllers read no Blade are evicted when `drain.timeout` is over."""

    DRAIN: ClassVar = {"maxUnavailable": 2, "drain": {"timeout": "30m"}, **REPAIR}

    @pytest.mark.parametrize("gang", ["", "theirs"])
    async def test_a_fatal_fault_evicts_them_at_last(self, gang: str) -> None:
        async with Hall() as hall:
            await healthy(hall, remediation=self.DRAIN)
            hall.guest("notebook-0", BLADE, gang=gang)
            await sick(hall, code="xid-79", action="Reboot")
            await wait(hall, 1770)
            assert (hall.state(BLADE), evictions(hall)) == ("Draining", [])
            await wait(hall, 60)
            assert evictions(hall) == ["ml/notebook-0"]
            assert hall.state(BLADE) == "Repairing"
            (said,) = [note for _, _, note in hall.recorder.said if "evict" in note]
            assert "ml/notebook-0" in said
            assert "drain.timeout" in said

    async def test_a_refusal_is_told_and_tried_again(self) -> None:
        async with Hall() as hall:
            await healthy(hall, remediation=self.DRAIN)
            hall.guest("notebook-0", BLADE, gang="")
            hall.api.guarded["ml/notebook-0"] = "Cannot evict: the disruption budget pdb needs 1"
            await sick(hall, code="xid-79", action="Reboot")
            await wait(hall, 1920)
            assert hall.state(BLADE) == "Draining"
            said = [note for _, _, note in hall.recorder.said if "disruption budget pdb" in note]
            assert len(said) == 1, "once, not at every try"
            hall.api.guarded.clear()
            await wait(hall, 60)
            assert hall.state(BLADE) == "Repairing"

    async def test_a_degraded_one_evicts_nobody_but_says_who_keeps_it(self) -> None:
        async with Hall() as hall:
            await healthy(hall, remediation=self.DRAIN)
            hall.guest("notebook-0", BLADE, gang="")
            await sick(hall, **DEGRADED)
            await wait(hall, CLEAR_AFTER_S + 1860)
            assert (hall.state(BLADE), evictions(hall)) == ("Draining", [])
            (said,) = [note for _, _, note in hall.recorder.said if "drain.timeout" in note]
            assert "ml/notebook-0" in said

    async def test_our_own_jobs_leave_by_their_own_controller(self) -> None:
        async with Hall() as hall:
            await healthy(hall, remediation=self.DRAIN)
            hall.guest("llama-0", BLADE, gang="llama", job="llama")
            await sick(hall, code="xid-79", action="Reboot")
            await wait(hall, 3600)
            assert (hall.state(BLADE), evictions(hall)) == ("Draining", [])


class TestIdleTests:
    ASKED: ClassVar = {"soak": "1s", "burnIn": {"template": TEMPLATE}, "repeatIdleEvery": "1h"}

    async def under_test(self, hall: Hall) -> str:
        """Have an idle blade that runs its burn-in again; return the pod."""
        pool(hall, qualification=self.ASKED)
        hall.node(BLADE)
        await hall.settle()
        await clean(hall)
        await wait(hall, 2)
        await finish(hall, "burnin")
        await wait(hall, 3660)
        (pod,) = hall.works()
        return pod

    @pytest.mark.parametrize("gang", ["", "theirs"])
    async def test_they_give_way_to_a_pod_at_once(self, gang: str) -> None:
        async with Hall() as hall:
            pod = await self.under_test(hall)
            hall.guest("notebook-0", BLADE, gang=gang)
            await hall.settle()
            assert (hall.state(BLADE), hall.works()) == ("Healthy", [])
            assert hall.api.graces[pod] == 0, "the work does not wait for it"

    async def test_they_begin_beside_no_pod(self) -> None:
        async with Hall() as hall:
            pod = await self.under_test(hall)
            hall.finish(pod)
            hall.guest("notebook-0", BLADE, gang="")
            await hall.settle()
            await wait(hall, 7200)
            assert hall.works() == []


async def test_a_new_blade_is_not_burnt_in_beside_work() -> None:
    async with Hall() as hall:
        pool(hall, qualification=QUALIFICATION)
        hall.node(BLADE)
        await hall.settle()
        hall.guest("notebook-0", BLADE, gang="")
        await clean(hall)
        await wait(hall, 90)
        assert (hall.state(BLADE), hall.works()) == ("Qualifying", [])
        assert "ml/notebook-0" in message(hall)
        hall.api.drop(PODS, "ml/notebook-0")
        await hall.settle()
        assert len(hall.works()) == 1


def evictions(hall: Hall) -> list[str]:
    return [name for verb, _, name in hall.api.writes if verb == "evict"]
