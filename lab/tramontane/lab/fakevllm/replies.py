"""Turn the engine's tokens into answers of the OpenAI API.

The bytes around a token are made once per request: a stream costs a join and a write per token.
"""

import json
import time
from typing import Any

from .asks import PIECE, Wanted, error_body
from .wire import Answer, Stream

_TEXT = (
    "the wind of the north comes over cold hills and clears sky for days so that ships stay in "
    "harbour while people close their shutters wait read mend nets talk about older storms "
    "they remember some say it lasts three six or nine until sea is calm again light turns gold "
    "then boats go out early before anyone else has woken up"
)
_WORDS = tuple(b" " + word.encode() for word in _TEXT.split())
_OPEN_END = b'"finish_reason":null}]}'
SSE_HEAD = b"server: uvicorn\r\ncontent-type: text/event-stream; charset=utf-8\r\n"


def _dump(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


class Reply:
    """Send the tokens of one request to its client."""

    def __init__(self, stream: Stream, wanted: Wanted, model: str, request_id: str) -> None:
        self._stream = stream
        self._wanted = wanted
        self._model = model
        self._created = int(time.time())
        kind = "chatcmpl" if wanted.is_chat else "cmpl"
        self._id = f"{kind}-{request_id}"
        self._call_id = f"chatcmpl-tool-{request_id}"
        if wanted.streams:
            self._before, self._after = self._frame()

    def begin(self) -> None:
        """Send the head of a stream, as the real server does before there is a token."""
        if self._wanted.streams:
            self._stream.begin(SSE_HEAD)

    def token(self, index: int, finished: str | None) -> None:
        """Send a token; after the last one, the end."""
        if self._wanted.streams:
            self._send(index, finished)
        elif finished:
            body = _dump(self._whole(finished))
            self._stream.end_whole(Answer(200, body))

    def failed(self, message: str, *, cut: bool) -> None:
        """Say that there is no more, if it may still be said."""
        if cut:
            self._stream.cut()
            return
        body = error_body(500, message, "InternalServerError")
        if self._stream.begun:
            self._stream.end(b"data: " + body + b"\n\ndata: [DONE]\n\n")
        else:
            self._stream.end_whole(Answer(500, body))

    def _piece(self, index: int) -> bytes:
        """Return the text of a token, as it stands within JSON's quotes."""
        tool = self._wanted.tool
        if tool is None:
            return _WORDS[(self._wanted.seed + index * (index + 5)) % len(_WORDS)]
        start = (index - 1) * PIECE
        return json.dumps(tool[1][start : start + PIECE])[1:-1].encode() if index else b""

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._model}

    def _frame(self) -> tuple[bytes, bytes]:
        """Return what stands before and after each token of the stream."""
        choice: dict[str, Any] = {"index": 0}
        if not self._wanted.is_chat:
            choice["text"] = "%"
        elif self._wanted.tool is None:
            choice["delta"] = {"content": "%"}
        else:
            choice["delta"] = {"tool_calls": [{"index": 0, "function": {"arguments": "%"}}]}
        choice |= {"logprobs": None, "finish_reason": None}
        chunk = _dump({**self._head(self._kind()), "choices": [choice]})
        place = chunk.rindex(b'"%"') + 1
        return b"data: " + chunk[:place], chunk[place + 1 :] + b"\n\n"

    def _kind(self) -> str:
        return "chat.completion.chunk" if self._wanted.is_chat else "text_completion"

    def _event(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        chunk = {**self._head(self._kind()), "choices": choices, **more}
        return b"data: " + _dump(chunk) + b"\n\n"

    def _send(self, index: int, finished: str | None) -> None:
        piece = self._piece(index)
        data = self._before + piece + self._after if piece or finished else b""
        if finished:
            reason = self._reason(finished).encode()
            data = data.replace(_OPEN_END, b'"finish_reason":"%b","stop_reason":null}]}' % reason)
        if index == 0 and self._wanted.is_chat:
            data = self._first() + data
        if finished is None:
            self._stream.send(data)
            return
        if self._wanted.usage:
            data += self._event([], usage=self._usage(index + 1))
        self._stream.end(data + b"data: [DONE]\n\n")

    def _first(self) -> bytes:
        """Return the events that come before the first token of a chat."""
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        if self._wanted.tool:
            function = {"name": self._wanted.tool[0], "arguments": ""}
            call = {"index": 0, "id": self._call_id, "type": "function", "function": function}
            deltas.append({"tool_calls": [call]})
        rest = {"logprobs": None, "finish_reason": None}
        return b"".join(self._event([{"index": 0, "delta": delta, **rest}]) for delta in deltas)

    def _reason(self, finished: str) -> str:
        return "tool_calls" if self._wanted.tool and finished == "stop" else finished

    def _usage(self, tokens: int) -> dict[str, Any]:
        prompt = self._wanted.prompt
        return {
            "prompt_tokens": prompt,
            "total_tokens": prompt + tokens,
            "completion_tokens": tokens,
        }

    def _whole(self, finished: str) -> dict[str, Any]:
        wanted = self._wanted
        text = b"".join(self._piece(index) for index in range(wanted.want)).decode()
        choice: dict[str, Any] = {
            "index": 0,
            "logprobs": None,
            "finish_reason": self._reason(finished),
        }
        if not wanted.is_chat:
            choice["text"] = text
        elif wanted.tool is None:
            choice["message"] = {"role": "assistant", "content": text, "tool_calls": []}
        else:
            name, arguments = wanted.tool
            function = {"name": name, "arguments": arguments}
            call = {"id": self._call_id, "type": "function", "function": function}
            choice["message"] = {"role": "assistant", "content": None, "tool_calls": [call]}
        choice["stop_reason"] = None
        kind = "chat.completion" if wanted.is_chat else "text_completion"
        return {**self._head(kind), "choices": [choice], "usage": self._usage(wanted.want)}
