"""What the serving agent reads: its environment, its annotations, the engine's metrics."""

import ast
import importlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from tramontane.controllers.inferencedeployment.engines.launch import MODEL_FILE
from tramontane.controllers.inferencedeployment.podfiles.servingrules import AdapterJob, Reading
from tramontane.lab.controlplane import free_ports
from unit.inferencedeployment import agents

engine = importlib.import_module("servingengine")
http = importlib.import_module("servinghttp")
wanted = importlib.import_module("servingwanted")

VLLM = """
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="claims"} 3.0
vllm:num_requests_running{engine="1",model_name="claims"} 1.0
vllm:num_requests_waiting{engine="0",model_name="claims"} 2.0
vllm:num_requests_waiting{engine="1",model_name="claims"} 0.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="claims",reason="capacity"} 2.0
vllm:iteration_tokens_total_bucket{engine="0",le="1.0",model_name="claims"} 9.0
vllm:iteration_tokens_total_count{engine="0",model_name="claims"} 1.25e+03
vllm:iteration_tokens_total_count{engine="1",model_name="claims"} 40.0
vllm:iteration_tokens_total_sum{engine="0",model_name="claims"} 77.0
"""
STEPS = "vllm:iteration_tokens_total_count"
BUSY = ("vllm:num_requests_running", "vllm:num_requests_waiting")


@pytest.mark.parametrize(
    ("text", "steps", "busy", "reading"),
    [
        pytest.param(
            VLLM,
            STEPS,
            BUSY,
            Reading({"0": (1250.0, 5.0), "1": (40.0, 1.0)}, 4.0),
            id="vllm, two engines",
        ),
        pytest.param(
            "sglang:generation_tokens_total 9\n"
            'sglang:num_running_reqs{dp_rank="0",tp_rank="0"} 1\n'
            'sglang:num_running_reqs{dp_rank="1",tp_rank="0"} 2\n',
            "sglang:generation_tokens_total",
            ("sglang:num_running_reqs",),
            Reading({"": (9.0, 3.0)}, 3.0),
            id="steps of all, gauges of each",
        ),
        pytest.param(
            "llamacpp:requests_processing 2\nllamacpp:n_decode_total 17 1760000000000\n",
            "llamacpp:n_decode_total",
            ("llamacpp:requests_processing", "llamacpp:requests_deferred"),
            Reading({"": (17.0, 2.0)}, 2.0),
            id="no labels, a time stamp, one missing",
        ),
        pytest.param("", STEPS, BUSY, Reading({"": (0.0, 0.0)}), id="an empty page"),
        pytest.param("<html>\n{}\na b c\n", "a", (), Reading({"": (0.0, 0.0)}), id="no metrics"),
        pytest.param("s NaN\nb NaN\n", "s", ("b",), Reading({"": (0.0, 0.0)}), id="no numbers"),
        pytest.param(
            'b{text="a } 9",engine="0"} 1\ns{engine="0"} 2\n',
            "s",
            ("b",),
            Reading({"0": (2.0, 1.0)}, 1.0),
            id="a brace in a label",
        ),
        pytest.param(
            "llamacpp:requests_processing 2\n",
            "",
            ("llamacpp:requests_processing",),
            Reading({"": (0.0, 0.0)}, 2.0, 2.0),
            id="no metric of steps",
        ),
    ],
)
def test_a_page_of_metrics(text: str, steps: str, busy: tuple[str, ...], reading: Reading) -> None:
    assert engine.read_metrics(text, steps, busy) == reading


@pytest.mark.parametrize(
    ("text", "address", "becomes"),
    [
        ("$(TRAMONTANE_MASTER)", "10.0.0.7", "10.0.0.7"),
        ("--dist=$(TRAMONTANE_MASTER):20000", "10.0.0.7", "--dist=10.0.0.7:20000"),
        ("$(TRAMONTANE_MASTER):20000", "fd00::7", "[fd00::7]:20000"),
        ("--master-addr=$(TRAMONTANE_MASTER)", "fd00::7", "--master-addr=fd00::7"),
        ("$(HOME)", "10.0.0.7", "$(HOME)"),
    ],
)
def test_the_address_of_seat_0_in_an_argument(text: str, address: str, becomes: str) -> None:
    assert wanted.with_master(text, address) == becomes


@pytest.mark.parametrize(
    ("text", "found", "becomes"),
    [
        (MODEL_FILE, {"file": "/m/x.gguf"}, "/m/x.gguf"),
        (MODEL_FILE, {}, MODEL_FILE),
        ("--model", {"file": "/m/x.gguf"}, "--model"),
    ],
    ids=["found", "none found", "another word"],
)
def test_the_file_to_load_in_an_argument(text: str, found: dict[str, Any], becomes: str) -> None:
    assert wanted.with_model_file(text, found) == becomes


def test_wanted_adapters_stay_while_the_file_cannot_be_read(tmp_path: Path) -> None:
    here = wanted.Wanted(str(tmp_path))
    assert here.adapters() == {}
    (tmp_path / "adapters").write_text('[{"name": "motor", "path": "/m"}]')
    assert here.adapters() == {"motor": "/m"}
    for broken in ('[{"name": "mot', '[{"name": "motor"}]', "7", '["motor"]', ""):
        (tmp_path / "adapters").write_text(broken)
        assert here.adapters() == {"motor": "/m"}
    (tmp_path / "adapters").write_text("[]")
    assert here.adapters() == {}


def test_what_was_measured(tmp_path: Path) -> None:
    assert wanted.measured(str(tmp_path)) == {}
    for text, found in (("{", {}), ("[]", {}), ('{"bytes": 7}', {"bytes": 7})):
        (tmp_path / "weights.json").write_text(text)
        assert wanted.measured(str(tmp_path)) == found


def test_settings_have_defaults() -> None:
    found = wanted.Settings.read({"TRAMONTANE_BUSY_METRICS": "", "TRAMONTANE_DRAIN_S": ""})

    assert (found.seat, found.hang_after_s, found.drain_s, found.settle_s) == (0, 60.0, 600.0, 3.0)
    assert found.api.busy_metrics == ()


@pytest.mark.parametrize("value", ["soon", "-1", "nan", "inf"])
def test_a_number_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match=r"TRAMONTANE_DRAIN_S must be a number .* \(got '"):
        wanted.Settings.read({"TRAMONTANE_DRAIN_S": value})


class Server:
    """An engine's pages, as the test says: (status, body) by path."""

    def __init__(self) -> None:
        self.pages: dict[str, tuple[int, str]] = {}
        self.asked: list[tuple[str, str | None]] = []
        server = self

        class Page(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                server.asked.append((self.path, self.headers.get("Authorization")))
                status, body = server.pages.get(self.path, (404, ""))
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body.encode())

            do_POST = do_GET  # noqa: N815 - http.server's name

            def log_message(self, *_: Any) -> None:
                pass

        self.http = HTTPServer(("127.0.0.1", 0), Page)
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def api(self, **changes: Any) -> Any:
        port = self.http.server_address[1]
        given = {"steps_metric": "s", "busy_metrics": ("b",), **changes}
        return engine.EngineApi(port, "/health", **given)


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.http.shutdown()
    found.http.server_close()


LOAD = AdapterJob("load", "motor", "/m")
UNLOAD = AdapterJob("unload", "motor", "/m")


def models(path: str) -> tuple[int, str]:
    return 200, json.dumps({"data": [{"id": "base"}, {"id": "motor", "root": path}]})


@pytest.mark.parametrize(
    ("job", "pages", "error"),
    [
        pytest.param(LOAD, {"/v1/load_lora_adapter": (200, "Success")}, "", id="loaded"),
        pytest.param(
            LOAD,
            {"/v1/load_lora_adapter": (400, '{"error": {"message": "rank 64 > 16"}}')},
            "400 rank 64 > 16",
            id="refused, in OpenAI's words",
        ),
        pytest.param(
            LOAD,
            {"/v1/load_lora_adapter": (400, '{"message": "rank 64 > 16"}')},
            "400 rank 64 > 16",
            id="refused, in older words",
        ),
        pytest.param(LOAD, {"/v1/load_lora_adapter": (500, "oops")}, "500 oops", id="no JSON"),
        pytest.param(LOAD, {"/v1/load_lora_adapter": (500, "[]")}, "500 []", id="odd JSON"),
        pytest.param(LOAD, {}, "404", id="no such page"),
        pytest.param(
            LOAD,
            {"/v1/load_lora_adapter": (400, "already there"), "/v1/models": models("/m")},
            "",
            id="it is there already",
        ),
        pytest.param(
            LOAD,
            {"/v1/load_lora_adapter": (400, "already there"), "/v1/models": models("/old")},
            "400 already there",
            id="another is there",
        ),
        pytest.param(UNLOAD, {"/v1/unload_lora_adapter": (200, "")}, "", id="unloaded"),
        pytest.param(UNLOAD, {"/v1/unload_lora_adapter": (404, "")}, "", id="it was not there"),
        pytest.param(UNLOAD, {"/v1/unload_lora_adapter": (500, "")}, "500", id="not unloaded"),
    ],
)
def test_a_call_for_an_adapter(
    server: Server, job: AdapterJob, pages: dict[str, tuple[int, str]], error: str
) -> None:
    server.pages = pages

    assert server.api().change(job) == error


def test_an_engine_that_is_not_there_loads_nothing() -> None:
    [port] = free_ports(1)
    api = engine.EngineApi(port, "/health", "s", ("b",))

    assert api.change(LOAD) == "nobody listens"
    assert api.health() == 0
    assert api.reading() is None


def test_the_key_of_the_api_goes_along(server: Server) -> None:
    server.pages = {"/v1/models": models("/m")}
    server.api(key="secret").nudge(5.0)

    assert server.asked == [("/v1/models", "Bearer secret"), ("/v1/completions", "Bearer secret")]


@pytest.mark.parametrize(
    ("gauges", "pages", "reading"),
    [
        pytest.param(("b",), {"/metrics": (200, "s 4\nb 2\n")}, {"": (4.0, 2.0)}, id="metrics"),
        pytest.param(("b",), {"/metrics": (500, "")}, None, id="metrics that fail"),
        pytest.param((), {"/health": (503, "")}, {"": (0.0, 0.0)}, id="no metrics known"),
    ],
)
def test_a_reading(
    server: Server,
    gauges: tuple[str, ...],
    pages: dict[str, tuple[int, str]],
    reading: dict[str, tuple[float, float]] | None,
) -> None:
    server.pages = pages
    found = server.api(busy_metrics=gauges).reading()

    assert (found and found.parts) == reading


def test_open_connections_are_counted() -> None:
    [port] = free_ports(1)
    with socket.create_server(("127.0.0.1", port)) as listening:
        assert engine.connections(port) == 0
        with socket.create_connection(("127.0.0.1", port)), listening.accept()[0]:
            assert engine.connections(port) == 1


def test_connections_of_nobody_are_none(tmp_path: Path) -> None:
    assert engine.connections(80, str(tmp_path)) == 0


def test_a_body_that_is_no_list_of_models_names_none(server: Server) -> None:
    server.pages = {"/v1/models": (200, '{"data": [7]}'), "/v1/load_lora_adapter": (500, "")}

    assert server.api().change(LOAD) == "500"


@pytest.mark.parametrize(
    "file", sorted(agents.PODFILES.glob("serving*.py")), ids=lambda one: one.name
)
def test_the_files_for_pods_are_python_3_8(file: Path) -> None:
    ast.parse(file.read_text(), feature_version=(3, 8))


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", pytest.param("::1", marks=pytest.mark.skipif(not has_ipv6(), reason="no IPv6"))],
)
def test_the_door_answers_at_the_address_of_the_pod(host: str) -> None:
    [port] = free_ports(1)
    door = http.Door(host, port)
    door.open()

    assert http.answers(host, port)
    assert http.ask(host, port, "/readyz", 5.0) == (503, "starting\n")
    door.view = http.View(time.monotonic() - 100.0, lives=True, why_not="")
    assert http.ask(host, port, "/readyz", 5.0) == (200, "ok\n")
    assert http.ask(host, port, "/livez", 5.0) == (503, "the agent is stuck\n")
    door.shutdown()
    door.server_close()
    assert not http.answers(host, port)


def test_whoever_connects_and_stays_keeps_no_probe_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MAX_CONNECTIONS", 8)
    [port] = free_ports(1)
    door = http.Door("127.0.0.1", port)
    door.open()
    before = threading.active_count()
    idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(7)]
    try:
        assert http.ask("127.0.0.1", port, "/livez", 5.0) == (200, "ok\n")
        idle[0].settimeout(0.2)
        with pytest.raises(TimeoutError):
            idle[0].recv(1)
        idle += [socket.create_connection(("127.0.0.1", port)) for _ in range(100)]
        assert http.ask("127.0.0.1", port, "/livez", 5.0) == (200, "ok\n")
        assert idle[0].recv(1) == b"", "it was hung up on"
        assert threading.active_count() - before <= 20
    finally:
        for one in idle:
            one.close()
        door.shutdown()
        door.server_close()
