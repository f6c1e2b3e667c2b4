"""Train every TrainingJob's gang that runs on simulated blades.

One asyncio task per job looks at the job's pods, moves its training on (`training.advance`) and
writes what rank 0 prints into that pod's log. The last checkpoint lives here, per job uid, as
on a file system that outlives the pods.
"""

import asyncio
import contextlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tramontane.api import clock
from tramontane.api.names import ANNOTATION_EPOCH, LABEL_JOB, LABEL_SEAT, TRAINER_CONTAINER
from tramontane.kube.client import ApiError, Client, NotFound
from tramontane.kube.informer import Informer
from tramontane.kube.resources import GANGS, PODS
from tramontane.lab.logs import PodLog
from tramontane.lab.training import Pace, Phase, Rank, Training, advance, after_exit

_ENV_NODES = "TRAMONTANE_NODES"
_SETTLE_S = 0.05  # pods change in crowds; look once
_RESTART_S = 1.0  # what a kubelet takes for the first restart of a container


@dataclass(frozen=True, slots=True)
class TrainerPod:
    """What training needs to know of a pod."""

    namespace: str
    name: str
    uid: str
    job: str
    job_uid: str
    seat: int
    node: str
    phase: str
    deleting: bool
    epoch: str
    restarts: int
    env: Mapping[str, str] = field(repr=False)

    @property
    def job_key(self) -> str:
        """The job's namespace and name."""
        return f"{self.namespace}/{self.job}"


def trainer_container(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the container that runs the rank: the one named trainer, else the first."""
    containers: list[dict[str, Any]] = spec["containers"]
    named = (one for one in containers if one["name"] == TRAINER_CONTAINER)
    return next(named, containers[0])


def decode_trainer(raw: Mapping[str, Any]) -> TrainerPod:
    """Read one pod of a job."""
    meta, spec, status = raw["metadata"], raw["spec"], raw.get("status", {})
    owners = meta.get("ownerReferences") or [{}]
    env = trainer_container(spec).get("env", ())
    seat = meta["labels"].get(LABEL_SEAT, "0")
    return TrainerPod(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta["uid"],
        job=meta["labels"][LABEL_JOB],
        job_uid=owners[0].get("uid", f"{meta['namespace']}/{meta['labels'][LABEL_JOB]}"),
        seat=int(seat) if seat.isdecimal() else 0,
        node=spec.get("nodeName", ""),
        phase=status.get("phase", "Pending"),
        deleting="deletionTimestamp" in meta,
        epoch=meta.get("annotations", {}).get(ANNOTATION_EPOCH, ""),
        restarts=sum(one.get("restartCount", 0) for one in status.get("containerStatuses", ())),
        env={
            entry["name"]: entry["value"]
            for entry in env
            if entry["name"].startswith("TRAMONTANE_") and "value" in entry
        },
    )


def decode_size(raw: Mapping[str, Any]) -> int:
    """Read how many seats a gang has now; 0 while it has no place."""
    placement = raw.get("status", {}).get("placement") or {}
    return int(placement.get("size") or len(placement.get("seats", ())))


class Jobs:
    """All jobs of one cluster, and the logs of their pods."""

    def __init__(
        self, client: Client, now: Callable[[], float], trouble: Callable[[str], str]
    ) -> None:
        self._client = client
        self._now = now
        self._trouble = trouble  # of a blade: what its ranks die of, or ""
        self._pods = Informer(client, PODS, decode_trainer, label_selector=LABEL_JOB)
        self._pods.add_index("job", lambda pod: (pod.job_key,))
        self._pods.add_listener(self._pod_changed)
        self._gangs = Informer(client, GANGS, decode_size)
        self._gangs.add_listener(lambda key, _old, _new: self._wake(key))
        self._logs: dict[str, tuple[str, PodLog]] = {}
        self._checkpoints: dict[str, Training] = {}
        self._wakes: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Train for ever."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pods.run())
                group.create_task(self._gangs.run())
        finally:
            for task in self._tasks.values():
                task.cancel()

    async def wait_synced(self) -> None:
        """Return when the pods and gangs that there are have been seen."""
        await self._pods.wait_synced()
        await self._gangs.wait_synced()

    def log_of(self, namespace: str, name: str) -> PodLog | None:
        """Return the log of a job's pod."""
        found = self._logs.get(f"{namespace}/{name}")
        return found[1] if found else None

    def blade_changed(self) -> None:
        """Look at all jobs again: a blade has got a fault, or lost one."""
        for wake in self._wakes.values():
            wake.set()

    def _pod_changed(self, key: str, old: TrainerPod | None, new: TrainerPod | None) -> None:
        if old and (new is None or new.uid != old.uid) and (log := self._logs.pop(key, None)):
            log[1].end()
        if new and key not in self._logs:
            self._logs[key] = (new.uid, PodLog())
        if pod := new or old:
            if pod.job_key not in self._tasks and new:
                self._wakes[pod.job_key] = asyncio.Event()
                self._tasks[pod.job_key] = asyncio.create_task(self._train(pod.job_key))
            self._wake(pod.job_key)

    def _wake(self, job: str) -> None:
        if wake := self._wakes.get(job):
            wake.set()

    async def _train(self, job: str) -> None:
        """Train one job until it has no pods any more."""
        wake = self._wakes[job]
        said: set[str] = set()
        while pods := self._pods.by_index("job", job):
            wake.clear()
            uid = pods[0].job_uid
            pace = Pace.of(pods[0].env)
            ranks = [self._rank(pod, said) for pod in pods]
            before = self._checkpoints.get(uid, Training())
            training, lines = advance(before, ranks, self._size(job, pods), pace, self._now())
            self._checkpoints[uid] = training
            self._print(pods, lines)
            if training.phase is Phase.ENDED and before.phase is not Phase.ENDED:
                await self._end(pods, pace.exit_code)
                if pace.exit_code:
                    self._checkpoints[uid] = after_exit(training)
            pause = training.due - self._now()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(wake.wait(), None if pause == math.inf else max(0, pause))
                await asyncio.sleep(_SETTLE_S)
        del self._tasks[job], self._wakes[job]

    def _size(self, job: str, pods: list[TrainerPod]) -> int:
        """Return how many ranks the job has now: its gang knows, else its pods do."""
        return self._gangs.cache.get(job) or int(pods[0].env.get(_ENV_NODES, len(pods)))

    def _rank(self, pod: TrainerPod, said: set[str]) -> Rank:
        """Look at one pod as a rank; its own log gets the last words of a rank that died."""
        trouble = self._trouble(pod.node)
        life = f"{pod.uid}/{pod.restarts}"
        up = pod.phase == "Running" and not pod.deleting
        if trouble and up and life not in said and (log := self.log_of(pod.namespace, pod.name)):
            said.add(life)
            log.write(self._now(), f"rank {pod.seat}: {trouble}")
        return Rank(pod.seat, life, pod.epoch, up and not trouble, trouble)

    def _print(self, pods: list[TrainerPod], lines: tuple[str, ...]) -> None:
        first = next((pod for pod in pods if pod.seat == 0 and not pod.deleting), None)
        log = self.log_of(first.namespace, first.name) if first else None
        if log:
            for line in lines:
                log.write(self._now(), line)

    async def _end(self, pods: list[TrainerPod], code: int) -> None:
        """Let the ranks' containers end: all of them well, or rank 0 with `code`."""
        ending = [pod for pod in pods if code == 0 or pod.seat == 0]
        if code:
            await asyncio.sleep(_RESTART_S)
        async with asyncio.TaskGroup() as group:
            for pod in ending:
                group.create_task(self._end_pod(pod, code))

    async def _end_pod(self, pod: TrainerPod, code: int) -> None:
        try:
            raw = await self._client.get(PODS, pod.name, pod.namespace)
            if raw["metadata"]["uid"] == pod.uid:
                status = ended_status(raw, code, clock.utc(self._now()))
                patch = {"metadata": {"uid": pod.uid}, "status": status}
                await self._client.merge_patch(
                    PODS, pod.name, patch, pod.namespace, subresource="status"
                )
        except (NotFound, ApiError):
            return  # deleted meanwhile: nobody will miss its end


def ended_status(raw: Mapping[str, Any], code: int, now: str) -> dict[str, Any]:
    """Return the status a kubelet writes when the trainer's container exits with `code`.

    | code | restartPolicy  | pod                              |
    |------|----------------|----------------------------------|
    | 0    | Always         | runs on, restarted               |
    | 0    | other          | Succeeded                        |
    | else | Never          | Failed                           |
    | else | other          | runs on, restarted               |
    """
    policy = raw["spec"].get("restartPolicy", "Always")
    restarts = policy == "Always" or (code != 0 and policy != "Never")
    name = trainer_container(raw["spec"])["name"]
    ended = {
        "terminated": {
            "exitCode": code,
            "reason": "Error" if code else "Completed",
            "finishedAt": now,
        }
    }
    containers = []
    for container in raw["status"].get("containerStatuses", ()):
        if container["name"] != name:
            containers.append(container)
        elif restarts:
            change = {
                "restartCount": container["restartCount"] + 1,
                "lastState": ended,
                "state": {"running": {"startedAt": now}},
            }
            containers.append({**container, **change})
        else:
            change = {"ready": False, "started": False, "state": ended}
            containers.append({**container, **change})
    if restarts:
        return {"containerStatuses": containers}
    return {"phase": "Failed" if code else "Succeeded", "containerStatuses": containers}
