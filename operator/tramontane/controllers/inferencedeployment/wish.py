"""Say which revision to go for: the one that the spec asks for, or what served before it."""

from dataclasses import dataclass

from tramontane.api.inferencestatus import PlanStatus, RevisionVerdict
from tramontane.api.nodepool import NodePool
from tramontane.controllers.inferencedeployment import checks
from tramontane.controllers.inferencedeployment.layout import Refusal
from tramontane.controllers.inferencedeployment.revisions import wanted_hash
from tramontane.controllers.inferencedeployment.world import Revision, World


@dataclass(frozen=True, slots=True)
class Wish:
    """Hold what the spec asks for, as far as it can be had.

    Attributes:
        hash: of the spec's revision; None where its weights do not exist.
        served: the revision to go for now; None where there is none.
        store: a revision that is to be stored before anything is made from it.
        unkept: an SLO that cannot be kept is the only thing that was refused.
    """

    hash: str | None
    served: str | None
    refusal: Refusal | None = None
    store: Revision | None = None
    plan: PlanStatus | None = None
    unkept: bool = False


def wish_of(world: World, pool: NodePool | None) -> Wish:
    """Return what is asked for; where it cannot be had, what served before."""
    hash_, before = wanted_hash(world), _before(world)
    refusal = checks.always(world, pool)
    if refusal is not None or pool is None:
        return Wish(hash_, before, refusal)
    if hash_ is not None and hash_ in world.revisions:
        # What serves goes on, as it is: no other layout was asked for.
        unkept = checks.unkept(world, pool, world.revisions[hash_])
        if world.deployment.status.plan is not None or unkept is not None:
            return Wish(hash_, hash_, unkept, unkept=unkept is not None)
        sizing = checks.sized(world, pool)
        shown = None if isinstance(sizing, Refusal) else checks.plan_status(sizing)
        return Wish(hash_, hash_, plan=shown)
    planned = checks.planned(world, pool, hash_)
    if isinstance(planned, Refusal):
        return Wish(hash_, before, planned, plan=_unfit(world, planned, before))
    return Wish(hash_, before, store=planned.revision, plan=planned.status)


def _before(world: World) -> str | None:
    """Return the revision to go on with while the spec's is not to be had.

    One that is just coming goes on coming; else the last that was accepted; else the last that
    was begun.
    """
    status, stored = world.deployment.status, world.revisions
    if status.rollout is not None and status.rollout.to in stored:
        return status.rollout.to
    for verdicts in ({RevisionVerdict.ACCEPTED}, {RevisionVerdict.OBSERVING, None}):
        found = [
            one.hash for one in status.revisions if one.verdict in verdicts and one.hash in stored
        ]
        if found:
            return found[-1]
    return None


def _unfit(world: World, refusal: Refusal, before: str | None) -> PlanStatus | None:
    """Return the plan to show of what does not fit; what serves keeps its own."""
    if before is not None:
        return world.deployment.status.plan
    return PlanStatus(fits=False, why=refusal.message)
