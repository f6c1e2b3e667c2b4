import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from prometheus_client import REGISTRY, CollectorRegistry

from support.scripted import until
from tramontane.kube.client import Conflict
from tramontane.kube.metrics import OldestKeys
from tramontane.kube.workqueue import WorkQueue


@asynccontextmanager
async def working(
    queue: WorkQueue[str],
    reconcile: Callable[[str], Awaitable[float | None]],
    workers: int = 4,
) -> AsyncIterator[None]:
    task = asyncio.create_task(queue.run(reconcile, workers))
    try:
        yield
    finally:
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_key_that_waits_is_not_added_twice() -> None:
    seen: list[str] = []

    async def reconcile(key: str) -> None:
        seen.append(key)

    queue: WorkQueue[str] = WorkQueue()
    for key in ("a", "b", "a", "a"):
        queue.add(key)
    assert len(queue) == 2
    async with working(queue, reconcile):
        await until(lambda: queue.idle)
    assert sorted(seen) == ["a", "b"]


async def test_one_worker_per_key_and_once_more_for_what_came_meanwhile() -> None:
    running: set[str] = set()
    count = {"a": 0, "b": 0}
    release = asyncio.Event()

    async def reconcile(key: str) -> None:
        assert key not in running
        running.add(key)
        count[key] += 1
        await release.wait()
        running.discard(key)

    queue: WorkQueue[str] = WorkQueue()
    async with working(queue, reconcile):
        queue.add("a")
        queue.add("b")
        await until(lambda: running == {"a", "b"})
        for _ in range(3):
            queue.add("a")
        await asyncio.sleep(0)
        assert count == {"a": 1, "b": 1}
        release.set()
        await until(lambda: queue.idle)
    assert count == {"a": 2, "b": 1}


async def test_failures_put_a_key_off_for_longer_and_longer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    left = 4

    async def reconcile(_: str) -> None:
        nonlocal left
        if left:
            left -= 1
            raise Conflict(409, "Conflict", "changed") if left % 2 else RuntimeError("fault")

    queue: WorkQueue[str] = WorkQueue(base_s=0.001, max_s=0.004, name="tests")
    delays: list[float] = []
    after = queue.add_after

    def add_after(key: str, delay_s: float) -> None:
        delays.append(delay_s)
        after(key, delay_s)

    queue.add_after = add_after  # type: ignore[method-assign]  # to see what is asked
    async with working(queue, reconcile, 1):
        queue.add("a")
        await until(lambda: not left)
        await until(lambda: not queue._failures)
    assert delays == [pytest.approx(0.001 * factor, rel=0.11) for factor in (1, 2, 4, 4)]
    assert "reconcile failed queue=tests key=a" in caplog.text
    assert caplog.text.count("Traceback") == 2, "a Conflict needs no traceback"


async def test_what_a_reconcile_returns_is_when_it_comes_again() -> None:
    count = 0

    async def reconcile(_: str) -> float | None:
        nonlocal count
        count += 1
        return 0.001 if count < 3 else None

    queue: WorkQueue[str] = WorkQueue()
    async with working(queue, reconcile):
        queue.add("a")
        await until(lambda: count == 3)
        assert not queue._timers


@pytest.mark.parametrize(
    ("delays", "left_s"),
    [
        pytest.param((5, 300), 5, id="the-earlier-stays"),
        pytest.param((300, 5), 5, id="the-earlier-wins"),
        pytest.param((300,), 300, id="one"),
    ],
)
async def test_the_earliest_time_counts(delays: tuple[float, ...], left_s: float) -> None:
    queue: WorkQueue[str] = WorkQueue()
    for delay in delays:
        queue.add_after("a", delay)
    left = queue._timers["a"].when() - asyncio.get_running_loop().time()
    assert left_s - 5 < left <= left_s
    queue._timers["a"].cancel()


@pytest.mark.parametrize("delay_s", [0, -1])
async def test_no_delay_is_now(delay_s: float) -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("a", delay_s)
    assert len(queue) == 1


async def test_keys_may_be_pairs_and_survive_the_workers() -> None:
    async def reconcile(_: tuple[str, str]) -> None:
        await asyncio.Event().wait()

    queue: WorkQueue[tuple[str, str]] = WorkQueue()
    queue.add(("ml", "a"))
    task = asyncio.create_task(queue.run(reconcile))
    await until(lambda: queue._working)
    queue.add(("ml", "a"))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert len(queue) == 1
    assert not queue.idle


async def test_urgent_keys_come_first_and_each_once() -> None:
    seen: list[str] = []

    async def reconcile(key: str) -> None:
        seen.append(key)
        await asyncio.sleep(0)

    queue: WorkQueue[str] = WorkQueue()
    for key in ("a", "b", "c"):
        queue.add(key)
    queue.add("c", urgent=True)
    queue.add("c", urgent=True)
    queue.add("d", urgent=True)
    queue.add("d")
    assert len(queue) == 4
    async with working(queue, reconcile, workers=1):
        await until(lambda: queue.idle)
        assert seen == ["c", "d", "a", "b"]
        queue.add("c")
        await until(lambda: queue.idle)
    assert seen == ["c", "d", "a", "b", "c"]


async def test_a_key_at_work_may_become_urgent() -> None:
    seen: list[str] = []
    release = asyncio.Event()

    async def reconcile(key: str) -> None:
        seen.append(key)
        await release.wait()

    queue: WorkQueue[str] = WorkQueue()
    async with working(queue, reconcile, workers=1):
        queue.add("a")
        await until(lambda: seen == ["a"])
        queue.add("b")
        queue.add("a", urgent=True)
        release.set()
        await until(lambda: queue.idle)
    assert seen == ["a", "a", "b"]


async def test_how_long_the_oldest_key_has_waited() -> None:
    now = [100.0]
    queue: WorkQueue[str] = WorkQueue(name="oldest", monotonic=lambda: now[0])

    def shown() -> float | None:
        labels = {"queue": "oldest"}
        return REGISTRY.get_sample_value("tramontane_workqueue_oldest_seconds", labels)

    assert shown() == 0
    queue.add("a")
    now[0] += 3
    queue.add("b")
    queue.add("a")  # it waits already
    queue.add("b", urgent=True)
    now[0] += 2
    assert shown() == 5
    done: list[str] = []

    async def reconcile(key: str) -> None:
        done.append(key)

    async with working(queue, reconcile):
        await until(lambda: len(done) == 2)
    assert shown() == 0


def test_a_queue_that_is_gone_is_not_shown() -> None:
    class Waits:
        name = "gone"

        def oldest_s(self) -> float:
            return 7.0

    shown, registry, queue = OldestKeys(), CollectorRegistry(), Waits()
    registry.register(shown)
    shown.add(queue)
    labels = {"queue": "gone"}
    assert registry.get_sample_value("tramontane_workqueue_oldest_seconds", labels) == 7
    del queue
    gc.collect()
    assert registry.get_sample_value("tramontane_workqueue_oldest_seconds", labels) is None
