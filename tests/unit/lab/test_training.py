"""Training moves only while the gang is whole, and goes back to the checkpoint after a loss."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tramontane.lab.training import Pace, Phase, Rank, Training, advance, after_exit, loss_at

PACE = Pace(step_s=1.0, start_s=2.0, save_every=3)


def gang(size: int, epoch: str = "1") -> list[Rank]:
    return [Rank(seat, f"pod-{seat}", epoch, up=True) for seat in range(size)]


def run(
    training: Training, ranks: list[Rank], start: float, end: float, pace: Pace = PACE
) -> tuple[Training, list[str]]:
    """Let time pass second by second; return the training and all lines."""
    lines: list[str] = []
    moment = start
    while moment <= end:
        training, said = advance(training, ranks, len(gang(2)), pace, moment)
        lines += said
        moment += 0.5
    return training, lines


def lose(ranks: list[Rank], seat: int, trouble: str = "") -> list[Rank]:
    return [replace(r, up=False, trouble=trouble) if r.seat == seat else r for r in ranks]


def test_a_whole_gang_meets_then_steps_and_saves() -> None:
    training, lines = run(Training(), gang(2), 0, 6)
    assert training.phase is Phase.STEPPING
    assert lines[:2] == ["2 ranks are meeting, epoch 1", "starting from step 0"]
    assert [line for line in lines if line.startswith("step")] == [
        f"step {step} loss {loss_at(step):.4f}" for step in (1, 2, 3, 4)
    ]
    assert lines[5] == "saved checkpoint step=3"
    assert training.saved == 3


@pytest.mark.parametrize(
    ("ranks", "said"),
    [
        pytest.param(
            lose(gang(2), 1),
            "rank 1 lost after step 4: connection closed by peer",
            id="missing",
        ),
        pytest.param(
            lose(gang(2), 1, "no route to host"),
            "rank 1 lost after step 4: no route to host",
            id="its-own-words",
        ),
        pytest.param(
            [],
            "rank 0 and 1 more lost after step 4: connection closed by peer",
            id="all",
        ),
        pytest.param(
            [gang(2)[0], replace(gang(2)[1], epoch="2")],
            "rank epochs differ after step 4; waiting for all to restart",
            id="epochs-differ",
        ),
        pytest.param(
            [*gang(2), replace(gang(2)[1], life="pod-1-again")],
            "rank epochs differ after step 4; waiting for all to restart",
            id="two-on-one-seat",
        ),
    ],
)
def test_a_gang_that_is_not_whole_stands_and_says_so_once(ranks: list[Rank], said: str) -> None:
    training, _ = run(Training(), gang(2), 0, 6)
    standing, lines = run(training, ranks, 6.5, 20)
    assert standing.phase is Phase.STANDING
    assert standing.due == math.inf
    assert lines == [said]


def test_it_resumes_from_the_checkpoint_when_whole_again() -> None:
    training, _ = run(Training(), gang(2), 0, 6)
    training, _ = run(training, lose(gang(2), 1), 6.5, 8)
    again = [replace(rank, epoch="2") for rank in gang(2)]
    training, lines = run(training, again, 8.5, 12.5)
    assert lines[:3] == [
        "2 ranks are meeting, epoch 2",
        "resuming from checkpoint step=3",
        f"step 4 loss {loss_at(4):.4f}",
    ]


def test_a_restarted_process_makes_all_meet_again() -> None:
    training, _ = run(Training(), gang(2), 0, 6)
    other = [gang(2)[0], replace(gang(2)[1], life="pod-1/1")]
    training, lines = run(training, other, 6.5, 7)
    assert training.phase is Phase.STARTING
    assert lines == ["2 ranks are meeting, epoch 1"]


@pytest.mark.parametrize(
    ("code", "end", "saved"),
    [
        pytest.param(0, ["saved checkpoint step=4", "done"], 4, id="well"),
        pytest.param(7, ["error: exiting with 7"], 3, id="with-a-code"),
    ],
)
def test_it_ends_after_its_steps(code: int, end: list[str], saved: int) -> None:
    pace = replace(PACE, steps=4, exit_code=code)
    training, lines = run(Training(), gang(2), 0, 20, pace)
    assert training.phase is Phase.ENDED
    assert lines[-len(end) :] == end
    assert training.saved == saved
    assert after_exit(training) == Training(step=4, saved=saved)


def test_a_late_look_does_not_print_hours_of_steps() -> None:
    training, _ = run(Training(), gang(2), 0, 3)
    training, lines = advance(training, gang(2), 2, PACE, 3600)
    assert len(lines) <= 2
    assert training.due > 3600


@given(
    st.lists(st.tuples(st.sampled_from(["whole", "lost", "moved"]), st.integers(1, 9)), max_size=12)
)
def test_the_step_never_falls_below_the_checkpoint_and_never_moves_unwhole(
    story: list[tuple[str, int]],
) -> None:
    training, moment, lives = Training(), 0.0, 0
    for what, seconds in story:
        lives += what == "moved"
        ranks = [replace(rank, life=f"{rank.life}-{lives}") for rank in gang(2)]
        if what == "lost":
            ranks = lose(ranks, 1)
        for _ in range(seconds):
            moment += 1
            before = training
            training, lines = advance(training, ranks, 2, PACE, moment)
            assert training.step >= training.saved >= before.saved
            if what == "lost":
                assert not any(line.startswith("step") for line in lines)


@pytest.mark.parametrize(
    ("env", "pace"),
    [
        pytest.param({}, Pace(), id="default"),
        pytest.param(
            {
                "TRAMONTANE_LAB_STEP_TIME": "0.1",
                "TRAMONTANE_LAB_START_TIME": "3",
                "TRAMONTANE_LAB_SAVE_EVERY": "0",
                "TRAMONTANE_LAB_STEPS": "40",
                "TRAMONTANE_LAB_EXIT": "3",
            },
            Pace(step_s=0.1, start_s=3.0, save_every=1, steps=40, exit_code=3),
            id="all",
        ),
    ],
)
def test_the_pace_comes_from_the_environment(env: dict[str, str], pace: Pace) -> None:
    assert Pace.of(env) == pace


def test_the_loss_falls() -> None:
    assert loss_at(10_000) < loss_at(1_000) < loss_at(100) < loss_at(1)
