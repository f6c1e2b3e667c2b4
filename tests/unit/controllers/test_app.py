"""The process around the controllers: waiting for CRDs."""

import asyncio
import logging
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from tramontane.controllers import app
from tramontane.controllers.nodepool.metrics import POOLS
from tramontane.kube.client import NotFound, Unreachable
from tramontane.kube.resources import GANGS, INFERENCEDEPLOYMENTS, Resource
from tramontane.lab.observe.exported import OPERATOR, families


class Server:
    """An API server without some kinds."""

    def __init__(self, *missing: Resource) -> None:
        self.missing = set(missing)
        self.trouble: Exception | None = None

    async def list_page(self, resource: Resource, **_: Any) -> dict[str, Any]:
        if self.trouble is not None:
            raise self.trouble
        if resource in self.missing:
            raise NotFound(404, "NotFound", "the server could not find the requested resource")
        return {"items": []}


async def test_it_waits_until_all_kinds_are_there(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "_LOOK_AGAIN_S", 0.0)
    caplog.set_level(logging.WARNING)
    server: Any = Server(GANGS, INFERENCEDEPLOYMENTS)
    waiting = asyncio.create_task(app.wait_for_kinds(server))
    await _turns(10)
    server.missing.discard(GANGS)
    await _turns(10)
    server.trouble = Unreachable("connection refused")
    await _turns(10)
    assert not waiting.done()
    server.trouble = None
    server.missing.clear()
    await waiting
    remedy = "remedy='kubectl apply --server-side -f crds/'"
    inference = "inferencedeployments.tramontane.dev"
    assert [record.getMessage() for record in caplog.records] == [
        f"waiting missing_crds=gangs.tramontane.dev,{inference} {remedy}",
        f"waiting missing_crds={inference} {remedy}",
        "waiting resource=nodepools error='connection refused'",
    ]


async def test_waiting_ends_when_told_to_stop() -> None:
    stop = asyncio.Event()
    server: Any = Server(GANGS)
    working = asyncio.create_task(app._unless(stop, app.wait_for_kinds(server)))
    await _turns(5)
    stop.set()
    assert await working is False


async def test_waiting_shows_its_own_failure() -> None:
    server: Any = Server()
    server.trouble = RuntimeError("a bug")
    with pytest.raises(RuntimeError, match="a bug"):
        await app._unless(asyncio.Event(), app.wait_for_kinds(server))


async def _turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("environ", "address", "port"),
    [
        ({}, None, 8000),
        ({"POD_IP": ""}, None, 8000),
        ({"POD_IP": "10.1.2.3"}, "10.1.2.3", 8000),
        ({"POD_IP": "10.1.2.3", "TRAMONTANE_ACTIVATOR_PORT": "0"}, "10.1.2.3", 0),
    ],
    ids=["none", "empty", "address", "any-port"],
)
def test_the_environment_says_where_requests_for_idle_models_come_in(
    environ: dict[str, str], address: str | None, port: int
) -> None:
    config = app.serving_config(environ)
    assert (config.address, config.activator_port) == (address, port)


def test_the_lowest_detail_has_nothing_per_blade_job_or_deployment() -> None:
    registry = CollectorRegistry(auto_describe=True)
    for collector in (*app.PER_OBJECT, POOLS):
        registry.register(collector)
    app.say_little(registry)
    left = {family.name for family in registry.collect()}
    assert "tramontane_gpus" in left
    per_object = {"blade", "job", "deployment", "namespace"}
    for family in registry.collect():
        assert not per_object & set(getattr(family, "_labelnames", ())), family.name


def test_everything_per_object_is_left_out() -> None:
    """What else the operator exports has no label that grows with the hall."""
    names = {family.name for one in app.PER_OBJECT for family in one.collect()}
    for family in families():
        if family.component == OPERATOR and {"blade", "job", "deployment"} & set(family.labels):
            assert family.name.removesuffix("_total") in names
