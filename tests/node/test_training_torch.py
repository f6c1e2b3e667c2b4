"""Three ranks train under torchrun on real nodes; whatever breaks, the weights are the same.

torch is not installed with the rest, for its size: TRAMONTANE_NODE_PYTHON names a Python that has
it, which is mounted into the pods. The scenarios are some of those of test_training.py. What is
different: torchrun ends with a code of its own, and a rank that waits in a collective for a silent
peer does not heed SIGTERM, so that its agent kills it after its grace.
"""

import asyncio
import signal
import subprocess
from contextlib import AbstractAsyncContextManager
from functools import cache
from pathlib import Path

import pytest

from node.hall import PYTHON, need
from node.harness import Tier
from node.scenarios import (
    BUSY,
    HERE,
    MIDDLE,
    REPORTED_S,
    SILENT_S,
    VICTIM,
    check_moved,
    compiled_once,
    the_incident,
    took_s,
    with_options,
)
from node.training import Raw, Run, training
from tramontane.lab.faults import parse_fault
from tramontane.lab.nodes.pods import pod_spec

pytestmark = pytest.mark.timeout(400)


@cache
def _prefixes() -> tuple[Path, ...]:
    """Return the folders of the Python that has torch: its environment and its base."""
    code = "import sys; print(sys.prefix, sys.base_prefix)"
    said = subprocess.run([PYTHON, "-c", code], capture_output=True, text=True, check=True)
    return tuple(dict.fromkeys(Path(one) for one in said.stdout.split()))


def torch_template(tier: Tier, folder: Path) -> Raw:
    """Return the pods of a torchrun job on simulated GPUs."""
    spec = pod_spec(
        *(PYTHON, "-m", "torch.distributed.run", str(HERE / "train_torch.py")),
        env={"PYTHONPATH": "", "OMP_NUM_THREADS": "1", **compiled_once(tier)},
        read_only=(HERE, *_prefixes()),
        shared=tier.shared,
    )
    return with_options({"spec": spec}, folder)


def torchrun(tier: Tier, name: str) -> AbstractAsyncContextManager[Run]:
    launcher = {"type": "torchrun", "procsPerNode": 1}
    return training(tier, f"torch-{name}", torch_template, launcher=launcher)


@pytest.fixture(scope="module")
def undisturbed(_tier: Tier) -> str:
    """The weights of a run in which nothing happens."""
    need("torch")

    async def train() -> str:
        async with torchrun(_tier, "calm") as run:
            status = await run.finished()
        assert (status["attempt"], status["incidents"]) == (1, [])
        assert run.resumed() == []
        await _tier.reset()
        return run.weights

    return asyncio.run(train())


async def test_a_rank_is_killed(tier: Tier, undisturbed: str) -> None:
    async with torchrun(tier, "killed") as run:
        await run.past(MIDDLE)
        pods = run.uids()
        run.struck()
        run.signal(VICTIM, signal.SIGKILL)
        await run.steps_again()
        status = await run.finished()
    assert run.weights == undisturbed
    assert run.uids() == pods
    # Whose torchrun ends first is chance: all end within its look at its workers.
    assert the_incident(run, status, "UserError")["code"] == "exit-1"
    assert run.rework() > 0


@pytest.mark.parametrize("lost", [VICTIM, 0], ids=["rank 2", "rank 0"])
async def test_a_node_loses_power(tier: Tier, undisturbed: str, lost: int) -> None:
    async with torchrun(tier, f"cut-{lost}") as run:
        await run.past(MIDDLE)
        pods, node = run.uids(), run.node(lost)
        run.struck()
        await tier.nodes.power_off(node)
        await run.steps_again()
        status = await run.finished()
    assert run.weights == undisturbed
    [incident] = status["incidents"]
    assert incident["cause"] == "NodeLost"
    check_moved(run, pods, incident, lost, node)
    assert run.rework() > 0
    assert took_s(incident) <= BUSY * SILENT_S


async def test_a_degraded_blade_is_left_after_a_checkpoint(tier: Tier, undisturbed: str) -> None:
    async with torchrun(tier, "drained") as run, tier.lab.remote() as remote:
        await run.past(MIDDLE)
        pods, node = run.uids(), run.node(VICTIM)
        run.struck()
        await remote.inject(node, parse_fault("pcie-width", gpu=3))
        await run.steps_again()
        status = await run.finished()
    assert run.weights == undisturbed
    incident = the_incident(run, status, "BladeFault")
    check_moved(run, pods, incident, VICTIM, node)
    assert run.rework() == incident["reworkSteps"] == 0
    assert took_s(incident) <= BUSY * REPORTED_S
