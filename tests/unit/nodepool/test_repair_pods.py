"""Repairs and tests whose pods break, never start, or are cut short by what they ordered."""

import copy
from typing import Any

import pytest

from tramontane.api.clock import utc
from tramontane.kube.resources import BLADES, GANGS, PODS
from unit.nodepool.hall import SYSTEM, Hall, fault
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

BY_REBOOT = {"maxUnavailable": 2, "resetBy": "Reboot", **REPAIR}
ONLY_RESET = {"maxUnavailable": 2, "reset": REPAIR["reset"]}


def kinds(hall: Hall) -> list[str]:
    return [pod.split("-")[0] for pod in hall.works()]


def boots(hall: Hall, boot: str) -> None:
    """Let the kubelet be up again, on another boot; the agent is not yet."""
    hall.change_node(BLADE, lambda raw: raw["status"]["nodeInfo"].update(bootID=boot))
    hall.kubelet(BLADE)
    hall.readiness(BLADE, "True")


def told(hall: Hall) -> list[str]:
    return [note for name, _, note in hall.recorder.said if name == BLADE]


async def breaks(hall: Hall, waiting: str = "ErrImagePull") -> None:
    (pod,) = hall.works()
    hall.breaks(pod, waiting)
    await hall.settle()


def attempts(hall: Hall) -> int:
    found: int = hall.blade(BLADE)["status"]["repair"]["attempts"]
    return found


class TestReboot:
    async def test_the_kubelet_is_up_before_the_agent(self) -> None:
        async with Hall() as hall:
            await healthy(hall)
            boots(hall, "boot-1")
            await sick(hall, action="Reboot", code="xid-79")
            (pod,) = hall.works()
            hall.readiness(BLADE, "False")
            await hall.advance(240)
            boots(hall, "boot-2")
            hall.finish(pod, 137)  # killed by the shutdown that it ordered
            await hall.settle()
            await hall.advance(30)
            assert (hall.works(), attempts(hall)) == ([pod], 1)
            assert "its agent has not spoken since" in message(hall)
            await sick(hall, action="Reboot", code="xid-79", boot="boot-2")
            assert (hall.state(BLADE), attempts(hall)) == ("Repairing", 1)
            await clean(hall, boot="boot-2")
            await wait(hall, CLEAR_AFTER_S + 60)
            assert hall.state(BLADE) == "Healthy"

    async def test_a_machine_that_came_back_by_itself_is_not_rebooted(self) -> None:
        async with Hall() as hall:
            await healthy(hall)
            boots(hall, "boot-1")
            hall.gang("llama", BLADE)
            await sick(hall, action="Reboot", code="xid-79")
            assert hall.state(BLADE) == "Draining"
            hall.api.drop(GANGS, "ml/llama")
            hall.readiness(BLADE, "False")
            await hall.advance(60)
            boots(hall, "boot-2")
            await hall.settle()
            assert (hall.state(BLADE), hall.works()) == ("Repairing", [])
            await clean(hall, boot="boot-2")
            await wait(hall, CLEAR_AFTER_S + 60)
            assert hall.state(BLADE) == "Healthy"

    async def test_a_pod_that_ended_and_no_boot_is_a_failed_attempt_in_the_end(self) -> None:
        async with Hall() as hall:
            await healthy(hall)
            await sick(hall, action="Reboot", code="xid-79")
            await finish(hall, "reboot", 1)
            await wait(hall, 1400)
            assert attempts(hall) == 1
            await wait(hall, 150)
            assert (kinds(hall), attempts(hall)) == (["reboot"], 2)


class TestBroken:
    async def test_a_reset_that_never_ran_is_no_attempt(self) -> None:
        async with Hall() as hall:
            await healthy(hall, remediation=ONLY_RESET)
            await sick(hall)
            seen = set()
            for _ in range(8):
                assert kinds(hall) == ["reset"]
                seen |= set(hall.works())
                await breaks(hall)
                await wait(hall, 930)
            assert len(seen) == 8, "each is another pod"
            assert (hall.state(BLADE), attempts(hall)) == ("Repairing", 1)
            await finish(hall, "reset")
            await clean(hall)
            await wait(hall, CLEAR_AFTER_S + 60)
            assert hall.state(BLADE) == "Healthy"

    async def test_one_follows_after_a_pause_that_grows_and_people_are_told(self) -> None:
        async with Hall() as hall:
            await healthy(hall, remediation=ONLY_RESET)
            await sick(hall)
            first = hall.works()
            await breaks(hall)
            assert hall.works() == first
            assert "(ErrImagePull)" in message(hall)
            assert [note for note in told(hall) if "says nothing of the blade" in note]
            await wait(hall, 61)
            second = hall.works()
            assert second != first
            await breaks(hall)
            await wait(hall, 61)
            assert hall.works() == second
            await wait(hall, 61)
            assert hall.works() != second

    async def test_it_may_break_for_weeks(self) -> None:
        async with Hall() as hall:
            await healthy(hall, remediation=ONLY_RESET)
            await sick(hall)
            raw = copy.deepcopy(hall.blade(BLADE))
            raw["status"]["repair"]["broken"] = 5000
            hall.api.put(BLADES, raw)
            before = hall.works()
            await breaks(hall)
            assert hall.works() == before
            await wait(hall, 930)
            assert hall.works() != before
            assert hall.blade(BLADE)["status"]["repair"]["broken"] == 5001

    async def test_a_reboot_follows_where_resets_break(self) -> None:
        async with Hall() as hall:
            await healthy(hall)
            await sick(hall)
            for _ in range(3):
                (pod,) = hall.works()
                hall.finish(pod, 255, reason="In use by another client")
                await hall.settle()
                await wait(hall, 330)
            assert (kinds(hall), attempts(hall)) == (["reboot"], 1)
            await clean(hall, boot="boot-2")
            await wait(hall, CLEAR_AFTER_S + 60)
            assert hall.state(BLADE) == "Healthy"

    async def test_burn_ins_that_never_start_condemn_nobody(self) -> None:
        async with Hall() as hall:
            pool(hall, qualification=QUALIFICATION)
            names = [f"gpu-{number}" for number in range(4)]
            for name in names:
                hall.node(name)
            await hall.settle()
            for name in names:
                await clean(hall, name)
            await wait(hall, 61, *names)
            for name in names:
                (pod,) = hall.works(name)
                hall.breaks(pod, "ContainerCreating")
            await wait(hall, 630, *names)
            assert {hall.state(name) for name in names} == {"Qualifying"}
            assert all("-1" in pod for pod in hall.works()), "tried again"

    async def test_people_are_told_of_a_burn_in_that_breaks_and_why(self) -> None:
        async with Hall() as hall:
            pool(hall, qualification=QUALIFICATION)
            hall.node(BLADE)
            await hall.settle()
            await clean(hall)
            await wait(hall, 61)
            for _ in range(3):
                await breaks(hall)
                await hall.advance(1)
            assert "says nothing of the blade; ErrImagePull" in message(hall)
            (note,) = [note for note in told(hall) if "says nothing of the blade" in note]
            assert "ErrImagePull" in note
            await wait(hall, 570)
            assert "ErrImagePull" in message(hall)
            assert len([one for one in told(hall) if "says nothing" in one]) == 1

    async def test_people_read_what_a_burn_in_waits_for(self) -> None:
        async with Hall() as hall:
            await burning_in(hall)
            assert message(hall) == "burnIn starts"
            (pod,) = hall.works()
            hall.breaks(pod, "ContainerCreating")
            await hall.settle()
            assert message(hall) == "burnIn waits for its container: ContainerCreating"
            hall.starts(pod)
            await hall.settle()
            assert message(hall) == "burnIn runs"

    async def test_our_own_burn_in_that_outlives_its_time_condemns_nobody(self) -> None:
        command = ["python", "-m", "tramontane.health.burnin", "--duration=30m"]
        container = {"name": "test", "image": "registry.example/checks:1", "command": command}
        async with Hall() as hall:
            await burning_in(hall, template={"spec": {"containers": [container]}}, timeout="30m")
            for _ in range(3):
                (pod,) = hall.works()
                hall.starts(pod)
                await wait(hall, 1860)
            assert hall.state(BLADE) == "Qualifying"
            (note,) = [note for note in told(hall) if "says nothing of the blade" in note]
            assert "no end within 30m; `timeout` must be 10m longer" in note

    async def test_a_burn_in_is_not_made_while_another_pod_has_the_gpus(self) -> None:
        async with Hall() as hall:
            await burning_in(hall)
            (first,) = hall.works()
            raw = copy.deepcopy(hall.api.objects[PODS][f"{SYSTEM}/{first}"])
            hall.breaks(first, "ErrImagePull")
            raw["metadata"] |= {"name": "last", "deletionTimestamp": utc(hall.now)}
            hall.api.put(PODS, raw)
            await hall.settle()
            await hall.advance(1)
            assert hall.works() == ["last"], "it has its grace period"
            hall.api.drop(PODS, f"{SYSTEM}/last")
            await hall.settle()
            (second,) = hall.works()
            assert second not in {first, "last"}


async def burning_in(hall: Hall, **burn_in: Any) -> None:
    asked = {"template": TEMPLATE, "timeout": "10m", **burn_in}
    pool(hall, qualification={"soak": "1s", "burnIn": asked})
    hall.node(BLADE)
    await hall.settle()
    await clean(hall)
    await wait(hall, 2)


class TestUnderWork:
    async def test_no_second_attempt_begins_under_work_that_came_meanwhile(self) -> None:
        async with Hall() as hall:
            await healthy(hall)
            await sick(hall)
            hall.gang("debug", BLADE)
            await hall.settle()
            assert kinds(hall) == ["reset"], "one that runs is not stopped"
            await finish(hall, "reset", 1)
            assert (hall.state(BLADE), hall.works()) == ("Draining", [])
            hall.api.drop(GANGS, "ml/debug")
            await hall.settle()
            assert (hall.state(BLADE), kinds(hall)) == ("Repairing", ["reboot"])


class TestGpu:
    async def test_a_reset_is_of_the_gpu_that_asks_now_and_of_all_where_several_do(self) -> None:
        def asked(hall: Hall) -> str:
            (name,) = hall.works()
            env = hall.api.objects[PODS][f"{SYSTEM}/{name}"]["spec"]["containers"][0]["env"]
            (found,) = [one["value"] for one in env if one["name"] == "TRAMONTANE_GPU"]
            return str(found)

        async with Hall() as hall:
            await healthy(hall, remediation=ONLY_RESET)
            await sick(hall, gpu=3)
            assert asked(hall) == "3"
            await finish(hall, "reset")
            await clean(hall)
            await wait(hall, 31)
            await sick(hall, gpu=5)
            assert asked(hall) == "5"
        async with Hall() as hall:
            await healthy(hall, remediation=ONLY_RESET)
            hall.report(BLADE, *(reset_of(hall, gpu) for gpu in (3, 5)))
            await hall.settle()
            assert asked(hall) == "all"


class TestSwitch:
    async def test_to_reboot_while_a_reset_runs(self) -> None:
        async with Hall() as hall:
            await healthy(hall)
            await sick(hall)
            pool(hall, remediation=BY_REBOOT)
            await finish(hall, "reset")
            await clean(hall)
            await wait(hall, 60)
            assert (hall.state(BLADE), kinds(hall)) == ("Repairing", ["reboot"])
            await wait(hall, CLEAR_AFTER_S + 60)
            assert hall.state(BLADE) == "Repairing", "clean, but on the boot of the fault"
            await clean(hall, boot="boot-2")
            await wait(hall, CLEAR_AFTER_S + 60)
            assert hall.state(BLADE) == "Healthy"

    async def test_back_to_reset_while_a_person_is_waited_for(self) -> None:
        async with Hall() as hall:
            await healthy(hall, remediation={**ONLY_RESET, "resetBy": "Reboot"})
            await sick(hall)
            assert "waits for a person to reboot it" in message(hall)
            assert [note for note in told(hall) if "waits for a person to reboot it" in note]
            pool(hall, remediation=ONLY_RESET)
            await wait(hall, 30)
            assert kinds(hall) == ["reset"]


class TestTold:
    async def test_what_a_person_must_look_at_is_said_in_an_event(self) -> None:
        async with Hall() as hall:
            await healthy(hall)
            await sick(hall, code="xid-54", action="Inspect")
            assert [note for note in told(hall) if "a person must look, then: tramontane" in note]

    @pytest.mark.parametrize("more", [{}, {"qualification": QUALIFICATION}])
    async def test_an_agent_that_never_speaks_is_told_of_once(self, more: dict[str, Any]) -> None:
        async with Hall() as hall:
            pool(hall, **more)
            hall.node(BLADE)
            await hall.settle()
            await hall.advance(60)
            assert not [note for note in told(hall) if "has not spoken" in note]
            for _ in range(4):
                await hall.advance(31)
            assert (hall.state(BLADE), hall.why(BLADE)) == ("Unknown", "AgentSilent")
            assert len([note for note in told(hall) if "has not spoken since it came" in note]) == 1


class TestOperatorsDryRun:
    async def test_a_hall_that_runs_is_neither_tainted_nor_tested(self) -> None:
        async with Hall(dry_run=True) as hall:
            pool(hall, qualification=QUALIFICATION)
            hall.node(BLADE)
            await hall.settle()
            assert hall.taints(BLADE) == {}
            await clean(hall)
            assert (hall.state(BLADE), hall.taints(BLADE)) == ("Healthy", {})
            await wait(hall, 120)
            assert hall.works() == []


def reset_of(hall: Hall, gpu: int) -> dict[str, Any]:
    return fault(at=hall.now, code="xid-95", action="Reset", gpu=gpu, bootID="boot-1")
