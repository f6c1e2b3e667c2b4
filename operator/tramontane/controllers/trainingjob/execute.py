"""Carry a plan out: pods with bounded concurrency, dependents once, the Gang and the status by SSA.

How a write can be repeated, and what becomes of a refusal, is `gangpods.writer`'s.
"""

import asyncio
import logging
from collections.abc import Callable

from tramontane.api.gang import GangSpec
from tramontane.api.names import ANNOTATION_DRAIN, ANNOTATION_EPOCH, ANNOTATION_PEERS
from tramontane.api.trainingjob import TrainingJob, TrainingJobStatus
from tramontane.controllers.gangpods.actions import Delete
from tramontane.controllers.gangpods.writer import IN_FLIGHT, REFUSAL_S, Writer, each
from tramontane.controllers.trainingjob import lighthouse, render
from tramontane.controllers.trainingjob.actions import (
    Create,
    Drain,
    Life,
    Plan,
    Raise,
)
from tramontane.controllers.trainingjob.assumed import Assumed
from tramontane.kube.client import Client
from tramontane.kube.errors import ApiError, Conflict, NotFound
from tramontane.kube.resources import CONFIGMAPS, SERVICES, TRAININGJOBS

log = logging.getLogger(__name__)


class Executor:
    """Write what plans ask for; one for all jobs."""

    def __init__(self, client: Client, now: Callable[[], float]) -> None:
        self._client = client
        self._now = now
        self._writer = Writer(client, now, "job")

    def forget(self, uid: str) -> None:
        """Drop what is remembered of a job that is gone."""
        self._writer.forget(uid)

    async def write_status(self, job: TrainingJob, status: TrainingJobStatus) -> None:
        """Apply the whole status."""
        await self._writer.write_status(TRAININGJOBS, job, status)

    async def apply_gang(self, job: TrainingJob, spec: GangSpec, assumed: Assumed) -> None:
        """Apply the Gang, unless it was refused just now, and remember it as it came back."""
        now = self._now()
        if now < assumed.gang_after:
            return
        try:
            assumed.applied(await self._writer.apply_gang(render.gang(job, spec)))
        except ApiError as error:
            self._writer.refuse_or_raise(assumed, error, f"gang {job.metadata.name}")
            assumed.gang_after = now + REFUSAL_S  # no longer than the refusal is believed
            log.warning("gang refused job=%s error=%r", job.key, error.message)

    async def delete_job(self, job: TrainingJob) -> None:
        """Delete the job; owner references take the rest."""
        meta = job.metadata
        try:
            await self._client.delete(
                TRAININGJOBS, meta.name, meta.namespace, uid=meta.uid, propagation="Background"
            )
        except (NotFound, Conflict):
            return

    async def write_pods(self, job: TrainingJob, plan: Plan, assumed: Assumed) -> None:
        """Delete, create and raise what the plan says, at most `IN_FLIGHT` at a time."""
        if plan.life is not None and not await self._keep_dependents(job, plan.life, assumed):
            return
        stamp = None
        if plan.life is not None:
            life = plan.life
            stamp = render.PodStamp.of(job, len(life.seats), life.gpus, life.attempt)

        async def act(action: Delete | Create | Raise | Drain) -> None:
            match action:
                case Delete(name, uid, grace_s):
                    await self._writer.delete_pod(job, name, uid, grace_s, assumed)
                case Create():
                    assert stamp is not None
                    pod = stamp.pod(action.seat, action.blade)
                    await self._writer.create_pod(job, pod, assumed)
                case Raise():
                    await self._raise(job, action, plan, assumed)
                case Drain():
                    await self._drain(job, action, assumed)

        actions: tuple[Delete | Create | Raise | Drain, ...] = (
            *plan.deletes,
            *plan.creates,
            *plan.raises,
            *plan.drains,
        )
        await each(actions, act, IN_FLIGHT)

    async def keep_lighthouse(self, job: TrainingJob, assumed: Assumed) -> None:
        """Make the lighthouse's Service, and its pod, which is not there."""
        owner = render.owner_of(job)
        if await self._writer.keep(job, SERVICES, lighthouse.service(job, owner), assumed):
            await self._writer.create_pod(job, lighthouse.pod(job, owner), assumed)

    async def _raise(self, job: TrainingJob, action: Raise, plan: Plan, assumed: Assumed) -> None:
        annotations = {
            ANNOTATION_EPOCH: str(plan.status.attempt),
            ANNOTATION_PEERS: render.peers_text(plan.peers),
        }
        if await self._annotate(job, action, annotations):
            assumed.raised(action.uid, plan.status.attempt, self._now())

    async def _drain(self, job: TrainingJob, action: Drain, assumed: Assumed) -> None:
        if await self._annotate(job, action, {ANNOTATION_DRAIN: str(action.attempt)}):
            assumed.drained(action.uid, action.attempt, self._now())

    async def _annotate(
        self, job: TrainingJob, action: Raise | Drain, annotations: dict[str, str]
    ) -> bool:
        return await self._writer.patch_pod(
            job, action.name, action.uid, {"annotations": annotations}
        )

    async def _keep_dependents(self, job: TrainingJob, life: Life, assumed: Assumed) -> bool:
        """Make Service and ConfigMap what they should be; return whether they are ours."""
        service, config = render.service(job), render.config_map(job, life.seats, life.gpus)
        wanted = ((SERVICES, service), (CONFIGMAPS, config))
        return all(
            await asyncio.gather(
                *(self._writer.keep(job, resource, body, assumed) for resource, body in wanted)
            )
        )
