"""Read requests of the OpenAI API: what is wanted, or why it is refused."""

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

#: Characters of a tool's arguments that a token holds.
PIECE: Final = 8


class Refused(Exception):  # noqa: N818 - named for what it is answered with
    """Say why a request is not taken, as OpenAI's error body does."""

    def __init__(self, status: int, message: str, kind: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = error_body(status, message, kind, param)


def error_body(status: int, message: str, kind: str, param: str | None = None) -> bytes:
    """Return OpenAI's error object."""
    error = {"message": message, "type": kind, "param": param, "code": status}
    return json.dumps({"error": error}).encode()


def bad(message: str, param: str | None = None) -> Refused:
    """Return a refusal with 400."""
    return Refused(400, message, "BadRequestError", param)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Hold what a request asks for, checked.

    Attributes:
        tool: name and arguments (JSON) of the function to call, None to answer in words.
        want, reason: tokens of the answer, and why it ends there.
    """

    is_chat: bool
    streams: bool
    usage: bool
    prompt: int
    want: int
    reason: str
    seed: int
    tool: tuple[str, str] | None = None


def count_tokens(text: str) -> int:
    """Return about how many tokens a text has."""
    return (len(text) + 3) // 4


def _text(content: Any) -> str:
    """Return the text of a message's content, which may come in parts."""
    if isinstance(content, list):
        return " ".join(str(p.get("text", "")) for p in content if isinstance(p, dict))
    return "" if content is None else str(content)


def _read_prompt(body: Mapping[str, Any], *, is_chat: bool) -> tuple[str, int]:
    """Return the text of a prompt and its tokens."""
    if is_chat:
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages:
            raise bad("messages must be a list with at least one message", "messages")
        if not all(isinstance(message, dict) for message in messages):
            raise bad("messages must be objects", "messages")
        texts = [f"{m.get('role')}: {_text(m.get('content'))}" for m in messages]
        tools = json.dumps(body["tools"]) if body.get("tools") else ""
        return "\n".join([*texts, tools]), 3 + sum(4 + count_tokens(t) for t in [*texts, tools])
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1 and not isinstance(prompt[0], int):
        prompt = prompt[0]
    if isinstance(prompt, str) and prompt:
        return prompt, count_tokens(prompt)
    if isinstance(prompt, list) and prompt and all(isinstance(token, int) for token in prompt):
        return str(prompt), len(prompt)
    raise bad("prompt must be a text or a list of tokens; the fake answers one", "prompt")


def _integer(body: Mapping[str, Any], name: str) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise bad(f"{name} must be a whole number of at least 0, got {value}.", name)
    return value


def read_wanted(
    body: Mapping[str, Any], *, is_chat: bool, length: int, tokens: int, salt: str, tools: bool
) -> Wanted:
    """Return what the request asks for.

    Raises:
        Refused: it is malformed, or longer than `length`.
    """
    text, prompt = _read_prompt(body, is_chat=is_chat)
    if (_integer(body, "n") or 1) != 1:
        raise bad("n must be 1: the fake answers once", "n")
    asked = _integer(body, "max_completion_tokens") if is_chat else None
    most = asked if asked is not None else _integer(body, "max_tokens")
    if most == 0:
        raise bad("max_tokens must be at least 1, got 0.", "max_tokens")
    if most is None and not is_chat:
        most = 16
    if prompt + (most or 1) > length:
        raise bad(
            f"This model's maximum context length is {length} tokens. However, you requested "
            f"{most or 1} output tokens and your prompt contains at least {prompt} input tokens, "
            f"for a total of at least {prompt + (most or 1)} tokens. Please reduce the length of "
            "the input prompt or the number of requested output tokens.",
            "input_tokens",
        )
    most = length - prompt if most is None else most
    tool = _choose_tool(body, enabled=tools) if is_chat else None
    if tool:
        tokens = 1 + (len(tool[1]) + PIECE - 1) // PIECE
    if body.get("ignore_eos") and not tool:
        tokens = most
    tokens = max(tokens, min(_integer(body, "min_tokens") or 0, most))
    is_cut = tokens >= most and (tokens > most or bool(body.get("ignore_eos")))
    streams = bool(body.get("stream"))
    options = body.get("stream_options") or {}
    return Wanted(
        is_chat=is_chat,
        streams=streams,
        usage=bool(isinstance(options, dict) and options.get("include_usage")),
        prompt=prompt,
        want=min(tokens, most),
        reason="length" if is_cut else "stop",
        seed=zlib.crc32(f"{salt}|{body.get('model')}|{text}".encode()),
        tool=tool,
    )


def _choose_tool(body: Mapping[str, Any], *, enabled: bool) -> tuple[str, str] | None:
    """Return the function to call: the one that was named, else the first after a user's words.

    | tool_choice             | answer                                                        |
    |-------------------------|---------------------------------------------------------------|
    | none, or no tools       | words                                                         |
    | a function, or required | that function, or the first                                   |
    | auto                    | the first, but words after a tool's result; 400 if not enabled |
    """
    tools = body.get("tools")
    choice = body.get("tool_choice", "auto")
    if not tools or choice == "none":
        return None
    try:
        functions = {tool["function"]["name"]: tool["function"] for tool in tools}
        named = choice["function"]["name"] if isinstance(choice, dict) else next(iter(functions))
    except (KeyError, TypeError) as error:
        raise bad(f"tools must be functions with a name (no {error})", "tools") from error
    if named not in functions:
        raise bad(f"tool_choice must be one of the tools (got {named})", "tool_choice")
    if choice == "auto":
        if not enabled:
            raise bad(
                '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to '
                "be set"
            )
        if body["messages"][-1].get("role") == "tool":
            return None
    schema = functions[named].get("parameters") or {}
    return named, json.dumps(_example(schema, depth=0))


_EXAMPLES: Mapping[str, Any] = {
    "string": "Paris", "number": 1.5, "integer": 1, "boolean": True, "null": None,
}  # fmt: skip


def _example(schema: Any, depth: int) -> Any:
    """Return a value that the JSON schema allows, for the usual schemas."""
    if not isinstance(schema, dict) or depth > 8:  # noqa: PLR2004 - deep enough for a fake
        return {}
    if schema.get("enum"):
        return schema["enum"][0]
    kind = schema.get("type", "object")
    if kind == "array":
        return [_example(schema.get("items", {"type": "string"}), depth + 1)]
    if kind != "object":
        return _EXAMPLES.get(kind if isinstance(kind, str) else kind[0])
    wanted = schema.get("properties") or {}
    names = schema.get("required") or wanted
    return {name: _example(wanted.get(name, {"type": "string"}), depth + 1) for name in names}
