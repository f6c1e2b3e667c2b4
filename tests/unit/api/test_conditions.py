"""A condition's time says when its status flipped, and nothing else moves it."""

import pytest

from tramontane.api.conditions import Condition, condition, find, holds, set_conditions

T0, T1 = "2026-11-24T15:00:00Z", "2026-11-24T16:00:00Z"


def _old(holds_: bool | None) -> tuple[Condition, ...]:
    return set_conditions((), [condition("Ready", holds_, "Old")], T0)


@pytest.mark.parametrize(
    ("old", "new", "at"),
    [
        pytest.param((), True, T1, id="first"),
        pytest.param(_old(True), True, T0, id="the-same"),
        pytest.param(_old(False), True, T1, id="flipped"),
        pytest.param(_old(None), False, T1, id="known-now"),
        pytest.param(_old(True), None, T1, id="unknown-now"),
        pytest.param((condition("Ready", True, "Old"),), True, T1, id="had-no-time"),
    ],
)
def test_transition_time(old: tuple[Condition, ...], new: bool | None, at: str) -> None:
    (got,) = set_conditions(old, [condition("Ready", new, "New", "now", 3)], T1)
    assert got.last_transition_time == at
    assert (got.reason, got.message, got.observed_generation) == ("New", "now", 3)


def test_sorted_by_type_and_the_same_twice() -> None:
    new = [condition("Stalled", False, "No"), condition("Ready", True, "Yes")]
    first = set_conditions((), new, T0)
    assert [c.type for c in first] == ["Ready", "Stalled"]
    assert set_conditions(first, list(reversed(new)), T1) == first


def test_what_is_not_said_again_is_gone() -> None:
    both = set_conditions((), [condition("Ready", True, "A"), condition("Failed", True, "B")], T0)
    assert [c.type for c in set_conditions(both, [condition("Ready", True, "A")], T1)] == ["Ready"]


def test_find_and_holds() -> None:
    conditions = (condition("Ready", True, "A"), condition("Stalled", None, "B"))
    assert find(conditions, "Ready") is conditions[0]
    assert find(conditions, "Failed") is None
    assert holds(conditions, "Ready")
    assert not holds(conditions, "Stalled")
    assert not holds(conditions, "Failed")


def test_no_nulls_reach_the_api() -> None:
    assert condition("Ready", None, "A").to_dict() == {
        "type": "Ready",
        "status": "Unknown",
        "reason": "A",
        "message": "",
    }
