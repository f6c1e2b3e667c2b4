"""The knobs of simulated training are read from a container's environment."""

import math

import pytest

from tramontane.api.errors import InvalidValue
from tramontane.lab.pace import Crash, Pace, Straggler


@pytest.mark.parametrize(
    ("env", "pace"),
    [
        pytest.param({}, Pace(), id="default"),
        pytest.param({"STEP_TIME": "9"}, Pace(), id="not-ours"),
        pytest.param(
            {
                "TRAMONTANE_LAB_STEP_TIME": "0.1",
                "TRAMONTANE_LAB_START_TIME": "3",
                "TRAMONTANE_LAB_SAVE_EVERY": "0",
                "TRAMONTANE_LAB_SAVE_TIME": "7.5",
                "TRAMONTANE_LAB_STEPS": "40",
                "TRAMONTANE_LAB_EXIT": "3",
                "TRAMONTANE_LAB_HANG": "12",
                "TRAMONTANE_LAB_HANG_TIMES": "0",
                "TRAMONTANE_LAB_CRASH": "3@40:9",
                "TRAMONTANE_LAB_CRASH_TIMES": "2",
                "TRAMONTANE_LAB_ABORT_TIME": "1.5",
                "TRAMONTANE_LAB_STRAGGLER": "5:2.5",
                "TRAMONTANE_LAB_GRACEFUL": "0",
            },
            Pace(
                step_s=0.1,
                start_s=3.0,
                save_every=1,
                save_s=7.5,
                steps=40,
                exit_code=3,
                hang_at=12,
                hang_times=0,
                crash=Crash(3, 40, 9),
                crash_times=2,
                abort_s=1.5,
                straggler=Straggler(5, 2.5),
                graceful=False,
            ),
            id="all",
        ),
    ],
)
def test_the_pace_comes_from_the_environment(env: dict[str, str], pace: Pace) -> None:
    assert Pace.of(env) == pace


@pytest.mark.parametrize(
    ("name", "value", "must"),
    [
        pytest.param("CRASH", "3", "RANK@STEP:CODE", id="crash-without-step"),
        pytest.param("CRASH", "x@1:1", "RANK@STEP:CODE", id="crash-of-nobody"),
        pytest.param("STRAGGLER", "5", "RANK:FACTOR", id="straggler-without-factor"),
        pytest.param("STRAGGLER", "a:b", "RANK:FACTOR", id="straggler-of-nobody"),
    ],
)
def test_a_knob_says_how_it_must_be_written(name: str, value: str, must: str) -> None:
    with pytest.raises(InvalidValue, match=must):
        Pace.of({f"TRAMONTANE_LAB_{name}": value})


@pytest.mark.parametrize(
    ("times", "lives", "again"),
    [
        pytest.param(1, 0, True, id="first"),
        pytest.param(1, 1, False, id="once"),
        pytest.param(3, 2, True, id="thrice"),
        pytest.param(0, 99, True, id="each-life"),
    ],
)
def test_what_goes_wrong_does_so_in_so_many_lives(times: int, lives: int, again: bool) -> None:
    pace = Pace(hang_at=5, hang_times=times, crash=Crash(0, 5, 1), crash_times=times)
    assert pace.hangs(5, lives) is pace.crashes(7, lives) is again
    assert not pace.hangs(4, lives)
    assert not pace.crashes(4, lives)


def test_nothing_goes_wrong_by_itself() -> None:
    assert not Pace().hangs(10**6, 0)
    assert not Pace().crashes(10**6, 0)
    assert Pace().abort_s == math.inf
