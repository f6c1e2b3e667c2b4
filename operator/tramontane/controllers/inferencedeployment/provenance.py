"""Say what is known of the weights: what init containers found; the first to come is kept."""

from collections.abc import Mapping

from tramontane.api.inferencestatus import Revision
from tramontane.controllers.inferencedeployment.ends import Verified, verified_by
from tramontane.controllers.inferencedeployment.recovery import Known
from tramontane.controllers.inferencedeployment.replicas import Replica, State
from tramontane.controllers.inferencedeployment.world import World


def found(replicas: tuple[Replica, ...]) -> dict[str, tuple[Verified, ...]]:
    """Return what the pods of each revision have verified, by replica and seat."""
    by_revision: dict[str, list[Verified]] = {}
    for replica in replicas:
        for _, pod in sorted(replica.by_seat.items()):
            if (one := verified_by(pod)) is not None:
                by_revision.setdefault(replica.revision, []).append(one)
    return {revision: tuple(every) for revision, every in by_revision.items()}


def known(world: World, verified: Mapping[str, tuple[Verified, ...]]) -> dict[str, Known]:
    """Return what the weights of each revision must be.

    | recorded in the status | given in the spec | verified by a pod | must be | verified |
    |---|---|---|---|---|
    | D | any | any | D | yes |
    | no | D | D | D | yes |
    | no | D | nothing, or another | D | no |
    | no | no | D first | D | yes |
    | no | no | nothing | anything | no |
    """
    recorded = {one.hash: one.digest for one in world.deployment.status.revisions}
    hashes = {*recorded, *world.revisions, *verified}
    result = {}
    for hash_ in hashes:
        stored = world.revisions.get(hash_)
        given = stored.digest if stored is not None else None
        seen = [one.digest for one in verified.get(hash_, ())]
        if (digest := recorded.get(hash_)) is not None:
            result[hash_] = Known(digest, verified=True)
        elif given is not None:
            result[hash_] = Known(given, verified=given in seen)
        else:
            result[hash_] = Known(seen[0] if seen else None, verified=bool(seen))
    return result


def recorded(
    world: World,
    revisions: tuple[Revision, ...],
    replicas: tuple[Replica, ...],
    verified: Mapping[str, tuple[Verified, ...]],
    facts: Mapping[str, Known],
) -> tuple[Revision, ...]:
    """Return the revisions with what was found out about them by now."""
    return tuple(_noted(world, one, replicas, verified, facts) for one in revisions)


def _noted(
    world: World,
    revision: Revision,
    replicas: tuple[Replica, ...],
    verified: Mapping[str, tuple[Verified, ...]],
    facts: Mapping[str, Known],
) -> Revision:
    fact = facts.get(revision.hash, Known())
    stored = world.revisions.get(revision.hash)
    job = stored.spec.model.source.training_job if stored is not None else None
    bases = [one.base for one in verified.get(revision.hash, ()) if one.base]
    serving = sum(one.revision == revision.hash and one.state is State.SERVING for one in replicas)
    return revision.model_copy(
        update={
            "digest": fact.digest if fact.verified else revision.digest,
            "ready": serving,
            "training_job": job.name if job is not None else revision.training_job,
            "base": revision.base or (bases[0][:1024] if bases else None),
        }
    )
