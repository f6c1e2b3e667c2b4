"""Train a small model on real nodes and hear all of it: a test breaks things meanwhile.

    async with training(tier, "cut", jax_template) as run:
        await run.past(30)                       # all ranks have done step 30
        await tier.nodes.power_off(run.node(2))
        status = await run.finished()
    run.weights, run.resumed(), run.rework()

What ranks print is read through the API server as it comes, from every pod that the job ever has:
a log goes with its pod. A node without power takes the last lines with it.
"""

import asyncio
import contextlib
import json
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from node.harness import POOL, Tier, until
from tramontane.api.names import API_VERSION, LABEL_JOB, LABEL_SEAT
from tramontane.kube.client import Client
from tramontane.kube.errors import ApiError, NotFound, Unreachable
from tramontane.kube.resources import PODS, TRAININGJOBS

NAMESPACE = "default"
RANKS = 3
# Long enough that a fault that is seen late still falls into the run.
STEPS, SAVE_EVERY, STEP_S = 320, 20, 0.05
PATIENCE_S = 90.0
_POLL_S = 0.1
# Of the rank itself: the agent's own command line begins with the agent.
_RANK = r"^\S*python\S* (-u )?\S*train_\w+\.py"

Raw = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a rank's log."""

    seat: int
    text: str
    at: float  # when it came (monotonic s)


@dataclass(slots=True)
class Run:
    """A training job, and all that its ranks have said."""

    tier: Tier
    client: Client
    name: str
    lines: list[Line] = field(default_factory=list, repr=False)
    struck_at: float = 0.0  # when the test broke something (monotonic s)
    _seen: dict[int, Raw] = field(default_factory=dict, repr=False)  # newest pod of each seat
    _readers: dict[str, asyncio.Task[None]] = field(default_factory=dict, repr=False)

    @property
    def folder(self) -> Path:
        """The folder that the ranks share."""
        return self.tier.shared / self.name

    @property
    def weights(self) -> str:
        """The digest of what was trained."""
        return (self.folder / "weights.sha256").read_text().strip()

    async def submit(self, template: Raw, **spec: Any) -> None:
        """Create the job."""
        self.folder.mkdir()
        body = {
            "apiVersion": API_VERSION,
            "kind": "TrainingJob",
            "metadata": {"name": self.name, "namespace": NAMESPACE},
            "spec": {"nodePool": POOL, "nodes": RANKS, "template": template, **spec},
        }
        await self.client.create(TRAININGJOBS, body)

    async def change(self, **spec: Any) -> None:
        await self.client.merge_patch(TRAININGJOBS, self.name, {"spec": spec}, NAMESPACE)

    async def status(self) -> Raw:
        found = await self.client.get(TRAININGJOBS, self.name, NAMESPACE)
        return dict(found.get("status") or {})

    async def in_phase(self, *phases: str) -> Raw:
        """Return the status once the job is in one of the phases."""
        status: Raw = {}

        async def reached() -> bool:
            nonlocal status
            status = await self.status()
            return status.get("phase") in phases

        await self._until(reached, " or ".join(phases))
        return status

    async def finished(self) -> Raw:
        """Return the status of the job that has succeeded."""
        status = await self.in_phase("Succeeded", "Failed")
        assert status["phase"] == "Succeeded", status.get("message")
        await self._until(self._all_read, "whole log")
        sys.stdout.write(f"{self.name} {json.dumps(status['incidents'], indent=1)}\n")
        return status

    async def _all_read(self) -> bool:
        return self.steps(1)[-1:] == [STEPS]

    async def past(self, step: int, seats: Sequence[int] = range(RANKS)) -> None:
        """Return when these seats have done a step."""

        async def done() -> bool:
            return all(max(self.steps(seat), default=0) >= step for seat in seats)

        await self._until(done, f"past step {step}")

    def struck(self) -> None:
        """Note that something is about to break."""
        self.struck_at = time.monotonic()

    async def steps_again(self) -> float:
        """Return how long after it was struck seat 1 stepped first in its next life (s)."""

        async def stepped() -> bool:
            return self._again_at() is not None

        await self._until(stepped, "stepping again")
        at = self._again_at()
        assert at is not None
        return at - self.struck_at

    def _again_at(self) -> float | None:
        resumed = False
        for line in self.lines:
            if line.seat != 1 or line.at < self.struck_at:
                continue
            resumed = resumed or line.text.startswith("resuming from")
            if resumed and line.text.startswith("step "):
                return line.at
        return None

    async def _until(self, holds: Callable[[], Awaitable[bool]], what: str) -> None:
        try:
            await until(holds, f"{self.name} {what}", PATIENCE_S)
        except AssertionError as error:
            last = "\n".join(f"{one.seat}: {one.text}" for one in self.lines[-40:])
            raise AssertionError(f"{error}; {await self.status()}\n{last}") from None

    def node(self, seat: int) -> str:
        """Return where a seat's newest pod is."""
        return str(self._seen[seat]["spec"]["nodeName"])

    def uids(self) -> dict[int, str]:
        """Return the uid of each seat's newest pod."""
        return {seat: str(pod["metadata"]["uid"]) for seat, pod in self._seen.items()}

    def signal(self, seat: int, number: signal.Signals) -> None:
        """Signal a seat's rank process; its agent is not asked."""
        self.tier.nodes.signal(self.node(seat), _RANK, number)

    def steps(self, seat: int) -> list[int]:
        """Return the steps that a seat has done, as often as it did them."""
        return self._numbers(seat, r"^step (\d+) ")

    def resumed(self, seat: int = 1) -> list[int]:
        """Return the steps of the checkpoints that a seat went on from."""
        return self._numbers(seat, r"^resuming from checkpoint step=(\d+)$")

    def rework(self) -> int:
        """Return how many steps seat 1 did again; it must have done all others exactly once."""
        [resumed] = self.resumed()
        steps, rest = self.steps(1), [*range(resumed + 1, STEPS + 1)]
        before = steps[: -len(rest)]
        assert steps == [*range(1, len(before) + 1), *rest]
        return len(before) - resumed

    def _numbers(self, seat: int, pattern: str) -> list[int]:
        found = (re.match(pattern, line.text) for line in self.lines if line.seat == seat)
        return [int(match[1]) for match in found if match]

    async def listen(self) -> None:
        """Follow the logs of all pods that the job gets, until cancelled."""
        try:
            while True:
                with contextlib.suppress(ApiError, Unreachable):
                    await self._look()
                await asyncio.sleep(_POLL_S)
        finally:
            for task in self._readers.values():
                task.cancel()
            await asyncio.gather(*self._readers.values(), return_exceptions=True)

    async def _look(self) -> None:
        pods = await self.client.list_all(PODS, NAMESPACE)
        for pod in sorted(pods, key=lambda one: str(one["metadata"]["creationTimestamp"])):
            labels = pod["metadata"].get("labels", {})
            if labels.get(LABEL_JOB) != self.name or LABEL_SEAT not in labels:
                continue
            seat, uid = int(labels[LABEL_SEAT]), pod["metadata"]["uid"]
            self._seen[seat] = pod
            if uid not in self._readers and pod["status"].get("phase") != "Pending":
                reading = self._read(seat, pod["metadata"]["name"], uid)
                self._readers[uid] = asyncio.create_task(reading)

    async def _read(self, seat: int, pod: str, uid: str) -> None:
        """Read a pod's log to its end, each line once."""
        had, over = 0, False
        while not over:
            # Looked at before: what it has said by then is read now.
            over = self._is_over(seat, uid)
            with contextlib.suppress(ApiError, Unreachable):
                async with self.client.pod_log(NAMESPACE, pod, follow=True) as lines:
                    count = 0
                    async for line in lines:
                        count += 1
                        if count > had:
                            had = count
                            self._hear(Line(seat, line.decode(), time.monotonic()))
            await asyncio.sleep(_POLL_S)

    def _hear(self, line: Line) -> None:
        self.lines.append(line)
        if not line.text.startswith("step "):  # pytest shows it where a test fails
            after_s = line.at - (self.struck_at or line.at)
            sys.stdout.write(f"{after_s:7.2f} {self.name}-{line.seat} {line.text}\n")

    def _is_over(self, seat: int, uid: str) -> bool:
        newest = self._seen[seat]
        ended = newest["status"].get("phase") in {"Succeeded", "Failed"}
        return ended or newest["metadata"]["uid"] != uid


@contextlib.asynccontextmanager
async def training(
    tier: Tier, name: str, template: Callable[[Tier, Path], Raw], **spec: Any
) -> AsyncIterator[Run]:
    """Submit a job of three ranks and a spare, and listen to it while the block lasts."""
    async with await tier.client() as client:
        run = Run(tier, client, name)
        listening = asyncio.create_task(run.listen())
        try:
            await run.submit(template(tier, run.folder), **{**_SPEC, **spec})
            yield run
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
            with contextlib.suppress(NotFound):
                await client.delete(TRAININGJOBS, name, NAMESPACE, propagation="Background")


_SPEC: Raw = {
    "spares": 1,
    "launcher": {"type": "jax", "procsPerNode": 1},
    "recovery": {
        "nodeLostAfter": "5s",
        "userFailures": {"max": 1, "window": "24h"},
        "backoff": {"base": "1s", "max": "10s"},
    },
    "checkpoint": {"grace": "20s"},
}
