"""Write pods, what stands beside them, Gangs and statuses, in a way that may be repeated.

Names are deterministic, deletes name the uid they mean, and what is already as it should be counts
as done. What the API server refuses for good (a quota, a policy, a field that it does not take)
becomes the owner's refusal, for people to read; anything else is raised, and the queue comes back.
"""

import asyncio
import contextlib
import hashlib
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeVar

from tramontane.api.base import Model, Object
from tramontane.api.gang import Gang
from tramontane.api.names import API_VERSION, MANAGER_OPERATOR
from tramontane.controllers.gangpods.written import WrittenPods
from tramontane.kube.client import Client
from tramontane.kube.errors import AlreadyExists, ApiError, Conflict, Forbidden, Invalid, NotFound
from tramontane.kube.resources import GANGS, PODS, Resource
from tramontane.kube.views import decode_pod

# Enough to keep an API server busy; more only waits there.
IN_FLIGHT = 24
REFUSAL_S = 10.0
_BAD_REQUEST = 400

T = TypeVar("T")
Raw = dict[str, Any]


class Writer:
    """Write for the owners of one kind; `word` is what they are called in refusals."""

    def __init__(self, client: Client, now: Callable[[], float], word: str) -> None:
        self._client = client
        self._now = now
        self._word = word
        self._kept: dict[str, dict[str, str]] = {}  # by owner's uid: name of dependent → digest

    def forget(self, uid: str) -> None:
        """Drop what is remembered of an owner that is gone."""
        self._kept.pop(uid, None)

    async def write_status(self, resource: Resource, owner: Object, status: Model) -> None:
        """Apply the whole status; the version keeps it from another owner of the same name.

        A uid does not: the API server takes the status of a custom resource with any.
        """
        meta = owner.metadata
        body = {
            "metadata": {
                "name": meta.name,
                "namespace": meta.namespace,
                "resourceVersion": meta.resource_version,
            },
            "status": status.to_dict(),
        }
        await self._client.apply(resource, body, manager=MANAGER_OPERATOR, subresource="status")

    async def apply_gang(self, body: Raw) -> Gang:
        """Apply a Gang; return it as it came back."""
        answer = await self._client.apply(GANGS, body, manager=MANAGER_OPERATOR)
        return Gang.model_validate(answer)

    async def create_pod(self, owner: Object, body: Raw, written: WrittenPods) -> None:
        """Create a pod, unless something was refused just now."""
        if written.refused(self._now()) is not None:
            return
        name = body["metadata"]["name"]
        try:
            answer = await self._client.create(PODS, body)
        except AlreadyExists:
            answer = await self._client.get(PODS, name, owner.metadata.namespace)
            if not _is_ours(owner, answer):
                self.refuse(written, self._taken(owner, "pod", answer))
                return
        except ApiError as error:
            self.refuse_or_raise(written, error, f"pod {name}")
            return
        written.created(decode_pod(answer), self._now())

    async def delete_pod(
        self, owner: Object, name: str, uid: str, grace_s: int | None, written: WrittenPods
    ) -> None:
        """Delete a pod, if it still is that one."""
        namespace = owner.metadata.namespace
        try:
            await self._client.delete(PODS, name, namespace, grace_period_s=grace_s, uid=uid)
        except (NotFound, Conflict):
            return
        written.deleted(uid, self._now())

    async def patch_pod(
        self, owner: Object, name: str, uid: str, metadata: Mapping[str, Any]
    ) -> bool:
        """Merge `metadata` into a pod's; return whether it still was that one."""
        patch = {"metadata": {"uid": uid, **metadata}}
        try:
            await self._client.merge_patch(PODS, name, patch, owner.metadata.namespace)
        except (NotFound, Conflict, Invalid):  # Invalid: another pod has the name by now
            return False
        return True

    async def keep(
        self, owner: Object, resource: Resource, body: Raw, written: WrittenPods
    ) -> bool:
        """Create or change one dependent, unless it is known to be as it should be.

        Returns whether it is the owner's, and as it should be.
        """
        kept = self._kept.setdefault(owner.metadata.uid or "", {})
        content, name = _digest(body), body["metadata"]["name"]
        if kept.get(f"{resource.plural}/{name}") == content:
            return True
        try:
            if kept.get(f"{resource.plural}/{name}"):
                await self._client.apply(resource, body, manager=MANAGER_OPERATOR)
            elif not await self._take(owner, resource, body, written):
                return False
        except ApiError as error:
            self.refuse_or_raise(written, error, f"{resource.kind} {name}")
            return False
        kept[f"{resource.plural}/{name}"] = content
        return True

    def keeps(self, owner: Object, resource: Resource, name: str) -> bool | None:
        """Return whether we keep a dependent of that name; None where we never knew."""
        content = self._kept.get(owner.metadata.uid or "", {}).get(f"{resource.plural}/{name}")
        return None if content is None else bool(content)

    async def drop(self, owner: Object, resource: Resource, name: str) -> None:
        """Delete a dependent, if there is one."""
        with contextlib.suppress(NotFound):
            await self._client.delete(
                resource, name, owner.metadata.namespace, propagation="Background"
            )
        self._kept.setdefault(owner.metadata.uid or "", {})[f"{resource.plural}/{name}"] = ""

    async def _take(
        self, owner: Object, resource: Resource, body: Raw, written: WrittenPods
    ) -> bool:
        """Create a dependent, or change the one that is there if it is ours."""
        name = body["metadata"]["name"]
        try:
            await self._client.create(resource, body)
        except AlreadyExists:
            there = await self._client.get(resource, name, owner.metadata.namespace)
            if not _is_ours(owner, there):
                self.refuse(written, self._taken(owner, resource.kind, there))
                return False
            await self._client.apply(resource, body, manager=MANAGER_OPERATOR)
        return True

    def refuse_or_raise(self, written: WrittenPods, error: ApiError, what: str) -> None:
        """Take a refusal that waiting does not help against; raise any other error on."""
        if isinstance(error, (Invalid, Forbidden)) or error.status == _BAD_REQUEST:
            self.refuse(written, f"{what} must be accepted (got: {error.message})")
            return
        raise error

    def refuse(self, written: WrittenPods, text: str) -> None:
        """Note what was refused, to be believed for a while."""
        written.refusal = (text, self._now() + REFUSAL_S)

    def _taken(self, owner: Object, kind: str, raw: Raw) -> str:
        meta = raw["metadata"]
        uid = next((one["uid"] for one in meta.get("ownerReferences") or ()), "none")
        return (
            f"{kind} {meta['name']} must belong to this {self._word} {owner.metadata.uid} "
            f"(got owner {uid}); delete it, or use another name"
        )


def owner_of(owner: Object) -> Raw:
    """Return the owner reference by which all of the owner's objects go when it goes."""
    return {
        "apiVersion": API_VERSION,
        "kind": owner.kind,
        "name": owner.metadata.name,
        "uid": owner.metadata.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def _digest(body: Raw) -> str:
    """Name the content: a ConfigMap with the agents' files is 150 KB, and each owner has one."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _is_ours(owner: Object, raw: Raw) -> bool:
    owners = raw["metadata"].get("ownerReferences") or ()
    return any(one["uid"] == owner.metadata.uid for one in owners)


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
