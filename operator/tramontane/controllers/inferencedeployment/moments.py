"""Take for now what the status remembers of a time to come: some clock was wrong.

After a clock was put back, or another host with a slower one has taken over, all that was written
before would be waited for: back-offs, holds, the time that a replica must have served for. A
request that ends a time without replicas would come too early to count.
"""

from dataclasses import replace

from tramontane.api import clock
from tramontane.api.inferencestatus import ReplicaStatus
from tramontane.controllers.inferencedeployment.world import World


def in_time(world: World) -> World:
    """Return the world without moments that its status places after now. O(replicas)."""
    now, old = world.now, world.deployment.status
    rollout = old.rollout
    if rollout is not None and _is_ahead(rollout.since, now):
        rollout = rollout.model_copy(update={"since": clock.utc(now)})
    status = old.model_copy(
        update={
            "replicas": tuple(_entry(one, now) for one in old.replicas),
            "rollout": rollout,
            "scaled_at": clock.utc(now) if _is_ahead(old.scaled_at, now) else old.scaled_at,
        }
    )
    return replace(world, deployment=world.deployment.model_copy(update={"status": status}))


def _entry(entry: ReplicaStatus, now: float) -> ReplicaStatus:
    names = ("since", "failed_at")
    ahead = [name for name in names if _is_ahead(getattr(entry, name), now)]
    return entry.model_copy(update=dict.fromkeys(ahead, clock.micro(now))) if ahead else entry


def _is_ahead(moment: str | None, now: float) -> bool:
    return moment is not None and clock.parse(moment) > now
