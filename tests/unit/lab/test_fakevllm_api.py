"""fake-vllm as its clients see it: real processes, real sockets, vLLM's names and errors."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tramontane.controllers.inferencedeployment.load import Histogram, quantile
from unit.lab.fakevllms import LENGTH, Lab, Running, ask, events, lab, write_adapter, write_model

QUICK = ("--fake-ttft", "0.005", "--fake-itl", "0.002")
CHAT = "/v1/chat/completions"
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string"},
                    "days": {"type": "integer"},
                    "unit": {"enum": ["C", "F"]},
                    "hours": {"type": "array", "items": {"type": "number"}},
                },
                "required": ["city", "days", "unit", "hours"],
            },
        },
    },
    {"type": "function", "function": {"name": "news"}},
]


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Lab]:
    async with lab(tmp_path) as one:
        yield one


async def a_server(place: Lab, *words: str, **env: str) -> Running:
    return await (await place.start(*QUICK, *words, env=env)).serves()


async def stream(server: Running, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    async with server.session.post(f"{server.url}{path}", json={**body, "stream": True}) as answer:
        assert answer.status == 200
        assert answer.content_type == "text/event-stream"
        return events(await answer.text())


def text_of(chunks: list[dict[str, Any]]) -> str:
    return "".join(one["choices"][0]["delta"].get("content", "") for one in chunks)


async def test_a_chat_streamed_and_whole_say_the_same(place: Lab) -> None:
    server = await a_server(place)
    body = ask(max_tokens=5)
    chunks = await stream(server, CHAT, {**body, "stream_options": {"include_usage": True}})
    *chunks, usage = chunks
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert {one["object"] for one in chunks} == {"chat.completion.chunk"}
    assert len({one["id"] for one in chunks}) == 1
    reasons = [one["choices"][0]["finish_reason"] for one in chunks]
    assert reasons == [None] * 5 + ["length"]
    assert (usage["choices"], usage["usage"]["completion_tokens"]) == ([], 5)
    status, whole = await server.post(CHAT, body)
    assert status == 200
    assert whole["choices"][0]["message"]["content"] == text_of(chunks)
    assert whole["usage"] == usage["usage"]
    _, other = await server.post(CHAT, ask("something else", max_tokens=5))
    assert other["choices"][0]["message"]["content"] != text_of(chunks)


async def test_a_completion_streamed_and_whole_say_the_same(place: Lab) -> None:
    server = await a_server(place)
    body = {"model": "m", "prompt": "Once", "max_tokens": 4}
    chunks = await stream(server, "/v1/completions", body)
    assert {one["object"] for one in chunks} == {"text_completion"}
    _, whole = await server.post("/v1/completions", body)
    assert whole["choices"][0]["text"] == "".join(one["choices"][0]["text"] for one in chunks)
    assert whole["usage"] == {"prompt_tokens": 1, "completion_tokens": 4, "total_tokens": 5}
    status, _ = await server.post("/v1/completions", {"model": "m", "prompt": [1, 2, 3]})
    assert status == 200


async def test_an_answer_ends_by_itself(place: Lab) -> None:
    server = await a_server(place, "--fake-tokens", "7")
    _, whole = await server.post(CHAT, ask())
    assert whole["choices"][0]["finish_reason"] == "stop"
    assert whole["usage"]["completion_tokens"] == 7
    _, whole = await server.post(CHAT, ask(max_tokens=20, ignore_eos=True))
    assert whole["usage"]["completion_tokens"] == 20


async def test_tools(place: Lab) -> None:
    server = await a_server(place, "--enable-auto-tool-choice", "--tool-call-parser", "mistral")
    body = ask(tools=TOOLS)
    _, whole = await server.post(CHAT, body)
    choice = whole["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    [call] = choice["message"]["tool_calls"]
    assert call["function"]["name"] == "weather"
    arguments = json.loads(call["function"]["arguments"])
    assert arguments == {"city": "Paris", "days": 1, "unit": "C", "hours": [1.5]}
    chunks = await stream(server, CHAT, body)
    deltas = [one["choices"][0]["delta"] for one in chunks]
    functions = [call["function"] for one in deltas for call in one.get("tool_calls", ())]
    assert functions[0]["name"] == "weather"
    assert json.loads("".join(one["arguments"] for one in functions)) == arguments
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"
    named = {"type": "function", "function": {"name": "news"}}
    _, whole = await server.post(CHAT, {**body, "tool_choice": named})
    assert whole["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "news"
    for more in (
        {"tool_choice": "none"},
        {"messages": [*body["messages"], {"role": "tool", "content": "sunny"}]},
    ):
        _, whole = await server.post(CHAT, {**body, **more})
        assert whole["choices"][0]["message"]["content"]


async def test_error_bodies(place: Lab) -> None:
    server = await a_server(place)
    long = ask("x" * 4 * LENGTH)
    cases: list[tuple[dict[str, Any], int, str, str | None, str]] = [
        (ask(model="other"), 404, "NotFoundError", "model", "The model `other` does not exist."),
        (long, 400, "BadRequestError", "input_tokens", "maximum context length is 4096 tokens"),
        (ask(max_tokens=LENGTH), 400, "BadRequestError", "input_tokens", "output tokens"),
        (ask(max_tokens=-1), 400, "BadRequestError", "max_tokens", "max_tokens"),
        (ask(n=2), 400, "BadRequestError", "n", "n must be 1"),
        (ask(messages=[]), 400, "BadRequestError", "messages", "at least one"),
        (ask(tools=TOOLS), 400, "BadRequestError", None, "--enable-auto-tool-choice"),
    ]
    for body, status, kind, param, message in cases:
        found, answer = await server.post(CHAT, body)
        error = answer["error"]
        assert (found, error["code"], error["type"], error["param"]) == (
            status, status, kind, param
        )  # fmt: skip
        assert message in error["message"]
    async with server.session.post(f"{server.url}{CHAT}", data=b"{", headers={
        "Content-Type": "application/json"
    }) as answer:  # fmt: skip
        assert answer.status == 400
    async with server.session.post(f"{server.url}{CHAT}", data=b"x") as answer:
        assert "Only 'application/json'" in (await answer.json())["error"]["message"]
    assert await server.get("/nowhere") == (404, {"detail": "Not Found"})
    assert await server.get(CHAT) == (405, {"detail": "Method Not Allowed"})
    assert (await server.post("/v1/load_lora_adapter"))[0] == 404  # not allowed by the environment


async def test_small_endpoints(place: Lab) -> None:
    server = await a_server(place, "--fake-version", "0.32.1", "--api-key", "k1", "k2")
    assert await server.get("/health") == (200, "")
    assert await server.post("/ping") == (200, "")
    assert await server.get("/version") == (200, {"version": "0.32.1"})
    assert await server.get("/load") == (200, {"server_load": 0})
    assert (await server.get("/v1/models"))[0] == 401
    headers = {"Authorization": "Bearer k2"}
    async with server.session.get(f"{server.url}/v1/models", headers=headers) as answer:
        [card] = (await answer.json())["data"]
    assert (card["id"], card["root"], card["max_model_len"]) == ("m", str(place.model), LENGTH)


async def test_beyond_its_queue_it_says_no(place: Lab) -> None:
    server = await a_server(
        place, "--max-num-queued-reqs", "3", "--max-num-seqs", "1", "--fake-ttft", "1"
    )
    held = [asyncio.create_task(server.post(CHAT, ask())) for _ in range(3)]
    waiting = 'vllm:num_requests_waiting{engine="0",model_name="m"}'
    await server.has(lambda samples: samples[waiting] == 2)
    status, answer = await server.post(CHAT, ask())
    assert (status, answer["error"]["code"]) == (429, 429)
    assert "currently busy" in answer["error"]["message"]
    rejected = 'vllm:admission_rejections_total{model_name="m",reason="max_num_queued_reqs"}'
    assert (await server.metrics())[rejected] == 1
    for task in held:
        assert (await task)[0] == 200


async def test_metrics_tell_what_happened(place: Lab) -> None:
    server = await a_server(place, "--data-parallel-size", "2", "--api-server-count", "1")
    await asyncio.gather(*[server.post(CHAT, ask(max_tokens=3)) for _ in range(10)])
    await server.post(CHAT, ask(model="x"))
    samples = await server.metrics()

    def total(start: str) -> float:
        return sum(value for name, value in samples.items() if name.startswith(start))

    assert total("vllm:request_success_total{") == 10
    assert total("vllm:generation_tokens_total{") == 30
    assert total("vllm:time_to_first_token_seconds_count") == 10
    assert total("vllm:inter_token_latency_seconds_count") == 20
    assert samples['http_requests_total{handler="/v1/chat/completions",method="POST",'
                   'status="2xx"}'] == 10  # fmt: skip
    assert samples['http_requests_total{handler="/v1/chat/completions",method="POST",'
                   'status="4xx"}'] == 1  # fmt: skip
    used = [
        samples[f'vllm:generation_tokens_total{{engine="{index}",model_name="m"}}']
        for index in (0, 1)
    ]
    assert min(used) > 0


async def test_first_tokens_come_later_under_load(place: Lab) -> None:
    server = await a_server(place, "--max-num-seqs", "2", "--fake-ttft", "0.03")

    async def p95() -> float:
        samples = await server.metrics()
        start = "vllm:time_to_first_token_seconds_bucket"
        found = [(k, v) for k, v in samples.items() if k.startswith(start)]
        bounds = [float(k.split('le="')[1].split('"')[0]) for k, _ in found]
        value = quantile(Histogram(tuple(bounds), tuple(v for _, v in found)), 0.95)
        assert value is not None
        return value

    await server.post(CHAT, ask())
    alone = await p95()
    await asyncio.gather(*[server.post(CHAT, ask()) for _ in range(20)])
    assert await p95() > 3 * alone


async def test_adapters_come_and_go(place: Lab) -> None:
    adapter = write_adapter(place.folder / "adapter")
    wide = write_adapter(place.folder / "wide", rank=64)
    server = await a_server(place, "--enable-lora", VLLM_ALLOW_RUNTIME_LORA_UPDATING="1")
    load, unload = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
    good = {"lora_name": "a", "lora_path": str(adapter)}
    for body, status, message in (
        ({**good, "lora_path": "/nowhere"}, 404, "No adapter found for /nowhere"),
        ({**good, "lora_path": str(wide)}, 500, "LoRA rank 64 is greater than max_lora_rank 16."),
        ({"lora_name": "a"}, 400, "Both 'lora_name' and 'lora_path' must be provided."),
        ({**good, "lora_name": "m"}, 400, "conflicts with a served base model"),
    ):
        found, answer = await server.post(load, body)
        assert found == status
        assert message in answer["error"]["message"]
    assert (await server.post(CHAT, ask(model="a")))[0] == 404
    assert await server.post(load, good) == (
        200, "Success: LoRA adapter 'a' added successfully."
    )  # fmt: skip
    assert (await server.post(load, good))[0] == 400
    assert (await server.post(load, {**good, "load_inplace": True}))[0] == 200
    _, models = await server.get("/v1/models")
    assert [(one["id"], one["parent"]) for one in models["data"]] == [("m", None), ("a", "m")]
    status, answer = await server.post(CHAT, ask(model="a"))
    assert (status, answer["model"]) == (200, "a")
    told = [name for name in await server.metrics() if "lora_requests_info" in name]
    assert any('running_lora_adapters="a"' in name for name in told)
    assert (await server.post(unload, {"lora_name": "a"}))[0] == 200
    status, answer = await server.post(unload, {"lora_name": "a"})
    assert (status, answer["error"]["type"]) == (404, "NotFoundError")
    assert (await server.post(CHAT, ask(model="a")))[0] == 404


async def test_adapters_of_the_command_line(place: Lab) -> None:
    adapter = write_adapter(place.folder / "adapter")
    server = await a_server(place, "--enable-lora", "--lora-modules", f"a={adapter}")
    assert (await server.post(CHAT, ask(model="a")))[0] == 200
    bad = await place.start("--enable-lora", "--lora-modules", "a=/nowhere")
    assert await bad.exit_code() == 1


async def test_a_client_that_goes_away_ends_its_request(place: Lab) -> None:
    server = await a_server(place, "--fake-tokens", "100000", "--max-model-len", "4096")
    body = ask(stream=True, max_tokens=4000, ignore_eos=True)
    answer = await server.session.post(f"{server.url}{CHAT}", json=body)
    await answer.content.readany()
    answer.close()
    running = 'vllm:num_requests_running{engine="0",model_name="m"}'
    await server.has(lambda samples: samples[running] == 0)
    aborted = 'vllm:request_success_total{engine="0",model_name="m",finished_reason="abort"}'
    assert (await server.metrics())[aborted] == 1


async def test_a_connection_serves_several_requests(place: Lab) -> None:
    server = await a_server(place)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    body = json.dumps(ask(max_tokens=2)).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: m\r\nContent-Type: application/json\r\n"
    chunked = b"".join(b"%x;x=y\r\n%b\r\n" % (len(p), p) for p in (body[:10], body[10:]))
    writer.write(b"GET /health HTTP/1.1\r\nHost: m\r\n\r\n")
    writer.write(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    writer.write(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunked + b"0\r\nT: 1\r\n\r\n")
    writer.write(b"GET /version HTTP/1.1\r\nConnection: close\r\n\r\n")
    text = (await asyncio.wait_for(reader.read(), 10)).decode()
    assert text.count("HTTP/1.1 200 OK") == 4
    assert text.count('"finish_reason":"length"') == 2
    assert text.endswith('{"version": "0.32.0"}')
    writer.close()


async def test_a_request_may_come_byte_by_byte_or_expect_a_sign(place: Lab) -> None:
    server = await a_server(place)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    for byte in b"GET /version HTTP/1.1\r\nHost: m\r\n\r\n":
        writer.write(bytes([byte]))
        await asyncio.sleep(0)
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    await reader.readuntil(b"}")
    body = json.dumps(ask(max_tokens=1)).encode()
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nExpect: 100-continue\r\nConnection: close\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    )
    assert await reader.readline() == b"HTTP/1.1 100 Continue\r\n"
    writer.write(body)
    assert b"200 OK" in await reader.read()
    writer.close()


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"x" * (2**18 + 1),
    ],
    ids=["no request", "no header", "a length below zero", "no size", "no end"],
)
async def test_what_is_no_request_is_refused(place: Lab, data: bytes) -> None:
    server = await a_server(place)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(data)
    assert (await asyncio.wait_for(reader.read(), 10)).startswith(b"HTTP/1.1 400")
    writer.close()
    assert await server.is_healthy()


async def test_many_streams_at_once(place: Lab) -> None:
    server = await a_server(place, "--max-num-seqs", "64", "--disable-uvicorn-access-log")
    async with asyncio.timeout(60):
        found = await asyncio.gather(
            *[stream(server, CHAT, ask(max_tokens=10)) for _ in range(300)]
        )
    assert {len(one) for one in found} == {11}


async def test_faults_are_off_unless_allowed(place: Lab) -> None:
    server = await a_server(place, FAKE_VLLM_FAULTS="0")
    assert (await server.post("/fake/die"))[0] == 404


async def test_slow_errors_and_clear(place: Lab) -> None:
    server = await a_server(place, "--fake-ttft", "0.05")
    assert (await server.post("/fake/errors", {"rate": 1}))[0] == 200
    status, answer = await server.post(CHAT, ask())
    assert (status, answer["error"]["type"]) == (500, "InternalServerError")
    assert await server.is_healthy()
    assert (await server.post("/fake/clear"))[0] == 200
    assert (await server.post("/fake/slow", {"factor": 6}))[0] == 200
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert (await server.post(CHAT, ask(max_tokens=1)))[0] == 200
    assert loop.time() - began > 0.3
    assert (await server.post("/fake/slow", {"factor": 0}))[0] == 400
    assert (await server.post("/fake/die", {"rank": 3}))[0] == 400
    assert (await server.post("/fake/nothing"))[0] == 404


async def test_a_hang_is_not_seen_by_the_health_endpoint(place: Lab) -> None:
    server = await a_server(place)
    await server.post("/fake/hang")
    asking = asyncio.create_task(server.post(CHAT, ask()))
    await asyncio.sleep(0.1)
    steps = await server.steps()
    await asyncio.sleep(0.3)
    assert await server.steps() == steps
    assert await server.is_healthy()
    running = 'vllm:num_requests_waiting{engine="0",model_name="m"}'
    assert (await server.metrics())[running] == 1
    assert not asking.done()
    await server.post("/fake/clear")
    assert (await asking)[0] == 200


async def test_a_death_is_a_death(place: Lab) -> None:
    server = await a_server(place)
    asking = asyncio.create_task(server.post(CHAT, ask(max_tokens=4000, ignore_eos=True)))
    await asyncio.sleep(0.1)
    with pytest.raises(aiohttp.ClientError):
        await server.post("/fake/die", {"code": 139})
    assert await server.exit_code() == 139
    with pytest.raises(aiohttp.ClientError):
        await asking


async def test_out_of_memory_kills_the_engine_and_then_the_server(place: Lab) -> None:
    server = await a_server(place)
    asking = asyncio.create_task(server.post(CHAT, ask(max_tokens=4000, ignore_eos=True)))
    streaming = asyncio.create_task(stream(server, CHAT, ask(max_tokens=4000, ignore_eos=True)))
    await asyncio.sleep(0.2)
    await server.post("/fake/oom")
    assert not await server.is_healthy()
    status, answer = await asking
    assert (status, answer["error"]["type"]) == (500, "InternalServerError")
    assert "EngineCore encountered an issue" in (await streaming)[-1]["error"]["message"]
    assert await server.exit_code() == 1
    assert "CUDA out of memory" in server.text()
    assert "EngineDeadError" in server.text()


@pytest.mark.parametrize("by", ["environment", "file", "model"])
async def test_out_of_memory_at_the_start(place: Lab, by: str) -> None:
    file = place.folder / "fault"
    file.write_text("oom\n")
    model = write_model(place.folder / "bad", start_fault="oom") if by == "model" else None
    env = {"environment": {"FAKE_VLLM_START_FAULT": "oom"},
           "file": {"FAKE_VLLM_FAULT_FILE": str(file)}}.get(by, {})  # fmt: skip
    server = await place.start(model=model, env=env)
    assert await server.exit_code() == 1
    assert "CUDA out of memory" in server.text()


async def test_a_start_that_takes_too_long_is_given_up(place: Lab) -> None:
    server = await place.start(
        "--fake-start-fault", "never", env={"VLLM_ENGINE_READY_TIMEOUT_S": "0.5"}
    )
    assert await server.exit_code() == 1
    assert "Timed out waiting for engine core processes" in server.text()


async def test_loading_takes_time_for_each_gib(place: Lab) -> None:
    # The model has 2**20 bytes: a 1,024th of a GiB.
    server = await place.start("--fake-load-per-gib", "700")
    await server.logs("Starting to load model")
    assert not await server.is_healthy()
    await server.serves()
    assert "Model loading took 0.00 GiB memory and 0.68" in server.text()
    cache = "GPU KV cache size: 262,144 tokens, Maximum concurrency for 4,096 tokens per request: "
    assert cache + "64.00x" in server.text()
