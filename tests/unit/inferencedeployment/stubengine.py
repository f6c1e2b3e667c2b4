"""A stand-in for an inference server, told by a file how to misbehave.

Usage: `python3 stubengine.py PORT [ARGUMENT ...]`.

The file $STUB/order holds JSON and is read at each request:
  health: status of /health; silent: pages (by path) that never answer; steps, busy: the metrics;
  labelled: the metrics page itself; fails: adapters that cannot be loaded, and why;
  enough: streams end; until then they go on for ever;
  lives: a completion counts a step and leaves nothing busy.
$STUB_TERM says what TERM does: die (default), finish (streams first, then 0), ignore.
$STUB_LATE: seconds before it listens. What happens is added to $STUB/events, a JSON object a line.
"""

import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

FOLDER = Path(os.environ["STUB"])
ENDS = os.environ.get("STUB_TERM", "die")
adapters: dict[str, str] = {}
# One entry each.
streams: list["Page"] = []
nudges: list[str] = []


def tell(what: str, **more: Any) -> None:
    line = json.dumps({"what": what, "at": time.monotonic(), "pid": os.getpid(), **more})
    with (FOLDER / "events").open("a") as events:
        events.write(line + "\n")


def order() -> dict[str, Any]:
    path = FOLDER / "order"
    return json.loads(path.read_text()) if path.exists() else {}


class Page(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"

    def do_GET(self) -> None:
        now = order()
        if self.path in now.get("silent", ()):
            time.sleep(600)
        if self.path == "/health":
            self.answer(now.get("health", 200), {})
        elif self.path == "/v1/models":
            listed = [{"id": "base", "root": "/m"}]
            listed += [{"id": name, "root": path} for name, path in adapters.items()]
            self.answer(200, {"data": listed})
        else:
            busy = 0 if nudges else now.get("busy", len(streams))
            text = now.get("labelled") or (
                f'steps_count{{engine="0"}} {now.get("steps", 0) + len(nudges)}\n'
                f'running{{engine="0"}} {busy}\nwaiting{{engine="0"}} 0\n'
            )
            self.answer(200, text)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name = body.get("lora_name")
        if self.path == "/v1/completions":
            tell("completion", model=body["model"], auth=self.headers.get("Authorization"))
            if order().get("lives"):
                nudges.append(body["model"])
            self.answer(200, {})
        elif self.path == "/stream":
            self.stream()
        elif self.path == "/v1/unload_lora_adapter":
            adapters.pop(name, None)
            tell("unload", name=name)
            self.answer(200, "")
        elif name in order().get("fails", {}):
            tell("refuse", name=name)
            self.answer(400, {"error": {"message": order()["fails"][name]}})
        else:
            adapters[name] = body["lora_path"]
            tell("load", name=name, path=body["lora_path"])
            self.answer(200, "")

    def stream(self) -> None:
        streams.append(self)
        self.send_response(200)
        self.end_headers()
        while not order().get("enough"):
            self.wfile.write(b"token\n")
            self.wfile.flush()
            time.sleep(0.05)
        self.wfile.write(b"done\n")
        self.wfile.flush()
        tell("streamed")
        streams.remove(self)

    def answer(self, status: int, body: Any) -> None:
        text = body if isinstance(body, str) else json.dumps(body)
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: Any) -> None:
        pass


def ended(*_: Any) -> None:
    tell("term", health=order().get("health", 200))
    if ENDS == "finish":
        threading.Thread(target=finish).start()
    elif ENDS == "die":
        os._exit(0)


def finish() -> None:
    while streams:
        time.sleep(0.02)
    tell("finished")
    os._exit(0)


def main() -> None:
    parent = os.getppid()
    if parent == 1:  # the agent was killed before we began; here it is never init itself
        os._exit(0)
    signal.signal(signal.SIGTERM, ended)
    ready = os.environ.get("STUB_READY", "")
    tell("start", argv=sys.argv[1:], ready=ready, master=os.environ.get("STUB_MASTER", ""))
    sys.stdout.write("engine: a line of its own\n")
    sys.stdout.flush()
    late = time.monotonic() + float(os.environ.get("STUB_LATE", "0"))
    while time.monotonic() < late and os.getppid() == parent:
        time.sleep(0.02)
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Page)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    while os.getppid() == parent:  # an agent that a test kills leaves nothing behind
        code = order().get("die")
        if code is not None:
            os._exit(code)
        time.sleep(0.02)
    os._exit(0)


if __name__ == "__main__":
    main()
