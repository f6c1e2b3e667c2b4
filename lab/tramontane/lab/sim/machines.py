"""Play the hall under an API server in memory: kubelets, agents, power, repairs, ranks.

| what happens to a blade | what is written |
|---|---|
| a pod comes to it | Running and Ready after `start_s`, with an address |
| a pod on it is asked to go | gone after `stop_s`, at most its grace |
| a fault that the agent sees | a fault in Blade.status.report, `detect_s` later |
| its power goes | nothing more comes from it; its Node is not Ready after `node_grace_s` |
| a reset, a reboot (pods of the nodepool controller) | the pod succeeds; what it mends is gone |
| RMA | after `rma_s` another blade stands there, and a person releases it |

Writes go to the store at once, as those of a kubelet beside the API server would.
"""

import asyncio
import itertools
from collections.abc import Callable, Mapping
from typing import Any

from tramontane.api import clock, names
from tramontane.api.blade import BladeState
from tramontane.kube.resources import BLADES, GANGS, LEASES, NODES, PODS
from tramontane.lab.fleet import NODE_LEASES, Layout
from tramontane.lab.sim import reports
from tramontane.lab.sim.apiserver import ApiServer
from tramontane.lab.sim.faults import Fault
from tramontane.lab.sim.history import Event
from tramontane.lab.sim.iron import Machine, Times, spread_s
from tramontane.lab.sim.pace import Course, Pace

Raw = dict[str, Any]
AGENT = names.MANAGER_AGENT
KUBELET = "kubelet"


class Machines:
    """All blades of a hall, the pods on them, and the training of the jobs whose pods these are."""

    def __init__(
        self,
        api: ApiServer,
        layout: Layout,
        times: Times,
        pace: Pace,
        *,
        wall: Callable[[], float],
        namespace: str = names.SYSTEM_NAMESPACE,
    ) -> None:
        self.api, self.layout, self.times, self._pace, self._wall = api, layout, times, pace, wall
        self._namespace = namespace
        self.blades = {name: Machine(name) for name in layout.names()}
        self.courses: dict[str, Course] = {}
        self._pods_of: dict[str, dict[str, Raw]] = {}
        self._whole: dict[str, tuple[str, ...]] = {}
        self._addresses = itertools.count(1)
        # Called with the key of a job whose rank 0 has printed the first step of a life.
        self.stepped: Callable[[str], None] = lambda _: None
        api.heard.append(self._heard)

    # Building

    def deliver(self) -> None:
        """Let all blades stand there, powered, their Nodes registered and Ready."""
        for index, name in enumerate(self.blades):
            node = self.layout.node(name, index)
            node["status"] = {**node["status"], **self._alive(name)}
            self.api.create(NODES, node, None, KUBELET)
            self._beat_kubelet(name)

    async def run(self) -> None:
        """Let agents beat, for ever; kubelets' last beats are written when they are the last.

        Nobody reads the Lease of a kubelet whose agent speaks.
        """
        while True:
            for machine in self.blades.values():
                if machine.powered:
                    self._beat_agent(machine.name)
                    if self.api.find(BLADES, machine.name) is not None:
                        self._report(machine)
            await asyncio.sleep(self.times.heartbeat_s)

    # Faults

    def fail(self, fault: Fault) -> bool:
        """Let a blade have a fault; return whether it was there to have it."""
        machine = self.blades[fault.blade]
        if machine.kills or self._state(fault.blade) in {BladeState.RMA, BladeState.REPAIRING}:
            return False
        machine.fault, machine.since_s = fault, self._wall()
        self._stop_training(fault.blade)
        if fault.kind.takes_node:
            self._power_off(machine)
            away_s = self.times.rma_s if fault.needs_parts else spread_s(fault, self.times.repair_s)
            self._later(away_s, self._power_on, machine)
        else:
            self._later(self.times.detect_s, self._report, machine)
        return True

    def _power_off(self, machine: Machine) -> None:
        machine.powered = False
        self._beat_kubelet(machine.name)
        self._later(self.times.node_grace_s, self._not_ready, machine)

    def _not_ready(self, machine: Machine) -> None:
        if not machine.powered:
            text = "NodeStatusUnknown"
            self._node_status(machine.name, {"conditions": [self._ready("Unknown", text)]})

    def _power_on(self, machine: Machine) -> None:
        """Let the blade come back from a new boot, without its fault and without its pods."""
        machine.renew()
        for raw in list(self.api.objects(PODS)):
            if raw["spec"].get("nodeName") == machine.name:
                meta = raw["metadata"]
                self._drop_pod(meta["namespace"], meta["name"], meta["uid"])
        self._node_status(machine.name, self._alive(machine.name))
        self._beat_kubelet(machine.name)
        self._beat_agent(machine.name)
        self._later(self.times.detect_s, self._report, machine)

    def _report(self, machine: Machine) -> None:
        """Let the agent write what it sees, if that is news."""
        blade = self.api.find(BLADES, machine.name)
        if blade is None or not machine.powered:
            return
        old = (blade.get("status") or {}).get("report")
        new = reports.of(machine, self.layout, self._wall()).to_dict()
        if old is None or reports.differs(old, new):
            body = {"metadata": {"name": machine.name}, "status": {"report": new}}
            self.api.apply(BLADES, body, AGENT, "status", force=True)

    def _state(self, blade: str) -> str:
        return _state_of(self.api.find(BLADES, blade))

    # Repairs

    def _repair(self, raw: Raw) -> None:
        """Begin what a pod of the nodepool controller is for."""
        meta = raw["metadata"]
        machine = self.blades[meta["labels"][names.LABEL_BLADE]]
        kind = meta["labels"][names.LABEL_WORK]
        resets = kind == names.Work.RESET.value
        takes_s = self.times.reset_s if resets else self.times.reboot_s
        self._later(takes_s, self._repaired, machine, meta["name"], meta["uid"], not resets)

    def _repaired(self, machine: Machine, pod: str, uid: str, boots: bool) -> None:
        machine.mend(boots=boots)
        if boots:
            self._node_status(machine.name, self._alive(machine.name))
        ended = {"terminated": {"exitCode": 0, "reason": "Completed"}}
        container = {"name": "repair", "restartCount": 0, "state": ended}
        self._pod_status(
            self._namespace, pod, uid, {"phase": "Succeeded", "containerStatuses": [container]}
        )
        self._later(self.times.detect_s, self._report, machine)

    def _given_up(self, blade: str) -> None:
        """Have new parts put in, some days later, and a person release the blade."""

        def back() -> None:
            machine = self.blades[blade]
            machine.renew()
            self._node_status(blade, self._alive(blade))
            self._report(machine)
            release = {
                "reason": "new parts",
                "by": "hall",
                "at": clock.utc(self._wall()),
                "skipBurnIn": True,
            }
            self.api.merge_patch(
                BLADES, blade, None, {"spec": {"release": release}}, subresource=None, by="hall"
            )

        self._later(self.times.rma_s, back)

    # Pods

    def _heard(self, event: Event) -> None:
        """Do what a change of the API means for the hall; nothing of it at once."""
        if event.resource == PODS:
            self._pod_changed(event)
        elif event.resource == BLADES:
            before, after = _state_of(event.before), _state_of(event.after)
            if after == BladeState.RMA and before != after:
                self._given_up(event.key)
        elif event.resource == GANGS and event.after is not None:
            self._look_at(event.key)

    def _pod_changed(self, event: Event) -> None:
        raw = event.after or event.before
        assert raw is not None
        meta, node = raw["metadata"], raw["spec"].get("nodeName")
        key = f"{meta['namespace']}/{meta['name']}"
        job = (meta.get("labels") or {}).get(names.LABEL_JOB)
        if job is not None:
            pods = self._pods_of.setdefault(f"{meta['namespace']}/{job}", {})
            pods.pop(key, None)
            if event.after is not None:
                pods[key] = event.after
            self._look_at(f"{meta['namespace']}/{job}")
        if node is None or event.after is None:
            return
        if event.before is None:
            self._later(
                self.times.start_s, self._start_pod, meta["namespace"], meta["name"], meta["uid"]
            )
        if meta.get("deletionTimestamp") and not (event.before or raw)["metadata"].get(
            "deletionTimestamp"
        ):
            grace_s = min(self.times.stop_s, meta.get("deletionGracePeriodSeconds") or 0)
            self._later(
                grace_s, self._drop_if_alive, node, meta["namespace"], meta["name"], meta["uid"]
            )

    def _start_pod(self, namespace: str, name: str, uid: str) -> None:
        raw = self._pod(namespace, name, uid)
        if raw is None or "deletionTimestamp" in raw["metadata"]:
            return
        if not self.blades[raw["spec"]["nodeName"]].powered:
            return
        containers = [
            {"name": one["name"], "restartCount": 0, "ready": True, "state": {"running": {}}}
            for one in raw["spec"]["containers"]
        ]
        number = next(self._addresses)
        self._pod_status(
            namespace,
            name,
            uid,
            {
                "phase": "Running",
                "podIP": f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}",
                "startTime": clock.utc(self._wall()),
                "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": containers,
            },
        )
        if names.LABEL_WORK in (raw["metadata"].get("labels") or {}):
            self._repair(raw)

    def _drop_if_alive(self, node: str, namespace: str, name: str, uid: str) -> None:
        """Let a kubelet end a pod; one without power ends nothing."""
        if self.blades[node].powered:
            self._drop_pod(namespace, name, uid)

    def _drop_pod(self, namespace: str, name: str, uid: str) -> None:
        if self._pod(namespace, name, uid) is not None:
            self.api.delete(PODS, name, namespace, 0, uid)

    def _pod(self, namespace: str, name: str, uid: str) -> Raw | None:
        """Return the pod, unless it is gone or another has its name."""
        raw = self.api.find(PODS, name, namespace)
        return raw if raw is not None and raw["metadata"]["uid"] == uid else None

    # Training

    def _look_at(self, job: str) -> None:
        """Let the job step if all its ranks are there, of one epoch; let it stand if not."""
        ranks = self._ranks(job)
        course = self.courses.get(job)
        if ranks is None:
            self._whole.pop(job, None)
            if course is not None:
                course.stop(self._wall())
            return
        if self._whole.get(job) == ranks:
            return
        if course is None:
            course = self.courses[job] = Course(self._pace)
        elif job in self._whole:
            course.stop(self._wall())
        self._whole[job] = ranks
        begins_s = course.begin(self._wall(), int(ranks[0].rpartition("/")[2]))
        # Its first line is news: the controller that reads the log would be told.
        self._later(begins_s - self._wall() + self._pace.step_s, self._step_seen, job)

    def _step_seen(self, job: str) -> None:
        self.stepped(job)

    def _ranks(self, job: str) -> tuple[str, ...] | None:
        """Return uid and epoch of each rank, or None where the gang is not whole."""
        namespace, _, name = job.partition("/")
        gang = self.api.find(GANGS, name, namespace)
        placement = ((gang or {}).get("status") or {}).get("placement") or {}
        found = {}
        for raw in self._pods_of.get(job, {}).values():
            meta, status = raw["metadata"], raw.get("status") or {}
            node = raw["spec"]["nodeName"]
            if "deletionTimestamp" in meta or status.get("phase") != "Running":
                continue
            if self.blades[node].kills:
                continue
            epoch = (meta.get("annotations") or {}).get(names.ANNOTATION_EPOCH, "0")
            found[int(meta["labels"][names.LABEL_SEAT])] = f"{meta['uid']}/{epoch}"
        size = len(placement.get("seats") or ())
        if not size or set(found) != set(range(size)):
            return None
        if len({one.rpartition("/")[2] for one in found.values()}) != 1:
            return None
        return tuple(found[seat] for seat in range(size))

    def _stop_training(self, blade: str) -> None:
        for job, pods in list(self._pods_of.items()):
            if any(raw["spec"].get("nodeName") == blade for raw in pods.values()):
                self._look_at(job)

    # Writing

    def _node_status(self, name: str, status: Raw) -> None:
        body = {"metadata": {"name": name}, "status": status}
        self.api.apply(NODES, body, KUBELET, "status", force=True)

    def _alive(self, name: str) -> Raw:
        boot = self.blades[name].boot_id
        return {"conditions": [self._ready("True", "KubeletReady")], "nodeInfo": {"bootID": boot}}

    def _ready(self, status: str, reason: str) -> Raw:
        at = clock.utc(self._wall())
        return {"type": "Ready", "status": status, "reason": reason, "lastTransitionTime": at}

    def _pod_status(self, namespace: str, name: str, uid: str, status: Raw) -> None:
        if self._pod(namespace, name, uid) is not None:
            patch = {"metadata": {"name": name, "uid": uid}, "status": status}
            self.api.merge_patch(PODS, name, namespace, patch, subresource="status", by=KUBELET)

    def _beat_kubelet(self, name: str) -> None:
        self._lease(name, NODE_LEASES, {})

    def _beat_agent(self, name: str) -> None:
        labels = {names.LABEL_HEARTBEAT: "true"}
        self._lease(names.heartbeat_lease(name), self._namespace, labels, name)

    def _lease(
        self, name: str, namespace: str, labels: Mapping[str, str], holder: str = ""
    ) -> None:
        spec = {
            "holderIdentity": holder or name,
            "leaseDurationSeconds": 40,
            "renewTime": clock.micro(self._wall()),
        }
        body = {"metadata": {"name": name, "namespace": namespace, "labels": labels}, "spec": spec}
        if self.api.find(LEASES, name, namespace) is None:
            self.api.create(LEASES, body, namespace, KUBELET)
        else:
            self.api.merge_patch(
                LEASES, name, namespace, {"spec": spec}, subresource=None, by=KUBELET
            )

    def _later(self, seconds: float, act: Callable[..., None], *given: Any) -> None:
        asyncio.get_running_loop().call_later(seconds, act, *given)


def _state_of(raw: Raw | None) -> str:
    return str((((raw or {}).get("status")) or {}).get("state") or "")
