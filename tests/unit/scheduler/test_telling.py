"""What people are told of decisions: Events, and metrics of the pass."""

from prometheus_client import REGISTRY

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
