"""Run the TrainingJob controller: the shell around `plan`.

    key → GET the job → World from the caches → plan → write → one status → events

The order of the writes is what makes a kill at any moment harmless:

    1. a new incident or attempt goes into the status before anything is done about it
    2. the Gang: what is lost, or that its blades are given up
    3. Service and ConfigMap, then pods: deletes, creates, raised epochs, many at a time
    4. the status, if it says something else than before and is old enough
    5. events, once the status holds what they tell
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tramontane.api.blade import Blade
from tramontane.api.gang import Gang, GangPhase
from tramontane.api.names import API_VERSION, LABEL_JOB
from tramontane.api.nodepool import NodePool
from tramontane.api.trainingjob import JobPhase, TrainingJob
from tramontane.controllers.trainingjob.actions import Plan, Said
from tramontane.controllers.trainingjob.assumed import Assumed
from tramontane.controllers.trainingjob.execute import Executor
from tramontane.controllers.trainingjob.follower import Followers
from tramontane.controllers.trainingjob.metrics import JOBS
from tramontane.controllers.trainingjob.observe import World
from tramontane.controllers.trainingjob.plan import plan
from tramontane.controllers.trainingjob.progress import Marks
from tramontane.controllers.trainingjob.status import is_read, is_worth_writing
from tramontane.controllers.trainingjob.words import LastWords, Slow
from tramontane.kube.client import Client
from tramontane.kube.errors import NotFound
from tramontane.kube.events import EventRecorder
from tramontane.kube.informer import Informer
from tramontane.kube.resources import PRIORITYCLASSES, TRAININGJOBS
from tramontane.kube.views import NodeView, PodView
from tramontane.kube.workqueue import WorkQueue

log = logging.getLogger(__name__)

_KIND = "TrainingJob"
# Pods of a gang change in crowds; a job is looked at so much later, the larger the longer.
_CROWD_S = 0.05
_CROWD_PER_POD_S = 0.0002
_PRIORITY_KNOWN_S = 60.0
_PRIORITY_MISSING_S = 5.0


class Caches(Protocol):
    """What is needed of `controllers.informers.Informers`; its nodes are NodeViews, or more."""

    @property
    def blades(self) -> Informer[Blade]: ...  # noqa: D102 - named for what it holds
    @property
    def nodes(self) -> Informer[Any]: ...  # noqa: D102 - named for what it holds
    @property
    def pods(self) -> Informer[PodView]: ...  # noqa: D102 - named for what it holds
    @property
    def gangs(self) -> Informer[Gang]: ...  # noqa: D102 - named for what it holds
    @property
    def pools(self) -> Informer[NodePool]: ...  # noqa: D102 - named for what it holds


class Logs(Protocol):
    """What is needed of `follower.Followers`: what the jobs' logs say, by the jobs' keys."""

    def follow(self, job: TrainingJob, pod: PodView | None) -> None: ...  # noqa: D102
    def ask(self, job: TrainingJob, pods: Sequence[PodView]) -> None: ...  # noqa: D102
    def sample(self, job: TrainingJob, pods: Sequence[PodView]) -> None: ...  # noqa: D102
    def marks(self, key: str) -> Marks | None: ...  # noqa: D102
    def is_alive(self, key: str) -> bool: ...  # noqa: D102
    def words(self, key: str) -> Mapping[str, LastWords]: ...  # noqa: D102
    def slow(self, key: str) -> Slow | None: ...  # noqa: D102
    def forget(self, key: str) -> None: ...  # noqa: D102
    async def close(self) -> None: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Config:
    """Hold what can be set: how many jobs are worked on at a time."""

    workers: int = 16


@dataclass(slots=True)
class _Priorities:
    """Remember the values of PriorityClasses for a while; None is a class that does not exist."""

    client: Client
    now: Callable[[], float]
    _known: dict[str, tuple[int | None, float]] = field(default_factory=dict)

    async def of(self, name: str | None) -> int | None:
        if name is None:
            return 0
        value, until = self._known.get(name, (None, 0.0))
        if self.now() < until:
            return value
        try:
            raw = await self.client.get(PRIORITYCLASSES, name)
        except NotFound:
            value, known_s = None, _PRIORITY_MISSING_S
        else:
            value, known_s = int(raw["value"]), _PRIORITY_KNOWN_S
        self._known[name] = (value, self.now() + known_s)
        return value


class TrainingJobController:
    """Reconcile TrainingJobs; keys are "namespace/name".

    It holds nothing that matters: what it remembers of its own writes spares repeated requests,
    and what it remembers of a log can be read again. Who watches TrainingJobs adds their keys to
    `queue`; `wire` adds them for changes of pods, gangs, blades, nodes and pools. `logs` makes
    another reader of the jobs' logs than the real one; it gets what is to be called with the key
    of a job whose log has said something new.
    """

    def __init__(
        self,
        client: Client,
        informers: Caches,
        recorder: EventRecorder,
        clock: Callable[[], float],
        config: Config | None = None,
        *,
        logs: Callable[[Callable[[str], None]], Logs] | None = None,
    ) -> None:
        self.queue: WorkQueue[str] = WorkQueue(name="trainingjob")
        self._caches = informers
        self._recorder = recorder
        self._now = clock
        self._config = config or Config()
        self._client = client
        self._priorities = _Priorities(client, clock)
        self._executor = Executor(client, clock)
        self._logs: Logs = (
            logs(self._on_log) if logs is not None else Followers(client, clock, self._on_log)
        )
        self._log_alive: dict[str, tuple[bool, float]] = {}
        self._assumed: dict[str, Assumed] = {}
        self._uids: dict[str, str] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set; the caches must have been synced before."""
        worker = asyncio.create_task(self.queue.run(self.reconcile, self._config.workers))
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({worker, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if worker.done():
                worker.result()
        finally:
            for task in (worker, stopped):
                task.cancel()
            await asyncio.gather(worker, stopped, return_exceptions=True)
            await self.close()

    async def close(self) -> None:
        """Stop reading logs; `run` does so at its end."""
        await self._logs.close()

    async def reconcile(self, key: str) -> float | None:
        """Bring the job nearer to what it should be; return when to look again (s)."""
        namespace, _, name = key.partition("/")
        try:
            raw = await self._client.get(TRAININGJOBS, name, namespace)
        except NotFound:
            self._forget(key)
            return None
        job = TrainingJob.model_validate(raw)
        if self._uids.setdefault(key, job.metadata.uid or "") != job.metadata.uid:
            self._forget(key)
            self._uids[key] = job.metadata.uid or ""
        if job.metadata.deletion_timestamp is not None:
            self._logs.forget(key)
            return None
        world = await self._observe(job)
        return await self._execute(world, plan(world))

    async def _observe(self, job: TrainingJob) -> World:
        key = job.key
        assumed = self._assumed.setdefault(key, Assumed())
        priority = await self._priorities.of(job.spec.priority_class_name)
        now = self._now()
        caches = self._caches
        alive = self._logs.is_alive(key)
        if self._log_alive.get(key, (not alive, 0.0))[0] is not alive:
            self._log_alive[key] = alive, now
        return World(
            now=now,
            job=job,
            gang=assumed.gang(caches.gangs.cache.get(key)),
            pods=assumed.pods(caches.pods.by_index("job", key), now),
            blades=caches.blades.cache,
            nodes=caches.nodes.cache,
            pools=caches.pools.cache,
            priority=priority,
            marks=self._logs.marks(key),
            log_alive=alive,
            log_since=self._log_alive[key][1],
            words=self._logs.words(key),
            slow=self._logs.slow(key),
            vanished=dict(assumed.vanished),
            refusal=assumed.refused(now),
        )

    async def _execute(self, world: World, planned: Plan) -> float | None:
        job, status = world.job, planned.status
        assumed = self._assumed[job.key]
        self._logs.follow(job, planned.follow)
        self._logs.ask(job, planned.ask)
        if status.phase is JobPhase.RUNNING:
            self._logs.sample(job, world.own_pods)
        if planned.delete_job:
            await self._executor.delete_job(job)
            return None
        written = planned.record_first and status != job.status
        if written:
            await self._executor.write_status(job, status)
            self._say(job, planned.events)
        if planned.gang is not None:
            await self._executor.apply_gang(job, planned.gang, assumed)
        if planned.lighthouse:
            await self._executor.keep_lighthouse(job, assumed)
        if planned.deletes or planned.creates or planned.raises or planned.drains:
            log.info(
                "writing pods job=%s attempt=%d creates=%d deletes=%d raises=%d drains=%d",
                job.key,
                status.attempt,
                len(planned.creates),
                len(planned.deletes),
                len(planned.raises),
                len(planned.drains),
            )
            await self._executor.write_pods(job, planned, assumed)
        after = planned.after
        wait_s = (
            None
            if written
            else is_worth_writing(job.status, status, world.now, read=is_read(world))
        )
        if wait_s == 0:
            await self._executor.write_status(job, status)
            self._say(job, planned.events)
        elif wait_s is not None:
            after = wait_s if after is None else min(after, wait_s)
        JOBS.observe(job, status if written or wait_s == 0 else job.status)
        return after

    def _say(self, job: TrainingJob, events: Iterable[Said]) -> None:
        regarding = {
            "apiVersion": API_VERSION,
            "kind": _KIND,
            "namespace": job.metadata.namespace,
            "name": job.metadata.name,
            "uid": job.metadata.uid,
        }
        for said in events:
            self._recorder.record(regarding, said.type_, said.reason, said.note, "Reconciling")

    def _forget(self, key: str) -> None:
        JOBS.forget(key)
        self._logs.forget(key)
        self._log_alive.pop(key, None)
        self._assumed.pop(key, None)
        self._executor.forget(self._uids.pop(key, ""))

    def _on_log(self, key: str) -> None:
        self.queue.add_after(key, _CROWD_S)

    def wire(self) -> None:
        """Add the keys of the jobs that a change of the caches bears on; call before they run."""
        self._caches.pods.add_listener(self._on_pod)
        self._caches.gangs.add_listener(self._on_gang)
        self._caches.blades.add_listener(lambda key, _old, _new: self._on_blade(key))
        self._caches.nodes.add_listener(self._on_node)
        self._caches.pools.add_listener(self._on_pool)

    def _on_pod(self, _: str, old: PodView | None, new: PodView | None) -> None:
        for key in keys_for_change(new or old):
            assumed = self._assumed.get(key)
            if assumed is not None:
                assumed.seen(old, new)
            if is_urgent(old, new):
                self.queue.add(key, urgent=True)
            else:
                crowd = len(self._caches.pods.by_index("job", key))
                self.queue.add_after(key, _CROWD_S + _CROWD_PER_POD_S * crowd)

    def _on_gang(self, key: str, old: Gang | None, new: Gang | None) -> None:
        if new is None and (assumed := self._assumed.get(key)) is not None:
            assumed.gang_gone()
        # What has its blades comes before what waits: idle blades are dearer.
        placed = new is not None and new.status.phase is GangPhase.PLACED
        for owned in keys_for_change(new or old):
            self.queue.add(owned, urgent=placed)

    def _on_blade(self, name: str) -> None:
        for key in self._jobs_on(name):
            self.queue.add(key, urgent=True)

    def _on_node(self, name: str, old: NodeView | None, new: NodeView | None) -> None:
        if old is None or new is None or (old.uid, old.ready) != (new.uid, new.ready):
            self._on_blade(name)

    def _on_pool(self, _: str, old: NodePool | None, new: NodePool | None) -> None:
        if old is None or new is None or old.spec != new.spec:
            for key in self._uids:
                self.queue.add(key)

    def _jobs_on(self, blade: str) -> set[str]:
        """Return the jobs that have a seat, a spare or a pod on the blade. O(found)."""
        found: set[str] = set()
        for gang in self._caches.gangs.by_index("blade", blade):
            found.update(keys_for_change(gang))
        for pod in self._caches.pods.by_index("node", blade):
            found.update(keys_for_change(pod))
        return found


def keys_for_change(changed: PodView | Gang | None) -> tuple[str, ...]:
    """Return the key of the TrainingJob that a pod or a Gang belongs to, or nothing."""
    if isinstance(changed, Gang):
        owners = changed.metadata.owner_references
        names = [owner.name for owner in owners if owner.kind == _KIND]
        return tuple(f"{changed.metadata.namespace}/{name}" for name in names)
    if changed is None:
        return ()
    job = changed.labels.get(LABEL_JOB)
    return (f"{changed.namespace}/{job}",) if job else ()


def is_urgent(old: PodView | None, new: PodView | None) -> bool:
    """Return whether a pod's change may cost a job time: it goes, it went, it ended."""
    if new is None:
        return True
    if old is None:
        return new.deleting or new.finished
    return new.deleting != old.deleting or new.finished != old.finished
