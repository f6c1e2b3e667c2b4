"""Steps, step times and checkpoints out of log lines."""

import re

import pytest

from tramontane.api.trainingjob import (
    DEFAULT_SAVED_PATTERN,
    DEFAULT_SAVING_PATTERN,
    DEFAULT_STEP_PATTERN,
)
from tramontane.controllers.trainingjob.progress import (
    KEPT_SAVES,
    KEPT_STEPS,
    Exited,
    Progress,
    Saved,
)


def a_progress(saved: Saved | None = None) -> Progress:
    progress = Progress(
        re.compile(DEFAULT_STEP_PATTERN),
        re.compile(DEFAULT_SAVED_PATTERN),
        saved,
        loss_pattern=re.compile(r"loss[ =:]+(?P<loss>[-+.\w]+)"),
        saving_pattern=re.compile(DEFAULT_SAVING_PATTERN),
    )
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
    for step in range(2000, 4000):
        progress.feed(f"step {step}", float(step))

    assert len(marks.saves) == KEPT_SAVES
    assert len(progress._times) == KEPT_STEPS
    assert marks.step == 1999


def test_a_group_that_took_no_part_is_no_step() -> None:
    progress = Progress(re.compile(r"iter(?: (?P<step>\d+))?"), None)
    progress.feed("iter", 1.0)

    assert progress.marks().step is None


def test_the_99th_percentile_shows_the_few_that_take_long() -> None:
    progress = a_progress()
    at = 0.0
    for step in range(1, 202):
        at += 9.0 if step % 50 == 0 else 1.0
        progress.feed(f"step {step}", at)

    marks = progress.marks()

    assert (marks.step_time_s, marks.step_p99_s) == (1.0, 9.0)


def test_step_times_outlast_the_life_that_had_them() -> None:
    progress = a_progress()
    feed(progress, "step 1\nstep 2\nstep 3", every=2.0)
    progress.begin_life("pod-b")

    marks = progress.marks()

    assert (marks.step, marks.step_time_s, marks.step_p99_s) == (None, 2.0, 2.0)


@pytest.mark.parametrize(
    ("lines", "loss"),
    [
        pytest.param("step 1 loss 2.5\nstep 2 loss 2.25", 2.25, id="the newest"),
        pytest.param("step 1 loss 2.5\nstep 2", 2.5, id="not in each line"),
        pytest.param("loss=1e-3", 0.001, id="in a line of its own"),
        pytest.param("step 1 loss 2.5\nstep 2 loss nan", 2.5, id="no number"),
        pytest.param("step 1 loss inf", None, id="without bound"),
        pytest.param("step 1 loss 2.5\nstep 2 loss 1e300", 2.5, id="beyond all bounds"),
        pytest.param("step 1 loss abc", None, id="a word"),
        pytest.param("step 1", None, id="none"),
    ],
)
def test_the_loss(lines: str, loss: float | None) -> None:
    progress = a_progress()
    feed(progress, lines)

    assert progress.marks().loss == loss


@pytest.mark.parametrize(
    ("then", "since"),
    [
        pytest.param("", 2.0, id="it is being written"),
        pytest.param("saved checkpoint step=2", None, id="it is safe"),
        pytest.param("step 3", 2.0, id="a step that had been on its way"),
        pytest.param("step 3\nstep 4", None, id="steps go on beside it"),
        pytest.param("tramontane-agent event=exited attempt=1 code=1 waits=60s", None, id="exit"),
        pytest.param("tramontane-agent event=started attempt=2 pid=7", None, id="a new life"),
    ],
)
def test_a_checkpoint_that_is_being_written(then: str, since: float | None) -> None:
    progress = a_progress()
    feed(progress, f"step 1\nstep 2\nSaving checkpoint step=2\n{then}")

    marks = progress.marks()

    assert marks.saving_since == since
    assert marks.step != 0, "the line is no step of its own"


def test_what_a_save_took_and_what_of_it_held_up() -> None:
    progress = a_progress()
    for step in range(1, 5):
        progress.feed(f"step {step}", float(step))
    progress.feed("saving checkpoint step=4", 4.1)
    progress.feed("step 5", 5.5)
    progress.feed("saved checkpoint step=4", 12.1)
    progress.feed("step 6", 6.5 + 7)

    assert progress.marks().saves == (Saved(4, 13.5, 7.0, 8.0),)


AGENT = "tramontane-agent event="


@pytest.mark.parametrize(
    ("lines", "exited"),
    [
        pytest.param("exited attempt=2 code=139 waits=60s", Exited(2, 139, 1.0), id="by itself"),
        pytest.param("draining attempt=2\nexited attempt=2 code=0", Exited(2, 0, 2.0), id="drain"),
        pytest.param("signal number=15\nexited attempt=2 code=143", None, id="ordered"),
        pytest.param("signal number=10\nexited attempt=2 code=1", Exited(2, 1, 2.0), id="usr1"),
        pytest.param("restarting attempt=3 after=2", None, id="restarting"),
        pytest.param("exited attempt=2 code=1\nstarted attempt=3 pid=9", None, id="started"),
        pytest.param(
            "signal number=15\nstarted attempt=3 pid=9\nexited attempt=3 code=1",
            Exited(3, 1, 3.0),
            id="an order was for the life before",
        ),
        pytest.param("exited attempt=two code=1", None, id="no number"),
        pytest.param("exited attempt=2", None, id="no code"),
        pytest.param("exited", None, id="nothing"),
    ],
)
def test_how_a_life_ended(lines: str, exited: Exited | None) -> None:
    progress = a_progress()
    said = "\n".join(AGENT + line for line in f"started attempt=2 pid=7\n{lines}".split("\n"))
    feed(progress, said)

    assert progress.marks().exited == exited


@pytest.mark.parametrize(
    ("lines", "unmatched"),
    [
        pytest.param("hello\nworld", 2, id="nothing matches"),
        pytest.param("hello\nstep 1\nworld", 0, id="one has matched"),
        pytest.param("hello\ntramontane-agent event=signal number=1", 1, id="the agent's own"),
        pytest.param(
            "step 1\ntramontane-agent event=started attempt=4 pid=1\nhello", 1, id="a new life"
        ),
        pytest.param("step 2\nstep 1\nhello", 0, id="a life that began with a step"),
    ],
)
def test_lines_that_match_nothing_are_counted(lines: str, unmatched: int) -> None:
    progress = a_progress()
    feed(progress, lines)

    assert progress.marks().unmatched == unmatched


def test_without_a_step_pattern_nothing_is_unmatched() -> None:
    progress = Progress(None, None)
    progress.feed("hello", 1.0)

    assert progress.marks().unmatched == 0


def test_a_step_that_is_too_large_for_the_api_is_none() -> None:
    progress = a_progress()
    progress.feed("step " + "9" * 19, 1.0)

    assert progress.marks().step is None


@pytest.mark.parametrize(
    ("step", "at", "saved"),
    [
        pytest.param(5, 20.0, Saved(5, 20.0), id="an older step, later: it was gone back to"),
        pytest.param(9, 5.0, Saved(9, 5.0), id="a later step, by a clock that is behind"),
        pytest.param(7, 10.0, Saved(7, 10.0), id="read again"),
        pytest.param(5, 5.0, Saved(7, 10.0), id="an older one, read again"),
    ],
)
def test_which_checkpoint_is_the_newest(step: int, at: float, saved: Saved) -> None:
    progress = a_progress(Saved(7, 10.0))
    progress.feed(f"saved checkpoint step={step}", at)

    assert progress.marks().saved == saved


def test_a_clock_that_was_off_moves_the_times_of_this_life() -> None:
    progress = a_progress()
    feed(progress, "step 1\nstep 2\nsaving checkpoint")
    progress.feed("tramontane-agent event=exited attempt=1 code=3", 5.0)
    progress.feed("saving checkpoint", 6.0)
    progress.shift(100.0)
    progress.feed("step 3", 104.0)

    marks = progress.marks()

    assert (marks.first_step_at, marks.step_at, marks.saving_since) == (100.0, 104.0, 106.0)
    assert marks.exited == Exited(1, 3, 105.0)
    assert marks.step_time_s == 2.0, "1 s and 3 s: no jump"


@pytest.mark.parametrize(
    ("line", "is_news"),
    [
        pytest.param("step 3", False, id="a further step"),
        pytest.param("step 1", True, id="a step back"),
        pytest.param("saved checkpoint step=2", True, id="a checkpoint"),
        pytest.param("tramontane-agent event=exited attempt=1 code=1", True, id="an end"),
        pytest.param("tramontane-agent event=started attempt=2 pid=1", True, id="a start"),
        pytest.param("hello", False, id="nothing"),
    ],
)
def test_what_somebody_may_be_waiting_for(line: str, *, is_news: bool) -> None:
    progress = a_progress()
    feed(progress, "step 1\nstep 2")
    before = progress.news
    progress.feed(line, 3.0)

    assert (progress.news > before) == is_news
