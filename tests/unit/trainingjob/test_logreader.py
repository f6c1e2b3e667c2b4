"""Reading a log leaves time for everything else, whatever comes."""

import asyncio
import re
from typing import Any

import pytest

from tramontane.api.trainingjob import DEFAULT_STEP_PATTERN
from tramontane.controllers.trainingjob.logreader import Crowd, LogReader, compiled
from tramontane.controllers.trainingjob.progress import Progress
from unit.trainingjob.builders import NOW, a_pod
from unit.trainingjob.logs import Logs, line, until


@pytest.mark.parametrize(
    ("behind", "share"),
    [
        pytest.param(0, 10, id="nobody is behind"),
        pytest.param(1, 10, id="one: a tenth of a core"),
        pytest.param(4, 10, id="a few: a tenth each"),
        pytest.param(100, 201, id="many: half a core together"),
    ],
)
def test_who_is_behind_shares_what_there_is(behind: int, share: int) -> None:
    assert Crowd(behind).rest_s(0.01) + 0.01 == pytest.approx(0.01 * share)


async def test_a_flood_leaves_the_loop_to_others() -> None:
    flood = [line(NOW, f"step {number} and more") for number in range(1, 30_001)]
    client: Any = Logs(flood)
    crowd, told = Crowd(), [0]
    progress = Progress(re.compile(DEFAULT_STEP_PATTERN), None)
    reader = LogReader(client, lambda: NOW, progress, lambda: None, crowd)
    turns = most = 0

    async def others() -> None:
        nonlocal turns, most
        while True:
            await asyncio.sleep(0)
            turns += not progress.is_fresh and told[0] < 30_000
            told[0] = progress.marks().step or 0
            most = max(most, crowd.behind)

    reader.begin(a_pod(0, "b0"))
    reading = asyncio.create_task(reader.run(a_pod(0, "b0"), "trainer"))
    running = asyncio.create_task(others())
    await until(lambda: told[0] == 30_000)
    for task in (reading, running):
        task.cancel()
    await asyncio.gather(reading, running, return_exceptions=True)
    reader.closed()

    assert turns > 3, "a slice of 10 ms takes some thousands of lines"
    assert (most, crowd.behind) == (1, 0)


def test_a_pattern_is_compiled_or_told(caplog: pytest.LogCaptureFixture) -> None:
    assert compiled(None, "ml/llama") is None
    assert compiled("", "ml/llama") is None
    assert compiled("(?P<step>1)", "ml/llama") == re.compile("(?P<step>1)")
    assert caplog.text == ""
    assert compiled("(", "ml/llama") is None
    assert "job=ml/llama" in caplog.text
