"""What tests of training have in common: how ranks are started, and what holds at the end."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from node.harness import Tier
from node.training import RANKS, SAVE_EVERY, STEP_S, STEPS, Raw, Run
from tramontane.api.names import GPU_RESOURCE
from tramontane.api.quantity import parse_duration
from tramontane.lab.nodes.pods import trainer_template

HERE = Path(__file__).parent
# Aimed at, from a fault until the first step after it: nobody reports it, or somebody does.
SILENT_S, REPORTED_S = 20.0, 12.0
BUSY = 2  # times longer, it may take on a machine that is not quiet
MIDDLE = 30  # a step between two checkpoints
VICTIM = 2


def jax_template(tier: Tier, folder: Path) -> Raw:
    """Return the pods of a JAX job on simulated GPUs."""
    template = trainer_template(
        HERE / "train_jax.py",
        env={"JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1", **compiled_once(tier)},
        shared=tier.shared,
    )
    return with_options(template, folder)


def compiled_once(tier: Tier) -> dict[str, str]:
    """Return the environment with which the first run compiles all modules for those after it.

    As an image has them compiled: else each start of a rank spends seconds on that.
    """
    return {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(tier.shared / "pycache")}


def with_options(template: Raw, folder: Path) -> Raw:
    """Return the template with the script's options after its command, and 8 GPUs asked for."""
    [rank] = template["spec"]["containers"]
    rank["command"] += [
        f"--folder={folder}",
        f"--steps={STEPS}",
        f"--every={SAVE_EVERY}",
        f"--step-time={STEP_S}",
    ]
    rank["resources"] = {**rank["resources"], "limits": {GPU_RESOURCE: "8"}}
    return template


def took_s(incident: Mapping[str, Any], stage: str = "runningAfter") -> float:
    """Return how long after its beginning an incident reached a stage (s)."""
    return parse_duration(incident[stage])


def measured(run: Run, again_s: float, status: Raw) -> Raw:
    """Return what a run's disturbance took (s), by the test's clock and by the job's incidents."""
    stages = {
        f"{stage}_s": took_s(incident, f"{stage}After")
        for incident in status["incidents"]
        for stage in ("detected", "replaced", "running")
    }
    return {"stepping_again_s": round(again_s, 2), "rework_steps": run.rework(), **stages}


def the_incident(run: Run, status: Raw, cause: str) -> Raw:
    """Return the one incident; what it says of work done again must be what the log shows."""
    [incident] = status["incidents"]
    assert incident["cause"] == cause
    # Seat 1 may have ended a step that rank 0 had not.
    assert abs(incident["reworkSteps"] - run.rework()) <= 1
    return dict(incident)


def check_moved(run: Run, before: dict[int, str], incident: Raw, seat: int, blade: str) -> None:
    """Check that a seat, and no other, left its blade for the spare."""
    after = run.uids()
    assert {one for one in range(RANKS) if after[one] != before[one]} == {seat}
    assert (incident["blade"], incident["seats"]) == (blade, [seat])
    assert incident["replacedBy"] == run.node(seat) != blade
