"""Run the ranks of a job as plain processes under their agents: a kubelet's files, no kubelet.

The environment is the one that pods get, but that all host names are 127.0.0.1. What the operator
would do (raise the epoch, start a replacement) the test does.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tramontane.controllers.trainingjob import launchers
from tramontane.controllers.trainingjob.rankagent import descendants
from tramontane.controllers.trainingjob.render import AGENT_FILE, WRAPPER_FILE, agent_source
from tramontane.lab.controlplane import free_ports
from unit.trainingjob.builders import a_job

HERE = Path(__file__).parent
# A Python that has what the ranks need; the one that runs the tests has not.
PYTHON = os.environ.get("TRAMONTANE_NODE_PYTHON", sys.executable)
RANKS = 4
PATIENCE_S = 100.0


def need(module: str) -> None:
    """Skip where the ranks' Python lacks a module."""
    found = subprocess.run([PYTHON, "-c", f"import {module}"], capture_output=True, check=False)
    if found.returncode:
        pytest.skip(f"{PYTHON} has no {module}; name one that has in TRAMONTANE_NODE_PYTHON")


class Hall:
    """Four agents with their folders, the folder that their ranks share, and their logs."""

    def __init__(self, folder: Path, script: str, *options: str, **launcher: Any) -> None:
        self.folder = folder
        self.shared = folder / "shared"
        self.shared.mkdir(parents=True)
        for name in (AGENT_FILE, WRAPPER_FILE):
            (folder / name).write_text(agent_source(name))
        self.agents: dict[int, subprocess.Popen[bytes]] = {}
        self._spec = a_job(nodes=RANKS, launcher={"procsPerNode": 1, **launcher}).spec
        *self._ports, self.lighthouse_port = free_ports(RANKS + 1)
        runner = [] if launcher.get("type") == "jax" else ["-m", "torch.distributed.run"]
        self._command = [PYTHON, str(folder / AGENT_FILE), PYTHON, *runner, str(HERE / script)]
        self._command += ["--folder", str(self.shared), *options]

    def start(self, seats: Iterable[int], epoch: int = 1) -> None:
        """Start agents over their ranks, as containers would."""
        for seat in seats:
            for name in ("peers", "drain"):
                self.put([seat], name, "")
            self.put([seat], "epoch", str(epoch))
            with (self.folder / f"log-{seat}").open("ab") as log:
                self.agents[seat] = subprocess.Popen(
                    self._command, env=self._environment(seat, epoch), stdout=log, stderr=log
                )

    def _environment(self, seat: int, epoch: int) -> dict[str, str]:
        shared = launchers.shared_env("job", self._spec, RANKS, 1)
        rendered = {one["name"]: str(one["value"]) for one in shared}
        own = launchers.seat_env("job", self._spec, RANKS, seat)
        rendered |= {name: str(value) for name, value in own.items()}
        # On one machine each group meets on a port of its own.
        port = str(self._ports[int(rendered.get("REPLICA_GROUP_ID", "0"))])
        for name, value in rendered.items():
            local = re.sub(r"job-(\d+\.job|lighthouse)", "127.0.0.1", value)
            local = local.replace(str(self._spec.launcher.port), port)
            rendered[name] = local.replace(
                str(launchers.LIGHTHOUSE_PORT), str(self.lighthouse_port)
            )
        return {
            **rendered,
            "PATH": os.environ["PATH"],
            "PYTHONUNBUFFERED": "1",
            "OMP_NUM_THREADS": "1",
            "JAX_PLATFORMS": "cpu",
            "GLOO_SOCKET_IFNAME": "lo",
            "TRAMONTANE_AGENT_FOLDER": str(self.folder / f"pod-{seat}"),
            "TRAMONTANE_AGENT_WAIT_S": "100",
            "TRAMONTANE_ATTEMPT": str(epoch),
        }

    def put(self, seats: Iterable[int], name: str, text: str) -> None:
        """Write a file of the pods as the kubelet does: whole, by renaming."""
        for seat in seats:
            folder = self.folder / f"pod-{seat}"
            folder.mkdir(exist_ok=True)
            fresh = folder / f".{name}"
            fresh.write_text(text)
            fresh.rename(folder / name)

    def log(self, seat: int) -> str:
        return (self.folder / f"log-{seat}").read_text(errors="replace")

    def until(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not holds():
            if time.monotonic() > deadline:
                logs = "\n".join(self.log(seat)[-1000:] for seat in self.agents)
                pytest.fail(f"never so; the ranks said last:\n{logs}")
            time.sleep(0.02)

    def until_exited(self, seats: Iterable[int]) -> None:
        """Wait until the ranks of the first attempt have ended, their agents staying."""
        watched = tuple(seats)
        self.until(lambda: all("event=exited attempt=1" in self.log(seat) for seat in watched))

    def worker(self, seat: int) -> int:
        """Return the process that trains: the youngest below the agent."""
        return max(descendants(self.agents[seat].pid))

    def kill(self, seat: int) -> None:
        """End an agent and all below it at once, as a lost blade does."""
        agent = self.agents[seat]
        if agent.poll() is not None:  # its pid may be another's by now
            return
        for pid in (agent.pid, *descendants(agent.pid)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        agent.wait()

    def close(self) -> None:
        for seat in self.agents:
            self.kill(seat)

    def until_done(self) -> None:
        """Wait until all ranks have ended well."""
        self.until(lambda: all(agent.poll() is not None for agent in self.agents.values()))
        assert [agent.returncode for agent in self.agents.values()] == [0] * RANKS

    def weights(self) -> str:
        """Wait for the end, and return the digest of what was trained."""
        self.until_done()
        return (self.shared / "weights.sha256").read_text()
