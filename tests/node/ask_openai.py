"""Ask a server by OpenAI's own client; run by the Python that has it. Prints JSON lines.

ask_openai.py http://10.88.0.7:8000/v1 smollm2          all that a client does once
ask_openai.py http://10.88.0.7:8000/v1 smollm2 600      one stream of so many tokens
"""

import json
import sys
import time
from importlib import import_module
from typing import Any

openai: Any = import_module("openai")  # of another environment than that of the type checker

# What SmolLM2 ends a text or an answer with.
ENDS = ("0", "2")
QUESTION = "What is the capital of France? Answer in one sentence."


def say(what: str, **fields: Any) -> None:
    sys.stdout.write(json.dumps({"what": what, **fields}) + "\n")
    sys.stdout.flush()


def ask(model: str, tokens: int, question: str = QUESTION) -> dict[str, Any]:
    return {
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "max_tokens": tokens,
        "temperature": 0,
        "seed": 1,
    }


def stream(client: Any, model: str, tokens: int, **more: Any) -> None:
    began = time.monotonic()
    first_s, text, chunks, finish, usage = 0.0, "", 0, None, None
    body = {**ask(model, tokens, **more), "stream": True, "stream_options": {"include_usage": True}}
    if more:
        body["logit_bias"] = dict.fromkeys(ENDS, -100)
    for chunk in client.chat.completions.create(**body):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            finish = choice.finish_reason or finish
            if not choice.delta.content:
                continue
            if not chunks:
                first_s = time.monotonic() - began
                say("first", seconds=round(first_s, 3))
            chunks += 1
            text += choice.delta.content
    took_s = time.monotonic() - began - first_s
    say(
        "stream",
        text=text,
        chunks=chunks,
        finish=finish,
        usage=usage and usage.model_dump(exclude_none=True),
        ttft_s=round(first_s, 3),
        tokens_per_s=round((chunks - 1) / took_s, 1) if chunks > 1 else 0.0,
    )


def refusal(what: str, call: Any) -> None:
    try:
        answer = call()
    except openai.APIStatusError as error:
        say(what, status=error.status_code, kind=type(error).__name__, body=error.body)
    else:
        say(what, status=200, model=answer.model)


def everything(client: Any, model: str) -> None:
    say("models", ids=[one.id for one in client.models.list()])
    stream(client, model, 48)
    whole = client.chat.completions.create(**ask(model, 48))
    say("whole", text=whole.choices[0].message.content, usage=whole.usage.model_dump())
    create = client.chat.completions.create
    refusal("unknown model", lambda: create(**ask("nobody", 4)))
    refusal("too long", lambda: create(**ask(model, 4, "word " * 5000)))
    refusal("no messages", lambda: create(model=model, messages="none"))


def main(url: str, model: str, tokens: str = "") -> None:
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=120) as client:
        if tokens:
            stream(client, model, int(tokens), question="Tell me a long story about the sea.")
        else:
            everything(client, model)


if __name__ == "__main__":
    main(*sys.argv[1:])
