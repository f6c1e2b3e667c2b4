"""Say which pods of a placed gang go, which are made, and which survivors get a new epoch.

Fencing comes first: a lost seat's pod gets a short grace on a node that lives, since a pod that is
deleted by force may run on beside its replacement; where nobody can answer on the node, force is
the only way.
"""

from collections.abc import Sequence

from tramontane.api import clock
from tramontane.api.trainingjob import IncidentCause, RestartPolicy
from tramontane.controllers.gangpods.actions import Delete
from tramontane.controllers.trainingjob import incidents as told
from tramontane.controllers.trainingjob.actions import Create, Raise
from tramontane.controllers.trainingjob.case import Case
from tramontane.controllers.trainingjob.losses import Loss, is_silent, loss_of
from tramontane.controllers.trainingjob.observe import World, seat_of
from tramontane.controllers.trainingjob.seats import ALIVE, Seat, There
from tramontane.controllers.trainingjob.validate import uses_agent
from tramontane.kube.views import PodView

# Enough for a rank agent to end its rank's processes; the work since the last checkpoint is lost.
FENCE_GRACE_S = 2


def deletes(case: Case) -> tuple[Delete, ...]:
    """Return the pods that must go; see the table.

    | pod | deleted |
    |---|---|
    | on a lost blade, or not on its seat's blade | now; by force where its node is gone |
    | leaving, in a new life | now: its checkpoint has been saved |
    | failed | when the restart's wait is over, so that its log can be read meanwhile |
    | done, while others begin a new attempt | now: all ranks meet again |
    | of an old attempt, restart: Gang, or a hang that no agent can end | when the wait is over |
    | being deleted already, its node gone | by force |
    | of a seat that there is no more | now |
    """
    whole = _all_anew(case)
    found = []
    for seat in case.seats:
        pod = seat.pod
        if pod is None or seat.there is There.TAKEN:
            continue
        if (order := _order(case, seat, pod, whole=whole)) is not None:
            found.append(order)
    found += [
        Delete(pod.name, pod.uid, None, "its seat is no more")
        for pod in case.world.own_pods
        if seat_of(pod) >= len(case.seats) and not pod.deleting
    ]
    found += [
        Delete(pod.name, pod.uid, 0, "the lighthouse has ended")
        for pod in lights(case)
        if (pod.deleting and pod.node is not None and is_silent(case.world, pod.node))
        or (pod.finished and not pod.deleting)
    ]
    return tuple(found)


def lights(case: Case) -> tuple[PodView, ...]:
    """Return the lighthouse's pods: one at most, and it has no seat."""
    return tuple(pod for pod in case.world.own_pods if seat_of(pod) < 0)


def _order(case: Case, seat: Seat, pod: PodView, *, whole: bool) -> Delete | None:
    """Return the deletion of a seat's pod, by the table of `deletes`, or None."""
    if seat.there in ALIVE and seat.loss is None and not whole:
        return None
    where = _loss_under(case, seat, pod)
    is_gone = where is not None and where.node_gone
    if seat.there is There.GOING:
        return Delete(pod.name, pod.uid, 0, "its node is gone") if is_gone else None
    fence_s = 0 if is_gone else FENCE_GRACE_S
    is_lost = seat.loss is not None and seat.there not in {There.DONE, There.LEAVING}
    if seat.there is There.MISPLACED or is_lost:
        return Delete(pod.name, pod.uid, fence_s, "its seat has left the blade")
    if not case.is_old(seat) or (case.is_held and seat.there is not There.LEAVING):
        return None
    # Where an agent has ended the rank there is nothing to wait for.
    agent_s = FENCE_GRACE_S if uses_agent(case.world.job.spec) else None
    whys: dict[There, tuple[int | None, str]] = {
        There.LEAVING: (agent_s, "its seat has moved"),
        There.FAILED: (None, "it has failed"),
        There.DONE: (None, "a new attempt begins"),
    }
    if whole:
        whys |= dict.fromkeys(ALIVE, (fence_s, "all pods are made anew"))
    given = whys.get(seat.there)
    return Delete(pod.name, pod.uid, *given) if given is not None else None


def _all_anew(case: Case) -> bool:
    """Return whether survivors get new pods too."""
    spec = case.world.job.spec
    if spec.recovery.restart is RestartPolicy.GANG:
        return True
    hangs = any(told.is_open(one) and one.cause is IncidentCause.HANG for one in case.incidents)
    return hangs and not uses_agent(spec)


def all_of(world: World, why: str) -> tuple[Delete, ...]:
    """Return the deletion of all pods: with their grace, by force where nobody can end them."""
    return tuple(
        Delete(pod.name, pod.uid, 0 if gone else None, "its node is gone" if gone else why)
        for pod in world.own_pods
        for gone in (pod.node is not None and is_silent(world, pod.node),)
        if gone or not pod.deleting
    )


def log_to_the_end(world: World) -> PodView | None:
    """Return rank 0's pod while it ends: its last lines say whether a checkpoint was saved."""
    return next(
        (pod for pod in world.own_pods if seat_of(pod) == 0 and pod.phase == "Running"), None
    )


def _loss_under(case: Case, seat: Seat, pod: PodView) -> Loss | None:
    """Return whether the blade under the pod is lost, which need not be its seat's."""
    if pod.node is None or pod.node == seat.blade:
        return seat.loss
    return loss_of(case.world, pod.node, case.pool)


def creates(case: Case) -> tuple[Create, ...]:
    """Return the pods to create: of seats whose last pod is gone, on blades that are not lost."""
    if case.is_held or case.world.refusal is not None:
        return ()
    return tuple(
        Create(seat.number, seat.blade)
        for seat in case.seats
        if seat.there is There.MISSING and seat.loss is None
    )


def raises(case: Case) -> tuple[tuple[Raise, ...], dict[int, str]]:
    """Return the survivors to restart, and the addresses of those who were replaced.

    All of a group at once, and only when every seat of it has a live pod with an address: a
    survivor that restarts earlier would look for peers that are not there, or at addresses that
    are no more.
    """
    if case.is_held or _all_anew(case):
        return (), {}
    by_group: dict[int, list[Seat]] = {}
    for seat in case.seats:
        by_group.setdefault(case.groups.of_seat(seat.number), []).append(seat)
    raised: list[Raise] = []
    peers: dict[int, str] = {}
    for group in by_group.values():
        more, addresses = _raises_of_group(case, group)
        raised += more
        peers |= addresses
    return tuple(raised), peers


def _raises_of_group(case: Case, group: Sequence[Seat]) -> tuple[list[Raise], dict[int, str]]:
    survivors = [seat for seat in group if case.is_old(seat)]
    replaced = [seat for seat in group if not case.is_old(seat)]
    if not survivors or any(seat.there not in ALIVE or seat.loss for seat in group):
        return [], {}
    if not all(seat.pod and seat.pod.pod_ip for seat in replaced):
        return [], {}
    # A crash in the middle of raising leaves some survivors looking replaced: true all the same.
    begun = min(
        (clock.parse(one.at) for one in case.incidents if told.is_open(one)), default=case.now
    )
    peers = {
        seat.number: seat.pod.pod_ip
        for seat in replaced
        if seat.pod is not None and seat.pod.pod_ip and seat.pod.created_at >= begun - 1
    }
    return [Raise(seat.pod.name, seat.pod.uid) for seat in survivors if seat.pod], peers
