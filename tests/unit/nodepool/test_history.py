"""What a blade's record says of it."""

from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tramontane.api.blade import BladeStatus, History, Incident
from tramontane.api.clock import utc
from tramontane.controllers.nodepool import history
from tramontane.controllers.nodepool.history import Signals

NOW = 1_800_000_000.0
HOUR = 3600.0
DAY = 24 * HOUR


def quarantine(
    ago: float = HOUR, code: str = "xid-79", before: str | None = "Healthy", **more: Any
) -> Incident:
    given_ = {"code": code, "gpu": 3, "from": before, "to": "Quarantined", "action": "Reset"}
    return Incident.model_validate({"at": utc(NOW - ago), **given_, **more})


def suspect(ago: float = HOUR, **more: Any) -> Incident:
    return quarantine(ago, **{"to": "Suspect", "severity": "Degraded", **more})


def hold(ago: float = HOUR) -> Incident:
    return Incident.model_validate(
        {"at": utc(NOW - ago), "from": "Healthy", "to": "Quarantined", "jobs": ["a/held"]}
    )


MADE_UP = quarantine(before="Quarantined")


@pytest.mark.parametrize(
    ("record", "incidents", "quarantines", "jobs"),
    [
        pytest.param((), 0, 0, 0, id="clean"),
        pytest.param((quarantine(),), 1, 1, 0, id="one"),
        pytest.param((quarantine(27 * DAY), quarantine(28 * DAY)), 1, 1, 0, id="28 days"),
        pytest.param((suspect(jobs=["a/b"]),), 1, 0, 0, id="a suspect broke no job"),
        pytest.param((hold(),), 1, 0, 0, id="a hold is no quarantine by a fault"),
        pytest.param((MADE_UP,), 1, 0, 0, id="memory made up anew is no other quarantine"),
        pytest.param((quarantine(at=None),), 1, 1, 0, id="one without a time is recent"),
        pytest.param(
            (quarantine(jobs=["a/b", "a/c"]), quarantine(2 * DAY, jobs=["a/b"])),
            2,
            2,
            3,
            id="jobs are summed",
        ),
    ],
)
def test_sums_of_28_days(
    record: tuple[Incident, ...], incidents: int, quarantines: int, jobs: int
) -> None:
    found = history.of(record, NOW)
    assert (found.incidents28d, found.quarantines28d, found.job_failures28d) == (
        incidents,
        quarantines,
        jobs,
    )


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        pytest.param((), "0.00", id="clean"),
        pytest.param((quarantine(),), "0.08", id="one fault, no job"),
        pytest.param((quarantine(jobs=["a/b"]),), "0.15", id="one fault, one job"),
        pytest.param(
            (quarantine(jobs=["a/b"], action="Inspect"),), "0.20", id="one only a person can mend"
        ),
        pytest.param((hold(), hold(), hold()), "0.10", id="people do not make a lemon"),
        pytest.param(
            tuple(quarantine(day * DAY, jobs=[f"a/{day}"]) for day in range(3)),
            "0.60",
            id="three times the same",
        ),
        pytest.param(
            tuple(quarantine(day * DAY, code=f"xid-{day}") for day in range(4)),
            "0.34",
            id="four different ones",
        ),
        pytest.param(
            tuple(quarantine(day * DAY, jobs=[f"a/{day}"]) for day in range(5)),
            "0.82",
            id="five times the same",
        ),
        pytest.param(
            tuple(
                quarantine(jobs=["a/b", f"a/{n}"], code=f"xid-{n % 4}", action="Replace")
                for n in range(20)
            ),
            "1.00",
            id="never above 1",
        ),
    ],
)
def test_lemon_score(record: tuple[Incident, ...], expected: str) -> None:
    found = history.of(record, NOW)
    assert found.lemon_score == expected
    assert history.is_lemon(found) == (float(expected) >= 0.7)


SIGNALS = st.builds(Signals, **{one.name: st.integers(0, 25) for one in fields(Signals)})


@given(found=SIGNALS, name=st.sampled_from([one.name for one in fields(Signals)]))
def test_more_of_any_signal_never_lowers_the_score(found: Signals, name: str) -> None:
    more = replace(found, **{name: getattr(found, name) + 1})
    assert 0 <= history.score(found) <= history.score(more) <= 1


def test_each_signal_counts() -> None:
    for one in fields(Signals):
        assert history.score(Signals(**{one.name: 1})) > 0
    assert history.score(Signals(5, 5, 2, 4, 4, 2)) == pytest.approx(1)


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        pytest.param(None, False, id="no history"),
        pytest.param(History(), False, id="no score"),
        pytest.param(History(lemon_score="0.49"), False, id="below"),
        pytest.param(History(lemon_score="0.50"), True, id="at the threshold"),
    ],
)
def test_is_lemon(given_: History | None, expected: bool) -> None:
    assert history.is_lemon(given_, 0.5) is expected


@pytest.mark.parametrize(
    ("hours_ago", "expected"),
    [
        pytest.param([], False, id="none"),
        pytest.param([2, 1], False, id="two"),
        pytest.param([25, 13, 1], True, id="three within 24 h"),
        pytest.param([26, 13, 1], False, id="three within 25 h"),
        pytest.param([90, 25, 13, 1], True, id="the last three"),
        pytest.param([99, 90, 80], True, id="waiting heals nothing"),
        pytest.param([99, 90, 80, 1], False, id="the first three were another time"),
        pytest.param([28 * 24 + 3, 28 * 24 + 2, 28 * 24 + 1], False, id="forgotten"),
    ],
)
def test_flapping(hours_ago: list[int], expected: bool) -> None:
    record = tuple(quarantine(hours * HOUR) for hours in hours_ago)
    assert history.is_flapping(record, NOW) is expected


@pytest.mark.parametrize("other", [suspect(), hold(), MADE_UP], ids=["suspect", "hold", "made up"])
def test_only_quarantines_by_faults_flap(other: Incident) -> None:
    assert not history.is_flapping((quarantine(3 * HOUR), quarantine(2 * HOUR), other), NOW)


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        pytest.param("Healthy", 1, id="worked"),
        pytest.param("Suspect", 1, id="worked, in doubt"),
        pytest.param("Unknown", 1, id="silent"),
        pytest.param("Lost", 1, id="lost"),
        pytest.param(None, 0, id="seen for the first time"),
        pytest.param("Delivered", 0, id="delivered"),
        pytest.param("Qualifying", 0, id="new"),
        pytest.param("Requalifying", 0, id="not back yet"),
        pytest.param("Repairing", 0, id="in repair"),
    ],
)
def test_only_what_worked_can_fail_at_work(before: str | None, expected: int) -> None:
    assert history.failures((quarantine(before=before),), NOW) == expected


@pytest.mark.parametrize(
    ("failed", "days", "expected"),
    [
        pytest.param(2, 6.9, None, id="too little"),
        pytest.param(0, 7.0, 0.0, id="just enough"),
        pytest.param(11, 3584.0, 3.07, id="a month of 128 blades"),
    ],
)
def test_failure_rate(failed: int, days: float, expected: float | None) -> None:
    found = history.failure_rate(failed, days)
    assert found == (None if expected is None else pytest.approx(expected, abs=0.005))


def result(step: str, *, passed: bool) -> dict[str, Any]:
    return {"step": step, "passed": passed}


PASSED = {"results": [result("soak", passed=True), result("burnIn", passed=True)]}


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        pytest.param({}, None, id="never seen"),
        pytest.param({"state": "Delivered"}, None, id="delivered"),
        pytest.param({"state": "Qualifying", "qualification": {"step": "soak"}}, None, id="on way"),
        pytest.param({"state": "Healthy"}, True, id="a pool without steps"),
        pytest.param({"state": "Healthy", "qualification": PASSED}, True, id="passed"),
        pytest.param({"state": "Suspect", "qualification": PASSED}, True, id="doubted later"),
        pytest.param({"state": "Lost", "qualification": PASSED}, True, id="passed and lost"),
        pytest.param({"state": "Lost"}, None, id="lost and never passed"),
        pytest.param(
            {"state": "Unknown", "qualification": {**PASSED, "step": "collective"}},
            None,
            id="silent on the way",
        ),
        pytest.param(
            {"state": "Quarantined", "qualification": {"results": [result("soak", passed=False)]}},
            False,
            id="failed",
        ),
        pytest.param(
            {
                "state": "Healthy",
                "qualification": {
                    "results": [*PASSED["results"], result("burnIn", passed=False)],
                },
            },
            True,
            id="a later burn-in is another matter",
        ),
        pytest.param(
            {"state": "Healthy", "incidents": [quarantine(before="Qualifying").to_dict()]},
            False,
            id="was quarantined on the way",
        ),
        pytest.param(
            {"state": "Quarantined", "incidents": [quarantine().to_dict()]},
            True,
            id="was quarantined at work",
        ),
        pytest.param(
            {
                "state": "Quarantined",
                "qualification": {"step": "burnIn", "results": [result("burnIn", passed=False)]},
                "incidents": [quarantine().to_dict()],
            },
            True,
            id="fails on its way back",
        ),
        pytest.param(
            {
                "state": "Quarantined",
                "qualification": PASSED,
                "incidents": [quarantine(before="Unknown").to_dict()],
            },
            True,
            id="was silent at work",
        ),
    ],
)
def test_passed_at_the_first_try(status: dict[str, Any], expected: bool | None) -> None:
    assert history.passed_first_try(BladeStatus.model_validate(status)) is expected
