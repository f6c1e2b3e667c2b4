"""A hall in which things break, as the stability tests see it.

One lab serves all tests of a module: starting it takes longer than most of them. A test submits
jobs, strikes blades, waits for what a job's status says, and mends what it broke.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tramontane.api.names import API_VERSION
from tramontane.api.quantity import parse_duration
from tramontane.kube.client import Client
from tramontane.kube.resources import PODS, TRAININGJOBS
from tramontane.lab.cluster import Lab, Setup, pool_of
from tramontane.lab.controlplane import NodeTiming, Options
from tramontane.lab.faults import parse_fault
from tramontane.lab.fleet import Layout
from tramontane.lab.kwokconfig import PodTiming
from tramontane.lab.remote import Remote
from tramontane.lab.watcher import Watcher, watching

Raw = dict[str, Any]

POOL, NAMESPACE = "paris-a", "default"
PATIENCE_S = 90.0
_STARTED = re.compile(r"event=started attempt=(\d+)")
_STEP = re.compile(r"step (\d+) ")
# How ranks train unless a test says otherwise; the names are those of `tramontane.lab.pace`.
PACE = {"STEP_TIME": "0.2", "START_TIME": "0.5", "SAVE_EVERY": "20"}


@dataclass(slots=True)
class Floor:
    """The running lab, a bystander, and what was seen of each job's status."""

    lab: Lab
    watcher: Watcher
    remote: Remote
    stories: dict[str, list[Raw]] = field(default_factory=dict)

    @property
    def client(self) -> Client:
        return self.lab.client

    async def submit(self, name: str, nodes: int, pace: Mapping[str, str], **spec: Any) -> None:
        """Create a job of so many blades; `pace` says how its ranks train, and what goes wrong."""
        body = {
            "apiVersion": API_VERSION,
            "kind": "TrainingJob",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {
                "nodePool": POOL,
                "nodes": nodes,
                "maxRuntime": "24h",
                "template": {"spec": {"containers": [_trainer(pace)]}},
                **spec,
            },
        }
        self.stories[name] = []
        await self.client.create(TRAININGJOBS, body)

    async def change(self, name: str, **spec: Any) -> None:
        await self.client.merge_patch(TRAININGJOBS, name, {"spec": spec}, NAMESPACE)

    async def remove(self, *names: str) -> None:
        """Delete jobs, and return when their pods are gone."""
        for name in names:
            await self.client.delete(TRAININGJOBS, name, NAMESPACE, propagation="Background")
        for name in names:
            gone = partial(self._is_gone, name)
            await self.watcher.until(f"the end of {name}", gone, timeout_s=PATIENCE_S)

    def _is_gone(self, name: str) -> bool:
        return not self.pods(name) and not self.gang(name)

    async def delete_pod(self, name: str, seat: int) -> None:
        """Delete a pod as a person would: with its grace."""
        await self.client.delete(PODS, f"{name}-{seat}", NAMESPACE)

    def status(self, name: str) -> Raw:
        status: Raw = self.watcher.jobs.cache.get(f"{NAMESPACE}/{name}", {}).get("status", {})
        return status

    def gang(self, name: str) -> Raw:
        """Return a job's Gang; empty while there is none."""
        return self.watcher.gangs.cache.get(f"{NAMESPACE}/{name}", {})

    def placement(self, name: str) -> Raw:
        placement: Raw = self.gang(name).get("status", {}).get("placement") or {}
        return placement

    def pods(self, name: str) -> dict[int, Raw]:
        return self.watcher.pods_of(f"{NAMESPACE}/{name}")

    def uids(self, name: str) -> dict[int, str]:
        return {seat: pod["metadata"]["uid"] for seat, pod in self.pods(name).items()}

    def blade(self, name: str, seat: int) -> str:
        """Return the blade that a seat's pod is on."""
        return str(self.pods(name)[seat]["spec"]["nodeName"])

    async def until(
        self, name: str, what: str, holds: Callable[[Raw], Any], timeout_s: float = PATIENCE_S
    ) -> Raw:
        """Return a job's status as soon as it is as wanted; fail with all that is known if not."""
        try:
            await self.watcher.until(
                what, lambda: bool(holds(self.status(name))), timeout_s=timeout_s
            )
        except TimeoutError:
            pytest.fail(
                f"{name} must become {what} (got {self.status(name)}; "
                f"gang: {self.gang(name).get('status')})"
            )
        return self.status(name)

    async def running(self, name: str, attempt: int = 1) -> Raw:
        """Return the status once the job runs in at least its `attempt`th life."""
        return await self.until(
            name,
            f"Running in attempt {attempt}",
            lambda s: s.get("phase") == "Running" and s.get("attempt", 0) >= attempt,
        )

    async def stepping(self, name: str, step: int = 1, attempt: int = 1) -> Raw:
        """Return the status once the job runs in such a life, and its log shows such a step.

        The status tells steps too, but not sooner than 10 s after it was written last.
        """
        status = await self.running(name, attempt)
        deadline = time.monotonic() + PATIENCE_S
        while await self.step(name, attempt) < step:
            if time.monotonic() > deadline:
                pytest.fail(f"{name} must reach step {step} (got the log {await self.log(name)})")
            await asyncio.sleep(0.2)
        return status

    async def told_step(self, name: str) -> int:
        """Return the job's newest step, once its status has told any: its log is being read."""
        await self.until(name, "told to step", lambda s: "step" in s)
        return await self.step(name)

    async def step(self, name: str, attempt: int = 1) -> int:
        """Return the newest step of the log's newest life; 0 before its first, or before such."""
        life, step = 0, 0
        for line in await self.log(name):
            if started := _STARTED.search(line):
                life, step = int(started[1]), 0
            elif stepped := _STEP.match(line):
                step = int(stepped[1])
        return step if life >= attempt else 0

    async def strike(self, fault: str, *blades: str) -> None:
        """Let blades have a fault, all at once."""
        await asyncio.gather(
            *(self.remote.inject(blade, parse_fault(fault, gpu=3)) for blade in blades)
        )

    async def mend(self, *blades: str) -> None:
        """Repair blades, and return when all blades are Healthy."""
        for blade in blades:
            await self.remote.clear(blade)
        await self.watcher.until("all blades Healthy", self._all_healthy, timeout_s=PATIENCE_S)

    async def clear(self, *kept: str) -> None:
        """Remove all jobs but those, and mend all blades."""
        there = {key.partition("/")[2] for key in self.watcher.jobs.cache}
        await self.remove(*sorted(there - set(kept)))
        await self.mend(*await self.remote.faults())

    def _all_healthy(self) -> bool:
        return all(
            blade.get("status", {}).get("state") == "Healthy"
            for blade in self.watcher.blades.cache.values()
        )

    async def log(self, name: str, seat: int = 0) -> list[str]:
        """Return what a seat's pod has printed."""
        async with self.client.pod_log(
            NAMESPACE, f"{name}-{seat}", container="trainer", follow=False
        ) as lines:
            return [line.decode().rstrip("\n") async for line in lines]

    def phases(self, name: str) -> list[str]:
        """Return the phases that the job's status has gone through, without repeats."""
        found: list[str] = []
        for status in self.stories.get(name, ()):
            phase = status.get("phase", "")
            if phase and found[-1:] != [phase]:
                found.append(phase)
        return found

    def _note(self, key: str, _old: Raw | None, new: Raw | None) -> None:
        name = key.partition("/")[2]
        if new is not None and name in self.stories:
            self.stories[name].append(new.get("status", {}))

    @contextmanager
    def survivors(self, name: str, *lost: int) -> Iterator[None]:
        """See that all other seats keep their pods, however often their ranks restart."""
        before = self.uids(name)
        yield
        after = self.uids(name)
        assert after.keys() == before.keys()
        moved = {seat for seat, uid in before.items() if after[seat] != uid}
        assert moved == set(lost)


def _trainer(pace: Mapping[str, str]) -> Raw:
    env = [
        {"name": f"TRAMONTANE_LAB_{knob}", "value": value}
        for knob, value in {**PACE, **pace}.items()
    ]
    return {
        "name": "trainer",
        "image": "registry.example/train:1",
        "command": ["torchrun", "train.py"],
        "env": env,
    }


def took_s(duration: str | None) -> float:
    """Return the seconds of an incident's duration, which must be there."""
    assert duration is not None
    return parse_duration(duration)


@asynccontextmanager
async def a_floor(folder: Path, blades: int) -> AsyncIterator[Floor]:
    """Yield a lab with so many healthy blades, operator and scheduler as processes."""
    layout = Layout(blades=blades, rack=8)
    # A kubelet needs a second or more to take a pod away whose containers have ended.
    options = Options(nodes=NodeTiming.for_blades(blades), pods=PodTiming(terminate_ms=(900, 1500)))
    pool = pool_of(layout, POOL)
    pool["spec"]["health"] = {"clearAfter": "1s"}
    async with (
        Lab(folder, Setup(layout, pool=pool, options=options)) as lab,
        watching(lab.client) as watcher,
        lab.remote() as remote,
    ):
        floor = Floor(lab, watcher, remote)
        watcher.jobs.add_listener(floor._note)
        yield floor
