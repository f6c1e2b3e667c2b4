"""Who counts as out, and how many may be."""

import pytest

from tramontane.api.blade import BladeState
from tramontane.api.reasons import BladeReason
from tramontane.controllers.nodepool.budget import Ledger, is_out

REFUSED = BladeReason.BUDGET_EXHAUSTED


@pytest.mark.parametrize(
    ("state", "reason", "reported", "expected"),
    [
        pytest.param(None, None, False, False, id="not seen yet"),
        pytest.param(BladeState.DELIVERED, None, False, False, id="delivered"),
        pytest.param(BladeState.QUALIFYING, None, True, False, id="qualifying"),
        pytest.param(BladeState.HEALTHY, None, True, False, id="healthy"),
        pytest.param(BladeState.SUSPECT, BladeReason.HARDWARE_FAULT, True, False, id="suspect"),
        pytest.param(BladeState.QUARANTINED, None, True, True, id="quarantined"),
        pytest.param(
            BladeState.QUARANTINED, BladeReason.HELD_BY_PERSON, True, True, id="held by a person"
        ),
        pytest.param(BladeState.DRAINING, None, True, True, id="draining"),
        pytest.param(BladeState.REPAIRING, None, True, True, id="repairing"),
        pytest.param(BladeState.REQUALIFYING, None, True, True, id="requalifying"),
        pytest.param(BladeState.RMA, None, True, True, id="rma"),
        pytest.param(BladeState.LOST, None, False, True, id="lost"),
        pytest.param(BladeState.UNKNOWN, None, False, False, id="never spoke"),
        pytest.param(BladeState.UNKNOWN, BladeReason.AGENT_SILENT, True, True, id="fell silent"),
        pytest.param(BladeState.UNKNOWN, REFUSED, True, False, id="refused by the budget"),
        pytest.param(
            BladeState.UNKNOWN, BladeReason.BREAKER_OPEN, True, False, id="refused by the breaker"
        ),
    ],
)
def test_who_is_out(
    state: BladeState | None, reason: BladeReason | None, reported: bool, expected: bool
) -> None:
    assert is_out(state, reason, reported=reported) is expected


def test_a_tranche_that_qualifies_takes_nothing_of_the_budget() -> None:
    ledger = Ledger()
    for n in range(64):
        out = is_out(BladeState.QUALIFYING, None, reported=True)
        ledger.note(f"gpu-{n}", "paris", out=out)
    assert (ledger.total("paris"), ledger.out("paris")) == (64, 0)
    assert ledger.grants("gpu-0", "paris", limit=6)
