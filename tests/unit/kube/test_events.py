import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from support.scripted import Scripted, status, until
from tramontane.kube import events, metrics
from tramontane.kube.client import Client
from tramontane.kube.events import EventRecorder

BLADE = {
    "apiVersion": "tramontane.dev/v1alpha1",
    "kind": "Blade",
    "metadata": {"name": "n1", "uid": "u1", "labels": {"a": "b"}},
}
PATH = "/apis/events.k8s.io/v1/namespaces/default/events"


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now_s


@asynccontextmanager
async def recording(client: Client, clock: Clock) -> AsyncIterator[EventRecorder]:
    recorder = EventRecorder(client, "tramontane.dev/operator", "pod-1", now=clock)
    task = asyncio.create_task(recorder.run())
    try:
        yield recorder
    finally:
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def quarantine(recorder: EventRecorder, note: str = "gpu 3: Xid 79") -> None:
    recorder.record(BLADE, "Warning", "HardwareFault", note, "Quarantining")


def kept(server: Scripted) -> list[dict[str, Any]]:
    return [item for path, item in server.objects.items() if path.startswith(PATH)]


async def test_an_event(client: Client, server: Scripted) -> None:
    async with recording(client, Clock()) as recorder:
        quarantine(recorder)
        await until(lambda: kept(server))
    (event,) = kept(server)
    name = event.pop("metadata")["name"]
    assert name.startswith("n1.")
    assert event == {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "eventTime": "2027-01-15T08:00:00.000000Z",
        "reportingController": "tramontane.dev/operator",
        "reportingInstance": "pod-1",
        "type": "Warning",
        "reason": "HardwareFault",
        "action": "Quarantining",
        "note": "gpu 3: Xid 79",
        "regarding": {
            "apiVersion": "tramontane.dev/v1alpha1",
            "kind": "Blade",
            "name": "n1",
            "uid": "u1",
        },
    }


async def test_the_event_of_a_namespaced_object_is_in_its_namespace(
    client: Client, server: Scripted
) -> None:
    about = {"kind": "TrainingJob", "name": "llama", "namespace": "ml"}
    async with recording(client, Clock()) as recorder:
        recorder.record(about, "Normal", "Placed", "x" * 3000, "Placing")
        await until(lambda: server.seen("POST", "/namespaces/ml/events"))
        await until(lambda: server.bodies)
    assert len(server.bodies[0]["note"]) == 1024


async def test_the_same_again_is_counted_and_written_once_a_minute(
    client: Client, server: Scripted
) -> None:
    clock = Clock()
    async with recording(client, clock) as recorder:
        for _ in range(5):
            quarantine(recorder)
            clock.now_s += 10
        await until(lambda: kept(server))
        quarantine(recorder, "another")
        await until(lambda: len(kept(server)) == 2)
        assert server.seen("PATCH", PATH) == 0
        clock.now_s += 10
        quarantine(recorder)
        await until(lambda: server.seen("PATCH", PATH))
        await until(lambda: any("series" in event for event in kept(server)))
    (series,) = [event["series"] for event in kept(server) if "series" in event]
    assert series == {"count": 6, "lastObservedTime": "2027-01-15T08:01:00.000000Z"}


async def test_after_ten_minutes_it_is_a_new_event(client: Client, server: Scripted) -> None:
    clock = Clock()
    async with recording(client, clock) as recorder:
        quarantine(recorder)
        clock.now_s += 601
        quarantine(recorder)
        await until(lambda: len(kept(server)) == 2)


async def test_a_series_whose_event_has_expired_begins_anew(
    client: Client, server: Scripted
) -> None:
    clock = Clock()
    async with recording(client, clock) as recorder:
        quarantine(recorder)
        await until(lambda: kept(server))
        server.objects.clear()
        clock.now_s += 100
        quarantine(recorder)
        await until(lambda: kept(server))


async def test_what_cannot_be_written_is_counted_and_forgotten(
    client: Client, server: Scripted, caplog: pytest.LogCaptureFixture
) -> None:
    refused = metrics.EVENTS_DROPPED.labels("refused")
    before = refused._value.get()
    server.answers.append(lambda _: status(403, "Forbidden"))
    async with recording(client, Clock()) as recorder:
        quarantine(recorder)
        quarantine(recorder, "another")
        await until(lambda: kept(server))
    assert refused._value.get() == before + 1
    assert "event not written event=n1." in caplog.text


async def test_a_full_queue_keeps_nobody_waiting(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "_QUEUED", 3)
    monkeypatch.setattr(events, "_REMEMBERED", 2)
    full = metrics.EVENTS_DROPPED.labels("full")
    before = full._value.get()
    recorder = EventRecorder(client, "tests")
    for i in range(5):
        quarantine(recorder, str(i))
    assert full._value.get() == before + 2
    assert len(recorder._series) == 2
