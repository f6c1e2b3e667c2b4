"""The fast engine against the real shells: the same faults, the same story."""

import pytest

from sim.halls import GPU, HOST, MEMORY, PACE, a_fault, play
from tramontane.controllers.trainingjob.goodput import Ledger
from tramontane.lab.fleet import Layout
from tramontane.lab.sim import engine as engines
from tramontane.lab.sim.engine import Engine, Setup
from tramontane.lab.sim.faults import Fault

HOURS_S = 2 * 3600.0


def fast(
    blades: int, nodes: int, faults: list[Fault], monkeypatch: pytest.MonkeyPatch, restart: str
) -> engines.Outcome:
    monkeypatch.setattr(engines, "faults", lambda *_: iter(faults))
    setup = Setup(
        Layout(blades=blades), nodes, 2, HOURS_S / 86400, 1, PACE,
        restart=restart, max_unavailable="50%",
    )  # fmt: skip
    return Engine(setup).run()


@pytest.mark.parametrize("restart", ["InPlace", "Gang"])
def test_both_drivers_tell_the_same(restart: str, monkeypatch: pytest.MonkeyPatch) -> None:
    faults = [
        a_fault(700, "gpu-0002", GPU),
        a_fault(1900, "gpu-0004", MEMORY),
        a_fault(3500, "gpu-0001", HOST),
        a_fault(6000, "gpu-0009", GPU),
    ]
    slow = play(10, 6, faults, HOURS_S, spares=2, recovery={"restart": restart})
    quick = fast(10, 6, faults, monkeypatch, restart)
    incidents = [
        (one.cause.value, one.code, one.blade, one.seats, one.rework_steps)
        for one in quick.status.incidents
    ]
    theirs = [
        (one["cause"], one["code"], one["blade"], tuple(one["seats"]), one["reworkSteps"])
        for one in slow.job["status"]["incidents"]
    ]
    # A gang that is made anew takes its survivors along; no incident names their seats.
    broken = [one for one in slow.violations if restart == "InPlace" or "is gone" not in one]
    assert broken == []
    assert len(theirs) >= 3
    assert [one[:4] for one in incidents] == [one[:4] for one in theirs]
    for ours, other in zip(incidents, theirs, strict=True):
        assert ours[4] == pytest.approx(other[4], abs=3)
    truth = slow.course.retained_s(engines.START_S + 60 + HOURS_S) / HOURS_S
    assert quick.ettr == pytest.approx(truth, rel=0.01)
    ratio = float(slow.job["status"]["goodput"]["ratio"])
    assert quick.ledger == pytest.approx(ratio, rel=0.01)
    assert Ledger.of(quick.status.goodput).total_ms == pytest.approx(HOURS_S * 1000, rel=0.01)
