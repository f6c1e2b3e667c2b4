"""Two torchft groups of two ranks: one is lost and restarted, the other trains on."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.hall import PYTHON, RANKS, Hall, need
from tramontane.controllers.trainingjob.lighthouse import pod
from unit.trainingjob.builders import a_job

STEPS = 300


@pytest.fixture
def hall(tmp_path: Path) -> Iterator[Hall]:
    need("torchft")
    groups = {"replicaGroups": 2, "minReplicaGroups": 1}
    under_test = Hall(tmp_path / "hall", "train_torchft.py", f"--steps={STEPS}", **groups)
    [container] = pod(a_job(launcher=groups), {})["spec"]["containers"]
    program, *options = container["command"]
    options[-1] = f"[::]:{under_test.lighthouse_port}"
    with (tmp_path / "lighthouse").open("wb") as log:
        command = [str(Path(PYTHON).with_name(program)), *options]
        lighthouse = subprocess.Popen(command, stdout=log, stderr=log)
    yield under_test
    under_test.close()
    lighthouse.kill()
    lighthouse.wait()


def groups_of(log: str) -> list[str]:
    return re.findall(r"groups (\d)", log)


@pytest.mark.timeout(300)
def test_a_group_restarts_while_the_other_steps_on(hall: Hall) -> None:
    hall.start(range(RANKS))
    hall.until(lambda: groups_of(hall.log(0))[-10:] == ["2"] * 10)
    os.kill(hall.worker(3), signal.SIGKILL)
    hall.until(lambda: groups_of(hall.log(0))[-1:] == ["1"])
    hall.until_exited([2, 3])
    hall.put([2, 3], "epoch", "2")
    hall.until(lambda: groups_of(hall.log(0))[-1] == "2")
    hall.until_done()

    assert hall.log(0).count("event=started") == hall.log(1).count("event=started") == 1
    assert hall.log(2).count("event=started") == hall.log(3).count("event=started") == 2
    weights = {path.read_text() for path in hall.shared.glob("weights-*")}
    assert len(weights) == 1, "all ranks of all groups end with the same"
