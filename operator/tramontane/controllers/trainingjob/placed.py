"""Decide for a gang that has its seats: losses, fencing, creation, recovery, end.

1. too long → Failed
2. what is news goes into the incidents; a new attempt begins; budgets may end the job
3. what is planned waits for a checkpoint (`handshake`)
4. lost seats go into Gang.spec.lost; the scheduler moves them, and only them
5. fence: pods that must not run on are deleted
6. seats whose last pod is gone get their next one, on their blade
7. once every seat has a live pod, survivors get the new epoch, once each
8. all ready and stepping → Running
"""

from collections.abc import Sequence
from dataclasses import replace

from tramontane.api import clock
from tramontane.api.gang import GangSpec, Placement
from tramontane.api.nodepool import NodePool
from tramontane.api.reasons import JobReason
from tramontane.api.trainingjob import (
    HandshakeWhy,
    IncidentCause,
    JobPhase,
    Stragglers,
)
from tramontane.controllers.trainingjob import budgets, gangs, handshake, limits, podwork, stall
from tramontane.controllers.trainingjob import incidents as told
from tramontane.controllers.trainingjob.actions import Life, Plan
from tramontane.controllers.trainingjob.case import Case
from tramontane.controllers.trainingjob.cost import next_cost
from tramontane.controllers.trainingjob.ending import ended
from tramontane.controllers.trainingjob.findings import findings
from tramontane.controllers.trainingjob.groups import Groups
from tramontane.controllers.trainingjob.incidents import News
from tramontane.controllers.trainingjob.inquest import inquest
from tramontane.controllers.trainingjob.news import news_of
from tramontane.controllers.trainingjob.observe import World
from tramontane.controllers.trainingjob.seats import ALIVE, There, look
from tramontane.controllers.trainingjob.status import follow

# How soon to look again at what no event announces.
_CHECK_S = 1.0
_STARTING_S = 5.0
_RUNNING_S = 30.0
# A straggler that is only reported is told once in this time.
_TOLD_AGAIN_S = 3600.0


def plan_placed(
    world: World, pool: NodePool, placement: Placement, attempt: int, *, begins: bool
) -> Plan:
    """Return what is to be done now; see the module's list. O(seats).

    `begins` says that the attempt is not in the status yet, though another one was.
    """
    case = _case(world, pool, placement, attempt, begins=begins)

    # 1. The end.
    if (limit := limits.time_limit_left(world)) is not None and limit <= 0:
        text = f"ran for spec.maxRuntime ({world.job.spec.max_runtime})"
        return _end(case, JobReason.TIME_LIMIT, text)

    # 2. What is news.
    case, news = _with_news(case)
    if (spent := limits.spent(case, news)) is not None:
        if (words := limits.last_words(case, news)) is None:
            return Plan(world.job.status, ask=limits.failed_pods(case, news), after=_CHECK_S)
        return _end(case, spent[0], spent[1] + words)

    # 3. What is planned.
    if not news:
        case = _with_handshake(case)
    return _carried_out(case, placement, limit)


def _carried_out(case: Case, placement: Placement, limit_s: float | None) -> Plan:
    """Return what follows from the case: steps 4 to 8."""
    seats = case.seats
    incidents = told.with_replacements(case.incidents, seats, case.due, case.now)
    if case.groups.count > 1:
        incidents = told.closed_by_group(incidents, seats, case.groups, case.due, case.now)
    case = replace(case, incidents=incidents, held_until=limits.held_until(case))
    leaves_all = _gives_all_up(case)
    waits = case.handshake is not None and not leaves_all
    creates = () if case.handshake is not None else podwork.creates(case)
    raises, peers = ((), {}) if case.handshake is not None else podwork.raises(case)
    deletes = podwork.all_of(case.world, "the job changes its size") if leaves_all else ()

    found, events = findings(case)
    status = follow(case.world, found)
    if status.phase is JobPhase.RUNNING:
        case = replace(case, incidents=status.incidents)
    seat_0 = seats[0].pod if seats[0].there in ALIVE | {There.LEAVING} else None
    return Plan(
        status,
        record_first=case.begins_anew,
        gang=_gang(case),
        life=Life(case.attempt, case.gpus, placement.seats) if creates else None,
        creates=creates,
        lighthouse=case.groups.count > 1 and not leaves_all and not podwork.lights(case),
        deletes=deletes or podwork.deletes(case),
        raises=raises,
        drains=handshake.drains(case) if waits else (),
        peers=peers,
        ask=case.ask,
        events=events,
        follow=seat_0 if seat_0 is not None and seat_0.phase == "Running" else None,
        after=_after(case, status.phase, limit_s),
    )


def _case(
    world: World, pool: NodePool, placement: Placement, attempt: int, *, begins: bool
) -> Case:
    job = world.job
    seats = look(world, placement, pool)
    groups = Groups.of(job.spec, len(seats))
    # The first attempt needs no record before its pods: they carry it.
    attempt, saves = max(attempt, 1), handshake.going_on(world)
    case = Case(
        world=world,
        pool=pool,
        groups=groups,
        seats=seats,
        gpus=gangs.gpus_per_node(job, pool),
        attempt=attempt,
        incidents=job.status.incidents,
        restarts=job.status.restarts,
        begins_anew=begins,
        due=groups.due(seats, job.status.incidents, attempt, saves=saves is not None),
        handshake=saves,
    )
    return replace(case, growth=handshake.growth(case))


def _with_news(case: Case) -> tuple[Case, list[News]]:
    """Return the case with what is news recorded, and the news; a new attempt begins with them.

    Pods of a life that is over are no news: they are named where they belong. What had been
    planned meanwhile is done with the rest: the life is over anyway.
    """
    if _gives_all_up(case):
        return case, []  # the pods go by our own doing
    news = news_of(case.world, case.seats, case.due)
    if not news:
        more = told.victims(case.incidents, case.seats, case.due)
        named = told.with_victims(case.incidents, more)
        case = replace(
            case, incidents=named, begins_anew=case.begins_anew or named != case.incidents
        )
        found = inquest(case)
        case, news = replace(case, ask=found.ask), list(found.news)
    if not news:
        return _with_report(case), []
    return _begun_anew(case, [*news, *handshake.moves(case, case.now)]), news


def _begun_anew(case: Case, news: Sequence[News]) -> Case:
    """Return the case in its next attempt, unless nobody has begun the present one."""
    incidents = told.recorded(case.incidents, news, case.now)
    hit = {case.groups.of_seat(one.seat) for one in news}
    begun = (
        # Replica groups keep a job running through losses in a row.
        (case.groups.count == 1 and case.world.job.status.phase is JobPhase.RUNNING)
        or any(
            not case.is_old(seat)
            and seat.pod is not None
            and case.groups.of_seat(seat.number) in hit
            for seat in case.seats
        )
        or any(epoch >= case.attempt for epoch in case.world.vanished.values())
    )
    attempt = case.attempt + 1 if begun else case.attempt
    causes = [one.cause for one in news]
    return replace(
        case,
        attempt=attempt,
        incidents=incidents,
        restarts=budgets.counted(case.restarts, causes) if begun else case.restarts,
        due=case.groups.due(case.seats, incidents, attempt),
        handshake=None,
        begins_anew=True,
    )


def _with_report(case: Case) -> Case:
    """Return the case with a straggler told of that is only to be reported."""
    slow, spec = case.world.slow, case.world.job.spec.progress
    if slow is None or spec.stragglers is not Stragglers.REPORT or slow.seat >= len(case.seats):
        return case
    if any(
        one.cause is IncidentCause.STRAGGLER
        and slow.seat in one.seats
        and case.now - clock.parse(one.at) < _TOLD_AGAIN_S
        for one in case.incidents
    ):
        return case
    pod = case.seats[slow.seat].pod
    if pod is None or pod.uid != slow.uid:
        return case
    blade = case.seats[slow.seat].blade
    news = News(
        IncidentCause.STRAGGLER, f"slow-rank-{slow.ratio:.1f}x", blade, slow.seat, slow.since
    )
    fresh = told.closed(told.recorded((), [news], case.now), case.now, 0)
    return replace(case, incidents=told.appended(case.incidents, fresh), begins_anew=True)


def _with_handshake(case: Case) -> Case:
    """Return the case with a handshake begun, going on, or over and its purpose recorded."""
    present = case.handshake
    if present is None:
        why = handshake.wanted(case)
        if why is None:
            return case
        present = handshake.begun(case.world, why)
        case = replace(case, handshake=present, begins_anew=True)
        if handshake.can_save(case):
            return case
    if not handshake.is_done(case, present) and handshake.can_save(case):
        return case
    if present.why is HandshakeWhy.RESIZE:
        return case  # until the last pod is gone; then `resize`
    news = handshake.moves(case, clock.parse(present.since))
    if not news:
        # What it was for has gone away meanwhile: the ranks have ended, and go on.
        news = [News(IncidentCause.EVICTED, "drained", "", 0, clock.parse(present.since))]
    return _begun_anew(case, news)


def _gives_all_up(case: Case) -> bool:
    """Return whether the pods go because the gang is to be placed anew."""
    going_on = case.handshake
    if going_on is None or going_on.why is not HandshakeWhy.RESIZE:
        return False
    return handshake.is_done(case, going_on) or not handshake.can_save(case)


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
    lost += [
        (seat.number, seat.pod.node)
        for seat in case.seats
        if seat.planned is not None and seat.pod is not None and seat.pod.node
    ]
    job = gangs.with_incidents(world.job, case.incidents)
    avoid = gangs.avoided(job)
    lost += [
        (seat.number, seat.blade)
        for seat in case.seats
        if seat.blade in avoid and seat.loss is None and seat.there in {There.FAILED, There.MISSING}
    ]
    size = len(case.seats) if any(seat.pod for seat in case.seats) else None
    cost = next_cost(world.gang.spec.cost, world, case.gpus * len(case.seats))
    wanted = gangs.gang_spec(job, case.pool, world.priority, lost, running=size, cost=cost)
    return None if wanted == world.gang.spec else wanted


def _end(case: Case, reason: JobReason, message: str) -> Plan:
    """Fail the job."""
    return ended(
        case.world,
        reason,
        message,
        size=len(case.seats),
        attempt=case.attempt,
        incidents=case.incidents,
        restarts=case.restarts,
    )


def _after(case: Case, phase: JobPhase | None, limit_s: float | None) -> float:
    """Return when to look again although nothing changes."""
    waits = [_RUNNING_S if phase is JobPhase.RUNNING else _STARTING_S]
    if case.is_held:
        waits.append(case.held_until - case.now)
    if limit_s is not None:
        waits.append(limit_s)
    nodes = case.world.nodes
    if case.ask or case.handshake is not None:
        waits.append(_CHECK_S)
    marks = case.world.marks
    if marks is not None and (at := stall.hangs_at(case.world, marks, case.due[0])) is not None:
        waits.append(max(_CHECK_S, at - case.now))
    if case.growth is not None:
        waits.append(_CHECK_S if handshake.is_ripe(case) else _RUNNING_S)
    silent = any(
        (node := nodes.get(seat.blade)) is not None and node.ready is not True
        for seat in case.seats
    )
    if silent or any(seat.there is There.TAKEN for seat in case.seats):
        waits.append(_CHECK_S)
    return max(0.05, min(waits))
