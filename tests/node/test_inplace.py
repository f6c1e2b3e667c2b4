"""Four ranks really train as plain processes under their agents, and lose no bit when disturbed."""

import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from node.hall import PYTHON, RANKS, Hall, need
from tramontane.lab.nodes.machine import lacking

SEATS = range(RANKS)
VICTIM = 2


def a_rank_is_killed(hall: Hall) -> None:
    os.kill(hall.worker(VICTIM), signal.SIGKILL)
    hall.until_exited(SEATS)
    hall.put(SEATS, "epoch", "2")


def a_blade_is_lost(hall: Hall, lost: int = VICTIM) -> None:
    hall.kill(lost)
    survivors = [seat for seat in SEATS if seat != lost]
    hall.until_exited(survivors)
    hall.start([lost], epoch=2)
    hall.put(survivors, "epoch", "2")


def the_blade_of_rank_0_is_lost(hall: Hall) -> None:
    a_blade_is_lost(hall, 0)


def a_rank_is_stopped(hall: Hall) -> None:
    os.kill(hall.worker(VICTIM), signal.SIGSTOP)
    hall.put(SEATS, "epoch", "2")


def all_ranks_are_drained(hall: Hall) -> None:
    hall.put(SEATS, "drain", "1")
    hall.until_exited(SEATS)
    before, kept = hall.log(0).split("saving checkpoint step=")[-2:]
    assert kept.startswith(re.findall(r"step (\d+) ", before)[-1] + "\n"), "the last step is kept"
    assert all(agent.poll() is None for agent in hall.agents.values()), "the pods stay"
    hall.put(SEATS, "epoch", "2")


def made(folder: Path, kind: str) -> Hall:
    script, launcher = f"train_{kind}.py", "jax" if kind == "jax" else "torchrun"
    return Hall(folder / "hall", script, "--steps=60", "--every=20", type=launcher)


@pytest.fixture(scope="module", params=["jax", "torch"])
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "jax" and "TRAMONTANE_NODE_PYTHON" not in os.environ and not lacking():
        pytest.skip("test_training.py does the same on real nodes, which this machine can have")
    if request.param != "jax" or sys.executable != PYTHON:  # else it is locked, and must be there
        need(request.param)
    return str(request.param)


@pytest.fixture
def hall(kind: str, tmp_path: Path) -> Iterator[Hall]:
    under_test = made(tmp_path, kind)
    yield under_test
    under_test.close()


@pytest.fixture(scope="module")
def undisturbed(kind: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    hall = made(tmp_path_factory.mktemp(kind), kind)
    try:
        hall.start(SEATS)
        return hall.weights()
    finally:
        hall.close()


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "disturb",
    [
        pytest.param(a_rank_is_killed, id="a rank is killed"),
        pytest.param(a_blade_is_lost, id="a blade is lost"),
        pytest.param(the_blade_of_rank_0_is_lost, id="the blade of rank 0 is lost"),
        pytest.param(a_rank_is_stopped, id="a rank is stopped"),
        pytest.param(all_ranks_are_drained, id="all ranks are drained"),
    ],
)
def test_the_weights_are_those_of_an_undisturbed_run(
    hall: Hall, undisturbed: str, disturb: Callable[[Hall], None]
) -> None:
    hall.start(SEATS)
    hall.until(lambda: "step 30 " in hall.log(0))
    disturb(hall)

    assert hall.weights() == undisturbed
    assert "resuming from checkpoint step=" in hall.log(0)
