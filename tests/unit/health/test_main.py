"""The agent as a process: it starts without an API server, and leaves cleanly."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from tramontane.health.__main__ import main
from tramontane.lab.nvml import StateFile

KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: c
contexts: [{name: c, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: "http://127.0.0.1:9"}}]
users: [{name: u, user: {}}]
"""


@pytest.fixture
async def agent(
    library: Path, machine: StateFile, tmp_path: Path
) -> AsyncIterator[asyncio.subprocess.Process]:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(KUBECONFIG)
    environment = {
        **os.environ,
        **machine.environment(),
        "KUBECONFIG": str(kubeconfig),
        "TRAMONTANE_NVML_LOG": str(tmp_path / "nvml.log"),
    }
    command = ["-m", "tramontane.health", "--node-name", "gpu-0001", "--interval", "0.1"]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *command,
        "--nvml-library",
        str(library),
        env=environment,
        stderr=asyncio.subprocess.PIPE,
    )
    yield process
    if process.returncode is None:
        process.kill()
        await process.communicate()


async def test_it_outlives_an_absent_api_server_and_leaves_cleanly_on_sigterm(
    agent: asyncio.subprocess.Process, tmp_path: Path
) -> None:
    assert agent.stderr is not None
    said = b""
    async with asyncio.timeout(60):
        while not (b"probe started" in said and b"reading the blade failed" in said):
            said += await agent.stderr.readline()
        agent.send_signal(signal.SIGTERM)
        said += (await agent.communicate())[1]
    assert agent.returncode == 0
    assert b"Traceback" not in said
    # Whether the child had opened its session by then is a race; if so, it has closed it.
    log = tmp_path / "nvml.log"
    assert not log.exists() or log.read_text() == "nvmlShutdown\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param([], "must be the Node's name", id="no-node"),
        pytest.param(["--node-name", "b", "--disable-check", "x"], "not one of", id="no-check"),
        pytest.param(["--node-name", "b", "--interval", "0"], "not in the range", id="no-interval"),
        pytest.param(["--node-name", "b", "--host-interval", "0"], "not in", id="no-host-interval"),
    ],
)
def test_wrong_arguments_are_refused(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NODE_NAME", raising=False)
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert message in result.output
