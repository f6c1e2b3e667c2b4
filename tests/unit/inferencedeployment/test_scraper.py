"""The reader of metrics against real HTTP servers, good and bad."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from aiohttp import web
from yarl import URL

from tramontane.api.inferencedeployment import EngineName
from tramontane.controllers.inferencedeployment import scraper as module
from tramontane.controllers.inferencedeployment.scraper import MAX_BODY_B, Scraper, address_of
from tramontane.kube.views import PodView
from unit.inferencedeployment.loads import NOW

KEY = "ml/claims"
VLLM = EngineName.VLLM


def a_pod(name: str, ip: str | None = "127.0.0.1", uid: str = "") -> PodView:
    return PodView(
        name=name,
        namespace="ml",
        uid=uid or f"uid-{name}",
        node="gpu-0001",
        phase="Running",
        deleting=False,
        labels={},
        annotations={},
        owner_uid=None,
        reason="",
        message="",
        ready=True,
        restarts=0,
        host_ip=None,
        pod_ip=ip,
        gpus=8,
        started_at=NOW,
        containers=(),
        created_at=NOW,
    )


@dataclass
class Engines:
    """Answer for all pods: each has its path, and its answer."""

    port: int = 0
    waiting: dict[str, float] = field(default_factory=dict)
    answers: dict[str, Callable[[], web.Response]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    now: int = 0
    most: int = 0
    hold_s: float = 0.0

    async def metrics(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        self.asked.append(name)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(self.hold_s)
            if name in self.answers:
                return self.answers[name]()
            waiting = self.waiting.get(name, 0.0)
            return web.Response(
                text=f"vllm:num_requests_running 1\nvllm:num_requests_waiting {waiting}\n"
            )
        finally:
            self.now -= 1

    def address(self, pod: PodView) -> URL:
        return URL(f"http://{pod.pod_ip}:{self.port}/{pod.name}")


@dataclass
class World:
    engines: Engines
    scraper: Scraper
    told: list[str]
    time: list[float]

    async def rounds(self, count: int = 1) -> None:
        """Wait until so many more requests were answered."""
        whole = len(self.engines.asked) + count
        await until(lambda: len(self.engines.asked) >= whole and not self.engines.now)
        await asyncio.sleep(0.02)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.005)


@asynccontextmanager
async def a_world(every_s: float = 0.02) -> AsyncIterator[World]:
    engines, time = Engines(), [NOW]
    told: list[str] = []
    app = web.Application()
    app.router.add_get("/{name}", engines.metrics)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    engines.port = runner.addresses[0][1]
    scraper = Scraper(lambda: time[0], told.append, address=engines.address, every_s=every_s)
    try:
        yield World(engines, scraper, told, time)
    finally:
        await scraper.close()
        await runner.cleanup()


async def test_loads_come_by_gang() -> None:
    async with a_world() as world:
        world.engines.waiting = {"p0": 2.0, "p1": 5.0}
        world.scraper.follow(KEY, {"claims-0": a_pod("p0"), "claims-1": a_pod("p1")}, VLLM)
        await until(lambda: len(world.scraper.loads(KEY)) == 2)
        loads = world.scraper.loads(KEY)
        assert {gang: load.waiting for gang, load in loads.items()} == {
            "claims-0": 2.0,
            "claims-1": 5.0,
        }
        assert loads["claims-0"].at == NOW
        assert world.scraper.loads("ml/other") == {}


async def test_what_engines_count_outlives_them() -> None:
    tokens = {"p0": 100, "p1": 50}

    def page(name: str) -> Callable[[], web.Response]:
        lines = "vllm:num_requests_running 1\nvllm:generation_tokens_total {}\n"
        return lambda: web.Response(text=lines.format(tokens[name]))

    async with a_world() as world:
        world.engines.answers = {name: page(name) for name in tokens}
        pods = {"claims-0": a_pod("p0"), "claims-1": a_pod("p1")}

        def counted() -> float:
            totals = world.scraper.totals(KEY)
            return -1.0 if totals is None else totals.tokens

        assert counted() == -1
        world.scraper.follow(KEY, pods, VLLM)
        await until(lambda: len(world.scraper.loads(KEY)) == 2)
        assert counted() == 0
        tokens |= {"p0": 130, "p1": 60}
        await until(lambda: counted() == 40)
        world.scraper.follow(KEY, {"claims-1": pods["claims-1"]}, VLLM)
        tokens["p1"] = 65
        await until(lambda: counted() == 45)
        world.scraper.forget(KEY)
        assert counted() == -1


async def test_it_tells_what_changed_and_only_that() -> None:
    async with a_world() as world:
        world.scraper.follow(KEY, {"claims-0": a_pod("p0")}, VLLM)
        await world.rounds(5)
        assert world.told == [KEY]
        world.engines.waiting["p0"] = 9.0
        await until(lambda: len(world.told) == 2)
        world.time[0] += 31  # no sample after that
        world.engines.answers["p0"] = lambda: web.Response(status=500)
        await until(lambda: len(world.told) == 3)
        await world.rounds(5)
        assert world.told == [KEY] * 3
        assert world.scraper.loads(KEY)["claims-0"].at == NOW


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(lambda: web.Response(status=503), id="not ready"),
        pytest.param(lambda: web.Response(text="<html>"), id="no metrics"),
        pytest.param(lambda: web.Response(body=b"\0\xff\n"), id="no text"),
        pytest.param(
            lambda: web.Response(text="vllm:num_requests_running 1\n" + " " * MAX_BODY_B),
            id="too large",
        ),
        pytest.param(
            lambda: web.Response(status=302, headers={"Location": "/p1"}), id="a redirection"
        ),
    ],
)
async def test_a_bad_answer_is_none(answer: Callable[[], web.Response]) -> None:
    async with a_world() as world:
        world.engines.answers["p0"] = answer
        world.scraper.follow(KEY, {"claims-0": a_pod("p0"), "claims-1": a_pod("p1")}, VLLM)
        await world.rounds(6)
        assert world.engines.asked.count("p0") >= 2
        assert set(world.scraper.loads(KEY)) == {"claims-1"}


async def test_who_does_not_answer_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT_S", 0.1)
    async with a_world() as world:
        # Nobody listens at the first one's address.
        pods = {"claims-0": a_pod("p0", "127.0.0.2"), "claims-1": a_pod("p1")}
        world.scraper.follow(KEY, pods, VLLM)
        await until(lambda: "claims-1" in world.scraper.loads(KEY))
        world.engines.hold_s = 5.0
        count = len(world.engines.asked)
        await until(lambda: len(world.engines.asked) >= count + 3)
        assert set(world.scraper.loads(KEY)) == {"claims-1"}


async def test_at_most_16_are_asked_at_once() -> None:
    async with a_world() as world:
        world.engines.hold_s = 0.05
        for number in range(4):
            pods = {f"g{index}": a_pod(f"p{number}-{index}") for index in range(10)}
            world.scraper.follow(f"ml/d{number}", pods, VLLM)
        await until(lambda: len(set(world.engines.asked)) == 40)
        assert world.engines.most == 16


async def test_pods_come_and_go() -> None:
    async with a_world() as world:
        world.scraper.follow(KEY, {"claims-0": a_pod("p0"), "claims-1": a_pod("p1", None)}, VLLM)
        await until(lambda: set(world.scraper.loads(KEY)) == {"claims-0"})
        world.scraper.follow(KEY, {"claims-0": a_pod("p0", uid="another")}, VLLM)
        assert world.scraper.loads(KEY) == {}
        await until(lambda: set(world.scraper.loads(KEY)) == {"claims-0"})
        world.scraper.follow(KEY, {}, VLLM)
        await asyncio.sleep(0.05)
        count = len(world.engines.asked)
        await asyncio.sleep(0.1)
        assert len(world.engines.asked) == count
        world.scraper.follow(KEY, {"claims-2": a_pod("p2")}, VLLM)
        await until(lambda: set(world.scraper.loads(KEY)) == {"claims-2"})


async def test_who_is_forgotten_is_asked_no_more() -> None:
    async with a_world() as world:
        world.scraper.follow(KEY, {"claims-0": a_pod("p0")}, VLLM)
        await until(lambda: bool(world.scraper.loads(KEY)))
        world.scraper.forget(KEY)
        world.scraper.forget(KEY)
        assert world.scraper.loads(KEY) == {}
        await asyncio.sleep(0.05)
        count = len(world.engines.asked)
        await asyncio.sleep(0.1)
        assert len(world.engines.asked) == count


async def test_another_engine_is_read_anew_and_one_without_metrics_is_not() -> None:
    async with a_world() as world:
        pods = {"claims-0": a_pod("p0")}
        world.scraper.follow(KEY, pods, EngineName.CUSTOM)
        await asyncio.sleep(0.1)
        assert world.engines.asked == []
        world.scraper.follow(KEY, pods, VLLM)
        await until(lambda: bool(world.scraper.loads(KEY)))
        world.scraper.follow(KEY, pods, EngineName.SGLANG)
        assert world.scraper.loads(KEY) == {}


@pytest.mark.parametrize(
    ("ip", "url"),
    [
        ("10.0.0.7", "http://10.0.0.7:8000/metrics"),
        ("fd00::7", "http://[fd00::7]:8000/metrics"),
    ],
)
def test_the_address(ip: str, url: str) -> None:
    assert str(address_of(a_pod("p0", ip))) == url
