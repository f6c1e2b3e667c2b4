"""Carry a plan out, in its order: revisions, Gangs, what stands beside the pods, pods, status.

How a write can be repeated, and what becomes of a refusal, is `gangpods.writer`'s.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tramontane.api.gang import Gang
from tramontane.api.inferencedeployment import InferenceDeployment
from tramontane.api.inferencestatus import InferenceDeploymentStatus
from tramontane.controllers.gangpods.actions import Delete
from tramontane.controllers.gangpods.writer import IN_FLIGHT, Writer, each
from tramontane.controllers.inferencedeployment import objects, revisions
from tramontane.controllers.inferencedeployment.actions import (
    Claim,
    Create,
    Mark,
    Plan,
)
from tramontane.controllers.inferencedeployment.assumed import Assumed
from tramontane.controllers.inferencedeployment.pods import PodStamp
from tramontane.controllers.inferencedeployment.world import Revision, World
from tramontane.kube.client import Client
from tramontane.kube.errors import ApiError, Conflict, NotFound
from tramontane.kube.resources import (
    CONFIGMAPS,
    CONTROLLERREVISIONS,
    ENDPOINTSLICES,
    GANGS,
    HTTPROUTES,
    INFERENCEDEPLOYMENTS,
    NETWORKPOLICIES,
    SERVICES,
    Resource,
)

Raw = dict[str, Any]


class Executor:
    """Write what plans ask for; one for all deployments."""

    def __init__(self, client: Client, now: Callable[[], float]) -> None:
        self._client = client
        self._now = now
        self._writer = Writer(client, now, "deployment")

    def forget(self, uid: str) -> None:
        """Drop what is remembered of a deployment that is gone."""
        self._writer.forget(uid)

    async def write_status(
        self, deployment: InferenceDeployment, status: InferenceDeploymentStatus
    ) -> None:
        """Apply the whole status."""
        await self._writer.write_status(INFERENCEDEPLOYMENTS, deployment, status)

    async def store(
        self, deployment: InferenceDeployment, revision: Revision, number: int, assumed: Assumed
    ) -> bool:
        """Store a revision; return whether it is stored."""
        body = objects.controller_revision(
            deployment, revision.hash, number, revisions.to_data(revision)
        )
        return await self._writer.keep(deployment, CONTROLLERREVISIONS, body, assumed)

    async def drop_revision(self, deployment: InferenceDeployment, hash_: str) -> None:
        """Delete a stored revision, and the Service that led to it, if one did."""
        name = objects.revision_name(deployment.metadata.name, hash_)
        await self._writer.drop(deployment, CONTROLLERREVISIONS, name)
        if self._writer.keeps(deployment, SERVICES, name):
            await self._writer.drop(deployment, SERVICES, name)

    async def claim(self, deployment: InferenceDeployment, claim: Claim, assumed: Assumed) -> bool:
        """Apply the Gang of a replica, and remember it as it came back."""
        body = objects.gang(deployment, claim.name, claim.revision, claim.spec)
        try:
            assumed.applied(await self._writer.apply_gang(body))
        except ApiError as error:
            self._writer.refuse_or_raise(assumed, error, f"gang {claim.name}")
            return False
        return True

    async def drop(self, deployment: InferenceDeployment, gang: Gang, assumed: Assumed) -> None:
        """Delete the Gang of a replica, whose pods are all gone."""
        meta = gang.metadata
        with contextlib.suppress(NotFound, Conflict):
            await self._client.delete(
                GANGS,
                meta.name,
                deployment.metadata.namespace,
                uid=meta.uid,
                propagation="Background",
            )
        assumed.dropped(gang)

    async def keep_dependents(
        self,
        deployment: InferenceDeployment,
        assumed: Assumed,
        revisions: Iterable[Revision] = (),
    ) -> bool:
        """Make what stands beside the pods what it should be; return whether it is."""
        former = [revision.spec for revision in revisions]
        wanted: tuple[tuple[Resource, Raw], ...] = (
            (NETWORKPOLICIES, objects.network_policy(deployment, former)),
            (CONFIGMAPS, objects.config_map(deployment)),
            (SERVICES, objects.service(deployment)),
        )
        return all(await asyncio.gather(*(self.keep(deployment, *one, assumed) for one in wanted)))

    async def keep_route(
        self, deployment: InferenceDeployment, weights: Mapping[str, int], assumed: Assumed
    ) -> None:
        """Make a Service per revision, and the route that splits the requests among them."""
        if not any(weights.values()):
            return
        for hash_ in weights:
            await self.keep(deployment, SERVICES, objects.service(deployment, hash_), assumed)
        route = objects.http_route(deployment, sorted(weights.items()))
        await self.keep(deployment, HTTPROUTES, route, assumed)

    async def keep_activator(
        self, deployment: InferenceDeployment, to: tuple[str, int] | None, assumed: Assumed
    ) -> None:
        """Have requests reach the operator, at address and port, or no longer (None)."""
        name = objects.activator_name(deployment)
        if to is not None:
            body = objects.activator_slice(deployment, *to)
            await self.keep(deployment, ENDPOINTSLICES, body, assumed)
        elif self._writer.keeps(deployment, ENDPOINTSLICES, name) is not False:
            await self._writer.drop(deployment, ENDPOINTSLICES, name)

    async def write_pods(self, world: World, plan: Plan, assumed: Assumed) -> None:
        """Mark, delete and create what the plan says, at most `IN_FLIGHT` at a time.

        Marks come first: a pod that goes gets no requests any more before it goes.
        """
        deployment = world.deployment
        stamps = self._stamps(world, plan, assumed)
        marks: tuple[Mark | Delete | Create, ...] = plan.marks
        creates = [one for one in plan.creates if one.revision in stamps]
        others: tuple[Mark | Delete | Create, ...] = (*plan.deletes, *creates)

        async def act(action: Mark | Delete | Create) -> None:
            match action:
                case Mark():
                    await self._mark(deployment, action, assumed)
                case Delete(name, uid, grace_s):
                    await self._writer.delete_pod(deployment, name, uid, grace_s, assumed)
                case Create(gang, revision, seat, blade):
                    pod = stamps[revision].pod(gang, seat, blade)
                    await self._writer.create_pod(deployment, pod, assumed)

        await each(marks, act, IN_FLIGHT)
        await each(others, act, IN_FLIGHT)

    def _stamps(self, world: World, plan: Plan, assumed: Assumed) -> dict[str, PodStamp]:
        """Return how pods are made, by revision; without those that cannot be, which is said."""
        known = dict(world.revisions) | ({plan.store.hash: plan.store} if plan.store else {})
        stamps = {}
        for hash_ in sorted({create.revision for create in plan.creates} & known.keys()):
            stamp = PodStamp.of(world.deployment, known[hash_], world.templates)
            if stamp.problem:
                self._writer.refuse(assumed, stamp.problem)
            else:
                stamps[hash_] = stamp
        return stamps

    async def _mark(self, deployment: InferenceDeployment, mark: Mark, assumed: Assumed) -> None:
        uid, given = mark.pod.uid, {"labels": mark.labels, "annotations": mark.annotations}
        metadata = {key: value for key, value in given.items() if value}
        if await self._writer.patch_pod(deployment, mark.pod.name, uid, metadata):
            assumed.marked(uid, mark.labels, mark.annotations, self._now())

    async def keep(
        self, deployment: InferenceDeployment, resource: Resource, body: Raw, assumed: Assumed
    ) -> bool:
        """Create or change one dependent; return whether it is as it should be."""
        return await self._writer.keep(deployment, resource, body, assumed)
