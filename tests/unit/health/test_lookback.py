"""What a look back over time does to a blade: from readings over the report to the blade's state.

A link that has come back is well; a blade is not drained for it. One that does so again is.
"""

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest

from tramontane.api.blade import Report
from tramontane.health import host_past
from tramontane.health.checks.window import remember
from tramontane.health.device import NvLinkErrors, Reading, Sample
from tramontane.health.host import HostPast, HostReading, Port
from tramontane.health.report import Seen, Urgency, fold, urgency
from tramontane.kube.resources import BLADES
from unit.nodepool.hall import Hall
from unit.nodepool.steps import BLADE, healthy

from .builders import reading, with_gpu
from .hosts import port

MINUTE = 60
LOOK_S = 10
UP = (port(),)
Look = Callable[[int], tuple[Reading, tuple[Port, ...]]]


def recovered(*at_s: int) -> Look:
    def look(now_s: int) -> tuple[Reading, tuple[Port, ...]]:
        errors = NvLinkErrors(recoveries=(0, sum(at <= now_s for at in at_s)))
        return with_gpu(reading(), 3, nvlink_errors=errors), UP

    return look


def went_down(*at_s: int) -> Look:
    """Return a port that is down for 30 s each time, as when a leaf switch restarts."""

    def look(now_s: int) -> tuple[Reading, tuple[Port, ...]]:
        downs = sum(at <= now_s for at in at_s)
        down = any(at <= now_s < at + 30 for at in at_s)
        return reading(), (port(state="DOWN" if down else "ACTIVE", link_downed=downs),)

    return look


async def states(look: Look, until_s: int) -> list[tuple[str, int]]:
    """Return the states of a blade under a job, each with when it began (s)."""
    report: Report | None = None
    previous: tuple[Sample, ...] = ()
    past: HostPast | None = None
    seen: list[tuple[str, int]] = []
    async with Hall() as hall:
        await healthy(hall)
        hall.gang("llama", BLADE)
        start = hall.now
        for seconds in range(0, until_s, LOOK_S):
            hall.now = start + seconds
            gpus, ports = look(seconds)
            host = HostReading(ports=ports)
            past = host_past.remember(past, host, hall.now, hall.now - LOOK_S)
            now = replace(gpus, host=replace(host, past=past))
            folded = fold(report, Seen(now, previous=previous), hall.now, "test")
            previous = remember(previous, Sample(hall.now, now))
            if report is None or urgency(report, folded) is not Urgency.NONE:
                raw = copy.deepcopy(hall.blade(BLADE))
                new = folded.to_dict()
                raw["status"]["report"] |= {"agent": new["agent"], "faults": new.get("faults", [])}
                hall.api.put(BLADES, raw)
                report = folded
            hall.beat(BLADE)
            await hall.advance(0)
            if not seen or hall.state(BLADE) != seen[-1][0]:
                seen.append((hall.state(BLADE), seconds))
    return seen


@pytest.mark.parametrize("happens", [recovered, went_down])
async def test_once_is_doubted_for_a_while_and_then_well(happens: Callable[..., Look]) -> None:
    seen = await states(happens(600), 40 * MINUTE)
    assert [state for state, _ in seen] == ["Healthy", "Suspect", "Healthy"]
    assert seen[1][1] == 600
    assert abs(seen[2][1] - seen[1][1] - 11 * MINUTE) <= 30


@pytest.mark.parametrize(
    ("happens", "drained_s"),
    [
        pytest.param(recovered(600, 900), 1200, id="two-recoveries"),
        pytest.param(went_down(600, 900), 1200, id="two-outages"),
        pytest.param(went_down(600, 2400), 3000, id="two-outages-in-half-an-hour"),
    ],
)
async def test_again_is_drained(happens: Look, drained_s: int) -> None:
    seen = await states(happens, drained_s + 5 * MINUTE)
    assert seen[-1][0] == "Draining"
    assert abs(seen[-1][1] - drained_s) <= 20
