"""Say what is to be done now that the status says what each replica is doing.

Level-based: everything follows from the states and from what there is, so that a plan that was
carried out by half is simply made again.

| state | Gang | pods | seat 0 is in rotation |
|---|---|---|---|
| Waiting | applied | those of an earlier placement go, with a short grace | no |
| Starting | applied | all that are missing are made, at once | no |
| Loading | applied | left alone | no |
| Serving | applied | left alone | where it is its turn |
| Stopping | applied | all go, with a short grace | no |
| Failed | applied, inactive: it holds nothing | all go, with a short grace | no |
| Draining | deleted once all pods are gone | go 3 s after seat 0 is out, with their grace | no |
| Dropping | the same | all go, with a short grace | no |

Pods on a node where nobody answers go by force: nobody else can confirm that they are gone.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from tramontane.api import clock
from tramontane.api.gang import GangSpec
from tramontane.api.names import (
    ANNOTATION_ADAPTERS,
    ANNOTATION_PEERS,
    GROUP,
    IN_ROTATION,
    LABEL_ROTATION,
    OUT_OF_ROTATION,
)
from tramontane.controllers.gangpods.actions import Delete
from tramontane.controllers.inferencedeployment.actions import Claim, Create, Mark
from tramontane.controllers.inferencedeployment.adapters import Wanted
from tramontane.controllers.inferencedeployment.case import Case
from tramontane.controllers.inferencedeployment.fates import Fate, fate_of
from tramontane.controllers.inferencedeployment.gangspec import gang_spec
from tramontane.controllers.inferencedeployment.replicas import ALIVE, HEARD_OF_S, Replica, State
from tramontane.kube.views import PodView

#: On pods that were taken out of rotation: when.
ANNOTATION_OUT_SINCE: Final = f"{GROUP}/out-since"
#: On pods that were told their peers: the address of seat 0 that they were told. The list itself
#: is not kept in the caches.
ANNOTATION_MASTER: Final = f"{GROUP}/master"

# Until every node has heard that a pod gets no more requests.
SETTLE_S: Final = HEARD_OF_S
SHORT_GRACE_S: Final = 5
_GRACE_BEFORE_DEADLINE_S: Final = 10.0


def claims(case: Case) -> tuple[Claim, ...]:
    """Return the Gangs that are missing, or not as they should be."""
    world, pool = case.world, case.pool
    if pool is None or world.priority is None or world.refusal is not None:
        return ()
    found = []
    made: dict[object, GangSpec] = {}  # most replicas want the same
    for index, one in enumerate(case.live):
        revision = world.revisions.get(one.revision)
        if revision is None:
            continue
        preemptible = index >= case.spec.capacity.min_replicas
        active = one.state is not State.FAILED
        # A Gang never changes its pool.
        of = pool if one.gang is None else world.pools.get(one.gang.spec.pool, pool)
        key = (one.revision, of.metadata.name, preemptible, active, one.entry.avoid)
        if (spec := made.get(key)) is None:
            spec = made[key] = gang_spec(
                world.deployment,
                revision,
                of,
                world.priority,
                one.entry,
                preemptible=preemptible,
                active=active,
            )
        if one.gang is None or one.gang.spec != spec:
            found.append(Claim(one.name, one.revision, spec))
    return tuple(found)


def drops(case: Case) -> tuple[str, ...]:
    """Return the Gangs of leaving replicas whose pods are all gone."""
    return tuple(
        one.name
        for one in case.replicas
        if one.leaves
        and not one.pods
        and one.gang is not None
        and one.gang.metadata.deletion_timestamp is None
    )


def creates(case: Case) -> tuple[Create, ...]:
    """Return the pods to create: all of a replica's that are missing, of those that start."""
    world = case.world
    if world.refusal is not None:
        return ()
    return tuple(
        Create(one.name, one.revision, seat, one.seats[seat])
        for one in case.live
        if one.state is State.STARTING and one.revision in world.revisions
        for seat in one.missing
    )


def deletes(case: Case) -> tuple[Delete, ...]:
    """Return the pods to delete; see the module's table."""
    return tuple(order for one in case.replicas for order in _deletes_of(case, one))


def settles_s(case: Case, replica: Replica) -> float | None:
    """Return in how many seconds a draining replica's pods may be deleted; None: it need not wait.

    What never was in rotation, or is not ready, has no requests to come.
    """
    if replica.state is not State.DRAINING:
        return None
    pod = replica.by_seat.get(0)
    if pod is None or pod.deleting or pod.finished:
        return None
    if pod.labels.get(LABEL_ROTATION) == IN_ROTATION:
        return SETTLE_S
    since = pod.annotations.get(ANNOTATION_OUT_SINCE)
    if since is None:
        return None
    left_s = clock.parse(since) + SETTLE_S - case.now
    # Beyond that, it was written by a clock that was put back since.
    return left_s if 0 < left_s <= SETTLE_S else None


def _deletes_of(case: Case, replica: Replica) -> Iterator[Delete]:
    goes = replica.state not in ALIVE
    waits = settles_s(case, replica) is not None
    for pod in sorted(replica.pods, key=lambda one: one.name):
        if pod.node is not None and goes and _is_dead(case, pod.node):
            yield Delete(pod.name, pod.uid, 0, "its node does not answer")
        elif goes and not waits and not pod.deleting:
            why = replica.entry.why or str(replica.state)
            yield Delete(pod.name, pod.uid, _grace_s(case, replica, pod), why)


def _is_dead(case: Case, node: str) -> bool:
    return fate_of(case.world, node).fate is Fate.GONE


def _grace_s(case: Case, replica: Replica, pod: PodView) -> int | None:
    """Return the grace of a pod that is deleted: its own while it may still answer requests."""
    if pod.finished:
        return None
    if replica.state is not State.DRAINING:
        return SHORT_GRACE_S
    order = replica.gang.status.preempt if replica.gang is not None else None
    if order is None or order.deadline is None:
        return None
    left_s = clock.parse(order.deadline) - case.now - _GRACE_BEFORE_DEADLINE_S
    return max(SHORT_GRACE_S, int(left_s))


def marks(case: Case, turn: frozenset[str], adapters: Wanted) -> tuple[Mark, ...]:
    """Return the labels and annotations to patch; whoever comes into rotation, before who goes.

    Args:
        case: the replicas.
        turn: names of the replicas that get requests now.
        adapters: what pods of each revision are to have loaded.
    """
    found = []
    for one in case.replicas:
        for pod in one.pods:
            wanted = adapters.of(one.revision, pod)
            mark = _marked(case, one, pod, one.name in turn, wanted)
            if mark.labels or mark.annotations:
                found.append(mark)
    return tuple(sorted(found, key=lambda mark: mark.labels.get(LABEL_ROTATION) != IN_ROTATION))


def _marked(case: Case, replica: Replica, pod: PodView, turn: bool, adapters: str | None) -> Mark:
    mark = Mark(pod)
    if pod.deleting and pod.labels.get(LABEL_ROTATION) != IN_ROTATION:
        return mark
    label = pod.labels.get(LABEL_ROTATION)
    if label is not None:
        # Nobody but a replica that serves gets requests, whatever was said of turns.
        wanted = IN_ROTATION if turn and replica.state is State.SERVING else OUT_OF_ROTATION
        if label != wanted:
            mark = replace(mark, labels={LABEL_ROTATION: wanted})
        if label == IN_ROTATION != wanted:
            since = {ANNOTATION_OUT_SINCE: clock.micro(case.now)}
            mark = replace(mark, annotations=since)
    if replica.state not in ALIVE or pod.finished:
        return mark
    annotations = dict(mark.annotations)
    seat_0 = replica.by_seat.get(0)
    address = seat_0.pod_ip if seat_0 is not None and len(replica.seats) > 1 else None
    if address is not None and pod.annotations.get(ANNOTATION_MASTER) != address:
        annotations |= {
            ANNOTATION_PEERS: json.dumps({"0": address}),
            ANNOTATION_MASTER: address,
        }
    if adapters is not None and pod.annotations.get(ANNOTATION_ADAPTERS) != adapters:
        annotations[ANNOTATION_ADAPTERS] = adapters
    return replace(mark, annotations=annotations)
