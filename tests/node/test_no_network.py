"""Serve without a network: nothing of the tests, and nothing in the pods, asks for a name."""

import subprocess
import sys
from pathlib import Path
from signal import SIGKILL

import pytest

from node import airgap
from node.builders import python
from node.harness import Tier, wait_phase
from node.serving import serving
from support.queries import Queries
from tramontane.kube.resources import PODS
from tramontane.lab.nodes.plan import BRIDGE

ROOT = Path(__file__).parents[2]
# What `make airgap` runs is the whole of it; here those that start the most processes.
SUITE = ("tests/plane/test_inference.py", "tests/unit/lab/test_fakevllm_life.py")
STREAMS = 200
ASKS = "import socket; socket.getaddrinfo('example.invalid', 80)"


@pytest.mark.timeout(600)
def test_the_suite_passes_without_a_route_and_asks_for_no_name() -> None:
    if reason := airgap.lacking():
        pytest.skip(f"a network namespace {reason}")
    argv = [sys.executable, airgap.__file__, "-q", "-n", "0", *SUITE]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    *_, last = done.stdout.splitlines()
    assert last == "airgap: interfaces: lo; routes: 0; packets to port 53: 0 []"


@pytest.mark.timeout(300)
async def test_pods_that_serve_ask_for_no_name(tier: Tier) -> None:
    """Two ranks that find each other, streams, a restart: all by addresses."""
    with Queries(BRIDGE) as queries:
        async with await tier.client() as client:
            await client.create(PODS, python("asks", tier.nodes.names[0], ASKS), "default")
            await wait_phase(client, "asks", "Failed")
        asked, names = queries.count(), queries.names()
        assert asked, "a query must be seen"
        assert any(name.startswith("example.invalid") for name in names)

        async with serving(tier, "quiet", tensor=16) as served:
            await served.serves(1)
            async with served.streams(at_once=4).running() as streams:
                await streams.until(lambda it: it.done >= STREAMS)
            assert not streams.dropped
            [other] = await served.pods(1)
            tier.nodes.signal(other["spec"]["nodeName"], r"--headless", SIGKILL)
            await served.until(lambda it: it["replicas"][0]["restarts"] == 1, "a restart")
            await served.serves(1)
        found, names = queries.count() - asked, queries.names()
        assert not found, names
