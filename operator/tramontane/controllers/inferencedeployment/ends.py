"""Read why a replica's ranks ended: from the pods of its present life.

| seen of a pod | reason |
|---|---|
| none, though there was one; it is being deleted, not by us | Preempted: others took it away |
| evicted, or preempted by the kubelet | Preempted |
| the kubelet did not take it, or lost it | NodeLost |
| init container ended with 65, or verified other weights than the revision's | ArtifactMismatch |
| init container ended with 64, or could not be started at all | Misconfigured |
| init container ended with 66, 69, or anything else | SourceMissing |
| the engine's container ended: what the agent's last word says, else by its code: 71 | Hung |
| 72 | EngineFailed: it took longer to start than its budget |
| 73 | RankDead: seat 0 is gone |
| 143 | Preempted: told to end, not by us |
| it could not be started at all | Misconfigured |
| any other, on seat 0 / on another seat | EngineFailed / RankDead |
| its container cannot be made (image, secret) for 2 min | Misconfigured |

Where several have ended, one that only followed (73) is named last.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from tramontane.api.names import ENGINE_CONTAINER, WEIGHTS_CONTAINER
from tramontane.api.reasons import InferenceReason
from tramontane.controllers.inferencedeployment.replicas import Replica, State
from tramontane.kube.views import ContainerView, PodView
from tramontane.kube.waiting import NO_CONTAINER, NO_IMAGE

CANNOT_START_S: Final = 120.0

_REASONS: Final = frozenset(reason.value for reason in InferenceReason)

_HUNG, _TOO_SLOW, _SEAT_0_GONE, _TOLD = 71, 72, 73, 143
_MISCONFIGURED, _MISMATCH = 64, 65
# Of a container whose program the runtime did not find, or must not run.
_NOT_STARTED: Final = frozenset({"StartError", "ContainerCannotRun"})
_PUT_OUT: Final = ("Evicted", "Preempt", "DeletionBy", "Terminated")
_NOT_TAKEN: Final = (
    "OutOf",
    "UnexpectedAdmissionError",
    "NodeAffinity",
    "NodePorts",
    "NodeShutdown",
    "NodeLost",
    "NodeNotReady",
    "TopologyAffinityError",
    "ContainerStatusUnknown",
    "InvalidNodeInfo",
)


@dataclass(frozen=True, slots=True)
class End:
    """Say why a replica's life is over, and which seat's doing it was."""

    reason: InferenceReason
    why: str
    seat: int
    follows: bool = False


@dataclass(frozen=True, slots=True)
class Verified:
    """Hold what an init container found the weights to be."""

    digest: str
    base: str = ""
    adapters: Mapping[str, str] = ()  # type: ignore[assignment]  # an empty mapping is immutable


def end_of(replica: Replica, recorded: str | None, now: float) -> End | None:
    """Return why the present life of a replica is over, or None.

    `recorded` is the digest that its weights must have, None while nobody knows it.
    """
    there = replica.by_seat
    ends = [
        end
        for seat in range(len(replica.seats))
        for end in (_end_on(replica, seat, there.get(seat), recorded, now),)
        if end is not None
    ]
    return min(ends, key=lambda end: (end.follows, end.seat), default=None)


def verified_by(pod: PodView) -> Verified | None:
    """Return what the pod's init container verified; None before it has."""
    view = _named(pod.init_containers, WEIGHTS_CONTAINER)
    if view is None or view.state != "terminated" or view.exit_code != 0:
        return None
    words = _words(view)
    digest = words.get("digest")
    if not isinstance(digest, str) or not digest:
        return None
    adapters = words.get("adapters")
    return Verified(
        digest,
        str(words.get("base") or ""),
        dict(adapters) if isinstance(adapters, dict) else {},
    )


def problem_of(replica: Replica) -> str | None:
    """Return why a pod of the replica does not start, where people must help, or None."""
    for pod in replica.pods:
        for view in (*pod.init_containers, *pod.containers):
            if view.state == "waiting" and view.reason in NO_IMAGE | NO_CONTAINER:
                said = f": {view.message}" if view.message else ""
                return (
                    f"pod {pod.name} on {pod.node}: container {view.name} must start (got "
                    f"{view.reason}{said}); correct the image, its pull secret or the template"
                )
    return None


def _end_on(
    replica: Replica, seat: int, pod: PodView | None, recorded: str | None, now: float
) -> End | None:
    blade = replica.seats[seat]
    if pod is None and replica.state is State.STARTING:
        return None
    if pod is None or pod.deleting:
        what = "vanished" if pod is None else "was deleted"
        return End(InferenceReason.PREEMPTED, f"rank {seat} on {blade} {what}", seat)
    return (
        _weights_on(pod, seat, blade, recorded)
        or _engine_on(pod, seat, blade)
        or _start_on(replica, pod, seat, now)
    )


def _weights_on(pod: PodView, seat: int, blade: str, recorded: str | None) -> End | None:
    view = _named(pod.init_containers, WEIGHTS_CONTAINER)
    if view is None or view.state != "terminated":
        return None
    if view.exit_code:
        return _weights_ended(view, seat, blade)
    found = verified_by(pod)
    if found is None or recorded is None or found.digest == recorded:
        return None
    why = f"weights on {blade} must be {recorded} (got {found.digest})"
    return End(InferenceReason.ARTIFACT_MISMATCH, why, seat)


def _start_on(replica: Replica, pod: PodView, seat: int, now: float) -> End | None:
    text = problem_of(replica)
    if text is None or now - pod.created_at < CANNOT_START_S:
        return None
    return End(InferenceReason.MISCONFIGURED, text, seat)


def _engine_on(pod: PodView, seat: int, blade: str) -> End | None:
    engine = _named(pod.containers, ENGINE_CONTAINER) or next(iter(pod.containers), None)
    if engine is not None and engine.state == "terminated":
        return _engine_ended(engine, pod, seat, blade)
    return _pod_ended(pod, seat, blade) if pod.finished else None


def _weights_ended(view: ContainerView, seat: int, blade: str) -> End:
    if view.reason in _NOT_STARTED:
        return _not_started(view, seat, blade)
    by_code = {
        _MISCONFIGURED: InferenceReason.MISCONFIGURED,
        _MISMATCH: InferenceReason.ARTIFACT_MISMATCH,
    }
    reason = by_code.get(view.exit_code or 0, InferenceReason.SOURCE_MISSING)
    said = _words(view).get("message") or f"weights ended with exit code {view.exit_code}"
    return End(reason, f"rank {seat} on {blade}: {said}", seat)


def _not_started(view: ContainerView, seat: int, blade: str) -> End:
    hint = "; its image must have python3, from 3.8 on" if "python3" in view.message else ""
    why = f"rank {seat} on {blade}: container {view.name} must start (got {view.message}){hint}"
    return End(InferenceReason.MISCONFIGURED, why, seat)


def _engine_ended(view: ContainerView, pod: PodView, seat: int, blade: str) -> End:
    if pod.reason.startswith((*_PUT_OUT, *_NOT_TAKEN)):
        return _pod_ended(pod, seat, blade)
    if view.reason in _NOT_STARTED:
        return _not_started(view, seat, blade)
    code, words = view.exit_code, _words(view)
    by_code = {
        _HUNG: InferenceReason.HUNG,
        _TOO_SLOW: InferenceReason.ENGINE_FAILED,
        _SEAT_0_GONE: InferenceReason.RANK_DEAD,
        _TOLD: InferenceReason.PREEMPTED,
    }
    own = InferenceReason.RANK_DEAD if seat else InferenceReason.ENGINE_FAILED
    reason = by_code.get(code or 0, own)
    told = words.get("reason")
    if told in _REASONS:
        reason = InferenceReason(told)
    note = f" ({view.reason})" if view.reason not in {"", "Error", "Completed"} else ""
    said = f": {words['message']}" if words.get("message") else ""
    why = f"rank {seat} on {blade} ended with exit code {code}{note}{said}"
    return End(reason, why, seat, follows=code == _SEAT_0_GONE)


def _pod_ended(pod: PodView, seat: int, blade: str) -> End:
    reason = InferenceReason.RANK_DEAD
    if pod.reason.startswith(_PUT_OUT):
        reason = InferenceReason.PREEMPTED
    elif pod.reason.startswith(_NOT_TAKEN):
        reason = InferenceReason.NODE_LOST
    said = f": {pod.message}" if pod.message else ""
    return End(reason, f"rank {seat} on {blade} ended ({pod.reason or pod.phase}{said})", seat)


def _named(views: tuple[ContainerView, ...], name: str) -> ContainerView | None:
    return next((view for view in views if view.name == name), None)


def _words(view: ContainerView) -> Mapping[str, Any]:
    """Return the last words of a container of ours: one JSON object, if it got that far."""
    return _read(view.message) if view.message else {}


@lru_cache(maxsize=4096)
def _read(text: str) -> Mapping[str, Any]:
    """Return what was said; the same is looked at many times: until the pod is gone."""
    try:
        words = json.loads(text)
    except ValueError:
        return {}
    return words if isinstance(words, dict) else {}
