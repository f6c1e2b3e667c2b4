"""Write down an outcome as a Gang's status: the body of one server-side apply.

The scheduler owns the whole status, so the body always carries all of it. The same outcome gives
the same bytes, and with them no new resourceVersion.
"""

from enum import IntEnum
from typing import Any, Final

from tramontane.api import clock
from tramontane.api.names import API_VERSION
from tramontane.scheduler.gangs import INACTIVE, Estimate, GangRecord
from tramontane.scheduler.outcome import Outcome

MOST_MESSAGE: Final = 4096
# An estimate that moves less than this, or by a smaller part of the whole wait, is not news.
SAME_S: Final = 60.0
SAME_SHARE: Final = 0.1


class Change(IntEnum):
    """Say how much a status differs from an outcome.

    | what differs | change |
    |---|---|
    | nothing                                            | NONE |
    | message, position, estimate, advised size, generation     | WORDS: may wait a little |
    | phase, placement, epoch, reason, Ready, order to give way | FACTS: somebody waits for it |
    """

    NONE = 0
    WORDS = 1
    FACTS = 2


def change(gang: GangRecord, outcome: Outcome) -> Change:
    """Return how much the gang's present status differs from the outcome."""
    told = gang.told
    facts_now = (told.phase, told.epoch, gang.placement, told.reason, told.ready, told.order)
    facts = (
        outcome.phase,
        outcome.epoch,
        outcome.placement,
        outcome.reason,
        outcome.ready,
        outcome.order,
    )
    if facts_now != facts:
        return Change.FACTS
    words_now = (told.message, told.position, told.observed, told.advised_size)
    message = outcome.message[:MOST_MESSAGE]
    words = (message, outcome.position, _observed(gang, outcome), outcome.advised_size)
    same = words_now == words and not _moved(gang, told.estimate, outcome.estimate)
    return Change.NONE if same else Change.WORDS


def _observed(gang: GangRecord, outcome: Outcome) -> int:
    return gang.generation if outcome.observed is None else outcome.observed


def _moved(gang: GangRecord, old: Estimate | None, new: Estimate | None) -> bool:
    """Return whether a new estimate says something else than the old one."""
    if old is None or new is None:
        return old is not new
    bound = max(SAME_S, SAME_SHARE * (new.p90_s - gang.created_s))
    return abs(new.p50_s - old.p50_s) > bound or abs(new.p90_s - old.p90_s) > bound


def render(gang: GangRecord, outcome: Outcome, now_s: float) -> dict[str, Any]:
    """Return the body of the apply. Its uid keeps it from a later gang of the same name."""
    namespace, name = gang.key.split("/", 1)
    message = outcome.message[:MOST_MESSAGE]
    status: dict[str, Any] = {
        "observedGeneration": _observed(gang, outcome),
        "phase": outcome.phase,
        "epoch": outcome.epoch,
        "conditions": [
            {
                "type": "Ready",
                "status": "True" if outcome.ready else "False",
                "reason": str(outcome.reason or outcome.phase),
                "message": message,
                "lastTransitionTime": clock.utc(ready_since_s(gang, outcome, now_s)),
                "observedGeneration": _observed(gang, outcome),
            }
        ],
    }
    if outcome.placement is not None:
        seats = outcome.placement.seats
        status["placement"] = {
            "size": max(1, gang.size_of(len(seats))),
            "seats": list(seats),
            "spares": list(outcome.placement.spares),
        }
    if outcome.placed_s is not None:
        status["placedAt"] = clock.utc(outcome.placed_s)
    if outcome.advised_size:
        status["advisedSize"] = outcome.advised_size
    if outcome.order is not None:
        status["preempt"] = {
            "by": outcome.order.by,
            "deadline": clock.utc(outcome.order.deadline_s),
            "reason": outcome.order.reason,
        }
    if outcome.estimate is not None:
        status["estimatedStart"] = {
            "p50": clock.utc(outcome.estimate.p50_s),
            "p90": clock.utc(outcome.estimate.p90_s),
        }
    if outcome.reason:
        status["reason"] = str(outcome.reason)
    if message:
        status["message"] = message
    if outcome.position:
        status["position"] = outcome.position
    return {
        "apiVersion": API_VERSION,
        "kind": "Gang",
        "metadata": {"name": name, "namespace": namespace, "uid": gang.uid},
        "status": status,
    }


def ready_since_s(gang: GangRecord, outcome: Outcome, now_s: float) -> float:
    """Return the transition time: now where Ready flips, and where a gang begins to wait again."""
    told = gang.told
    begins = told.phase == INACTIVE and outcome.phase != INACTIVE
    same = told.ready is outcome.ready and not begins
    return told.ready_since_s if same and told.ready_since_s is not None else now_s
