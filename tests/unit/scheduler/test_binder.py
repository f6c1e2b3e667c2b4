"""Foreign gangs through the shell: bound whole or not at all, whatever the API server answers."""

import random
from typing import Any

import pytest

from tramontane.kube.errors import ApiError, Forbidden, NotFound, Unreachable
from tramontane.scheduler.foreign import binder
from tramontane.scheduler.foreign.binder import AVOID_S, PATIENCE_S, SETTLE_S, UNSEEN_S
from tramontane.scheduler.foreign.member import decode_member
from unit.scheduler.pods import a_gang, of_gang, raw_pod
from unit.scheduler.shell import Bench


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binder, "FIRST_RETRY_S", 0.0)


async def test_a_whole_gang_is_bound_with_one_write_per_pod() -> None:
    bench = Bench(4)
    bench.create_pods(*a_gang("g", range(2), 3))
    await bench.run_pass()
    assert bench.server.bindings == []
    bench.world.changed.clear()
    bench.create_pods(of_gang("g-2", "g", 3))
    assert bench.world.changed.is_set()
    await bench.run_pass()
    assert bench.nodes() == {"g-0": "n0", "g-1": "n1", "g-2": "n2"}
    bench.world.changed.clear()
    bench.see("g-0", "g-1", "g-2")
    assert not bench.world.changed.is_set(), "an echo wakes nobody"
    await bench.run_pass()
    assert len(bench.server.bindings) == 3
    assert (bench.server.conditions, bench.server.writes, bench.events()) == ([], [], [])


async def test_of_two_gangs_that_want_the_same_blades_one_is_bound_whole() -> None:
    bench = Bench(4)
    bench.create_pods(*a_gang("a", range(3), 3), *a_gang("b", range(3), 3))
    for _ in range(3):
        await bench.run_pass()
    bound = {name: node for name, node in bench.nodes().items() if node}
    assert set(bound) == {"a-0", "a-1", "a-2"}
    assert len(set(bound.values())) == 3


async def test_what_is_not_shown_yet_is_given_to_nobody() -> None:
    bench = Bench(4)
    bench.create_pods(*a_gang("a", range(3), 3))
    await bench.run_pass()
    bench.submit("g", 2)
    await bench.run_pass()
    assert bench.status("g")["phase"] == "Pending"
    bench.world._waiting._store.drop("ml/a-0")  # the one watch is ahead of the other
    await bench.run_pass()
    assert bench.status("g")["phase"] == "Pending"
    bench.server.pods.clear()
    bench.see("a-0", "a-1", "a-2")
    bench.now += UNSEEN_S + 1
    await bench.run_pass()
    await bench.run_pass()
    assert bench.status("g")["phase"] == "Placed", "pods that were never seen do not stay for ever"


async def test_gangs_of_ours_and_of_others_queue_together() -> None:
    bench = Bench(4)
    bench.submit("g", 3, preemptible=False)
    bench.create_pods(*a_gang("a", range(3), 3, priority=5))
    await bench.run_pass()
    assert bench.status("g")["phase"] == "Pending"
    assert all(bench.nodes().values())


async def test_pods_without_a_place_say_why_once_per_reason_at_two_writes_per_gang() -> None:
    bench = Bench(2)
    bench.create_pods(*a_gang("g", range(3), 3))
    assert await bench.run_pass() == pytest.approx(SETTLE_S)
    assert bench.events() == [], "what is over in a moment is not said"
    for _ in range(3):
        bench.now += 10
        await bench.run_pass()
    assert bench.events() == [("g-0", "ExceedsPool")]
    [(name, message)] = bench.server.conditions
    assert name == "g-0"
    assert message.startswith("ExceedsPool: Gang ml/pods:g: needs 3")
    assert bench.server.bindings == []


async def test_a_new_scheduler_does_not_repeat_what_a_pod_says_already() -> None:
    bench = Bench(2)
    said = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "ExceedsPool: …",
    }
    bench.create_pods(*a_gang("g", range(3), 3, status={"conditions": [said]}))
    for _ in range(2):
        bench.now += SETTLE_S
        await bench.run_pass()
    assert (bench.server.conditions, bench.events()) == ([], [])


async def test_a_gang_that_lacks_pods_says_so_when_nobody_makes_them() -> None:
    bench = Bench(4)
    bench.create_pods(*a_gang("g", range(2), 3))
    created = decode_member(bench.server.pods["g-0"]).created_s
    bench.now = created + 1
    assert await bench.run_pass() == pytest.approx(PATIENCE_S - 1)
    assert bench.events() == []
    bench.now = created + PATIENCE_S
    await bench.run_pass()
    assert bench.events() == [("g-0", "PendingEvaluation")]
    assert "must have 3 pods" in bench.server.conditions[0][1]


@pytest.mark.parametrize("done", [True, False], ids=["it-was-done", "it-was-not"])
async def test_a_binding_without_an_answer_is_looked_up(done: bool) -> None:
    bench = Bench(4)
    lost = iter([True, False])
    if done:
        bench.server.lose_answers = True
    else:
        bench.server.fail = lambda _: Unreachable("no answer") if next(lost, False) else None
    bench.create_pods(raw_pod("x"))
    await bench.run_pass()
    assert bench.nodes() == {"x": "n0"}
    assert bench.world.roster.assumed["ml/x"].member.node == "n0"
    bench.see("x")
    await bench.run_pass()
    assert not bench.world.roster.assumed
    assert {node for _, node in bench.server.bindings} == {"n0"}


async def test_a_binding_that_is_refused_for_good_leaves_a_lost_seat_that_is_found_again() -> None:
    bench = Bench(4)
    no = Forbidden(403, "Forbidden", "a webhook says no")
    bench.server.fail = lambda name: no if name == "g-1" else None
    bench.create_pods(*a_gang("g", range(2), 2))
    bench.world.changed.clear()
    await bench.run_pass()
    assert bench.nodes() == {"g-0": "n0", "g-1": ""}
    assert bench.world.changed.is_set()
    bench.server.fail = lambda _: None
    bench.see("g-0", "g-1")
    await bench.run_pass()
    assert bench.nodes() == {"g-0": "n0", "g-1": "n2"}, "not where it was refused"


async def test_a_node_that_refused_is_asked_again_after_a_while() -> None:
    bench = Bench(1)
    bench.server.fail = lambda _: Forbidden(403, "Forbidden", "a webhook says no")
    bench.create_pods(raw_pod("x"))
    await bench.run_pass()
    bench.server.fail = lambda _: None
    bench.now += AVOID_S - 1
    await bench.run_pass()
    assert bench.nodes() == {"x": ""}
    bench.now += 1
    await bench.run_pass()
    assert bench.nodes() == {"x": "n0"}


async def test_a_pod_that_is_gone_when_it_is_bound_leaves_no_seat() -> None:
    bench = Bench(2)
    bench.create_pods(*a_gang("g", range(2), 2))
    del bench.server.pods["g-1"]
    await bench.run_pass()
    bench.see("g-0", "g-1")
    bench.submit("h", 1)
    await bench.run_pass()
    assert bench.status("h")["phase"] == "Placed"


async def test_a_pod_made_anew_under_its_name_is_not_bound_in_place_of_the_old_one() -> None:
    bench = Bench(2)
    bench.create_pods(raw_pod("x"))
    bench.server.pods["x"] = raw_pod("x", uid="uid-new")
    await bench.run_pass()
    assert bench.nodes() == {"x": ""}
    bench.see("x")
    await bench.run_pass()
    assert bench.nodes() == {"x": "n0"}


async def test_a_pod_that_somebody_else_bound_stays_where_it_is() -> None:
    bench = Bench(4)
    bench.create_pods(raw_pod("x"))
    bench.server.pods["x"] = raw_pod("x", nodeName="n3")
    await bench.run_pass()
    assert bench.world.roster.assumed["ml/x"].member.node == "n3"
    bench.submit("g", 4)
    await bench.run_pass()
    assert bench.status("g")["phase"] == "Pending"


async def test_a_lookup_without_an_answer_is_done_again_and_the_seat_stays_taken() -> None:
    bench = Bench(1)
    bench.create_pods(raw_pod("x"))
    await bench.run_pass()
    bench.server.fail = lambda _: ApiError(500, "InternalError", "etcd")
    bench.now += UNSEEN_S + 1
    bench.submit("g", 1)
    await bench.run_pass()
    assert "ml/x" in bench.world.roster.assumed
    del bench.server.pods["x"]
    bench.server.fail = lambda _: None
    await bench.run_pass()
    assert not bench.world.roster.assumed


async def test_a_condition_that_cannot_be_written_stops_nothing() -> None:
    bench = Bench(1)
    bench.server.fail = lambda _: NotFound(404, "NotFound", "gone")
    bench.create_pods(*a_gang("g", range(2), 2))
    for _ in range(2):
        bench.now += SETTLE_S
        await bench.run_pass()
    assert bench.events() == [("g-0", "ExceedsPool")]


async def test_the_next_leader_completes_a_gang_that_was_partly_bound() -> None:
    bench = Bench(4)
    bench.create_pods(*a_gang("g", (0, 2), 3, nodeName="n1"), *a_gang("g", (1,), 3))
    bench.server.pods["g-2"]["spec"]["nodeName"] = "n2"
    bench.see("g-2")
    bench.submit("h", 2)
    await bench.run_pass()
    assert bench.nodes()["g-1"] in {"n0", "n3"}
    assert bench.status("h")["phase"] == "Pending", "it comes after the gang that runs"


async def test_before_the_first_pass_the_last_leaders_bindings_are_read() -> None:
    bench = Bench(2)
    bench.server.pods["x"] = raw_pod("x", nodeName="n0")  # no watch has shown it
    await bench.cycle.catch_up()
    bench.submit("g", 2)
    await bench.run_pass()
    assert bench.status("g")["phase"] == "Pending"


async def test_who_does_not_lead_binds_nothing() -> None:
    bench = Bench(2)
    bench.leads = False
    bench.create_pods(raw_pod("x"))
    await bench.run_pass()
    assert bench.server.bindings == []
    assert not bench.world.roster.assumed


async def test_pods_of_one_gpu_share_a_blade_but_never_more_than_it_has() -> None:
    bench = Bench(2)
    bench.create_pods(*(raw_pod(f"x-{i:02}", gpus=2) for i in range(9)))
    await bench.run_pass()
    nodes = list(bench.nodes().values())
    assert sorted((nodes.count("n0"), nodes.count("n1"), nodes.count(""))) == [1, 4, 4]


async def test_a_dying_pod_keeps_its_room_until_it_is_gone() -> None:
    bench = Bench(1)
    dying = raw_pod("old", nodeName="n0", deletionTimestamp="2027-01-15T07:00:00Z")
    bench.create_pods(dying, raw_pod("new"))
    await bench.run_pass()
    assert bench.nodes()["new"] == ""
    del bench.server.pods["old"]
    bench.world.changed.clear()
    bench.see("old")
    assert bench.world.changed.is_set()
    await bench.run_pass()
    assert bench.nodes()["new"] == "n0"


@pytest.mark.parametrize("seed", range(60))
async def test_gangs_are_whole_at_rest_whatever_goes_wrong(seed: int) -> None:
    """Random gangs, answers and watches: in the end each gang is bound whole or not at all."""
    chance, bench = random.Random(seed), Bench(8)
    raws: list[dict[str, Any]] = []
    for number in range(chance.randint(2, 6)):
        size = chance.randint(1, 5)
        raws += a_gang(f"g{number}", range(size), size)
    chance.shuffle(raws)
    troubles = [None, None, Unreachable("no answer"), ApiError(500, "InternalError", "etcd")]
    for step in range(30):
        if raws:
            bench.create_pods(raws.pop())
        quiet = step > 20
        bench.server.fail = lambda _: chance.choice([None] if quiet else troubles)  # noqa: B023
        bench.server.lose_answers = not quiet and chance.random() < 0.2
        bench.now += 10 if quiet else 1
        await bench.run_pass()
        for name in chance.sample(sorted(bench.server.pods), len(bench.server.pods)):
            if quiet or chance.random() < 0.5:
                bench.see(name)
    bound: dict[str, list[str]] = {}
    for name, node in bench.nodes().items():
        bound.setdefault(name.partition("-")[0], []).append(node)
    assert all(all(nodes) or not any(nodes) for nodes in bound.values()), f"seed {seed}: {bound}"
    taken = [node for nodes in bound.values() for node in nodes if node]
    assert len(taken) == len(set(taken)), f"seed {seed}: a blade has two pods of 8 GPUs"
