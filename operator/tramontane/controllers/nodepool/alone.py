"""Find the blade that waits for others to be tested with, and none comes. Pure.

Two that wait are a group. One alone needs a Healthy blade that nobody uses, and in a full hall
there may be none for weeks; so after a while people are told.
"""

from collections.abc import Iterable
from dataclasses import replace

from tramontane.controllers.nodepool.around import UNTESTED
from tramontane.controllers.nodepool.groups import Candidate, Round

_LONG_S = 600.0


def tell(played: Round, candidates: Iterable[Candidate], now: float) -> Round:
    """Return the round with what people and the blade itself must know of that."""
    if played.start or any(one.group for one in played.blades.values()):
        return played
    alone = [
        one.name
        for one in candidates
        if one.waits and not one.failed and now - one.since > _LONG_S
        # Who waits for anything else was told so.
        if played.blades.get(one.name) == UNTESTED
    ]
    why = "another blade to test with, and every other one works or is out; free one, or run"
    told = {
        name: replace(UNTESTED, waits_for=f"{why} `tramontane release {name} --skip-burn-in`")
        for name in alone
    }
    trouble = (f"collective: {name} waits for {one.waits_for}" for name, one in told.items())
    return replace(played, blades={**played.blades, **told}, trouble=(*played.trouble, *trouble))
