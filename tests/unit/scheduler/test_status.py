"""An outcome is written as one server-side apply; the same outcome is not written twice."""

from dataclasses import replace

import pytest

from tramontane.api import clock
from tramontane.api.gang import Gang
from tramontane.api.reasons import PendingReason
from tramontane.scheduler.engine import Outcome
from tramontane.scheduler.gangs import Ask, Placement, Slot, Told, decode_gang
from tramontane.scheduler.status import Change, change, render
from unit.scheduler.builders import NOW, WHOLE, after, gang

PLACED = Outcome("Placed", 1, Placement(("a", "b", "c"), ("d",)), ready=True)
WAITS = Outcome(
    "Pending",
    0,
    None,
    ready=False,
    reason=PendingReason.WAITING_FOR_CAPACITY,
    message="needs 3",
    position=2,
)
RECORD = gang("ml/llama", slots=(Slot("a", 2, Ask(WHOLE)), Slot("b", 1, Ask(WHOLE))), generation=4)


@pytest.mark.parametrize("outcome", [PLACED, WAITS], ids=["placed", "pending"])
def test_what_is_written_reads_the_same(outcome: Outcome) -> None:
    body = render(RECORD, outcome, NOW)
    assert (body["metadata"]["name"], body["metadata"]["namespace"]) == ("llama", "ml")
    spec = {"pool": "p", "slots": [{"name": "a", "count": 2}, {"name": "b", "count": 1}]}
    raw = {**body, "spec": spec, "metadata": {**body["metadata"], "generation": 4}}
    read = decode_gang(raw)
    assert change(read, outcome) is Change.NONE
    parsed = Gang.model_validate(raw)
    assert parsed.status.observed_generation == 4
    assert parsed.status.conditions[0].reason == (outcome.reason or "Placed")
    if parsed.status.placement:
        assert parsed.status.placement.size == 2


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        pytest.param(WAITS, Change.NONE, id="the-same"),
        pytest.param(replace(WAITS, message="needs 2"), Change.WORDS, id="numbers"),
        pytest.param(replace(WAITS, position=1), Change.WORDS, id="position"),
        pytest.param(
            replace(WAITS, reason=PendingReason.HEALTH_HOLD), Change.FACTS, id="another-reason"
        ),
        pytest.param(PLACED, Change.FACTS, id="placed"),
    ],
)
def test_how_much_differs(outcome: Outcome, expected: Change) -> None:
    assert change(after(RECORD, WAITS), outcome) is expected


def test_a_new_generation_is_words() -> None:
    assert change(replace(after(RECORD, WAITS), generation=5), WAITS) is Change.WORDS


@pytest.mark.parametrize(
    ("told", "since"),
    [
        pytest.param(Told("Pending", ready=False, ready_since_s=NOW - 9), NOW - 9, id="the-same"),
        pytest.param(Told("Placed", ready=True, ready_since_s=NOW - 9), NOW, id="flips"),
        pytest.param(Told(), NOW, id="first"),
        pytest.param(
            Told("Inactive", ready=False, ready_since_s=NOW - 9), NOW, id="begins-to-wait-again"
        ),
    ],
)
def test_the_transition_time_is_when_the_waiting_began(told: Told, since: float) -> None:
    written = render(replace(RECORD, told=told), WAITS, NOW)["status"]["conditions"][0]
    assert written["lastTransitionTime"] == clock.utc(since)
