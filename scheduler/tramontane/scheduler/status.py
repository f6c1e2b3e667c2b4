"""Write down an outcome as a Gang's status: the body of one server-side apply.

The scheduler owns the whole status, so the body always carries all of it. The same outcome gives
the same bytes, and with them no new resourceVersion.
"""

from enum import IntEnum
from typing import Any, Final

from tramontane.api import clock
from tramontane.api.names import API_VERSION
from tramontane.scheduler.engine import Outcome
from tramontane.scheduler.gangs import INACTIVE, GangRecord

MOST_MESSAGE: Final = 4096


class Change(IntEnum):
    """Say how much a status differs from an outcome.

    | what differs | change |
    |---|---|
    | nothing                                            | NONE |
    | numbers in words: message, position, generation    | WORDS: may wait a little |
    | phase, placement, epoch, reason, Ready             | FACTS: somebody waits for it |
    """

    NONE = 0
    WORDS = 1
    FACTS = 2


def change(gang: GangRecord, outcome: Outcome) -> Change:
    """Return how much the gang's present status differs from the outcome."""
    told = gang.told
    facts_now = (told.phase, told.epoch, gang.placement, told.reason, told.ready)
    facts = (outcome.phase, outcome.epoch, outcome.placement, outcome.reason, outcome.ready)
    if facts_now != facts:
        return Change.FACTS
    words_now = (told.message, told.position, told.observed)
    words = (outcome.message[:MOST_MESSAGE], outcome.position, gang.generation)
    return Change.NONE if words_now == words else Change.WORDS


def render(gang: GangRecord, outcome: Outcome, now_s: float) -> dict[str, Any]:
    """Return the body of the apply. Its uid keeps it from a later gang of the same name."""
    namespace, name = gang.key.split("/", 1)
    message = outcome.message[:MOST_MESSAGE]
    status: dict[str, Any] = {
        "observedGeneration": gang.generation,
        "phase": outcome.phase,
        "epoch": outcome.epoch,
        "conditions": [
            {
                "type": "Ready",
                "status": "True" if outcome.ready else "False",
                "reason": str(outcome.reason or outcome.phase),
                "message": message,
                "lastTransitionTime": clock.utc(_ready_since_s(gang, outcome, now_s)),
                "observedGeneration": gang.generation,
            }
        ],
    }
    if outcome.placement is not None:
        seats = outcome.placement.seats
        status["placement"] = {
            "size": max(1, len(seats) - sum(slot.count for slot in gang.slots[1:])),
            "seats": list(seats),
            "spares": list(outcome.placement.spares),
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


def _ready_since_s(gang: GangRecord, outcome: Outcome, now_s: float) -> float:
    """Return the transition time: now where Ready flips, and where a gang begins to wait again."""
    told = gang.told
    begins = told.phase == INACTIVE and outcome.phase != INACTIVE
    same = told.ready is outcome.ready and not begins
    return told.ready_since_s if same and told.ready_since_s is not None else now_s
