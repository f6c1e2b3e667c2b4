"""What people are told of decisions: Events, and metrics of the pass."""

from prometheus_client import REGISTRY

from tramontane.api.reasons import PendingReason
from tramontane.scheduler import metrics
from unit.scheduler.builders import Hall, gang
from unit.scheduler.shell import Bench, node


def value(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(f"tramontane_scheduler_{name}", labels)


async def test_a_gang_that_must_leave_is_told_once() -> None:
    bench = Bench(blades=2)
    before = value("preemptions_total", pool="p") or 0
    bench.submit("low", 2)
    await bench.run_pass()
    bench.watch("low")
    bench.submit("high", 2, priority=9)
    await bench.run_pass()
    bench.watch("low")
    bench.watch("high")
    await bench.run_pass()
    assert bench.status("low")["phase"] == "Preempting"
    assert bench.status("low")["preempt"]["by"] == "ns/high"
    assert bench.events() == [("low", "Preempted")]
    assert (value("preemptions_total", pool="p") or 0) - before == 1


async def test_odd_labels_are_told_when_they_change() -> None:
    bench = Bench(blades=2)
    for name in ("n0", "n1"):
        bench.tell("_nodes", name, node(labels={}))
    await bench.run_pass()
    assert bench.events() == [("p", "Misconfigured")] * 2  # one per level
    await bench.run_pass()
    assert bench.events() == []
    assert value("topology_oddities", pool="p") == 2


async def test_a_pool_is_measured_after_each_pass() -> None:
    bench = Bench(blades=4)
    bench.submit("three", 3)
    await bench.run_pass()
    bench.watch("three")
    bench.submit("two", 2)
    await bench.run_pass()
    assert value("gpus", pool="p", use="allocated") == 24
    assert value("gpus", pool="p", use="free") == 8
    assert value("waiting_blades", pool="p") == 2
    assert value("reserved_gangs", pool="p") == 1


def test_what_is_counted_seldom_begins_at_nothing() -> None:
    for reason in PendingReason:
        assert value("gang_wait_seconds_count", reason=reason) is not None
    assert value("bindings_total", outcome="refused") is not None
    assert value("promises_total", outcome="late") is not None


async def test_a_pool_has_no_preemptions_at_first() -> None:
    bench = Bench(blades=1)
    await bench.run_pass()
    assert value("preemptions_total", pool="p") is not None


def test_a_gang_that_shall_hold_nothing_does_not_wait() -> None:
    hall = Hall([1])
    gangs = {one.key: one for one in (gang("done", 1, active=False), gang("waits", 9))}
    done = hall.decide(*gangs.values())
    metrics.count_pass(done, 0.01, gangs)
    assert {one.reason for one in done.outcomes.values()} >= {PendingReason.SUSPENDED}
    assert value("pending_gangs", reason=PendingReason.SUSPENDED) == 0
    assert value("gangs", phase="Inactive") == 1
    assert sum(value("pending_gangs", reason=reason) or 0 for reason in PendingReason) == 1
