import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from support.scripted import Scripted, status, until
from tramontane.kube import metrics
from tramontane.kube.client import Client
from tramontane.kube.informer import Informer
from tramontane.kube.resources import PODS

COLLECTION = "/api/v1/namespaces/ml/pods"
Change = tuple[str, str | None, str | None]


def decode(raw: dict[str, Any]) -> str:
    assert raw["apiVersion"] == "v1"
    assert raw["kind"] == "Pod"
    return str(raw["spec"])


@asynccontextmanager
async def running(
    client: Client, changes: list[Change] | None = None, **options: Any
) -> AsyncIterator[Informer[str]]:
    informer = Informer(client, PODS, decode, namespace="ml", first_back_off_s=0.001, **options)
    if changes is not None:
        informer.add_listener(lambda key, old, new: changes.append((key, old, new)))
    task = asyncio.create_task(informer.run())
    try:
        async with asyncio.timeout(20):
            await informer.wait_synced()
        yield informer
    finally:
        assert not task.done(), "nothing may end an informer"
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_it_follows(client: Client, server: Scripted) -> None:
    changes: list[Change] = []
    server.put(COLLECTION, "a", spec="1")
    async with running(client, changes) as informer:
        assert informer.synced
        assert informer.cache == {"ml/a": "1"}
        await until(lambda: server.watches)
        server.put(COLLECTION, "b", spec="1")
        server.put(COLLECTION, "a", spec="2")
        server.put(COLLECTION, "a", spec="2", metadata={"labels": {"not": "viewed"}})
        server.remove(COLLECTION, "b")
        await until(lambda: len(changes) == 4)
        assert informer.cache == {"ml/a": "2"}
    assert changes == [
        ("ml/a", None, "1"),
        ("ml/b", None, "1"),
        ("ml/a", "1", "2"),
        ("ml/b", "1", None),
    ]


async def test_it_asks_the_server_to_select(client: Client, server: Scripted) -> None:
    async with running(client, label_selector="a=b", field_selector="spec.nodeName=n"):
        await until(lambda: server.watches)
    selected = "labelSelector=a%3Db&fieldSelector=spec.nodeName%3Dn"
    assert [selected in path for _, path in server.requests] == [True, True]
    assert "allowWatchBookmarks=true" in server.requests[1][1]


async def test_it_lists_in_pages(client: Client, server: Scripted) -> None:
    for i in range(1001):
        server.put(COLLECTION, f"p{i}", spec="1")
    async with running(client) as informer:
        assert len(informer.cache) == 1001
    assert server.seen("GET", "limit=500") == 3


async def test_a_continue_token_that_is_too_old_begins_the_list_again(
    client: Client, server: Scripted
) -> None:
    for i in range(501):
        server.put(COLLECTION, f"p{i}", spec="1")
    server.answers += [lambda _: None, lambda _: status(410, "Expired")]
    async with running(client) as informer:
        assert len(informer.cache) == 501
    assert server.seen("GET", "continue=") == 2


def _gone_by_event(server: Scripted) -> None:
    told = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired"}}
    server.broadcast(json.dumps(told) + "\n")


def _gone_by_answer(server: Scripted) -> None:
    server.compact()
    server.cut()


def _error_event(server: Scripted) -> None:
    told = {"type": "ERROR", "object": {"kind": "Status", "code": 500, "reason": "InternalError"}}
    server.broadcast(json.dumps(told) + "\n")


def _nonsense(server: Scripted) -> None:
    server.broadcast("no json\n")


@pytest.mark.parametrize(
    ("trouble", "cause"),
    [
        pytest.param(_gone_by_event, "gone", id="410-in-an-event"),
        pytest.param(_gone_by_answer, "gone", id="410-as-an-answer"),
        pytest.param(_error_event, "error", id="another-error-event"),
        pytest.param(_nonsense, "error", id="nonsense"),
    ],
)
async def test_what_happened_in_a_gap_is_told_after_the_relist(
    client: Client, server: Scripted, trouble: Callable[[Scripted], None], cause: str
) -> None:
    changes: list[Change] = []
    for name in ("kept", "changed", "deleted"):
        server.put(COLLECTION, name, spec="1")
    relists = metrics.RELISTS.labels("pods", cause)
    before = relists._value.get()
    async with running(client, changes) as informer:
        await until(lambda: server.watches)
        changes.clear()
        server.remove(COLLECTION, "deleted", deaf=True)
        server.put(COLLECTION, "changed", spec="2", deaf=True)
        server.put(COLLECTION, "new", spec="1", deaf=True)
        trouble(server)
        await until(lambda: len(changes) == 3)
        assert sorted(changes) == [
            ("ml/changed", "1", "2"),
            ("ml/deleted", "1", None),
            ("ml/new", None, "1"),
        ]
        assert changes[0][0] == "ml/deleted"
        assert informer.cache == {"ml/kept": "1", "ml/changed": "2", "ml/new": "1"}
        # It watches on after that.
        await until(lambda: server.watches)
        server.put(COLLECTION, "later", spec="1")
        await until(lambda: "ml/later" in informer.cache)
    assert relists._value.get() == before + 1


async def test_a_cut_watch_goes_on_where_it_was(client: Client, server: Scripted) -> None:
    async with running(client) as informer:
        await until(lambda: server.watches)
        server.put(COLLECTION, "a", spec="1")
        await until(lambda: "ml/a" in informer.cache)
        server.cut()
        server.put(COLLECTION, "b", spec="1")
        await until(lambda: "ml/b" in informer.cache)
    assert server.seen("GET", "limit=") == 1
    assert server.seen("GET", f"resourceVersion={server.version - 1}") == 1


async def test_a_bookmark_moves_the_version_and_is_no_event(
    client: Client, server: Scripted
) -> None:
    changes: list[Change] = []
    async with running(client, changes):
        await until(lambda: server.watches)
        server.bookmark()
        server.cut()
        await until(lambda: server.seen("GET", f"resourceVersion={server.version}"))
    assert changes == []


async def test_a_half_line_of_a_cut_watch_is_no_event(client: Client, server: Scripted) -> None:
    async with running(client) as informer:
        await until(lambda: server.watches)
        server.broadcast('{"type": "ADDED", "object": {"metadata": {"name": "half')
        server.cut()
        server.put(COLLECTION, "b", spec="1")
        await until(lambda: informer.cache == {"ml/b": "1"})
    assert server.seen("GET", "limit=") == 1


async def test_a_stalled_watch_is_opened_anew(client: Client, server: Scripted) -> None:
    silent = metrics.WATCH_ENDS.labels("pods", "silent")
    before = silent._value.get()
    async with running(client, silence_s=0.1) as informer:
        await until(lambda: server.watches)
        server.frozen = True
        server.put(COLLECTION, "a", spec="1")
        await until(lambda: silent._value.get() > before)
        server.frozen = False
        await until(lambda: "ml/a" in informer.cache)
    assert server.seen("GET", "limit=") == 1


async def test_objects_of_several_hundred_kb(client: Client, server: Scripted) -> None:
    async with running(client) as informer:
        await until(lambda: server.watches)
        server.put(COLLECTION, "a", spec="x" * 900_000)
        await until(lambda: "ml/a" in informer.cache)
        assert len(informer.cache["ml/a"]) == 900_000


async def test_the_server_is_away_at_first(client: Client, server: Scripted) -> None:
    server.put(COLLECTION, "a", spec="1")
    server.answers += [lambda _: status(500, "InternalError")] * 3
    async with running(client) as informer:
        assert informer.cache == {"ml/a": "1"}


async def test_a_refused_watch_is_tried_again(client: Client, server: Scripted) -> None:
    server.answers += [lambda _: None, *[lambda _: status(403, "Forbidden")] * 3]
    async with running(client) as informer:
        await until(lambda: server.watches)
        server.put(COLLECTION, "a", spec="1")
        await until(lambda: "ml/a" in informer.cache)


@pytest.mark.parametrize(
    ("code", "levels"),
    [
        pytest.param(429, ["INFO", "WARNING", "WARNING"], id="busy"),
        pytest.param(403, ["WARNING"] * 3, id="refused"),
    ],
)
async def test_a_server_that_is_busy_once_is_no_trouble(
    client: Client,
    server: Scripted,
    caplog: pytest.LogCaptureFixture,
    code: int,
    levels: list[str],
) -> None:
    caplog.set_level(logging.INFO)
    for _ in levels:  # the list is answered, the watch is not
        server.answers += [lambda _: None, lambda _: status(code, "Refused")]
    async with running(client):
        await until(lambda: server.watches)
    said = [one.levelname for one in caplog.records if "informer failed" in one.getMessage()]
    assert said == levels


async def test_what_cannot_be_decoded_keeps_its_last_view(
    client: Client, server: Scripted, caplog: pytest.LogCaptureFixture
) -> None:
    server.put(COLLECTION, "bad")
    server.put(COLLECTION, "worse", spec="1")
    async with running(client) as informer:
        await until(lambda: server.watches)
        assert informer.cache == {"ml/worse": "1"}
        server.put(COLLECTION, "worse")
        server.put(COLLECTION, "bad", spec="1")
        await until(lambda: "ml/bad" in informer.cache)
        assert informer.cache["ml/worse"] == "1"
        _gone_by_event(server)
        await until(lambda: server.seen("GET", "limit=") == 2 and server.watches)
        assert informer.cache == {"ml/bad": "1", "ml/worse": "1"}
    assert "object not decodable resource=pods key=ml/worse" in caplog.text


async def test_a_listener_that_fails_hurts_nobody(
    client: Client, server: Scripted, caplog: pytest.LogCaptureFixture
) -> None:
    def bad(key: str, _old: str | None, _new: str | None) -> None:
        raise RuntimeError(key)

    changes: list[Change] = []
    informer = Informer(client, PODS, decode, namespace="ml")
    informer.add_listener(bad)
    informer.add_listener(lambda key, old, new: changes.append((key, old, new)))
    server.put(COLLECTION, "a", spec="1")
    with caplog.at_level(logging.ERROR):
        task = asyncio.create_task(informer.run())
        await informer.wait_synced()
        task.cancel()
    assert changes == [("ml/a", None, "1")]
    assert "listener failed resource=pods key=ml/a" in caplog.text
