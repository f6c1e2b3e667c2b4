"""Train every TrainingJob's gang that runs on simulated blades.

One asyncio task per job looks at the job's pods, moves its training on (`training.advance`),
writes what the ranks and their agents print into the pods' logs, and ends the containers of ranks
that have ended. The last checkpoint lives here, per job uid, as on a file system that outlives the
pods.
"""

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from tramontane.api import clock
from tramontane.api.names import (
    ANNOTATION_DRAIN,
    ANNOTATION_EPOCH,
    LABEL_JOB,
    LABEL_SEAT,
    TRAINER_CONTAINER,
)
from tramontane.kube.client import ApiError, Client, NotFound
from tramontane.kube.errors import Conflict, Unreachable
from tramontane.kube.informer import Informer
from tramontane.kube.resources import GANGS, PODS
from tramontane.lab.faults import KINDS
from tramontane.lab.logs import NoAnswer, PodLog
from tramontane.lab.pace import Pace
from tramontane.lab.ranks import BACKOFF_S, WAIT_S, Rank
from tramontane.lab.training import Exit, Line, Training, advance

log = logging.getLogger(__name__)

_ENV_NODES = "TRAMONTANE_NODES"
_ENV_WAIT = "TRAMONTANE_AGENT_WAIT_S"
_ENV_BACKOFF = "TRAMONTANE_AGENT_BACKOFF_S"
_AGENT_FILE = "rankagent.py"
# What ranks on a blade without power would say, if they could.
_DARK = frozenset(kind.trouble for kind in KINDS.values() if kind.power)
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
    epoch: int
    drain: int
    restarts: int
    agent: bool  # the rank agent is PID 1
    env: Mapping[str, str] = field(repr=False)

    @property
    def job_key(self) -> str:
        """The job's namespace and name."""
        return f"{self.namespace}/{self.job}"

    def rank(self, trouble: str) -> Rank:
        """Return the pod as a rank; `trouble` is what its blade makes ranks die of."""
        return Rank(
            seat=self.seat,
            life=f"{self.uid}/{self.restarts}",
            epoch=self.epoch,
            up=self.phase == "Running",
            dark=trouble in _DARK,
            trouble=trouble,
            drain=self.drain,
            leaving=self.deleting,
            agent=self.agent,
            wait_s=float(self.env.get(_ENV_WAIT, WAIT_S)),
            backoff_s=float(self.env.get(_ENV_BACKOFF, BACKOFF_S)),
        )


def trainer_container(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the container that runs the rank: the one named trainer, else the first."""
    containers: list[dict[str, Any]] = spec["containers"]
    named = (one for one in containers if one["name"] == TRAINER_CONTAINER)
    return next(named, containers[0])


def decode_trainer(raw: Mapping[str, Any]) -> TrainerPod:
    """Read one pod of a job."""
    meta, spec, status = raw["metadata"], raw["spec"], raw.get("status", {})
    owners = meta.get("ownerReferences") or [{}]
    trainer = trainer_container(spec)
    annotations = meta.get("annotations", {})
    return TrainerPod(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta["uid"],
        job=meta["labels"][LABEL_JOB],
        job_uid=owners[0].get("uid", f"{meta['namespace']}/{meta['labels'][LABEL_JOB]}"),
        seat=_number(meta["labels"].get(LABEL_SEAT)),
        node=spec.get("nodeName", ""),
        phase=status.get("phase", "Pending"),
        deleting="deletionTimestamp" in meta,
        epoch=_number(annotations.get(ANNOTATION_EPOCH)),
        drain=_number(annotations.get(ANNOTATION_DRAIN)),
        restarts=sum(one.get("restartCount", 0) for one in status.get("containerStatuses", ())),
        agent=any(word.endswith(f"/{_AGENT_FILE}") for word in trainer.get("command") or ()),
        env={
            entry["name"]: entry["value"]
            for entry in trainer.get("env", ())
            if entry["name"].startswith("TRAMONTANE_") and "value" in entry
        },
    )


def _number(text: str | None) -> int:
    return int(text) if text and text.isdecimal() else 0


def decode_size(raw: Mapping[str, Any]) -> int:
    """Read how many seats a gang has now; 0 while it has no place."""
    placement = raw.get("status", {}).get("placement") or {}
    return int(placement.get("size") or len(placement.get("seats", ())))


class Jobs:
    """All jobs of one cluster, and the logs of their pods."""

    def __init__(
        self,
        client: Client,
        now: Callable[[], float],
        trouble: Callable[[str], str],
        *,
        real_nodes: Collection[str] = (),
    ) -> None:
        self._client = client
        self._now = now
        self._real_nodes = frozenset(real_nodes)  # their pods train by themselves
        self._trouble = trouble  # of a blade: what its ranks die of, or ""
        self._pods = Informer(client, PODS, decode_trainer, label_selector=LABEL_JOB)
        self._pods.add_index("job", lambda pod: (pod.job_key,) if self._plays(pod) else ())
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
        """Return the log of a job's pod.

        Raises:
            NoAnswer: its blade has no power.
        """
        key = f"{namespace}/{name}"
        found, pod = self._logs.get(key), self._pods.cache.get(key)
        if found and pod and self._trouble(pod.node) in _DARK:
            raise NoAnswer(f"blade {pod.node} has no power")
        return found[1] if found else None

    def blade_changed(self) -> None:
        """Look at all jobs again: a blade has got a fault, or lost one."""
        for wake in self._wakes.values():
            wake.set()

    def _plays(self, pod: TrainerPod) -> bool:
        return pod.node not in self._real_nodes

    def _pod_changed(self, key: str, old: TrainerPod | None, new: TrainerPod | None) -> None:
        if new and not self._plays(new):
            new = None
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
        read, pace = "", Pace()
        ending: set[asyncio.Task[None]] = set()
        while pods := self._pods.by_index("job", job):
            wake.clear()
            uid = pods[0].job_uid
            if read != pods[0].uid:  # its knobs do not change in a pod's life
                read, pace = pods[0].uid, self._pace(pods[0])
            ranks = [pod.rank(self._trouble(pod.node)) for pod in pods]
            before = self._checkpoints.get(uid, Training())
            moved = advance(before, ranks, self._size(job, pods), pace, self._now())
            self._checkpoints[uid] = moved.training
            self._print(pods, moved.lines)
            if moved.exits:
                task = asyncio.create_task(self._end(pods, moved.exits))
                ending.add(task)
                task.add_done_callback(ending.discard)
            pause = moved.training.due - self._now()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(wake.wait(), None if pause == math.inf else max(0, pause))
                await asyncio.sleep(_SETTLE_S)
        await asyncio.gather(*ending)
        del self._tasks[job], self._wakes[job]

    def _pace(self, pod: TrainerPod) -> Pace:
        """Return how the job trains; as usual where its knobs cannot be read."""
        try:
            return Pace.of(pod.env)
        except ValueError as error:
            log.warning("reading knobs failed job=%s error=%r", pod.job_key, str(error))
            return Pace()

    def _size(self, job: str, pods: list[TrainerPod]) -> int:
        """Return how many ranks the job has now: its gang knows, else its pods do."""
        return self._gangs.cache.get(job) or int(pods[0].env.get(_ENV_NODES, len(pods)))

    def _print(self, pods: list[TrainerPod], lines: tuple[Line, ...]) -> None:
        logs = {pod.seat: self._logs.get(f"{pod.namespace}/{pod.name}") for pod in pods}
        for seat, text in lines:
            if found := logs.get(seat):
                found[1].write(self._now(), text)

    async def _end(self, pods: list[TrainerPod], exits: tuple[Exit, ...]) -> None:
        """Let the containers of these ranks end, as their kubelets would see it."""
        by_seat = {pod.seat: pod for pod in pods}
        if any(code and not by_seat[seat].agent for seat, code in exits):
            await asyncio.sleep(_RESTART_S)
        async with asyncio.TaskGroup() as group:
            for seat, code in exits:
                group.create_task(self._end_pod(by_seat[seat], code))

    async def _end_pod(self, pod: TrainerPod, code: int) -> None:
        try:
            raw = await self._client.get(PODS, pod.name, pod.namespace)
            if raw["metadata"]["uid"] == pod.uid:
                status = ended_status(raw, code, clock.utc(self._now()))
                patch = {"metadata": {"uid": pod.uid}, "status": status}
                await self._client.merge_patch(
                    PODS, pod.name, patch, pod.namespace, subresource="status"
                )
        except (NotFound, Conflict):
            return  # deleted meanwhile: nobody will miss its end
        except (ApiError, Unreachable) as error:
            log.warning(
                "ending rank failed pod=%s/%s error=%r", pod.namespace, pod.name, str(error)
            )


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
