"""Whatever a lab with real nodes was, `down` leaves nothing of it on the machine."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from node.builders import pod
from node.harness import wait_phase
from tramontane.kube.client import Client
from tramontane.kube.resources import NODES, PODS
from tramontane.lab.cluster import Lab, Setup, down
from tramontane.lab.fleet import Layout
from tramontane.lab.nodes import cgroups
from tramontane.lab.nodes.claim import CLAIM
from tramontane.lab.nodes.config import MOUNTS
from tramontane.lab.paths import LabError

pytestmark = pytest.mark.usefixtures("_able")
IP_NETNS = "/run/netns"
NOTHING_BUT_NODES = Setup(Layout(blades=0), components=(), simulated_agents=False, real_nodes=2)


def said_by(*command: str) -> list[str]:
    return sorted(
        subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    )


def traces(folder: Path) -> dict[str, object]:
    """All that a lab could leave on the machine; equal before and after, or it did.

    But for the folder of `ip netns`, which `ip` makes and mounts at its first use and keeps.
    """
    mine = str(folder).encode()
    return {
        "links": [line.split(":")[1] for line in said_by("ip", "-oneline", "link")],
        "routes": said_by("ip", "route"),
        "namespaces": said_by("ip", "netns"),
        "mounts": sorted(
            point
            for line in Path("/proc/self/mountinfo").read_text().splitlines()
            if (point := line.split()[4]) != IP_NETNS
        ),
        "cgroups": sorted(
            str(found) for root in cgroups.hierarchies() for found in root.glob("tramontane*")
        ),
        "rules": [line for line in said_by("iptables-save") if not line.startswith("#")],
        "processes": sorted(
            found.parent.name
            for found in Path("/proc").glob("[0-9]*/cmdline")
            if mine in _read(found)
        ),
        "claim": CLAIM.exists(),
        "folders": [point for point, _ in MOUNTS if Path(point).exists()],
    }


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


async def run_a_pod(folder: Path) -> None:
    async with await Client.connect(folder / "kubeconfig", user_agent="tests") as client:
        for node in ("real-0001", "real-0002"):
            sleeper = pod(f"on-{node}", node, "sleep", "10000")
            await client.create(PODS, sleeper, "default")
            await wait_phase(client, f"on-{node}", "Running")


async def test_down_leaves_nothing_and_a_second_lab_is_refused(tmp_path: Path) -> None:
    before = traces(tmp_path)
    lab = Lab(tmp_path / "lab", NOTHING_BUT_NODES, attached=False)
    await lab.start()
    await lab.close()
    try:
        await run_a_pod(lab.folder)
        during = traces(tmp_path)
        assert {key for key in before if before[key] != during[key]} >= {
            "links", "routes", "namespaces", "cgroups", "processes", "claim",
        }  # fmt: skip

        message = f"only one lab .* {re.escape(str(lab.folder))}.* `tramontane lab down --dir"
        with pytest.raises(LabError, match=message):
            await Lab(tmp_path / "second", NOTHING_BUT_NODES).start()
        assert traces(tmp_path) == during, "it must not have touched the first"

        await lab.nodes.power_off("real-0002")
    finally:
        down(lab.folder)
    assert traces(tmp_path) == before
    assert down(lab.folder) == 0
    assert traces(tmp_path) == before


ATTACHED = """
import asyncio, sys
from pathlib import Path
from tramontane.lab.cluster import Lab, Setup
from tramontane.lab.fleet import Layout

async def main():
    setup = Setup(Layout(blades=0), components=(), simulated_agents=False, real_nodes=2)
    async with Lab(Path(sys.argv[1]), setup):
        print("up", flush=True)
        await asyncio.sleep(1000)

asyncio.run(main())
"""


@contextmanager
def attached_lab(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A lab that dies with its process, without any chance to clean up."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        [sys.executable, "-c", ATTACHED, folder], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            yield process
        finally:
            process.kill()


async def test_nothing_is_left_of_a_lab_that_was_killed(tmp_path: Path) -> None:
    before = traces(tmp_path)
    folder = tmp_path / "lab"
    try:
        with attached_lab(folder) as process:
            assert process.stdout is not None
            assert await asyncio.to_thread(process.stdout.readline) == "up\n"
            await run_a_pod(folder)
            process.send_signal(signal.SIGKILL)
            process.wait()
    finally:
        assert traces(tmp_path) != before
        down(folder)
    assert traces(tmp_path) == before


async def test_the_next_lab_sweeps_up_after_one_that_was_killed(tmp_path: Path) -> None:
    before = traces(tmp_path)
    with attached_lab(tmp_path / "killed") as process:
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == "up\n"
        process.send_signal(signal.SIGKILL)
        process.wait()
    async with Lab(tmp_path / "next", NOTHING_BUT_NODES) as lab:
        await lab.nodes.wait_ready(lab.client)
        assert len(await lab.client.list_all(NODES)) == 2
    assert traces(tmp_path) == before
