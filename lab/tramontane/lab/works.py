"""End the pods that test and repair simulated blades: what their containers would do.

KWOK lets a pod with the label `tramontane.dev/work` run; here it ends after a moment, with the
verdict of `trials`, in one write. A collective test begins when all pods of its group run. A reset
resets the blade's GPUs; a reboot takes the blade away for a moment and brings it back from
another boot. On a blade without power nothing ends.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

from tramontane.api import clock
from tramontane.api.names import ANNOTATION_REPAIR_GPU, LABEL_GROUP, LABEL_WORK, Work
from tramontane.health.burnin.outcome import Outcome
from tramontane.kube.client import ApiError, Client
from tramontane.kube.informer import Informer
from tramontane.kube.resources import PODS
from tramontane.lab import trials
from tramontane.lab.hall import Hall
from tramontane.lab.logs import PodLog
from tramontane.lab.paths import LabError

_ENV_GPU = "TRAMONTANE_GPU"
_ENV_GROUP_SIZE = "TRAMONTANE_GROUP_SIZE"
_ALL_GPUS = "all"
_LOOK_AGAIN_S = 0.5

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pace:
    """How long simulated tests and repairs take (s); a burn-in between two values."""

    burn_in: tuple[float, float] = (0.5, 1.0)
    collective: float = 1.0
    reset: float = 0.5
    reboot: float = 0.5


@dataclass(frozen=True, slots=True)
class WorkPod:
    """What there is to know of a work pod. `gpu` None: all; `group_size` 0: not said."""

    namespace: str
    name: str
    uid: str
    node: str
    kind: Work
    running: bool
    ended: bool = False
    group: str = ""
    group_size: int = 0
    gpu: int | None = None
    containers: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)

    @property
    def group_key(self) -> str:
        """The group's namespace and name."""
        return f"{self.namespace}/{self.group}"


def decode_work(raw: Mapping[str, Any]) -> WorkPod:
    """Read one work pod."""
    meta, spec, status = raw["metadata"], raw["spec"], raw.get("status") or {}
    env = {
        one["name"]: one["value"]
        for container in spec["containers"]
        for one in container.get("env") or ()
        if "value" in one
    }
    annotated = (meta.get("annotations") or {}).get(ANNOTATION_REPAIR_GPU, _ALL_GPUS)
    gpu = env.get(_ENV_GPU, annotated)
    return WorkPod(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta["uid"],
        node=spec.get("nodeName", ""),
        kind=Work(meta["labels"][LABEL_WORK]),
        running=status.get("phase") == "Running" and "deletionTimestamp" not in meta,
        ended=status.get("phase") in {"Succeeded", "Failed"},
        group=meta["labels"].get(LABEL_GROUP, ""),
        group_size=int(env.get(_ENV_GROUP_SIZE, 0)),
        gpu=int(gpu) if gpu.isdecimal() else None,
        containers=tuple(status.get("containerStatuses") or ()),
    )


class Works:
    """All work pods of one cluster; works while `run` does."""

    def __init__(
        self,
        client: Client,
        hall: Hall,
        pace: Pace | None = None,
        now: Callable[[], float] = time.time,
        real_nodes: Collection[str] = (),
    ) -> None:
        self._client = client
        self._real_nodes = frozenset(real_nodes)  # their pods work, and end, by themselves
        self._hall = hall
        self._pace = pace or Pace()
        self._now = now
        self._pods = Informer(client, PODS, decode_work, label_selector=LABEL_WORK)
        self._pods.add_index("group", lambda pod: (pod.group_key,) if pod.group else ())
        self._pods.add_listener(self._changed)
        self._begun: set[str] = set()  # uids
        self._logs: dict[str, PodLog] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Play for ever."""
        try:
            await self._pods.run()
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def wait_synced(self) -> None:
        """Return when the pods that there are have been seen."""
        await self._pods.wait_synced()

    def log_of(self, namespace: str, name: str) -> PodLog | None:
        """Return the log of a work pod."""
        return self._logs.get(f"{namespace}/{name}")

    def _changed(self, key: str, old: WorkPod | None, new: WorkPod | None) -> None:
        if old and (new is None or new.uid != old.uid):
            self._begun.discard(old.uid)
            if (printed := self._logs.pop(key, None)) is not None:
                printed.end()
        if new is None or new.node in self._real_nodes:
            return
        self._logs.setdefault(key, PodLog())
        if not new.running or new.uid in self._begun:
            return
        if new.kind is Work.COLLECTIVE:
            self._meet(new)
        else:
            self._begin((new,), self._alone(new))

    def _meet(self, pod: WorkPod) -> None:
        """Begin a group's test if this pod was the last that was missing."""
        members = tuple(self._pods.by_index("group", pod.group_key))
        there = [one for one in members if one.running or one.ended]
        if len(there) >= max(one.group_size for one in members):
            self._begin(members, self._together(members))

    def _begin(self, pods: tuple[WorkPod, ...], work: Coroutine[Any, Any, None]) -> None:
        self._begun.update(pod.uid for pod in pods)
        task = asyncio.create_task(work, name=pods[0].name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _alone(self, pod: WorkPod) -> None:
        """Play a burn-in or a repair to its end."""
        await asyncio.sleep(self._duration_s(pod))
        await self._has_power(pod.node)
        if not self._is_there(pod):
            return
        await self._end(pod, await self._outcome(pod))

    async def _outcome(self, pod: WorkPod) -> Outcome:
        try:
            match pod.kind:
                case Work.RESET:
                    return trials.repair(pod.kind, self._hall.reset(pod.node, pod.gpu))
                case Work.REBOOT:
                    await self._hall.reboot(pod.node)
                    return trials.repair(pod.kind, "")
                case _:
                    return trials.burn_in(pod.node, self._hall.of(pod.node))
        except LabError as error:
            return trials.repair(pod.kind, str(error))

    async def _together(self, pods: tuple[WorkPod, ...]) -> None:
        """Play a collective test to its end."""
        await asyncio.sleep(self._pace.collective)
        for pod in pods:
            await self._has_power(pod.node)
        faults = {pod.node: self._hall.of(pod.node) for pod in pods}
        outcome = trials.collective(pods[0].group, faults)
        left = (pod for pod in pods if self._is_there(pod) and not pod.ended)
        await asyncio.gather(*(self._end(pod, outcome) for pod in left))

    def _duration_s(self, pod: WorkPod) -> float:
        match pod.kind:
            case Work.RESET:
                return self._pace.reset
            case Work.REBOOT:
                return self._pace.reboot
            case _:
                least, most = self._pace.burn_in
                return least + (most - least) * trials.share(pod.node)

    async def _has_power(self, node: str) -> None:
        while not self._hall.has_power(node):  # noqa: ASYNC110 - a person may take hours
            await asyncio.sleep(_LOOK_AGAIN_S)

    def _is_there(self, pod: WorkPod) -> bool:
        return pod.uid in self._begun

    async def _end(self, pod: WorkPod, outcome: Outcome) -> None:
        """Write how a pod ended, unless it has gone meanwhile: then nobody asks."""
        if (printed := self.log_of(pod.namespace, pod.name)) is not None:
            printed.write(self._now(), outcome.line())
            printed.end()
        status = trials.ended(pod.containers, outcome, clock.utc(self._now()))
        patch = {"metadata": {"uid": pod.uid}, "status": status}
        try:
            await self._client.merge_patch(
                PODS, pod.name, patch, pod.namespace, subresource="status"
            )
        except ApiError as error:
            log.info("a work pod is gone pod=%s error=%r", pod.name, str(error))
