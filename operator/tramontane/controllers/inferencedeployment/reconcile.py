"""Run the InferenceDeployment controller: the shell around `plan`.

    key → GET the deployment → World from the caches → plan → write → one status → events

The order of the writes is what makes a kill at any moment harmless:

    1. what begins (a restart, a departure, a step of a rollout) goes into the status first
    2. the revision that pods are to be made from; then those that nothing needs any more
    3. Gangs: claimed before they can have pods, deleted when their pods are gone
    4. Service, ConfigMap, NetworkPolicy; then pods: rotation, deletes, creates, many at a time
    5. the status, if it says something else than before; also where one of 2 to 4 met an error,
       which is raised when that is done
    6. events, once the status holds what they tell

A deployment with the profile Edge has no gangs; `edge` plans it.
"""

import asyncio
import itertools
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from tramontane.api import clock
from tramontane.api.conditions import ConditionType, holds
from tramontane.api.gang import Gang
from tramontane.api.inferencedeployment import InferenceDeployment, Profile
from tramontane.api.names import IN_ROTATION, LABEL_GANG, LABEL_INFERENCE, LABEL_ROTATION
from tramontane.api.quantity import parse_duration
from tramontane.api.trainingjob import TrainingJob
from tramontane.controllers.gangpods.controller import GangController
from tramontane.controllers.gangpods.memory import Memory
from tramontane.controllers.gangpods.wiring import CROWD_S, Caches, Wiring, run_queue, say
from tramontane.controllers.inferencedeployment import edge, revisions, signing
from tramontane.controllers.inferencedeployment.actions import Plan
from tramontane.controllers.inferencedeployment.activator import Activator
from tramontane.controllers.inferencedeployment.assumed import Assumed
from tramontane.controllers.inferencedeployment.execute import Executor
from tramontane.controllers.inferencedeployment.load import Load
from tramontane.controllers.inferencedeployment.metrics import SERVED
from tramontane.controllers.inferencedeployment.objects import API_PORT
from tramontane.controllers.inferencedeployment.plan import plan
from tramontane.controllers.inferencedeployment.scraper import Scraper
from tramontane.controllers.inferencedeployment.totals import Totals
from tramontane.controllers.inferencedeployment.world import Revision, World
from tramontane.kube.client import Client
from tramontane.kube.errors import ApiError, NotFound, Unreachable
from tramontane.kube.events import EventRecorder
from tramontane.kube.resources import (
    CONFIGMAPS,
    CONTROLLERREVISIONS,
    DEPLOYMENTS,
    INFERENCEDEPLOYMENTS,
    TRAININGJOBS,
)
from tramontane.kube.views import PodView

log = logging.getLogger(__name__)

_KIND = "InferenceDeployment"
INDEX = "inference"
# Whoever hears of a job's change has it forgotten at once; the rest is for changes that got lost.
_JOB_KNOWN_S = 30.0
_GATEWAY = "/apis/gateway.networking.k8s.io/v1"
_GATEWAY_KNOWN_S = 600.0
ACTIVATOR_PORT = 8000
# A large model is loaded by then; who waits longer has gone.
HOLD_S = 900.0


class Loads(Protocol):
    """What is needed of the scraper: what the engines of a deployment say of their load."""

    def watch(self, key: str, deployment: InferenceDeployment, pods: Mapping[str, PodView]) -> None:
        """Read from now on the metrics of these pods, by gang, and of no others of the key."""

    def loads(self, key: str) -> Mapping[str, Load]:
        """Return what they said last, by gang."""

    def totals(self, key: str) -> Totals | None:
        """Return what they have counted, all together, since the key is watched."""

    def forget(self, key: str) -> None: ...  # noqa: D102 - named for what it does
    async def close(self) -> None: ...  # noqa: D102 - named for what it does


@dataclass(frozen=True, slots=True)
class Config:
    """Hold what can be set.

    Attributes:
        workers: how many deployments are worked on at a time.
        address: by which requests reach this process while no replica serves; None: they do not.
        activator_port: and the port; 0 takes a free one.
    """

    workers: int = 8
    address: str | None = None
    activator_port: int = ACTIVATOR_PORT


class InferenceDeploymentController(GangController[InferenceDeployment]):
    """Reconcile InferenceDeployments; keys are "namespace/name".

    It holds nothing that matters: what it remembers of its own writes spares repeated requests.
    Who watches InferenceDeployments adds their keys to `queue`, and tells of TrainingJobs by
    `job_changed`; `wire` adds keys for changes of pods, gangs, blades, nodes and pools. `loads`
    makes another reader of the engines' metrics than the real one; it gets what is to be called
    with the key of a deployment whose loads have changed.
    """

    def __init__(
        self,
        client: Client,
        informers: Caches,
        recorder: EventRecorder,
        clock: Callable[[], float],
        config: Config | None = None,
        *,
        loads: Callable[[Callable[[str], None]], Loads] | None = None,
    ) -> None:
        super().__init__(
            client,
            informers,
            recorder,
            clock,
            resource=INFERENCEDEPLOYMENTS,
            model=InferenceDeployment,
        )
        self._config = config or Config()
        self._executor = Executor(client, clock)
        self._loads: Loads = (
            loads(self._on_loads) if loads is not None else Scraper(clock, self._on_loads)
        )
        self._jobs: Memory[TrainingJob] = Memory(self._get_job, clock, known_s=_JOB_KNOWN_S)
        self._keys: Memory[dict[str, str]] = Memory(self._get_keys, clock)
        self._gateway: Memory[bytes] = Memory(
            client.get_raw, clock, known_s=_GATEWAY_KNOWN_S, missing_s=_GATEWAY_KNOWN_S
        )
        self._assumed: dict[str, Assumed] = {}
        self._sources: dict[str, frozenset[str]] = {}
        self._revisions: dict[str, dict[str, Revision]] = {}
        self._numbers: dict[str, int] = {}
        self._demand: dict[str, float] = {}
        self._watched: dict[str, float] = {}
        self._turns = itertools.count()
        self._activator: Activator | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set; the caches must have been synced before."""
        await self._listen()
        SERVED.count_by(self._loads.totals)
        try:
            await run_queue(self.queue, self.reconcile, self._config.workers, stop)
        finally:
            if self._activator is not None:
                await self._activator.stop()
            await self._loads.close()

    async def _listen(self) -> None:
        """Answer for deployments without a replica, where this process has an address."""
        if self._config.address is None:
            log.warning("no activator reason=%r", "POD_IP is not set")
            return
        self._activator = Activator(
            self.backend_of,
            self.demanded,
            self._config.activator_port,
            HOLD_S,
            host="::" if ":" in self._config.address else "0.0.0.0",  # noqa: S104 - for all pods
            short=self.key_of,
        )
        await self._activator.start()

    def wire(self) -> None:
        """Add the keys of the deployments that a change of the caches bears on."""
        Wiring(
            self._caches,
            self.queue,
            _KIND,
            LABEL_INFERENCE,
            INDEX,
            written=self._assumed,
            known=lambda: self._uids,
        ).connect()

    def job_changed(self, key: str) -> None:
        """Look again at the deployments that serve what a TrainingJob made."""
        self._jobs.forget(key)
        for owner, sources in self._sources.items():
            if key in sources:
                self.queue.add(owner)

    def _on_loads(self, key: str) -> None:
        self.queue.add_after(key, CROWD_S)

    def demanded(self, key: str) -> None:
        """Note that a request came for a deployment while no replica serves."""
        self._demand[key] = self._now()
        self.queue.add(key, urgent=True)

    def backend_of(self, key: str) -> str | None:
        """Return the address of a replica that serves, each in turn; None while none does.

        Raises:
            LookupError: there is no such deployment.
        """
        if key not in self._uids:
            raise LookupError(key)
        serving = [pod for pod in self._caches.pods.by_index(INDEX, key) if _answers(pod)]
        if not serving:
            return None
        pod = serving[next(self._turns) % len(serving)]
        return f"{_host(pod.pod_ip or '')}:{API_PORT}"

    def key_of(self, name: str) -> str | None:
        """Return the key of the one deployment of that name; None where there is none, or more."""
        keys = [key for key in self._uids if key.endswith(f"/{name}")]
        return keys[0] if len(keys) == 1 else None

    async def reconcile(self, key: str) -> float | None:
        """Bring the deployment nearer to what it should be; return when to look again (s)."""
        deployment = await self._read(key)
        if deployment is None:
            return None
        if deployment.metadata.deletion_timestamp is not None:
            self._loads.forget(key)
            return None
        world = await self._observe(deployment)
        if deployment.spec.profile is Profile.EDGE:
            return await self._on_edge(world)
        return await self._execute(world, plan(world))

    async def _observe(self, deployment: InferenceDeployment) -> World:
        key = deployment.key
        assumed = self._assumed.setdefault(key, Assumed())
        stored = await self._stored(deployment)
        priority = await self._priorities.of(deployment.spec.priority_class_name)
        jobs = await self._source_jobs(deployment)
        trusted, distrust = await self._trust(deployment)
        now = self._now()
        caches = self._caches
        pods: dict[str, list[PodView]] = defaultdict(list)
        # What is left of a deployment of the same name is not ours; it is about to be collected.
        uid = deployment.metadata.uid
        for pod in assumed.pods(caches.pods.by_index(INDEX, key), now):
            if pod.owner_uid == uid:
                pods[pod.labels.get(LABEL_GANG, "")].append(pod)
        gangs = [one for one in caches.gangs.by_index(INDEX, key) if _owns(uid, one)]
        source = deployment.spec.model.source.training_job
        return World(
            now=now,
            deployment=deployment,
            revisions=dict(stored),
            gangs=assumed.gangs(gangs),
            pods={gang: tuple(members) for gang, members in pods.items()},
            blades=caches.blades.cache,
            nodes=caches.nodes.cache,
            pools=caches.pools.cache,
            job=jobs.get(source.name) if source is not None else None,
            # What a job that is not done would bring is not there.
            templates={
                name: job.spec.template
                for name, job in jobs.items()
                if holds(job.status.conditions, ConditionType.COMPLETE)
            },
            priority=priority,
            loads=self._loads.loads(key),
            watched_since=self._watched.setdefault(key, now),
            demand_at=self._demand.get(key, 0.0),
            trusted=trusted,
            distrust=distrust,
            refusal=assumed.refused(now),
        )

    async def _execute(self, world: World, planned: Plan) -> float | None:
        deployment, status = world.deployment, planned.status
        differs = status != deployment.status
        written = planned.record_first and differs
        if written:
            await self._executor.write_status(deployment, status)
            say(self._recorder, deployment, planned.events)
        failed: ApiError | Unreachable | None = None
        try:
            await self._write(world, planned)
        except (ApiError, Unreachable) as error:
            failed = error  # people read meanwhile how the deployment stands
        if differs and not written:
            await self._executor.write_status(deployment, status)
        if not written:
            say(self._recorder, deployment, planned.events)
        SERVED.observe(deployment, status, world.loads, _made(world))
        self._loads.watch(deployment.key, deployment, _heads(world))
        if failed is not None:
            raise failed
        return planned.after

    async def _write(self, world: World, planned: Plan) -> None:
        """Write revisions, Gangs, what stands beside the pods, and pods."""
        deployment, executor = world.deployment, self._executor
        key, assumed = deployment.key, self._assumed[deployment.key]
        if planned.store is not None and await self._store(deployment, planned.store, assumed):
            world = replace(world, revisions=dict(self._revisions[key]))
        for hash_ in planned.drop_revisions:
            await executor.drop_revision(deployment, hash_)
            self._revisions[key].pop(hash_, None)
        for claim in planned.claims:
            await executor.claim(deployment, claim, assumed)
        for name in planned.drops:
            if (gang := world.gangs.get(name)) is not None:
                await executor.drop(deployment, gang, assumed)
        # Of a spec that was refused from the start there is nothing that would need them.
        stored = self._revisions[key].values()
        if stored and await executor.keep_dependents(deployment, assumed, stored):
            await self._keep_rest(world, planned, assumed)
            await self._write_pods(world, planned)

    async def _write_pods(self, world: World, planned: Plan) -> None:
        counts = (len(planned.creates), len(planned.deletes), len(planned.marks))
        if not any(counts):
            return
        key = world.deployment.key
        log.info("writing pods deployment=%s creates=%d deletes=%d marks=%d", key, *counts)
        await self._executor.write_pods(world, planned, self._assumed[key])

    async def _keep_rest(self, world: World, planned: Plan, assumed: Assumed) -> None:
        """Keep what stands beside the pods only at times, or only in some clusters."""
        deployment = world.deployment
        if _may_be_zero(deployment):
            serves = any(_answers(pod) for pods in world.pods.values() for pod in pods)
            to = None if serves else self._here()
            await self._executor.keep_activator(deployment, to, assumed)
        if await self._gateway.of(_GATEWAY) is not None:
            weights = {one.hash: one.weight or 0 for one in planned.status.revisions}
            stored = {hash_: weights.get(hash_, 0) for hash_ in self._revisions[deployment.key]}
            await self._executor.keep_route(deployment, stored, assumed)

    def _here(self) -> tuple[str, int] | None:
        if self._activator is None or self._config.address is None:
            return None
        return self._config.address, self._activator.port

    async def _on_edge(self, world: World) -> float | None:
        deployment = world.deployment
        assumed, meta = self._assumed[deployment.key], deployment.metadata
        try:
            there = await self._client.get(DEPLOYMENTS, meta.name, meta.namespace)
        except NotFound:
            there = None
        planned = edge.plan(world, there)
        if planned.body is not None and await self._executor.keep_dependents(deployment, assumed):
            await self._executor.keep(deployment, DEPLOYMENTS, planned.body, assumed)
        if planned.status != deployment.status:
            await self._executor.write_status(deployment, planned.status)
        SERVED.observe(deployment, planned.status, {})
        return planned.after

    async def _stored(self, deployment: InferenceDeployment) -> Mapping[str, Revision]:
        """Return the stored revisions; listed once, for nobody else writes them."""
        key, meta = deployment.key, deployment.metadata
        if key not in self._revisions:
            listed = await self._client.list_all(
                CONTROLLERREVISIONS,
                meta.namespace,
                label_selector=f"{LABEL_INFERENCE}={meta.name}",
            )
            ours = [raw for raw in listed if _owner_uid(raw) == meta.uid]
            self._numbers[key] = max((raw["revision"] for raw in ours), default=0)
            found = [revisions.from_data(_hash_of(raw, meta.name), raw["data"]) for raw in ours]
            self._revisions[key] = {one.hash: one for one in found}
        return self._revisions[key]

    async def _store(
        self, deployment: InferenceDeployment, revision: Revision, assumed: Assumed
    ) -> bool:
        key = deployment.key
        number = self._numbers[key] + 1
        stored = await self._executor.store(deployment, revision, number, assumed)
        if stored:
            self._numbers[key] = number
            self._revisions[key][revision.hash] = revision
        return stored

    async def _source_jobs(self, deployment: InferenceDeployment) -> dict[str, TrainingJob]:
        """Return the TrainingJobs that made the model and the adapters, by name."""
        model = deployment.spec.model
        sources = (model.source, *(adapter.source for adapter in model.adapters))
        names = {one.training_job.name for one in sources if one.training_job is not None}
        namespace = deployment.metadata.namespace
        self._sources[deployment.key] = frozenset(f"{namespace}/{name}" for name in names)
        found = {name: await self._jobs.of(f"{namespace}/{name}") for name in sorted(names)}
        return {name: job for name, job in found.items() if job is not None}

    async def _trust(self, deployment: InferenceDeployment) -> tuple[bool | None, str]:
        """Return whether the digest is signed by somebody trusted, and why not."""
        model = deployment.spec.model
        if model.verify is None:
            return None, ""
        name = model.verify.keys_from
        pems = await self._keys.of(f"{deployment.metadata.namespace}/{name}")
        if pems is None:
            return False, f"verify.keysFrom must name a ConfigMap (got {name}, which is not there)"
        return signing.is_trusted(model.digest or "", model.verify.signature, pems)

    async def _get_job(self, key: str) -> TrainingJob:
        namespace, _, name = key.partition("/")
        return TrainingJob.model_validate(await self._client.get(TRAININGJOBS, name, namespace))

    async def _get_keys(self, key: str) -> dict[str, str]:
        namespace, _, name = key.partition("/")
        raw = await self._client.get(CONFIGMAPS, name, namespace)
        return dict(raw.get("data") or {})

    def _forget(self, key: str) -> None:
        SERVED.forget(key)
        self._loads.forget(key)
        known: tuple[dict[str, Any], ...] = (
            self._assumed,
            self._sources,
            self._revisions,
            self._numbers,
            self._demand,
            self._watched,
        )
        for memory in known:
            memory.pop(key, None)
        self._executor.forget(self._uids.pop(key, ""))


def _heads(world: World) -> dict[str, PodView]:
    """Return the pod of each replica that answers requests, where one runs."""
    return {
        gang: pod
        for gang, pods in world.pods.items()
        for pod in pods
        if LABEL_ROTATION in pod.labels and pod.pod_ip and not pod.finished and not pod.deleting
    }


def _made(world: World) -> dict[str, float]:
    """Return when each replica's Gang was made (Unix s)."""
    made = ((name, gang.metadata.creation_timestamp) for name, gang in world.gangs.items())
    return {name: clock.parse(at) for name, at in made if at}


def _answers(pod: PodView) -> bool:
    """Return whether the Service leads to the pod."""
    return (
        pod.ready
        and not pod.deleting
        and bool(pod.pod_ip)
        and pod.labels.get(LABEL_ROTATION) == IN_ROTATION
    )


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _may_be_zero(deployment: InferenceDeployment) -> bool:
    """Return whether there are times without a replica that a request ends."""
    spec = deployment.spec
    return (
        spec.capacity.min_replicas == 0 or parse_duration(spec.autoscaling.idle_to_zero_after) > 0
    )


def _owns(uid: str | None, gang: Gang) -> bool:
    return any(owner.uid == uid for owner in gang.metadata.owner_references)


def _owner_uid(raw: Mapping[str, Any]) -> str | None:
    owners = raw["metadata"].get("ownerReferences") or ()
    return next((owner["uid"] for owner in owners if owner.get("controller")), None)


def _hash_of(raw: Mapping[str, Any], deployment: str) -> str:
    name: str = raw["metadata"]["name"]
    return name.removeprefix(f"{deployment}-")
