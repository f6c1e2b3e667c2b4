"""Run the operator's process: CRDs, caches, Lease, controllers, the end.

1. wait until the CRDs are there; until then /readyz says `crds: not ready`
2. fill the caches. A standby does so too: a list of 12,500 Blades takes longer than the Lease
   may, and the memory is asked for on every replica anyway
3. wait for the Lease `tramontane-operator`
4. run kopf, the resync and the controllers until told to stop; give the Lease back
5. or lose the Lease: then the process ends, and whoever supervises it starts it again
"""

import asyncio
import logging
import os
import time
from collections.abc import Coroutine, Mapping
from functools import partial
from typing import Any, cast

from prometheus_client import REGISTRY, CollectorRegistry

from tramontane.api.names import LEASE_OPERATOR, MANAGER_OPERATOR
from tramontane.controllers import inferencedeployment as serving
from tramontane.controllers import informers as caches
from tramontane.controllers import shell
from tramontane.controllers.inferencedeployment import InferenceDeploymentController
from tramontane.controllers.inferencedeployment.metrics import SERVED
from tramontane.controllers.nodepool import care
from tramontane.controllers.nodepool.metrics import BLADES as BLADE_METRICS
from tramontane.controllers.nodepool.reconcile import NodePoolController
from tramontane.controllers.trainingjob import TrainingJobController
from tramontane.controllers.trainingjob.metrics import JOBS
from tramontane.kube.client import ApiError, Client, NotFound, Unreachable
from tramontane.kube.events import EventRecorder
from tramontane.kube.lease import LeaderElector
from tramontane.kube.process import Checks, ProcessOptions, StopEvent
from tramontane.kube.resources import (
    BLADES,
    GANGS,
    INFERENCEDEPLOYMENTS,
    NODEPOOLS,
    TRAININGJOBS,
)

log = logging.getLogger(__name__)

_KINDS = (NODEPOOLS, BLADES, GANGS, TRAININGJOBS, INFERENCEDEPLOYMENTS)
# Image of our agent, by which a GPU is reset where a pool says no other way.
ENV_IMAGE = "TRAMONTANE_IMAGE"
# The Secrets for its registry, with commas between them.
ENV_PULL_SECRETS = "TRAMONTANE_PULL_SECRETS"
# Address of its pod, by which requests for models without a replica reach it.
ENV_ADDRESS = "POD_IP"
# The port there, where it is not the usual one; 0 takes a free one.
ENV_ACTIVATOR_PORT = "TRAMONTANE_ACTIVATOR_PORT"
#: What the lowest detail does without.
PER_OBJECT = (BLADE_METRICS, JOBS, SERVED)
_LOOK_AGAIN_S = 2.0
_SAY_AGAIN_S = 30.0


def serving_config(environ: Mapping[str, str]) -> serving.Config:
    """Return where requests for models without a replica come in."""
    port = environ.get(ENV_ACTIVATOR_PORT)
    return serving.Config(
        address=environ.get(ENV_ADDRESS) or None,
        activator_port=serving.ACTIVATOR_PORT if port is None else int(port),
    )


def default_reset(environ: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the pod that resets a GPU in pools that give none; None where there is no image."""
    image, secrets = environ.get(ENV_IMAGE), environ.get(ENV_PULL_SECRETS, "")
    return care.reset_by(image, [one for one in secrets.split(",") if one]) if image else None


def say_little(registry: CollectorRegistry = REGISTRY) -> None:
    """Export nothing per blade, job or deployment."""
    for collector in PER_OBJECT:
        registry.unregister(collector)


async def serve(
    options: ProcessOptions, readiness: Checks, stop: StopEvent, *, dry_run: bool = False
) -> None:
    """Be one replica of the operator until `stop` is set; `dry_run`: take no blade out.

    Raises:
        LeadershipLost: another replica may lead by now.
    """
    installed = asyncio.Event()
    readiness.add("crds", installed.is_set)
    async with await Client.connect(user_agent=MANAGER_OPERATOR) as client:
        if not await _unless(stop, wait_for_kinds(client)):
            return
        installed.set()
        await Replica(client, options, readiness, dry_run=dry_run).run(stop)


class Replica:
    """One replica, from its caches on."""

    def __init__(
        self,
        client: Client,
        options: ProcessOptions,
        readiness: Checks,
        *,
        dry_run: bool = False,
    ) -> None:
        self._client = client
        self._informers = caches.connect(client, options.namespace)
        self._recorder = EventRecorder(client, "tramontane.dev/operator", options.identity)
        self._elector = LeaderElector(client, LEASE_OPERATOR, options.namespace, options.identity)
        self._nodepools = NodePoolController(
            client,
            self._informers,
            self._recorder,
            options.namespace,
            reset=default_reset(os.environ),
            dry_run=dry_run,
        )
        # Our Nodes are NodeViews and more; that is safe, but Informer is invariant.
        shared = cast("Any", self._informers)
        self._trainingjobs = TrainingJobController(client, shared, self._recorder, time.time)
        self._inference = InferenceDeploymentController(
            client,
            shared,
            self._recorder,
            time.time,
            serving_config(os.environ),
        )
        self._sinks: shell.Sinks = {
            NODEPOOLS: self._nodepools.pools.add,
            TRAININGJOBS: self._on_job,
            INFERENCEDEPLOYMENTS: self._inference.queue.add,
        }
        self._nodepools.wire()
        self._trainingjobs.wire()
        self._inference.wire()
        readiness.add("caches", lambda: self._informers.synced)

    async def run(self, stop: StopEvent) -> None:
        """Fill the caches, wait for the Lease, lead until `stop` is set."""
        following = [
            asyncio.create_task(self._informers.run()),
            asyncio.create_task(self._recorder.run()),
        ]
        leading = asyncio.create_task(self._stand(stop))
        stopping = asyncio.create_task(stop.wait())
        tasks = (*following, leading, stopping)
        try:
            ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if stopping in ended and self._elector.leading:
                await leading  # ends what it does, and gives the Lease back
            for task in ended - {stopping}:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _stand(self, stop: StopEvent) -> None:
        started_s = time.monotonic()
        await self._informers.wait_synced()
        log.info(
            "caches filled seconds=%.2f %s",
            time.monotonic() - started_s,
            " ".join(f"{name}={count}" for name, count in self._informers.sizes().items()),
        )
        await self._elector.run(partial(self._lead, stop))

    async def _lead(self, stop: StopEvent) -> None:
        """Run everything that only the leader may."""
        async with asyncio.TaskGroup() as group:
            group.create_task(shell.watch(self._sinks, stop))
            group.create_task(shell.resync(self._client, self._sinks, stop))
            group.create_task(self._nodepools.run(stop))
            group.create_task(self._trainingjobs.run(stop))
            group.create_task(self._inference.run(stop))

    def _on_job(self, key: str) -> None:
        self._trainingjobs.queue.add(key)
        self._inference.job_changed(key)


async def wait_for_kinds(client: Client) -> None:
    """Return when the API server knows all our kinds; log what is missing until then."""
    said, said_s = "", float("-inf")
    while trouble := await _trouble(client):
        if trouble != said or time.monotonic() - said_s > _SAY_AGAIN_S:
            log.warning("waiting %s", trouble)
            said, said_s = trouble, time.monotonic()
        await asyncio.sleep(_LOOK_AGAIN_S)


async def _trouble(client: Client) -> str:
    """Return why we cannot start, as key=value; empty when we can."""
    missing = []
    for resource in _KINDS:
        try:
            await client.list_page(resource, limit=1)
        except NotFound:
            missing.append(f"{resource.plural}.{resource.group}")
        except (ApiError, Unreachable) as error:
            return f"resource={resource.plural} error={str(error)!r}"
    if not missing:
        return ""
    return f"missing_crds={','.join(missing)} remedy='kubectl apply --server-side -f crds/'"


async def _unless(stop: StopEvent, work: Coroutine[Any, Any, None]) -> bool:
    """Do `work`; return whether it was done before `stop` was set."""
    working = asyncio.create_task(work)
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
            return True
        return False
    finally:
        for task in (working, stopping):
            task.cancel()
        await asyncio.gather(working, stopping, return_exceptions=True)
