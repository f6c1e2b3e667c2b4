"""What a blade's status tells of its way becomes a line, a count, or nothing."""

from typing import Any

import pytest

from tramontane.lab.course import Course, View, news, view
from tramontane.lab.demo_tranche import BAD, TRANCHE, wrong_counts

QUALIFYING = View("gpu-1", "Qualifying", step="soak")
OUT = View("gpu-1", "Repairing", "HardwareFault", "reset, attempt 1", repairs=1)


def blade(name: str, state: str, **status: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "status": {"state": state, **status}}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        pytest.param(None, View("gpu-1", "Delivered"), "", id="delivered"),
        pytest.param(None, View("gpu-1"), "", id="no-state-yet"),
        pytest.param(QUALIFYING, View("gpu-1", "Healthy"), "", id="healthy"),
        pytest.param(
            QUALIFYING,
            View("gpu-1", "Quarantined", "BurnInFailed", "GPU 3: slow"),
            "gpu-1 Quarantined BurnInFailed: GPU 3: slow",
            id="quarantined",
        ),
        pytest.param(OUT, OUT, "", id="the-same"),
        pytest.param(
            OUT,
            View("gpu-1", "Repairing", "HardwareFault", "reboot, attempt 2", repairs=2),
            "gpu-1 Repairing HardwareFault: reboot, attempt 2",
            id="another-repair",
        ),
        pytest.param(
            OUT, View("gpu-1", "Requalifying", message="soak"), "gpu-1 Requalifying: soak",
            id="no-reason",
        ),
        pytest.param(OUT, View("gpu-1", "Healthy"), "gpu-1 Healthy again", id="back"),
        pytest.param(OUT, View("gpu-1", "Qualifying"), "", id="on-its-way"),
    ],
)  # fmt: skip
def test_only_what_is_not_expected_is_said(old: View | None, new: View, said: str) -> None:
    assert news(old, new) == said


def test_long_evidence_is_cut() -> None:
    said = news(None, View("gpu-1", "Quarantined", "HardwareFault", "x" * 500))
    assert said.endswith("…")
    assert len(said) < 160


def test_a_blade_is_read() -> None:
    results = [
        {"step": "soak", "passed": True},
        {"step": "collective", "passed": False, "group": "c3-8", "evidence": "41.7 GB/s"},
        {"step": "collective", "passed": True, "group": "d4-2"},
    ]
    found = view(
        blade(
            "gpu-1",
            "Qualifying",
            message="collective: runs in group e5-2",
            qualification={"step": "collective", "results": results},
            repair={"attempts": 2},
        )
    )
    assert (found.step, found.repairs, found.reason) == ("collective", 2, "")
    assert found.groups == {"c3-8": False, "d4-2": True}
    assert found.evidence == {"c3-8": "41.7 GB/s"}
    assert view({"metadata": {"name": "gpu-1"}}) == View("gpu-1")


def test_a_course_counts_and_says_a_failed_group_once() -> None:
    said: list[tuple[str, float]] = []
    now = 100.0
    course = Course(lambda text, at: said.append((text, at)), clock=lambda: now)
    group = {"step": "collective", "passed": False, "group": "c3-2", "evidence": "41.7 GB/s"}
    asked = {"step": "collective", "results": [group]}
    for name in ("gpu-1", "gpu-2"):
        course.saw(name, None, blade(name, "Qualifying", qualification={"step": "soak"}))
    assert course.counts() == "2 Qualifying (2 soak)"
    for name in ("gpu-1", "gpu-2"):
        course.saw(name, None, blade(name, "Qualifying", qualification=asked))
    assert said == [("group c3-2 failed: 41.7 GB/s", 100.0)]
    assert course.groups == {"c3-2": False}

    now = 110.0
    course.saw("gpu-1", None, blade("gpu-1", "Healthy"))
    course.saw("gpu-2", None, blade("gpu-2", "Quarantined", reason="CollectiveFailed"))
    course.saw("gpu-2", None, None)
    assert course.counts() == "1 Healthy, 1 Quarantined"
    assert course.in_state("Healthy") == ["gpu-1"]
    assert course.first["gpu-1", "Qualifying"] == 100.0
    assert course.since == {"gpu-1": 110.0, "gpu-2": 110.0}


def right_status() -> dict[str, Any]:
    return {
        "blades": {"total": 64, "healthy": 59, "quarantined": 3, "rma": 1, "unknown": 1},
        "tranches": [
            {
                "name": TRANCHE,
                "delivered": 64,
                "healthy": 59,
                "faulty": 4,
                "rma": 1,
                "passRate": "0.94",
            }
        ],
    }


def test_the_right_counts_are_right() -> None:
    assert wrong_counts(right_status()) == []


def test_counts_that_are_wrong_are_named_with_both_values() -> None:
    status = right_status()
    status["blades"]["healthy"] = 60
    assert wrong_counts(status) == ["blades.healthy must be 59 (got 60)"]
    assert len(wrong_counts({})) == 9, "all but those still qualifying"


@pytest.mark.parametrize(
    ("state", "reason", "found"),
    [
        pytest.param("Quarantined", "BurnInFailed", True, id="as-expected"),
        pytest.param("Quarantined", "HardwareFault", False, id="by-another-step"),
        pytest.param("Healthy", "", False, id="not-found"),
    ],
)
def test_a_bad_blade_must_be_found_by_its_step(state: str, reason: str, *, found: bool) -> None:
    slow = next(bad for bad in BAD if bad.fault == "slow-memory")
    assert slow.is_found(View(slow.name, state, reason)) is found
    assert not slow.is_found(None)
