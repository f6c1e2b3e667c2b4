"""The whole path under fire: see tests/bench/kill.py, of which this is one moment of each kind."""

import pytest

from bench.kill import torment

pytestmark = pytest.mark.plane


@pytest.mark.timeout(280)
async def test_a_job_survives_kills_while_it_starts_and_recovers() -> None:
    rounds, violations = await torment(1, seed=7, say=print)
    assert [one["wrong"] for one in rounds] == ["", ""]
    assert violations == []
