"""Say which replicas get requests now, so that each revision gets the part that it is to get.

Pure. A Service gives all pods behind it the same part, so a revision's part is first of all that
of its replicas by number: one canary of four replicas gets 25 %, however little it should. What is
too much is taken away by time: the replica too many is in rotation for a part of each cycle only.

| by number, a revision's replicas would get | in rotation |
|---|---|
| no requests are asked for it | none of them |
| what is asked, or at most 2 points more | all of them |
| more | as many as get less than asked, and one more for a part of each cycle |
| no other revision has a replica that serves | all of them, whatever is asked |

The cycle is 20 s, and longer where a part of it would otherwise be shorter than 2 s: it takes about
a second until every node knows of a change. Connections that stay open keep their replica.
"""

from collections.abc import Mapping, Sequence
from typing import Final

CYCLE_S: Final = 20.0
TOLERANCE: Final = 0.02
# The shortest time in or out of rotation; label, endpoint slice and every node's rules come after.
LEAST_PHASE_S: Final = 2.0
# A smaller part of a cycle is not worth a change of labels: it is less than a point.
_NOTHING: Final = 0.015


def in_rotation(
    now: float, weights: Mapping[str, int], serving: Mapping[str, Sequence[str]]
) -> tuple[frozenset[str], float | None]:
    """Return the replicas that get requests now, and after how many seconds that may change.

    Some replica is among them wherever one serves. The answer depends on `now` alone, not on when
    it was asked for before: two askers agree, and so does one that has just started.

    Args:
        now: Unix seconds.
        weights: percent of the requests by revision.
        serving: names of the replicas that serve, by revision.
    """
    able = {key: sorted(names) for key, names in serving.items() if names}
    asked = {key: weights.get(key, 0) for key in able if weights.get(key, 0) > 0}
    if not asked:
        # Nothing that is to get requests serves: better another revision than none.
        return frozenset(name for names in able.values() for name in names), None
    total, weight = sum(len(able[key]) for key in asked), sum(asked.values())
    chosen: set[str] = set()
    after: float | None = None
    for key, percent in asked.items():
        names, share = able[key], percent / weight
        if len(names) / total <= share + TOLERANCE:
            chosen.update(names)
            continue
        count, next_s = _cycled(now, len(names), total - len(names), share)
        chosen.update(names[:count])
        after = next_s if after is None or next_s is None else min(after, next_s)
    return frozenset(chosen), after


def _cycled(now: float, have: int, others: int, share: float) -> tuple[int, float | None]:
    """Return how many of `have` replicas beside `others` are in rotation now, and until when."""
    # The largest number that gets no more than its share, and the part of each cycle with one more.
    always = min(int(share * others / (1 - share) + 1e-9), have)
    low, high = always / (always + others), (always + 1) / (always + 1 + others)
    part = (share - low) / (high - low)
    if part < _NOTHING or always == have:
        return always, None
    if part > 1 - _NOTHING:
        return always + 1, None
    cycle_s = max(CYCLE_S, LEAST_PHASE_S / min(part, 1 - part))
    at_s = now % cycle_s
    if at_s < part * cycle_s:
        return always + 1, part * cycle_s - at_s
    return always, cycle_s - at_s
