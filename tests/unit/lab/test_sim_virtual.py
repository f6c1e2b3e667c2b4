"""The clock that jumps: asyncio as it is, without waiting."""

import asyncio
import time

import pytest

from tramontane.lab.sim.agenda import Agenda
from tramontane.lab.sim.virtual import Stalled, VirtualLoop, run


def test_a_month_of_sleeps_passes_at_once() -> None:
    loop = VirtualLoop(1000.0)

    async def month() -> list[float]:
        seen = []
        for _ in range(30):
            await asyncio.sleep(86400)
            seen.append(loop.wall())
        return seen

    began = time.process_time()
    seen = run(month(), loop)
    assert seen[-1] == pytest.approx(1000 + 30 * 86400)
    assert time.process_time() - began < 5


def test_sleepers_wake_in_the_order_of_their_times() -> None:
    loop, woken = VirtualLoop(), []

    async def sleeper(name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        woken.append((name, round(loop.time(), 6)))

    async def all_of_them() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(sleeper("late", 3600))
            group.create_task(sleeper("soon", 0.001))
            group.create_task(sleeper("middle", 60))

    run(all_of_them(), loop)
    assert woken == [("soon", 0.001), ("middle", 60.0), ("late", 3600.0)]


def test_time_outs_are_virtual_too() -> None:
    loop = VirtualLoop()

    async def patient() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(500):
                await asyncio.sleep(10_000)
        return loop.time()

    assert run(patient(), loop) == pytest.approx(500)


def test_waiting_for_what_cannot_happen_is_said() -> None:
    with pytest.raises(Stalled, match="a timer must be left"):
        run(asyncio.wait_for(asyncio.Event().wait(), None), VirtualLoop())


def test_an_agenda_keeps_the_order_of_asking_and_can_be_cancelled() -> None:
    agenda = Agenda(100.0)
    seen: list[str] = []
    agenda.after(5, seen.append, "b")
    agenda.after(5, seen.append, "c")
    agenda.after(1, seen.append, "a")
    agenda.after(2, seen.append, "never").cancel()
    agenda.after(60, seen.append, "later")
    agenda.run_until(110.0)
    assert seen == ["a", "b", "c"]
    assert agenda.now == 110.0
    agenda.after(-5, seen.append, "now")
    agenda.run_until(200.0)
    assert seen == ["a", "b", "c", "now", "later"]
