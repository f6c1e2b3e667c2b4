"""A model in service, shown: what is trained is served, and not one streamed request is lost.

Four real kubelets with containers; only GPUs and engine play. While a client streams all the time,
the weights of a training job become a canary that is too slow, those of another are promoted, a
blade is doubted and its replica moves, and another blade loses its power under a replica.

A stream on a machine that dies is cut: nobody can save it. A request is not lost where its client
asks again, as clients do whose owners care (`max_retries` of OpenAI's does it until the answer
begins, the application after that). Rollouts and moves are planned: they must cut no stream.
"""

import asyncio
import shutil
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from tramontane.api.names import LABEL_INFERENCE
from tramontane.kube.resources import INFERENCEDEPLOYMENTS, TRAININGJOBS
from tramontane.lab.cluster import Lab, Setup, pool_of
from tramontane.lab.faults import parse_fault
from tramontane.lab.fleet import Layout
from tramontane.lab.invariants import Violation
from tramontane.lab.nodes.machine import INSTALL, lacking
from tramontane.lab.paths import LabError
from tramontane.lab.scenario import Findings, play
from tramontane.lab.serving import promises
from tramontane.lab.serving.deployment import deployment, install_engine, spec_of
from tramontane.lab.serving.job import training_job
from tramontane.lab.serving.model import write_model
from tramontane.lab.serving.promises import Candidate, Measured, digest_of, serving
from tramontane.lab.serving.streams import Streams
from tramontane.lab.timeline import Timeline
from tramontane.lab.watcher import Watcher

Raw = dict[str, Any]

NAME, NAMESPACE, POOL = "claims", "default", "paris-a"
NODES, REPLICAS = 4, 2
# The canary's time to the first token against that of what serves (s).
TTFT_S, SLOW_TTFT_S = 0.1, 0.15
# The judge looks at a window of a minute; the hold is a little longer.
_HOLD = "75s"
_AT_ONCE, _RETRIES, _SILENCE_S = 8, 5, 5.0
_TICK_S = 15.0
_PATIENCE_S = 60.0
_JUDGED_S = 150.0
_LOOK = (
    "kubectl get inferencedeployments,trainingjobs,gangs,pods,blades",
    f"kubectl get inferencedeployment {NAME} -o yaml    # revisions and verdicts, decisions",
    f"kubectl get endpointslices -l kubernetes.io/service-name={NAME}",
)


async def run(folder: Path, console: Console, *, keep: bool = False) -> int:
    """Run the scenario; returns 0, or 1 when a promise or an invariant was broken.

    Raises:
        LabError: something did not come up or did not happen in time.
    """
    layout = Layout(blades=0)
    setup = Setup(layout, pool=_pool(layout), real_nodes=NODES)
    opening = (
        f"{NODES} real kubelets with containers on this machine, each a blade of {layout.gpus} "
        "simulated GPUs; starting etcd, kube-apiserver, kube-controller-manager, operator, "
        "scheduler, agents"
    )
    return await play(folder, console, setup, opening, _story, keep=keep, look=_LOOK)


def check_machine() -> None:
    """Return if this machine can have real nodes.

    Raises:
        LabError: it cannot; the message says what it lacks.
    """
    if lacks := lacking():
        raise LabError(
            f"demo serve: the machine must be able to run real kubelets (it lacks "
            f"{', '.join(lacks)}); run it as root after `{INSTALL}`; the other scenarios "
            "need none of this"
        )


def _pool(layout: Layout) -> Raw:
    """Return a pool of which half may be out at once."""
    pool = pool_of(layout, POOL)
    pool["spec"]["remediation"] = {
        "maxUnavailable": NODES - 1,
        "breaker": {"threshold": "100%", "window": "1m"},
    }
    return pool


async def _story(lab: Lab, watcher: Watcher, timeline: Timeline) -> Findings:
    watcher.sick = frozenset()
    streams = Streams(
        lab.client, NAME, NAME, at_once=_AT_ONCE, retries=_RETRIES, silence_s=_SILENCE_S
    )
    show = _Show(lab, watcher, timeline, streams)
    await show.serve()
    async with streams.running():
        ticking = asyncio.create_task(show.tick())
        try:
            await show.reject("claims-ft1")
            await show.promote("claims-ft2")
            await show.doubt()
            before = Counter(streams.cut)
            await show.cut_power()
        finally:
            ticking.cancel()
    return show.findings(before)


@dataclass(slots=True)
class _Show:
    """The story, chapter by chapter."""

    lab: Lab
    watcher: Watcher
    timeline: Timeline
    streams: Streams
    found: Measured = field(default_factory=Measured)

    @property
    def shared(self) -> Path:
        """The file system that all blades share: jobs write, replicas read."""
        return self.lab.folder.resolve() / "shared"

    def status(self) -> Raw:
        status: Raw = self.watcher.deployments.cache.get(f"{NAMESPACE}/{NAME}", {}).get(
            "status", {}
        )
        return status

    async def until(self, what: str, see: Any, within_s: float = _PATIENCE_S) -> tuple[Any, float]:
        """Return what was seen, and when.

        Raises:
            LabError: it was not seen in time; the message has the status.
        """
        try:
            with self.timeline.during(what):
                return await self.watcher.until(what, see, timeout_s=within_s)
        except TimeoutError as error:
            raise LabError(f"{error}; {NAME} says: {self.status()}") from None

    async def tick(self) -> None:
        """Say every few seconds what was streamed by then."""
        while True:
            await asyncio.sleep(_TICK_S)
            one = self.streams
            self.timeline.say(
                f"{one.done:,} requests streamed, {one.cut.total()} cut, "
                f"{one.dropped.total()} lost",
                style="dim",
            )

    async def serve(self) -> None:
        """Serve a first revision, a directory that is on every blade."""
        for name in ("shared", "engine"):  # of a demo that stayed up
            shutil.rmtree(self.lab.folder.resolve() / name, ignore_errors=True)
        base = write_model(self.shared / "models" / "base", ttft=TTFT_S)
        engine = install_engine(self.lab.folder.resolve() / "engine")
        spec = spec_of(
            POOL,
            engine,
            base,
            replicas=REPLICAS,
            rollout={"steps": [{"weight": 50, "hold": _HOLD}], "drainTimeout": "30s"},
        )
        body = deployment(NAME, spec, NAMESPACE)
        await self.lab.client.apply(INFERENCEDEPLOYMENTS, body, manager="kubectl")
        self.timeline.say(f"asked: {NAME}, {REPLICAS} replicas of the weights in {base.name}/")
        replicas, at = await self.until("replicas serving", self._all_serve)
        self.timeline.good(
            f"serving on {_on(replicas)}; {_AT_ONCE} streams at a time from now", at=at
        )

    def _all_serve(self, revision: str = "", without: str = "") -> list[Raw] | None:
        """Return the replicas once as many as wanted serve, and none is left of anything else."""
        replicas = serving(self.status(), revision)
        calm = len(replicas) == REPLICAS and without not in _blades(replicas)
        return list(replicas) if calm else None

    async def _canary(self, job: str, seed: int, ttft_s: float, verdict: str) -> str:
        """Train, and have what comes of it served; returns the revision once a canary serves."""
        known = {one["hash"] for one in self.status()["revisions"]}
        path = self.shared / job / "final"
        path.parent.mkdir()
        body = training_job(job, POOL, path, self.shared, seed=seed, ttft=ttft_s)
        await self.lab.client.apply(TRAININGJOBS, body, manager="kubectl")
        source = {"hostPath": None, "trainingJob": {"name": job, "path": str(path)}}
        patch = {"spec": {"model": {"source": source}}}
        await self.lab.client.merge_patch(INFERENCEDEPLOYMENTS, NAME, patch, NAMESPACE)
        self.timeline.say(f"asked: TrainingJob {job}, and that {NAME} serve what it makes")
        await self.until("the wait for its weights", self._waits_or(known))
        if message := self.status().get("message"):
            self.timeline.say(f"{NAME} serves on: {message.partition(': ')[2]}")
        _, ended = await self.until("the job's end", lambda: self._job_is_over(job))
        self.timeline.good(f"{job} Succeeded; its weights are on the shared file system", at=ended)
        revision, _ = await self.until("a new revision", lambda: self._new(known))
        _, serves = await self.until(
            "the canary", lambda: (self.status().get("rollout") or {}).get("since")
        )
        canary = next(one for one in self.status()["replicas"] if one.get("revision") == revision)
        self.timeline.say(
            f"canary: revision {revision} of {job} on {', '.join(canary['blades'])} answers a "
            f"third of the requests, for {_HOLD}",
            at=serves,
        )
        self.found.seconds.setdefault("job Succeeded → its canary serves", serves - ended)
        self.found.candidates.append(Candidate(job, revision, digest_of(path), verdict))
        return str(revision)

    def _waits_or(self, known: set[str]) -> Any:
        return lambda: self.status().get("reason") == "SourceMissing" or self._new(known)

    def _new(self, known: set[str]) -> str | None:
        hash_ = (self.status().get("rollout") or {}).get("to")
        return hash_ if hash_ not in known else None

    def _job_is_over(self, job: str) -> bool:
        status = self.watcher.jobs.cache.get(f"{NAMESPACE}/{job}", {}).get("status", {})
        if status.get("phase") == "Failed":
            raise LabError(f"TrainingJob {job}: must succeed (got {status.get('message')})")
        return bool(status.get("phase") == "Succeeded")

    def _judged(self, revision: str) -> Raw | None:
        found = (one for one in self.status().get("revisions", ()) if one["hash"] == revision)
        seen: Raw = next(found, {})
        return seen if seen.get("verdict") in {"Accepted", "Rejected"} else None

    async def reject(self, job: str) -> None:
        """Let weights become a canary that is slower than what serves."""
        revision = await self._canary(job, 1, SLOW_TTFT_S, "Rejected")
        began = time.monotonic()
        seen, at = await self.until("a verdict", lambda: self._judged(revision), _JUDGED_S)
        self.found.seconds[promises.ROLLBACK] = at - began
        self.timeline.bad(f"{revision} {seen['verdict']}: {seen.get('why')}", at=at)
        stable = self.status()["revisions"][0]["hash"]
        _, at = await self.until("the old revision alone", lambda: self._all_serve(stable))
        self.timeline.good(f"rolled back: {stable} has all requests again", at=at)

    async def promote(self, job: str) -> None:
        """Let weights become a canary that is as quick as what serves."""
        revision = await self._canary(job, 2, TTFT_S, "Accepted")
        began = time.monotonic()
        seen, at = await self.until("a verdict", lambda: self._judged(revision), _JUDGED_S)
        if seen["verdict"] == "Rejected":
            raise LabError(f"revision {revision} must be Accepted (got: {seen.get('why')})")
        _, at = await self.until("the new revision alone", lambda: self._all_serve(revision))
        self.found.seconds["canary serves → promoted, the old one gone"] = at - began
        self.timeline.good(f"{revision} Accepted: it has all requests, the old one is gone", at=at)
        self.timeline.say(f"made by TrainingJob {seen.get('trainingJob')}, {seen.get('digest')}")

    async def doubt(self) -> None:
        """Let a blade have a fault that is only expected: its replica moves, and drains."""
        bad = _blades(self.status()["replicas"])[0]
        self.watcher.sick = frozenset({bad})
        async with self.lab.remote() as remote:
            began = time.monotonic()
            await remote.inject(bad, parse_fault("row-remap-pending"))
        self.timeline.bad(f"{bad} has a row of memory that needs a reset (XID 63); it still works")
        replicas, at = await self.until("a move", lambda: self._all_serve(without=bad))
        self.found.seconds["expected fault → moved, the old replica drained"] = at - began
        self.timeline.good(f"moved before it died: serving on {_on(replicas)}", at=at)

    async def cut_power(self) -> None:
        """Let a blade lose its power under a replica."""
        bad = _blades(self.status()["replicas"])[0]
        addresses = {
            f"{pod['status'].get('podIP')}:8000"
            for pod in self.watcher.pods.cache.values()
            if pod["spec"].get("nodeName") == bad and LABEL_INFERENCE in pod["metadata"]["labels"]
        }
        began = time.monotonic()
        self.timeline.bad(f"{bad} loses its power under a replica and its streams", at=began)
        await self.lab.nodes.power_off(bad)
        _, at = await self.until(
            "the way out of rotation", lambda: not addresses & {*self.streams.ready()}
        )
        self.found.seconds["no power → out of rotation"] = at - began
        self.timeline.say(
            "its replica is out of rotation; the client asks again what was cut", at=at
        )
        replicas, at = await self.until("service", lambda: self._all_serve(without=bad))
        self.found.seconds[f"no power → {REPLICAS} replicas serve again"] = at - began
        self.timeline.good(f"{REPLICAS} replicas again: serving on {_on(replicas)}", at=at)

    def findings(self, before: Counter[str]) -> Findings:
        """Return what was measured, once the last stream has ended."""
        found, streams = self.found, self.streams
        found.streamed, found.slowest_s = streams.done, streams.slowest_s
        found.cut_while_planned, found.cut_by_death = before, streams.cut - before
        found.lost = streams.dropped
        now = time.monotonic()
        violations = [
            Violation(promise, text, now) for promise, text in promises.broken(found, self.status())
        ]
        return Findings(
            rows=promises.rows(found),
            violations=[*violations, *self.watcher.violations()],
            tables=[promises.revisions(self.status())],
        )


def _blades(replicas: Any) -> list[str]:
    return sorted({blade for one in replicas for blade in one["blades"]})


def _on(replicas: Any) -> str:
    return " and ".join(_blades(replicas))
