import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from prometheus_client import REGISTRY

from support.scripted import Scripted, kubeconfig, status, until
from tramontane.api.errors import InvalidValue
from tramontane.kube import metrics
from tramontane.kube.client import (
    AlreadyExists,
    ApiError,
    Client,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    NotFound,
    Silent,
    TooManyRequests,
    Unauthorized,
    Unreachable,
)
from tramontane.kube.resources import EVENTS, GANGS, LEASES, NODES, PODS

COLLECTION = "/api/v1/namespaces/ml/pods"
BODY = {"metadata": {"name": "a", "namespace": "ml"}}


@pytest.mark.parametrize(
    ("resource", "where", "path"),
    [
        pytest.param(PODS, (), "/api/v1/pods", id="core-all-namespaces"),
        pytest.param(PODS, ("ml",), "/api/v1/namespaces/ml/pods", id="core-one-namespace"),
        pytest.param(
            PODS,
            ("ml", "a", "binding"),
            "/api/v1/namespaces/ml/pods/a/binding",
            id="core-subresource",
        ),
        pytest.param(NODES, (None, "n", "status"), "/api/v1/nodes/n/status", id="cluster-scoped"),
        pytest.param(NODES, ("ml", "n"), "/api/v1/nodes/n", id="namespace-of-cluster-scoped"),
        pytest.param(
            GANGS,
            ("ml", "g"),
            "/apis/tramontane.dev/v1alpha1/namespaces/ml/gangs/g",
            id="group",
        ),
        pytest.param(
            EVENTS,
            ("ml", "a/b"),
            "/apis/events.k8s.io/v1/namespaces/ml/events/a%2Fb",
            id="odd-name-is-quoted",
        ),
    ],
)
def test_path(resource: Any, where: tuple[Any, ...], path: str) -> None:
    assert resource.path(*where) == path


def test_an_object_of_a_namespaced_kind_needs_its_namespace() -> None:
    with pytest.raises(InvalidValue, match="Pod a: a namespace must be given"):
        PODS.path(None, "a")


Call = Callable[[Client], Awaitable[Any]]


@pytest.mark.parametrize(
    ("call", "line", "content_type", "body"),
    [
        pytest.param(lambda c: c.get(PODS, "a", "ml"), f"GET {COLLECTION}/a", None, None, id="get"),
        pytest.param(
            lambda c: c.create(PODS, BODY),
            f"POST {COLLECTION}",
            "application/json",
            {"apiVersion": "v1", "kind": "Pod", **BODY},
            id="create",
        ),
        pytest.param(
            lambda c: c.create(PODS, {"kind": "Binding"}, "ml", name="a", subresource="binding"),
            f"POST {COLLECTION}/a/binding",
            "application/json",
            {"kind": "Binding"},
            id="bind",
        ),
        pytest.param(
            lambda c: c.replace(PODS, BODY),
            f"PUT {COLLECTION}/a",
            "application/json",
            BODY,
            id="replace",
        ),
        pytest.param(
            lambda c: c.apply(PODS, BODY, manager="tests", subresource="status"),
            f"PATCH {COLLECTION}/a/status?fieldManager=tests&force=true",
            "application/apply-patch+yaml",
            {"apiVersion": "v1", "kind": "Pod", **BODY},
            id="apply-status",
        ),
        pytest.param(
            lambda c: c.apply(PODS, BODY, manager="tests", force=False),
            f"PATCH {COLLECTION}/a?fieldManager=tests&force=false",
            "application/apply-patch+yaml",
            {"apiVersion": "v1", "kind": "Pod", **BODY},
            id="apply-without-force",
        ),
        pytest.param(
            lambda c: c.merge_patch(PODS, "a", {"spec": None}, "ml"),
            f"PATCH {COLLECTION}/a",
            "application/merge-patch+json",
            {"spec": None},
            id="merge-patch",
        ),
        pytest.param(
            lambda c: c.json_patch(PODS, "a", [{"op": "remove", "path": "/x"}], "ml"),
            f"PATCH {COLLECTION}/a",
            "application/json-patch+json",
            [{"op": "remove", "path": "/x"}],
            id="json-patch",
        ),
        pytest.param(
            lambda c: c.delete(PODS, "a", "ml"),
            f"DELETE {COLLECTION}/a",
            None,
            None,
            id="delete",
        ),
        pytest.param(
            lambda c: c.delete(
                PODS, "a", "ml", grace_period_s=0, uid="u", propagation="Background"
            ),
            f"DELETE {COLLECTION}/a",
            "application/json",
            {
                "gracePeriodSeconds": 0,
                "preconditions": {"uid": "u"},
                "propagationPolicy": "Background",
            },
            id="delete-with-options",
        ),
        pytest.param(
            lambda c: c.list_page(
                PODS, "ml", label_selector="a=b", field_selector="c=d", limit=7, continue_="x"
            ),
            f"GET {COLLECTION}?labelSelector=a%3Db&fieldSelector=c%3Dd&limit=7&continue=x",
            None,
            None,
            id="list-page",
        ),
    ],
)
async def test_what_goes_over_the_wire(  # noqa: PLR0917 - the columns of a table
    client: Client, server: Scripted, call: Call, line: str, content_type: str | None, body: Any
) -> None:
    server.answers.append(lambda _: web.json_response({"metadata": {}}))
    await call(client)
    assert [" ".join(request) for request in server.requests] == [line]
    assert server.headers[0].get("Content-Type") == content_type
    assert server.headers[0]["Authorization"] == "Bearer fixed"
    assert server.headers[0]["User-Agent"] == "tests"
    if body is not None:
        assert server.bodies == [body]


@pytest.mark.parametrize(
    ("answer", "kind", "reason"),
    [
        pytest.param(lambda: status(401, "Unauthorized"), Unauthorized, "Unauthorized", id="401"),
        pytest.param(lambda: status(403, "Forbidden"), Forbidden, "Forbidden", id="403"),
        pytest.param(lambda: status(404, "NotFound"), NotFound, "NotFound", id="404"),
        pytest.param(lambda: status(409, "Conflict"), Conflict, "Conflict", id="409"),
        pytest.param(
            lambda: status(409, "AlreadyExists"), AlreadyExists, "AlreadyExists", id="409-exists"
        ),
        pytest.param(lambda: status(410, "Expired"), Gone, "Expired", id="410"),
        pytest.param(lambda: status(422, "Invalid"), Invalid, "Invalid", id="422"),
        pytest.param(
            lambda: status(429, "TooManyRequests"), TooManyRequests, "TooManyRequests", id="429"
        ),
        pytest.param(lambda: status(500, "InternalError"), ApiError, "InternalError", id="500"),
        pytest.param(
            lambda: web.Response(status=404, text="no such path"), NotFound, "Not Found", id="text"
        ),
        pytest.param(lambda: web.Response(status=502), ApiError, "Bad Gateway", id="empty"),
        pytest.param(
            lambda: web.json_response([1], status=500),
            ApiError,
            "Internal Server Error",
            id="json-but-no-status",
        ),
    ],
)
async def test_a_refusal_becomes_its_error(
    client: Client,
    server: Scripted,
    answer: Callable[[], web.Response],
    kind: type[ApiError],
    reason: str,
) -> None:
    server.answers.append(lambda _: answer())
    with pytest.raises(ApiError) as caught:
        await client.get(PODS, "a", "ml")
    assert type(caught.value) is kind
    assert caught.value.reason == reason
    assert str(caught.value).startswith("get pods ml/a: must succeed (got ")


async def test_a_message_says_what_was_asked_what_came_and_what_to_do(
    client: Client, server: Scripted
) -> None:
    server.answers.append(lambda _: status(409, "Conflict", "it was modified"))
    with pytest.raises(Conflict) as caught:
        await client.replace(PODS, BODY)
    assert str(caught.value) == (
        "update pods ml/a: must succeed (got 409 Conflict: it was modified); read it again"
    )


@pytest.mark.parametrize("code", [429, 503])
async def test_a_request_that_was_put_off_is_sent_again(
    client: Client, server: Scripted, code: int
) -> None:
    server.answers += [lambda _: status(code, "Later", Retry_After="0")] * 2
    made = await client.create(PODS, BODY)
    assert made["metadata"]["name"] == "a"
    assert server.seen("POST", COLLECTION) == 3


@pytest.mark.parametrize(
    ("code", "headers", "sent"),
    [
        pytest.param(429, {"Retry_After": "0"}, 6, id="bounded"),
        pytest.param(429, {}, 1, id="no-retry-after"),
        pytest.param(429, {"Retry_After": "Fri, 01 Jan 2027 00:00:00 GMT"}, 1, id="a-date"),
        pytest.param(500, {"Retry_After": "0"}, 1, id="may-have-been-done"),
        pytest.param(504, {"Retry_After": "0"}, 1, id="timed-out-may-have-been-done"),
    ],
)
async def test_how_often_a_refused_create_is_sent(
    client: Client, server: Scripted, code: int, headers: dict[str, str], sent: int
) -> None:
    server.answers += [lambda _: status(code, "No", **headers)] * 10
    with pytest.raises(ApiError) as caught:
        await client.create(PODS, BODY)
    assert caught.value.status == code
    assert server.seen("POST", COLLECTION) == sent


async def test_a_long_retry_after_is_cut(
    client: Client, server: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr("tramontane.kube.transport.asyncio.sleep", sleep)
    server.answers.append(lambda _: status(429, "Later", Retry_After="3600"))
    await client.create(PODS, BODY)
    assert slept == [10.0]


def _abort(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def test_a_create_that_broke_off_is_not_sent_again(client: Client, server: Scripted) -> None:
    await client.list_page(PODS)  # so that the connection is a kept-alive one
    server.answers += [_abort] * 5
    with pytest.raises(Unreachable, match=r"create pods ml/a: http://127\.0\.0\.1:.* must answer"):
        await client.create(PODS, BODY)
    assert server.seen("POST", COLLECTION) == 1


async def test_an_answer_that_takes_too_long_is_no_answer(server: Scripted, tmp_path: Path) -> None:
    release = asyncio.Event()

    async def hang(_: web.Request) -> web.StreamResponse:
        await release.wait()
        return web.Response()

    server.handle = hang  # type: ignore[assignment,method-assign]  # the fake looks it up
    path = kubeconfig(tmp_path / "kubeconfig", server.url)
    async with await Client.connect(path, timeout_s=0.1) as client:
        with pytest.raises(Unreachable):
            await client.get(PODS, "a", "ml")
    release.set()


async def test_nobody_listens(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path / "kubeconfig", "http://127.0.0.1:1")
    async with await Client.connect(path) as client:
        with pytest.raises(Unreachable, match="must answer"):
            await client.get(NODES, "n")


async def test_requests_wait_for_a_slot_and_leases_do_not(server: Scripted, tmp_path: Path) -> None:
    release = asyncio.Event()
    waiting = 0
    plain = server.handle

    async def slow(request: web.Request) -> web.StreamResponse:
        nonlocal waiting
        if "pods" in request.path:
            waiting += 1
            await release.wait()
        return await plain(request)

    server.handle = slow  # type: ignore[method-assign]  # the fake looks it up
    server.put("/apis/coordination.k8s.io/v1/namespaces/ml/leases", "l", spec={})
    path = kubeconfig(tmp_path / "kubeconfig", server.url)
    async with await Client.connect(path, max_in_flight=2) as client:
        creates = [
            asyncio.create_task(
                client.create(PODS, {"metadata": {"name": f"p{i}", "namespace": "ml"}})
            )
            for i in range(5)
        ]
        await until(lambda: waiting == 2)
        async with asyncio.timeout(20):
            assert (await client.get(LEASES, "l", "ml"))["metadata"]["name"] == "l"
        assert waiting == 2
        release.set()
        await asyncio.gather(*creates)
    assert server.seen("POST", "pods") == 5


async def test_a_list_of_many_pages_is_whole(client: Client, server: Scripted) -> None:
    for i in range(7):
        server.put(COLLECTION, f"p{i}")
    items = await client.list_all(PODS, "ml", limit=3)
    assert [item["metadata"]["name"] for item in items] == [f"p{i}" for i in range(7)]
    assert {(item["apiVersion"], item["kind"]) for item in items} == {("v1", "Pod")}
    assert server.seen("GET", "continue=") == 2


async def test_a_list_whose_token_is_too_old_begins_again(client: Client, server: Scripted) -> None:
    for i in range(5):
        server.put(COLLECTION, f"p{i}")
    server.answers += [lambda _: None, lambda _: status(410, "Expired")]
    assert len(await client.list_all(PODS, "ml", limit=3)) == 5
    server.answers += [lambda _: None, lambda _: status(410, "Expired")] * 3
    with pytest.raises(Gone):
        await client.list_all(PODS, "ml", limit=3)


async def test_a_watch_yields_lines_of_any_length(client: Client, server: Scripted) -> None:
    long = json.dumps({"type": "ADDED", "object": "x" * 900_000})
    async with client.stream(PODS, params={"resourceVersion": "1"}) as lines:
        await until(lambda: server.watches)
        server.broadcast(f"{long}\n\n{{}}\n{long[:100_000]}")
        assert len(await anext(lines)) == len(long)
        assert await anext(lines) == b"{}"
        server.cut()
        with pytest.raises(Unreachable):
            await anext(lines)


async def test_a_silent_watch_ends(client: Client) -> None:
    async with client.stream(PODS, params={"resourceVersion": "1"}, silence_s=0.05) as lines:
        with pytest.raises(Silent, match="something must come"):
            await anext(lines)


async def test_a_watch_that_is_refused(client: Client, server: Scripted) -> None:
    server.compact()
    with pytest.raises(Gone):
        async with client.stream(PODS, params={"resourceVersion": "1"}):
            pass


async def test_a_log_has_its_last_line(client: Client, server: Scripted) -> None:
    server.answers.append(lambda _: web.Response(body=b"step 1\nstep 2\nstep 3"))
    async with client.pod_log("ml", "a", container="trainer", tail_lines=5) as lines:
        assert [line async for line in lines] == [b"step 1", b"step 2", b"step 3"]
    assert server.requests == [
        ("GET", f"{COLLECTION}/a/log?container=trainer&follow=true&tailLines=5")
    ]


@pytest.mark.parametrize(
    "content",
    [pytest.param(None, id="missing"), pytest.param("{}", id="empty"), pytest.param("[", id="bad")],
)
async def test_a_kubeconfig_that_says_nothing(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "kubeconfig"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InvalidValue, match="must say where the API server is"):
        await Client.connect(path)


async def test_the_kubeconfig_of_the_environment_is_read_now(
    server: Scripted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "other", server.url)))
    async with await Client.connect() as client:
        assert client.server == server.url


async def test_requests_are_counted(client: Client, server: Scripted) -> None:
    def count(code: str) -> float:
        return sum(
            float(metrics.REQUESTS.labels(verb, "pods", code)._value.get())
            for verb in ("create", "watch")
        )

    before = count("200"), count("201"), count("409"), count("unreachable")
    await client.create(PODS, BODY)
    with pytest.raises(AlreadyExists):
        await client.create(PODS, BODY)
    server.answers.append(_abort)
    with pytest.raises(Unreachable):
        await client.create(PODS, BODY)
    async with client.stream(PODS, params={"resourceVersion": "1"}) as lines:
        await anext(lines)
        server.cut()
        with pytest.raises(Unreachable):
            await anext(lines)
    after = count("200"), count("201"), count("409"), count("unreachable")
    assert [b - a for a, b in zip(before, after, strict=True)] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("ahead_s", "least_s"), [pytest.param(0, 0, id="equal"), pytest.param(-90, 85, id="behind")]
)
async def test_the_server_s_clock_is_compared_with_ours(
    client: Client, server: Scripted, ahead_s: float, least_s: float
) -> None:
    date = formatdate(time.time() + ahead_s, usegmt=True)

    def dated(_: web.Request) -> web.Response:
        return web.json_response({"metadata": {}, "items": []}, headers={"Date": date})

    server.answers.append(dated)
    await client.list_page(PODS)
    shown = REGISTRY.get_sample_value("tramontane_clock_skew_seconds")
    assert shown is not None
    assert least_s <= shown <= least_s + 20  # a busy machine answers late
