"""A delivery, shown: 64 blades arrive, five of them bad in different ways, and each is found.

The blades, their tests and their repairs are simulated; operator, scheduler and API server are
real. Nobody tells them which five: a missing GPU shows in the first report, slow memory in the
burn-in, a bad link only in a collective test of eight, of which the bad one is then singled out;
a fault that comes and goes outlives its repairs, and a silent agent is noticed for its silence.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tramontane.kube.resources import NODEPOOLS
from tramontane.lab.cluster import MANAGER, Lab, Setup, pool_of
from tramontane.lab.course import Course, View
from tramontane.lab.faults import parse_fault
from tramontane.lab.fleet import Layout
from tramontane.lab.invariants import Violation
from tramontane.lab.scenario import Findings, play
from tramontane.lab.timeline import Timeline, plain
from tramontane.lab.watcher import Watcher

Raw = dict[str, Any]

BLADES = 64
RACK = 8
TRANCHE = "t1"
_IMAGE = "registry.example/tramontane-checks:1"
# A silent agent is found after `unknownAfter`, which is 60 s at least; the rest is sooner.
_PATIENCE_S = 150.0
_SETTLE_S = 15.0
_TICK_S = 5.0


@dataclass(frozen=True, slots=True)
class Bad:
    """A blade that is bad, and how it must be found: by which step, in which end."""

    name: str
    fault: str
    gpu: int
    step: str
    state: str
    reasons: frozenset[str]

    def is_found(self, seen: View | None) -> bool:
        """Return whether the blade is where it belongs."""
        return seen is not None and seen.state == self.state and seen.reason in self.reasons


BAD = (
    Bad("gpu-0003", "dead-on-arrival", 5, "inventory", "Quarantined",
        frozenset({"InventoryMismatch"})),
    Bad("gpu-0018", "flapping", 2, "repair", "RMA",
        frozenset({"RepairFailed", "HardwareFault", "Flapping"})),
    Bad("gpu-0029", "slow-memory", 6, "burn-in", "Quarantined", frozenset({"BurnInFailed"})),
    Bad("gpu-0044", "bad-link", 0, "collective", "Quarantined", frozenset({"CollectiveFailed"})),
    Bad("gpu-0060", "agent-silent", 0, "heartbeat", "Unknown", frozenset({"AgentSilent"})),
)  # fmt: skip
# What each GPU of this delivery must reach; the example of docs/qualification.md.
_LEAST = (
    "--backend=cuda",
    "--min-tflops=500",
    "--min-memory-bandwidth=3600",
    "--min-host-bandwidth=48",
)
_SICK = frozenset(bad.name for bad in BAD)


def tranche_pool(layout: Layout) -> Raw:
    """Return a NodePool that tests what arrives, and repairs what can be repaired."""
    pool = pool_of(layout)
    pool["spec"] |= {
        "qualification": {
            "soak": "5s",
            "burnIn": {"template": _template("burnin", *_LEAST), "timeout": "60s"},
            "collective": {
                "template": _template("collective"),
                "groupSize": 8,
                "minBandwidth": 300,
                "timeout": "60s",
            },
        },
        "health": {"clearAfter": "10s", "unknownAfter": "60s"},
        "remediation": {
            "maxUnavailable": "10%",
            "attempts": 2,
            "reset": {"template": _template("reset")},
            "reboot": {"template": _template("reboot")},
        },
    }
    return pool


def _template(check: str, *arguments: str) -> Raw:
    command = ["python", "-m", f"tramontane.health.{check}", *arguments]
    return {"spec": {"containers": [{"name": check, "image": _IMAGE, "command": command}]}}


async def run(folder: Path, console: Console, *, keep: bool = False) -> int:
    """Run the scenario; returns 0, or 1 when an invariant was broken.

    Raises:
        LabError, TimeoutError: something did not come up or did not happen in time.
    """
    layout = Layout(blades=BLADES, rack=RACK)
    opening = (
        f"{BLADES} simulated blades of {layout.gpus} GPUs in {BLADES // RACK} racks, "
        f"{len(BAD)} of them bad; starting etcd, kube-apiserver, kube-controller-manager, KWOK, "
        "operator, scheduler, agents"
    )
    return await play(folder, console, Setup(layout), opening, _story, keep=keep)


async def _story(lab: Lab, watcher: Watcher, timeline: Timeline) -> Findings:
    watcher.sick = _SICK
    async with lab.remote() as remote:
        for bad in BAD:
            await remote.inject(bad.name, parse_fault(bad.fault, bad.gpu))
    course = Course(lambda text, at: timeline.say(text, at=at, style="yellow"))
    watcher.blades.add_listener(course.saw)
    pool = tranche_pool(lab.setup.layout)
    name = pool["metadata"]["name"]
    began = time.monotonic()
    await lab.client.apply(NODEPOOLS, pool, manager=MANAGER)
    timeline.say(f"tranche {TRANCHE} arrives: {BLADES} blades for NodePool {name}")

    broken = await _decide(watcher, timeline, course)
    status, more = await _settle(watcher, name)
    broken += [*more, *_ever_healthy(course), *watcher.violations()]
    return Findings(
        rows=_rows(course, began),
        violations=broken,
        tables=[_found_table(course, began), _states_table(name, status), _tranche_table(status)],
    )


async def _decide(watcher: Watcher, timeline: Timeline, course: Course) -> list[Violation]:
    """Return when every blade is Healthy or found; those that are not in time are violations."""
    told: set[str] = set()

    def decided() -> bool | None:
        for bad in BAD:
            if bad.name not in told and bad.is_found(course.views.get(bad.name)):
                told.add(bad.name)
                timeline.good(
                    f"{bad.name} found by its {bad.step}: {bad.fault}", at=course.since[bad.name]
                )
        healthy = set(course.in_state("Healthy")) - _SICK
        return (len(told) == len(BAD) and len(healthy) == BLADES - len(BAD)) or None

    with timeline.during("qualifying") as show:
        ticking = asyncio.create_task(_tick(timeline, course, show))
        try:
            _, at = await watcher.until("a verdict on each blade", decided, timeout_s=_PATIENCE_S)
        except TimeoutError:
            return _undecided(course)
        finally:
            ticking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await ticking
    timeline.good(f"every blade is Healthy or out for good: {course.counts()}", at=at)
    return []


async def _tick(timeline: Timeline, course: Course, show: Callable[[str], None]) -> None:
    """Say every few seconds how far it is, where that has changed."""
    said = ""
    while True:
        await asyncio.sleep(_TICK_S)
        if (counts := course.counts()) != said:
            said = counts
            show(counts)
            timeline.say(counts, style="dim")


def _undecided(course: Course) -> list[Violation]:
    """Return a violation for each blade that is not where it belongs."""
    now, found = time.monotonic(), []
    expected = {bad.name: bad for bad in BAD}
    for name in Layout(blades=BLADES).names():
        seen = course.views.get(name, View(name))
        got = f"got {seen.state or 'no state'} {seen.reason}: {seen.message}"
        bad = expected.get(name)
        if bad is None and seen.state != "Healthy":
            text = f"{name} must be Healthy within {_PATIENCE_S:.0f} s ({got})"
            found.append(Violation("every good blade works", text, now))
        elif bad is not None and not bad.is_found(seen):
            text = f"{name} ({bad.fault}) must be {bad.state} by its {bad.step} ({got})"
            found.append(Violation("every bad blade is found by the right step", text, now))
    return found


def _ever_healthy(course: Course) -> list[Violation]:
    """Return a violation for each bad blade that was given to work in between."""
    return [
        Violation("no bad blade passes", f"{bad.name} ({bad.fault}) was Healthy", time.monotonic())
        for bad in BAD
        if (bad.name, "Healthy") in course.first
    ]


async def _settle(watcher: Watcher, pool: str) -> tuple[Raw, list[Violation]]:
    """Return the pool's status once its counts are right, or what is wrong with them."""

    def status() -> Raw:
        found: Raw = watcher.pools.cache.get(pool, {}).get("status") or {}
        return found

    with contextlib.suppress(TimeoutError):
        await watcher.until(
            "the pool's counts", lambda: not wrong_counts(status()) or None, timeout_s=_SETTLE_S
        )
    wrong = wrong_counts(status())
    return status(), [Violation("the pool's counts", text, time.monotonic()) for text in wrong]


def wrong_counts(status: Raw) -> list[str]:
    """Return which of the pool's counts are not those of this tranche."""
    blades = status.get("blades") or {}
    tranches = status.get("tranches") or ()
    tranche: Raw = next((one for one in tranches if one["name"] == TRANCHE), {})
    ends = [bad.state for bad in BAD]
    good = BLADES - len(BAD)
    judged = BLADES - ends.count("Unknown")  # a silent blade has not failed its tests
    wanted = {
        "blades.total": (BLADES, blades.get("total", 0)),
        "blades.healthy": (good, blades.get("healthy", 0)),
        "blades.quarantined": (ends.count("Quarantined"), blades.get("quarantined", 0)),
        "blades.rma": (ends.count("RMA"), blades.get("rma", 0)),
        "blades.unknown": (ends.count("Unknown"), blades.get("unknown", 0)),
        "tranche.delivered": (BLADES, tranche.get("delivered", 0)),
        "tranche.qualifying": (0, tranche.get("qualifying", 0)),
        "tranche.healthy": (good, tranche.get("healthy", 0)),
        "tranche.faulty + rma": (len(BAD), tranche.get("faulty", 0) + tranche.get("rma", 0)),
        "tranche.passRate": (f"{good / judged:.2f}", tranche.get("passRate", "")),
    }
    return [
        f"{what} must be {must} (got {got})" for what, (must, got) in wanted.items() if must != got
    ]


def _rows(course: Course, began: float) -> list[tuple[str, str, str]]:
    """Return what was measured: times from the delivery, and groups."""
    healthy = sorted(at for (_, state), at in course.first.items() if state == "Healthy")
    found = [course.since[bad.name] for bad in BAD if bad.name in course.since]
    failed = sum(not passed for passed in course.groups.values())
    rows = []
    if healthy:
        rows.append(("delivery → first blade Healthy", f"{healthy[0] - began:.1f} s", ""))
        rows.append(("delivery → last blade Healthy", f"{healthy[-1] - began:.1f} s", ""))
    if found:
        rows.append(("delivery → last bad blade found", f"{max(found) - began:.1f} s", ""))
    rows.append(("groups tested, of which failed", f"{len(course.groups)}, {failed}", ""))
    return rows


def _found_table(course: Course, began: float) -> Table:
    table = plain("The bad blades", "blade", "fault", "found by", "state", "reason", "after")
    for bad in BAD:
        seen = course.views.get(bad.name, View(bad.name))
        after = f"{course.since[bad.name] - began:.1f} s" if bad.name in course.since else "-"
        table.add_row(bad.name, bad.fault, bad.step, seen.state, seen.reason, after)
    return table


def _states_table(name: str, status: Raw) -> Table:
    states = ("total", "healthy", "qualifying", "suspect", "quarantined", "repairing", "rma",
              "unknown", "lost")  # fmt: skip
    table = plain("The pool", "name", *states)
    blades = status.get("blades") or {}
    table.add_row(name, *(str(blades.get(state, 0)) for state in states))
    return table


def _tranche_table(status: Raw) -> Table:
    columns = ("delivered", "qualifying", "healthy", "faulty", "rma", "passRate")
    table = plain("Its tranches", "tranche", *columns)
    for one in status.get("tranches") or ():
        table.add_row(one["name"], *(str(one.get(column, 0)) for column in columns))
    return table
