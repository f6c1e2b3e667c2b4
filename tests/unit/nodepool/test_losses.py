"""A node that dies under work is remembered as a failure of its blade."""

from typing import Any

from unit.nodepool.hall import Hall
from unit.nodepool.steps import BLADE, clean, healthy, sick, wait

DAY_S = 86_400.0


def record(hall: Hall) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = hall.blade(BLADE)["status"].get("incidents", [])
    return found


async def die(hall: Hall, after_s: float = 300.0) -> None:
    hall.readiness(BLADE, "False")
    await wait(hall, after_s)
    hall.readiness(BLADE, "True")
    await wait(hall, 30)


async def test_five_deaths_under_a_job_are_five_failures() -> None:
    async with Hall() as hall:
        await healthy(hall)
        hall.gang("llama", BLADE)
        for _ in range(5):
            await die(hall)
            await wait(hall, 3600)
        assert hall.state(BLADE) == "Healthy"
        assert [one["code"] for one in record(hall)] == ["node-lost"] * 5
        assert {(one["from"], one["to"]) for one in record(hall)} == {("Healthy", "Lost")}
        assert {tuple(one["jobs"]) for one in record(hall)} == {("ml/llama",)}
        assert {one["outcome"] for one in record(hall)} == {"back in 5m"}
        history = hall.blade(BLADE)["status"]["history"]
        assert (history["incidents28d"], history["jobFailures28d"]) == (5, 5)
        assert history.get("quarantines28d", 0) == 0
        assert float(history["lemonScore"]) >= 0.7
        counts = hall.controller._tally.of("paris")
        assert counts.failures == 5, "the pool's failure rate, and with it the spares"


async def test_it_is_one_incident_however_long_it_lasts() -> None:
    async with Hall() as hall:
        await healthy(hall)
        hall.guest("theirs-0", BLADE, gang="theirs")
        hall.readiness(BLADE, "False")
        await wait(hall, 3600)
        assert [(one["code"], one.get("outcome")) for one in record(hall)] == [("node-lost", None)]


async def test_a_node_that_dies_idle_is_no_incident() -> None:
    async with Hall() as hall:
        await healthy(hall)
        await die(hall)
        assert (hall.state(BLADE), record(hall)) == ("Healthy", [])


async def test_it_is_no_fault_that_must_clear() -> None:
    async with Hall() as hall:
        await healthy(hall)
        hall.gang("llama", BLADE)
        await die(hall)
        assert (hall.state(BLADE), hall.severity(BLADE)) == ("Healthy", "None")
        await sick(hall, action="Inspect", code="xid-54")
        hall.readiness(BLADE, "False")
        await wait(hall, 60)
        assert hall.state(BLADE) == "Lost"
        hall.readiness(BLADE, "True")
        await clean(hall)
        await wait(hall, 60)
        assert hall.state(BLADE) != "Healthy", "the fault of before is still to clear"
