"""kopf as a shell: what it is told, what its handlers do, what the resync finds."""

import asyncio
from typing import Any

import kopf
import pytest

from tramontane.controllers import shell
from tramontane.kube.client import ApiError
from tramontane.kube.resources import NODEPOOLS, TRAININGJOBS, Resource


async def login(**_: Any) -> None:
    return None


def test_kopf_may_write_nothing_and_stream_nothing() -> None:
    settings = shell.settings()
    assert settings.posting.enabled is False
    assert settings.scanning.disabled is True
    assert settings.peering.standalone is True
    assert settings.watching.initial_streaming is False
    assert settings.watching.chunk_size == 500
    assert settings.persistence.finalizer == "tramontane.dev/cleanup"


def test_there_is_one_event_handler_per_kind_and_nothing_else() -> None:
    registry = shell.registry_of({NODEPOOLS: print, TRAININGJOBS: print}, login)
    kinds = {
        name: list(getattr(registry, name).get_all_handlers())
        for name in ("_watching", "_spawning", "_changing", "_indexing", "_webhooks")
    }
    assert {name: len(handlers) for name, handlers in kinds.items()} == {
        "_watching": 2,
        "_spawning": 0,
        "_changing": 0,
        "_indexing": 0,
        "_webhooks": 0,
    }
    assert isinstance(registry, kopf.OperatorRegistry)


@pytest.mark.parametrize(
    ("resource", "namespace", "key"),
    [(NODEPOOLS, None, "paris"), (TRAININGJOBS, "ml", "ml/paris")],
)
async def test_a_handler_pushes_the_key_and_returns_nothing(
    resource: Resource, namespace: str | None, key: str
) -> None:
    keys: list[str] = []
    push = shell._handler(resource, keys.append)
    assert await push(name="paris", namespace=namespace, body={}, type="ADDED") is None
    assert keys == [key]


class Lists:
    """Answers to lists, one after the other; an exception is raised."""

    def __init__(self, stop: asyncio.Event, *answers: list[str] | Exception) -> None:
        self._answers = list(answers)
        self._stop = stop

    async def list_all(self, _: Resource) -> list[dict[str, Any]]:
        answer = self._answers.pop(0)
        if not self._answers:
            self._stop.set()
        if isinstance(answer, Exception):
            raise answer
        return [{"metadata": {"name": name, "namespace": "ml"}} for name in answer]


async def test_the_resync_finds_what_kopf_forgot() -> None:
    keys: list[str] = []
    stop = asyncio.Event()
    refused = ApiError(500, "InternalError", "etcd is away")
    client: Any = Lists(stop, ["a", "b"], refused, ["b"], ["b"])
    await shell.resync(client, {TRAININGJOBS: keys.append}, stop, every_s=0.0)
    assert sorted(keys[:2]) == ["ml/a", "ml/b"]
    assert sorted(keys[2:4]) == ["ml/a", "ml/b"], "one that was deleted is pushed once more"
    assert keys[4:] == ["ml/b"]
