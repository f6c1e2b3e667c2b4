"""What applications do to the driver takes no blade out, and a flood costs little.

The day of a pool is assumed much worse than any that was measured. Llama 3 405B had 54 failures
by software in 54 days on 2,048 blades, 0.0005 a blade-day (health.md 4); here every second blade
has a failing job each day, which recovery restarts in place until `userFailures.max` (3) is
reached. Three of five such jobs have a bug in one rank, which strikes one GPU, the same after
every restart; the others strike all eight. XID 45 follows on all GPUs. Units are as random as the
data.
"""

import json
import random
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tramontane.api import clock
from tramontane.api.blade import Action, BladeState, Incident, Report, Severity
from tramontane.controllers.nodepool import verdict
from tramontane.controllers.nodepool.policy import Policy, Rule
from tramontane.controllers.nodepool.state import NodeSign, Prior, Ruling, Signs, decide
from tramontane.health.device import Event
from tramontane.health.report import Seen, Urgency, fold, urgency

from .builders import NOW, codes, folded, xid
from .lines import LOGGED, burst, nvrm
from .test_fault_matrix import POLICY

BLADES = 1000
DAY_S = 24 * 3600.0
FAILING_JOBS_A_DAY = 0.5
ONE_RANK = 0.6
CRASHES = 3


def crash(code: int, gpus: list[int], at: float, rng: random.Random) -> Iterator[Event]:
    """Yield what the driver says when a job dies; half a second from one GPU to the next."""
    for number, index in enumerate(gpus):
        when = at + number * 0.5
        if code == 13:
            for _ in range(rng.randint(1, 4)):
                yield from burst(rng.randrange(8), rng.randrange(9), index, when)
        else:
            yield nvrm(code, "of the application", index, when)
    for index in range(8):
        yield nvrm(45, "Ch 00000008", index, at + rng.uniform(0, 5))


def day_of(rng: random.Random) -> list[tuple[float, list[Event]]]:
    """Return the crashes of one blade's day."""
    crashes: list[tuple[float, list[Event]]] = []
    at = 0.0
    while (at := at + rng.expovariate(FAILING_JOBS_A_DAY / DAY_S)) < DAY_S:
        code = rng.choice((13, 31, 43, 68))
        gpus = [rng.randrange(8)] if rng.random() < ONE_RANK else list(range(8))
        begin = NOW + at
        for _ in range(CRASHES):
            crashes.append((begin, list(crash(code, gpus, begin, rng))))
            begin += rng.uniform(60, 1800)
    return sorted(crashes, key=lambda one: one[0])


def state_of(report: Report, now: float, policy: Policy = POLICY) -> BladeState:
    """Return the state at the worst moment: idle, and with what is wrong wrong for an hour."""
    finding = verdict.judge(report, policy, now, None)
    doubted = Incident(
        at=clock.utc(now - 3600),
        code=finding.code,
        to=BladeState.SUSPECT,
        severity=finding.severity,
    )
    open_fault = doubted if finding.severity is Severity.DEGRADED else None
    signs = Signs(
        now, NodeSign.READY, reported=True, reported_at=now, finding=finding, agent_silence_s=1.0
    )
    return decide(signs, Prior(BladeState.HEALTHY, open_fault), policy, Ruling.GRANTED).state


def test_a_day_of_application_xids_on_1000_blades_takes_none_out() -> None:
    rng = random.Random(5)
    seen: dict[BladeState, int] = dict.fromkeys(BladeState, 0)
    events, largest = 0, folded(None, LOGGED)
    for _ in range(BLADES):
        report, states = folded(None, LOGGED), {BladeState.HEALTHY}
        for at, happened in day_of(rng):
            # The agent sees a crash as it goes on: the first lines alone, then the rest.
            for part in (happened[:1], happened[1:]):
                now = max(event.at for event in part)
                report = fold(report, Seen(LOGGED, events=tuple(part)), now, "test")
                states.add(state_of(report, max(now, at)))
                largest = max(largest, report, key=lambda one: len(one.faults))
            events += len(happened)
        for state in states:
            seen[state] += 1
    assert events > 10 * BLADES
    assert seen[BladeState.QUARANTINED] == 0
    assert {state for state, blades in seen.items() if blades} <= {
        BladeState.HEALTHY,
        BladeState.SUSPECT,
    }
    # A twentieth takes no new work for a while: what repeats on one GPU may be the GPU.
    assert seen[BladeState.SUSPECT] <= BLADES / 10
    assert len(json.dumps(largest.to_dict()["faults"])) < 10_000


@pytest.mark.parametrize(
    ("count", "crashes", "state"),
    [
        pytest.param(1, 1, BladeState.QUARANTINED, id="at-once"),
        pytest.param(3, 2, BladeState.HEALTHY, id="not-often-enough"),
        pytest.param(3, 3, BladeState.QUARANTINED, id="often-enough"),
    ],
)
def test_a_pool_may_take_what_the_catalogue_ignores_for_a_fault(
    count: int, crashes: int, state: BladeState
) -> None:
    rule = Rule("xid-43", None, count, DAY_S, Severity.FATAL, Action.RESET)
    report = folded(None, LOGGED)
    for number in range(crashes):
        at = NOW + number * 600
        batch = tuple(nvrm(43, "Ch 00000008", 3, at + line) for line in range(5))
        report = fold(report, Seen(LOGGED, events=batch), at + 5, "test")
    assert state_of(report, at + 6, replace(POLICY, rules=(rule,))) is state
    assert state_of(report, at + 6) is BladeState.HEALTHY


def test_672_of_xid_45_in_three_hours_take_none_of_three_blades_out() -> None:
    rng = random.Random(45)
    for _ in range(3):
        report = folded(None, LOGGED)
        for at in sorted(rng.uniform(0, 3 * 3600) for _ in range(672 // 3)):
            event = nvrm(45, "Ch 00000008", rng.randrange(8), NOW + at)
            report = folded(report, LOGGED, event, now=event.at)
            assert state_of(report, event.at) is BladeState.HEALTHY
        assert set(codes(report)) == {"xid-45"}


@pytest.mark.parametrize("source", ["nvml", "kmsg"])
def test_800000_of_xid_95_are_one_fault_per_gpu_and_bounded_work(source: str) -> None:
    batch, batches = 4096, 196  # the agent keeps 4,096 events from one fold to the next
    line = nvrm(95, "Uncontained: LTC TAG (0x7,0x0). RST: Yes, D-RST: No")
    kinds = [
        xid(95, index) if source == "nvml" else replace(line, gpu=index, uuid=xid(95, index).uuid)
        for index in range(8)
    ]
    flood = tuple(kinds[number % 8] for number in range(batch))
    first = report = folded(None, LOGGED, *flood[:8])
    began = time.process_time()
    for _ in range(batches):
        report = fold(report, Seen(LOGGED, events=flood), NOW, "test")
    spent_s = time.process_time() - began
    assert [(fault.code, fault.gpu, fault.count) for fault in report.faults] == [
        ("xid-95", index, 1) for index in range(8)
    ]
    assert batch * batches > 800_000
    # A repeat is no news, and costs some microseconds; ten times what it does on a slow machine.
    assert urgency(first, report) is not Urgency.NOW
    assert spent_s / (batch * batches) < 100e-6
