"""How many restarts there were, and how long until the next."""

import pytest

from tramontane.api import clock
from tramontane.api.trainingjob import Backoff, IncidentCause, JobIncident, RestartCounts
from tramontane.controllers.trainingjob.budgets import (
    INFRA_CAUSES,
    USER_CAUSES,
    counted,
    in_window,
    wait_s,
)
from unit.trainingjob.builders import NOW

DAY_S = 86_400.0


def incidents(*ages_s: float, cause: str = "UserError") -> tuple[JobIncident, ...]:
    return tuple(
        JobIncident(at=clock.micro(NOW - age), cause=IncidentCause(cause))
        for age in sorted(ages_s, reverse=True)
    )


@pytest.mark.parametrize(
    ("given", "count"),
    [
        pytest.param((), 0, id="none"),
        pytest.param(incidents(1, 2, DAY_S + 1), 2, id="one is too old"),
        pytest.param(incidents(1, cause="BladeFault"), 0, id="not the user's"),
        pytest.param(incidents(*range(19)), 19, id="exact below twenty"),
        pytest.param(incidents(*(n * 3600 * 1.2 for n in range(20))), 21, id="the list is full"),
        pytest.param(incidents(*range(20)), 480, id="a burst counts over an hour at least"),
    ],
)
def test_failures_in_a_window(given: tuple[JobIncident, ...], count: int) -> None:
    assert in_window(given, USER_CAUSES, NOW, DAY_S) == count


def test_a_full_list_of_several_causes_counts_them_all_for_the_whole_window() -> None:
    mixed = sorted(
        (*incidents(*range(0, 600, 60)), *incidents(*range(30, 630, 60), cause="NodeLost")),
        key=lambda one: one.at,
    )

    assert len(mixed) == 20
    assert in_window(mixed, USER_CAUSES, NOW, DAY_S) == 240
    reported = [*incidents(1, cause="Straggler"), *incidents(2)]
    assert in_window(reported, INFRA_CAUSES, NOW, DAY_S) == 0


def test_the_wait_doubles_up_to_its_bound() -> None:
    backoff = Backoff(base="10s", max="1m")

    assert [wait_s(backoff, failures) for failures in (0, 1, 2, 3, 4, 1000)] == [
        0, 10, 20, 40, 60, 60,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("causes", "expected"),
    [
        pytest.param(["UserError"], RestartCounts(user=1), id="user"),
        pytest.param(["UserError", "NodeLost"], RestartCounts(infra=1), id="infra before user"),
        pytest.param(["Preempted"], RestartCounts(preempted=1), id="preempted"),
    ],
)
def test_a_restart_is_counted_once(causes: list[str], expected: RestartCounts) -> None:
    assert counted(None, [IncidentCause(cause) for cause in causes]) == expected


def test_every_cause_is_somebody_s() -> None:
    assert INFRA_CAUSES | USER_CAUSES | {IncidentCause.PREEMPTED} == set(IncidentCause)
