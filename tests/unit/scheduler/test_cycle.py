"""The shell around the passes: what is written, what is not, and what a lost answer means."""

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from tramontane.kube.errors import ApiError, Conflict, Invalid, NotFound, Unreachable
from tramontane.scheduler.cycle import WORDS_EVERY_S
from tramontane.scheduler.gangs import GangRecord, Placement
from tramontane.scheduler.records import NO_POD, decode_pod
from unit.scheduler.shell import GPU, Bench, blade, node, pod


async def test_a_placement_is_written_once_and_its_echo_wakes_nobody() -> None:
    bench = Bench()
    bench.submit("g", 3)
    await bench.cycle.run_once()
    assert bench.status("g")["placement"]["seats"] == ["n0", "n1", "n2"]
    bench.world.changed.clear()
    bench.watch("g")
    assert not bench.world.changed.is_set()
    await bench.cycle.run_once()
    assert len(bench.server.writes) == 1


async def test_a_second_gang_is_not_given_what_the_watch_has_not_shown_yet() -> None:
    bench = Bench()
    bench.submit("g", 3)
    await bench.cycle.run_once()
    bench.submit("h", 2)
    await bench.cycle.run_once()
    assert bench.status("h")["reason"] == "WaitingForCapacity"


@pytest.mark.parametrize("lost", [False, True], ids=["answered", "no-answer"])
async def test_who_gives_blades_up_is_written_before_who_gets_them(
    lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, written = Bench(), list[str]()
    bench.submit("g", 3)
    bench.submit("h", 3)
    gangs, _ = bench.world.memory.gangs()
    here, nowhere = Placement(("n0", "n1", "n2"), ()), None
    gangs["ns/g"] = replace(gangs["ns/g"], placement=here)
    outcomes = {
        "ns/h": SimpleNamespace(placement=here),
        "ns/g": SimpleNamespace(placement=nowhere),
    }

    async def write(gang: GangRecord, *_: object) -> bool:
        written.append(gang.key.removeprefix("ns/"))
        await asyncio.sleep(0)
        return not lost

    monkeypatch.setattr(bench.cycle, "_write", write)
    done: Any = SimpleNamespace(outcomes=outcomes)
    assert await bench.cycle._write_all(gangs, done, list(outcomes), 0.0) is not lost
    assert written == (["g"] if lost else ["g", "h"]), "the blades are g's until it has lost them"


async def test_a_status_that_is_refused_for_good_keeps_its_blades_and_nobody_elses() -> None:
    bench = Bench()
    bench.submit("g", 2)
    await bench.cycle.run_once()
    bench.watch("g")
    held = set(bench.status("g")["placement"]["seats"])
    bench.server.gangs["g"]["spec"]["active"] = False
    bench.server.gangs["g"]["metadata"]["generation"] = 2
    bench.server.version += 1
    bench.server.gangs["g"]["metadata"]["resourceVersion"] = str(bench.server.version)
    bench.watch("g")
    bench.server.fail = lambda name: Invalid(422, "Invalid", "no") if name == "g" else None
    for name in ("h", "k", "l"):
        bench.submit(name, 1)
    for _ in range(3):
        await bench.cycle.run_once()

    placed = [
        raw["status"]["placement"]["seats"]
        for name, raw in bench.server.gangs.items()
        if name != "g" and raw.get("status", {}).get("placement")
    ]
    assert placed, "one that wants none of g's blades has its place"
    assert not held & {blade for seats in placed for blade in seats}


@pytest.mark.parametrize("done", [True, False], ids=["it-was-done", "it-was-not"])
async def test_a_write_without_an_answer_keeps_its_seats_and_is_repeated(done: bool) -> None:
    bench = Bench()
    bench.submit("g", 3)
    if done:
        bench.server.lose_answers = True
    else:
        bench.server.fail = lambda _: Unreachable("no answer")
    again_s = await bench.cycle.run_once()
    assert again_s < 1
    bench.server.lose_answers = False
    bench.server.fail = lambda _: None
    bench.submit("h", 2, priority=9)
    await bench.cycle.run_once()
    assert bench.status("g")["placement"]["seats"] == ["n0", "n1", "n2"]
    assert bench.status("g")["epoch"] == 1
    assert bench.status("h")["phase"] == "Pending"


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(NotFound(404, "NotFound", "gone"), id="gone"),
        pytest.param(Conflict(409, "Conflict", "uid"), id="another-of-its-name"),
        pytest.param(Invalid(422, "Invalid", "no"), id="refused"),
    ],
)
async def test_a_write_that_was_refused_gives_nothing_away(error: ApiError) -> None:
    bench = Bench()
    bench.submit("g", 3)
    bench.server.fail = lambda name: error if name == "g" else None
    await bench.cycle.run_once()
    bench.server.gangs.pop("g")
    bench.watch("g")
    bench.submit("h", 4)
    await bench.cycle.run_once()
    assert bench.status("h")["phase"] == "Placed"


async def test_repeated_failures_are_retried_ever_more_slowly() -> None:
    bench = Bench()
    bench.submit("g", 1)
    bench.server.fail = lambda _: ApiError(500, "InternalError", "etcd")
    delays = [await bench.cycle.run_once() for _ in range(4)]
    assert delays == [0.5, 1.0, 2.0, 4.0]


async def test_numbers_in_words_are_written_at_most_every_few_seconds() -> None:
    bench = Bench()
    bench.submit("g", 4)
    bench.tell("_blades", "n0", blade("Quarantined"))
    await bench.cycle.run_once()
    assert "3 of 4" in bench.status("g")["message"]
    bench.tell("_blades", "n1", blade("Quarantined"))
    await bench.cycle.run_once()
    assert "2 of 4" in bench.status("g")["message"]
    bench.tell("_blades", "n2", blade("Quarantined"))
    assert await bench.cycle.run_once() == WORDS_EVERY_S
    assert "2 of 4" in bench.status("g")["message"]
    bench.now += WORDS_EVERY_S
    await bench.cycle.run_once()
    assert "1 of 4" in bench.status("g")["message"]


async def test_who_does_not_lead_does_not_write() -> None:
    bench = Bench()
    bench.submit("g", 1)
    bench.leads = False
    await bench.cycle.run_once()
    assert bench.server.writes == []


async def test_before_the_first_pass_the_last_leaders_writes_are_read() -> None:
    old = Bench()
    old.submit("a", 2)
    old.submit("b", 1)
    await old.cycle.run_once()
    new = Bench()
    new.server.gangs = old.server.gangs  # the new process's watch has shown nothing of them yet
    new.server.unlisted = 1
    await new.cycle.catch_up()
    new.submit("c", 2)
    await new.cycle.run_once()
    assert new.status("c")["reason"] == "WaitingForCapacity"
    assert [body["metadata"]["name"] for body in new.server.writes] == ["c"]


async def test_an_edit_by_hand_is_put_back() -> None:
    bench = Bench()
    bench.submit("g", 2)
    await bench.cycle.run_once()
    bench.watch("g")
    stored = bench.server.gangs["g"]
    stored["status"] = {**stored["status"], "placement": {"size": 2, "seats": ["n3", "n3"]}}
    stored["metadata"]["resourceVersion"] = "999"
    bench.server.version = 999
    bench.world.changed.clear()
    bench.watch("g")
    assert bench.world.changed.is_set()
    await bench.cycle.run_once()
    assert bench.status("g")["placement"]["seats"] == ["n0", "n1"]
    assert bench.status("g")["message"].endswith("put back as it was")
    writes = len(bench.server.writes)
    await bench.cycle.run_once()
    assert len(bench.server.writes) == writes, "the message stays, so that it is read"


async def test_a_placement_nobody_can_explain_is_left_to_a_person_who_may_correct_it() -> None:
    bench = Bench()
    raw = bench.server.add("g", 2)
    raw["status"] = {"phase": "Placed", "epoch": 1, "placement": {"seats": ["n0", "n0"]}}
    bench.watch("g")
    await bench.cycle.run_once()
    assert bench.status("g")["reason"] == "Misconfigured"
    bench.server.version += 1
    raw["status"] = {**raw["status"], "placement": {"size": 2, "seats": ["n0", "n2"]}}
    raw["metadata"]["resourceVersion"] = str(bench.server.version)
    bench.watch("g")
    await bench.cycle.run_once()
    assert bench.status("g")["placement"]["seats"] == ["n0", "n2"]
    assert "reason" not in bench.status("g")


async def test_a_pod_that_goes_wakes_a_hungry_scheduler_and_no_other() -> None:
    bench = Bench(1)
    store = bench.world._pods._store
    store.put("ns/pod", decode_pod(pod("n0")))
    bench.submit("g", 1)
    await bench.cycle.run_once()
    assert bench.world.hungry
    bench.world.changed.clear()
    store.put("ns/pod", NO_POD)
    assert bench.world.changed.is_set()
    await bench.cycle.run_once()
    assert bench.status("g")["phase"] == "Placed"
    assert not bench.world.hungry
    bench.world.changed.clear()
    store.put("ns/pod", decode_pod(pod("n0", "g")))
    store.drop("ns/pod")
    assert not bench.world.changed.is_set()


async def test_fleet_changes_are_seen() -> None:
    bench = Bench(2)
    assert bench.world.fleet().names == ("n0", "n1")
    same = bench.world.fleet()
    assert bench.world.fleet() is same
    bench.tell("_nodes", "n1", node(gpus="4"))
    assert bench.world.fleet().capacity[GPU].tolist() == [8, 4]
    bench.tell("_nodes", "not-a-blade", node())
    bench.tell("_blades", "n0", None)
    assert bench.world.fleet().names == ("n1",)
    bench.tell("_pools", "p", None)
    assert bench.world.fleet().names == ()


async def test_the_loop_runs_until_it_is_stopped() -> None:
    bench = Bench()
    for informer in bench.world._informers:
        informer._synced.set()
    stop = asyncio.Event()
    running = asyncio.create_task(bench.cycle.run(stop))
    for name in ("g", "h"):
        bench.submit(name, 1)
        assert await bench.server.wrote.get() == name
    assert bench.world.synced
    stop.set()
    await asyncio.wait_for(running, 5)
