"""The activator over real sockets: what it holds, what it passes on, and what it refuses."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from tramontane.controllers.inferencedeployment import activator as module
from tramontane.controllers.inferencedeployment.activator import Activator, key_of
from unit.lab.fakevllms import ask, events, lab

KEY = "insurer/claims"
HOST = "claims.insurer.svc:8000"
SOON_S = 5.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class World:
    """What the operator knows, and what it was told."""

    addresses: list[str] = field(default_factory=list)
    demands: list[str] = field(default_factory=list)

    def backend_of(self, key: str) -> str | None:
        if key != KEY:
            raise KeyError(key)
        if not self.addresses:
            return None
        self.addresses.append(self.addresses.pop(0))  # each call gives the next one
        return self.addresses[-1]


@pytest.fixture
def world() -> World:
    return World()


@asynccontextmanager
async def activated(
    world: World, *, hold_s: float = SOON_S, most_held: int = 100, most_body_b: int = 2**26
) -> AsyncIterator[tuple[Activator, str]]:
    """Run an activator; yield it and its URL."""
    activator = Activator(
        world.backend_of,
        world.demands.append,
        0,
        hold_s,
        host="127.0.0.1",
        most_held=most_held,
        most_body_b=most_body_b,
        short=lambda host: KEY if host == "claims" else None,
    )
    await activator.start(grace_s=1.0)
    try:
        yield activator, f"http://127.0.0.1:{activator.port}"
    finally:
        await activator.stop()


@asynccontextmanager
async def replica(handler: Handler) -> AsyncIterator[str]:
    """Run a replica; yield its address."""
    app = web.Application(client_max_size=2**26)
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as one:
        yield one


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SOON_S):
        while not condition():  # noqa: ASYNC110 - the condition has no event
            await asyncio.sleep(0.005)


def saying(text: str) -> Handler:
    async def handle(_: web.Request) -> web.StreamResponse:
        return web.Response(text=text)

    return handle


async def echo(request: web.Request) -> web.StreamResponse:
    body = await request.read()
    return web.json_response(
        {
            "method": request.method,
            "path": request.raw_path,
            "headers": dict(request.headers),
            "digest": hashlib.sha256(body).hexdigest(),
            "size": len(body),
        },
        status=207,
        headers={"X-Replica": "1", "Connection": "X-Hop", "X-Hop": "no"},
    )


def error_of(text: str) -> dict[str, object]:
    error = json.loads(text)["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    return dict(error)


@pytest.mark.parametrize(
    ("host", "key"),
    [
        pytest.param("claims.insurer", KEY, id="name and namespace"),
        pytest.param("claims.insurer:8000", KEY, id="with a port"),
        pytest.param("claims.insurer.svc", KEY, id="svc"),
        pytest.param("claims.insurer.svc.cluster.local", KEY, id="cluster domain"),
        pytest.param("Claims.Insurer.svc.hall.example.:80", KEY, id="capitals and a final dot"),
        pytest.param("claims", None, id="no namespace"),
        pytest.param("claims.insurer.example", None, id="a name of the outside"),
        pytest.param("10.0.0.7:8000", None, id="an address"),
        pytest.param("10.0.0.7.svc", None, id="digits beyond"),
        pytest.param("[::1]:8000", None, id="an address of six"),
        pytest.param("claims.ins/urer", None, id="a slash"),
        pytest.param("-.insurer", None, id="no label"),
        pytest.param("claims.insurer:x", None, id="no port"),
        pytest.param("", None, id="empty"),
        pytest.param(".", None, id="a dot"),
    ],
)
def test_the_host_names_the_deployment(host: str, key: str | None) -> None:
    assert key_of(host) == key


async def test_a_request_is_held_and_answered_by_the_first_replica(
    world: World, session: aiohttp.ClientSession
) -> None:
    async with activated(world) as (activator, url):
        asking = asyncio.create_task(session.get(url, headers={"Host": HOST}))
        await until(lambda: activator.held[KEY] == 1)
        assert world.demands == [KEY]
        async with replica(saying("bonjour")) as address:
            world.addresses.append(address)
            async with await asking as answer:
                assert (answer.status, await answer.text()) == (200, "bonjour")
        assert not activator.held


async def test_a_replica_that_is_named_but_does_not_accept_yet_is_waited_for(
    world: World, session: aiohttp.ClientSession, unused_tcp_port: int
) -> None:
    world.addresses.append(f"127.0.0.1:{unused_tcp_port}")
    async with activated(world) as (activator, url):
        asking = asyncio.create_task(session.get(url, headers={"Host": HOST}))
        await until(lambda: activator.held[KEY] == 1)
        app = web.Application()
        app.router.add_get("/", saying("late"))
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", unused_tcp_port).start()
        async with await asking as answer:
            assert await answer.text() == "late"
        await runner.cleanup()


async def test_another_replica_is_asked_where_one_does_not_accept(
    world: World, session: aiohttp.ClientSession, unused_tcp_port: int
) -> None:
    async with replica(echo) as address:
        # Turn by turn: the first one that is named refuses.
        world.addresses += [address, f"127.0.0.1:{unused_tcp_port}"]
        world.addresses.reverse()
        async with activated(world) as (_, url):
            for _ in range(4):
                async with session.post(url, data=b"x" * 1000, headers={"Host": HOST}) as answer:
                    assert (await answer.json())["size"] == 1000


async def test_a_served_deployment_is_no_demand(
    world: World, session: aiohttp.ClientSession
) -> None:
    async with replica(saying("hello")) as address:
        world.addresses.append(address)
        async with (
            activated(world) as (_, url),
            session.get(url, headers={"Host": "claims"}) as answer,
        ):
            assert await answer.text() == "hello"
        assert world.demands == []


@pytest.mark.parametrize("chunked", [False, True], ids=["with a length", "in chunks"])
@pytest.mark.parametrize("held", [False, True], ids=["at once", "held"])
async def test_a_body_arrives_intact(
    world: World, session: aiohttp.ClientSession, *, chunked: bool, held: bool
) -> None:
    body = bytes(range(256)) * 4096

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 100_000):
            yield body[start : start + 100_000]
            await asyncio.sleep(0)

    async with (
        replica(echo) as address,
        activated(world) as (activator, url),
    ):
        if not held:
            world.addresses.append(address)
        data = pieces() if chunked else body
        asking = asyncio.create_task(
            session.put(f"{url}/v1/x%2Fy?a=b%20c", data=data, headers={"Host": HOST, "X-Mine": "1"})
        )
        if held:
            await until(lambda: activator._body_b[KEY] == len(body))
            world.addresses.append(address)
        async with await asking as answer:
            seen = await answer.json()
            assert answer.status == 207
            assert answer.headers["X-Replica"] == "1"
            assert "X-Hop" not in answer.headers
        assert seen["digest"] == hashlib.sha256(body).hexdigest()
        assert (seen["method"], seen["path"]) == ("PUT", "/v1/x%2Fy?a=b%20c")
        assert (seen["headers"]["Host"], seen["headers"]["X-Mine"]) == (HOST, "1")
        assert not activator._body_b


async def test_hop_by_hop_headers_stay_on_their_hop(
    world: World, session: aiohttp.ClientSession
) -> None:
    async with replica(echo) as address:
        world.addresses.append(address)
        async with activated(world) as (_, url):
            headers = {"Host": HOST, "Connection": "X-Secret", "X-Secret": "1", "TE": "trailers",
                       "Proxy-Authorization": "x", "Authorization": "Bearer k"}  # fmt: skip
            async with session.get(url, headers=headers) as answer:
                seen = (await answer.json())["headers"]
    assert not {"X-Secret", "TE", "Proxy-Authorization"} & seen.keys()
    assert seen["Authorization"] == "Bearer k"


async def test_a_stream_passes_piece_by_piece(world: World, session: aiohttp.ClientSession) -> None:
    go_on = asyncio.Event()

    async def stream(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        for number in range(3):
            await answer.write(b"data: %d\n\n" % number)
            await go_on.wait()
            go_on.clear()
        await answer.write_eof()
        return answer

    async with replica(stream) as address:
        world.addresses.append(address)
        async with activated(world) as (_, url), session.get(url, headers={"Host": HOST}) as answer:
            assert answer.headers["Content-Type"] == "text/event-stream"
            for number in range(3):
                # The next piece is not made before this one has arrived.
                assert await answer.content.readany() == b"data: %d\n\n" % number
                go_on.set()
            assert await answer.content.read() == b""


async def test_a_compressed_answer_is_left_as_it_is(world: World) -> None:
    async def packed(request: web.Request) -> web.StreamResponse:
        assert "Accept-Encoding" not in request.headers
        return web.Response(body=b"not really gzip", headers={"Content-Encoding": "gzip"})

    async with replica(packed) as address:
        world.addresses.append(address)
        async with (
            activated(world) as (_, url),
            aiohttp.ClientSession(
                auto_decompress=False, skip_auto_headers=["Accept-Encoding"]
            ) as session,
            session.get(url, headers={"Host": HOST}) as answer,
        ):
            assert await answer.read() == b"not really gzip"
            assert answer.headers["Content-Encoding"] == "gzip"


@pytest.mark.parametrize("status", [200, 204, 304, 404])
async def test_head_and_empty_answers(
    world: World, session: aiohttp.ClientSession, status: int
) -> None:
    async def empty(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status)

    async with replica(empty) as address:
        world.addresses.append(address)
        async with (
            activated(world) as (_, url),
            session.head(url, headers={"Host": HOST}) as answer,
        ):
            assert (answer.status, await answer.read()) == (status, b"")


async def test_an_answer_that_breaks_off_is_seen_to_be_cut(
    world: World, session: aiohttp.ClientSession
) -> None:
    async def cut(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        await answer.write(b"half")
        assert request.transport
        request.transport.close()
        return answer

    async with replica(cut) as address:
        world.addresses.append(address)
        async with activated(world) as (_, url):
            with pytest.raises(aiohttp.ClientError):
                async with session.get(url, headers={"Host": HOST}) as answer:
                    await answer.read()


async def test_a_replica_that_hangs_up_without_an_answer(
    world: World, session: aiohttp.ClientSession
) -> None:
    async def hang_up(request: web.Request) -> web.StreamResponse:
        assert request.transport
        request.transport.abort()
        return web.Response()

    async with replica(hang_up) as address:
        world.addresses.append(address)
        async with (
            activated(world) as (_, url),
            session.post(url, data=b"x", headers={"Host": HOST}) as answer,
        ):
            assert answer.status == 502
            assert error_of(await answer.text())["type"] == "BadGatewayError"


async def test_a_client_that_goes_away_ends_the_request_at_the_replica(world: World) -> None:
    seen: list[str] = []

    async def silent(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        await answer.write(b"x")
        seen.append("begun")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.append("ended")
            raise
        return answer

    async with replica(silent) as address:
        world.addresses.append(address)
        async with activated(world) as (_, url):
            async with aiohttp.ClientSession() as session:
                answer = await session.get(url, headers={"Host": HOST})
                assert await answer.content.readany()
                answer.close()
            await until(lambda: seen == ["begun", "ended"])


@pytest.mark.parametrize("size", [0, 2**20], ids=["no body", "a body"])
async def test_a_client_that_goes_away_is_held_no_longer(
    world: World, session: aiohttp.ClientSession, size: int
) -> None:
    async with activated(world) as (activator, url):
        asking = asyncio.create_task(session.post(url, data=b"x" * size, headers={"Host": HOST}))
        await until(lambda: activator.held[KEY] == 1 and activator._body_b[KEY] == size)
        asking.cancel()
        with suppress(asyncio.CancelledError):
            await asking
        await until(lambda: not activator.held and not activator._body_b)


async def test_no_replica_comes_in_time(world: World, session: aiohttp.ClientSession) -> None:
    async with activated(world, hold_s=0.3) as (activator, url):
        async with session.post(url, data=b"x", headers={"Host": HOST}) as answer:
            assert answer.status == 504
            error = error_of(await answer.text())
        assert error["code"] == 504
        assert "InferenceDeployment insurer/claims: a replica must serve within 0.3 s" in str(
            error["message"]
        )
        assert not activator.held


async def test_more_requests_than_may_wait_are_sent_away(
    world: World, session: aiohttp.ClientSession
) -> None:
    async with activated(world, most_held=3) as (activator, url):
        held = [asyncio.create_task(session.get(url, headers={"Host": HOST})) for _ in range(3)]
        await until(lambda: activator.held[KEY] == 3)
        async with session.get(url, headers={"Host": HOST}) as answer:
            assert answer.status == 503
            assert int(answer.headers["Retry-After"]) > 0
            assert "at most 3 requests" in str(error_of(await answer.text())["message"])
        async with replica(saying("at last")) as address:
            world.addresses.append(address)
            for task in held:
                async with await task as answer:
                    assert await answer.text() == "at last"
    assert world.demands == [KEY] * 3


async def test_more_bytes_than_may_wait_are_sent_away(
    world: World, session: aiohttp.ClientSession
) -> None:
    async with activated(world, most_body_b=2**20) as (activator, url):
        small = asyncio.create_task(session.post(url, data=b"s", headers={"Host": HOST}))
        await until(lambda: activator._body_b[KEY] == 1)
        async with session.post(url, data=b"x" * 2**20, headers={"Host": HOST}) as answer:
            assert answer.status == 503
            assert "Retry-After" in answer.headers
            assert "bytes" in str(error_of(await answer.text())["message"])
        async with replica(echo) as address:
            world.addresses.append(address)
            async with await small as answer:
                assert (await answer.json())["size"] == 1


@pytest.mark.parametrize(
    "host",
    ["other.insurer", "claims.example.com", "127.0.0.1", "unknown"],
    ids=["no such deployment", "a foreign name", "an address", "a short name of nobody"],
)
async def test_a_host_of_nobody(world: World, session: aiohttp.ClientSession, host: str) -> None:
    async with activated(world) as (_, url), session.get(url, headers={"Host": host}) as answer:
        assert answer.status == 404
        assert error_of(await answer.text())["type"] == "NotFoundError"
    assert world.demands == []


async def test_a_deployment_that_is_deleted_meanwhile(
    world: World, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with activated(world) as (activator, url):
        asking = asyncio.create_task(session.get(url, headers={"Host": HOST}))
        await until(lambda: activator.held[KEY] == 1)

        def gone(key: str) -> str | None:
            raise KeyError(key)

        monkeypatch.setattr(activator, "_backend_of", gone)
        async with await asking as answer:
            assert answer.status == 404


async def test_a_request_that_waits_long_stays_demand(
    world: World, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DEMAND_EVERY_S", 0.05)
    monkeypatch.setattr(module, "POLL_S", 0.01)
    async with (
        activated(world, hold_s=0.5) as (_, url),
        session.get(url, headers={"Host": HOST}) as answer,
    ):
        assert answer.status == 504
    assert len(world.demands) > 3


async def test_the_end_sends_those_who_wait_away_and_lets_streams_end(
    world: World, session: aiohttp.ClientSession
) -> None:
    async with activated(world) as (activator, url):
        asking = asyncio.create_task(session.get(url, headers={"Host": HOST}))
        await until(lambda: activator.held[KEY] == 1)
        await activator.stop()
        async with await asking as answer:
            assert answer.status == 503
            assert "Retry-After" in answer.headers


async def test_many_at_once(world: World, session: aiohttp.ClientSession) -> None:
    async with activated(world) as (activator, url):
        asking = [
            asyncio.create_task(session.post(url, data=bytes([i]) * 10_000, headers={"Host": HOST}))
            for i in range(80)
        ]
        await until(lambda: activator.held[KEY] == 80)
        async with replica(echo) as one, replica(echo) as two:
            world.addresses += [one, two]
            for i, task in enumerate(asking):
                async with await task as answer:
                    digest = hashlib.sha256(bytes([i]) * 10_000).hexdigest()
                    assert (await answer.json())["digest"] == digest
        assert not activator.held
        assert not activator._body_b


async def test_the_stream_of_an_engine_that_starts_because_of_it(
    world: World, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    async with activated(world, hold_s=30.0) as (activator, url), lab(tmp_path) as place:
        body = ask(stream=True, max_tokens=10)
        asking = asyncio.create_task(
            session.post(f"{url}/v1/chat/completions", json=body, headers={"Host": HOST})
        )
        await until(lambda: bool(world.demands))
        engine = await place.start("--fake-load", "0.3")
        # Named before it listens.
        world.addresses.append(f"127.0.0.1:{engine.port}")
        async with await asking as answer:
            assert answer.content_type == "text/event-stream"
            assert len(events(await answer.text())) == 11
        assert not activator.held
