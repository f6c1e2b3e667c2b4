"""Say how one revision replaces another: how many replicas each has, and what part of the requests.

Pure, and without memory but for the status: `Revision.verdict` and `RolloutStatus`. The *stable*
revision is the last Accepted one in the status's order. The *candidate* is the revision of the
present spec, unless it is stable or Rejected.

| there is | seen | it follows |
|---|---|---|
| no stable revision | no replica of the candidate serves | all replicas are its, unjudged |
| | one serves | Accepted |
| no candidate | the spec's revision is Rejected, or stable | all replicas are the stable one's |
| both | no rollout from one to the other | it begins; another candidate is given up |
| | Auto, the candidate waits for capacity, and none is about to be freed | Serial from now on |
| | the candidate cannot start, or `judge` rejects it | Rejected, as without a candidate |
| | the stable one cannot start | the step is the last: all requests |
| a step with a hold | the replicas that it needs do not all serve | its hold has not begun |
| | they do | the hold begins |
| | fewer than half serve | it begins anew |
| | it is over, all serve, and somebody has watched for a window of it | the next step |
| all requests | as many serve as are wanted | Accepted; the old one stays listed, at 0 % |

How many replicas and requests that comes to: `shares`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tramontane.api import clock
from tramontane.api.inferencedeployment import Rollout, RolloutStrategy, Slo
from tramontane.api.inferencestatus import (
    MAX_REVISIONS,
    Revision,
    RevisionVerdict,
    RolloutStatus,
)
from tramontane.api.quantity import parse_duration
from tramontane.controllers.inferencedeployment.judge import (
    STALE_S,
    WHOLE_WINDOW_S,
    Judgement,
    judge,
)
from tramontane.controllers.inferencedeployment.shares import (
    Case,
    Standing,
    targets_of,
    weights_of,
)

__all__ = ["Rolled", "Standing", "roll"]


@dataclass(frozen=True, slots=True)
class Rolled:
    """Say what is to be.

    Attributes:
        targets: live replicas wanted, by revision; of a revision that is not named, none.
        weights: percent of the requests, by revision; `rotation` makes it true.
        serial: a replica of the old revision may leave before the one that follows it serves.
        revisions: with their verdicts, weights and reasons, in the order that is remembered.
        decisions: what was decided just now, and why.
        after: seconds after which to look again, whatever happens.
    """

    targets: Mapping[str, int]
    weights: Mapping[str, int]
    serial: bool
    revisions: tuple[Revision, ...]
    rollout: RolloutStatus | None
    decisions: tuple[tuple[str, str], ...] = ()
    after: float | None = None


def roll(  # noqa: PLR0917 - the planner gives them in this order
    now: float,
    wanted_hash: str,
    wanted: int,
    spec: Rollout,
    slo: Slo | None,
    known: tuple[Revision, ...],
    rollout: RolloutStatus | None,
    standings: Mapping[str, Standing],
    watched_since: float = 0.0,
) -> Rolled:
    """Return what each revision is to have now, and what was decided.

    Args:
        now: Unix seconds.
        wanted_hash: the revision of the present spec.
        wanted: replicas that the load calls for.
        spec: the spec's `rollout`.
        slo: the spec's `slo`.
        known: the status's revisions; their order is kept, and what others wrote into them.
        rollout: the status's rollout.
        standings: by revision; one that is not there has nothing.
        watched_since: since when there has been somebody who could see their loads.
    """
    verdicts = {one.hash: one.verdict for one in known}
    accepted = [one.hash for one in known if one.verdict is RevisionVerdict.ACCEPTED]
    stable = accepted[-1] if accepted else None
    old = standings.get(stable or wanted_hash, Standing(stable or wanted_hash))
    case = Case(now, wanted, spec, slo, standings, known, old, watched_since=watched_since)
    case = _without_others(case, wanted_hash)
    if verdicts.get(wanted_hash) is not RevisionVerdict.REJECTED:
        if stable is None:
            case = _first(case)
        elif stable != wanted_hash:
            case = _stepped(_begun(case, wanted_hash, rollout))
    elif stable is None:
        return Rolled({}, {}, False, known, None)
    return _rolled(case)


def _without_others(case: Case, wanted_hash: str) -> Case:
    """Give up what is observed and is not the spec's any more: it is no candidate now."""
    for one in case.known:
        if one.verdict is RevisionVerdict.OBSERVING and one.hash != wanted_hash:
            why = f"the spec became that of {wanted_hash} before it was judged"
            case = case.noted(one.hash, verdict=None, why=why)
            case = case.decided(f"give up {one.hash}", f"the spec is that of {wanted_hash} now")
    return case


def _first(case: Case) -> Case:
    """Accept the first revision ever as soon as it serves: there is nothing to judge it by."""
    if not case.old.serving:
        return case.noted(case.old.hash, verdict=RevisionVerdict.OBSERVING, why=None)
    why = "the first revision, and it serves"
    case = case.noted(case.old.hash, verdict=RevisionVerdict.ACCEPTED, why=why)
    return case.decided(f"accept {case.old.hash}", why)


def _begun(case: Case, wanted_hash: str, rollout: RolloutStatus | None) -> Case:
    """Return the case with the rollout that goes on, or begins now."""
    old, new = case.old.hash, case.standings.get(wanted_hash, Standing(wanted_hash))
    strategy = case.spec.strategy
    if rollout is not None and (rollout.from_, rollout.to) == (old, wanted_hash):
        case = replace(case, new=new, state=rollout)
    else:
        state = RolloutStatus(from_=old, to=wanted_hash)
        case = replace(case, new=new, state=state)
        case = case.noted(wanted_hash, verdict=RevisionVerdict.OBSERVING, why=None)
        case = case.decided(f"roll out {wanted_hash}", f"the spec is no more that of {old}")
    assert case.state is not None
    if strategy is RolloutStrategy.AUTO:
        return _serial_if_full(case, new)
    return case.moved(serial=strategy is RolloutStrategy.SERIAL)


def _serial_if_full(case: Case, new: Standing) -> Case:
    """Turn to Serial where the candidate waits for what only the stable revision can free."""
    assert case.state is not None
    targets = targets_of(case)
    about_to_leave = any(
        one.leaving or one.live > targets.get(one.hash, 0) for one in case.standings.values()
    )
    if case.state.serial or not new.waiting_for_capacity or about_to_leave:
        return case
    why = f"no blades are free for it; one replica of {case.old.hash} at a time makes room"
    return case.moved(serial=True).decided(f"roll out {new.hash} serially", why)


def _stepped(case: Case) -> Case:
    """Reject the candidate, accept it, or bring it a step further; or leave it where it is."""
    assert case.new is not None
    assert case.state is not None
    new, old = case.new, case.old
    if new.failed:
        judgement = Judgement(True, f"its replicas cannot start: {new.failed}")
    else:
        others = old.load if old.serving else ()
        judgement = judge(case.now, new.load, others, case.spec.abort_on, case.slo)
    if judgement.rejected:
        case = case.noted(new.hash, verdict=RevisionVerdict.REJECTED, why=judgement.why)
        case = case.decided(f"roll back {new.hash} to {old.hash}", judgement.why)
        return replace(case, new=None, state=None)
    if old.failed and not case.is_last:
        why = f"replicas of {old.hash} cannot start: {old.failed}"
        case = case.moved(step=len(case.spec.steps), since=None)
        return case.decided(f"give all requests to {new.hash}", why)
    if case.is_last:
        return _accepted(case, new) if new.serving >= max(1, case.wanted) else case
    return _held(case, new, judgement)


def _accepted(case: Case, new: Standing) -> Case:
    why = f"{new.serving} replicas serve, as many as are wanted"
    case = case.noted(new.hash, verdict=RevisionVerdict.ACCEPTED, why=None)
    # The last accepted one in this order is stable.
    entry = next(one for one in case.known if one.hash == new.hash)
    known = (*(one for one in case.known if one.hash != new.hash), entry)
    case = replace(case, known=known, old=new, new=None, state=None)
    return case.decided(f"accept {new.hash}", why)


def _held(case: Case, new: Standing, judgement: Judgement) -> Case:
    """Return the case with the hold of its step begun, begun anew, or over."""
    assert case.state is not None
    need = case.need
    if case.state.since is None:
        return case.moved(since=clock.utc(case.now)) if new.serving >= need else case
    if 2 * new.serving < need:
        return case.moved(since=None)
    hold = case.spec.steps[case.state.step].hold
    if new.serving < need or _left_s(case) > 0:
        return case
    case = case.moved(step=case.state.step + 1, since=None)
    part = "all requests" if case.is_last else f"{case.weight} % of the requests"
    return case.decided(f"give {part} to {new.hash}", f"{judgement.why}, after {hold}")


def _left_s(case: Case) -> float:
    """Return what is left of the step's hold."""
    if case.state is None or case.state.since is None or case.is_last:
        return 0.0
    hold_s = parse_duration(case.spec.steps[case.state.step].hold)
    # Who has just come has seen nothing yet, and must not go on as if all were well.
    seen_at = case.watched_since + min(hold_s, WHOLE_WINDOW_S + STALE_S)
    return max(clock.parse(case.state.since) + hold_s, seen_at) - case.now


def _rolled(case: Case) -> Rolled:
    """Return what follows from the case."""
    targets, weights = targets_of(case), weights_of(case)
    kept = {case.old.hash, case.new.hash if case.new else case.old.hash}
    known = tuple(
        one.model_copy(update={"weight": weights.get(one.hash, 0), "ready": _serving(case, one)})
        for one in _at_most(case.known, kept)
    )
    left_s = _left_s(case)
    after = left_s if left_s > 0 else None
    return Rolled(targets, weights, case.is_serial, known, case.state, case.decisions, after)


def _serving(case: Case, revision: Revision) -> int:
    standing = case.standings.get(revision.hash)
    return standing.serving if standing else 0


def _at_most(known: tuple[Revision, ...], kept: set[str]) -> tuple[Revision, ...]:
    """Return as many revisions as the status holds: these, then rejected ones, then the newest."""

    def rank(position: int) -> tuple[bool, bool, int]:
        one = known[position]
        return one.hash in kept, one.verdict is RevisionVerdict.REJECTED, position

    best = sorted(range(len(known)), key=rank, reverse=True)[:MAX_REVISIONS]
    return tuple(known[position] for position in sorted(best))
