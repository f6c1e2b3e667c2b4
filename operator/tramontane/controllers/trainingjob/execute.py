"""Carry a plan out: pods with bounded concurrency, dependents once, the Gang and the status by SSA.

Every write may be repeated: names are deterministic, deletes name the uid they mean, and what is
already as it should be counts as done. What the API server refuses for good (a quota, a policy, a
field that it does not take) becomes the job's refusal, for people to read; anything else is raised,
and the queue comes back.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

from tramontane.api.gang import Gang, GangSpec
from tramontane.api.names import (
    ANNOTATION_DRAIN,
    ANNOTATION_EPOCH,
    ANNOTATION_PEERS,
    MANAGER_OPERATOR,
)
from tramontane.api.trainingjob import TrainingJob, TrainingJobStatus
from tramontane.controllers.trainingjob import lighthouse, render
from tramontane.controllers.trainingjob.actions import Create, Delete, Drain, Life, Plan, Raise
from tramontane.controllers.trainingjob.assumed import Assumed
from tramontane.kube.client import Client
from tramontane.kube.errors import AlreadyExists, ApiError, Conflict, Forbidden, Invalid, NotFound
from tramontane.kube.resources import CONFIGMAPS, GANGS, PODS, SERVICES, TRAININGJOBS, Resource
from tramontane.kube.views import decode_pod

# Enough to keep an API server busy; more only waits there.
IN_FLIGHT = 24
REFUSAL_S = 10.0
_BAD_REQUEST = 400

T = TypeVar("T")
Raw = dict[str, Any]


class Executor:
    """Write what plans ask for; one for all jobs."""

    def __init__(self, client: Client, now: Callable[[], float]) -> None:
        self._client = client
        self._now = now
        self._kept: dict[str, dict[str, str]] = {}  # by job uid: name of dependent → its content

    def forget(self, uid: str) -> None:
        """Drop what is remembered of a job that is gone."""
        self._kept.pop(uid, None)

    async def write_status(self, job: TrainingJob, status: TrainingJobStatus) -> None:
        """Apply the whole status; the version keeps it from another job of the same name.

        A uid does not: the API server takes the status of a custom resource with any.
        """
        meta = job.metadata
        body = {
            "metadata": {
                "name": meta.name,
                "namespace": meta.namespace,
                "resourceVersion": meta.resource_version,
            },
            "status": status.to_dict(),
        }
        await self._client.apply(TRAININGJOBS, body, manager=MANAGER_OPERATOR, subresource="status")

    async def apply_gang(self, job: TrainingJob, spec: GangSpec, assumed: Assumed) -> None:
        """Apply the Gang, and remember it as it came back."""
        body = render.gang(job, spec)
        answer = await self._client.apply(GANGS, body, manager=MANAGER_OPERATOR)
        assumed.applied(Gang.model_validate(answer))

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
                case Delete():
                    await self._delete(job, action, assumed)
                case Create():
                    assert stamp is not None
                    await self._create(job, stamp.pod(action.seat, action.blade), assumed)
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
        if await self._keep(job, SERVICES, lighthouse.service(job, owner), assumed):
            await self._create(job, lighthouse.pod(job, owner), assumed)

    async def _create(self, job: TrainingJob, body: Raw, assumed: Assumed) -> None:
        if assumed.refused(self._now()) is not None:
            return
        name = body["metadata"]["name"]
        try:
            answer = await self._client.create(PODS, body)
        except AlreadyExists:
            answer = await self._client.get(PODS, name, job.metadata.namespace)
            if not _is_ours(job, answer):
                self._refuse(assumed, _taken(job, "pod", answer))
                return
        except ApiError as error:
            self._refuse_or_raise(assumed, error, f"pod {name}")
            return
        assumed.created(decode_pod(answer), self._now())

    async def _delete(self, job: TrainingJob, action: Delete, assumed: Assumed) -> None:
        try:
            await self._client.delete(
                PODS,
                action.name,
                job.metadata.namespace,
                grace_period_s=action.grace_s,
                uid=action.uid,
            )
        except (NotFound, Conflict):
            return
        assumed.deleted(action.uid, self._now())

    async def _raise(self, job: TrainingJob, action: Raise, plan: Plan, assumed: Assumed) -> None:
        annotations = {
            ANNOTATION_EPOCH: str(plan.status.attempt),
            ANNOTATION_PEERS: render.peers_text(plan.peers),
        }
        patch = {"metadata": {"uid": action.uid, "annotations": annotations}}
        try:
            await self._client.merge_patch(PODS, action.name, patch, job.metadata.namespace)
        except (NotFound, Conflict, Invalid):  # Invalid: another pod has the name by now
            return
        assumed.raised(action.uid, plan.status.attempt, self._now())

    async def _drain(self, job: TrainingJob, action: Drain, assumed: Assumed) -> None:
        patch = {
            "metadata": {
                "uid": action.uid,
                "annotations": {ANNOTATION_DRAIN: str(action.attempt)},
            }
        }
        try:
            await self._client.merge_patch(PODS, action.name, patch, job.metadata.namespace)
        except (NotFound, Conflict, Invalid):  # Invalid: another pod has the name by now
            return
        assumed.drained(action.uid, action.attempt, self._now())

    async def _keep_dependents(self, job: TrainingJob, life: Life, assumed: Assumed) -> bool:
        """Make Service and ConfigMap what they should be; return whether they are ours."""
        service, config = render.service(job), render.config_map(job, life.seats, life.gpus)
        wanted = ((SERVICES, service), (CONFIGMAPS, config))
        return all(
            await asyncio.gather(
                *(self._keep(job, resource, body, assumed) for resource, body in wanted)
            )
        )

    async def _keep(
        self, job: TrainingJob, resource: Resource, body: Raw, assumed: Assumed
    ) -> bool:
        """Create or change one dependent, unless it is known to be as it should be."""
        kept = self._kept.setdefault(job.metadata.uid or "", {})
        content, name = json.dumps(body, sort_keys=True), body["metadata"]["name"]
        if kept.get(f"{resource.plural}/{name}") == content:
            return True
        try:
            if f"{resource.plural}/{name}" in kept:
                await self._client.apply(resource, body, manager=MANAGER_OPERATOR)
            elif not await self._take(job, resource, body, assumed):
                return False
        except ApiError as error:
            self._refuse_or_raise(assumed, error, f"{resource.kind} {name}")
            return False
        kept[f"{resource.plural}/{name}"] = content
        return True

    async def _take(
        self, job: TrainingJob, resource: Resource, body: Raw, assumed: Assumed
    ) -> bool:
        """Create a dependent, or change the one that is there if it is ours."""
        name = body["metadata"]["name"]
        try:
            await self._client.create(resource, body)
        except AlreadyExists:
            there = await self._client.get(resource, name, job.metadata.namespace)
            if not _is_ours(job, there):
                self._refuse(assumed, _taken(job, resource.kind, there))
                return False
            await self._client.apply(resource, body, manager=MANAGER_OPERATOR)
        return True

    def _refuse_or_raise(self, assumed: Assumed, error: ApiError, what: str) -> None:
        """Take a refusal that waiting does not help against; raise any other error on."""
        if isinstance(error, (Invalid, Forbidden)) or error.status == _BAD_REQUEST:
            self._refuse(assumed, f"{what} must be accepted (got: {error.message})")
            return
        raise error

    def _refuse(self, assumed: Assumed, text: str) -> None:
        assumed.refusal = (text, self._now() + REFUSAL_S)


def _is_ours(job: TrainingJob, raw: Raw) -> bool:
    owners = raw["metadata"].get("ownerReferences") or ()
    return any(owner["uid"] == job.metadata.uid for owner in owners)


def _taken(job: TrainingJob, kind: str, raw: Raw) -> str:
    meta = raw["metadata"]
    owner = next((one["uid"] for one in meta.get("ownerReferences") or ()), "none")
    return (
        f"{kind} {meta['name']} must belong to this job {job.metadata.uid} (got owner {owner}); "
        "delete it, or use another name"
    )


async def each(items: Iterable[T], act: Callable[[T], Awaitable[None]], in_flight: int) -> None:
    """Act on all items, at most `in_flight` at a time; the first error ends it and is raised."""
    left = iter(items)

    async def work() -> None:
        for item in left:
            await act(item)

    tasks = [asyncio.ensure_future(work()) for _ in range(in_flight)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
