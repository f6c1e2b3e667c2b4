"""What the serving agent decides, at moments that the tests make up."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tramontane.controllers.inferencedeployment.podfiles.servingrules import (
    KILL,
    LAST_S,
    TERM,
    WAIT,
    AdapterJob,
    Adapters,
    DrainPlan,
    EngineWatch,
    HangWatch,
    Reading,
    SeatZero,
    StartBudget,
)

DAY_S = 24 * 3600


def hung_after(watch: HangWatch, samples: list[tuple[float | None, float]]) -> float | None:
    """Return the second at which the watch first says so, with one sample a second."""
    for second, (steps, busy) in enumerate(samples):
        if watch.seen(second, steps, busy):
            return second
    return None


class TestHangWatch:
    def test_an_idle_server_is_never_hung_in_24_hours(self) -> None:
        assert hung_after(HangWatch(60.0), [(1234.0, 0.0)] * DAY_S) is None

    @pytest.mark.parametrize(
        ("samples", "at"),
        [
            pytest.param([(n, 3.0) for n in range(DAY_S)], None, id="busy and stepping"),
            pytest.param([(n // 59, 3.0) for n in range(DAY_S)], None, id="a step in 59 s"),
            pytest.param([(7.0, 3.0)] * 100, 60, id="busy and frozen"),
            pytest.param([(7.0, 0.0)] * 50 + [(7.0, 1.0)] * 100, 109, id="frozen after idling"),
            pytest.param([(None, 0.0)] * 100, 60, id="no metrics"),
            pytest.param([(7.0, 0.0)] * 10 + [(None, 0.0)] * 100, 69, id="no metrics any more"),
            pytest.param(
                ([(7.0, 1.0)] * 40 + [(None, 0.0)] * 15 + [(8.0, 1.0)]) * 9, None, id="a hole"
            ),
            pytest.param([(None, 0.0), (7.0, 1.0)] * 100, 61, id="frozen, and hard to read"),
            pytest.param([(900.0, 1.0)] * 50 + [(2.0, 1.0)] * 50, None, id="counted anew"),
            pytest.param([(7.0, 0.5)] * 61, 60, id="at the very second"),
            pytest.param([(7.0, 0.5)] * 60, None, id="not a second before"),
        ],
    )
    def test_it_hangs_at(self, samples: list[tuple[float | None, float]], at: float | None) -> None:
        assert hung_after(HangWatch(60.0), samples) == at

    def test_time_in_which_nobody_asked_does_not_count(self) -> None:
        watch = HangWatch(60.0)
        watch.seen(0.0, 7.0, 1.0)
        watch.seen(10.0, 7.0, 1.0)

        assert not watch.seen(900.0, 7.0, 1.0)
        assert watch.still_s(900.0) == 10.0
        seconds = [n for n in range(901, 1000) if watch.seen(float(n), 7.0, 1.0)]
        assert seconds[0] == 950

    def test_zero_stands_for_never(self) -> None:
        assert hung_after(HangWatch(0.0), [(7.0, 3.0)] * 10_000) is None

    @given(
        st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0.0, 1.0])), max_size=200),
        st.integers(5, 20),
    )
    def test_only_one_that_was_busy_and_frozen_all_the_time_hangs(
        self, samples: list[tuple[int, float]], after: int
    ) -> None:
        watch = HangWatch(after)
        steps, lived_at = -1.0, 0
        for second, (grown, busy) in enumerate(samples):
            if grown or not busy or steps < 0:
                lived_at = second
            steps = max(steps, 0) + grown
            assert watch.seen(second, steps, busy) == (second - lived_at >= after)


def both(first: tuple[float, float], second: tuple[float, float]) -> Reading:
    return Reading({"0": first, "1": second})


class TestEngineWatch:
    def test_one_engine_that_hangs_does_not_hide_behind_another(self) -> None:
        watch = EngineWatch(60.0)
        verdicts = [
            watch.seen(float(n), both((n, 4.0), (7.0, 4.0)), is_sick=False) for n in range(70)
        ]

        assert verdicts.index(True) == 60

    def test_metrics_that_do_not_answer_count_from_the_last_answer(self) -> None:
        watch = EngineWatch(60.0)
        watch.seen(0.0, both((1.0, 0.0), (1.0, 0.0)), is_sick=False)
        silent = [n for n in range(1, 70) if watch.seen(float(n), None, is_sick=False)]

        assert silent[0] == 60

    @pytest.mark.parametrize(("is_sick", "hangs"), [(True, True), (False, False)])
    def test_an_engine_that_calls_itself_sick_while_idle(self, is_sick: bool, hangs: bool) -> None:
        watch = EngineWatch(60.0)
        verdicts = {
            watch.seen(float(n), both((1.0, 0.0), (1.0, 0.0)), is_sick=is_sick) for n in range(70)
        }

        assert (True in verdicts) == hangs

    def test_an_engine_that_is_no_longer_named_is_forgotten(self) -> None:
        watch = EngineWatch(60.0)
        watch.seen(0.0, Reading({"": (0.0, 0.0)}), is_sick=False)
        verdicts = {
            watch.seen(float(n), both((n, 1.0), (n, 1.0)), is_sick=False) for n in range(1, 200)
        }

        assert verdicts == {False}
        assert watch.still_s(199.0) == 0.0


GB = 10**9


@pytest.mark.parametrize(
    ("planned_b", "measured", "budget_s"),
    [
        pytest.param(0, {}, 300, id="nothing known"),
        pytest.param(20 * GB, {}, 300 + 3 * 100, id="nothing measured: slow storage"),
        pytest.param(0, {"bytes": 20 * GB, "seconds": 10}, 330, id="2 GB/s"),
        pytest.param(9, {"bytes": 681 * GB, "seconds": 6810.0}, 20730, id="a large one from NFS"),
        pytest.param(0, {"bytes": 20 * GB, "seconds": 0}, 600, id="not read at all"),
        pytest.param(0, {"bytes": 20 * GB, "seconds": 0.01}, 600, id="too fast to be read"),
        pytest.param(20 * GB, {"bytes": 0, "seconds": 1}, 600, id="no bytes"),
        pytest.param(20 * GB, {"bytes": "many", "seconds": None}, 600, id="nonsense"),
    ],
)
def test_a_start_may_take(planned_b: int, measured: Mapping[str, object], budget_s: float) -> None:
    assert StartBudget.of(300.0, planned_b, measured).total_s == pytest.approx(budget_s)


def test_a_budget_explains_itself() -> None:
    budget = StartBudget.of(300.0, 0, {"bytes": 20 * GB, "seconds": 10})

    assert str(budget) == "300 s + 3 x 20.0 GB at 2.00 GB/s"


class TestSeatZero:
    def pinged(self, *seconds: int, until: int) -> SeatZero:
        """Return what is known after a ping a second, answered at these seconds."""
        seat = SeatZero(10.0)
        for second in range(until + 1):
            seat.pinged(float(second), second in seconds)
        return seat

    def test_one_that_never_answered_is_not_lost_but_nobody_need_wait_for_it(self) -> None:
        seat = self.pinged(until=100)

        assert (seat.met, seat.answers, seat.is_lost(100.0)) == (False, False, False)
        assert seat.has_left(100.0)

    @pytest.mark.parametrize(
        ("until", "lost", "left"),
        [
            (5, False, False),
            (7, False, False),
            (8, False, True),
            (14, False, True),
            (15, True, True),
        ],
    )
    def test_one_that_answered_last_at_5(self, until: int, lost: bool, left: bool) -> None:
        seat = self.pinged(0, 5, until=until)

        assert (seat.is_lost(float(until)), seat.has_left(float(until))) == (lost, left)

    def test_one_miss_after_a_long_sleep_of_our_own_is_no_loss(self) -> None:
        seat = self.pinged(0, until=0)
        seat.pinged(500.0, answered=False)

        assert not seat.is_lost(500.0)
        assert not seat.answers
        seat.pinged(501.0, answered=True)
        assert seat.answers


def drained(
    plan: DrainPlan, busy: Mapping[int, float | None], left_at: float = 9e9
) -> dict[str, int]:
    """Return when TERM and KILL are first due; `busy` changes at its keys."""
    at: dict[str, int] = {}
    now_busy: float | None = 0.0
    for second in range(1000):
        now_busy = busy.get(second, now_busy)
        at.setdefault(plan.due(float(second), now_busy, second >= left_at), second)
    at.pop(WAIT, None)
    return at


def plan_of(**changes: bool) -> DrainPlan:
    given = {"leads": True, "drains_itself": False, "has_served": True, **changes}
    return DrainPlan(told_at=0.0, settle_s=3.0, drain_s=600.0, **given)


LAST = int(LAST_S)


@pytest.mark.parametrize(
    ("plan", "busy", "left_at", "due"),
    [
        pytest.param(plan_of(), {0: 0.0}, 9e9, {TERM: 5, KILL: 5 + LAST}, id="idle"),
        pytest.param(plan_of(), {0: 4.0, 90: 0.0}, 9e9, {TERM: 92, KILL: 97}, id="busy until 90"),
        pytest.param(plan_of(), {0: 4.0}, 9e9, {TERM: 603, KILL: 608}, id="busy for ever"),
        pytest.param(plan_of(), {0: None}, 9e9, {TERM: 603, KILL: 608}, id="it does not say"),
        pytest.param(
            plan_of(),
            {0: 0.0, 4: 1.0, 50: 0.0},
            9e9,
            {TERM: 52, KILL: 57},
            id="idle for a moment only",
        ),
        pytest.param(
            plan_of(drains_itself=True), {0: 4.0}, 9e9, {TERM: 3, KILL: 608}, id="drains itself"
        ),
        pytest.param(
            plan_of(has_served=False, drains_itself=True),
            {0: None},
            9e9,
            {TERM: 0, KILL: LAST},
            id="it never served",
        ),
        pytest.param(
            plan_of(leads=False, drains_itself=True),
            {0: None},
            40,
            {TERM: 40, KILL: 45},
            id="another seat: after 0",
        ),
        pytest.param(
            plan_of(leads=False, drains_itself=True),
            {0: None},
            9e9,
            {TERM: 603, KILL: 608},
            id="another seat: in the end",
        ),
    ],
)
def test_a_rank_that_is_told_to_end(
    plan: DrainPlan, busy: Mapping[int, float | None], left_at: float, due: dict[str, int]
) -> None:
    assert drained(plan, busy, left_at) == due


class TestAdapters:
    def test_they_are_loaded_one_by_one(self) -> None:
        adapters = Adapters()
        adapters.want({"motor": "/m", "home": "/h"})

        for name, path in (("motor", "/m"), ("home", "/h")):
            assert not adapters.settled
            job = adapters.next(0.0)
            assert job == AdapterJob("load", name, path)
            adapters.done(0.0, job, "")
        assert adapters.next(0.0) is None
        assert adapters.settled
        assert adapters.told() == {"motor": "loaded", "home": "loaded"}

    def test_none_wanted_is_settled(self) -> None:
        assert Adapters().settled
        assert Adapters().next(0.0) is None

    def test_one_that_fails_is_tried_again_later_and_later_and_waited_for_three_times(self) -> None:
        adapters = Adapters()
        adapters.want({"motor": "/m"})
        tried, settled = [], []
        for second in range(130):
            job = adapters.next(float(second))
            if job:
                adapters.done(float(second), job, "400 rank too large")
                tried.append(second)
                settled.append(adapters.settled)

        assert tried == [0, 1, 3, 7, 15, 31, 63, 123]
        assert settled[:4] == [False, False, True, True]
        assert adapters.told() == {"motor": "load: 400 rank too large (tries: 8)"}

    def test_one_that_fails_does_not_hold_up_another(self) -> None:
        adapters = Adapters()
        adapters.want({"bad": "/b", "good": "/g"})
        adapters.done(0.0, AdapterJob("load", "bad", "/b"), "no")

        assert adapters.next(0.0) == AdapterJob("load", "good", "/g")

    def test_one_that_is_wanted_no_more_is_unloaded(self) -> None:
        adapters = loaded({"motor": "/m", "home": "/h"})
        adapters.want({"home": "/h"})

        assert adapters.told() == {"home": "loaded", "motor": "unloading"}
        job = adapters.next(0.0)
        assert job == AdapterJob("unload", "motor", "/m")
        adapters.done(0.0, job, "")
        assert adapters.told() == {"home": "loaded"}

    def test_another_path_under_the_same_name_takes_its_place(self) -> None:
        adapters = loaded({"motor": "/m/1"})
        adapters.want({"motor": "/m/2"})
        jobs = []
        while job := adapters.next(0.0):
            assert adapters.told() == {"motor": "loading"}
            jobs.append(job)
            adapters.done(0.0, job, "")

        assert jobs == [AdapterJob("unload", "motor", "/m/1"), AdapterJob("load", "motor", "/m/2")]
        assert adapters.told() == {"motor": "loaded"}

    def test_another_path_gets_fresh_tries(self) -> None:
        adapters = Adapters()
        adapters.want({"motor": "/typo"})
        for _ in range(3):
            adapters.done(0.0, AdapterJob("load", "motor", "/typo"), "no such folder")
        adapters.want({"motor": "/m"})

        assert not adapters.settled
        assert adapters.next(0.0) == AdapterJob("load", "motor", "/m")

    @given(st.lists(st.dictionaries(st.sampled_from("abc"), st.sampled_from("123")), max_size=6))
    def test_whatever_is_asked_for_is_there_in_the_end(self, asked: list[dict[str, str]]) -> None:
        adapters, engine = Adapters(), dict[str, str]()
        for wanted in asked:
            adapters.want(wanted)
            while job := adapters.next(0.0):
                assert (job.name in engine) == (job.verb == "unload")
                engine.pop(job.name, None)
                if job.verb == "load":
                    engine[job.name] = job.path
                adapters.done(0.0, job, "")
            assert engine == wanted


def loaded(wanted: dict[str, str]) -> Adapters:
    adapters = Adapters()
    adapters.want(wanted)
    while job := adapters.next(0.0):
        adapters.done(0.0, job, "")
    return adapters
