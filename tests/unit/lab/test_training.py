"""Training moves only while the gang is whole, and goes back to the checkpoint after a loss."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tramontane.lab.pace import Crash, Pace, Straggler
from tramontane.lab.ranks import Rank
from tramontane.lab.training import Exit, Line, Moved, Phase, Training, advance, loss_at

PACE = Pace(step_s=1.0, start_s=2.0, save_every=3)
TICK_S = 0.5


def gang(size: int = 2, epoch: int = 1, *, agent: bool = True) -> list[Rank]:
    return [Rank(seat, f"pod-{seat}/0", epoch, agent=agent) for seat in range(size)]


def run(
    training: Training, ranks: list[Rank], start: float, end: float, pace: Pace = PACE
) -> tuple[Training, list[Line], list[Exit]]:
    """Let time pass; return the training, all lines and all ends of containers."""
    lines: list[Line] = []
    exits: list[Exit] = []
    moment = start
    while moment <= end:
        moved = advance(training, ranks, len(gang()), pace, moment)
        training = moved.training
        lines += moved.lines
        exits += moved.exits
        moment += TICK_S
    return training, lines, exits


def of(seat: int, lines: list[Line]) -> list[str]:
    """Return what a rank has printed, without its agent's lines."""
    return [text for at, text in lines if at == seat and not text.startswith("tramontane-agent")]


def agent_of(seat: int, lines: list[Line]) -> list[str]:
    said = [text for at, text in lines if at == seat and text.startswith("tramontane-agent")]
    return [text.removeprefix("tramontane-agent event=") for text in said]


def change(ranks: list[Rank], seat: int, **how: object) -> list[Rank]:
    return [replace(one, **how) if one.seat == seat else one for one in ranks]  # type: ignore[arg-type]


def told(**how: object) -> Callable[[list[Rank]], list[Rank]]:
    return lambda ranks: [replace(one, **how) for one in ranks]  # type: ignore[arg-type]


def test_a_whole_gang_meets_then_steps_and_saves() -> None:
    training, lines, exits = run(Training(), gang(), 0, 6)
    assert training.phase is Phase.STEPPING
    first = of(0, lines)
    assert first[:2] == ["2 ranks are meeting, epoch 1", "starting from step 0"]
    assert [line for line in first if line.startswith("step")] == [
        f"step {step} loss {loss_at(step):.4f}" for step in (1, 2, 3, 4)
    ]
    assert first[5] == "saved checkpoint step=3"
    assert training.saved == 3
    assert agent_of(0, lines) == agent_of(1, lines) == ["started attempt=1 pid=7"]
    assert of(1, lines) == []
    assert exits == []


@pytest.mark.parametrize(
    ("ranks", "said"),
    [
        pytest.param(gang()[:1], "rank 1 lost after step 4: connection closed by peer", id="gone"),
        pytest.param(
            change(gang(), 1, up=False),
            "rank 1 lost after step 4: connection closed by peer",
            id="not-running",
        ),
        pytest.param(
            change(gang(), 1, trouble="no route to host", dark=True),
            "rank 1 lost after step 4: no route to host",
            id="its-own-words",
        ),
        pytest.param(
            change(gang(), 1, epoch=2),
            "rank epochs differ after step 4; waiting for all to restart",
            id="epochs-differ",
        ),
    ],
)
def test_a_gang_that_is_not_whole_stands_and_says_so_once(ranks: list[Rank], said: str) -> None:
    training, _, _ = run(Training(), gang(), 0, 6)
    standing, lines, exits = run(training, ranks, 6.5, 20)
    assert standing.phase is Phase.STANDING
    assert standing.due == math.inf
    assert of(0, lines) == [said]
    assert exits == []


def test_nothing_is_printed_where_there_is_no_power() -> None:
    training, _, _ = run(Training(), gang(), 0, 6)
    dark = told(dark=True, trouble="no route to host")(gang())
    standing, lines, _ = run(training, dark, 6.5, 20)
    assert (standing.phase, lines) == (Phase.STANDING, [])


def test_ranks_die_of_a_lost_peer_where_the_pace_says_so() -> None:
    pace = replace(PACE, abort_s=2.0)
    training, _, _ = run(Training(), gang(), 0, 6, pace)
    _, lines, exits = run(training, gang()[:1], 6.5, 8, pace)
    assert agent_of(0, lines) == []
    _, lines, exits = run(training, gang()[:1], 6.5, 8.5, pace)
    assert of(0, lines)[-1] == "RuntimeError: rank 0: a peer is gone"
    assert agent_of(0, lines) == ["exited attempt=1 code=1 waits=60s"]
    assert exits == []


def test_who_has_been_restarted_meanwhile_does_not_die_of_what_was_before() -> None:
    pace = replace(PACE, abort_s=2.0)
    training, _, _ = run(Training(), gang(), 0, 6, pace)
    training, _, _ = run(training, gang()[:1], 6.5, 7.5, pace)
    training, lines, _ = run(training, gang(epoch=2)[:1], 8.0, 20, pace)
    assert agent_of(0, lines) == ["restarting attempt=2 after=1", "started attempt=2 pid=7"]


def test_it_resumes_from_the_checkpoint_when_whole_again() -> None:
    training, _, _ = run(Training(), gang(), 0, 6)
    training, _, _ = run(training, gang()[:1], 6.5, 8)
    again = change(gang(epoch=2), 1, life="other-1/0")
    training, lines, _ = run(training, again, 8.5, 12.5)
    assert of(0, lines)[:3] == [
        "2 ranks are meeting, epoch 2",
        "resuming from checkpoint step=3",
        f"step 4 loss {loss_at(4):.4f}",
    ]
    assert agent_of(0, lines) == ["restarting attempt=2 after=1", "started attempt=2 pid=7"]
    assert agent_of(1, lines) == ["started attempt=2 pid=7"]


@pytest.mark.parametrize("agent", [True, False], ids=["agent", "bare"])
def test_a_restarted_process_makes_all_meet_again(agent: bool) -> None:
    ranks = gang(agent=agent)
    training, _, _ = run(Training(), ranks, 0, 6)
    training, lines, _ = run(training, change(ranks, 1, life="pod-1/1"), 6.5, 7)
    assert training.phase is Phase.STARTING
    assert of(0, lines) == ["2 ranks are meeting, epoch 1"]


def test_it_ends_after_its_steps() -> None:
    training, lines, exits = run(Training(), gang(), 0, 20, replace(PACE, steps=4))
    assert (training.phase, training.saved, training.due) == (Phase.ENDED, 4, math.inf)
    assert of(0, lines)[-2:] == ["saved checkpoint step=4", "done"]
    assert agent_of(1, lines)[-1] == "exited attempt=1 code=0 waits=3s"
    assert exits == [(0, 0), (1, 0)]


@pytest.mark.parametrize(
    ("agent", "exits"),
    [
        pytest.param(True, [], id="agents-wait"),
        pytest.param(False, [(0, 7), (1, 1)], id="bare-containers-end"),
    ],
)
def test_it_ends_with_a_code_in_each_life(agent: bool, exits: list[Exit]) -> None:
    pace = replace(PACE, steps=4, exit_code=7)
    training, lines, ended = run(Training(), gang(agent=agent), 0, 20, pace)
    assert of(0, lines)[-1] == "error: exiting with 7"
    assert training.saved == 3
    assert ended == exits
    again = told(life="again")(gang(epoch=2, agent=agent))
    _, lines, _ = run(training, again, 20.5, 40, pace)
    assert of(0, lines)[-1] == "error: exiting with 7"


@pytest.mark.parametrize(
    ("times", "crashed"),
    [pytest.param(1, [True, False], id="once"), pytest.param(0, [True, True], id="each-life")],
)
def test_a_rank_crashes_and_the_others_die_of_it(times: int, crashed: list[bool]) -> None:
    pace = replace(PACE, crash=Crash(1, 2, 9), crash_times=times)
    training, found = Training(), []
    for life in range(2):
        start = 30.0 * life
        training, lines, exits = run(training, gang(epoch=life + 1), start, start + 6, pace)
        found.append("exited attempt" in " ".join(agent_of(1, lines)))
        assert exits == []
        if life == 0:
            assert of(1, lines)[0] == "Traceback (most recent call last):"
            assert "not finite after step 2" in of(1, lines)[2]
            assert agent_of(1, lines)[-1] == "exited attempt=1 code=9 waits=30s"
            assert agent_of(0, lines)[-1] == "exited attempt=1 code=1 waits=60s"
            ends = [at for at, text in lines if "exited" in text]
            assert ends == [1, 0], "the one that crashed ends first"
    assert found == crashed


def test_who_waits_in_vain_for_an_epoch_ends_as_its_rank_did() -> None:
    pace = replace(PACE, crash=Crash(0, 1, 9))
    ranks = told(wait_s=5.0)(gang())
    training, _, exits = run(Training(), ranks, 0, 7, pace)
    assert exits == []
    assert 8.0 <= training.due <= 8.5
    training, _, exits = run(training, ranks, 7.5, 30, pace)
    assert exits == [(0, 9), (1, 1)]
    assert training.due == math.inf


@pytest.mark.parametrize(
    ("times", "hangs"),
    [pytest.param(1, [True, False], id="once"), pytest.param(0, [True, True], id="each-life")],
)
def test_a_hang_is_silent_until_the_epoch_is_raised(times: int, hangs: list[bool]) -> None:
    pace = replace(PACE, hang_at=2, hang_times=times)
    training, found = Training(), []
    for life in range(2):
        start = 30.0 * life
        training, lines, exits = run(training, gang(epoch=life + 1), start, start + 20, pace)
        found.append(training.phase is Phase.HANGING)
        if found[-1]:
            assert of(0, lines)[-1] == f"step 2 loss {loss_at(2):.4f}"
            assert training.due == math.inf
        assert exits == []
    assert found == hangs


def test_a_slow_save_says_when_it_begins_and_when_it_is_safe() -> None:
    pace = replace(PACE, save_s=4.0)
    training, lines, _ = run(Training(), gang(), 0, 8, pace)
    assert of(0, lines)[-1] == "saving checkpoint step=3"
    assert (training.phase, training.saved) == (Phase.SAVING, 0)
    training, lines, _ = run(training, gang(), 8.5, 10, pace)
    assert of(0, lines) == ["saved checkpoint step=3", f"step 4 loss {loss_at(4):.4f}"]


def test_a_save_that_is_interrupted_is_none() -> None:
    training, _, _ = run(Training(), gang(), 0, 8, replace(PACE, save_s=4.0))
    training, _, _ = run(training, gang()[:1], 8.5, 20, replace(PACE, save_s=4.0))
    assert training.saved == 0


@pytest.mark.parametrize("save_s", [0.0, 3.0], ids=["at-once", "slowly"])
def test_drained_ranks_save_where_they_are_and_wait(save_s: float) -> None:
    pace = replace(PACE, save_every=100, save_s=save_s)
    training, _, _ = run(Training(), gang(), 0, 5, pace)
    training, lines, exits = run(training, told(drain=1)(gang()), 5.5, 12, pace)
    assert training.phase is Phase.STANDING
    assert training.saved == training.step == 4
    assert of(0, lines)[-1] == "saved checkpoint step=4"
    for seat in (0, 1):
        assert agent_of(seat, lines) == [
            "draining attempt=1",
            "exited attempt=1 code=0 waits=660s",
        ]
    assert exits == []
    _, lines, _ = run(training, told(drain=1)(gang(epoch=2)), 12.5, 16, pace)
    assert of(0, lines)[1] == "resuming from checkpoint step=4"
    assert of(0, lines)[2].startswith("step 5 ")


def test_nobody_ends_before_all_are_told() -> None:
    training, _, _ = run(Training(), gang(), 0, 5)
    training, lines, _ = run(training, change(gang(), 1, drain=1), 5.5, 8)
    assert training.phase is Phase.STEPPING
    assert agent_of(1, lines) == ["draining attempt=1"]


@pytest.mark.parametrize(
    ("graceful", "saved"),
    [pytest.param(True, 4, id="graceful"), pytest.param(False, 3, id="deaf")],
)
def test_pods_that_go_save_first(graceful: bool, saved: int) -> None:
    pace = replace(PACE, graceful=graceful)
    training, _, _ = run(Training(), gang(), 0, 5.5, pace)
    training, lines, exits = run(training, told(leaving=True)(gang()), 5.6, 6.6, pace)
    assert training.saved == saved
    assert agent_of(0, lines)[0] == "signal number=15"
    assert ("exited attempt=1 code=0 waits=0s" in agent_of(0, lines)) is graceful
    assert exits == [], "a pod that goes takes its containers with it"


def test_a_sick_blade_kills_its_rank_only() -> None:
    training, _, _ = run(Training(), gang(), 0, 6)
    sick = change(gang(), 1, trouble="CUDA error: unspecified launch failure")
    _, lines, _ = run(training, sick, 6.5, 10)
    assert of(1, lines) == ["rank 1: CUDA error: unspecified launch failure"]
    assert agent_of(1, lines) == ["exited attempt=1 code=1 waits=30s"]
    assert agent_of(0, lines) == []


def test_all_ranks_tell_their_own_time_where_one_is_slow() -> None:
    pace = replace(PACE, straggler=Straggler(1, 2.5))
    training, lines, _ = run(Training(), gang(), 0, 5, pace)
    assert of(1, lines) == [f"step {n} loss {loss_at(n):.4f} seconds=1.0000" for n in (1, 2, 3)]
    assert of(0, lines)[2].endswith("seconds=0.4000")
    moved = change(gang(epoch=2), 1, life="elsewhere/0")
    _, lines, _ = run(training, moved, 5.5, 10, pace)
    assert of(1, lines)[0].endswith("seconds=0.4000"), "it was the blade, not the seat"


def test_a_late_look_does_not_print_hours_of_steps() -> None:
    training, _, _ = run(Training(), gang(), 0, 3)
    moved: Moved = advance(training, gang(), 2, PACE, 3600)
    assert len(moved.lines) <= 2
    assert moved.training.due > 3600


@given(
    st.lists(st.tuples(st.sampled_from(["whole", "lost", "moved"]), st.integers(1, 9)), max_size=12)
)
def test_the_step_never_falls_below_the_checkpoint_and_never_moves_unwhole(
    story: list[tuple[str, int]],
) -> None:
    training, moment, lives = Training(), 0.0, 0
    for what, seconds in story:
        lives += what == "moved"
        ranks = [replace(rank, life=f"{rank.life}-{lives}") for rank in gang()]
        if what == "lost":
            ranks = ranks[:1]
        for _ in range(seconds):
            moment += 1
            before = training
            training, lines, _ = advance(training, ranks, 2, PACE, moment)
            assert training.step >= training.saved >= before.saved
            if what == "lost":
                assert not any(line.text.startswith("step") for line in lines)


def test_the_loss_falls() -> None:
    assert loss_at(10_000) < loss_at(1_000) < loss_at(100) < loss_at(1)
