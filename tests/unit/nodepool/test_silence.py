"""How long somebody has been silent, whatever the clocks say."""

import pytest

from tramontane.controllers.nodepool.silence import Beats

WALL = 1_800_000_000.0


@pytest.mark.parametrize(
    ("renewed_at", "unknown_s"),
    [
        pytest.param(WALL - 5, 15.0, id="a living agent"),
        pytest.param(WALL - 600, 610.0, id="a dead agent does not come to life"),
        pytest.param(WALL + 600, 10.0, id="a clock in the future"),
    ],
)
def test_at_first_sight_silence_is_doubted_for_unknown_and_not_for_lost(
    renewed_at: float, unknown_s: float
) -> None:
    beats = Beats()
    assert beats.note("a", renewed_at, 100.0, WALL)
    beat = beats.get("a")
    assert beat is not None
    assert beat.silence_s(110.0) == unknown_s
    assert beat.machine_silence_s(110.0, renewed_at - 1000) == 10.0


def test_afterwards_only_our_own_clock_counts() -> None:
    beats = Beats()
    beats.note("a", WALL - 600, 100.0, WALL)
    assert not beats.note("a", WALL - 570, 130.0, WALL + 30)
    beat = beats.get("a")
    assert beat is not None
    assert beat.silence_s(140.0) == 10.0


@pytest.mark.parametrize(
    ("kubelet_after_agent_s", "silence_s"),
    [
        pytest.param(-20.0, 100.0, id="the agent spoke last"),
        pytest.param(30.0, 70.0, id="the kubelet spoke last"),
        pytest.param(None, 0.0, id="no Lease of the kubelet: not silent"),
    ],
)
def test_the_machine_is_silent_when_both_are(
    kubelet_after_agent_s: float | None, silence_s: float
) -> None:
    beats = Beats()
    skewed = WALL - 86_400  # the machine's clock is a day late; that changes nothing
    beats.note("a", skewed - 30, 70.0, WALL)
    beats.note("a", skewed, 100.0, WALL)
    beat = beats.get("a")
    assert beat is not None
    kubelet_at = None if kubelet_after_agent_s is None else skewed + kubelet_after_agent_s
    assert beat.machine_silence_s(200.0, kubelet_at) == silence_s


def test_a_sweep_names_each_silent_blade_once() -> None:
    beats = Beats()
    beats.note("a", WALL, 0.0, WALL)
    beats.note("b", WALL, 30.0, WALL)
    assert list(beats.sweep(44.0)) == []
    assert list(beats.sweep(46.0)) == ["a"]
    assert list(beats.sweep(50.0)) == []
    assert beats.note("a", WALL + 50, 50.0, WALL + 50), "back after a silence: news"
    assert not beats.note("a", WALL + 80, 80.0, WALL + 80)
    assert list(beats.sweep(80.0)) == ["b"]
    beats.forget("b")
    assert list(beats.sweep(200.0)) == ["a"]
