"""Measure the scheduler's decisions without an API server, in milliseconds of CPU.

Times are of whole passes
(snapshot and decision), the fleet being laid out already; the worst one counts, not the mean.
"""

import asyncio
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
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

NOW = 1_000_000.0
LEVELS = (("block", "topology/block"), ("rack", "topology/rack"))
CAPACITY = amounts({GPU: "8", "cpu": "192", "memory": "2Ti"})
WHOLE = Ask(amounts({GPU: "8", "cpu": "64", "memory": "512Gi"}))
RACK, RACKS_PER_BLOCK = 16, 8


class World:
    """A hall of `blades`, with gangs and pods on it."""

    def __init__(self, blades: int) -> None:
        self.pools = {"p": PoolRecord("p", LEVELS)}
        self.blades: dict[str, BladeRecord] = {}
        self.nodes: dict[str, NodeRecord] = {}
        self.gangs: dict[str, GangRecord] = {}
        self.pods = Pods()
        for number in range(blades):
            name = f"gpu-{number:05d}"
            labels = {
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


def fleet_of(share: float, blades: int, seed: int = 1) -> World:
    """Return a hall in use by that share."""
    world = World(blades)
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
    found["A1: 1,000 seats on 5,000 blades, 70 % full, worst of 50 states"] = _states()
    huge, hall = gang("ns/new", 10_000), fleet_of(0.2, 16_000)
    assert placed(hall.decide(huge))
    found["A2: 10,000 seats on 16,000 blades"] = max(times_ms(lambda: hall.decide(huge), 5))
    full = fleet_of(0.97, 12_500)
    found["F2: refusal of 2,048 seats on a full hall of 12,500"] = max(
        times_ms(lambda: full.decide(big), 10)
    )
    waiting = [gang(f"ns/w{i}", 500 + i % 100) for i in range(500)]
    found["500 gangs wait on a full hall of 12,500"] = max(
        times_ms(lambda: full.decide(*waiting), 3)
    )
    found |= _recovery()
    found["layout of 12,500 blades, at start"] = max(
        times_ms(lambda: build_fleet(world.blades, world.nodes, world.pools), 3)
    )
    return {name: round(value, 2) for name, value in found.items()}


def _states() -> float:
    taken = []
    for seed in range(50):
        world = fleet_of(0.7, 5_000, seed)
        new = gang("ns/new", 1000)
        assert placed(world.decide(new))
        taken.append(statistics.median(times_ms(lambda: world.decide(new), 3)))  # noqa: B023 - run at once
    return max(taken)


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
    "A1: 1,000 seats on 5,000 blades, 70 % full, worst of 50 states": 20,
    "A2: 10,000 seats on 16,000 blades": 100,
    "F2: refusal of 2,048 seats on a full hall of 12,500": 1000,
    "500 gangs wait on a full hall of 12,500": 1000,
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
