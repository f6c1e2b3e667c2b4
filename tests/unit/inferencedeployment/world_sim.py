"""Run the planner against a small model of a cluster, on a virtual clock.

    operator (plan, then its writes, one by one) ─► API server: status, revisions, gangs, pods
                                                        ▲
    scheduler (all seats of a gang or none) ────────────┤
    kubelets (a pod loads, is ready, dies, ends) ───────┘

The operator may be killed between any two of its writes: the rest of its plan is lost, and all
that it knew; it comes back some seconds later. What must hold at every moment is checked after
every write and every tick.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from tramontane.api import clock
from tramontane.api.blade import Blade
from tramontane.api.gang import Gang, GangSpec
from tramontane.api.inferencedeployment import InferenceDeployment
from tramontane.api.trainingjob import TrainingJob
from tramontane.controllers.gangpods.actions import Delete
from tramontane.controllers.inferencedeployment.actions import (
    Claim,
    Create,
    Mark,
    Plan,
)
from tramontane.controllers.inferencedeployment.load import Load
from tramontane.controllers.inferencedeployment.plan import plan
from tramontane.controllers.inferencedeployment.world import Revision, World
from tramontane.kube.views import NodeView, PodView
from unit.inferencedeployment.builders import (
    NOW,
    a_blade,
    a_node,
    a_pool,
    ended,
    running,
    unfit,
    verified,
)

DRAIN_S = 4.0
SHORT_S = 1.0


@dataclass
class SimPod:
    """A pod as API server and kubelet have it together."""

    view: PodView
    ready_at: float
    #: What becomes of it instead of getting ready: exit code of engine or, negative, of weights.
    fails: int | None = None
    gone_at: float | None = None

    def is_up(self, now: float) -> bool:
        """Return whether it has loaded."""
        return self.view.phase == "Running" and not self.view.deleting and now >= self.ready_at


@dataclass
class Cluster:
    """A cluster with one deployment; `racks` names the rack of each blade, `free` its GPUs."""

    deployment: InferenceDeployment
    racks: dict[str, str]
    rng: Random = field(default_factory=lambda: Random(0))
    load_s: float = 20.0
    kill_chance: float = 0.0
    now: float = NOW
    free: dict[str, int] = field(default_factory=dict)
    revisions: dict[str, Revision] = field(default_factory=dict)
    gangs: dict[str, Gang] = field(default_factory=dict)
    pods: dict[str, SimPod] = field(default_factory=dict)
    blades: dict[str, Blade] = field(default_factory=dict)
    nodes: dict[str, NodeView] = field(default_factory=dict)
    loads: dict[str, Load] = field(default_factory=dict)
    demand_at: float = 0.0
    #: The TrainingJob that the spec's source names, where it names one.
    job: TrainingJob | None = None
    #: Exit codes of pods that start, by (revision, blade); either may be "*".
    breaks: dict[tuple[str, str], int] = field(default_factory=dict)
    #: Least number of replicas in rotation, once all were that are wanted; None: not watched.
    floor: int | None = None
    rejected: set[str] = field(default_factory=set)
    down_until: float = 0.0
    kills: int = 0
    creations: list[tuple[float, str, int]] = field(default_factory=list)
    steps: int = 0
    lowest: int = 1000
    _reached: bool = False
    _uid: int = 0
    _after: float = 0.0
    _dirty: bool = True

    def __post_init__(self) -> None:
        for name in self.racks:
            self.free.setdefault(name, 8)
            self.blades[name] = a_blade(name)
            self.nodes[name] = a_node(name)

    # What tests do to it.

    def spec(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Change the deployment's spec as people would."""
        raw = self.deployment.to_dict()
        change(raw["spec"])
        raw["metadata"]["generation"] += 1
        self.deployment = InferenceDeployment.model_validate(raw)
        self._dirty = True

    def trains(self, job: TrainingJob) -> None:
        """Let the job that the source names be as it is given."""
        self.job = job
        self._dirty = True

    def die(self, pod: str, code: int = 137) -> None:
        """End the engine of a pod."""
        self._become(pod, phase="Failed", ready=False, containers=(ended(code),))

    def vanish(self, pod: str) -> None:
        """Take a pod away, as an eviction does."""
        self.pods.pop(pod, None)
        self._dirty = True

    def blade(self, name: str, state: str, severity: str = "") -> None:
        self.blades[name] = a_blade(name, state, severity)
        self._dirty = True

    def node_dies(self, name: str) -> None:
        """Silence a node: its pods stay, not ready, and nobody ends them."""
        self.nodes[name] = a_node(name, ready=None, since=self.now)
        for pod in [one for one in self.pods.values() if one.view.node == name]:
            self._become(pod.view.name, ready=False)

    def preempt(self, gang: str, deadline_s: float = 60.0) -> None:
        """Order a gang to give way."""
        order = {"by": "ml/urgent", "deadline": clock.utc(self.now + deadline_s)}
        self._told(gang, phase="Preempting", preempt=order)

    # What is seen of it.

    def world(self) -> World:
        by_gang: dict[str, list[PodView]] = {}
        for pod in self.pods.values():
            by_gang.setdefault(pod.view.labels["tramontane.dev/gang"], []).append(pod.view)
        return World(
            now=self.now,
            deployment=self.deployment,
            revisions=dict(self.revisions),
            gangs=dict(self.gangs),
            pods={name: tuple(views) for name, views in by_gang.items()},
            blades=self.blades,
            nodes=self.nodes,
            pools={"hall": a_pool()},
            loads=dict(self.loads),
            demand_at=self.demand_at,
            job=self.job,
        )

    @property
    def in_rotation(self) -> list[PodView]:
        """Return the pods that the Service leads to."""
        return [
            pod.view
            for pod in self.pods.values()
            if pod.view.ready
            and not pod.view.deleting
            and pod.view.labels.get("tramontane.dev/rotation") == "in"
        ]

    def end(self) -> dict[str, Any]:
        """Return what must be the same, whatever was killed on the way."""
        status = self.deployment.status
        return {
            "phase": status.phase,
            "ready": status.ready,
            "replicas": sorted((one.state, one.revision) for one in status.replicas),
            "verdicts": sorted((one.hash, str(one.verdict)) for one in status.revisions),
            "rollout": status.rollout,
            "gangs": len(self.gangs),
            "pods": sorted(
                (one.view.labels["tramontane.dev/revision"], one.view.ready)
                for one in self.pods.values()
            ),
            "in": len(self.in_rotation),
        }

    def tell(self) -> str:
        """Return what there is, for whoever reads a failed test."""
        status = self.deployment.status
        lines = [f"{status.phase} {status.reason} {status.message}", str(status.rollout)]
        lines += [f"{one.at} {one.what} | {one.why}" for one in status.decisions]
        lines += [repr(one) for one in status.replicas]
        lines += [f"{one.hash} {one.verdict} {one.why}" for one in status.revisions]
        lines += [
            f"{name} {one.status.phase} {one.status.placement} {one.spec.avoid}"
            for name, one in self.gangs.items()
        ]
        lines += [f"{name} {one.view.phase} {one.view.node}" for name, one in self.pods.items()]
        return "\n".join(lines)

    # How it runs.

    def run(self, seconds: float) -> "Cluster":
        """Let so many seconds pass."""
        until = self.now + seconds
        while self.now < until:
            self._tick()
            self.now = min(until, self._next())
        self._tick()
        return self

    def _next(self) -> float:
        times = [self._after, self.down_until]
        times += [pod.ready_at for pod in self.pods.values() if not pod.view.ready]
        times += [pod.gone_at for pod in self.pods.values() if pod.gone_at is not None]
        soon = min((at for at in times if at > self.now), default=self.now + 30)
        return max(soon, self.now + 0.05)

    def _tick(self) -> None:
        self._kubelets()
        for _ in range(20):
            self._dirty = self._schedule() or self._dirty
            if not self._dirty and self.now < self._after:
                break
            if not self._operator():
                break
        self._check()

    def _operator(self) -> bool:
        """Plan once and write; return whether there may be more to do now."""
        if self.now < self.down_until:
            return False
        self._dirty = False
        made = plan(self.world())
        self._after = self.now + (made.after or 30.0)
        changed = made.status != self.deployment.status
        for write in self._writes(made):
            if self.rng.random() < self.kill_chance:
                self.kills += 1
                self.down_until = self.now + self.rng.uniform(0.1, 20)
                self._dirty, self._after = True, self.down_until
                return False
            write()
            self._check()
        return changed or self._dirty

    def _writes(self, made: Plan) -> Iterator[Callable[[], None]]:
        if made.record_first:
            yield lambda: self._record(made)
        if (store := made.store) is not None:
            yield lambda: self.revisions.update({store.hash: store})
        for hash_ in made.drop_revisions:
            yield lambda hash_=hash_: self._drop_revision(hash_)  # type: ignore[misc]
        for claim in made.claims:
            yield lambda claim=claim: self._claim(claim)  # type: ignore[misc]
        for name in made.drops:
            yield lambda name=name: self._drop(name)  # type: ignore[misc]
        for mark in made.marks:
            yield lambda mark=mark: self._mark(mark)  # type: ignore[misc]
        for order in made.deletes:
            yield lambda order=order: self._delete(order)  # type: ignore[misc]
        for create in made.creates:
            yield lambda create=create: self._create(create)  # type: ignore[misc]
        if made.status != self.deployment.status:
            yield lambda: self._record(made)

    def _record(self, made: Plan) -> None:
        for one in made.status.replicas:
            known = {before.name for before in self.deployment.status.replicas}
            assert one.name in known or one.revision not in self.rejected, "a rejected one came"
        self.rejected |= {one.hash for one in made.status.revisions if one.verdict == "Rejected"}
        self.deployment = self.deployment.model_copy(update={"status": made.status})

    def _drop_revision(self, hash_: str) -> None:
        used = {pod.view.labels["tramontane.dev/revision"] for pod in self.pods.values()}
        assert hash_ not in used, "a revision with pods was dropped"
        self.revisions.pop(hash_, None)

    def _claim(self, claim: Claim) -> None:
        there = self.gangs.get(claim.name)
        generation = 1 if there is None else (there.metadata.generation or 0) + 1
        self._uid += there is None
        self.gangs[claim.name] = Gang.model_validate(
            {
                "metadata": {
                    "name": claim.name,
                    "namespace": "ml",
                    "uid": f"gang-{self._uid}" if there is None else there.metadata.uid,
                    "generation": generation,
                    "labels": {"tramontane.dev/revision": claim.revision},
                },
                "spec": claim.spec.to_dict(),
                "status": {} if there is None else there.status.to_dict(),
            }
        )
        self._dirty = True

    def _drop(self, name: str) -> None:
        assert not self._pods_of(name), "a gang with pods was dropped"
        self.gangs.pop(name, None)
        self._dirty = True

    def _create(self, create: Create) -> None:
        name = f"{create.gang}-{create.seat}"
        assert name not in self.pods, f"two pods {name}"
        gang = self.gangs[create.gang]
        assert gang.status.phase == "Placed", "a pod without a place"
        assert gang.status.placement is not None
        assert gang.status.placement.seats[create.seat] == create.blade
        assert create.revision in self.revisions
        self._uid += 1
        self.creations.append((self.now, create.gang, create.seat))
        labels = {
            "tramontane.dev/inference": "claims",
            "tramontane.dev/revision": create.revision,
            "tramontane.dev/gang": create.gang,
            "tramontane.dev/seat": str(create.seat),
        }
        if create.seat == 0:
            labels["tramontane.dev/rotation"] = "out"
        view = PodView(
            name=name,
            namespace="ml",
            uid=f"pod-{self._uid}",
            node=create.blade,
            phase="Pending",
            deleting=False,
            labels=labels,
            annotations={"tramontane.dev/adapters": "[]"},
            owner_uid="",
            reason="",
            message="",
            ready=False,
            restarts=0,
            host_ip=None,
            pod_ip=None,
            gpus=8,
            started_at=None,
            containers=(),
            created_at=self.now,
        )
        at = self.now + self.load_s * self.rng.uniform(0.8, 1.2)
        self.pods[name] = SimPod(view, at, self._fate(create.revision, create.blade))
        self._dirty = True

    def _fate(self, revision: str, blade: str) -> int | None:
        found = (self.breaks.get(key) for key in ((revision, blade), (revision, "*"), ("*", blade)))
        return next((code for code in found if code is not None), None)

    def _delete(self, order: Delete) -> None:
        pod = self.pods.get(order.name)
        if pod is None or pod.view.uid != order.uid:
            return
        alive = self.nodes[pod.view.node or ""].ready is True
        assert alive or order.grace_s == 0 or pod.gone_at is None
        if order.grace_s == 0 or pod.view.finished:
            del self.pods[order.name]
        else:
            grace_s = DRAIN_S if order.grace_s is None else min(SHORT_S, order.grace_s)
            pod.gone_at = self.now + grace_s if alive else None
            pod.view = replace(pod.view, deleting=True)
        self._dirty = True

    def _mark(self, mark: Mark) -> None:
        pod = self.pods.get(mark.pod.name)
        if pod is None or pod.view.uid != mark.pod.uid:
            return
        notes = {key: text for key, text in mark.annotations.items() if "peers" not in key}
        if "tramontane.dev/peers" in mark.annotations:
            head = json.loads(mark.annotations["tramontane.dev/peers"])["0"]
            assert head == self.pods[f"{_gang(pod.view)}-0"].view.pod_ip
        pod.view = replace(
            pod.view,
            labels={**pod.view.labels, **mark.labels},
            annotations={**pod.view.annotations, **notes},
        )
        self._dirty = True

    # Scheduler and kubelets.

    def _schedule(self) -> bool:
        """Give each pending gang a place, all seats or none; return whether anything changed."""
        changed = False
        for name, gang in sorted(self.gangs.items(), key=lambda one: _age(one[1])):
            status = gang.status
            if status.observed_generation != gang.metadata.generation and status.placement:
                self._told(name, observedGeneration=gang.metadata.generation)
                changed = True
            if status.preempt is not None and not self._pods_of(name):
                self._told(name, phase="Pending", preempt=None, placement=None)
                changed = True
                continue
            if status.placement is not None and not gang.spec.active:
                self._told(name, phase="Inactive", placement=None)
                changed = True
                continue
            if status.placement is not None or not gang.spec.active or status.preempt:
                continue
            seats = self._place(gang.spec)
            if seats is None:
                short = f"needs {gang.spec.slots[0].count} blades with 8 free GPUs"
                if status.reason != "WaitingForCapacity":
                    self._told(name, phase="Pending", reason="WaitingForCapacity", message=short)
                    changed = True
                continue
            placement = {"size": len(seats), "seats": seats}
            self._told(name, phase="Placed", placement=placement, reason=None, message=None)
            changed = True
        return changed

    def _place(self, spec: GangSpec) -> list[str] | None:
        used = {
            blade
            for gang in self.gangs.values()
            if gang.status.placement is not None
            for blade in gang.status.placement.seats
        } | {pod.view.node for pod in self.pods.values()}
        gpus = int(spec.slots[0].requests.get("nvidia.com/gpu", "0"))
        able = [
            name
            for name in sorted(self.racks)
            if name not in used
            and name not in spec.avoid
            and self.free[name] >= gpus
            and self.blades[name].status.state == "Healthy"
            and self.blades[name].status.verdict is None
            and self.nodes[name].ready is True
        ]
        count = spec.slots[0].count
        by_rack: dict[str, list[str]] = {}
        for name in able:
            by_rack.setdefault(self.racks[name], []).append(name)
        whole = [blades for blades in by_rack.values() if len(blades) >= count]
        if whole:
            return min(whole, key=len)[:count]
        return able[:count] if len(able) >= count else None

    def _told(self, name: str, **status: Any) -> None:
        raw = self.gangs[name].to_dict()
        told = {**raw.get("status", {}), **status}
        told["observedGeneration"] = raw["metadata"].get("generation")
        raw["status"] = {key: value for key, value in told.items() if value is not None}
        self.gangs[name] = Gang.model_validate(raw)
        self._dirty = True

    def _kubelets(self) -> None:
        for name, pod in list(self.pods.items()):
            if pod.gone_at is not None and pod.gone_at <= self.now:
                del self.pods[name]
                self._dirty = True
        for name, pod in list(self.pods.items()):
            view = pod.view
            if self.nodes[view.node or ""].ready is not True or view.finished:
                continue
            if view.deleting:
                pod.gone_at = pod.gone_at or self.now + SHORT_S
                continue
            if view.phase == "Pending":
                address = f"10.0.0.{self._uid % 250}-{view.uid}"
                self._become(name, phase="Running", pod_ip=address, containers=(running(),))
            elif not view.ready and self.now >= pod.ready_at:
                self._loaded(name, pod)
        for name, pod in list(self.pods.items()):
            # Seat 0 is gone, or another rank is: the engine cannot go on.
            mates = self._pods_of(_gang(pod.view))
            if pod.view.phase == "Running" and any(one.view.phase == "Failed" for one in mates):
                self._become(name, ready=False)

    def _loaded(self, name: str, pod: SimPod) -> None:
        if pod.fails is None:
            mates = self._pods_of(_gang(pod.view))
            gang = self.gangs.get(_gang(pod.view))
            seats = gang.spec.slots[0].count if gang is not None else 0
            whole = len(mates) == seats and all(one.is_up(self.now) for one in mates)
            if whole:
                self._become(name, ready=True, init_containers=(verified(),))
        elif pod.fails < 0:
            words = {"reason": "ArtifactMismatch", "message": "model-1.bin differs"}
            views = (unfit(-pod.fails, **words),)
            self._become(name, phase="Failed", init_containers=views, containers=())
        else:
            self.die(name, pod.fails)

    def _become(self, name: str, **changes: Any) -> None:
        pod = self.pods[name]
        view = replace(pod.view, **changes)
        if view != pod.view:
            pod.view = view
            self._dirty = True

    def _pods_of(self, gang: str) -> list[SimPod]:
        return [one for one in self.pods.values() if _gang(one.view) == gang]

    # What must hold at every moment.

    def _check(self) -> None:
        self.steps += 1
        names = [one.name for one in self.deployment.status.replicas]
        assert len(names) == len(set(names))
        serving = len(self.in_rotation)
        for view in self.in_rotation:
            mates = self._pods_of(_gang(view))
            assert all(one.view.phase != "Pending" for one in mates)
        if self.floor is not None:
            wanted = self.deployment.status.replicas_wanted or 1
            self._reached = self._reached or serving >= wanted
            if self._reached:
                self.lowest = min(self.lowest, serving)
                assert serving >= self.floor, f"{serving} serve at {self.now - NOW:.1f}"


def _gang(view: PodView) -> str:
    return view.labels["tramontane.dev/gang"]


def _age(gang: Gang) -> int:
    return int((gang.metadata.uid or "gang-0").rpartition("-")[2])
