"""Change a job's size once its ranks have saved and its pods are gone.

    Gang.spec.resize = N ─► the scheduler places the gang anew at N, or leaves it as it is
                         ─► spec.resize is taken back ─► the next life, on the placement there is

No pod is made before the scheduler has seen the spec as it is: else a late answer would move
blades away from under new pods.
"""

from dataclasses import replace

from tramontane.api import clock
from tramontane.api.gang import Gang
from tramontane.api.nodepool import NodePool
from tramontane.api.trainingjob import Growth, HandshakeWhy, JobPhase
from tramontane.controllers.gangpods.actions import Said
from tramontane.controllers.trainingjob import gangs
from tramontane.controllers.trainingjob.actions import Plan
from tramontane.controllers.trainingjob.observe import World
from tramontane.controllers.trainingjob.status import Findings, follow

_ANSWER_S = 2.0


def is_due(world: World) -> bool:
    """Return whether a change of size is going on and the last pod is gone."""
    present = world.job.status.handshake
    return present is not None and present.why is HandshakeWhy.RESIZE and not world.own_pods


def plan_resize(world: World, pool: NodePool, gang: Gang, attempt: int) -> Plan:
    """Ask for the other size, and begin the next life once the scheduler has answered."""
    job, old = world.job, world.job.status
    assert world.priority is not None
    target = old.growth.size if old.growth is not None else None
    wanted = gangs.gang_spec(job, pool, world.priority, resize=target)
    asked = gang.spec.resize == target
    seen, written = gang.status.observed_generation, gang.metadata.generation
    answered = asked and seen is not None and written is not None and seen >= written
    if target is not None and not answered:
        status = follow(world, _findings(world, attempt, f"asks for {target} blades", done=False))
        return Plan(status, gang=None if asked else wanted, after=_ANSWER_S)
    size = len(gang.status.placement.seats) if gang.status.placement is not None else 0
    text = f"goes on with {size} blades"
    # What was refused is not asked for again at once.
    refused = (
        Growth(size=target, since=clock.micro(world.now)) if target not in {None, size} else None
    )
    found = replace(_findings(world, attempt + 1, text, done=True), growth=refused)
    status = follow(world, found)
    return Plan(
        status,
        record_first=True,
        gang=gangs.gang_spec(job, pool, world.priority),
        events=(Said("Normal", "Resized", f"attempt {attempt + 1} {text}"),),
        after=0.0,
    )


def _findings(world: World, attempt: int, message: str, *, done: bool) -> Findings:
    old = world.job.status
    return Findings(
        phase=JobPhase.STARTING if done else JobPhase.CHECKPOINTING,
        message=message,
        size=old.size or world.job.spec.nodes,
        attempt=attempt,
        incidents=old.incidents,
        placed=True,
        handshake=None if done else old.handshake,
        growth=old.growth,
    )
