"""Make and take away work pods: the shell around works.py and groups.py.

A pod's name follows from what is remembered in Blade.status, which is written first: so a pod is
made once, whoever makes it, and an operator that died in between makes it when it is back.
"""

import asyncio
import copy
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from tramontane.api import names
from tramontane.api.blade import Blade
from tramontane.api.names import API_VERSION, Work
from tramontane.controllers.nodepool import alone, groups
from tramontane.controllers.nodepool.around import UNTESTED, Collective
from tramontane.controllers.nodepool.breaks import Break, Members
from tramontane.controllers.nodepool.care import Care
from tramontane.controllers.nodepool.policy import Policy
from tramontane.controllers.nodepool.refusals import Refusals, is_for_good
from tramontane.controllers.nodepool.works import (
    ANNOTATION_GROUP_SIZE,
    Want,
    WorkPod,
    name_of,
)
from tramontane.kube.client import AlreadyExists, ApiError, Client, NotFound
from tramontane.kube.informer import Informer
from tramontane.kube.resources import PODS, SERVICES, Resource

Raw = dict[str, Any]

log = logging.getLogger(__name__)

_MASTER_PORT = 29400
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 5.0, 600.0
_MOST_DOUBLINGS = 10
# A pod that was wanted is made and seen by then, or never will be.
_POD_IS_SEEN_S = 30.0


class Works:
    """The work pods of one cluster, in one namespace."""

    def __init__(
        self,
        client: Client,
        pods: Informer[WorkPod],
        namespace: str,
        now_s: Callable[[], float],
    ) -> None:
        self._client = client
        self._pods = pods
        self._namespace = namespace
        self._now_s = now_s
        self._told: dict[str, dict[str, Collective]] = {}
        # Groups that broke: by pool and members, with the time at which they may be tried again.
        self._broken: dict[str, dict[Members, tuple[Break, float]]] = {}
        self._trouble: dict[str, tuple[str, ...]] = {}
        self._refusals = Refusals(now_s)
        # By pool: blades whose idle test was granted, until its pod must have been seen.
        self._soon: dict[str, dict[str, float]] = {}

    def on(self, blade: str) -> tuple[WorkPod, ...]:
        """Return the blade's work pods; one that the API server refused is one that broke."""
        return (*self._pods.by_index("blade", blade), *self._refusals.on(blade))

    def forget(self, blade: str) -> None:
        """Drop what is remembered of a blade that is gone."""
        self._refusals.keep(blade, None)

    def forget_pool(self, pool: str) -> None:
        """Drop what is remembered of a pool that is gone, or tests no groups any more."""
        for kept in (self._told, self._broken, self._trouble, self._soon):
            kept.pop(pool, None)
        self._refusals.forget_pool(pool)

    def collective(self, pool: str, blade: str) -> Collective:
        """Return what the last round of groups has shown of the blade."""
        return self._told.get(pool, {}).get(blade, UNTESTED)

    def is_testing(self, pool: str) -> bool:
        """Return whether blades of the pool wait for a group or run in one."""
        return bool(self._told.get(pool))

    def trouble(self, pool: str) -> tuple[str, ...]:
        """Return what people must know of the pool's groups."""
        return self._trouble.get(pool, ())

    def refused(self, pool: str) -> tuple[str, ...]:
        """Return what people must know of the pool's pods that the API server refuses."""
        return self._refusals.of(pool)

    def idle_tests(self, pool: str, but: str) -> int:
        """Return how many burn-ins run in the pool, or are about to, on other blades than `but`."""
        pods, now_s = self._pods.by_index("pool", pool), self._now_s()
        running = {pod.blade for pod in pods if pod.kind is Work.BURN_IN and not pod.deleting}
        soon = self._soon.setdefault(pool, {})
        for blade in [one for one, until_s in soon.items() if one in running or until_s <= now_s]:
            del soon[blade]
        return len((running | soon.keys()) - {but})

    def grant_idle_test(self, pool: str, blade: str) -> None:
        """Count the test of an idle blade from now on: its pod takes a while to be seen."""
        self._soon.setdefault(pool, {})[blade] = self._now_s() + _POD_IS_SEEN_S

    # One blade

    async def ensure(
        self, blade: Blade | None, policy: Policy, name: str, want: Want | None, *, gently: bool
    ) -> bool:
        """Make the wanted pod and take all others of the blade away.

        Returns whether the API server has just refused it: then the blade has news.

        Args:
            blade: owner of the pod; None: there is nothing to make.
            policy: of its pool.
            name: of the blade.
            want: the pod it must have.
            gently: let a pod that ends have its grace period.
        """
        was_refused = self._refusals.keep(name, want.name if want is not None else None)
        there = tuple(self._pods.by_index("blade", name))
        for seen in there:
            if (want is None or seen.name != want.name) and not seen.deleting:
                await self._delete(seen.name, 30 if gently else 0)
        if want is None or blade is None or was_refused:
            return False
        if any(seen.name == want.name for seen in there):
            return False
        if want.kind is Work.BURN_IN and there:
            return False  # one that is leaving has the GPUs still; its end brings us back here
        template = _template(policy.care, want.kind)
        if template is None:
            return False
        env = {"TRAMONTANE_BLADE": name}
        annotations = {}
        if want.kind is Work.RESET:
            gpu = "all" if want.gpu is None else str(want.gpu)
            env["TRAMONTANE_GPU"] = annotations[names.ANNOTATION_REPAIR_GPU] = gpu
        pod = render(template, blade, want.kind, want.name, env)
        pod["metadata"]["annotations"] |= annotations
        if why := await self._create(PODS, pod, policy.pool):
            self._refusals.broke(pod, why)
        return bool(why)

    # The groups of one pool

    async def play(
        self,
        policy: Policy,
        candidates: list[groups.Candidate],
        blades: Mapping[str, Blade],
        now: float,
        again: Callable[[str], None],
    ) -> None:
        """Run the collective step of a pool; `again` is called for blades that learn something."""
        test = policy.care.collective
        pods = [p for p in self._pods.by_index("pool", policy.pool) if p.kind is Work.COLLECTIVE]
        if test is None:
            await asyncio.gather(*(self._delete(pod.name, 0) for pod in pods))
            self.forget_pool(policy.pool)
            return
        broken = self._breaks(policy.pool, {one.name for one in candidates})
        played = groups.play(test, candidates, pods, now, broken)
        played = alone.tell(played, candidates, now)
        if played.start and (why := self._refusals.keeps_off(policy.pool)):
            played = _not_started(played, why)
        self._trouble[policy.pool] = played.trouble
        self._tell(policy.pool, played, again)
        await self._end_groups(policy.pool, pods, played, candidates)
        left = dict(played.start)
        for group, members in played.start.items():
            if why := await self._start(group, members, policy, test.template, blades):
                self._refusals.put_off(policy.pool, why)
                self._tell(policy.pool, _not_started(replace(played, start=left), why), again)
                return
            del left[group]
        if played.start:
            self._refusals.begun(policy.pool)

    def _tell(self, pool: str, played: groups.Round, again: Callable[[str], None]) -> None:
        before, told = self._told.get(pool, {}), dict(played.blades)
        self._told[pool] = told
        for blade in sorted(before.keys() | told.keys()):
            if before.get(blade) != told.get(blade):
                again(blade)

    def _breaks(self, pool: str, there: set[str]) -> dict[Members, Break]:
        """Return the groups that broke, without those of which a blade is gone."""
        known = self._broken.setdefault(pool, {})
        for members in [members for members in known if not members <= there]:
            del known[members]
        now_s = self._now_s()
        return {
            members: replace(seen, paused=until_s > now_s)
            for members, (seen, until_s) in known.items()
        }

    async def _end_groups(
        self,
        pool: str,
        pods: Iterable[WorkPod],
        played: groups.Round,
        candidates: list[groups.Candidate],
    ) -> None:
        """Take away the pods of groups whose result all members have in their records."""
        # Who is neither on its way nor idle any more records nothing, and is not waited for.
        known = {one.name: one.results for one in candidates if one.waits or one.idle}
        members: dict[str, list[WorkPod]] = {}
        for pod in pods:
            members.setdefault(pod.group, []).append(pod)
        for group, result in played.finished.items():
            recorded = (group in known.get(pod.blade, {group: True}) for pod in members[group])
            if result is not None and not all(recorded):
                continue
            ran = frozenset(pod.blade for pod in members[group])
            if result is None:
                self._pause(pool, ran, played.broke[group])
            else:
                self._broken.get(pool, {}).pop(ran, None)
            await self._take_away(group, (pod.name for pod in members[group]))

    async def _take_away(self, group: str, pods: Iterable[str]) -> None:
        await asyncio.gather(*(self._delete(name, 0) for name in pods))
        with suppress(NotFound):
            await self._client.delete(SERVICES, f"group-{group}", self._namespace)

    def _pause(self, pool: str, ran: Members, why: str) -> None:
        known = self._broken.setdefault(pool, {})
        count = known[ran][0].count + 1 if ran in known else 1
        pause_s = min(_FIRST_PAUSE_S * 2 ** min(count - 1, _MOST_DOUBLINGS), _LONGEST_PAUSE_S)
        known[ran] = (Break(count, why), self._now_s() + pause_s)
        log.warning("group broke pool=%s blades=%d times=%d", pool, len(ran), count)

    async def _start(
        self,
        group: str,
        members: tuple[str, ...],
        policy: Policy,
        template: Raw,
        blades: Mapping[str, Blade],
    ) -> str:
        """Make a group; return why the API server refuses a part of it: then there is none."""
        if not all(name in blades for name in members):
            return ""
        log.info("group starts pool=%s group=%s blades=%d", policy.pool, group, len(members))
        service = _service(group, self._namespace, policy)
        if why := await self._create(SERVICES, service, policy.pool):
            return why
        pods = []
        for rank, name in enumerate(members):
            env = {
                "TRAMONTANE_BLADE": name,
                "TRAMONTANE_GROUP": group,
                "TRAMONTANE_GROUP_SIZE": str(len(members)),
                "TRAMONTANE_RANK": str(rank),
                "RANK": str(rank),
                "WORLD_SIZE": str(len(members)),
                "MASTER_ADDR": f"rank-0.group-{group}.{self._namespace}",
                "MASTER_PORT": str(_MASTER_PORT),
            }
            pod = render(
                template, blades[name], Work.COLLECTIVE, name_of(Work.COLLECTIVE, name, group), env
            )
            pod["metadata"]["labels"][names.LABEL_GROUP] = group
            pod["metadata"]["annotations"][ANNOTATION_GROUP_SIZE] = str(len(members))
            pod["spec"] |= {"hostname": f"rank-{rank}", "subdomain": f"group-{group}"}
            pods.append(pod)
        refused = await asyncio.gather(*(self._create(PODS, pod, policy.pool) for pod in pods))
        if why := next(filter(None, refused), ""):
            await self._take_away(group, (pod["metadata"]["name"] for pod in pods))
        return why

    async def _create(self, resource: Resource, body: Raw, pool: str) -> str:
        """Create an object; return why the API server refuses it, empty where it is there."""
        try:
            await self._client.create(resource, body, self._namespace)
        except AlreadyExists:
            return ""
        except ApiError as error:
            if not is_for_good(error):
                raise
            return self._refusals.note(pool, body, error)
        return ""

    async def _delete(self, name: str, grace_s: int) -> None:
        with suppress(NotFound):
            await self._client.delete(PODS, name, self._namespace, grace_period_s=grace_s)


def _not_started(played: groups.Round, why: str) -> groups.Round:
    """Return a round without the groups that it would start; their blades wait."""
    waits = f"another try: {why}"
    told = {
        name: replace(seen, group="", waits_for=waits) if seen.group in played.start else seen
        for name, seen in played.blades.items()
    }
    return replace(played, start={}, blades=told)


def _template(care: Care, kind: Work) -> Raw | None:
    match kind:
        case Work.BURN_IN:
            return care.burn_in.template if care.burn_in is not None else None
        case Work.RESET:
            return care.reset
        case Work.REBOOT:
            return care.reboot
        case Work.COLLECTIVE:
            return care.collective.template if care.collective is not None else None


def render(template: Raw, blade: Blade, kind: Work, name: str, env: Mapping[str, str]) -> Raw:
    """Return the pod of a template on a blade; what the template says itself stays."""
    template = copy.deepcopy(template)
    meta, spec = template.get("metadata") or {}, template["spec"]
    for container in spec["containers"]:
        named = {one["name"] for one in container.get("env") or ()}
        more = [{"name": k, "value": v} for k, v in env.items() if k not in named]
        container["env"] = [*(container.get("env") or ()), *more]
        container.setdefault("terminationMessagePolicy", "FallbackToLogsOnError")
    repairs = kind in {Work.RESET, Work.REBOOT}
    tolerates = {"operator": "Exists"} | ({} if repairs else {"key": names.TAINT_BLADE})
    spec.setdefault("automountServiceAccountToken", False)
    spec["tolerations"] = [*(spec.get("tolerations") or ()), tolerates]
    spec |= {"nodeName": blade.metadata.name, "restartPolicy": "Never"}
    labels = {
        names.LABEL_POOL: blade.spec.pool,
        names.LABEL_BLADE: blade.metadata.name,
        names.LABEL_WORK: kind.value,
    }
    owner = {
        "apiVersion": API_VERSION,
        "kind": "Blade",
        "name": blade.metadata.name,
        "uid": blade.metadata.uid,
        "controller": True,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": {**(meta.get("labels") or {}), **labels},
            "annotations": dict(meta.get("annotations") or {}),
            "ownerReferences": [owner],
        },
        "spec": spec,
    }


def _service(group: str, namespace: str, policy: Policy) -> Raw:
    """Return the headless Service by which the ranks of a group find each other."""
    owner = {"apiVersion": API_VERSION, "kind": "NodePool", "name": policy.pool, "uid": policy.uid}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": f"group-{group}",
            "namespace": namespace,
            "labels": {names.LABEL_GROUP: group},
            "ownerReferences": [owner],
        },
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {names.LABEL_GROUP: group},
        },
    }
