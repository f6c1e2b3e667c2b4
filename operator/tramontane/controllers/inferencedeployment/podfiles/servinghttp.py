"""Speak HTTP for the agent of a serving rank: ask the engine and seat 0, answer the kubelet.

Whatever may take long runs aside, in a thread, and hands its result to the loop in `serving.py`;
whoever asks this pod gets what the loop said last. Standard library only, Python 3.8 or later.
"""

from __future__ import annotations

import json
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

OK, NOT_FOUND, UNAVAILABLE = 200, 404, 503
# In place of a status: nobody listens there, or nobody answered in time.
REFUSED, SILENT = 0, -1
PING_S = 2.0
BODY_MAX_B = 16 << 20
# A loop that has not turned for so long is stuck.
STUCK_S = 30.0
# Anybody may connect, as nobody knows the kubelet's address: who stays goes for who comes.
MAX_CONNECTIONS = 64


def ask(
    host: str,
    port: int,
    path: str,
    timeout_s: float,
    *,
    body: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, str]:
    """Return status and body of a GET, or of a POST where there is a body; never raises."""
    connection = HTTPConnection(host, port, timeout=timeout_s)  # no proxy, whatever the image sets
    try:
        if body is None:
            connection.request("GET", path, headers=dict(headers or {}))
        else:
            sent = {"Content-Type": "application/json", **(headers or {})}
            connection.request("POST", path, json.dumps(body), sent)
        answer = connection.getresponse()
        return answer.status, answer.read(BODY_MAX_B).decode("utf-8", "replace")
    except socket.timeout:  # noqa: UP041 - TimeoutError is another class before Python 3.10
        return SILENT, ""
    except (OSError, HTTPException, ValueError):
        return REFUSED, ""
    finally:
        connection.close()


class Aside:
    """Run one call at a time beside the loop."""

    def __init__(self, call: Callable[..., Any], every_s: float = 0.0) -> None:
        self._call = call
        self._every_s = every_s
        self._due_at = float("-inf")
        self._thread: threading.Thread | None = None
        self._result: Any = None

    def turn(self, now: float, *arguments: Any) -> list[Any]:
        """Begin a call where one is due; return the result that has come since, if one has."""
        results = self.take()
        if self.is_free and now >= self._due_at:
            self._due_at = now + self._every_s
            self.begin(*arguments)
        return results

    @property
    def is_free(self) -> bool:
        """Return whether there is neither a call on its way nor a result to take."""
        return self._thread is None

    def begin(self, *arguments: Any) -> None:
        """Begin a call; only where `is_free`."""
        self._thread = threading.Thread(target=self._run, args=arguments, daemon=True)
        self._thread.start()

    def take(self) -> list[Any]:
        """Return the result of a call that has ended, once; nothing while there is none."""
        if self._thread is None or self._thread.is_alive():
            return []
        self._thread = None
        result, self._result = self._result, None
        return [result]

    def _run(self, *arguments: Any) -> None:
        self._result = self._call(*arguments)


def answers(host: str, port: int) -> bool:
    """Return whether an agent answers there, whatever it says."""
    return ask(host, port, "/livez", PING_S)[0] > 0


@dataclass(frozen=True)
class View:
    """Hold what others may know of this rank, as of `at` (s, monotonic).

    Attributes:
        why_not: why it takes no requests; empty where it does.
    """

    at: float
    lives: bool
    why_not: str
    state: Mapping[str, Any] = field(default_factory=dict)


class Door(ThreadingHTTPServer):
    """Answer /livez, /readyz and /state, from the last View."""

    daemon_threads = True

    def __init__(self, host: str, port: int) -> None:
        self.view = View(time.monotonic(), lives=True, why_not="starting")
        # The oldest first; one thread adds, those that answer remove.
        self._connections: dict[Any, None] = {}
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _Answer)

    def server_bind(self) -> None:
        """Bind without asking the DNS for our own name, as HTTPServer does."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "", self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread; hang up on the oldest connections where there are too many."""
        open_now = list(self._connections)
        for one in open_now[: max(0, len(open_now) + 1 - MAX_CONNECTIONS)]:
            self._connections.pop(one, None)
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self._connections[request] = None
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection."""
        self._connections.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, *_: Any) -> None:
        """Say nothing of whoever hung up while we read."""

    def open(self) -> None:
        """Answer from now on."""
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def answer(self, path: str) -> tuple[int, str]:
        """Return status and body for a path."""
        view = self.view
        if path == "/livez":
            if time.monotonic() - view.at > STUCK_S:
                return UNAVAILABLE, "the agent is stuck\n"
            return (OK, "ok\n") if view.lives else (UNAVAILABLE, "the engine has ended\n")
        if path == "/readyz":
            return (UNAVAILABLE, view.why_not + "\n") if view.why_not else (OK, "ok\n")
        if path == "/state":
            return OK, json.dumps(view.state) + "\n"
        return NOT_FOUND, "no such page\n"


class _Answer(BaseHTTPRequestHandler):
    server: Door
    timeout = 5  # who connects and says nothing holds no thread for ever

    def do_GET(self) -> None:
        status, text = self.server.answer(self.path.partition("?")[0])
        body = text.encode()
        with suppress(OSError):  # who asked has gone
            self.send_response(status)
            is_json = text.startswith("{")
            self.send_header("Content-Type", "application/json" if is_json else "text/plain")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing: the kubelet asks every second."""
