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
from tramontane.controllers.nodepool import groups
from tramontane.controllers.nodepool.around import UNTESTED, Collective
from tramontane.controllers.nodepool.breaks import Break, Members
from tramontane.controllers.nodepool.care import Care
from tramontane.controllers.nodepool.policy import Policy
from tramontane.controllers.nodepool.works import (
    ANNOTATION_GROUP_SIZE,
    Outcome,
    Want,
    WorkPod,
    name_of,
)
from tramontane.kube.client import AlreadyExists, Client, NotFound
from tramontane.kube.informer import Informer
from tramontane.kube.resources import PODS, SERVICES

Raw = dict[str, Any]

log = logging.getLogger(__name__)

_MASTER_PORT = 29400
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 5.0, 600.0
_MOST_DOUBLINGS = 10


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

    def on(self, blade: str) -> tuple[WorkPod, ...]:
        """Return the blade's work pods."""
        return tuple(self._pods.by_index("blade", blade))

    def collective(self, pool: str, blade: str) -> Collective:
        """Return what the last round of groups has shown of the blade."""
        return self._told.get(pool, {}).get(blade, UNTESTED)

    def is_testing(self, pool: str) -> bool:
        """Return whether blades of the pool wait for a group or run in one."""
        return bool(self._told.get(pool))

    def trouble(self, pool: str) -> tuple[str, ...]:
        """Return what people must know of the pool's groups."""
        return self._trouble.get(pool, ())

    def idle_tests(self, pool: str) -> int:
        """Return how many burn-ins run in the pool."""
        pods = self._pods.by_index("pool", pool)
        return sum(pod.kind is Work.BURN_IN and not pod.deleting for pod in pods)

    # One blade

    async def ensure(
        self, blade: Blade | None, policy: Policy, name: str, want: Want | None, *, gently: bool
    ) -> None:
        """Make the wanted pod and take all others of the blade away.

        Args:
            blade: owner of the pod; None: there is nothing to make.
            policy: of its pool.
            name: of the blade.
            want: the pod it must have.
            gently: let a pod that ends have its grace period.
        """
        there = self.on(name)
        for seen in there:
            if (want is None or seen.name != want.name) and not seen.deleting:
                await self._delete(seen.name, 30 if gently else 0)
        if want is None or blade is None or any(seen.name == want.name for seen in there):
            return
        template = _template(policy.care, want.kind)
        if template is None:
            return
        env = {"TRAMONTANE_BLADE": name}
        annotations = {}
        if want.kind is Work.RESET:
            gpu = "all" if want.gpu is None else str(want.gpu)
            env["TRAMONTANE_GPU"] = annotations[names.ANNOTATION_REPAIR_GPU] = gpu
        pod = render(template, blade, want.kind, want.name, env)
        pod["metadata"]["annotations"] |= annotations
        await self._create(pod)

    # The groups of one pool

    async def play(
        self,
        policy: Policy,
        candidates: list[groups.Candidate],
        blades: Mapping[str, Blade],
        now: float,
    ) -> tuple[str, ...]:
        """Run the collective step of a pool; return the blades that have something to learn."""
        test = policy.care.collective
        pods = [p for p in self._pods.by_index("pool", policy.pool) if p.kind is Work.COLLECTIVE]
        if test is None:
            await asyncio.gather(*(self._delete(pod.name, 0) for pod in pods))
            for kept in (self._told, self._broken, self._trouble):
                kept.pop(policy.pool, None)
            return ()
        broken = self._breaks(policy.pool, {one.name for one in candidates})
        played = groups.play(test, candidates, pods, now, broken)
        self._trouble[policy.pool] = played.trouble
        before, self._told[policy.pool] = self._told.get(policy.pool, {}), dict(played.blades)
        await self._end_groups(policy.pool, pods, played, candidates)
        for group, members in played.start.items():
            await self._start(group, members, policy, test.template, blades)
        news = before.keys() | played.blades.keys()
        return tuple(b for b in sorted(news) if before.get(b) != played.blades.get(b))

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
                self._pause(pool, ran, members[group])
            else:
                self._broken.get(pool, {}).pop(ran, None)
            await asyncio.gather(*(self._delete(pod.name, 0) for pod in members[group]))
            with suppress(NotFound):
                await self._client.delete(SERVICES, f"group-{group}", self._namespace)

    def _pause(self, pool: str, ran: Members, pods: Iterable[WorkPod]) -> None:
        known = self._broken.setdefault(pool, {})
        count = known[ran][0].count + 1 if ran in known else 1
        pause_s = min(_FIRST_PAUSE_S * 2 ** min(count - 1, _MOST_DOUBLINGS), _LONGEST_PAUSE_S)
        bad = next((pod for pod in pods if pod.outcome is Outcome.BROKEN), None)
        evidence = f"{bad.blade}: {bad.evidence}" if bad is not None else "a pod is missing"
        known[ran] = (Break(count, evidence), self._now_s() + pause_s)
        log.warning("group broke pool=%s blades=%d times=%d", pool, len(ran), count)

    async def _start(
        self,
        group: str,
        members: tuple[str, ...],
        policy: Policy,
        template: Raw,
        blades: Mapping[str, Blade],
    ) -> None:
        if not all(name in blades for name in members):
            return
        log.info("group starts pool=%s group=%s blades=%d", policy.pool, group, len(members))
        service = _service(group, self._namespace, policy)
        with suppress(AlreadyExists):
            await self._client.create(SERVICES, service, self._namespace)
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
        await asyncio.gather(*map(self._create, pods))

    async def _create(self, pod: Raw) -> None:
        with suppress(AlreadyExists):
            await self._client.create(PODS, pod, self._namespace)

    async def _delete(self, name: str, grace_s: int) -> None:
        with suppress(NotFound):
            await self._client.delete(PODS, name, self._namespace, grace_period_s=grace_s)


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
