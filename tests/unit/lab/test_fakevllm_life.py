"""How fake-vllm's processes begin and end: alone, and as ranks of one engine."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tramontane.lab.controlplane import free_ports
from unit.lab.fakevllms import Lab, Running, ask, events, lab

QUICK = ("--fake-ttft", "0.005", "--fake-itl", "0.01", "--fake-rank-loss-after", "0.2")
CHAT = "/v1/chat/completions"
LONG = ask(stream=True, max_tokens=100, ignore_eos=True)  # a second


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Lab]:
    async with lab(tmp_path) as one:
        yield one


async def ranks(place: Lab, count: int, *words: str) -> list[Running]:
    """Start the ranks of one engine, the last one first."""
    [port] = free_ports(1)
    common = ("--tensor-parallel-size", str(count), "--nnodes", str(count),
              "--master-addr", "127.0.0.1", "--master-port", str(port))  # fmt: skip
    found = []
    for rank in reversed(range(count)):
        own = ["--node-rank", str(rank), *(["--headless"] if rank else [])]
        found.append(await place.start(*QUICK, *common, *own, *words))
    return list(reversed(found))


async def begin(server: Running, body: dict[str, Any]) -> aiohttp.ClientResponse:
    answer = await server.session.post(f"{server.url}{CHAT}", json=body)
    assert answer.status == 200
    await answer.content.readany()
    return answer


async def test_all_ranks_must_come_before_it_serves(place: Lab) -> None:
    [port] = free_ports(1)
    common = (*QUICK, "-tp", "3", "--nnodes", "3", "--master-port", str(port))
    head = await place.start(*common)
    one = await place.start(*common, "--headless", "--node-rank", "1")
    await head.logs("rank 1 joined")
    assert not await head.is_healthy()
    await place.start(*common, "--headless", "--node-rank", "2")
    await head.serves()
    assert not await one.is_healthy()  # headless: no HTTP
    assert (await head.post(CHAT, ask()))[0] == 200


async def test_a_rank_that_still_loads_is_waited_for(place: Lab) -> None:
    [port] = free_ports(1)
    common = (*QUICK, "-tp", "2", "--nnodes", "2", "--master-port", str(port))
    head = await place.start(*common)
    await place.start(*common, "--headless", "--node-rank", "1", "--fake-load", "0.7")
    await head.logs("Model loading took")
    assert not await head.is_healthy()
    await head.serves()


async def test_a_rank_that_cannot_load_is_the_end_of_all(place: Lab) -> None:
    [port] = free_ports(1)
    common = (*QUICK, "-tp", "2", "--nnodes", "2", "--master-port", str(port))
    head = await place.start(*common, "--fake-load", "60")
    other = await place.start(
        *common, "--headless", "--node-rank", "1", "--fake-start-fault", "oom"
    )
    assert await other.exit_code() == 1
    assert await head.exit_code() == 1


@pytest.mark.parametrize("lost", [0, 1], ids=["rank 0", "rank 1"])
async def test_a_lost_rank_is_the_end_of_all(place: Lab, lost: int) -> None:
    both = await ranks(place, 2)
    await both[0].serves()
    both[lost].end(signal.SIGKILL)
    assert await both[1 - lost].exit_code() == 1
    assert f"connection to rank {lost} closed by peer" in both[1 - lost].text()


async def test_ranks_that_are_told_to_end_leave_without_a_traceback(place: Lab) -> None:
    both = await ranks(place, 2, "--shutdown-timeout", "20")
    await both[0].serves()
    answer = await begin(both[0], {**LONG, "max_tokens": 50})
    both[0].end(signal.SIGTERM)
    events(await answer.text())
    assert await both[0].exit_code() == 0
    await both[1].exit_code()
    for one in both:
        assert "Traceback" not in one.text()
        assert "CancelledError" not in one.text()


async def test_a_lost_rank_may_hang_the_others(place: Lab) -> None:
    head, other = await ranks(place, 2, "--fake-rank-loss", "hang")
    await head.serves()
    other.end(signal.SIGKILL)
    await other.exit_code()
    await head.logs("closed by peer")
    asking = asyncio.create_task(head.post(CHAT, ask()))
    await asyncio.sleep(0.5)
    assert await head.is_healthy()
    assert await head.steps() == 0
    assert not asking.done()
    asking.cancel()


async def test_a_silent_rank_freezes_the_steps_until_it_speaks_again(place: Lab) -> None:
    head, other = await ranks(place, 2, "--fake-silent-after", "1.2")
    await head.serves()
    answer = await begin(head, {**LONG, "max_tokens": 300})
    other.end(signal.SIGSTOP)
    await asyncio.sleep(2.0)
    steps = await head.steps()
    await asyncio.sleep(0.5)
    assert await head.steps() == steps
    assert await head.is_healthy()
    other.end(signal.SIGCONT)
    events(await answer.text())


async def test_a_fault_can_be_ordered_on_another_rank(place: Lab) -> None:
    head, other = await ranks(place, 2)
    await head.serves()
    assert (await head.post("/fake/die", {"rank": 1, "code": 9}))[0] == 200
    assert await other.exit_code() == 9
    assert await head.exit_code() == 1


async def test_ranks_must_have_one_layout(place: Lab) -> None:
    [port] = free_ports(1)
    common = (*QUICK, "--nnodes", "2", "--master-port", str(port))
    head = await place.start(*common, "-tp", "2")
    other = await place.start(*common, "-tp", "4", "--headless", "--node-rank", "1")
    assert await other.exit_code() == 1
    assert "must have the layout nodes=2 data=1 tensor=2" in other.text()
    assert head.process.returncode is None


async def test_a_rank_that_dies_before_the_start_may_come_again(place: Lab) -> None:
    [port] = free_ports(1)
    common = (*QUICK, "-tp", "3", "--nnodes", "3", "--master-port", str(port))
    head = await place.start(*common)
    first = await place.start(*common, "--headless", "--node-rank", "1")
    await head.logs("rank 1 joined")
    first.end(signal.SIGKILL)
    for rank in ("1", "2"):
        await place.start(*common, "--headless", "--node-rank", rank)
    await head.serves()


async def test_ranks_that_never_come_are_given_up(place: Lab) -> None:
    [port] = free_ports(1)
    common = (*QUICK, "-tp", "2", "--nnodes", "2", "--master-port", str(port), "--fake-join", "0.5")
    for own in ([], ["--headless", "--node-rank", "1", "--master-port", str(port + 1)]):
        one = await place.start(*common, *own)
        assert await one.exit_code() == 1
        assert "Timed out" in one.text()


async def test_data_parallel_engines_meet_at_their_own_port(place: Lab) -> None:
    [port] = free_ports(1)
    common = (*QUICK, "--data-parallel-size", "4", "--data-parallel-size-local", "2",
              "--data-parallel-rpc-port", str(port), "--api-server-count")  # fmt: skip
    head = await place.start(*common, "1")
    await head.logs("Waiting for 2 to join")
    other = await place.start(*common, "0", "--headless", "--data-parallel-start-rank", "2")
    await head.serves()
    engines = {name for name in await head.metrics() if "num_requests_running" in name}
    assert len(engines) == 4
    other.end(signal.SIGKILL)
    assert await head.exit_code() == 1


async def test_hybrid_balancing_serves_on_each_node(place: Lab) -> None:
    [port] = free_ports(1)
    common = (*QUICK, "--data-parallel-size", "2", "--data-parallel-size-local", "1",
              "--data-parallel-rpc-port", str(port), "--data-parallel-hybrid-lb")  # fmt: skip
    both = [await place.start(*common, "--data-parallel-start-rank", str(rank)) for rank in (0, 1)]
    for index, one in enumerate(both):
        await one.serves()
        assert (
            f'vllm:num_requests_running{{engine="{index}",model_name="m"}}' in await one.metrics()
        )


async def test_a_drain_finishes_what_runs_and_refuses_what_comes(place: Lab) -> None:
    server = await (await place.start(*QUICK, "--shutdown-timeout", "20")).serves()
    answers = [await begin(server, LONG) for _ in range(3)]
    server.end()
    await server.logs("mode=drain timeout=20s")
    status, answer = await server.post(CHAT, ask())
    assert (status, answer["error"]["type"]) == (503, "Service Unavailable")
    assert await server.is_healthy()
    for one in answers:
        assert len(events("data: {}\n\n" + (await one.text()).lstrip())) > 50
    assert await server.exit_code(5) == 0


async def test_a_drain_has_an_end(place: Lab) -> None:
    server = await (await place.start(*QUICK, "--shutdown-timeout", "1")).serves()
    answer = await begin(server, {**LONG, "max_tokens": 3000})
    server.end()
    with pytest.raises(aiohttp.ClientError):
        await answer.text()
    assert await server.exit_code(5) == 0


async def test_without_a_grace_streams_are_cut(place: Lab) -> None:
    server = await (await place.start(*QUICK)).serves()
    answer = await begin(server, LONG)
    server.end()
    with pytest.raises(aiohttp.ClientError):
        await answer.text()
    assert await server.exit_code(5) == 0
    assert "mode=abort" in server.text()


async def test_a_deaf_server_must_be_killed(place: Lab) -> None:
    server = await (await place.start(*QUICK)).serves()
    await server.post("/fake/hang", {"deaf": True})
    server.end()
    await asyncio.sleep(0.3)
    assert await server.is_healthy()
    server.end(signal.SIGKILL)
    assert await server.exit_code() == -signal.SIGKILL


async def test_a_headless_rank_ends_at_once_and_takes_the_engine_along(place: Lab) -> None:
    head, other = await ranks(place, 2)
    await head.serves()
    other.end()
    assert await other.exit_code(5) == 0
    assert await head.exit_code() == 1


@pytest.mark.parametrize("words", [[], ["--fake-start-fault", "never"]], ids=["joins", "loads"])
async def test_told_to_end_before_it_serves(place: Lab, words: list[str]) -> None:
    [port] = free_ports(1)
    nodes = [] if words else ["-tp", "2", "--nnodes", "2", "--master-port", str(port)]
    server = await place.start(*nodes, *words)
    await server.logs("Waiting for" if nodes else "Starting to load")
    server.end()
    assert await server.exit_code(5) == 0
