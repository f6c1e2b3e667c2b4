"""Serve on real nodes and lose no request, whatever is done to the replicas.

Real kubelets, probes, EndpointSlices, agents and digests; only the engine plays. Each replica has
a whole node, so that four nodes are three replicas and room for one more. Each of the longer tests
streams TRAMONTANE_STREAMS requests (1,000 by default) while something happens.
"""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench import results
from node.harness import Tier, until
from node.serving import Served, serving
from tramontane.lab.faults import parse_fault
from tramontane.lab.serving.deployment import GPUS
from tramontane.lab.serving.model import write_model
from tramontane.lab.serving.streams import Streams

STREAMS = int(os.environ.get("TRAMONTANE_STREAMS", "1000"))
REPLICAS = 3
HANG_AFTER_S = 10.0
DEAD_S, HANG_S, ROTATION_S = 15.0, HANG_AFTER_S + 10.0, 2.0
# What a busy machine may take beyond what is aimed at.
BUSY = 2
WINDOW_S = 60.0
AIMS = {
    "dead rank → found": (DEAD_S, "s"),
    "found → out of rotation": (ROTATION_S, "s"),
    "hang → found": (HANG_S, "s"),
    "slow canary serves → rolled back": (2 * WINDOW_S, "s"),
    "dropped of the streams over a rolling update": (0, ""),
    "dropped of the streams over a scale-in": (0, ""),
    "dropped of the streams over a move": (0, ""),
}

pytestmark = pytest.mark.timeout(600)

Figures = dict[str, float]


@pytest.fixture(scope="module")
def figures() -> Iterator[Figures]:
    """What was measured, by its name; recorded at the end if that is wanted."""
    found: Figures = {}
    yield found
    if os.environ.get("TRAMONTANE_RECORD") == "1":
        budgets = [
            results.Budget(name, found[name], most, unit)
            for name, (most, unit) in AIMS.items()
            if name in found
        ]
        command = "TRAMONTANE_RECORD=1 TRAMONTANE_STREAMS=10000 make node ARGS='-k test_inference'"
        told = {"command": command, "load": round(os.getloadavg()[1], 1), "measured": found}
        results.write("serving", told, budgets)


def nothing_dropped(streams: Streams, figures: Figures, over: str) -> None:
    figures[f"dropped of the streams over {over}"] = streams.dropped.total()
    figures[f"streams over {over}"] = streams.done
    assert not streams.dropped, f"{streams.dropped} of {streams.done}; {streams.by_address}"
    assert streams.done >= STREAMS


def blades(status: dict[str, Any]) -> set[str]:
    return {blade for one in status["replicas"] for blade in one["blades"]}


async def went_out(served: Served, name: str) -> float:
    """Return when a pod was no longer in rotation (monotonic s)."""

    async def out() -> bool:
        return name not in await served.in_rotation()

    await until(out, f"{name} out of rotation", within_s=60.0)
    return time.monotonic()


async def test_a_dead_rank_stops_the_replica_and_it_starts_once(
    tier: Tier, figures: Figures
) -> None:
    async with serving(tier, "dead", tensor=2 * GPUS) as served:
        await served.serves(1)
        [head], [other] = await served.pods(0), await served.pods(1)
        began = time.monotonic()
        tier.nodes.signal(other["spec"]["nodeName"], r"--headless", signal.SIGKILL)
        found_s, out = await asyncio.gather(
            served.until(lambda it: it["replicas"][0]["restarts"] == 1, "a restart"),
            went_out(served, head["metadata"]["name"]),
        )
        figures["dead rank → found"] = found_s
        figures["found → out of rotation"] = max(0.0, out - began - found_s)
        assert found_s <= BUSY * DEAD_S
        assert out - began <= found_s + BUSY * ROTATION_S
        await served.serves(1)
        status = await served.status()
        assert status["replicas"][0]["restarts"] == 1
        assert "rank 1" in status["replicas"][0]["why"]
        assert blades(status) == {head["spec"]["nodeName"], other["spec"]["nodeName"]}


async def test_a_hung_engine_is_found_and_an_idle_one_left_alone(
    tier: Tier, figures: Figures
) -> None:
    async with serving(tier, "hung") as served:
        await served.serves(1)
        [head] = await served.pods(0)
        async with served.streams(at_once=2).running() as streams:
            await streams.until(lambda it: it.done > 10)
            began = time.monotonic()
            await served.fault(head, "hang")
            await served.until(
                lambda it: it["replicas"][0].get("reason") == "Hung", "Hung", BUSY * HANG_S
            )
            figures["hang → found"] = time.monotonic() - began
            assert figures["hang → found"] >= HANG_AFTER_S - 1
        await served.serves(1)
        # Twice as long as what would be a hang under load.
        idle_until = time.monotonic() + 2 * HANG_AFTER_S
        await until(lambda: _past(idle_until), "idle")
        assert (await served.status())["replicas"][0]["restarts"] == 1


async def _past(moment: float) -> bool:
    return time.monotonic() >= moment


async def test_no_request_is_lost_while_revisions_replicas_and_blades_change(
    tier: Tier, figures: Figures
) -> None:
    """A rolling update with room for one more, a scale-in, and a move off a suspect blade."""
    async with serving(tier, "calm", replicas=REPLICAS) as served:
        await served.serves(REPLICAS)
        first = {pod["metadata"]["uid"] for pod in await served.pods()}

        async with served.streams().running() as streams:
            await served.change(capacity={"contextTokens": 8192})
            await served.until(lambda it: it.get("phase") == "RollingOut", "rolling out")
            await served.serves(REPLICAS)
            await streams.until(lambda it: it.done >= STREAMS)
        nothing_dropped(streams, figures, "a rolling update")
        assert not first & {pod["metadata"]["uid"] for pod in await served.pods()}
        verdicts = [one["verdict"] for one in (await served.status())["revisions"]]
        assert verdicts.count("Accepted") >= 1

        async with served.streams().running() as streams:
            await streams.until(lambda it: it.done >= STREAMS // 4)
            await served.change(
                capacity={"minReplicas": 2, "maxReplicas": 2}, autoscaling={"scaleDownAfter": "1s"}
            )
            await served.serves(2)
            await streams.until(lambda it: it.done >= STREAMS)
        nothing_dropped(streams, figures, "a scale-in")

        bad = min(blades(await served.status()))
        async with served.streams().running() as streams, tier.lab.remote() as remote:
            await streams.until(lambda it: it.done >= STREAMS // 4)
            await remote.inject(bad, parse_fault("row-remap-pending"))
            await served.until(lambda it: bad not in blades(it), "moved")
            await served.serves(2)
            await streams.until(lambda it: it.done >= STREAMS)
        nothing_dropped(streams, figures, "a move")


async def test_a_fatal_fault_moves_the_replica(tier: Tier) -> None:
    async with serving(tier, "fatal") as served:
        await served.serves(1)
        [bad] = blades(await served.status())
        async with tier.lab.remote() as remote:
            await remote.inject(bad, parse_fault("gpu-lost"))
            await served.until(lambda it: bad not in blades(it), "moved")
            await served.serves(1)
        assert blades(await served.status()) != {bad}


async def test_a_slow_canary_is_rolled_back_and_not_tried_again(
    tier: Tier, figures: Figures
) -> None:
    model = write_model(tier.shared / "models" / "canary" / "v1", ttft=0.1)
    slow = write_model(model.parent / "v2", ttft=0.15)
    steps = [{"weight": 50, "hold": "10m"}]
    async with serving(tier, "canary", model, replicas=2, rollout={"steps": steps}) as served:
        await served.serves(2)
        async with served.streams(at_once=4).running() as streams:
            await streams.until(lambda it: it.done >= 100)
            await served.change(model={"source": {"hostPath": str(slow)}})
            await served.until(
                lambda it: bool((it.get("rollout") or {}).get("since")), "the canary serves"
            )
            took_s = await served.until(
                lambda it: it.get("phase") == "RolledBack", "rolled back", within_s=240.0
            )
            await served.serves(2, "RolledBack")
        assert not streams.dropped
        figures["slow canary serves → rolled back"] = took_s
        assert took_s <= BUSY * 2 * WINDOW_S
        rejected = [
            one for one in (await served.status())["revisions"] if one["verdict"] == "Rejected"
        ]
        assert len(rejected) == 1
        assert "ttft" in rejected[0]["why"].lower()


async def test_weights_with_a_flipped_byte_do_not_start_and_the_old_ones_serve_on(
    tier: Tier,
) -> None:
    model = write_model(tier.shared / "models" / "flipped" / "v1")
    async with serving(tier, "flipped", model) as served:
        await served.serves(1)
        digest = (await served.status())["revisions"][0]["digest"]
        pods = {pod["metadata"]["uid"] for pod in await served.pods()}
        bad = write_model(model.parent / "v2")
        flip(bad / "model.safetensors")
        await served.change(model={"source": {"hostPath": str(bad)}, "digest": digest})
        await served.until(lambda it: it.get("phase") == "RolledBack", "rolled back")
        status = await served.status()
        assert any("ArtifactMismatch" in (one.get("why") or "") for one in status["revisions"])
        assert pods <= {pod["metadata"]["uid"] for pod in await served.pods()}
        assert len(await served.in_rotation()) == 1


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
