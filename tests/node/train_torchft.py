"""Train with torchft: replica groups that step on while one of them is restarted.

Within a group gradients are summed by torchrun's own process group, between groups by torchft's,
which agrees with the lighthouse in each step on who is there. A group that comes back gets the
weights from another; a checkpoint is for the day on which all are lost, and left out here.

Usage: torchrun train_torchft.py --folder SHARED [--steps N] [--step-time S]
"""

# mypy: disable-error-code="import-not-found,import-untyped,no-untyped-call"
# - torch and the module of the rank's folder are not in the development environment

import argparse
import os
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import tramontane_rank as rank
from torchft import Manager, ProcessGroupGloo

SIZE = 64
RATE = 0.01


def joined(weights: Any, timeout_s: float) -> Any:
    """Return the manager of this rank, by which its group meets the others."""
    limit = timedelta(seconds=timeout_s)
    return Manager(
        pg=ProcessGroupGloo(timeout=limit),
        min_replica_size=1,
        load_state_dict=lambda state: weights.copy_(state["weights"]),
        state_dict=lambda: {"weights": weights.clone()},
        replica_id=f"group-{os.environ['REPLICA_GROUP_ID']}",
        timeout=2 * limit,
        quorum_timeout=6 * limit,
        use_async_quorum=False,
    )


def train(options: argparse.Namespace) -> None:
    weights = torch.zeros(SIZE)
    manager = joined(weights, options.timeout)
    while manager.current_step() < options.steps:
        began = time.monotonic()
        manager.start_quorum()
        slope = torch.ones(SIZE)
        dist.all_reduce(slope)
        slope /= dist.get_world_size()
        manager.allreduce(slope).wait()
        time.sleep(max(0.0, options.step_time - (time.monotonic() - began)))
        if manager.should_commit():
            weights -= RATE * slope
        if dist.get_rank() == 0:
            took, groups = time.monotonic() - began, manager.num_participants()
            sys.stdout.write(f"step {manager.current_step()} groups {groups} time {took:.3f}\n")
            sys.stdout.flush()
    name = f"weights-{os.environ['REPLICA_GROUP_ID']}-{dist.get_rank()}"
    (options.folder / name).write_text(f"{weights.tolist()}\n")
    manager.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where the weights go")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument(
        "--step-time", type=float, default=0.1, help="seconds a step takes at least"
    )
    parser.add_argument("--timeout", type=float, default=5.0, help="of a collective, in seconds")
    options = parser.parse_args()
    with rank.step_guard():
        dist.init_process_group("gloo", timeout=timedelta(seconds=4 * options.timeout))
        train(options)
    os._exit(0)  # torchft's threads outlive the training


if __name__ == "__main__":
    main()
