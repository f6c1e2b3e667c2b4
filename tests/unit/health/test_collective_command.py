"""The command, as several processes on one machine."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
QUICK = ["--backend=ring", "--size=1", "--repeats=2", "--timeout=30s"]


def start(rank: int, size: int, port: int, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tramontane.health.collective", *QUICK, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ
        | {
            "PYTHONPATH": str(ROOT / "health"),
            "OPENBLAS_NUM_THREADS": "1",
            "RANK": str(rank),
            "WORLD_SIZE": str(size),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "TRAMONTANE_BLADE": f"gpu-{rank}",
        },
        text=True,
    )


def told(process: subprocess.Popen[str]) -> tuple[dict[str, Any], int]:
    out, _ = process.communicate(timeout=60)
    return json.loads(out.splitlines()[-1]), process.returncode


@pytest.mark.parametrize(
    ("options", "ranks", "verdict", "exit_code"),
    [
        pytest.param([], 2, "PASS", 0, id="pass"),
        pytest.param(["--min-bandwidth=1e6"], 2, "FAIL", 1, id="slow"),
        pytest.param(["--procs-per-blade=2"], 4, "PASS", 0, id="several processes per blade"),
        pytest.param(
            ["--procs-per-blade=2", "--min-bandwidth=1e6"], 4, "FAIL", 1, id="several, slow"
        ),
    ],
)
def test_all_ranks_give_the_same_verdict(
    options: list[str], ranks: int, verdict: str, exit_code: int, unused_tcp_port: int
) -> None:
    processes = [start(rank, 2, unused_tcp_port, *options) for rank in range(2)]
    for said, code in [told(process) for process in processes]:
        assert (said["check"], said["verdict"], code) == ("collective", verdict, exit_code)
        assert said["unit"] == "GB/s"
        assert said["value"] > 0
        assert said["details"]["ranks"] == ranks


@pytest.mark.parametrize(
    ("options", "exit_code", "reason"),
    [
        pytest.param(
            ["--timeout=0.2s"], 2, "PeerError: rank 1: did not come within 0.2 s", id="no peer"
        ),
        pytest.param(
            ["--timeout=0.2s", "--procs-per-blade=2"],
            2,
            "rank 2, rank 3: did not come within 0.2 s",
            id="no peers",
        ),
        pytest.param(["--repeats=0"], 3, "argument --repeats: must be", id="usage"),
    ],
)
def test_what_says_nothing_of_a_blade_is_an_error(
    options: list[str], exit_code: int, reason: str, unused_tcp_port: int
) -> None:
    said, code = told(start(0, 2, unused_tcp_port, *options))
    assert (said["verdict"], code) == ("ERROR", exit_code)
    assert reason in said["reason"]


@pytest.mark.parametrize(
    "options", [[], ["--procs-per-blade=2"]], ids=["one process", "two processes"]
)
def test_sigterm_ends_it_at_once(options: list[str], unused_tcp_port: int) -> None:
    process = start(0, 2, unused_tcp_port, "--timeout=9h", *options)
    assert process.stderr is not None
    while "waiting for the others" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    said, code = told(process)
    assert (said["verdict"], said["reason"], code) == ("ERROR", "stopped", 2)
