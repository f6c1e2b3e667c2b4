"""Answer the endpoints of vLLM's server."""

import asyncio
import json
import random
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from . import logs
from .adapters import Adapters
from .asks import Refused, count_tokens, read_wanted
from .engine import Engine, Request
from .faults import Faults
from .metrics import Metrics
from .options import Options
from .replies import Reply
from .wire import JSON, Answer, Ask, Stream

_METRICS_TYPE = "text/plain; version=1.0.0; charset=utf-8"
# Not counted in http_requests_total. Source: vLLM's instrumentator.
_UNCOUNTED = frozenset({"/metrics", "/health", "/load", "/ping", "/version", "/server_info"})
DEAD = "EngineCore encountered an issue. See stack trace (above) for the root cause."
_BUSY = (
    "The engine is currently busy and cannot accept new requests. "
    "Please try again later or on a different instance."
)

_Answering = Callable[[Ask, Stream], Awaitable[Answer | None]]


class Api:
    """Route requests to what answers them."""

    def __init__(
        self,
        options: Options,
        engine: Engine,
        metrics: Metrics,
        faults: Faults,
        adapters: Adapters,
    ) -> None:
        self._options = options
        self._engine = engine
        self._metrics = metrics
        self._faults = faults
        self._adapters = adapters
        self.is_draining = False
        self._routes: dict[str, dict[str, _Answering]] = {
            "/health": {"GET": self._health},
            "/ping": {"GET": self._health, "POST": self._health},
            "/version": {"GET": self._version},
            "/load": {"GET": self._load},
            "/metrics": {"GET": self._tell_metrics},
            "/v1/models": {"GET": self._models},
            "/v1/chat/completions": {"POST": self._chat},
            "/v1/completions": {"POST": self._complete},
            "/tokenize": {"POST": self._tokenize},
        }
        if options.lora_updates:
            self._routes["/v1/load_lora_adapter"] = {"POST": self._load_adapter}
            self._routes["/v1/unload_lora_adapter"] = {"POST": self._unload_adapter}
        if options.faults:
            for name in faults.names:
                self._routes[f"/fake/{name}"] = {"POST": self._fault}

    async def answer(self, ask: Ask, stream: Stream) -> Answer | None:
        """Answer one request; None: the stream is answered later."""
        methods = self._routes.get(ask.path)
        if methods is None:
            return Answer(404, b'{"detail":"Not Found"}')
        method = "GET" if ask.method == "HEAD" else ask.method
        if method not in methods:
            return Answer(405, b'{"detail":"Method Not Allowed"}')
        if ask.path.startswith("/v1") and not self._is_allowed(ask):
            return Answer(401, b'{"error":"Unauthorized"}')
        try:
            return await methods[method](ask, stream)
        except Refused as refused:
            return Answer(refused.status, refused.body)

    def told(self, ask: Ask, status: int, peer: str) -> None:
        """Count and log an answer."""
        if ask.path not in _UNCOUNTED:
            handler = ask.path if ask.path in self._routes else "none"
            self._metrics.http[handler, ask.method, f"{status // 100}xx"] += 1
        quiet = self._options.quiet
        if quiet is not None and ask.path not in quiet:
            logs.access(peer, f"{ask.method} {ask.path}", str(status))

    def _is_allowed(self, ask: Ask) -> bool:
        keys = self._options.keys
        return not keys or ask.headers.get("authorization") in {f"Bearer {key}" for key in keys}

    async def _health(self, _ask: Ask, _stream: Stream) -> Answer:
        # As the real one: it knows of a dead engine, not of one that hangs.
        return Answer(503 if self._engine.dead else 200)

    async def _version(self, _ask: Ask, _stream: Stream) -> Answer:
        return _json({"version": self._options.fake.version})

    async def _load(self, _ask: Ask, _stream: Stream) -> Answer:
        tracks = bool(self._options.given["enable_server_load_tracking"])
        return _json({"server_load": self._engine.requests if tracks else 0})

    async def _tell_metrics(self, _ask: Ask, _stream: Stream) -> Answer:
        return Answer(200, self._metrics.text().encode(), _METRICS_TYPE)

    async def _models(self, _ask: Ask, _stream: Stream) -> Answer:
        options = self._options
        cards = [_card(name, options.model, None, options.length) for name in options.names]
        cards += [
            _card(name, path, options.names[0], None, at)
            for name, (path, at) in self._adapters.loaded.items()
        ]
        return _json({"object": "list", "data": cards})

    async def _tokenize(self, ask: Ask, _stream: Stream) -> Answer:
        body = _body(ask)
        count = count_tokens(str(body.get("prompt") or body.get("messages") or ""))
        return _json({"count": count, "max_model_len": self._options.length,
                      "tokens": list(range(count)), "token_strs": None})  # fmt: skip

    async def _chat(self, ask: Ask, stream: Stream) -> Answer | None:
        return self._generate(ask, stream, is_chat=True)

    async def _complete(self, ask: Ask, stream: Stream) -> Answer | None:
        return self._generate(ask, stream, is_chat=False)

    def _generate(self, ask: Ask, stream: Stream, *, is_chat: bool) -> Answer | None:
        """Queue a request at the engine, or say why not."""
        body = _body(ask)
        model = self._model(body)
        self._admit()
        options = self._options
        wanted = read_wanted(
            body,
            is_chat=is_chat,
            length=options.length,
            tokens=options.fake.tokens,
            salt=options.fake.salt,
            tools=options.tools,
        )
        request_id = ask.headers.get("x-request-id") or uuid.uuid4().hex
        reply = Reply(stream, wanted, model, request_id)
        adapter = model if model in self._adapters.loaded else ""
        request = Request(reply, wanted.prompt, wanted.want, wanted.reason, adapter)
        stream.gone = lambda: self._engine.abort(request)
        reply.begin()
        self._engine.add(request)
        return None

    def _model(self, body: dict[str, Any]) -> str:
        """Return the model that is asked for.

        Raises:
            Refused: 404, there is no such model.
        """
        names = self._options.names
        model = body.get("model") or names[0]
        if model not in names and model not in self._adapters.loaded:
            raise Refused(
                404,
                f"The model `{model}` does not exist. Valid aliases: {', '.join(names)}.",
                "NotFoundError",
                "model",
            )
        return str(model)

    def _admit(self) -> None:
        """Let a request in, unless the engine cannot or shall not take it.

        | state                     | answer                                      |
        |---------------------------|---------------------------------------------|
        | the engine is dead        | 500                                         |
        | told to end               | 503: another instance may take it           |
        | --max-num-queued-reqs met | 429 (or as --fake-queue-full-status)        |
        | a fault says so           | 500                                         |
        """
        options = self._options
        if self._engine.dead:
            raise Refused(500, DEAD, "InternalServerError")
        if self.is_draining:
            raise Refused(503, "The server is shutting down.", "Service Unavailable")
        if options.queue is not None and self._engine.requests >= options.queue:
            self._metrics.rejections["max_num_queued_reqs"] += 1
            status = options.fake.queue_full_status
            kind = "Too Many Requests" if status == 429 else "Service Unavailable"  # noqa: PLR2004
            raise Refused(status, _BUSY, kind)
        if random.random() < self._faults.errors:
            raise Refused(500, "Internal server error", "InternalServerError")

    async def _load_adapter(self, ask: Ask, _stream: Stream) -> Answer:
        name, path = self._adapters.check(_body(ask))
        await asyncio.sleep(self._options.fake.lora_load)
        return Answer(200, self._adapters.add(name, path).encode(), "text/plain; charset=utf-8")

    async def _unload_adapter(self, ask: Ask, _stream: Stream) -> Answer:
        said = self._adapters.drop(_body(ask))
        return Answer(200, said.encode(), "text/plain; charset=utf-8")

    async def _fault(self, ask: Ask, _stream: Stream) -> Answer:
        body = _body(ask, needs_type=False) if ask.body else {}
        try:
            self._faults.set(ask.path.removeprefix("/fake/"), body)
        except (TypeError, ValueError) as error:
            raise Refused(400, str(error), "BadRequestError") from error
        return _json({"fault": ask.path.removeprefix("/fake/"), **body})


def _json(value: object) -> Answer:
    return Answer(200, json.dumps(value).encode())


def _body(ask: Ask, *, needs_type: bool = True) -> dict[str, Any]:
    """Return the object in the body.

    Raises:
        Refused: 400, there is none.
    """
    kind = ask.headers.get("content-type", "").split(";")[0].strip().lower()
    if needs_type and kind != JSON:
        message = "Unsupported Media Type: Only 'application/json' is allowed"
        raise Refused(400, message, "Bad Request")
    try:
        body = ask.json()
    except ValueError as error:
        raise Refused(400, f"JSON decode error: {error}", "Bad Request") from error
    if not isinstance(body, dict):
        raise Refused(400, "Input should be a valid dictionary", "Bad Request")
    return body


def _card(
    name: str, root: str, parent: str | None, length: int | None, created: int = 0
) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "vllm",
        "root": root,
        "parent": parent,
        "max_model_len": length,
        "permission": [],
    }
