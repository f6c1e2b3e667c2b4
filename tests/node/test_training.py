"""Three ranks train on real nodes with a spare; whatever breaks, they end with the same weights.

Each test disturbs one run in its middle. Its weights must be those of an undisturbed run bit for
bit, and its log must show that it went on from a checkpoint and did each step after that exactly
once. Times are bounded at twice what is aimed at, for the machine is not quiet; with
TRAMONTANE_RECORD=1 they are written to bench/results/training.json.
"""

import asyncio
import os
import signal
from collections.abc import Iterator

import pytest

from bench import results
from node.harness import Tier
from node.scenarios import (
    BUSY,
    MIDDLE,
    REPORTED_S,
    SILENT_S,
    VICTIM,
    check_moved,
    jax_template,
    measured,
    the_incident,
    took_s,
)
from node.training import Raw, training
from tramontane.lab.faults import parse_fault

AIMS = {
    "power cut": SILENT_S,
    "power cut of rank 0": SILENT_S,
    "fault that the agent reports": REPORTED_S,
}

pytestmark = pytest.mark.timeout(300)

Figures = dict[str, Raw]


@pytest.fixture(scope="module")
def figures() -> Iterator[Figures]:
    """What the scenarios took, by their names; recorded at the end if that is wanted."""
    found: Figures = {}
    yield found
    if os.environ.get("TRAMONTANE_RECORD") == "1":
        budgets = [
            results.Budget(f"{name} → stepping again", found[name]["stepping_again_s"], most, "s")
            for name, most in AIMS.items()
            if name in found
        ]
        command = "TRAMONTANE_RECORD=1 make node ARGS='-k test_training'"
        # What else ran meanwhile is most of what these times depend on.
        told = {"command": command, "load": round(os.getloadavg()[1], 1), "scenarios": found}
        results.write("training", told, budgets)


@pytest.fixture(scope="module")
def undisturbed(_tier: Tier) -> str:
    """The weights of a run in which nothing happens."""

    async def train() -> str:
        async with training(_tier, "calm", jax_template) as run:
            status = await run.finished()
        assert (status["attempt"], status["incidents"]) == (1, [])
        assert run.resumed() == []
        await _tier.reset()
        return run.weights

    return asyncio.run(train())


async def test_a_rank_is_killed(tier: Tier, undisturbed: str, figures: Figures) -> None:
    async with training(tier, "killed", jax_template) as run:
        await run.past(MIDDLE)
        pods = run.uids()
        run.struck()
        run.signal(VICTIM, signal.SIGKILL)
        again_s = await run.steps_again()
        status = await run.finished()
    figures["killed rank"] = measured(run, again_s, status)
    assert run.weights == undisturbed
    assert run.uids() == pods
    incident = the_incident(run, status, "UserError")
    assert (incident["code"], incident["seats"]) == ("exit-137", [VICTIM])
    assert status["restarts"] == {"user": 1, "infra": 0, "preempted": 0}
    assert run.rework() > 0
    assert took_s(incident) <= BUSY * SILENT_S


async def test_a_rank_stands_still(tier: Tier, undisturbed: str, figures: Figures) -> None:
    async with training(tier, "stopped", jax_template, progress={"stallAfter": "5s"}) as run:
        await run.past(MIDDLE)
        pods = run.uids()
        run.struck()
        run.signal(VICTIM, signal.SIGSTOP)
        again_s = await run.steps_again()
        status = await run.finished()
    figures["stopped rank"] = measured(run, again_s, status)
    assert run.weights == undisturbed
    assert run.uids() == pods
    incident = the_incident(run, status, "Hang")
    assert took_s(incident, "detectedAfter") >= 5
    assert status["restarts"] == {"user": 0, "infra": 1, "preempted": 0}
    assert took_s(incident) <= BUSY * SILENT_S


@pytest.mark.parametrize("lost", [VICTIM, 0], ids=["rank 2", "rank 0"])
async def test_a_node_loses_power(
    tier: Tier, undisturbed: str, figures: Figures, lost: int
) -> None:
    async with training(tier, f"cut-{lost}", jax_template) as run:
        await run.past(MIDDLE)
        pods, node = run.uids(), run.node(lost)
        run.struck()
        await tier.nodes.power_off(node)
        again_s = await run.steps_again()
        status = await run.finished()
    figures["power cut" if lost else "power cut of rank 0"] = measured(run, again_s, status)
    assert run.weights == undisturbed
    [incident] = status["incidents"]
    assert incident["cause"] == "NodeLost"
    check_moved(run, pods, incident, lost, node)
    # The log of rank 0 goes with its node, before all of it was read.
    assert run.rework() > 0
    assert incident["reworkSteps"] <= run.rework() + 1
    assert took_s(incident) <= BUSY * SILENT_S


async def test_the_agent_reports_a_fault(tier: Tier, undisturbed: str, figures: Figures) -> None:
    async with training(tier, "fault", jax_template) as run, tier.lab.remote() as remote:
        await run.past(MIDDLE)
        pods, node = run.uids(), run.node(VICTIM)
        run.struck()
        await remote.inject(node, parse_fault("xid 79", gpu=3))
        again_s = await run.steps_again()
        status = await run.finished()
    figures["fault that the agent reports"] = measured(run, again_s, status)
    assert run.weights == undisturbed
    incident = the_incident(run, status, "BladeFault")
    assert incident["code"] == "xid-79"
    check_moved(run, pods, incident, VICTIM, node)
    assert took_s(incident) <= BUSY * REPORTED_S


async def test_a_degraded_blade_is_left_after_a_checkpoint(
    tier: Tier, undisturbed: str, figures: Figures
) -> None:
    async with training(tier, "drained", jax_template) as run, tier.lab.remote() as remote:
        await run.past(MIDDLE)
        pods, node = run.uids(), run.node(VICTIM)
        run.struck()
        await remote.inject(node, parse_fault("pcie-width", gpu=3))
        again_s = await run.steps_again()
        status = await run.finished()
    figures["drain"] = measured(run, again_s, status)
    assert run.weights == undisturbed
    incident = the_incident(run, status, "BladeFault")
    assert incident["code"] == "pcie-width"
    check_moved(run, pods, incident, VICTIM, node)
    assert run.rework() == incident["reworkSteps"] == 0
    assert took_s(incident) <= BUSY * REPORTED_S


async def test_a_suspended_job_goes_on_where_it_was(
    tier: Tier, undisturbed: str, figures: Figures
) -> None:
    async with training(tier, "held", jax_template) as run:
        await run.past(MIDDLE)
        pods = run.uids()
        await run.change(suspend=True)
        held = await run.in_phase("Suspended")
        run.struck()
        await run.change(suspend=False)
        again_s = await run.steps_again()
        status = await run.finished()
    figures["resumption"] = measured(run, again_s, status)
    assert run.weights == undisturbed
    assert not set(run.uids().values()) & set(pods.values())
    assert (status["attempt"], status["incidents"]) == (2, [])
    assert run.rework() == 0
    assert [held["lastCheckpoint"]["step"]] == run.resumed()
    assert again_s <= BUSY * REPORTED_S
