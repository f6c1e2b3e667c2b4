"""Start the serving agent as a real process over a stub engine, as in a pod, and ask about it."""

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from tramontane.controllers.inferencedeployment import layout
from tramontane.controllers.trainingjob import rankagent
from tramontane.lab.controlplane import free_ports

PODFILES = Path(layout.__file__).parent / "podfiles"
RANKAGENT = Path(rankagent.__file__)
STUB = Path(__file__).with_name("stubengine.py")
PATIENCE_S = 60.0

# In the pod all of them lie in one folder, and import each other from there.
sys.modules["rankagent"] = rankagent
for _name in ("servingrules", "servinghttp", "servingengine", "servingwanted"):
    sys.modules[_name] = importlib.import_module(f"{layout.__package__}.podfiles.{_name}")


class Pod:
    """One agent process, its engine, its files and what they said."""

    def __init__(self, folder: Path, seat: int = 0, agent_port: int = 0) -> None:
        self.folder, self.seat = folder, seat
        self.agent_folder = folder / "agent"
        self.agent_folder.mkdir(parents=True)
        for file in (RANKAGENT, *PODFILES.glob("serving*.py"), *PODFILES.glob("weight*.py")):
            shutil.copy(file, self.agent_folder)
        (folder / "state").mkdir()
        ports = free_ports(2)
        self.agent_port, self.api_port = agent_port or ports[0], ports[1]
        self.address = f"127.0.0.{seat + 1}"
        self.process: subprocess.Popen[str]

    def start(self, *engine: str, **env: str) -> "Pod":
        """Start the agent; over the stub, unless another command is given."""
        stub = (sys.executable, str(STUB), str(self.api_port), "--master", "$(TRAMONTANE_MASTER)")
        environment = {
            "PATH": os.environ["PATH"],
            "STUB": str(self.folder),
            "STUB_MASTER": "$(TRAMONTANE_MASTER):29500",
            "TRAMONTANE_SEAT": str(self.seat),
            "TRAMONTANE_NODES": "2",
            "TRAMONTANE_POD_IP": self.address,
            "TRAMONTANE_AGENT_FOLDER": str(self.folder),
            "TRAMONTANE_STATE": str(self.folder / "state"),
            "TRAMONTANE_AGENT_PORT": str(self.agent_port),
            "TRAMONTANE_API_PORT": str(self.api_port),
            "TRAMONTANE_STEPS_METRIC": "steps_count",
            "TRAMONTANE_BUSY_METRICS": "running,waiting",
            "TRAMONTANE_HANG_AFTER_S": "60",
            "TRAMONTANE_DRAIN_S": "60",
            "TRAMONTANE_SETTLE_S": "0.5",
            "TRAMONTANE_LOOK_S": "0.2",
            "TRAMONTANE_READY_VARIABLE": "STUB_READY",
            "TRAMONTANE_LORA": "vllm",
            "TRAMONTANE_TERMINATION_LOG": str(self.folder / "termination-log"),
            **env,
        }
        command = [
            os.environ.get("TRAMONTANE_TEST_PYTHON", sys.executable),
            str(self.agent_folder / "serving.py"),
            *(engine or stub),
        ]
        with (self.folder / "log").open("a") as log, (self.folder / "stdout").open("a") as out:
            self.process = subprocess.Popen(
                command, env=environment, stderr=log, stdout=out, text=True
            )
        return self

    def put(self, name: str, value: object) -> None:
        """Write a file as the kubelet does: whole, by renaming."""
        fresh = self.folder / f".{name}"
        fresh.write_text(json.dumps(value))
        fresh.rename(self.folder / name)

    def order(self, **how: object) -> None:
        """Tell the engine how to behave from now on."""
        self.put("order", how)

    def get(self, path: str) -> tuple[int, str]:
        """Return what the agent answers; (0, "") where it does not listen."""
        return self._ask("GET", self.address, self.agent_port, path)

    def ready(self) -> bool:
        return self.get("/readyz")[0] == 200

    def state(self) -> dict[str, Any]:
        found = json.loads(self.get("/state")[1] or "{}")
        assert isinstance(found, dict)
        return found

    def stream(self) -> "Stream":
        """Begin a stream, which goes on until the order says that it is enough."""
        stream = Stream(self.api_port)
        self.until(lambda: stream.began)
        return stream

    def _ask(self, method: str, host: str, port: int, path: str) -> tuple[int, str]:
        connection = HTTPConnection(host, port, timeout=PATIENCE_S)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except OSError:
            return 0, ""
        finally:
            connection.close()

    @property
    def said(self) -> str:
        return (self.folder / "log").read_text()

    @property
    def stdout(self) -> str:
        return (self.folder / "stdout").read_text()

    @property
    def last_words(self) -> dict[str, str]:
        found = json.loads((self.folder / "termination-log").read_text())
        assert isinstance(found, dict)
        return found

    def events(self, *what: str) -> list[dict[str, Any]]:
        """Return what the engine has told, of these kinds."""
        path = self.folder / "events"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        told = [json.loads(one) for one in lines if one.endswith("\n")]
        return [one for one in told if not what or one["what"] in what]

    def until(self, holds: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not holds():
            assert time.monotonic() < deadline, f"never so; the agent said: {self.said}"
            time.sleep(0.02)

    def term(self) -> float:
        """Send TERM; return when."""
        self.process.send_signal(signal.SIGTERM)
        return time.monotonic()

    def ended(self) -> int:
        return self.process.wait(PATIENCE_S)

    def clean(self) -> None:
        """Kill what is left: the agent, then the engines, which live in sessions of their own."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for one in self.events("start"):
            try:
                os.kill(one["pid"], signal.SIGKILL)
            except ProcessLookupError:
                continue


class Stream:
    """A client's stream, read in a thread."""

    def __init__(self, port: int) -> None:
        self.began = False
        self.text = ""
        self._thread = threading.Thread(target=self._read, args=(port,), daemon=True)
        self._thread.start()

    def _read(self, port: int) -> None:
        connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
        try:
            connection.request("POST", "/stream", "{}")
            answer = connection.getresponse()
            while line := answer.readline():
                self.text += line.decode()
                self.began = True
        except OSError:
            self.text += "broken"
        finally:
            connection.close()

    def whole(self) -> bool:
        """Return whether it came to its own end."""
        self._thread.join(PATIENCE_S)
        return self.text.endswith("done\n")
