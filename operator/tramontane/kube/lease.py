"""Elect one leader with a Lease, and renew heartbeats.

A Lease is judged by when *we* saw it change, on the monotonic clock, never by the time written
in it: clocks differ, ours can only run. The leader gives up `renew_s` after its last good
renewal *began*; nobody else may take over before `lease_s` after they saw it. What lies between
is the time the leader has to stop.

The leader's work is a task of its own. When it ends, or fails, renewing stops and the Lease is
given back; when the Lease is lost, the work is cancelled and LeadershipLost is raised, upon
which the process must end.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from tramontane.api.clock import micro
from tramontane.api.names import LABEL_HEARTBEAT
from tramontane.kube import metrics
from tramontane.kube.client import Client
from tramontane.kube.errors import (
    AlreadyExists,
    ApiError,
    Conflict,
    LeadershipLost,
    NotFound,
    Unreachable,
)
from tramontane.kube.resources import LEASES

__all__ = ["LeaderElector", "LeadershipLost", "renew_heartbeat"]

log = logging.getLogger(__name__)

_RELEASE_S = 3.0
_TYPE = {"apiVersion": LEASES.api_version, "kind": LEASES.kind}


class LeaderElector:
    """One candidate for one Lease.

    Attributes:
        name: of the Lease; it is created when missing.
        identity: unique to this process, or two processes take each other for themselves.
        lease_s: how long others wait after the last change they saw.
        renew_s: how long the leader goes on without a successful renewal; less than `lease_s`.
        retry_s: the pause between tries.
    """

    def __init__(
        self,
        client: Client,
        name: str,
        namespace: str,
        identity: str,
        *,
        lease_s: float = 15,
        renew_s: float = 10,
        retry_s: float = 2,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.client = client
        self.name = name
        self.namespace = namespace
        self.identity = identity
        self.lease_s = lease_s
        self.renew_s = renew_s
        self.retry_s = retry_s
        self._monotonic = monotonic
        self._wall = wall
        self._held: dict[str, Any] | None = None  # the Lease as we last wrote it
        self._renewed_at = 0.0
        self._seen_version = ""
        self._seen_at = 0.0

    @property
    def leading(self) -> bool:
        """Return whether we hold the Lease for certain at this very moment."""
        return self._held is not None and self._monotonic() < self._renewed_at + self.renew_s

    async def run(self, lead: Callable[[], Awaitable[None]]) -> None:
        """Wait for the Lease, then run `lead` while renewing it; return when `lead` returns.

        Raises:
            LeadershipLost: the Lease could not be renewed in time, or somebody else holds it.
            Exception: what `lead` raised; the Lease is given back first.
        """
        await self._acquire()
        log.info("lease acquired lease=%s identity=%s", self.name, self.identity)
        gauge = metrics.LEADER.labels(self.name)
        gauge.set(1)
        try:
            await self._lead(lead)
        finally:
            gauge.set(0)
            await self._release()

    async def _acquire(self) -> None:
        while True:
            try:
                if await self._try_acquire():
                    return
            except (AlreadyExists, Conflict):
                log.debug("lease taken by another lease=%s", self.name)
            except (ApiError, Unreachable) as error:
                log.warning("acquiring the lease failed lease=%s error=%r", self.name, str(error))
            await asyncio.sleep(self.retry_s)

    async def _try_acquire(self) -> bool:
        """Take the Lease if it is free; return whether it is ours now."""
        started = self._monotonic()
        try:
            lease = await self.client.get(LEASES, self.name, self.namespace)
        except NotFound:
            meta = {"name": self.name, "namespace": self.namespace}
            body = {**_TYPE, "metadata": meta, "spec": self._spec({})}
            self._hold(await self.client.create(LEASES, body), started)
            return True
        spec = lease.get("spec") or {}
        version = lease["metadata"]["resourceVersion"]
        if version != self._seen_version:
            self._seen_version, self._seen_at = version, self._monotonic()
        holder = spec.get("holderIdentity")
        expires_at = self._seen_at + float(spec.get("leaseDurationSeconds") or self.lease_s)
        if holder and holder != self.identity and self._monotonic() < expires_at:
            return False
        self._hold(await self.client.replace(LEASES, {**lease, "spec": self._spec(spec)}), started)
        return True

    async def _lead(self, lead: Callable[[], Awaitable[None]]) -> None:
        """Run the work and the renewals; whichever ends first ends the other."""

        async def work() -> None:
            await lead()

        working = asyncio.create_task(work(), name=f"lead-{self.name}")
        renewing = asyncio.create_task(self._renew(), name=f"renew-{self.name}")
        try:
            await asyncio.wait({working, renewing}, return_when=asyncio.FIRST_COMPLETED)
            if renewing.done() and not working.done():
                self._held = None
                await self._stop(working)
                await renewing  # raises LeadershipLost
            await working
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
            if not working.done():
                await self._stop(working)

    async def _stop(self, working: asyncio.Task[None]) -> None:
        """Cancel the work; do not wait for it longer than others wait for the Lease."""
        working.cancel()
        _, pending = await asyncio.wait({working}, timeout=self.lease_s - self.renew_s)
        if pending:
            log.error("leader does not stop lease=%s", self.name)

    async def _renew(self) -> None:
        """Renew until it fails for too long.

        Raises:
            LeadershipLost: see `run`.
        """
        while True:
            await asyncio.sleep(self.retry_s)
            left_s = self._renewed_at + self.renew_s - self._monotonic()
            if left_s <= 0:
                raise LeadershipLost(
                    f"Lease {self.namespace}/{self.name}: must be renewed within"
                    f" {self.renew_s:g} s (got no success); the process ends and starts anew"
                )
            try:
                async with asyncio.timeout(left_s):
                    await self._renew_once()
            except (ApiError, Unreachable, TimeoutError) as error:
                log.warning("renewing the lease failed lease=%s error=%r", self.name, str(error))

    async def _renew_once(self) -> None:
        assert self._held is not None
        started = self._monotonic()
        await self._write(self._held, self._spec(self._held["spec"]))
        self._renewed_at = started

    async def _release(self) -> None:
        """Give the Lease back if we hold it, so that the next leader need not wait."""
        lease, self._held = self._held, None
        if lease is None:
            return
        spec = {**lease["spec"], "holderIdentity": "", "renewTime": micro(self._wall())}
        # Best effort: where it fails, the Lease runs out by itself.
        with contextlib.suppress(ApiError, Unreachable, TimeoutError, LeadershipLost):
            async with asyncio.timeout(_RELEASE_S):
                await self._write(lease, spec)
                log.info("lease released lease=%s identity=%s", self.name, self.identity)
        self._held = None

    async def _write(self, lease: dict[str, Any], spec: dict[str, Any]) -> None:
        """Write `spec` to the Lease that we hold, as we last saw it.

        Raises:
            LeadershipLost: somebody else holds it, or it is gone.
        """
        try:
            self._held = await self.client.replace(LEASES, {**lease, "spec": spec})
        except (Conflict, NotFound):
            # Changed, or gone: perhaps by a write of ours whose answer we did not see.
            holder = None
            with contextlib.suppress(NotFound):
                lease = await self.client.get(LEASES, self.name, self.namespace)
                holder = lease["spec"].get("holderIdentity")
            if holder != self.identity:
                raise LeadershipLost(
                    f"Lease {self.namespace}/{self.name}: must be held by {self.identity}"
                    f" (got {holder or 'nobody'}); the process ends and starts anew"
                ) from None
            self._held = await self.client.replace(LEASES, {**lease, "spec": spec})

    def _hold(self, lease: dict[str, Any], started: float) -> None:
        self._held, self._renewed_at = lease, started

    def _spec(self, old: dict[str, Any]) -> dict[str, Any]:
        """Return the spec that says that we hold the Lease, given what it said before."""
        now = micro(self._wall())
        ours = old.get("holderIdentity") == self.identity
        transitions = int(old.get("leaseTransitions") or 0)
        return {
            **old,
            "holderIdentity": self.identity,
            "leaseDurationSeconds": max(1, round(self.lease_s)),
            "acquireTime": old.get("acquireTime") or now if ours else now,
            "renewTime": now,
            "leaseTransitions": transitions + (not ours and bool(old)),
        }


async def renew_heartbeat(
    client: Client, name: str, namespace: str, holder: str, duration_s: float
) -> None:
    """Renew a plain Lease that says `holder` is alive; create it if it is missing.

    One patch: nobody contests it, so its resourceVersion does not matter.
    """
    labels = {LABEL_HEARTBEAT: "true"}
    spec = {
        "holderIdentity": holder,
        "leaseDurationSeconds": max(1, round(duration_s)),
        "renewTime": micro(time.time()),
    }
    patch = {"metadata": {"labels": labels}, "spec": spec}
    try:
        await client.merge_patch(LEASES, name, patch, namespace)
    except NotFound:
        meta = {"name": name, "namespace": namespace, "labels": labels}
        await client.create(LEASES, {**_TYPE, "metadata": meta, "spec": spec})
