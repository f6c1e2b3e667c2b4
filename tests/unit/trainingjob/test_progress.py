"""Steps, step times and checkpoints out of log lines."""

import re

import pytest

from tramontane.api.trainingjob import DEFAULT_SAVED_PATTERN, DEFAULT_STEP_PATTERN
from tramontane.controllers.trainingjob.progress import KEPT_SAVES, Progress, Saved


def a_progress(saved: Saved | None = None) -> Progress:
    progress = Progress(re.compile(DEFAULT_STEP_PATTERN), re.compile(DEFAULT_SAVED_PATTERN), saved)
    progress.begin_life("pod-a")
    return progress


def feed(progress: Progress, text: str, at: float = 0.0, every: float = 1.0) -> None:
    for number, line in enumerate(text.strip().splitlines()):
        progress.feed(line.strip(), at + number * every)


def test_the_step_is_the_newest_and_its_time_the_median() -> None:
    progress = a_progress()
    for step, at in ((1, 0.0), (2, 2.0), (3, 4.0), (4, 30.0), (5, 32.0)):
        progress.feed(f"epoch 0 step {step} loss 3.1", at)

    marks = progress.marks()

    assert (marks.step, marks.step_at) == (5, 32.0)
    assert (marks.first_step, marks.first_step_at) == (1, 0.0)
    assert marks.step_time_s == 2.0


def test_steps_that_are_logged_now_and_then_give_the_time_of_one() -> None:
    progress = a_progress()
    for step, at in ((10, 0.0), (20, 5.0), (30, 10.0)):
        progress.feed(f"step={step}", at)

    assert progress.marks().step_time_s == 0.5


def test_a_checkpoint_is_no_step_and_what_it_held_up_is_its_cost() -> None:
    progress = a_progress()
    for step in range(1, 5):
        progress.feed(f"step {step}", float(step))
    progress.feed("saved checkpoint step=4", 4.5)
    progress.feed("step 5", 11.0)

    marks = progress.marks()

    assert marks.saved == Saved(4, 4.5)
    assert marks.saves == (Saved(4, 11.0, 6.0),)
    assert marks.step_time_s == 1.0


@pytest.mark.parametrize(
    ("resumed", "first"),
    [
        pytest.param("resuming from checkpoint step=40", 41, id="after a checkpoint"),
        pytest.param("loading weights", 41, id="without a word"),
    ],
)
def test_a_line_that_says_where_it_resumes_is_no_step(resumed: str, first: int) -> None:
    progress = a_progress(Saved(40, 1.0))
    progress.begin_life("pod-b")
    feed(progress, f"{resumed}\nstep 41\nstep 42")

    assert progress.marks().first_step == first


@pytest.mark.parametrize(
    "between",
    [
        pytest.param("step 41", id="the step goes back"),
        pytest.param(
            "tramontane-agent event=started attempt=2 pid=9\nstep 41", id="the agent says so"
        ),
    ],
)
def test_a_new_life_begins(between: str) -> None:
    progress = a_progress()
    feed(progress, f"step 57\nstep 58\n{between}\nstep 42", every=1.0)

    marks = progress.marks()

    assert (marks.first_step, marks.step) == (41, 42)


def test_another_pod_is_a_new_life_and_keeps_the_checkpoint() -> None:
    progress = a_progress()
    feed(progress, "step 1\nsaved checkpoint step=1\nstep 2")

    progress.begin_life("pod-b")

    marks = progress.marks()
    assert (marks.step, marks.first_step, marks.saved) == (None, None, Saved(1, 1.0))


def test_the_agent_says_which_attempt_it_started() -> None:
    progress = a_progress()
    feed(progress, "tramontane-agent event=started attempt=3 pid=7\nstep 5")

    assert progress.marks().agent_attempt == 3


def test_memory_is_bounded_and_long_lines_are_cut() -> None:
    progress = a_progress()
    for step in range(1, 2000):
        progress.feed(f"step {step}", float(step))
        progress.feed(f"saved checkpoint step={step}", step + 0.1)
    progress.feed("x" * 100_000 + "step 5000", 3000.0)

    marks = progress.marks()

    assert len(marks.saves) == KEPT_SAVES
    assert marks.step == 1999


def test_a_group_that_took_no_part_is_no_step() -> None:
    progress = Progress(re.compile(r"iter(?: (?P<step>\d+))?"), None)
    progress.feed("iter", 1.0)

    assert progress.marks().step is None
