"""A blade that nobody can be tested with says so, before anybody has to wonder."""

from unit.nodepool.hall import Hall
from unit.nodepool.steps import BLADE, TEMPLATE, clean, finish, message, pool, sick, wait

ASKED = {"soak": "0s", "collective": {"template": TEMPLATE, "groupSize": 4, "minBandwidth": 300}}
NAMES = [f"gpu-{number}" for number in range(1, 5)]


def told(hall: Hall) -> list[str]:
    return [note for name, _, note in hall.recorder.said if name == "paris" and BLADE in note]


async def looks(hall: Hall) -> None:
    for _ in range(5):
        await wait(hall, 6, *NAMES)


async def repaired_in_a_full_hall(hall: Hall) -> None:
    pool(hall, qualification=ASKED)
    for name in NAMES:
        hall.node(name)
    await hall.settle()
    for name in NAMES:
        await clean(hall, name)
    await looks(hall)
    for pod in hall.works():
        hall.finish(pod, value=400.0, unit="GB/s")
    await looks(hall)
    assert {hall.state(name) for name in NAMES} == {"Healthy"}
    hall.gang("llama", *NAMES[1:])
    await sick(hall)
    await wait(hall, 1, *NAMES)
    await finish(hall, "reset")
    await clean(hall)
    await wait(hall, 630, *NAMES)
    assert "collective" in message(hall)


async def test_people_are_told_once_and_how_to_help() -> None:
    async with Hall() as hall:
        await repaired_in_a_full_hall(hall)
        assert told(hall) == [], "others may still come"
        await wait(hall, 7 * 3600, *NAMES)
        assert hall.state(BLADE) == "Requalifying"
        assert "--skip-burn-in" in message(hall)
        (note,) = told(hall)
        assert "free one" in note


async def test_it_is_tested_as_soon_as_another_is_free() -> None:
    async with Hall() as hall:
        await repaired_in_a_full_hall(hall)
        await wait(hall, 3600, *NAMES)
        hall.gang("llama", *NAMES[2:])
        await looks(hall)
        assert sorted(pod.split("-")[2] for pod in hall.works()) == ["1", "2"]
        assert "runs in group" in message(hall)


async def test_groups_end_when_the_pool_asks_for_none_any_more() -> None:
    async with Hall() as hall:
        pool(hall, qualification=ASKED)
        for name in NAMES:
            hall.node(name)
        await hall.settle()
        for name in NAMES:
            await clean(hall, name)
        await looks(hall)
        assert len(hall.works()) == 4
        pool(hall, qualification={"soak": "1s"})
        await looks(hall)
        assert hall.works() == []
        assert {hall.state(name) for name in NAMES} == {"Healthy"}
