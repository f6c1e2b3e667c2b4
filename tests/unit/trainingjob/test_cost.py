"""What a preemption now would waste, and when that is worth a write."""

import random
from typing import Any

import pytest

from tramontane.api import clock
from tramontane.api.gang import Cost
from tramontane.controllers.trainingjob.cost import LEAST_APART_S, cost_of, next_cost
from tramontane.controllers.trainingjob.observe import World
from tramontane.controllers.trainingjob.progress import Marks, Saved
from unit.trainingjob.builders import NOW, Raw, a_job, a_world, running

GPUS = 1024
HOUR = 3600.0


def at(now: float, *saves: float, status: Raw | None = None, **marks: Any) -> World:
    """Return a world of a job that has stepped since NOW and saved at these times."""
    begun = {"first_step": 1, "first_step_at": NOW + 2, "step_time_s": 2.0, **marks}
    saved = Saved(9, saves[-1]) if saves else None
    said = Marks(saved=saved, saves=tuple(Saved(9, one) for one in saves), **begun)
    job = a_job(status or running(phaseSince=clock.utc(NOW)))
    return a_world(job, now=now, marks=said)


@pytest.mark.parametrize(
    ("world", "hours"),
    [
        pytest.param(at(NOW + HOUR), 1024, id="since the first step"),
        pytest.param(at(NOW + HOUR, NOW + HOUR - 36), 10.24, id="since the checkpoint"),
        pytest.param(
            at(
                NOW + HOUR,
                status=running(
                    phaseSince=clock.utc(NOW), lastCheckpoint={"at": clock.utc(NOW + HOUR - 18)}
                ),
            ),
            5.12,
            id="a checkpoint that an earlier operator saw",
        ),
        pytest.param(
            at(NOW + HOUR, first_step_at=NOW - 9 * HOUR),
            1024,
            id="the marks are of an earlier life",
        ),
        pytest.param(
            at(NOW + 72, NOW + 36, status=running(phase="Checkpointing")),
            10.24,
            id="a handshake: since its save",
        ),
        pytest.param(at(NOW + HOUR, status=running(phase="Recovering")), 0, id="recovering"),
        pytest.param(at(NOW - 5), 0, id="a clock that went back"),
    ],
)
def test_the_cost_is_the_work_since_it_was_safe(world: World, hours: float) -> None:
    cost = cost_of(world, GPUS)
    assert cost is not None
    assert float(cost.lost_work) == pytest.approx(hours, abs=0.01)


@pytest.mark.parametrize("phase", ["Queued", "Starting", "Suspended", "Succeeded"])
def test_a_job_that_does_not_train_has_no_cost(phase: str) -> None:
    world = at(NOW + HOUR, status=running(phase=phase))

    assert cost_of(world, GPUS) is None
    assert next_cost(Cost(lost_work="7"), world, GPUS) is None


@pytest.mark.parametrize(
    ("present", "world", "written"),
    [
        pytest.param(None, at(NOW + 60), True, id="the first"),
        pytest.param(None, at(NOW + 20), False, id="the first, too soon"),
        pytest.param("17.07", at(NOW + 100), True, id="grown by half"),
        pytest.param("20", at(NOW + 100), False, id="grown by less"),
        pytest.param("17.07", at(NOW + 85), False, id="grown, too soon"),
        pytest.param("300", at(NOW + 1800, NOW + 1795), True, id="a checkpoint"),
        pytest.param("300", at(NOW + 1060, NOW + 1058), False, id="a checkpoint, too soon"),
        pytest.param("0.9", at(NOW + 1800, NOW + 1799), False, id="a checkpoint, little in it"),
    ],
)
def test_it_is_written_when_it_has_changed_enough(
    present: str | None, world: World, written: bool
) -> None:
    old = None if present is None else Cost(lost_work=present)

    new = next_cost(old, world, GPUS)

    assert (new is not old) is written
    assert new == (cost_of(world, GPUS) if written else old)


@pytest.mark.parametrize("seed", range(6))
def test_writes_are_apart_and_what_is_written_is_near(seed: int) -> None:
    dice = random.Random(seed)
    every_s, gpus = dice.uniform(5, 1500), dice.choice([8, 512, 4096])
    now, saves, present, last = NOW, [NOW], None, -1e9
    for _ in range(400):
        now += dice.uniform(0.2, 30)
        while now - saves[-1] >= every_s:
            saves.append(saves[-1] + every_s)
        world = at(now, *saves[-8:])
        cost = next_cost(present, world, gpus)
        true_h = float((cost_of(world, gpus) or Cost()).lost_work)
        if cost is not present:
            # The figure has two decimals, of which its age is read.
            assert now - last >= LEAST_APART_S - 0.01 * HOUR / gpus - 0.1
            present, last = cost, now
        elif min(now - last, now - saves[-1]) > LEAST_APART_S + 1:
            shown_h = float(present.lost_work) if present else 0.0
            soon_h = 2 * LEAST_APART_S / HOUR * gpus
            assert abs(true_h - shown_h) <= max(1.01, 0.5 * max(shown_h, soon_h))
