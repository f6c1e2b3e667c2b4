"""Every panel's query finds data in a real Prometheus over a hall in which things go wrong.

One hall for all of it, as it takes a minute until everything has happened: so one test, which
gathers what it misses and says all of it at once.
"""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tramontane.lab.observe.boards import Board, all_boards, targets
from tramontane.lab.observe.boards.promql import filled
from tramontane.lab.observe.live import Live, live
from tramontane.lab.observe.liveprometheus import has_data

# Beside the other tests of the plane all of it takes two minutes.
pytestmark = [pytest.mark.usefixtures("_built"), pytest.mark.timeout(400)]

PATIENCE_S = 60.0
LABEL_VALUES = re.compile(r"label_values\((?P<series>.*), (?P<label>\w+)\)")

Query = tuple[str, str]


def queries(hall: Live) -> Iterator[Query]:
    """Yield each query that must find something, with its place; variables as Grafana fills them.

    Grafana's rate interval is four scrapes at least.
    """
    known = {
        "$blade": hall.show["blade"],
        "$__rate_interval": f"{round(4 * hall.prometheus.scrape_s)}s",
        "$__range": "300s",
        "$__interval": "2s",  # the step of `since_start`
    }
    for board in all_boards():
        for target in targets(board):
            if not target.optional:
                place = f"{board.uid}: {target.panel} {target.ref_id}"
                yield place, filled(target.expr, known)
        yield from choices(board, known)


def choices(board: Board, known: dict[str, str]) -> Iterator[Query]:
    """Yield what fills the variables of a board."""
    for variable in board.json["templating"]["list"]:
        if variable["type"] == "query":
            found = LABEL_VALUES.fullmatch(variable["query"]["query"])
            assert found, f"{board.uid}: ${variable['name']} must be of label_values"
            series = filled(found["series"], known)
            yield f"{board.uid}: ${variable['name']}", f"group by ({found['label']}) ({series})"


async def without_data(hall: Live) -> list[Query]:
    """Return the queries that find nothing but NaN, however long one waits."""
    missing = list(queries(hall))
    assert len(missing) > 100
    deadline = asyncio.get_running_loop().time() + PATIENCE_S
    while True:
        missing = [
            one for one in missing if not has_data(await hall.prometheus.since_start(one[1]))
        ]
        if not missing or asyncio.get_running_loop().time() > deadline:
            return missing
        await asyncio.sleep(2)


async def test_every_panel_finds_data_and_the_storm_is_told_of(tmp_path: Path) -> None:
    async with live(tmp_path / "hall") as hall:
        await hall.open()
        missing = await without_data(hall)
        down, broken = await hall.prometheus.down(), await hall.prometheus.broken_rules()
        alerts = await hall.prometheus.alerts()
        storms = await hall.prometheus.now('ALERTS{alertname="TramontaneQuarantineStorm"}')

    wrong: dict[str, Any] = {
        "targets that do not answer": down,
        "rules that cannot be evaluated": broken,
        "panels without data": [f"{place}\n    {expr}" for place, expr in missing],
        # One blade that fell ill is no storm; the pool whose breaker opened has one.
        "storms": [] if pools_of(storms) == {"paris-b"} else storms,
        "alerts of what is well": sorted(alerts & WELL),
    }
    said = [
        f"{what}: {len(found)}\n  " + "\n  ".join(map(str, found))
        for what, found in wrong.items()
        if found
    ]
    if said:
        pytest.fail("\n".join(said), pytrace=False)


def pools_of(alerts: list[dict[str, Any]]) -> set[str]:
    return {one["metric"]["pool"] for one in alerts if one["metric"]["alertstate"] == "firing"}


# Here somebody leads, agents speak, clocks are one machine's, and nothing fails at its work.
WELL = {
    "TramontaneNoLeader",
    "TramontaneAgentSilent",
    "TramontaneClockSkew",
    "TramontaneReconcileErrors",
    "TramontaneTtftBurn",
    "TramontaneQuarantineStuck",
    "TramontaneCheckpointStale",
}
