"""The controller as a whole, on an API server in memory."""

from typing import Any

import pytest

from tramontane.api.clock import utc
from tramontane.api.names import LABEL_BLADE_STATE, LABEL_POOL, LABEL_TRANCHE, TAINT_BLADE
from tramontane.kube.resources import BLADES, GANGS, NODEPOOLS, NODES, Resource
from unit.nodepool.hall import NOW, Hall, fault


async def healthy(hall: Hall, *names: str, **spec: Any) -> None:
    """Give the hall a pool of healthy blades."""
    hall.pool(**spec)
    for name in names:
        hall.node(name)
    await hall.settle()
    for name in names:
        hall.report(name)
    await hall.settle()
    assert {hall.state(name) for name in names} == {"Healthy"}


async def test_a_new_node_is_unknown_until_its_agent_has_reported() -> None:
    async with Hall() as hall:
        hall.pool()
        hall.node("gpu-1", taints=[{"key": "theirs", "effect": "NoExecute"}])
        await hall.settle()
        assert (hall.state("gpu-1"), hall.why("gpu-1")) == ("Unknown", "AgentSilent")
        assert hall.taints("gpu-1") == {"theirs": "", TAINT_BLADE: "Unknown"}
        assert hall.labels("gpu-1")[LABEL_POOL] == "paris"
        writes = len(hall.api.writes)
        hall.report("gpu-1")
        await hall.settle()
        assert hall.state("gpu-1") == "Healthy"
        assert hall.taints("gpu-1") == {"theirs": ""}
        assert hall.labels("gpu-1")[LABEL_BLADE_STATE] == "Healthy"
        assert hall.condition("gpu-1") == ("True", "Healthy")
        mine = [what for _, what, name in hall.api.writes[writes:] if name == "gpu-1"]
        assert mine[0] == "nodes"
        assert sorted(mine) == ["blades/status", "nodes", "nodes/status"]


async def test_what_is_as_it_must_be_is_not_written() -> None:
    async with Hall() as hall:
        await healthy(hall, "gpu-1", "gpu-2")
        await hall.advance(2.0)
        writes = len(hall.api.writes)
        await hall.advance(2.0)
        assert hall.api.writes[writes:] == []


async def test_a_fatal_fault_marks_the_node_before_all_else() -> None:
    async with Hall() as hall:
        await healthy(hall, *(f"gpu-{i}" for i in range(10)))
        hall.gang("llama", "gpu-3")
        writes = len(hall.api.writes)
        hall.report("gpu-3", fault())
        await hall.settle()
        mine = [what for _, what, name in hall.api.writes[writes:] if name == "gpu-3"]
        assert mine[0] == "nodes"
        assert mine.count("blades/status") == 2, "Quarantined, and Draining while it is used"
        assert (hall.state("gpu-3"), hall.why("gpu-3")) == ("Draining", "HardwareFault")
        assert hall.taints("gpu-3") == {TAINT_BLADE: "Draining"}
        assert hall.condition("gpu-3") == ("False", "xid-79")
        (incident,) = hall.blade("gpu-3")["status"]["incidents"]
        assert incident["code"] == "xid-79"
        assert (incident["from"], incident["to"]) == ("Healthy", "Quarantined")
        assert incident["jobs"] == ["ml/llama"]
        assert ("gpu-3", "HardwareFault") in [said[:2] for said in hall.recorder.said]


async def test_a_fault_clears_after_its_window_and_not_before() -> None:
    async with Hall() as hall:
        await healthy(hall, "gpu-1")
        hall.report("gpu-1", fault())
        await hall.settle()
        await hall.advance(100.0)
        hall.report("gpu-1")
        await hall.settle()
        assert hall.state("gpu-1") == "Quarantined"
        for _ in range(19):
            await hall.advance(30.0)
            hall.beat("gpu-1")
            await hall.settle()
            assert hall.state("gpu-1") == "Quarantined"
        await hall.advance(30.0)
        assert (hall.state("gpu-1"), hall.why("gpu-1")) == ("Healthy", None)
        assert hall.taints("gpu-1") == {}
        assert hall.blade("gpu-1")["status"]["incidents"][0]["outcome"] == "clean for 10m"


async def test_a_reboot_in_between_does_not_shorten_the_window() -> None:
    async with Hall() as hall:
        await healthy(hall, "gpu-1")
        hall.report("gpu-1", fault())
        await hall.settle()
        hall.readiness("gpu-1", "False")
        await hall.settle()
        assert (hall.state("gpu-1"), hall.taints("gpu-1")) == ("Lost", {TAINT_BLADE: "Lost"})
        await hall.advance(200.0)
        hall.readiness("gpu-1", "True")
        hall.report("gpu-1", boot="boot-2")
        await hall.settle()
        assert (hall.state("gpu-1"), hall.why("gpu-1")) == ("Quarantined", "HardwareFault")


async def test_silence_is_unknown_and_a_beat_ends_it() -> None:
    async with Hall() as hall:
        await healthy(hall, "gpu-1")
        hall.kubelet("gpu-1")
        await hall.advance(89.0)
        hall.kubelet("gpu-1")
        await hall.advance(0.5)
        assert hall.state("gpu-1") == "Healthy"
        await hall.advance(0.5)
        assert (hall.state("gpu-1"), hall.severity("gpu-1")) == ("Unknown", "Unknown")
        hall.beat("gpu-1")
        await hall.settle()
        assert hall.state("gpu-1") == "Healthy"


async def test_agent_and_kubelet_silent_is_lost_though_the_node_looks_ready() -> None:
    async with Hall() as hall:
        await healthy(hall, "gpu-1")
        hall.kubelet("gpu-1")
        hall.beat("gpu-1")
        await hall.settle()
        await hall.advance(44.0)
        assert hall.state("gpu-1") == "Healthy"
        await hall.advance(1.0)
        assert (hall.state("gpu-1"), hall.why("gpu-1")) == ("Lost", "NodeNotReady")
        hall.beat("gpu-1")
        await hall.settle()
        assert hall.state("gpu-1") == "Healthy"


async def test_inventory_must_match_and_may_be_put_right_in_the_pool() -> None:
    async with Hall() as hall:
        await healthy(hall, "gpu-1", gpu={"count": 8, "product": "NVIDIA-H200", "memory": "141Gi"})
        await hall.advance(700.0)
        hall.report("gpu-1", product="NVIDIA H200", memory="80Gi")
        await hall.settle()
        assert hall.why("gpu-1") == "InventoryMismatch"
        message = hall.blade("gpu-1")["status"]["message"]
        assert "must have 141Gi of memory or more (got 80Gi)" in message
        await hall.advance(700.0)
        hall.beat("gpu-1")
        hall.pool(gpu={"count": 8, "memory": "80Gi"})
        await hall.settle()
        assert hall.state("gpu-1") == "Quarantined", "clean since now, not since the report"
        await hall.advance(601.0)
        hall.beat("gpu-1")
        await hall.settle()
        assert hall.state("gpu-1") == "Healthy"


async def test_over_budget_nothing_more_is_taken_and_room_is_used() -> None:
    names = [f"gpu-{i}" for i in range(8)]
    breaker = {"threshold": "100%"}
    async with Hall() as hall:
        await healthy(
            hall,
            *names,
            remediation={"maxUnavailable": "25%", "breaker": breaker},
            health={"clearAfter": "1s"},
        )
        for name in names[:4]:
            hall.report(name, fault())
        await hall.settle()
        out = [name for name in names if hall.state(name) == "Quarantined"]
        refused = [name for name in names if hall.why(name) == "BudgetExhausted"]
        assert (len(out), len(refused)) == (2, 2)
        assert all(hall.state(name) == "Healthy" for name in refused)
        assert all(hall.severity(name) == "Fatal" for name in refused)
        assert all(hall.taints(name) == {} for name in refused)
        await hall.advance(2.0)
        assert hall.pool_condition("paris", "BudgetExhausted")["status"] == "True"
        message = hall.pool_condition("paris", "BudgetExhausted")["message"]
        assert "2 blades should be quarantined" in message
        assert "at most 2 of 8" in message
        hall.report(out[0])
        await hall.advance(2.0)
        await hall.advance(2.0)
        assert hall.state(out[0]) == "Healthy"
        assert sum(hall.state(name) == "Quarantined" for name in names) == 2
        hall.pool(
            remediation={"maxUnavailable": 4, "breaker": breaker}, health={"clearAfter": "1s"}
        )
        await hall.settle()
        await hall.advance(2.0)
        assert sum(hall.state(name) == "Quarantined" for name in names) == 3
        await hall.advance(2.0)
        assert hall.pool_condition("paris", "BudgetExhausted")["status"] == "False"


@pytest.mark.parametrize(
    ("mode", "begins"), [("DryRun", "DryRun, would quarantine"), ("Off", "remediation is Off")]
)
async def test_a_pool_that_only_watches_taints_nothing(mode: str, begins: str) -> None:
    async with Hall() as hall:
        await healthy(hall, "gpu-1", remediation={"mode": mode})
        hall.report("gpu-1", fault())
        await hall.settle()
        status = hall.blade("gpu-1")["status"]
        assert (status["state"], status["verdict"]["severity"]) == ("Healthy", "Fatal")
        assert status["message"].startswith(begins)
        assert status["conditions"][0]["status"] == "False"
        assert hall.taints("gpu-1") == {}
        hall.readiness("gpu-1", "Unknown")
        await hall.settle()
        assert (hall.state("gpu-1"), hall.taints("gpu-1")) == ("Lost", {})


async def test_hold_and_release() -> None:
    async with Hall() as hall:
        await healthy(hall, "gpu-1", "gpu-2", remediation={"maxUnavailable": 0})
        hall.spec("gpu-1", hold={"reason": "fan", "by": "anna", "at": utc(NOW)})
        await hall.settle()
        assert (hall.state("gpu-1"), hall.why("gpu-1")) == ("Quarantined", "HeldByPerson")
        assert hall.taints("gpu-1") == {TAINT_BLADE: "Quarantined"}
        assert hall.condition("gpu-1") == ("True", "Healthy")
        hall.now += 5
        hall.spec("gpu-1", release={"reason": "new fan", "by": "ben", "at": utc(hall.now)})
        await hall.settle()
        assert hall.state("gpu-1") == "Healthy"
        (incident,) = hall.blade("gpu-1")["status"]["incidents"]
        assert incident["outcome"] == "hold ended"


async def test_a_release_ends_the_faults_before_it_and_not_those_after() -> None:
    async with Hall() as hall:
        await healthy(hall, "gpu-1")
        hall.report("gpu-1", fault())
        await hall.settle()
        assert hall.state("gpu-1") == "Quarantined"
        hall.now += 5
        hall.spec("gpu-1", release={"reason": "reseated", "by": "ben", "at": utc(hall.now)})
        await hall.settle()
        assert hall.state("gpu-1") == "Healthy"
        outcome = hall.blade("gpu-1")["status"]["incidents"][0]["outcome"]
        assert outcome == "released by ben: reseated"
        hall.now += 5
        hall.report("gpu-1", fault(at=hall.now))
        await hall.settle()
        assert hall.state("gpu-1") == "Quarantined"
        assert len(hall.blade("gpu-1")["status"]["incidents"]) == 2


async def test_two_pools_do_not_take_a_node_from_each_other() -> None:
    async with Hall() as hall:
        await healthy(hall, "gpu-1")
        hall.pool("lyon", {"matchExpressions": [{"key": "rack", "operator": "Exists"}]})
        await hall.settle()
        await hall.advance(2.0)
        assert hall.blade("gpu-1")["spec"]["pool"] == "paris"
        for pool in ("paris", "lyon"):
            stalled = hall.pool_condition(pool, "Stalled")
            assert (stalled["status"], stalled["reason"]) == ("True", "Misconfigured")
            assert "got lyon and paris for gpu-1" in stalled["message"]
        hall.api.drop(NODEPOOLS, "paris")
        await hall.settle()
        await hall.advance(2.0)
        assert hall.blade("gpu-1")["spec"]["pool"] == "lyon"
        assert hall.labels("gpu-1")[LABEL_POOL] == "lyon"
        assert hall.pool_condition("lyon", "Stalled")["status"] == "False"


async def test_a_pool_that_matches_nothing_says_so_with_its_selector() -> None:
    async with Hall() as hall:
        hall.node("gpu-1")
        hall.pool("lyon", {"matchLabels": {"gpu": "b300"}})
        await hall.settle()
        ready = hall.pool_condition("lyon", "Ready")
        assert (ready["status"], ready["reason"]) == ("False", "Misconfigured")
        assert 'got "gpu=b300"' in ready["message"]


async def test_a_missing_topology_label_is_named() -> None:
    async with Hall() as hall:
        levels = [{"name": "block", "label": "block"}, {"name": "rack", "label": "rack"}]
        await healthy(hall, "gpu-1", topology={"levels": levels})
        await hall.advance(2.0)
        message = hall.pool_condition("paris", "Stalled")["message"]
        assert message == "each Node must have the topology label block (gpu-1 lack it)"


async def test_a_blade_deleted_by_hand_comes_back_and_remembers_its_quarantine() -> None:
    async with Hall() as hall:
        await healthy(hall, "gpu-1")
        hall.report("gpu-1", fault())
        await hall.settle()
        hall.api.drop(BLADES, "gpu-1")
        await hall.settle()
        assert (hall.state("gpu-1"), hall.taints("gpu-1")) == ("Unknown", {TAINT_BLADE: "Unknown"})
        hall.report("gpu-1")  # clean: the window must run all the same
        await hall.settle()
        assert hall.state("gpu-1") == "Quarantined"
        assert hall.condition("gpu-1") == ("False", "xid-79")
        await hall.advance(600.0)
        hall.beat("gpu-1")
        await hall.settle()
        assert hall.state("gpu-1") == "Healthy"


async def test_a_node_that_is_gone_leaves_its_blade_only_while_a_gang_names_it() -> None:
    async with Hall() as hall:
        await healthy(hall, "gpu-1", "gpu-2")
        hall.gang("llama", "gpu-1")
        hall.api.drop(NODES, "gpu-1")
        hall.api.drop(NODES, "gpu-2")
        await hall.settle()
        assert (hall.state("gpu-1"), hall.why("gpu-1")) == ("Lost", "NodeNotReady")
        assert "gpu-2" not in hall.api.objects[BLADES]
        hall.api.drop(GANGS, "ml/llama")
        await hall.settle()
        assert "gpu-1" not in hall.api.objects[BLADES]


@pytest.mark.parametrize(
    ("boot", "reports_as", "beats", "state"),
    [
        pytest.param("", None, 0, "Unknown", id="the old report does not count"),
        pytest.param("", "boot-2", 0, "Healthy", id="a new report does"),
        pytest.param("", None, 3, "Healthy", id="an agent that beats on has looked"),
        pytest.param("boot-1", None, 0, "Healthy", id="the same boot: the machine never went"),
        pytest.param("boot-2", None, 3, "Unknown", id="another boot: it did"),
    ],
)
async def test_a_node_made_anew_starts_over(
    boot: str, reports_as: str | None, beats: int, state: str
) -> None:
    async with Hall() as hall:
        await healthy(hall, "gpu-1", "gpu-2")
        await hall.advance(10.0)
        hall.api.lagging = {NODES}
        hall.api.drop(NODES, "gpu-1")
        hall.node("gpu-1", boot=boot)
        hall.api.deliver()
        await hall.settle()
        for _ in range(beats):
            await hall.advance(30.0)
            hall.beat("gpu-1")
            await hall.settle()
        if reports_as:
            hall.report("gpu-1", boot=reports_as)
        await hall.advance(1.0)
        assert hall.state("gpu-1") == state


async def test_a_seat_on_a_node_made_anew_is_lost() -> None:
    async with Hall() as hall:
        await healthy(hall, "gpu-1", "gpu-2")
        hall.gang("llama", "gpu-1")
        hall.api.lagging = {NODES}
        hall.api.drop(NODES, "gpu-1")
        hall.node("gpu-1")
        hall.api.deliver()
        await hall.settle()
        assert (hall.state("gpu-1"), hall.why("gpu-1")) == ("Lost", "NodeNotReady")
        hall.gang("llama", "gpu-2")
        await hall.settle()
        assert hall.state("gpu-1") == "Unknown"


async def test_a_node_that_leaves_is_given_back_as_it_was() -> None:
    async with Hall() as hall:
        hall.pool(trancheLabel="hall/delivery")
        theirs = [{"key": "theirs", "value": "x", "effect": "NoSchedule"}]
        hall.node("gpu-1", taints=theirs, cordoned=True, labels={"hall/delivery": "t7"})
        await hall.settle()
        assert hall.labels("gpu-1")[LABEL_TRANCHE] == "t7"
        hall.change_node("gpu-1", lambda raw: raw["metadata"]["labels"].pop("gpu"))
        await hall.settle()
        assert hall.labels("gpu-1") == {"rack": "r1", "hall/delivery": "t7"}
        assert hall.api.objects[NODES]["gpu-1"]["spec"] == {"taints": theirs, "unschedulable": True}
        assert hall.condition("gpu-1") is None
        assert "gpu-1" not in hall.api.objects[BLADES]


async def test_a_pool_that_goes_leaves_nothing_behind_even_if_nobody_watched() -> None:
    async with Hall() as hall:
        await healthy(hall, "gpu-1")
        node = hall.api.objects[NODES]["gpu-1"]
    async with Hall() as later:
        later.api.put(NODES, node)
        await later.settle()
        assert later.labels("gpu-1") == {"gpu": "h200", "rack": "r1"}
        assert later.condition("gpu-1") is None


async def test_a_patch_on_an_outdated_node_is_planned_again() -> None:
    async with Hall() as hall:
        await healthy(hall, "gpu-1", "gpu-2")
        hall.change_node(
            "gpu-1",
            lambda raw: raw["spec"].update(taints=[{"key": "a", "effect": "NoSchedule"}]),
        )
        await hall.settle()
        hall.api.lagging = {NODES}
        hall.change_node("gpu-1", lambda raw: raw["spec"].pop("taints"))
        hall.report("gpu-1", fault())
        await hall.settle()
        assert hall.taints("gpu-1") == {TAINT_BLADE: "Quarantined"}
        hall.api.deliver()
        await hall.settle()
        assert hall.taints("gpu-1") == {TAINT_BLADE: "Quarantined"}


async def test_a_lagging_cache_does_not_make_it_say_things_twice() -> None:
    async with Hall() as hall:
        await healthy(hall, "gpu-1", "gpu-2")
        hall.report("gpu-1", fault())
        hall.api.lagging = {NODES, BLADES}
        await hall.settle()
        writes = len(hall.api.writes)
        said = list(hall.recorder.said)
        for _ in range(3):
            hall.controller.blades.add("gpu-1")
            await hall.settle()
        assert [w for w in hall.api.writes[writes:] if w[2] == "gpu-1"] == []
        assert hall.recorder.said == said


async def test_pool_status_counts_blades_gpus_tranches_and_spares() -> None:
    async with Hall() as hall:
        hall.pool(spares={"count": 2})
        for i in range(6):
            hall.node(f"gpu-{i}", labels={LABEL_TRANCHE: f"t{i // 3}"})
        await hall.settle()
        for i in range(5):
            hall.report(f"gpu-{i}")
        hall.gang("llama", "gpu-0", "gpu-1", spares=["gpu-2"])
        await hall.settle()
        await hall.advance(2.0)
        status = hall.api.objects[NODEPOOLS]["paris"]["status"]
        counts = {key: value for key, value in status["blades"].items() if value}
        assert counts == {"total": 6, "healthy": 5, "inUse": 3, "spare": 2, "unknown": 1}
        assert status["gpus"] == {"total": 48, "allocatable": 40, "allocated": 24}
        assert [(t["name"], t["delivered"], t["healthy"]) for t in status["tranches"]] == [
            ("t0", 3, 3),
            ("t1", 3, 2),
        ]
        assert status["spares"] == {"target": 2, "ready": 2}
        assert hall.pool_condition("paris", "TooFewSpares")["status"] == "False"
        hall.change_node("gpu-4", lambda raw: raw["spec"].update(unschedulable=True))
        await hall.advance(2.0)
        await hall.advance(2.0)
        assert hall.pool_condition("paris", "TooFewSpares")["status"] == "True"
        assert status["breaker"] == {"state": "Closed"}


async def test_pool_status_is_written_once_a_second_unless_a_condition_flips() -> None:
    async with Hall() as hall:
        await healthy(hall, *(f"gpu-{i}" for i in range(4)))
        await hall.advance(2.0)
        await hall.advance(2.0)
        writes = len(hall.api.writes)
        hall.gang("a", "gpu-0")
        await hall.advance(0.1)
        hall.gang("a", "gpu-0", "gpu-1")
        await hall.advance(0.1)
        pool_writes = [w for w in hall.api.writes[writes:] if w[1].startswith("nodepools")]
        assert len(pool_writes) == 1
        for i in range(4):
            hall.readiness(f"gpu-{i}", "False")
        await hall.advance(0.1)
        await hall.advance(0.1)  # counting waits for its share of the time
        assert hall.pool_condition("paris", "Ready")["status"] == "False"


async def test_the_kubelets_are_listed_once_when_many_agents_are_silent() -> None:
    async with Hall() as hall:
        names = [f"gpu-{i}" for i in range(50)]
        hall.pool()
        for name in names:
            hall.node(name)
        await hall.settle()
        for name in names:
            hall.report(name)
            hall.kubelet(name)
        await hall.settle()
        lists = 0

        listed = hall.api.list_all

        async def list_all(resource: Resource, namespace: str) -> list[dict[str, Any]]:
            nonlocal lists
            lists += 1
            return await listed(resource, namespace)

        hall.api.list_all = list_all  # type: ignore[method-assign] # counts the calls
        await hall.advance(46.0)
        assert {hall.state(name) for name in names} == {"Lost"}
        assert lists == 1


async def test_the_end_of_a_hold_does_not_get_round_the_budget() -> None:
    async with Hall() as hall:
        names = [f"gpu-{i}" for i in range(4)]
        await healthy(hall, *names, remediation={"maxUnavailable": 1})
        for name in names[:2]:
            hall.spec(name, hold={"reason": "fan", "by": "anna"})
            hall.report(name, fault())
        await hall.settle()
        assert [hall.why(name) for name in names[:2]] == ["HeldByPerson"] * 2
        for name in names[:2]:
            hall.spec(name, hold=None)
        await hall.settle()
        await hall.advance(1.0)
        await hall.advance(1.0)
        assert sorted(str(hall.why(name)) for name in names[:2]) == [
            "BudgetExhausted",
            "HardwareFault",
        ]
