"""Decide for a gang that has its seats: losses, fencing, creation, recovery, end.

    1. all ranks done → Succeeded; too long → Failed
    2. what is news goes into the incidents; a new attempt begins; budgets may end the job
    3. lost seats go into Gang.spec.lost; the scheduler moves them, and only them
    4. fence: pods that must not run on are deleted
    5. seats whose last pod is gone get their next one, on their blade
    6. once every seat has a live pod, survivors get the new epoch, once each
    7. all ready and stepping → Running

A lost seat's pod gets a short grace on a node that lives, since a pod that is deleted by force may
run on beside its replacement; where nobody can answer on the node, force is the only way.
"""

from dataclasses import replace

from tramontane.api import clock
from tramontane.api.gang import GangSpec, Placement
from tramontane.api.nodepool import NodePool
from tramontane.api.reasons import JobReason
from tramontane.api.trainingjob import (
    IncidentCause,
    JobPhase,
    RestartPolicy,
)
from tramontane.controllers.trainingjob import budgets, gangs
from tramontane.controllers.trainingjob import incidents as told
from tramontane.controllers.trainingjob.actions import Create, Delete, Life, Plan, Raise, Said
from tramontane.controllers.trainingjob.case import Case
from tramontane.controllers.trainingjob.durations import seconds
from tramontane.controllers.trainingjob.findings import findings
from tramontane.controllers.trainingjob.losses import Loss, loss_of
from tramontane.controllers.trainingjob.observe import World, seat_of
from tramontane.controllers.trainingjob.seats import ALIVE, Seat, There, look
from tramontane.controllers.trainingjob.status import Findings, follow
from tramontane.kube.views import PodView

# Enough for a rank agent to end its rank's processes; the work since the last checkpoint is lost.
FENCE_GRACE_S = 2
# How soon to look again at what no event announces.
_CHECK_S = 1.0
_STARTING_S = 5.0
_RUNNING_S = 30.0


def plan_placed(
    world: World, pool: NodePool, placement: Placement, attempt: int, *, begins: bool
) -> Plan:
    """Return what is to be done now; see the module's list. O(seats).

    `begins` says that the attempt is not in the status yet, though another one was.
    """
    job = world.job
    # The first attempt needs no record before its pods: they carry it.
    attempt = max(attempt, 1)
    seats = look(world, placement, pool)
    gpus = gangs.gpus_per_node(job, pool)
    case = Case(
        world, pool, seats, gpus, attempt, job.status.incidents, job.status.restarts, begins
    )

    # 1. The end.
    if all(seat.there is There.DONE for seat in seats):
        return _end(case, JobPhase.SUCCEEDED, None, f"all {len(seats)} ranks ended with 0")
    if (limit := _time_limit_left(world)) is not None and limit <= 0:
        text = f"ran for spec.maxRuntime ({job.spec.max_runtime})"
        return _end(case, JobPhase.FAILED, JobReason.TIME_LIMIT, text)

    # 2. What is news.
    case, spent = _with_news(case)
    if spent is not None:
        return _end(case, JobPhase.FAILED, *spent)
    case = replace(
        case,
        incidents=told.with_replacements(case.incidents, seats, case.attempt, case.now),
        held_until=_held_until(case),
    )

    # 3. to 6. What follows from it.
    wanted = _gang(case)
    life = Life(case.attempt, gpus, placement.seats)
    creates = _creates(case)
    raises, peers = _raises(case)

    # 7. How it stands.
    found, events = findings(case)
    status = follow(world, found)
    if status.phase is JobPhase.RUNNING:
        case = replace(case, incidents=status.incidents)
    seat_0 = seats[0].pod if seats[0].there in ALIVE else None
    return Plan(
        status,
        record_first=case.begins_anew,
        gang=wanted,
        life=life if creates else None,
        creates=creates,
        deletes=_deletes(case),
        raises=raises,
        peers=peers,
        events=events,
        follow=seat_0 if seat_0 is not None and seat_0.phase == "Running" else None,
        after=_after(case, status.phase, limit),
    )


def _with_news(case: Case) -> tuple[Case, tuple[JobReason, str] | None]:
    """Record what is news and begin the next attempt; also say whether a budget is spent."""
    world, recovery = case.world, case.world.job.spec.recovery
    news = told.news(world, case.seats, case.attempt)
    if not news:
        more = told.victims(case.incidents, case.seats, case.attempt)
        named = told.with_victims(case.incidents, more)
        return replace(
            case, incidents=named, begins_anew=case.begins_anew or named != case.incidents
        ), None
    incidents = told.recorded(case.incidents, news, case.now)
    begun = any(seat.epoch >= case.attempt for seat in case.seats)
    causes = [one.cause for one in news]
    case = replace(
        case,
        attempt=case.attempt + 1 if begun else case.attempt,
        incidents=incidents,
        restarts=budgets.counted(case.restarts, causes) if begun else case.restarts,
        begins_anew=True,
    )
    for causes_, limit, reason in (
        (budgets.USER_CAUSES, recovery.user_failures, JobReason.TOO_MANY_USER_FAILURES),
        (budgets.INFRA_CAUSES, recovery.infra_failures, JobReason.TOO_MANY_INFRA_FAILURES),
    ):
        if not causes_.intersection(causes):
            continue
        window_s = seconds(limit.window)
        count = budgets.in_window(incidents, causes_, case.now, window_s)
        if count > limit.max:
            last = incidents[-1]
            text = (
                f"must fail at most {limit.max} times in {limit.window} (got {count}); the last: "
                f"{last.code} on {last.blade}, seats {', '.join(map(str, last.seats[:8]))}"
            )
            return case, (reason, text)
    return case, None


def _held_until(case: Case) -> float:
    """Return when the restart may begin: at once after a lost blade, later after a crash.

    | the open incidents have | wait, from the newest such |
    |---|---|
    | a UserError | recovery.backoff, by the failures in the window |
    | a pod that a kubelet refused, or put out | 2 s, doubling for each such incident of the seats |
    | neither | none |
    """
    recovery = case.world.job.spec.recovery
    still = [one for one in case.incidents if told.is_open(one) and one.replaced_after is None]
    until = 0.0
    for one in still:
        at = clock.parse(one.at)
        if one.cause is IncidentCause.USER_ERROR:
            window_s = seconds(recovery.user_failures.window)
            count = budgets.in_window(case.incidents, budgets.USER_CAUSES, case.now, window_s)
            until = max(until, at + budgets.wait_s(recovery.backoff, count))
    for seat in case.seats:
        if seat.there is There.FAILED or seat.there is There.MISSING:
            refused = [
                clock.parse(one.at)
                for one in case.incidents
                if told.is_open(one)
                and seat.number in one.seats
                and one.blade == seat.blade
                and one.cause in {IncidentCause.NODE_LOST, IncidentCause.EVICTED}
            ]
            # The first time may have been an accident; then its kubelet means it.
            if len(refused) > 1:
                wait_s = budgets.wait_s(budgets.ADMISSION_BACKOFF, len(refused) - 1)
                until = max(until, max(refused) + wait_s)
    return until


def _gang(case: Case) -> GangSpec | None:
    """Return the Gang's spec where it differs: what is lost now, and nothing by anybody else."""
    world = case.world
    assert world.gang is not None
    assert world.priority is not None
    lost = [
        (seat.number, seat.blade)
        for seat in case.seats
        if seat.loss is not None and seat.there is not There.DONE
    ]
    status = world.job.status.model_copy(update={"incidents": case.incidents})
    job = world.job.model_copy(update={"status": status})
    avoid = gangs.avoided(job)
    lost += [
        (seat.number, seat.blade)
        for seat in case.seats
        if seat.blade in avoid and seat.loss is None and seat.there in {There.FAILED, There.MISSING}
    ]
    size = len(case.seats) if any(seat.pod for seat in case.seats) else None
    wanted = gangs.gang_spec(job, case.pool, world.priority, lost, running=size)
    return None if wanted == world.gang.spec else wanted


def _deletes(case: Case) -> tuple[Delete, ...]:
    """Return the pods that must go; see the table.

    | pod | deleted |
    |---|---|
    | on a lost blade, or not on its seat's blade | now; by force where its node is gone |
    | failed | when the restart's wait is over, so that its log can be read meanwhile |
    | done, while others begin a new attempt | now: all ranks meet again |
    | of an old attempt, restart: Gang | when the wait is over |
    | being deleted already, its node gone | by force |
    | of a seat that there is no more | now |
    """
    whole = case.world.job.spec.recovery.restart is RestartPolicy.GANG
    found = []
    for seat in case.seats:
        pod = seat.pod
        if pod is None or seat.there is There.TAKEN:
            continue
        where = _loss_under(case, seat, pod)
        is_gone = where is not None and where.node_gone
        if seat.there is There.GOING:
            if is_gone:
                found.append(Delete(pod.name, pod.uid, 0, "its node is gone"))
            continue
        grace_s = 0 if is_gone else FENCE_GRACE_S
        is_old = seat.epoch < case.attempt
        if seat.there is There.MISPLACED or (seat.loss and seat.there is not There.DONE):
            found.append(Delete(pod.name, pod.uid, grace_s, "its seat has left the blade"))
        elif case.is_held or not is_old:
            continue
        elif seat.there is There.FAILED:
            found.append(Delete(pod.name, pod.uid, None, "it has failed"))
        elif seat.there is There.DONE:
            found.append(Delete(pod.name, pod.uid, None, "a new attempt begins"))
        elif whole:
            found.append(Delete(pod.name, pod.uid, grace_s, "all pods are made anew"))
    found += [
        Delete(pod.name, pod.uid, None, "its seat is no more")
        for pod in case.world.own_pods
        if seat_of(pod) >= len(case.seats) and not pod.deleting
    ]
    return tuple(found)


def _loss_under(case: Case, seat: Seat, pod: PodView) -> Loss | None:
    """Return whether the blade under the pod is lost, which need not be its seat's."""
    if pod.node is None or pod.node == seat.blade:
        return seat.loss
    return loss_of(case.world, pod.node, case.pool)


def _creates(case: Case) -> tuple[Create, ...]:
    """Return the pods to create: of seats whose last pod is gone, on blades that are not lost."""
    if case.is_held or case.world.refusal is not None:
        return ()
    return tuple(
        Create(seat.number, seat.blade)
        for seat in case.seats
        if seat.there is There.MISSING and seat.loss is None
    )


def _raises(case: Case) -> tuple[tuple[Raise, ...], dict[int, str]]:
    """Return the survivors to restart, and the addresses of those who were replaced.

    All at once, and only when every seat has a live pod with an address: a survivor that restarts
    earlier would look for peers that are not there, or at addresses that are no more.
    """
    if case.is_held or any(seat.there not in ALIVE or seat.loss for seat in case.seats):
        return (), {}
    survivors = [seat for seat in case.seats if seat.epoch < case.attempt]
    replaced = [seat for seat in case.seats if seat.epoch >= case.attempt]
    if not survivors or not all(seat.pod and seat.pod.pod_ip for seat in replaced):
        return (), {}
    # A crash in the middle of raising leaves some survivors looking replaced: true all the same.
    begun = min(
        (clock.parse(one.at) for one in case.incidents if told.is_open(one)), default=case.now
    )
    peers = {
        seat.number: seat.pod.pod_ip
        for seat in replaced
        if seat.pod is not None and seat.pod.pod_ip and seat.pod.created_at >= begun - 1
    }
    raised = tuple(Raise(seat.pod.name, seat.pod.uid) for seat in survivors if seat.pod)
    return raised, peers


def _end(case: Case, phase: JobPhase, reason: JobReason | None, message: str) -> Plan:
    """Finish the job; what still runs is deleted at the next look, after this has been written."""
    world = case.world
    key = f"TrainingJob {world.job.key}"
    status = follow(
        world,
        Findings(
            phase=phase,
            reason=reason,
            message=f"{key}: {message}" if reason else message,
            ready=0,
            size=len(case.seats),
            gpus=0,
            attempt=case.attempt,
            incidents=case.incidents,
            restarts=case.restarts,
            placed=True,
        ),
    )
    kind = "Normal" if phase is JobPhase.SUCCEEDED else "Warning"
    return Plan(
        status, record_first=True, events=(Said(kind, reason or phase, message),), after=0.0
    )


def _time_limit_left(world: World) -> float | None:
    """Return the seconds until spec.maxRuntime is over, from the first start; None: no limit."""
    limit, started = world.job.spec.max_runtime, world.job.status.started_at
    if limit is None or started is None:
        return None
    return clock.parse(started) + seconds(limit) - world.now


def _after(case: Case, phase: JobPhase | None, limit_s: float | None) -> float:
    """Return when to look again although nothing changes."""
    waits = [_RUNNING_S if phase is JobPhase.RUNNING else _STARTING_S]
    if case.is_held:
        waits.append(case.held_until - case.now)
    if limit_s is not None:
        waits.append(limit_s)
    nodes = case.world.nodes
    silent = any(
        (node := nodes.get(seat.blade)) is not None and node.ready is not True
        for seat in case.seats
    )
    if silent or any(seat.there is There.TAKEN for seat in case.seats):
        waits.append(_CHECK_S)
    return max(0.05, min(waits))
