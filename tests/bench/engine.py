"""Measure the scheduler's decisions without an API server, in milliseconds of CPU.

Times are of whole passes
(snapshot and decision), the fleet being laid out already; the worst one counts, not the mean.
"""

import asyncio
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from bench import results
from bench.results import Budget
from tramontane.kube.gcpause import gc_paused
from tramontane.scheduler.engine import Pass, decide
from tramontane.scheduler.fleet import Fleet, build_fleet, refresh
from tramontane.scheduler.gangs import Ask, GangRecord, Placement, Slot, Told
from tramontane.scheduler.records import (
    GPU,
    BladeRecord,
    NodeRecord,
    PodRecord,
    PoolRecord,
    amounts,
)
from tramontane.scheduler.snapshot import Pods
from tramontane.scheduler.waiting import MOST_RESERVED

NOW = 1_000_000.0
LEVELS = (("block", "topology/block"), ("rack", "topology/rack"))
HALLS = (("hall", "topology/hall"), *LEVELS)
CAPACITY = amounts({GPU: "8", "cpu": "192", "memory": "2Ti"})
WHOLE = Ask(amounts({GPU: "8", "cpu": "64", "memory": "512Gi"}))
RACK, RACKS_PER_BLOCK, BLOCKS_PER_HALL = 16, 8, 10


class World:
    """A hall of `blades`, with gangs and pods on it."""

    def __init__(self, blades: int, levels: tuple[tuple[str, str], ...] = LEVELS) -> None:
        self.pools = {"p": PoolRecord("p", levels)}
        self.blades: dict[str, BladeRecord] = {}
        self.nodes: dict[str, NodeRecord] = {}
        self.gangs: dict[str, GangRecord] = {}
        self.pods = Pods()
        for number in range(blades):
            name = f"gpu-{number:05d}"
            labels = {
                "topology/hall": f"h{number // RACK // RACKS_PER_BLOCK // BLOCKS_PER_HALL}",
                "topology/block": f"b{number // RACK // RACKS_PER_BLOCK:03d}",
                "topology/rack": f"r{number // RACK:04d}",
                "kubernetes.io/hostname": name,
            }
            self.blades[name] = BladeRecord(name, "p", "Healthy", "None", 0.0, deleting=False)
            self.nodes[name] = NodeRecord(
                name, labels, CAPACITY, (), cordoned=False, ready=True, deleting=False
            )
            daemons = PodRecord(name, "", -1, deleting=False, requests=amounts({"cpu": "2"}))
            self.pods.change(f"kube-system/daemon-{number}", None, daemons)
        self.fleet = build_fleet(self.blades, self.nodes, self.pools)

    def clear(self) -> None:
        """Take all gangs and their pods away, and put all blades back in service."""
        for key, of_gang in list(self.pods.of_gang.items()):
            for name, pod in list(of_gang.items()):
                self.pods.change(name, pod, None)
            del self.gangs[key]
        self.blades = {name: replace(b, state="Healthy") for name, b in self.blades.items()}

    def fill(self, share: float, rng: random.Random) -> None:
        """Seat gangs of 1 to 32 blades, with their pods, until that share is in use.

        One blade in fifty is quarantined.
        """
        names = list(self.blades)
        for name in rng.sample(names, len(names) // 50):
            self.blades[name] = replace(self.blades[name], state="Quarantined")
        self.fleet = build_fleet(self.blades, self.nodes, self.pools)
        used, at = int(len(names) * share), 0
        taken = names[:]
        # In use are runs of blades with gaps, as a hall looks after a while.
        runs = [taken[i : i + 4] for i in range(0, len(taken), 4)]
        rng.shuffle(runs)
        flat = [name for run in runs for name in run][:used]
        while at < used:
            size = min(rng.choice([1, 1, 2, 4, 8, 16, 32]), used - at)
            self._seat(f"ns/g{at}", flat[at : at + size])
            at += size

    def _seat(self, key: str, seats: Sequence[str]) -> None:
        self.gangs[key] = gang(
            key,
            len(seats),
            placement=Placement(tuple(seats)),
            told=Told("Placed", 1, ready=True, ready_since_s=NOW - 9, observed=0),
        )
        for seat, name in enumerate(seats):
            pod = PodRecord(name, key, seat, deleting=False, requests=WHOLE.requests)
            self.pods.change(f"{key}-{seat}", None, pod)

    def limit(self, rng: random.Random) -> None:
        """Give the gangs limits, starts, and work that a preemption would waste."""
        for key, one in self.gangs.items():
            told = replace(one.told, placed_s=NOW - rng.uniform(0, 7200))
            limit_s, lost = rng.uniform(10_800, 259_200), rng.uniform(0, 8) * one.slots[0].count
            self.gangs[key] = replace(one, told=told, max_runtime_s=limit_s, lost_work=lost)

    def decide(self, *more: GangRecord) -> Pass:
        """Return what one pass decides about all gangs and some more."""
        return decide(self.fleet, self.gangs | {g.key: g for g in more}, self.pods, NOW)


def gang(key: str, seats: int, **more: Any) -> GangRecord:
    """Return a gang of whole blades."""
    return GangRecord(
        key=key,
        uid=key,
        pool="p",
        slots=(Slot("worker", seats, WHOLE),),
        created_s=NOW - 60,
        **more,
    )


def times_ms(run: Callable[[], object], repeats: int) -> list[float]:
    """Return the milliseconds of CPU of each of some runs.

    Of CPU, since a decision does nothing else, and a busy machine is not the scheduler's. The
    collector is off during a pass, as it is in the cycle.
    """
    taken = []
    for _ in range(repeats):
        with gc_paused():
            began = time.process_time()
            run()
            taken.append((time.process_time() - began) * 1000)
    return taken


def fleet_of(
    share: float, blades: int, seed: int = 1, levels: tuple[tuple[str, str], ...] = LEVELS
) -> World:
    """Return a hall in use by that share."""
    world = World(blades, levels)
    if share:
        world.fill(share, random.Random(seed))
    return world


def placed(done: Pass, key: str = "ns/new") -> bool:
    """Return whether the gang got its place."""
    return done.outcomes[key].phase == "Placed"


def figures() -> dict[str, float]:
    """Return milliseconds by what was measured."""
    found: dict[str, float] = {}
    big = gang("ns/new", 2048, spares=8)
    for name, share in (("empty", 0.0), ("70 % full", 0.7)):
        world = fleet_of(share, 12_500)
        assert placed(world.decide(big))
        found[f"2,048 seats on 12,500 blades, {name}"] = max(
            times_ms(lambda world=world: world.decide(big), 10)  # type: ignore[misc]
        )
    sliced = replace(big, slice_size=16, slice_level="rack", spares=0)
    world = fleet_of(0.0, 12_500)
    assert placed(world.decide(sliced))
    found["2,048 seats in slices of 16 per rack, 12,500 blades"] = max(
        times_ms(lambda: world.decide(sliced), 10)
    )
    for name, blades, seats, levels, count in STATES:
        found[name] = p99_of_states(blades, seats, levels, count)
    huge, hall = gang("ns/new", 10_000), fleet_of(0.2, 16_000)
    assert placed(hall.decide(huge))
    found["A2: 10,000 seats on 16,000 blades"] = max(times_ms(lambda: hall.decide(huge), 5))
    small = fleet_of(0.97, 5_000)
    assert not placed(small.decide(big))
    found["refusal of 2,048 seats on a full hall of 5,000"] = max(
        times_ms(lambda: small.decide(big), 10)
    )
    full = fleet_of(0.97, 12_500)
    found["F2: refusal of 2,048 seats on a full hall of 12,500"] = max(
        times_ms(lambda: full.decide(big), 10)
    )
    waiting = [gang(f"ns/w{i}", 500 + i % 100) for i in range(500)]
    found["500 gangs wait on a full hall of 12,500"] = max(
        times_ms(lambda: full.decide(*waiting), 3)
    )
    found |= _crowded()
    found |= _recovery()
    found["layout of 12,500 blades, at start"] = max(
        times_ms(lambda: build_fleet(world.blades, world.nodes, world.pools), 3)
    )
    return {name: round(value, 2) for name, value in found.items()}


def _crowded() -> dict[str, float]:
    """Return what it takes to decide where limits, promises and preemption are at work."""
    found, rng = {}, random.Random(11)
    waits = fleet_of(0.97, 2_000)
    waits.limit(rng)
    sizes = [1, 2, 4, 8, 16, 32, 64, 128]
    queue = [
        gang(f"ns/w{i}", rng.choice(sizes), max_runtime_s=rng.uniform(3600, 172_800))
        for i in range(700)
    ]
    reserved = sum(o.reserved_s is not None for o in waits.decide(*queue).outcomes.values())
    assert reserved == MOST_RESERVED
    found["700 gangs wait on a hall of 2,000, 100 are promised blades"] = max(
        times_ms(lambda: waits.decide(*queue), 5)
    )
    full = fleet_of(0.98, 5_000)
    full.limit(rng)
    urgent = gang("ns/new", 1_000, priority=9)
    sliced = replace(urgent, slots=(Slot("worker", 992, WHOLE),), slice_size=16, slice_level="rack")
    for name, new in (("", urgent), (" in slices of 16 per rack", sliced)):
        outcomes = full.decide(new).outcomes.values()
        assert sum(outcome.phase == "Preempting" for outcome in outcomes) > 1
        found[f"1,000 seats{name}: whom to preempt on a full hall of 5,000"] = max(
            times_ms(lambda new=new: full.decide(new), 5)  # type: ignore[misc]
        )
    return found


# Name, blades, seats, levels and number of random states.
STATES = (
    ("A1: 1,000 seats on 5,000 blades, 70 % full, p99 of 200 states", 5_000, 1_000, LEVELS, 200),
    ("A1 with a level more: p99 of 200 states", 5_000, 1_000, HALLS, 200),
    ("2,500 seats on 12,500 blades, 70 % full, p99 of 50 states", 12_500, 2_500, LEVELS, 50),
)


def p99_of_states(
    blades: int, seats: int, levels: tuple[tuple[str, str], ...], count: int
) -> float:
    """Return the 99th percentile of one whole pass over random states of a hall."""
    world, new, taken = World(blades, levels), gang("ns/new", seats), []
    for seed in range(count):
        world.clear()
        world.fill(0.7, random.Random(seed))
        assert placed(world.decide(new))
        taken.append(min(times_ms(partial(world.decide, new), 3)))
    return p99(taken)


def p99(values: Sequence[float]) -> float:
    """Return the least value that 99 % of all do not exceed."""
    return sorted(values)[math.ceil(len(values) * 0.99) - 1]


def _recovery() -> dict[str, float]:
    world = fleet_of(0.7, 12_500)
    key, struck = max(world.gangs.items(), key=lambda item: item[1].slots[0].count)
    assert struck.placement is not None
    lost = struck.placement.seats[3]
    world.gangs[key] = replace(struck, lost=((3, lost),))

    def change() -> Fleet:
        world.blades[lost] = replace(world.blades[lost], state="Quarantined")
        return refresh(world.fleet, [lost], world.blades, world.nodes, world.pools)

    def lose() -> Pass:
        world.fleet = change()
        return world.decide()

    assert len(lose().outcomes[key].moves) == 1
    return {"a blade lost and its seat moved, 12,500 blades": max(times_ms(lose, 10))}


BUDGETS_MS = {
    "2,048 seats on 12,500 blades, empty": 50,
    "2,048 seats on 12,500 blades, 70 % full": 50,
    "2,048 seats in slices of 16 per rack, 12,500 blades": 50,
    "A1: 1,000 seats on 5,000 blades, 70 % full, p99 of 200 states": 20,
    "A1 with a level more: p99 of 200 states": 20,
    "2,500 seats on 12,500 blades, 70 % full, p99 of 50 states": 50,
    "refusal of 2,048 seats on a full hall of 5,000": 1000,
    "A2: 10,000 seats on 16,000 blades": 100,
    "F2: refusal of 2,048 seats on a full hall of 12,500": 1000,
    "500 gangs wait on a full hall of 12,500": 1000,
    "700 gangs wait on a hall of 2,000, 100 are promised blades": 1000,
    "1,000 seats: whom to preempt on a full hall of 5,000": 500,
    "1,000 seats in slices of 16 per rack: whom to preempt on a full hall of 5,000": 500,
    "a blade lost and its seat moved, 12,500 blades": 200,
    "layout of 12,500 blades, at start": 1000,
}


def budgets(found: dict[str, float]) -> list[Budget]:
    """Return each figure beside its budget."""
    return [Budget(name, value, BUDGETS_MS[name], "ms") for name, value in found.items()]


async def run() -> list[Budget]:
    """Measure, write bench/results/engine.json, return the budgets."""
    found = await asyncio.to_thread(figures)
    kept = budgets(found)
    results.write("engine", {"ms": found}, kept)
    return kept
