"""Run the TrainingJob controller: the shell around `plan`.

    key → GET the job → World from the caches → plan → write → one status → events

The order of the writes is what makes a kill at any moment harmless:

    1. a new incident or attempt goes into the status before anything is done about it
    2. the Gang: what is lost, or that its blades are given up
    3. Service and ConfigMap, then pods: deletes, creates, raised epochs, many at a time
    4. the status, if it says something else than before and is old enough; also where 2 or 3 met
       an error, which is raised when that is done
    5. events, once the status holds what they tell
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from tramontane.api.gang import Gang
from tramontane.api.names import LABEL_JOB
from tramontane.api.trainingjob import JobPhase, TrainingJob
from tramontane.controllers.gangpods import wiring
from tramontane.controllers.gangpods.controller import GangController
from tramontane.controllers.gangpods.wiring import CROWD_S, Caches, Wiring, run_queue, say
from tramontane.controllers.trainingjob.actions import Plan
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
from tramontane.kube.errors import ApiError, Unreachable
from tramontane.kube.events import EventRecorder
from tramontane.kube.resources import TRAININGJOBS
from tramontane.kube.views import PodView

log = logging.getLogger(__name__)

_KIND = "TrainingJob"


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


class TrainingJobController(GangController[TrainingJob]):
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
        super().__init__(
            client, informers, recorder, clock, resource=TRAININGJOBS, model=TrainingJob
        )
        self._config = config or Config()
        self._executor = Executor(client, clock)
        self._logs: Logs = (
            logs(self._on_log) if logs is not None else Followers(client, clock, self._on_log)
        )
        self._log_alive: dict[str, tuple[bool, float]] = {}
        self._assumed: dict[str, Assumed] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set; the caches must have been synced before."""
        try:
            await run_queue(self.queue, self.reconcile, self._config.workers, stop)
        finally:
            await self.close()

    async def close(self) -> None:
        """Stop reading logs; `run` does so at its end."""
        await self._logs.close()

    async def reconcile(self, key: str) -> float | None:
        """Bring the job nearer to what it should be; return when to look again (s)."""
        job = await self._read(key)
        if job is None:
            return None
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
            say(self._recorder, job, planned.events)
        failed: ApiError | Unreachable | None = None
        try:
            planned = await self._write(world, planned)
        except (ApiError, Unreachable) as error:
            failed = error  # people read meanwhile how the job stands
        status, after = planned.status, self._after(world, planned)
        wait_s = (
            None
            if written
            else is_worth_writing(job.status, status, world.now, read=is_read(world))
        )
        if wait_s == 0:
            await self._executor.write_status(job, status)
            say(self._recorder, job, planned.events)
        elif wait_s is not None:
            after = wait_s if after is None else min(after, wait_s)
        JOBS.observe(job, status if written or wait_s == 0 else job.status)
        if failed is not None:
            raise failed
        return after

    async def _write(self, world: World, planned: Plan) -> Plan:
        """Write Gang and pods; return the plan, made anew where the Gang was refused."""
        job, assumed = world.job, self._assumed[world.job.key]
        if planned.gang is not None:
            await self._executor.apply_gang(job, planned.gang, assumed)
            if (refusal := assumed.refused(world.now)) != world.refusal:
                planned = plan(replace(world, refusal=refusal))
        if planned.lighthouse:
            await self._executor.keep_lighthouse(job, assumed)
        if planned.deletes or planned.creates or planned.raises or planned.drains:
            log.info(
                "writing pods job=%s attempt=%d creates=%d deletes=%d raises=%d drains=%d",
                job.key,
                planned.status.attempt,
                len(planned.creates),
                len(planned.deletes),
                len(planned.raises),
                len(planned.drains),
            )
            await self._executor.write_pods(job, planned, assumed)
        return planned

    def _after(self, world: World, planned: Plan) -> float | None:
        """Return when to look again: what was refused is tried again, whatever the plan says."""
        refusal = self._assumed[world.job.key].refusal
        waits = (planned.after, refusal[1] - world.now if refusal is not None else None)
        return min((one for one in waits if one is not None), default=None)

    def _forget(self, key: str) -> None:
        JOBS.forget(key)
        self._logs.forget(key)
        self._log_alive.pop(key, None)
        self._assumed.pop(key, None)
        self._executor.forget(self._uids.pop(key, ""))

    def _on_log(self, key: str) -> None:
        self.queue.add_after(key, CROWD_S)

    def wire(self) -> None:
        """Add the keys of the jobs that a change of the caches bears on; call before they run."""
        Wiring(
            self._caches,
            self.queue,
            _KIND,
            LABEL_JOB,
            "job",
            written=self._assumed,
            known=lambda: self._uids,
        ).connect()


def keys_for_change(changed: PodView | Gang | None) -> tuple[str, ...]:
    """Return the key of the TrainingJob that a pod or a Gang belongs to, or nothing."""
    return wiring.keys_for_change(changed, _KIND, LABEL_JOB)
