"""Train the small model of train_jax.py under torchrun and gloo, as deterministically.

Gradients are summed in rank order (gathered, then added), batches come from the step and the rank
alone, weights are float32: two runs end with the same bits, however often they were interrupted.
torchrun passes SIGTERM on to its workers; they agree by an all-reduce, save at the same step, end.

Usage: torchrun train_torch.py --folder SHARED [--steps N] [--every N] [--step-time S] [--size N]
"""

# mypy: disable-error-code="import-not-found,import-untyped,no-untyped-call"
# - torch and the module of the rank's folder are not in the development environment

import argparse
import hashlib
import os
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import tramontane_rank as rank

BATCH = 16
RATE = 0.05


def weights(size: int) -> dict[str, Any]:
    """Return the weights that all ranks begin with."""
    made = torch.Generator().manual_seed(7)
    shapes = {"w1": (size, size), "b1": (size,), "w2": (size, 1), "b2": (1,)}
    return {name: torch.randn(shape, generator=made) / size**0.5 for name, shape in shapes.items()}


def batch(step: int, process: int, size: int) -> tuple[Any, Any]:
    """Return a rank's part of a step's batch: the same whenever it is asked for."""
    made = torch.Generator().manual_seed(step * 100_003 + process)
    x = torch.randn((BATCH, size), generator=made)
    return x, torch.sin(x.sum(dim=1, keepdim=True))


def save(path: Path, step: int, params: dict[str, Any]) -> None:
    """Write a checkpoint that is there whole or not at all, even after a power cut."""
    fresh = path.with_suffix(f".{os.getpid()}.tmp")
    with fresh.open("wb") as file:
        torch.save({"step": step, **{name: held.detach() for name, held in params.items()}}, file)
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def load(path: Path, size: int) -> tuple[int, dict[str, Any]]:
    """Return step and weights to go on from."""
    if not path.exists():
        return 0, weights(size)
    held = torch.load(path, weights_only=True)
    return int(held.pop("step")), held


def digest(params: dict[str, Any]) -> str:
    text = b"".join(
        bytes(params[name].detach().flatten().view(torch.uint8).tolist()) for name in sorted(params)
    )
    return hashlib.sha256(text).hexdigest()


def say(text: str) -> None:
    """Print a line in one write."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def mean(value: Any) -> Any:
    """Return the mean over all ranks, summed in their order: the same bits each time."""
    parts = [torch.empty_like(value) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, value)
    return torch.stack(parts).sum(dim=0) / len(parts)


def one_step(params: dict[str, Any], x: Any, y: Any) -> float:
    """Take a step down the slope; return the loss before it."""
    for held in params.values():
        held.requires_grad_(True)
        held.grad = None
    hidden = torch.tanh(x @ params["w1"] + params["b1"])
    loss = torch.mean((hidden @ params["w2"] + params["b2"] - y) ** 2)
    loss.backward()
    with torch.no_grad():
        for held in params.values():
            held.sub_(RATE * mean(held.grad))
        return float(mean(loss))


def any_is_told() -> bool:
    """Return whether any rank has got SIGTERM: all learn it in the same step."""
    told = torch.tensor([float(rank.terminating())])
    dist.all_reduce(told, op=dist.ReduceOp.MAX)
    return bool(told.item())


def train(options: argparse.Namespace) -> None:
    process, path = dist.get_rank(), options.folder / "checkpoint.pt"
    start, params = load(path, options.size)
    if start:
        say(f"resuming from checkpoint step={start}")

    for step in range(start + 1, options.steps + 1):
        began = time.monotonic()
        loss = one_step(params, *batch(step, process, options.size))
        time.sleep(max(0.0, options.step_time - (time.monotonic() - began)))
        say(f"step {step} loss {loss:.6f} time {time.monotonic() - began:.3f}")
        told = any_is_told()
        if (told or step % options.every == 0) and process == 0:
            say(f"saving checkpoint step={step}")
            save(path, step, params)
            say(f"saved checkpoint step={step}")
        if told:
            dist.barrier()  # nobody leaves before the checkpoint is safe
            sys.exit(0)
    if process == 0:
        (options.folder / "weights.sha256").write_text(digest(params) + "\n")
        say(f"done step={options.steps}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="shared by all ranks")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--every", type=int, default=20, help="steps between checkpoints")
    parser.add_argument(
        "--step-time", type=float, default=0.1, help="seconds a step takes at least"
    )
    parser.add_argument("--size", type=int, default=64, help="width of the model")
    parser.add_argument("--timeout", type=float, default=60.0, help="of a collective, in seconds")
    options = parser.parse_args()
    rank.terminating()
    torch.set_num_threads(1)
    with rank.step_guard():
        dist.init_process_group("gloo", timeout=timedelta(seconds=options.timeout))
        train(options)
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
