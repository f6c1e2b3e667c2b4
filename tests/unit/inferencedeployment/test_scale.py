"""How many replicas the load calls for."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tramontane.api.inferencedeployment import Autoscaling, Capacity, Slo
from tramontane.controllers.inferencedeployment.load import Load, Peak
from tramontane.controllers.inferencedeployment.scale import Scaled, scale
from unit.inferencedeployment.loads import NOW, a_load, alike

SLO = Slo(ttft_p95="1s")
LONG_AGO = NOW - 10_000


@dataclass(frozen=True)
class Ask:
    least: int = 1
    most: int | None = 8
    current: int = 2
    serving: int | None = None
    scaled_at: float | None = LONG_AGO
    blocked: bool = False
    demand_at: float = 0.0
    idle_to_zero: str = "0s"
    slo: Slo | None = SLO
    now: float = NOW

    def answer(self, *loads: Load) -> Scaled:
        return scale(
            self.now,
            Capacity(
                context_tokens=4096,
                concurrent_requests=32,
                min_replicas=self.least,
                max_replicas=self.most,
            ),
            Autoscaling(idle_to_zero_after=self.idle_to_zero),
            self.current,
            self.scaled_at,
            loads,
            len(loads) if self.serving is None else self.serving,
            self.blocked,
            self.demand_at,
            self.slo,
        )


def busy(**fields: Any) -> Load:
    """Return a load that neither calls for more replicas nor would do with fewer."""
    return a_load(**{"kv_use": 0.7, **fields})


def calm(minutes: int = 15, **fields: Any) -> Load:
    """Return a load that one replica fewer would do with, and has been so for long."""
    peaks = tuple(Peak(NOW - 60 * minute, 4.0, 0.0, 0.3) for minute in range(minutes, -1, -1))
    return a_load(**{"kv_use": 0.2, "peaks": peaks, **fields})


SLOW = alike(1.4, 100)


@pytest.mark.parametrize(
    ("ask", "loads", "wanted", "why"),
    [
        # bounds
        pytest.param(Ask(least=3), [busy(waiting=99)] * 2, 3, "minReplicas is 3", id="below"),
        pytest.param(Ask(current=9), [busy()] * 9, 8, "maxReplicas is 8", id="above"),
        pytest.param(Ask(most=None), [busy()] * 2, 1, "maxReplicas is 1", id="no maxReplicas"),
        pytest.param(Ask(least=3, most=None, current=3), [busy(waiting=99)] * 3, 3,
                     "maxReplicas is 3", id="maxReplicas is minReplicas"),
        # blind
        pytest.param(Ask(), [], 2, "no replica serves", id="none serves"),
        pytest.param(Ask(), [busy(waiting=99), busy(at=NOW - 31)], 2, "held", id="one is stale"),
        pytest.param(Ask(serving=3), [busy(waiting=99)] * 2, 2, "1 of 3", id="one says nothing"),
        pytest.param(Ask(), [busy(waiting=9), busy(waiting=9, at=NOW - 30)], 4, "queue",
                     id="half a minute is fresh"),
        # up
        pytest.param(Ask(), [busy(waiting=4)] * 2, 2, "", id="a queue as large as the target"),
        pytest.param(Ask(), [busy(waiting=4), busy(waiting=5)], 3, "queue 4.5 per replica",
                     id="a larger one"),
        pytest.param(Ask(), [busy(waiting=40)] * 2, 4, "queue", id="at most twice as many"),
        pytest.param(Ask(current=5), [busy(waiting=40)] * 5, 8, "maxReplicas is 8",
                     id="at most maxReplicas"),
        pytest.param(Ask(current=4), [busy(waiting=40)] * 2, 4, "",
                     id="what still loads is not asked for again"),
        pytest.param(Ask(current=4), [busy(waiting=40)] * 3, 6, "queue", id="more than loads"),
        pytest.param(Ask(), [busy(kv_use=0.9)] * 2, 2, "", id="KV use at its limit"),
        pytest.param(Ask(), [busy(kv_use=0.98)] * 2, 3, "KV use 0.98", id="beyond"),
        pytest.param(Ask(), [busy(kv_use=None, waiting=3)] * 2, 2, "", id="no KV cache"),
        pytest.param(Ask(), [busy(ttft=SLOW), busy()], 3, "TTFT p95 2.42 s (SLO 1 s)", id="late"),
        pytest.param(Ask(slo=None), [busy(ttft=SLOW)] * 2, 2, "", id="no goal"),
        pytest.param(Ask(slo=Slo(itl_p95="1ms")), [busy(ttft=SLOW)] * 2, 2, "", id="another goal"),
        pytest.param(Ask(), [busy(ttft=alike(1.4, 19)), busy()], 2, "", id="late, but few"),
        pytest.param(Ask(current=3), [busy(ttft=SLOW)] * 2, 3, "", id="late, but one loads"),
        pytest.param(Ask(), [busy(ttft=SLOW), busy(window_s=30)], 2, "", id="late, but one is new"),
        pytest.param(Ask(blocked=True), [busy(waiting=9)] * 2, 2, "waits for capacity",
                     id="no capacity"),
        # down
        pytest.param(Ask(), [calm()] * 2, 1, "8 running and KV use 0.60 with 1", id="one fewer"),
        pytest.param(Ask(current=8), [calm()] * 8, 7, "", id="one at a time"),
        pytest.param(Ask(least=2), [calm()] * 2, 2, "", id="no fewer than minReplicas"),
        pytest.param(Ask(least=0, current=1), [calm()], 1, "", id="the last one stays"),
        pytest.param(Ask(blocked=True, current=3), [calm()] * 2, 2, "", id="who waits is spared"),
        pytest.param(Ask(), [calm(minutes=5), calm()], 2, "would do", id="one is known for less"),
        pytest.param(Ask(scaled_at=NOW - 599), [calm()] * 2, 2, "would do", id="changed lately"),
        pytest.param(Ask(scaled_at=NOW - 600), [calm()] * 2, 1, "", id="changed long ago"),
        pytest.param(Ask(), [calm(peaks=(Peak(NOW - 900), Peak(NOW - 300, waiting=3.0))), calm()],
                     2, "a queue of 3", id="a peak within scaleDownAfter"),
        pytest.param(Ask(), [calm(peaks=(Peak(NOW - 900, waiting=3.0), Peak(NOW - 60))), calm()],
                     1, "", id="a peak before"),
        pytest.param(Ask(), [busy(kv_use=0.4)] * 2, 2, "KV use 0.80", id="its cache would be full"),
        pytest.param(Ask(current=3), [busy(kv_use=0.4)] * 3, 2, "", id="three's would not"),
        pytest.param(Ask(), [busy(kv_use=0.1, running=14)] * 2, 2, "28 running", id="its slots"),
        pytest.param(Ask(), [busy(kv_use=0.1, running=40)] * 2, 1, "",
                     id="more run than it was sized for: the cache tells"),
        pytest.param(Ask(current=3), [calm(ttft=SLOW)] * 2, 3, "TTFT", id="late, and one loads"),
    ],
)  # fmt: skip
def test_the_truth_table(ask: Ask, loads: list[Load], wanted: int, why: str) -> None:
    answer = ask.answer(*loads)
    assert answer.wanted == wanted
    assert why in answer.why
    assert answer.why


ZERO = Ask(least=0, current=1, idle_to_zero="5m")


@pytest.mark.parametrize(
    ("ask", "idle_s", "wanted", "after"),
    [
        pytest.param(ZERO, [300.0], 0, None, id="idle for long enough"),
        pytest.param(ZERO, [299.0], 1, 1.0, id="not yet"),
        pytest.param(ZERO, [None], 1, None, id="not idle"),
        pytest.param(replace(ZERO, current=2), [400.0, 300.0], 0, None, id="both"),
        pytest.param(replace(ZERO, current=2), [400.0, None], 2, None, id="one of two"),
        pytest.param(replace(ZERO, idle_to_zero="0s"), [9e9], 1, None, id="never"),
        pytest.param(replace(ZERO, demand_at=NOW - 100), [400.0], 1, 200.0, id="a request came"),
        pytest.param(replace(ZERO, scaled_at=NOW - 100), [400.0], 1, 200.0, id="it has just come"),
        pytest.param(replace(ZERO, least=1), [300.0], 0, None, id="below minReplicas, as asked"),
    ],
)
def test_to_zero(ask: Ask, idle_s: list[float | None], wanted: int, after: float | None) -> None:
    loads = [busy(idle_since=one if one is None else NOW - one) for one in idle_s]
    answer = ask.answer(*loads)
    assert (answer.wanted, answer.after) == (wanted, after)


@pytest.mark.parametrize(
    ("ask", "wanted"),
    [
        pytest.param(Ask(least=0), 0, id="nobody asks"),
        pytest.param(Ask(least=0, demand_at=LONG_AGO), 0, id="somebody asked before"),
        pytest.param(Ask(least=0, demand_at=NOW), 1, id="somebody asks"),
        pytest.param(Ask(least=2, demand_at=NOW, idle_to_zero="5m"), 2, id="as many as always"),
        pytest.param(Ask(least=2, idle_to_zero="5m"), 0, id="it was idle"),
        pytest.param(Ask(least=2, idle_to_zero="5m", scaled_at=None), 2, id="it never served"),
        pytest.param(Ask(least=2), 2, id="it may not be idle any more"),
    ],
)
def test_from_zero(ask: Ask, wanted: int) -> None:
    assert replace(ask, current=0).answer().wanted == wanted


def test_it_says_when_to_look_again() -> None:
    assert Ask(scaled_at=NOW - 560).answer(calm(), calm()).after == 40.0
    assert Ask().answer(calm(minutes=8), calm()).after == 120.0


@given(
    current=st.integers(0, 9),
    serving=st.integers(0, 9),
    load=st.tuples(st.floats(0, 500), st.floats(0, 1)),
    bounds=st.tuples(st.integers(0, 8), st.integers(1, 8)).filter(lambda both: both[0] <= both[1]),
    blocked=st.booleans(),
)
def test_the_bounds_hold_and_steps_are_small(
    current: int,
    serving: int,
    load: tuple[float, float],
    bounds: tuple[int, int],
    blocked: bool,
) -> None:
    ask = Ask(least=bounds[0], most=bounds[1], current=current, blocked=blocked)
    loads = [busy(waiting=load[0], kv_use=load[1])] * min(serving, current)
    wanted = ask.answer(*loads).wanted
    assert bounds[0] <= wanted <= bounds[1]
    if bounds[0] <= current <= bounds[1]:
        assert current - 1 <= wanted <= max(current, 2 * serving)
        assert not blocked or wanted <= current
