"""Groups that end without a verdict, and tests that decide nothing."""

from collections.abc import Callable

from unit.nodepool.hall import Hall
from unit.nodepool.steps import TEMPLATE, clean, message, pool, wait

SAID = "collective:"


async def deliver(hall: Hall, count: int, size: int) -> list[str]:
    names = [f"gpu-{number:02}" for number in range(count)]
    asked = {"template": TEMPLATE, "groupSize": size, "minBandwidth": 300, "timeout": "5m"}
    pool(hall, qualification={"soak": "1s", "collective": asked})
    for name in names:
        hall.node(name)
    await hall.settle()
    for name in names:
        await clean(hall, name)
    return names


async def play(hall: Hall, names: list[str], end: Callable[[Hall, set[str], str], None]) -> None:
    """Let the groups run for an hour; `end` ends each pod, given the blades of its group."""
    for _ in range(240):
        await wait(hall, 15, *names)
        groups: dict[str, set[str]] = {}
        pods = hall.works()
        for pod in pods:
            blade, group = pod.removeprefix("collective-")[:6], pod[len("collective-gpu-00-") :]
            groups.setdefault(group, set()).add(blade)
        for pod in pods:
            end(hall, groups[pod[len("collective-gpu-00-") :]], pod)
        await hall.settle()


def breaks_with(bad: str) -> Callable[[Hall, set[str], str], None]:
    def end(hall: Hall, blades: set[str], pod: str) -> None:
        if bad in blades:
            hall.finish(pod, 2, verdict="ERROR", reason=f"peer {bad} does not come")
        else:
            hall.finish(pod, value=341.5, unit="GB/s")

    return end


def told(hall: Hall) -> list[str]:
    return [note for name, _, note in hall.recorder.said if name == "paris" and SAID in note]


async def test_one_blade_that_reaches_nobody_does_not_keep_the_others() -> None:
    async with Hall() as hall:
        names = await deliver(hall, 16, 16)
        await play(hall, names, breaks_with("gpu-05"))
        states = {name: hall.state(name) for name in names}
        assert [name for name, state in states.items() if state != "Healthy"] == ["gpu-05"]
        assert states["gpu-05"] == "Qualifying", "nothing was measured of it"
        assert "peer gpu-05 does not come" in message(hall, "gpu-05")
        assert any("gpu-05 cannot be tested" in note for note in told(hall))
        assert len(told(hall)) <= 3, "once for each, not at every try"


async def test_of_three_the_two_good_ones_are_found() -> None:
    async with Hall() as hall:
        names = await deliver(hall, 3, 16)
        await play(hall, names, breaks_with("gpu-00"))
        assert [hall.state(name) for name in names] == ["Qualifying", "Healthy", "Healthy"]


async def test_a_checker_that_always_breaks_is_told_and_tried_less_and_less() -> None:
    async with Hall() as hall:
        names = await deliver(hall, 4, 4)
        tries = 0

        def end(hall: Hall, _blades: set[str], pod: str) -> None:
            nonlocal tries
            tries += 1
            hall.finish(pod, 2, reason="no such file: libnccl.so")

        await play(hall, names, end)
        assert {hall.state(name) for name in names} == {"Qualifying"}
        assert any("libnccl" in note for note in told(hall))
        assert tries <= 4 * 3 + 4 * 12, "three as a whole, then two pairs in an hour, with pauses"


async def test_two_of_which_one_is_bad_are_told_to_people() -> None:
    async with Hall() as hall:
        names = await deliver(hall, 2, 2)

        def end(hall: Hall, _blades: set[str], pod: str) -> None:
            hall.finish(pod, value=120.0, unit="GB/s")

        await play(hall, names, end)
        assert {hall.state(name) for name in names} == {"Qualifying"}
        (note,) = told(hall)
        assert "which of gpu-00, gpu-01 are bad" in note


async def test_a_group_that_contradicts_itself_is_told_to_people() -> None:
    async with Hall() as hall:
        names = await deliver(hall, 4, 4)

        def end(hall: Hall, blades: set[str], pod: str) -> None:
            hall.finish(pod, value=120.0 if len(blades) == 4 else 341.5, unit="GB/s")

        await play(hall, names, end)
        assert {hall.state(name) for name in names} == {"Healthy"}
        (note,) = told(hall)
        assert "gpu-00, gpu-01, gpu-02, gpu-03 failed together" in note
