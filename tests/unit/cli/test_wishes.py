"""A person's word in time: it counts whatever the clock of their machine says."""

from typing import Any

import pytest

from tramontane.api.blade import Blade
from tramontane.api.clock import parse, utc
from tramontane.api.names import ANNOTATION_BREAKER_CLOSED
from tramontane.api.nodepool import NodePool
from tramontane.cli import wishes

NOW = 1_800_000_000.4


def a_blade(spec: Any = None, **status: Any) -> Blade:
    return Blade.model_validate({"spec": {"pool": "p", **(spec or {})}, "status": status})


def word(ago: float, **more: Any) -> dict[str, Any]:
    return {"reason": "r", "by": "b", "at": utc(NOW - ago), **more}


def incident(ago: float) -> dict[str, Any]:
    return {"code": "xid-79", "at": utc(NOW - ago), "from": "Healthy", "to": "Quarantined"}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        pytest.param({}, 0, id="now"),
        pytest.param({"release": word(60)}, 0, id="released long ago"),
        pytest.param({"release": word(0)}, 1, id="released this second"),
        pytest.param({"release": word(-60)}, 61, id="released by a clock that is ahead"),
        pytest.param({"hold": word(-60)}, 0, id="an older hold is replaced"),
    ],
)
def test_a_hold_is_younger_than_any_release(spec: dict[str, Any], expected: float) -> None:
    patch = wishes.hold(a_blade(spec), "fan", "anna", NOW)
    at = utc(NOW + expected)
    assert patch == {"spec": {"hold": {"reason": "fan", "by": "anna", "at": at}}}


FAULT = {"code": "xid-79", "severity": "Fatal", "lastSeen": utc(NOW + 30)}


@pytest.mark.parametrize(
    ("blade", "expected"),
    [
        pytest.param(a_blade(), 0, id="now"),
        pytest.param(a_blade(incidents=[incident(60)]), 0, id="an old incident"),
        pytest.param(a_blade({"hold": word(0)}), 1, id="held this second"),
        pytest.param(a_blade(stateSince=utc(NOW + 30)), 31, id="state"),
        pytest.param(a_blade(incidents=[incident(-30)]), 31, id="incident"),
        pytest.param(a_blade(report={"faults": [FAULT]}), 31, id="fault"),
        pytest.param(
            a_blade(repair={"action": "Replace", "since": utc(NOW + 30)}), 31, id="repair"
        ),
        pytest.param(
            a_blade(
                qualification={
                    "results": [{"step": "burnIn", "passed": False, "at": utc(NOW + 30)}]
                }
            ),
            31,
            id="failed test",
        ),
    ],
)
def test_a_release_is_younger_than_all_that_is_known(blade: Blade, expected: float) -> None:
    patch = wishes.release(blade, "new fan", "anna", NOW, skip_burn_in=True)
    at = utc(NOW + expected)
    given = {"reason": "new fan", "by": "anna", "at": at, "skipBurnIn": True}
    assert patch == {"spec": {"release": given}}


@pytest.mark.parametrize(
    ("since", "expected"),
    [
        pytest.param(NOW - 60, NOW, id="now"),
        pytest.param(NOW + 60, float(int(NOW + 60)) + 0.001, id="a clock that is behind"),
    ],
)
def test_closing_is_later_than_the_opening(since: float, expected: float) -> None:
    breaker = {"state": "Open", "since": utc(since)}
    spec = {"nodeSelector": {}, "gpu": {"count": 8}}
    pool = NodePool.model_validate({"spec": spec, "status": {"breaker": breaker}})
    patch = wishes.close_breaker(pool, None, "anna", NOW)
    assert patch is not None
    annotations = patch["metadata"]["annotations"]
    assert parse(annotations[ANNOTATION_BREAKER_CLOSED]) == pytest.approx(expected, abs=1e-4)
    assert parse(annotations[ANNOTATION_BREAKER_CLOSED]) > parse(utc(since))


GOOD = {"state": "Healthy", "verdict": {"severity": "Info", "action": "None"}}


@pytest.mark.parametrize(
    ("blade", "held", "working"),
    [
        pytest.param(a_blade(**GOOD), False, True, id="works"),
        pytest.param(a_blade({"hold": word(60)}, **GOOD), True, False, id="held"),
        pytest.param(
            a_blade({"hold": word(60), "release": word(30)}, **GOOD), False, True, id="and released"
        ),
        pytest.param(
            a_blade({"hold": word(30), "release": word(60)}, **GOOD), True, False, id="held again"
        ),
        pytest.param(
            a_blade({"hold": word(30), "release": word(30)}, **GOOD), False, True, id="same moment"
        ),
        pytest.param(
            a_blade({"hold": word(0), "release": word(0, at=None)}, **GOOD),
            False,
            True,
            id="a release without a time",
        ),
        pytest.param(a_blade(state="Suspect"), False, False, id="in doubt"),
        pytest.param(
            a_blade(state="Healthy", verdict={"severity": "Fatal", "action": "Reset"}),
            False,
            False,
            id="faulty where nothing is done about it",
        ),
    ],
)
def test_who_is_held_and_who_works(blade: Blade, held: bool, working: bool) -> None:
    assert (wishes.is_held(blade), wishes.is_working(blade)) == (held, working)
