"""Who gets requests: by number, and by time where a number is too coarse."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tramontane.controllers.inferencedeployment.rotation import CYCLE_S, LEAST_PHASE_S, in_rotation
from unit.inferencedeployment.loads import NOW


def names(revision: str, count: int) -> Sequence[str]:
    return [f"{revision}{number}" for number in range(count)]


def shares(
    weights: dict[str, int], serving: dict[str, Sequence[str]], cycles: int = 10
) -> dict[str, float]:
    """Return what part of the requests each revision gets over time."""
    found = dict.fromkeys(serving, 0.0)
    step_s, total_s = 0.2, cycles * CYCLE_S
    steps = round(total_s / step_s)
    for step in range(steps):
        chosen, _ = in_rotation(NOW + (step + 0.5) * step_s, weights, serving)
        for revision, members in serving.items():
            found[revision] += len(chosen & set(members)) / len(chosen) / steps
    return found


@pytest.mark.parametrize(
    ("weights", "counts", "at_s", "chosen", "after"),
    [
        pytest.param({"a": 100}, (2, 0), 0.0, "a0 a1", None, id="one revision"),
        pytest.param({"a": 100}, (2, 1), 0.0, "a0 a1", None, id="no weight, no requests"),
        pytest.param({"a": 75, "b": 25}, (3, 1), 0.0, "a0 a1 a2 b0", None, id="by number"),
        pytest.param({"a": 77, "b": 23}, (3, 1), 0.0, "a0 a1 a2 b0", None, id="two points"),
        pytest.param({"a": 78, "b": 22}, (3, 1), 0.0, "a0 a1 a2 b0", 17.6, id="three points: in"),
        pytest.param({"a": 78, "b": 22}, (3, 1), 17.7, "a0 a1 a2", 2.3, id="three points: out"),
        pytest.param({"a": 95, "b": 5}, (1, 1), 0.0, "a0 b0", 2.0, id="one of two at 5: in"),
        pytest.param({"a": 95, "b": 5}, (1, 1), 2.1, "a0", 17.9, id="one of two at 5: out"),
        pytest.param({"a": 99, "b": 1}, (1, 1), 2.1, "a0", 97.9, id="a longer cycle"),
        pytest.param({"a": 50, "b": 50}, (2, 1), 0.0, "a0 b0", None, id="the old are too many"),
        pytest.param({"a": 95, "b": 5}, (0, 1), 7.0, "b0", None, id="no other serves"),
        pytest.param({"a": 95, "b": 5}, (2, 0), 7.0, "a0 a1", None, id="it does not serve"),
        pytest.param({"a": 100, "b": 0}, (0, 2), 7.0, "b0 b1", None, id="better than none"),
        pytest.param({"a": 95, "b": 5}, (0, 0), 7.0, "", None, id="nobody serves"),
        pytest.param({}, (1, 0), 7.0, "a0", None, id="nothing is asked"),
    ],
)
def test_the_truth_table(
    weights: dict[str, int], counts: tuple[int, int], at_s: float, chosen: str, after: float | None
) -> None:
    serving = {"a": names("a", counts[0]), "b": names("b", counts[1])}
    begin = NOW - NOW % 100.0  # a multiple of the cycles above
    found, again = in_rotation(begin + at_s, weights, serving)
    assert found == frozenset(chosen.split())
    assert again == (after if after is None else pytest.approx(after, abs=1e-3))


@pytest.mark.parametrize(
    ("weight", "old", "new"),
    [
        (5, 1, 1), (1, 1, 1), (5, 2, 1), (20, 3, 1), (50, 2, 1), (50, 1, 1), (10, 4, 2),
        (30, 7, 5), (99, 1, 1), (60, 1, 4), (33, 1, 1),
    ],
)  # fmt: skip
def test_over_time_each_gets_its_part(weight: int, old: int, new: int) -> None:
    serving = {"a": names("a", old), "b": names("b", new)}
    found = shares({"a": 100 - weight, "b": weight}, serving)
    assert found["b"] == pytest.approx(weight / 100, abs=0.021)


@given(
    now=st.floats(0, 4e9),
    weight=st.integers(0, 100),
    counts=st.tuples(st.integers(0, 6), st.integers(0, 6)),
)
def test_some_replica_gets_requests_and_the_answer_holds_until_the_next_look(
    now: float, weight: int, counts: tuple[int, int]
) -> None:
    weights = {"a": 100 - weight, "b": weight}
    serving = {"a": names("a", counts[0]), "b": names("b", counts[1])}
    chosen, after = in_rotation(now, weights, serving)
    assert bool(chosen) == any(counts)
    assert chosen <= {*serving["a"], *serving["b"]}
    if after is not None:
        assert 0 < after <= 70 * LEAST_PHASE_S
        assert after < 0.001 or in_rotation(now + 0.99 * after, weights, serving)[0] == chosen
