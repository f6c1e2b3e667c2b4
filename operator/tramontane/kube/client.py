"""Send requests to the API server: raw dictionaries in and out.

What the client promises, and nothing more:

* At most `max_in_flight` requests at a time. Leases have a lane of their own, so that a burst
  of pod creates never makes a leader miss its deadline.
* 429 and 503 with Retry-After were not executed: they are sent again after that time, a bounded
  number of times. The slot stays taken meanwhile, which is what slows us down.
* A request that broke off is **not** sent again: it may have been done. It raises Unreachable,
  and the caller, being level-triggered, looks at the world again. (aiohttp itself repeats a GET,
  PUT or DELETE once, when a kept-alive connection turns out to be closed.)
* No request waits for ever, and a stream ends when it is silent for too long.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

from tramontane.kube.config import connect
from tramontane.kube.errors import (
    AlreadyExists,
    ApiError,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    NotFound,
    Silent,
    TooManyRequests,
    Unauthorized,
    Unreachable,
)
from tramontane.kube.gcpause import gc_paused
from tramontane.kube.podlog import (
    READ_BUFFER_B,
    bounded_lines,
    keep_tls_buffers_small,
    paced,
)
from tramontane.kube.resources import LEASES, PODS, Resource
from tramontane.kube.transport import JSON, Request, Transport

# The errors belong to what a caller of the client needs to know.
__all__ = [
    "AlreadyExists",
    "ApiError",
    "Client",
    "Conflict",
    "Forbidden",
    "Gone",
    "Invalid",
    "NotFound",
    "Silent",
    "TooManyRequests",
    "Unauthorized",
    "Unreachable",
]

T = TypeVar("T")

_JSON_PATCH = "application/json-patch+json"
_MERGE_PATCH = "application/merge-patch+json"
_APPLY_PATCH = "application/apply-patch+yaml"
_METADATA = f"application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,{JSON}"
_METHODS = {
    "get": "GET",
    "list": "GET",
    "create": "POST",
    "update": "PUT",
    "patch": "PATCH",
    "apply": "PATCH",
    "delete": "DELETE",
}
_LEASE_LANE = 8
_UNBOUNDED = 0


class Client:
    """A connection to one API server; use it as a context manager.

    All methods raise ApiError (and its subclasses) or Unreachable.
    """

    def __init__(self, transport: Transport, *, max_in_flight: int = 32) -> None:
        self._transport = transport
        self._slots = asyncio.Semaphore(max_in_flight)
        self._lease_slots = asyncio.Semaphore(_LEASE_LANE)

    @classmethod
    async def connect(
        cls,
        kubeconfig: str | os.PathLike[str] | None = None,
        *,
        context: str | None = None,
        max_in_flight: int = 32,
        user_agent: str = "tramontane",
        timeout_s: float = 30.0,
    ) -> Self:
        """Return a client: of `kubeconfig` if given, else in-cluster, else the user's kubeconfig.

        `context` is one of the kubeconfig's, instead of its current one. It makes no request yet.

        Raises:
            InvalidValue: there is no usable configuration.
        """
        # The pool has no bound of its own: requests have theirs, and a log that is followed for
        # each job must keep none of them waiting for a connection.
        keep_tls_buffers_small()
        connection = await connect(kubeconfig, _UNBOUNDED, context)
        transport = Transport(connection, user_agent, timeout_s=timeout_s)
        return cls(transport, max_in_flight=max_in_flight)

    @property
    def server(self) -> str:
        """Return the URL of the API server."""
        return self._transport.connection.server

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._transport.connection.close()

    # Reading

    async def get(
        self, resource: Resource, name: str, namespace: str | None = None
    ) -> dict[str, Any]:
        """Return the object as the API server has it now."""
        return await self._call("get", _At(resource, namespace, name))

    async def get_raw(self, path: str) -> bytes:
        """Return the answer to a GET of any path, e.g. `/readyz`."""
        async with self._slots:
            return await self._transport.send(Request("GET", path, "get", path))

    async def list_page(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        limit: int = 500,
        continue_: str | None = None,
        metadata_only: bool = False,
    ) -> dict[str, Any]:
        """Return one page of a list; `metadata.continue` is what to ask for next.

        With `metadata_only` the server leaves spec and status out.

        Raises:
            Gone: the continue token is too old: begin the list again.
        """
        params = _selectors(label_selector, field_selector)
        params["limit"] = str(limit)
        if continue_:
            params["continue"] = continue_
        accept = _METADATA if metadata_only else JSON
        return await self._call("list", _At(resource, namespace), params=params, accept=accept)

    async def list_all(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        limit: int = 500,
        metadata_only: bool = False,
    ) -> list[dict[str, Any]]:
        """Return all objects, each with apiVersion and kind. For few objects: it holds them all.

        A list whose continue token grew too old begins again, three times at most.
        """
        return await self.list_kept(
            resource,
            lambda raw: raw,
            namespace,
            label_selector=label_selector,
            field_selector=field_selector,
            limit=limit,
            metadata_only=metadata_only,
        )

    async def list_kept(
        self,
        resource: Resource,
        keep: Callable[[dict[str, Any]], T],
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        limit: int = 500,
        metadata_only: bool = False,
    ) -> list[T]:
        """Return what `keep` makes of each object, of which one page is held at a time."""
        for last in (False, False, True):
            kept: list[T] = []
            continue_: str | None = None
            try:
                while True:
                    page = await self.list_page(
                        resource,
                        namespace,
                        label_selector=label_selector,
                        field_selector=field_selector,
                        limit=limit,
                        continue_=continue_,
                        metadata_only=metadata_only,
                    )
                    for item in page.get("items") or ():
                        # Items of a list come without them.
                        item.setdefault("apiVersion", resource.api_version)
                        item.setdefault("kind", resource.kind)
                        kept.append(keep(item))
                    continue_ = page["metadata"].get("continue")
                    if not continue_:
                        return kept
            except Gone:
                if last:
                    raise
        raise AssertionError  # the last round returns or raises

    def stream(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        params: Mapping[str, str] | None = None,
        silence_s: float | None = None,
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Open a watch: a context manager that yields an iterator of complete lines.

        The iterator ends when the server ends the watch, and raises Silent after `silence_s`
        without a byte. Streams take no slot.
        """
        query = {"watch": "true", **(params or {})}
        request = Request(
            "GET", resource.path(namespace), "watch", resource.plural, namespace or "", query
        )
        return self._transport.stream(request, silence_s=silence_s, keep_tail=False)

    @asynccontextmanager
    async def pod_log(
        self,
        namespace: str,
        name: str,
        *,
        container: str | None = None,
        follow: bool = True,
        since_seconds: int | None = None,
        since_time: str | None = None,
        tail_lines: int | None = None,
        limit_bytes: int | None = None,
        timestamps: bool = False,
        silence_s: float | None = None,
        pause: Callable[[], float] = lambda: 0.0,
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open a container's log: a context manager that yields an iterator of lines.

        Lines are cut to MAX_LINE_B. After each read, `pause()` seconds pass before the next. The
        iterator ends with the log, and raises Silent after `silence_s` without a byte. Logs take
        no slot.
        """
        wanted = {
            "container": container,
            "follow": "true" if follow else None,
            "sinceSeconds": since_seconds,
            "sinceTime": since_time,
            "tailLines": tail_lines,
            "limitBytes": limit_bytes,
            "timestamps": "true" if timestamps else None,
        }
        params = {key: str(value) for key, value in wanted.items() if value is not None}
        path = PODS.path(namespace, name, "log")
        request = Request("GET", path, "get", "pods/log", f"{namespace}/{name}", params)
        async with self._transport.chunks(request, buffer_b=READ_BUFFER_B) as chunks:
            yield bounded_lines(paced(chunks, pause, silence_s, str(request)))

    # Writing

    async def create(
        self,
        resource: Resource,
        body: Mapping[str, Any],
        namespace: str | None = None,
        *,
        name: str | None = None,
        subresource: str | None = None,
    ) -> dict[str, Any]:
        """Create an object, or POST to a subresource (`binding`, `eviction`) of `name`.

        Raises:
            AlreadyExists: there is an object of that name.
        """
        meta = body.get("metadata") or {}
        if subresource is None:
            body = {"apiVersion": resource.api_version, "kind": resource.kind, **body}
        at = _At(resource, namespace or meta.get("namespace"), name, subresource)
        return await self._call("create", at, body=body, shown=meta.get("name"))

    async def replace(
        self, resource: Resource, body: Mapping[str, Any], *, subresource: str | None = None
    ) -> dict[str, Any]:
        """Replace an object.

        Raises:
            Conflict: it is not at the resourceVersion of `body` any more.
        """
        return await self._call("update", _At.of(resource, body, subresource), body=body)

    async def apply(
        self,
        resource: Resource,
        body: Mapping[str, Any],
        *,
        manager: str,
        subresource: str | None = None,
        force: bool = True,
    ) -> dict[str, Any]:
        """Apply on the server: `body` is everything that `manager` wants to own.

        A field left out is given up, and removed if nobody else owns it. The same content twice
        leaves the resourceVersion as it is. apiVersion and kind are filled in.

        Raises:
            Conflict: another manager owns a field, and `force` is false.
        """
        return await self._call(
            "apply",
            _At.of(resource, body, subresource),
            params={"fieldManager": manager, "force": "true" if force else "false"},
            body={"apiVersion": resource.api_version, "kind": resource.kind, **body},
            content_type=_APPLY_PATCH,
        )

    async def merge_patch(
        self,
        resource: Resource,
        name: str,
        patch: Mapping[str, Any],
        namespace: str | None = None,
        *,
        subresource: str | None = None,
    ) -> dict[str, Any]:
        """Merge `patch` into the object (RFC 7386): None removes, lists are replaced whole."""
        at = _At(resource, namespace, name, subresource)
        return await self._call("patch", at, body=patch, content_type=_MERGE_PATCH)

    async def json_patch(
        self,
        resource: Resource,
        name: str,
        patch: Sequence[Mapping[str, Any]],
        namespace: str | None = None,
        *,
        subresource: str | None = None,
    ) -> dict[str, Any]:
        """Run the operations of `patch` (RFC 6902) on the object: all or none.

        Raises:
            Invalid: a `test` operation, or a path, does not fit.
        """
        at = _At(resource, namespace, name, subresource)
        return await self._call("patch", at, body=patch, content_type=_JSON_PATCH)

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        grace_period_s: int | None = None,
        uid: str | None = None,
        propagation: str | None = None,
    ) -> dict[str, Any]:
        """Delete the object; with `uid`, only if it still is that one.

        Raises:
            NotFound: there is none.
            Conflict: there is one with another uid.
        """
        body: dict[str, Any] = {}
        if grace_period_s is not None:
            body["gracePeriodSeconds"] = grace_period_s
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        if propagation is not None:
            body["propagationPolicy"] = propagation
        return await self._call("delete", _At(resource, namespace, name), body=body or None)

    async def _call(
        self,
        verb: str,
        at: "_At",
        *,
        params: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = JSON,
        accept: str = JSON,
        shown: str | None = None,
    ) -> dict[str, Any]:
        request = Request(
            _METHODS[verb],
            at.resource.path(at.namespace, at.name, at.subresource),
            verb,
            "/".join(filter(None, (at.resource.plural, at.subresource))),
            "/".join(filter(None, (at.namespace, at.name or shown))),
            params,
            None if body is None else json.dumps(body, separators=(",", ":")).encode(),
            content_type,
            accept,
        )
        async with self._lease_slots if at.resource is LEASES else self._slots:
            raw = await self._transport.send(request)
        if verb != "list":
            return _decoded(raw)
        with gc_paused():
            return _decoded(raw)


class _At(NamedTuple):
    """Where a request goes to."""

    resource: Resource
    namespace: str | None = None
    name: str | None = None
    subresource: str | None = None

    @classmethod
    def of(cls, resource: Resource, body: Mapping[str, Any], subresource: str | None) -> Self:
        """Return where the object `body` is."""
        meta = body["metadata"]
        return cls(resource, meta.get("namespace"), meta["name"], subresource)


def _decoded(raw: bytes) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(raw)
    return answer


def _selectors(label_selector: str | None, field_selector: str | None) -> dict[str, str]:
    params = {}
    if label_selector:
        params["labelSelector"] = label_selector
    if field_selector:
        params["fieldSelector"] = field_selector
    return params
