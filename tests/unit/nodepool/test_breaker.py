"""The breaker: when it opens, that only a person closes it, and what a restart remembers."""

import itertools
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tramontane.api.blade import BladeStatus
from tramontane.api.clock import micro, parse, utc
from tramontane.api.names import ANNOTATION_BREAKER_CLOSED
from tramontane.api.nodepool import BreakerState, BreakerStatus, NodePool
from tramontane.controllers.nodepool import breaker
from tramontane.controllers.nodepool.breaker import Rule, Window

NOW = 1_800_000_000.0
RULE = Rule("30%", 300.0)
CLOSED = BreakerStatus(state=BreakerState.CLOSED)


def opened(at: float) -> BreakerStatus:
    return BreakerStatus(state=BreakerState.OPEN, since=utc(at), reason="what opened it")


def closed(at: float) -> BreakerStatus:
    return BreakerStatus(state=BreakerState.CLOSED, since=utc(at))


@pytest.mark.parametrize(
    ("threshold", "total", "expected"),
    [
        pytest.param("30%", 100, 30, id="percentage"),
        pytest.param("30%", 11, 3, id="rounded down"),
        pytest.param("30%", 4, 2, id="at least two"),
        pytest.param("30%", 1, 2, id="one blade is no pool"),
        pytest.param("0%", 100, 2, id="no percentage is less"),
        pytest.param(5, 100, 5, id="number"),
        pytest.param("5", 100, 5, id="number as text"),
        pytest.param(1, 100, 1, id="a number as it stands"),
        pytest.param(0, 100, 0, id="nothing goes out"),
        pytest.param(500, 100, 500, id="more than there are: never"),
    ],
)
def test_limit(threshold: int | str, total: int, expected: int) -> None:
    assert Rule(threshold, 300).limit(total) == expected


def test_reads_the_pool() -> None:
    spec: dict[str, Any] = {"nodeSelector": {}, "gpu": {"count": 8}}
    assert breaker.read(NodePool.model_validate({"spec": spec})) == Rule("30%", 300)
    spec["remediation"] = {"breaker": {"threshold": 4, "window": "10m"}}
    assert breaker.read(NodePool.model_validate({"spec": spec})) == Rule(4, 600)


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        pytest.param({}, None, id="none"),
        pytest.param({ANNOTATION_BREAKER_CLOSED: "yes please"}, None, id="no time"),
        pytest.param({ANNOTATION_BREAKER_CLOSED: micro(NOW + 0.5)}, NOW + 0.5, id="a time"),
    ],
)
def test_reads_a_persons_word(annotations: dict[str, str], expected: float | None) -> None:
    assert breaker.closed_at(annotations) == expected


# total 10: three calls within 300 s open it.
@pytest.mark.parametrize(
    ("old", "ago", "word_ago", "expected"),
    [
        pytest.param(None, [], None, CLOSED, id="nothing"),
        pytest.param(None, [20, 10], None, CLOSED, id="below"),
        pytest.param(None, [30, 20, 10], None, ("Open", NOW - 10), id="reached"),
        pytest.param(CLOSED, [10, 30, 20], None, ("Open", NOW - 10), id="in any order"),
        pytest.param(None, [310, 20, 10], None, CLOSED, id="the window slides"),
        pytest.param(None, [299, 20, 0], None, ("Open", NOW), id="just within"),
        pytest.param(None, [300, 20, 0], None, CLOSED, id="just not"),
        pytest.param(None, [900, 890, 880], None, ("Open", NOW - 880), id="nobody wrote it down"),
        pytest.param(None, [9000, 8990, 8980], None, CLOSED, id="too long ago"),
        pytest.param(
            None, [50, 40, 30, 20, 10], None, ("Open", NOW - 30), id="since the one that opened it"
        ),
        pytest.param(opened(NOW - 9e6), [], None, opened(NOW - 9e6), id="time never closes it"),
        pytest.param(opened(NOW - 60), [], 70, opened(NOW - 60), id="an older word does not"),
        pytest.param(opened(NOW - 60), [], 60, opened(NOW - 60), id="nor one of the same moment"),
        pytest.param(
            opened(NOW - 60), [90, 80, 60], 50, closed(NOW - 50), id="a later word closes it"
        ),
        pytest.param(
            opened(NOW - 60), [90, 80, 40, 30], 50, closed(NOW - 50), id="what was before is past"
        ),
        pytest.param(
            opened(NOW - 60), [90, 40, 30, 20], 50, ("Open", NOW - 20), id="and opens it again"
        ),
        pytest.param(
            closed(NOW - 50), [90, 80, 70], None, closed(NOW - 50), id="closed stays closed"
        ),
        pytest.param(
            closed(NOW - 50), [40, 30, 20], 50, ("Open", NOW - 20), id="a word counts once"
        ),
        pytest.param(closed(NOW - 50), [40, 20], 30, closed(NOW - 50), id="said while closed"),
        pytest.param(
            closed(NOW - 50), [40, 20, 10], 30, closed(NOW - 50), id="said while closed, counts"
        ),
        pytest.param(opened(NOW - 60), [], -600, closed(NOW), id="a word from the future is now's"),
        pytest.param(
            closed(NOW - 50), [30, 20, 10], -600, ("Open", NOW + 600), id="and does not close twice"
        ),
    ],
)
def test_decides(
    old: BreakerStatus | None,
    ago: list[float],
    word_ago: float | None,
    expected: BreakerStatus | tuple[str, float],
) -> None:
    word = None if word_ago is None else NOW - word_ago
    found = breaker.decide(old, [NOW - one for one in ago], 10, RULE, NOW, closed_at=word)
    if isinstance(expected, tuple):
        reason = "3 of 10 blades failed within 5m (threshold 30%)"
        expected = BreakerStatus(
            state=BreakerState(expected[0]), since=utc(expected[1]), reason=reason
        )
    assert found == expected
    # The same again, as a controller whose cache lags, or which has just been restarted, would.
    calls = [NOW - one for one in ago]
    assert breaker.decide(found, calls, 10, RULE, NOW + 1, closed_at=word) == found
    assert breaker.decide(old, calls, 10, RULE, NOW, closed_at=word) == found


def test_is_never_closed_by_a_word_of_the_second_before() -> None:
    calls = [NOW + 0.1, NOW + 0.2, NOW + 0.8]
    found = breaker.decide(None, calls, 10, RULE, NOW + 0.9)
    assert found.since == utc(NOW + 1)
    again = breaker.decide(found, calls, 10, RULE, NOW + 1, closed_at=NOW + 0.85)
    assert again.state is BreakerState.OPEN


def incident(**more: Any) -> dict[str, Any]:
    given_ = {"at": utc(NOW), "code": "xid-79", "from": "Healthy", "to": "Quarantined"}
    return given_ | more


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        pytest.param({}, None, id="never"),
        pytest.param({"incidents": [incident()]}, NOW, id="quarantined"),
        pytest.param({"incidents": [incident(outcome="clean for 10m")]}, NOW, id="and back"),
        pytest.param(
            {"incidents": [incident(to="Healthy", severity="Fatal")]}, NOW, id="refused by budget"
        ),
        pytest.param({"incidents": [incident(to="Suspect", severity="Degraded")]}, None, id="mild"),
        pytest.param({"incidents": [incident(code=None)]}, None, id="a person's hold"),
        pytest.param({"incidents": [incident(**{"from": "Qualifying"})]}, None, id="a new blade"),
        pytest.param({"incidents": [incident(**{"from": "Requalifying"})]}, None, id="out already"),
        pytest.param({"incidents": [incident(**{"from": "Quarantined"})]}, None, id="made up anew"),
        pytest.param({"incidents": [incident(at=None)]}, None, id="without a time"),
        pytest.param(
            {"incidents": [incident(at=utc(NOW - 9)), incident(), incident(code=None)]},
            NOW,
            id="the newest that counts",
        ),
        pytest.param(
            {
                "incidents": [incident(at=utc(NOW - 600))],
                "repair": {"action": "Reset", "code": "xid-79", "since": utc(NOW)},
            },
            NOW,
            id="did not heal: out later than it began",
        ),
        pytest.param(
            {
                "incidents": [incident(at=utc(NOW - 600))],
                "repair": {"action": "Reset", "code": "burn-in-failed", "since": utc(NOW)},
            },
            NOW - 600,
            id="another repair",
        ),
    ],
)
def test_what_a_blade_remembers(status: dict[str, Any], expected: float | None) -> None:
    assert breaker.called_at(BladeStatus.model_validate(status)) == expected


# The window at the moment of deciding


def test_grants_up_to_the_threshold_and_no_more() -> None:
    window = Window()
    asked = [window.grants(f"gpu-{n}", NOW + n, 100, RULE) for n in range(60)]
    assert asked == [True] * 30 + [False] * 30
    assert window.is_open
    # Time closes nothing, not even the same blade's way out an hour later.
    assert not window.grants("gpu-0", NOW + 3600, 100, RULE)


def test_the_same_blade_is_one_blade() -> None:
    window = Window()
    assert all(window.grants("gpu-0", NOW + n, 10, RULE) for n in range(50))
    assert not window.is_open
    assert window.grants("gpu-1", NOW + 50, 10, RULE)
    assert window.grants("gpu-2", NOW + 51, 10, RULE)
    assert window.is_open
    assert window.grants("gpu-2", NOW + 52, 10, RULE)
    assert not window.grants("gpu-3", NOW + 52, 10, RULE)


@pytest.mark.parametrize(
    ("every_s", "granted"),
    [
        pytest.param(151, 200, id="two within each window"),
        pytest.param(149, 3, id="three within a window"),
    ],
)
def test_the_window_slides(every_s: float, granted: int) -> None:
    window = Window()
    asked = [window.grants(f"gpu-{n}", NOW + every_s * n, 10, RULE) for n in range(200)]
    assert sum(asked) == granted


def test_what_the_budget_refused_opens_it_too() -> None:
    window = Window()
    assert window.grants("gpu-0", NOW, 10, RULE)
    window.note("gpu-1", NOW + 1, 10, RULE, NOW + 1)
    window.note("gpu-1", NOW + 1, 10, RULE, NOW + 200)
    assert not window.is_open
    window.note("gpu-2", NOW + 2, 10, RULE, NOW + 200)
    assert window.is_open


def test_with_a_threshold_of_none_nothing_goes_out() -> None:
    window = Window()
    assert window.settle(None, 10, Rule(0, 300), NOW) == CLOSED
    assert not window.grants("gpu-0", NOW, 10, Rule(0, 300))
    assert window.settle(None, 10, Rule(0, 300), NOW).state is BreakerState.OPEN


def test_a_person_closes_it_and_it_counts_from_there() -> None:
    window = Window()
    for n in range(4):
        window.grants(f"gpu-{n}", NOW + n, 10, RULE)
    status = window.settle(None, 10, RULE, NOW + 4)
    assert status == BreakerStatus(
        state=BreakerState.OPEN,
        since=utc(NOW + 2),
        reason="3 of 10 blades failed within 5m (threshold 30%)",
    )
    status = window.settle(status, 10, RULE, NOW + 9, closed_at=NOW + 8.5)
    assert (status.state, status.since) == (BreakerState.CLOSED, utc(NOW + 8))
    assert [window.grants(f"gpu-{n}", NOW + n, 10, RULE) for n in (10, 11, 12, 13)] == [
        True,
        True,
        True,
        False,
    ]
    # The cache may still show the first opening: the second is not closed by the same word.
    for old in (status, opened(NOW + 2)):
        found = window.settle(old, 10, RULE, NOW + 14, closed_at=NOW + 8.5)
        assert (found.state, found.since) == (BreakerState.OPEN, utc(NOW + 12))


def test_is_open_from_the_start_where_the_pool_says_so() -> None:
    window = Window()
    assert window.settle(opened(NOW - 900), 10, RULE, NOW) == opened(NOW - 900)
    assert not window.grants("gpu-0", NOW, 10, RULE)


class Operator:
    """As much of a controller as asks the breaker; the API is what outlives it."""

    def __init__(self, total: int, rule: Rule) -> None:
        self.total, self.rule = total, rule
        self.status: BreakerStatus | None = None
        self.record: dict[str, float] = {}
        self.word: float | None = None
        self.window = Window()

    def restart(self, now: float) -> None:
        self.window = Window()
        for blade, at in self.record.items():
            self.window.note(blade, at, self.total, self.rule, now)
        self.settle(now)

    def settle(self, now: float) -> None:
        self.status = self.window.settle(
            self.status, self.total, self.rule, now, closed_at=self.word
        )

    def ask(self, blade: str, now: float) -> bool:
        if self.record.get(blade, 0.0) > now - self.rule.window_s:
            return True  # it is out already: nobody asks again
        granted = self.window.grants(blade, now, self.total, self.rule)
        if granted:
            self.record[blade] = parse(utc(now))
        self.settle(now)
        return granted


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["ask", "ask", "ask", "ask", "restart", "close"]),
        st.integers(0, 39),
        st.integers(1, 90),
    ),
    max_size=60,
)


@given(events=EVENTS, threshold=st.sampled_from([0, 1, 3, "10%", "30%"]))
def test_never_more_than_the_threshold_within_a_window(
    events: list[tuple[str, int, int]], threshold: int | str
) -> None:
    rule, now = Rule(threshold, 120.0), NOW
    operator = Operator(40, rule)
    granted: list[tuple[str, float]] = []
    words = [NOW]
    for what, blade, after_s in events:
        now += after_s
        was_open = operator.status is not None and operator.status.state is BreakerState.OPEN
        if what == "close":
            operator.word = now
            words.append(now)
            operator.settle(now)
        elif what == "restart":
            operator.restart(now)
        elif f"gpu-{blade}" not in operator.record and operator.ask(f"gpu-{blade}", now):
            granted.append((f"gpu-{blade}", now))
        is_open = operator.status is not None and operator.status.state is BreakerState.OPEN
        assert is_open == operator.window.is_open
        assert is_open or not was_open or what == "close"
    for word, until in itertools.pairwise([*words, float("inf")]):
        here = [(name, at) for name, at in granted if word < at < until]
        for _, end in here:
            within = {name for name, at in here if end - 120 < at <= end}
            assert len(within) <= rule.limit(40)


@given(
    events=st.lists(st.tuples(st.integers(0, 39), st.integers(1, 90)), max_size=40),
    at=st.integers(0, 39),
)
def test_a_restart_changes_nothing(events: list[tuple[int, int]], at: int) -> None:
    found = []
    for restarts in (False, True):
        now, operator, answers = NOW, Operator(40, Rule("10%", 120.0)), []
        for index, (blade, after_s) in enumerate(events):
            now += after_s
            if restarts and index == at:
                operator.restart(now)
            answers.append(operator.ask(f"gpu-{blade}", now))
        found.append((answers, operator.status))
    assert found[0] == found[1]


def test_decides_over_12_500_blades_within_10_ms() -> None:
    calls = [NOW - 86_400 + n for n in range(12_500)]
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        breaker.decide(CLOSED, calls, 12_500, RULE, NOW)
        best = min(best, time.perf_counter() - start)
    assert best < 0.01
