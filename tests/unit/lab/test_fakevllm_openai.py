"""fake-vllm under OpenAI's own client, where that is installed."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from unit.lab.fakevllms import Running, ask, lab, write_adapter

openai: Any = pytest.importorskip("openai", reason="the client of OpenAI is not installed")

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Running]:
    adapter = write_adapter(tmp_path / "adapter")
    async with lab(tmp_path) as place:
        words = ["--enable-auto-tool-choice", "--tool-call-parser", "mistral", "--enable-lora"]
        words += ["--lora-modules", f"motor={adapter}", "--max-num-queued-reqs", "4"]
        yield await (await place.start("--fake-itl", "0.005", *words)).serves()


@pytest.fixture
async def client(server: Running) -> AsyncIterator[Any]:
    async with openai.AsyncOpenAI(
        base_url=f"{server.url}/v1", api_key="none", max_retries=0
    ) as one:
        yield one


async def test_the_models_are_the_base_and_its_adapters(client: Any) -> None:
    assert [card.id async for card in client.models.list()] == ["m", "motor"]


async def test_a_stream_with_its_usage(client: Any) -> None:
    body = ask(max_tokens=5, stream=True, stream_options={"include_usage": True})
    chunks = [chunk async for chunk in await client.chat.completions.create(**body)]
    text = "".join(one.choices[0].delta.content or "" for one in chunks if one.choices)
    assert chunks[-2].choices[0].finish_reason == "length"
    assert (chunks[-1].choices, chunks[-1].usage.completion_tokens) == ([], 5)
    whole = await client.chat.completions.create(**ask(max_tokens=5))
    assert whole.choices[0].message.content == text
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + 5


async def test_a_completion_of_an_adapter(client: Any) -> None:
    answer = await client.completions.create(model="motor", prompt="Once", max_tokens=3)
    assert (answer.model, answer.usage.completion_tokens) == ("motor", 3)


async def test_a_tool_is_called_whole_and_streamed(client: Any) -> None:
    answer = await client.chat.completions.create(**ask(tools=[TOOL]))
    [call] = answer.choices[0].message.tool_calls
    assert (call.function.name, call.function.arguments) == ("weather", '{"city": "Paris"}')
    async with client.chat.completions.stream(**ask(tools=[TOOL])) as stream:
        final = await stream.get_final_completion()
    assert final.choices[0].finish_reason == "tool_calls"
    [call] = final.choices[0].message.tool_calls
    assert (call.function.name, call.function.arguments) == ("weather", '{"city": "Paris"}')


async def test_errors_keep_their_body(client: Any) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        await client.chat.completions.create(**ask(model="nobody"))
    assert (caught.value.type, caught.value.param) == ("NotFoundError", "model")
    with pytest.raises(openai.BadRequestError, match="maximum context length is 4096 tokens"):
        await client.chat.completions.create(**ask(max_tokens=5000))


async def test_beyond_the_queue_it_is_a_rate_limit(client: Any) -> None:
    body = ask(max_tokens=100, extra_body={"ignore_eos": True})
    found = await asyncio.gather(
        *[client.chat.completions.create(**body) for _ in range(6)], return_exceptions=True
    )
    assert sum(isinstance(one, openai.RateLimitError) for one in found) == 2
