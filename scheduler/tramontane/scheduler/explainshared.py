"""Say why seats that share blades and do not all ask for the same have no place.

How much of such a gang a blade holds depends on what else is on it, so there is no number of
blades to name: whether anything would do was tried (`place`), were all empty, or healthy, too.
"""

from tramontane.api.reasons import PendingReason
from tramontane.scheduler import toolarge
from tramontane.scheduler.explain import Refusal, refuse, what_keeps_out
from tramontane.scheduler.fit import Groups, in_words
from tramontane.scheduler.fleet import Pool
from tramontane.scheduler.gangs import GangRecord
from tramontane.scheduler.snapshot import Snapshot


def no_room_to_share(pool: Pool, gang: GangRecord, groups: Groups, *, size: int) -> Refusal:
    """Return why seats that share blades and ask for different things have no place now."""
    return refuse(
        gang,
        PendingReason.WAITING_FOR_CAPACITY,
        f"needs {_shared(gang, groups, size)} (got less in pool {pool.name} now); "
        "it starts when enough is free, or make the gang smaller",
    )


def too_few_to_share(
    snapshot: Snapshot, pool: Pool, gang: GangRecord, groups: Groups, *, size: int, where: str
) -> Refusal:
    """Return why such seats would have no place were all that is healthy now empty.

    `where` is the level of the domain that they would have to leave to start, or empty.
    """
    out = what_keeps_out(snapshot, pool, gang, groups)
    until = toolarge.relaxes(gang, where) if where else ""
    return refuse(
        gang,
        PendingReason.HEALTH_HOLD,
        f"needs {_shared(gang, groups, size)} (got less in pool {pool.name}{out}); "
        f"it cannot start before more blades are back in service{until and f'; or {until}'}, "
        "or make the gang smaller",
    )


def too_large_to_share(
    pool: Pool, gang: GangRecord, groups: Groups, *, size: int, where: str, loose: bool
) -> Refusal:
    """Return why such seats could not start were all of the pool healthy and empty.

    They must lie in one domain of level `where`, if any; `loose`: else they could start.
    """
    inside = f" in one {where}" if where else ""
    text = (
        f"needs {_shared(gang, groups, size)}{inside} "
        f"(got less in pool {pool.name} were all of it healthy and empty)"
    )
    ways = ["use mode Preferred"] if loose else []
    way_out = " or ".join([*ways, "make the gang smaller"])
    if loose and (until := toolarge.relaxes(gang, where)):
        return refuse(
            gang, PendingReason.TOPOLOGY_PLACEMENT_FAILED, f"{text}; {until}; sooner: {way_out}"
        )
    return refuse(gang, PendingReason.EXCEEDS_POOL, f"{text}; waiting does not help: {way_out}")


def _shared(gang: GangRecord, groups: Groups, size: int) -> str:
    """Return in words what seats that share blades ask for."""
    counts = groups.counts(gang.counts(size))
    each = ", ".join(
        f"{count} of {in_words([ask])}" for ask, count in zip(groups.asks, counts, strict=True)
    )
    return f"room for {sum(counts)} pods together: {each}"
