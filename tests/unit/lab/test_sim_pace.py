"""Training by arithmetic: held against training step by step."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tramontane.lab.sim.pace import REMEMBERED_S, Course, Pace, SimFollowers

PACE = Pace(step_s=2, steps=10, save_s=3, reload_s=7)


@dataclass
class ByHand:
    """The same, one step at a time."""

    pace: Pace
    saved: int = 0
    done: int = 0
    saves: list[float] = field(default_factory=list)

    def live(self, begun: float, until: float) -> None:
        at, step, since_save = begun + self.pace.reload_s, self.saved, 0
        while at + self.pace.step_s <= until:
            at, step, since_save = at + self.pace.step_s, step + 1, since_save + 1
            if since_save == self.pace.steps:
                if at + self.pace.save_s > until:
                    break
                at, since_save, self.saved = at + self.pace.save_s, 0, step
                self.saves.append(at)
        self.done = step


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 400)), min_size=1, max_size=6))
def test_lives_come_out_as_step_by_step(lives: list[tuple[int, int]]) -> None:
    course, hand, now, reworked = Course(PACE), ByHand(PACE), 1000.0, 0
    for attempt, (pause, length) in enumerate(lives, 1):
        now += pause
        course.begin(now, attempt)
        hand.live(now, now + length)
        now += length
        marks = course.marks(now)
        assert (marks.step or course.reached or hand.done) >= 0
        course.stop(now)
        reworked += hand.done - hand.saved
        assert course.reached == hand.done
        assert (course.saved.step if course.saved else 0) == hand.saved
    assert course.reworked == reworked
    assert course.retained_s(now) == hand.saved * PACE.step_s


def test_marks_tell_what_a_log_would() -> None:
    course = Course(PACE)
    assert course.begin(100.0, 3) == 107.0
    assert course.marks(107.5).step is None
    assert course.marks(107.5).agent_attempt == 3
    first = course.marks(109.0)
    assert (first.step, first.first_step, first.first_step_at, first.step_at) == (
        1,
        1,
        109.0,
        109.0,
    )
    late = course.marks(107.0 + 23 + 5)
    assert (late.step, late.step_at) == (12, 134.0)
    assert late.saved is not None
    assert (late.saved.step, late.saved.at, late.saved.cost_s) == (10, 130.0, 3)
    # While a save holds all up, the last step is the one before it.
    assert course.marks(129.0).step_at == 127.0


def test_a_log_ends_where_its_rank_died() -> None:
    course = Course(PACE)
    course.begin(0.0, 1)
    course.stop(30.0)
    assert course.marks(500.0) == course.marks(30.0)
    assert course.marks(500.0).step == 10
    course.begin(600.0, 2)
    assert course.marks(601.0).step is None


def test_all_saves_of_a_quiet_time_are_remembered_and_no_more() -> None:
    course = Course(Pace(step_s=10, steps=60, save_s=5, reload_s=0))
    course.begin(0.0, 1)
    marks = course.marks(30 * 86400.0)
    assert len(marks.saves) == pytest.approx(REMEMBERED_S / 605, abs=2)
    assert sum(one.cost_s for one in marks.saves) == 5 * len(marks.saves)


def test_intervals_are_of_whole_steps() -> None:
    pace = Pace.saving_every(61, step_s=5, save_s=1, reload_s=0)
    assert pace.steps == 12
    assert Pace.saving_every(1, step_s=5, save_s=1, reload_s=0).steps == 1


def test_followers_answer_from_the_course() -> None:
    course, now = Course(PACE), [0.0]
    logs = SimFollowers({"ml/run": course}.get, lambda: now[0])
    assert logs.marks("ml/run") is None
    assert not logs.is_alive("ml/run")
    course.begin(0.0, 1)
    now[0] = 50.0
    marks = logs.marks("ml/run")
    assert marks is not None
    assert marks.step == course.marks(50.0).step
    assert logs.is_alive("ml/run")
    assert logs.marks("ml/other") is None
    assert logs.slow("ml/run") is None
    assert logs.words("ml/run") == {}
