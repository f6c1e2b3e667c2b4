"""The ledger over whole lives: it adds up whatever happens, and is near the truth.

TRAMONTANE_EXAMPLES=10000 lives through so many; a history that fails says its number, which is the
seed that makes it again.
"""

import os

import pytest

from tramontane.api.trainingjob import JobPhase
from tramontane.controllers.trainingjob.goodput import Ledger
from tramontane.controllers.trainingjob.plan import plan
from unit.trainingjob.history import History

EXAMPLES = int(os.environ.get("TRAMONTANE_EXAMPLES", "60"))
LOOKS = 60
# Looks without trouble at the end, until it trains; what hung is found by then.
CALM_LEAST, CALM_MOST = 8, 300


def live(history: History) -> None:
    """Live through a history until it trains at its end; each look is checked."""
    for _ in range(LOOKS):
        history.step()
    for calm in range(CALM_MOST):
        trains = history.status.phase is JobPhase.RUNNING and history.status.step is not None
        if calm >= CALM_LEAST and trains and history.trainer.alive:
            return
        history.step(calm=True)
    raise AssertionError("it does not come back")


@pytest.mark.timeout(3600)
def test_productive_and_lost_are_the_wall_time_in_every_history() -> None:
    compared = 0
    for seed in range(EXAMPLES):
        history = History(seed, clock_jumps=seed % 2 == 1)
        try:
            live(history)
            if history.jumps or history.was_blind:
                continue
            status = plan(history.world()).status
            told_s = Ledger.of(status.goodput).productive / 1000
            assert abs(told_s - history.productive_s) <= history.tolerance_s
            compared += 1
        except AssertionError as error:
            happened = "; ".join(history.happened[-12:])
            raise AssertionError(f"history {seed}: {happened}") from error
    assert compared >= EXAMPLES // 8
