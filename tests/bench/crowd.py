"""200 jobs of 16 blades at once on a hall of 1,024: 64 run, whole, and the others know why not.

    make bench ARGS=crowd

Beside it, in the same lab, a bare client creates as many pods as the 64 have. Counted are the
seconds from the first request until the pods of 64 jobs are on their nodes, the writes that each
waiting Gang cost, and every gang that was ever seen partly placed.
"""

import asyncio
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench import results
from bench.results import Budget
from bench.start import bare_client, pod_times
from tramontane.api.names import LABEL_JOB
from tramontane.kube.client import Client
from tramontane.kube.informer import Informer
from tramontane.kube.resources import GANGS, TRAININGJOBS
from tramontane.lab.cluster import Lab, Setup, pool_of
from tramontane.lab.demo import training_job
from tramontane.lab.fleet import Layout
from tramontane.lab.watcher import watching

BLADES, JOBS, SEATS = 1024, 200, 16
FIT = BLADES // SEATS
RATIO, ALLOWANCE_S, WRITES = 1.5, 2.0, 3
_SETTLE_S = 15.0
ROUNDS = 3


class GangWrites:
    """Count how often each Gang was written, as a watch shows it, its creation included."""

    def __init__(self, client: Client) -> None:
        self.seen: Counter[str] = Counter()
        self.status: dict[str, Mapping[str, Any]] = {}
        self.informer = Informer[dict[str, Any]](client, GANGS, lambda raw: raw)
        self.informer.add_listener(self._on_gang)

    def _on_gang(self, key: str, _: object, new: dict[str, Any] | None) -> None:
        self.seen[key] += 1
        self.status[key] = (new or {}).get("status") or {}

    @property
    def waiting(self) -> list[str]:
        """Return the gangs without a place."""
        return sorted(key for key, status in self.status.items() if not status.get("placement"))


async def run() -> list[Budget]:
    """Measure, write bench/results/crowd.json, return the budgets."""
    layout = Layout(blades=BLADES)
    ours: list[float] = []
    bare: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        setup = Setup(layout, pool=pool_of(layout), log_level="warning")
        async with Lab(Path(folder), setup) as lab:
            waiting, reasons, most, broken = await _watched(lab)
            for number in range(ROUNDS):  # without observers, which would take a share of two cores
                seconds, pod = await _crowd(lab, f"r{number}")
                await _clear(lab)
                ours.append(seconds)
                bare.append(await bare_client(lab, Path(folder), pod, FIT * SEATS))
                print(f"  round {number}: bare {bare[-1]:.2f} s, ours {ours[-1]:.2f} s", flush=True)
    seconds, bare_s = statistics.median(ours), statistics.median(bare)
    budgets = [
        Budget(
            f"{JOBS} jobs, created → {FIT} on their blades",
            seconds,
            round(bare_s * RATIO + ALLOWANCE_S, 3),
            f"s; bare client {bare_s:.2f} s",
        ),
        Budget("gangs that wait, less those expected", abs(len(waiting) - (JOBS - FIT)), 0),
        Budget("gangs that wait without a reason", reasons[""], 0),
        Budget("writes of a waiting Gang, most", most, WRITES),
        Budget("invariants broken", len(broken), 0),
    ]
    figures = {
        "blades": BLADES,
        "jobs": JOBS,
        "seats": SEATS,
        "bare_s": results.summary(bare),
        "ours_s": results.summary(ours),
        "reasons": dict(reasons),
        "broken": broken[:5],
    }
    results.write("crowd", figures, budgets)
    return budgets


async def _watched(lab: Lab) -> tuple[list[str], Counter[str], int, list[str]]:
    """Return who waits, why, the most writes of one of them, and what was broken meanwhile."""
    async with watching(lab.client) as watcher:
        writes = GangWrites(lab.client)
        following = asyncio.create_task(writes.informer.run())
        await writes.informer.wait_synced()
        try:
            await _crowd(lab, "watched")
            await asyncio.sleep(_SETTLE_S)
        finally:
            following.cancel()
        waiting = writes.waiting
        reasons = Counter(str(writes.status[key].get("reason", "")) for key in waiting)
        most = max(writes.seen[key] - 1 for key in waiting)  # less its creation
        await _clear(lab)
        return waiting, reasons, most, [str(one) for one in watcher.violations()]


async def _crowd(lab: Lab, name: str) -> tuple[float, dict[str, Any]]:
    """Create all jobs at once; returns the seconds until those that fit are there, and a pod."""
    jobs = [training_job(f"{name}-{n:03d}", SEATS, "paris-a", spares=0) for n in range(JOBS)]
    async with pod_times(lab.client, LABEL_JOB) as times:
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for job in jobs:
                group.create_task(lab.client.create(TRAININGJOBS, job, "default"))
        last = await times.all_bound(FIT * SEATS)
        return last - began, next(iter(times.informer.cache.values()))


async def _clear(lab: Lab) -> None:
    async with asyncio.TaskGroup() as group:
        for job in await lab.client.list_all(TRAININGJOBS, "default"):
            name = job["metadata"]["name"]
            group.create_task(
                lab.client.delete(TRAININGJOBS, name, "default", propagation="Background")
            )
    async with pod_times(lab.client, LABEL_JOB) as times, asyncio.timeout(120):
        while times.informer.cache:  # noqa: ASYNC110 - a watch fills it
            await asyncio.sleep(0.2)
    await asyncio.sleep(3)
