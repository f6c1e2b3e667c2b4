"""How much Prometheus has to keep of a hall of 10,000 GPUs; how fast it is told is a benchmark."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.monitored import BLADES

TESTS = Path(__file__).parents[2]
MOST_SERIES = 300_000
MOST_LINES = 200


def scraped(component: str) -> dict[str, Any]:
    roots = [str(TESTS), *(entry for entry in sys.path if entry)]
    done = subprocess.run(
        [sys.executable, "-m", "support.monitored", component],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(roots)},
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.timeout(300)  # three processes on a machine that may be busy
def test_a_hall_of_10_000_gpus_has_at_most_300_000_series() -> None:
    operator, scheduler, agent = map(scraped, ("operator", "scheduler", "agent"))
    assert agent["lines"] <= MOST_LINES, agent
    # All that was put in is there: the smallest of these is a series per job, blade, deployment.
    assert operator["series"] > 60_000, operator
    assert scheduler["series"] > 600, scheduler
    total = operator["series"] + scheduler["series"] + BLADES * agent["series"]
    assert total <= MOST_SERIES, (operator, scheduler, agent)
