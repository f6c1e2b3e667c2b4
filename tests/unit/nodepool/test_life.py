"""A blade from its delivery through qualification, faults and repair to work again, or to RMA."""

import copy

import pytest

from tramontane.api.clock import utc
from tramontane.controllers.app import default_reset
from tramontane.kube.resources import NODEPOOLS, PODS
from unit.nodepool.hall import SYSTEM, Hall
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


class TestQualification:
    async def test_a_new_blade_soaks_burns_in_and_then_works(self) -> None:
        async with Hall() as hall:
            pool(hall, qualification=QUALIFICATION)
            hall.node(BLADE)
            await hall.settle()
            assert (hall.state(BLADE), hall.taints(BLADE)) == (
                "Delivered",
                {"tramontane.dev/blade": "Delivered"},
            )
            await clean(hall)
            assert (hall.state(BLADE), hall.works()) == ("Qualifying", [])
            await wait(hall, 61)
            assert hall.state(BLADE) == "Qualifying"
            (pod,) = hall.works(BLADE)
            raw = hall.api.objects[PODS][f"{SYSTEM}/{pod}"]
            assert raw["spec"]["nodeName"] == BLADE
            assert raw["metadata"]["labels"]["tramontane.dev/work"] == "burnIn"
            await finish(hall, "burnin", value=812.0, unit="TFLOP/s")
            assert (hall.state(BLADE), hall.taints(BLADE), hall.works()) == ("Healthy", {}, [])
            results = hall.blade(BLADE)["status"]["qualification"]["results"]
            assert [(one["step"], one["passed"]) for one in results] == [
                ("soak", True),
                ("burnIn", True),
            ]
            assert results[1]["value"] == "812.00"

    async def test_a_fault_starts_the_soak_anew(self) -> None:
        async with Hall() as hall:
            pool(hall, qualification={"soak": "60s"})
            hall.node(BLADE)
            await hall.settle()
            await clean(hall)
            await wait(hall, 50)
            await sick(hall, severity="Degraded", action="None")
            await wait(hall, 50)
            assert hall.state(BLADE) == "Qualifying"
            await clean(hall)
            await wait(hall, 50)
            assert hall.state(BLADE) == "Qualifying"
            await wait(hall, CLEAR_AFTER_S + 90)
            assert hall.state(BLADE) == "Healthy"

    async def test_who_fails_the_burn_in_waits_for_a_person(self) -> None:
        async with Hall() as hall:
            pool(hall, qualification=QUALIFICATION)
            hall.node(BLADE)
            await hall.settle()
            await clean(hall)
            await wait(hall, 61)
            await finish(hall, "burnin", 1, reason="GPU 3: 211 GB/s, must be 800 or more")
            assert (hall.state(BLADE), hall.why(BLADE)) == ("Quarantined", "BurnInFailed")
            assert "GPU 3: 211 GB/s" in message(hall)
            await wait(hall, 3 * CLEAR_AFTER_S)
            assert hall.state(BLADE) == "Quarantined", "time proves nothing"
            hall.spec(BLADE, release={"reason": "new GPU", "by": "anna", "at": utc(hall.now)})
            await hall.settle()
            assert hall.state(BLADE) == "Requalifying"
            await wait(hall, 61)
            await finish(hall, "burnin")
            assert hall.state(BLADE) == "Healthy"

    async def test_a_person_may_skip_the_burn_in(self) -> None:
        async with Hall() as hall:
            pool(hall, qualification=QUALIFICATION)
            hall.node(BLADE)
            await hall.settle()
            await clean(hall)
            await wait(hall, 61)
            await finish(hall, "burnin", 1)
            await wait(hall, 30)
            word = {"reason": "known", "by": "anna", "at": utc(hall.now), "skipBurnIn": True}
            hall.spec(BLADE, release=word)
            await hall.settle()
            assert (hall.state(BLADE), hall.works()) == ("Healthy", [])

    async def test_a_checker_that_breaks_condemns_nobody(self) -> None:
        async with Hall() as hall:
            pool(hall, qualification=QUALIFICATION)
            hall.node(BLADE)
            await hall.settle()
            await clean(hall)
            await wait(hall, 61)
            for _ in range(3):
                tried = hall.works()
                await finish(hall, "burnin", 2, reason="out of memory")
            assert (hall.state(BLADE), hall.works()) == ("Qualifying", tried), "to be looked at"
            assert "says nothing of the blade; out of memory" in message(hall)
            await wait(hall, 601)
            await finish(hall, "burnin")
            assert hall.state(BLADE) == "Healthy"

    async def test_a_burn_in_that_never_ends_has_failed(self) -> None:
        async with Hall() as hall:
            pool(hall, qualification=QUALIFICATION)
            hall.node(BLADE)
            await hall.settle()
            await clean(hall)
            await wait(hall, 61)
            hall.starts(*hall.works())
            await wait(hall, 601)
            assert (hall.state(BLADE), hall.why(BLADE)) == ("Quarantined", "BurnInFailed")
            assert "no end after 10m" in message(hall)
            assert hall.works() == []

    async def test_a_blade_whose_agent_never_speaks_does_not_stay_delivered(self) -> None:
        async with Hall() as hall:
            pool(hall, qualification=QUALIFICATION)
            hall.node(BLADE)
            await hall.settle()
            await hall.advance(91)
            assert (hall.state(BLADE), hall.why(BLADE)) == ("Unknown", "AgentSilent")

    async def test_what_has_never_worked_uses_no_budget(self) -> None:
        async with Hall() as hall:
            pool(hall, qualification=QUALIFICATION, remediation={"maxUnavailable": 1})
            names = [f"gpu-{number}" for number in range(4)]
            for name in names:
                hall.node(name)
            await hall.settle()
            for name in names:
                await sick(hall, name)
            assert {hall.state(name) for name in names} <= {"Quarantined", "Repairing"}
            assert hall.pool_condition("paris", "BudgetExhausted")["status"] == "False"

    async def test_a_rule_of_the_pool_may_make_light_of_a_failed_burn_in(self) -> None:
        async with Hall() as hall:
            light = {"match": {"code": "burn-in-failed"}, "severity": "Info"}
            health = {"clearAfter": "10m", "unknownAfter": "90s", "rules": [light]}
            pool(hall, qualification=QUALIFICATION, health=health)
            hall.node(BLADE)
            await hall.settle()
            await clean(hall)
            await wait(hall, 61)
            await finish(hall, "burnin", 1, reason="GPU 3: 790 GB/s, must be 800 or more")
            assert (hall.state(BLADE), hall.severity(BLADE)) == ("Healthy", "Info")
            assert "GPU 3: 790 GB/s" in message(hall)
            assert hall.works() == []


class TestRepair:
    async def test_reset_clean_and_back(self) -> None:
        async with Hall() as hall:
            await healthy(hall)
            await sick(hall)
            assert hall.state(BLADE) == "Repairing"
            assert [pod.split("-")[0] for pod in hall.works()] == ["reset"]
            await finish(hall, "reset")
            await clean(hall)
            assert (hall.state(BLADE), hall.works()) == ("Repairing", [])
            await wait(hall, CLEAR_AFTER_S - 60)
            assert hall.state(BLADE) == "Repairing"
            await wait(hall, 90)
            assert (hall.state(BLADE), hall.taints(BLADE)) == ("Healthy", {})
            (incident,) = hall.blade(BLADE)["status"]["incidents"]
            assert incident["outcome"].startswith("reset, back in 10m")
            assert "repair" not in hall.blade(BLADE)["status"]

    async def test_gone_by_itself_is_not_repaired(self) -> None:
        async with Hall() as hall:
            await healthy(hall, remediation={"maxUnavailable": 2})
            await sick(hall)
            assert "remediation.reset" in message(hall)
            await clean(hall)
            await wait(hall, 3 * CLEAR_AFTER_S)
            assert hall.state(BLADE) == "Repairing"
            await clean(hall, boot="boot-2")
            await wait(hall, CLEAR_AFTER_S + 30)
            assert hall.state(BLADE) == "Healthy"

    async def test_the_ladder_goes_from_reset_to_reboot_to_rma(self) -> None:
        async with Hall() as hall:
            await healthy(hall)
            await sick(hall)
            await finish(hall, "reset")
            await wait(hall, 31)
            await sick(hall)
            assert [pod.split("-")[0] for pod in hall.works()] == ["reboot"]
            await sick(hall, boot="boot-2")
            await wait(hall, 31)
            assert (hall.state(BLADE), hall.why(BLADE)) == ("RMA", "RepairFailed")
            assert hall.works() == []
            await clean(hall, boot="boot-3")
            await wait(hall, 3 * CLEAR_AFTER_S)
            assert hall.state(BLADE) == "RMA", "a person must say that it was replaced"
            hall.spec(BLADE, release={"reason": "new board", "by": "anna", "at": utc(hall.now)})
            await wait(hall, 30)
            assert hall.state(BLADE) == "Healthy"

    async def test_after_a_repair_it_qualifies_anew(self) -> None:
        async with Hall() as hall:
            await healthy(hall)
            pool(hall, qualification=QUALIFICATION)
            await sick(hall, action="Reboot", code="xid-79")
            assert [pod.split("-")[0] for pod in hall.works()] == ["reboot"]
            await clean(hall, boot="boot-2")
            await wait(hall, CLEAR_AFTER_S + 30)
            assert hall.state(BLADE) == "Requalifying"
            await wait(hall, 61)
            await finish(hall, "burnin")
            assert hall.state(BLADE) == "Healthy"

    @pytest.mark.parametrize("action", ["Reset", "Reboot"])
    async def test_by_reboots_only_it_comes_back_on_a_new_boot_and_tested(
        self, action: str
    ) -> None:
        async with Hall() as hall:
            await healthy(hall)
            remediation = {"maxUnavailable": 2, "resetBy": "Reboot", **REPAIR}
            pool(hall, qualification=QUALIFICATION, remediation=remediation)
            await sick(hall, action=action)
            assert [pod.split("-")[0] for pod in hall.works()] == ["reboot"]
            await finish(hall, "reboot")
            await clean(hall)
            await wait(hall, CLEAR_AFTER_S + 60)
            assert hall.state(BLADE) == "Repairing", "the pod has ended, the boot is the old one"
            await clean(hall, boot="boot-2")
            await wait(hall, CLEAR_AFTER_S - 60)
            assert hall.state(BLADE) == "Repairing", "not clean for so long yet"
            await wait(hall, 90)
            assert hall.state(BLADE) == "Requalifying"
            await wait(hall, 61)
            await finish(hall, "burnin")
            assert hall.state(BLADE) == "Healthy"

    async def test_a_pool_without_a_pod_that_resets_has_the_operator_s(self) -> None:
        secrets = {"TRAMONTANE_IMAGE": "mirror.example/agent:1", "TRAMONTANE_PULL_SECRETS": "a,b"}
        async with Hall(reset=default_reset(secrets)) as hall:
            await healthy(hall, remediation={"maxUnavailable": 2})
            await sick(hall)
            (name,) = hall.works()
            spec = hall.api.objects[PODS][f"{SYSTEM}/{name}"]["spec"]
            assert spec["imagePullSecrets"] == [{"name": "a"}, {"name": "b"}]
            (container,) = spec["containers"]
            assert container["image"] == "mirror.example/agent:1"
            assert {"name": "TRAMONTANE_GPU", "value": "3"} in container["env"]
            await finish(hall, "reset")
            await clean(hall)
            await wait(hall, CLEAR_AFTER_S + 30)
            assert hall.state(BLADE) == "Healthy"

    async def test_by_reboots_only_and_without_a_pod_a_person_reboots_it(self) -> None:
        async with Hall() as hall:
            remediation = {"maxUnavailable": 2, "resetBy": "Reboot", "reset": REPAIR["reset"]}
            await healthy(hall, remediation=remediation)
            await sick(hall)
            assert (hall.state(BLADE), hall.works()) == ("Repairing", [])
            assert "waits for a person to reboot it: NodePool spec.remediation.reboot" in message(
                hall
            )

    async def test_who_was_given_up_stays_so_when_its_node_is_back(self) -> None:
        async with Hall() as hall:
            await healthy(hall)
            await sick(hall, action="Replace")
            await clean(hall)
            await wait(hall, CLEAR_AFTER_S + 60)
            assert hall.state(BLADE) == "RMA"
            hall.readiness(BLADE, "False")
            await wait(hall, 120)
            assert hall.state(BLADE) == "Lost"
            hall.readiness(BLADE, "True")
            await clean(hall, boot="boot-2")
            await wait(hall, CLEAR_AFTER_S + 60)
            assert hall.state(BLADE) == "RMA"

    async def test_a_node_that_is_lost_meanwhile_is_not_reset_twice(self) -> None:
        async with Hall() as hall:
            await healthy(hall)
            await sick(hall)
            (pod,) = hall.works()
            hall.readiness(BLADE, "False")
            await wait(hall, 60)
            hall.readiness(BLADE, "True")
            await wait(hall, 60)
            assert hall.works() == [pod]
            assert hall.api.writes.count(("delete", "pods", pod)) == 0

    async def test_a_reboot_meanwhile_is_that_attempt_and_no_other(self) -> None:
        async with Hall() as hall:
            await healthy(hall)
            await sick(hall)
            (pod,) = hall.works()
            hall.finish(pod, 137)
            await clean(hall, boot="boot-2")
            assert hall.blade(BLADE)["status"]["repair"]["attempts"] == 1
            await wait(hall, CLEAR_AFTER_S + 60)
            assert hall.state(BLADE) == "Healthy"

    async def test_what_its_tests_bring_into_the_report_does_not_end_them(self) -> None:
        async with Hall() as hall:
            await healthy(hall)
            pool(hall, qualification=QUALIFICATION)
            await sick(hall)
            await finish(hall, "reset")
            await clean(hall)
            await wait(hall, CLEAR_AFTER_S + 60)
            await wait(hall, 61)
            (pod,) = hall.works()
            await sick(hall, code="clocks-thermal", severity="Info", action="None")
            await wait(hall, 60)
            assert (hall.state(BLADE), hall.works()) == ("Requalifying", [pod])

    async def test_work_leaves_before_the_repair(self) -> None:
        async with Hall() as hall:
            await healthy(hall)
            hall.guest("llama-0", BLADE)
            await sick(hall)
            assert (hall.state(BLADE), hall.works()) == ("Draining", [])
            hall.api.drop(PODS, "ml/llama-0")
            await hall.settle()
            assert hall.state(BLADE) == "Repairing"
            assert hall.works()

    async def test_what_a_person_must_see_is_left_alone(self) -> None:
        async with Hall() as hall:
            await healthy(hall)
            await sick(hall, action="Inspect", code="xid-54")
            assert (hall.state(BLADE), hall.works()) == ("Quarantined", [])
            assert "a person must look" in message(hall)

    async def test_a_hold_stops_a_repair(self) -> None:
        async with Hall() as hall:
            await healthy(hall)
            await sick(hall)
            assert hall.works()
            hall.spec(BLADE, hold={"reason": "fan", "by": "anna", "at": utc(hall.now)})
            await hall.settle()
            assert (hall.state(BLADE), hall.works()) == ("Quarantined", [])


class TestSuspect:
    async def test_what_heals_in_time_stays_in_the_pool(self) -> None:
        async with Hall() as hall:
            await healthy(hall)
            await sick(hall, severity="Degraded", action="Drain", code="pcie-width")
            assert (hall.state(BLADE), hall.severity(BLADE)) == ("Suspect", "Degraded")
            await wait(hall, 300)
            await clean(hall)
            await wait(hall, CLEAR_AFTER_S + 30)
            assert hall.state(BLADE) == "Healthy"

    async def test_what_does_not_heal_is_quarantined(self) -> None:
        async with Hall() as hall:
            await healthy(hall)
            await sick(hall, severity="Degraded", action="Inspect", code="pcie-width")
            await wait(hall, CLEAR_AFTER_S - 60)
            assert hall.state(BLADE) == "Suspect"
            await wait(hall, 90)
            assert (hall.state(BLADE), hall.severity(BLADE)) == ("Quarantined", "Degraded")

    async def test_a_remapped_row_waits_for_the_end_of_the_job(self) -> None:
        async with Hall() as hall:
            await healthy(hall)
            hall.gang("llama", BLADE)
            await sick(hall, severity="Degraded", action="Reset", code="xid-63")
            await wait(hall, 5 * CLEAR_AFTER_S)
            assert hall.state(BLADE) == "Suspect", "the job is not disturbed"
            hall.gang("llama", "gpu-2")
            await hall.settle()
            assert hall.state(BLADE) == "Repairing"
            assert [pod.split("-")[0] for pod in hall.works()] == ["reset"]


async def test_flapping_goes_out_once_and_stays_out() -> None:
    async with Hall() as hall:
        await healthy(hall)
        seen = []
        for _ in range(30):
            await sick(hall, action="Drain")
            seen.append(hall.state(BLADE))
            await wait(hall, 60)
            await clean(hall)
            seen.append(hall.state(BLADE))
            await wait(hall, 60)
        assert set(seen) == {"Quarantined"}
        assert len(hall.blade(BLADE)["status"]["incidents"]) == 1


async def test_one_that_comes_back_again_and_again_waits_for_a_person() -> None:
    async with Hall() as hall:
        await healthy(hall, health={"clearAfter": "1m", "unknownAfter": "90s"})
        for number in range(3):
            await sick(hall, action="Drain", boot=f"boot-{number}")
            await clean(hall, boot=f"boot-{number}")
            await wait(hall, 90)
        assert (hall.state(BLADE), hall.why(BLADE)) == ("Quarantined", "Flapping")
        await wait(hall, 3600)
        assert hall.state(BLADE) == "Quarantined"
        hall.spec(BLADE, release={"reason": "new cable", "by": "anna", "at": utc(hall.now)})
        await wait(hall, 30)
        assert hall.state(BLADE) == "Healthy"


async def test_a_third_of_the_pool_opens_the_breaker_and_the_rest_works_on() -> None:
    async with Hall() as hall:
        pool(hall, remediation={"maxUnavailable": "100%", "breaker": {"threshold": "30%"}})
        names = [f"gpu-{number:02}" for number in range(20)]
        for name in names:
            hall.node(name)
        await hall.settle()
        for name in names:
            await clean(hall, name)
        for name in names[:10]:
            hall.now += 3
            await sick(hall, name)
        out = [name for name in names if hall.state(name) != "Healthy"]
        assert len(out) == 6, "30% of 20"
        assert {hall.why(name) for name in names[6:10]} == {"BreakerOpen"}
        condition = hall.pool_condition("paris", "BreakerOpen")
        assert condition["status"] == "True"
        assert "tramontane breaker close paris" in condition["message"]
        await wait(hall, 7200, *names)
        assert len([name for name in names if hall.state(name) != "Healthy"]) == 6
        raw = copy.deepcopy(hall.api.objects[NODEPOOLS]["paris"])
        raw["metadata"]["annotations"] = {"tramontane.dev/breaker-closed": utc(hall.now + 1)}
        hall.api.put(NODEPOOLS, raw)
        hall.now += 2
        await hall.advance(0.0)
        await wait(hall, 30, *names)
        assert len([name for name in names if hall.state(name) != "Healthy"]) == 10


class TestCollective:
    async def qualify(self, hall: Hall, names: list[str], bad: set[str]) -> int:
        """Play the groups until all blades are decided; return how many rounds that took."""
        asked = {"template": TEMPLATE, "groupSize": 8, "minBandwidth": 300, "timeout": "5m"}
        pool(hall, qualification={"soak": "1s", "collective": asked})
        for name in names:
            hall.node(name)
        await hall.settle()
        for name in names:
            hall.report(name)
        await hall.settle()
        await wait(hall, 2, *names)
        rounds = 0
        for _ in range(40):
            await wait(hall, 2, *names)
            pods = [raw for raw in hall.api.objects[PODS].values() if "status" not in raw]
            if not any(hall.state(name) == "Qualifying" for name in names):
                return rounds
            if not pods:
                continue
            rounds += 1
            groups: dict[str, set[str]] = {}
            for raw in pods:
                group = raw["metadata"]["labels"]["tramontane.dev/group"]
                groups.setdefault(group, set()).add(raw["spec"]["nodeName"])
            assert sum(map(len, groups.values())) == len(set().union(*groups.values()))
            for raw in copy.deepcopy(pods):
                group = raw["metadata"]["labels"]["tramontane.dev/group"]
                slow = groups[group] & bad
                hall.finish(raw["metadata"]["name"], value=120.0 if slow else 341.5, unit="GB/s")
            await hall.settle()
        raise AssertionError("no end")

    @pytest.mark.parametrize("bad", [set(), {"gpu-05"}, {"gpu-00", "gpu-17"}], ids=len)
    async def test_the_bad_ones_are_found_and_only_those(self, bad: set[str]) -> None:
        async with Hall() as hall:
            names = [f"gpu-{number:02}" for number in range(24)]
            rounds = await self.qualify(hall, names, bad)
            condemned = {name for name in names if hall.why(name) == "CollectiveFailed"}
            assert condemned == bad
            assert {hall.state(name) for name in set(names) - bad} == {"Healthy"}
            assert rounds <= 3

    async def test_one_blade_is_tested_with_others_that_work(self) -> None:
        async with Hall() as hall:
            names = [f"gpu-{number:02}" for number in range(8)]
            await self.qualify(hall, names, set())
            hall.node("gpu-new")
            await hall.settle()
            await clean(hall, "gpu-new")
            for pods in (2, 2, 4):  # at last those with whom it failed are tested together, too
                assert hall.state("gpu-new") == "Qualifying"
                for _ in range(3):
                    await wait(hall, 2, *names, "gpu-new")
                assert len(hall.works()) == pods
                (new,) = hall.works("gpu-new")
                group = new.removeprefix("collective-gpu-new-")
                for pod in hall.works():
                    hall.finish(pod, value=120.0 if pod.endswith(group) else 341.5)
                await hall.settle()
            for _ in range(3):
                await wait(hall, 2, *names, "gpu-new")
            assert hall.why("gpu-new") == "CollectiveFailed"
            assert {hall.state(name) for name in names} == {"Healthy"}


async def test_idle_blades_are_tested_again_and_give_way_to_work() -> None:
    async with Hall() as hall:
        asked = {"soak": "1s", "burnIn": {"template": TEMPLATE}, "repeatIdleEvery": "1h"}
        pool(hall, qualification=asked)
        hall.node(BLADE)
        await hall.settle()
        await clean(hall)
        await wait(hall, 2)
        await finish(hall, "burnin")
        assert (hall.state(BLADE), hall.works()) == ("Healthy", [])
        await wait(hall, 3660)
        assert (hall.state(BLADE), hall.taints(BLADE)) == ("Healthy", {})
        assert [pod.split("-")[0] for pod in hall.works()] == ["burnin"]
        hall.gang("llama", BLADE)
        await hall.settle()
        assert (hall.state(BLADE), hall.works()) == ("Healthy", [])
        hall.gang("llama", "gpu-2")
        await wait(hall, 30)
        await finish(hall, "burnin", 1, reason="wrong product on GPU 5")
        assert (hall.state(BLADE), hall.why(BLADE)) == ("Quarantined", "BurnInFailed")
