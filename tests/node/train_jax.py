"""Train a small model in data-parallel, so deterministically that a disturbed run can be compared.

Batches come from the step and the rank alone, gradients are summed in one order, weights are
float32: two runs end with the same bits, however often they were interrupted. Rank 0 writes a
checkpoint every few steps (complete, synced, then renamed) and all ranks read it. On SIGTERM all
ranks save at the same step and end.

Usage: python train_jax.py --folder SHARED [--steps N] [--every N] [--step-time S] [--size N]
Rank, size and address come from the environment; alone without.
"""

# mypy: disable-error-code="import-not-found,import-untyped,untyped-decorator"
# - jax's types are not looked at, and the module of the rank's folder is not here

import argparse
import hashlib
import os
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tramontane_rank as rank
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as Spec

BATCH = 16
RATE = 0.05


def weights(size: int) -> dict[str, np.ndarray]:
    """Return the weights that all ranks begin with."""
    made = np.random.default_rng(7)
    shapes = {"w1": (size, size), "b1": (size,), "w2": (size, 1), "b2": (1,)}
    return {
        name: (made.standard_normal(shape) / size**0.5).astype(np.float32)
        for name, shape in shapes.items()
    }


def batch(step: int, process: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a rank's part of a step's batch: the same whenever it is asked for."""
    made = np.random.default_rng((step, process))
    x = made.standard_normal((BATCH, size)).astype(np.float32)
    return x, np.sin(x.sum(axis=1, keepdims=True)).astype(np.float32)


def loss_of(params: dict[str, jax.Array], x: jax.Array, y: jax.Array) -> jax.Array:
    hidden = jnp.tanh(x @ params["w1"] + params["b1"])
    return jnp.mean((hidden @ params["w2"] + params["b2"] - y) ** 2)


def save(path: Path, step: int, params: dict[str, np.ndarray]) -> None:
    """Write a checkpoint that is there whole or not at all, even after a power cut."""
    fresh = path.with_suffix(f".{os.getpid()}.tmp")
    with fresh.open("wb") as file:
        arrays: dict[str, Any] = {"step": np.int64(step), **params}
        np.savez(file, **arrays)
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def load(path: Path, size: int) -> tuple[int, dict[str, np.ndarray]]:
    """Return step and weights to go on from."""
    if not path.exists():
        return 0, weights(size)
    with np.load(path) as file:
        return int(file["step"]), {name: file[name] for name in file.files if name != "step"}


def digest(params: dict[str, np.ndarray]) -> str:
    text = b"".join(params[name].tobytes() for name in sorted(params))
    return hashlib.sha256(text).hexdigest()


def say(text: str) -> None:
    """Print a line in one write."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def train(options: argparse.Namespace) -> None:
    process, path = jax.process_index(), options.folder / "checkpoint.npz"
    start, held = load(path, options.size)
    if start:
        say(f"resuming from checkpoint step={start}")
    mesh = Mesh(np.array(jax.devices()), ("rank",))
    split, same = NamedSharding(mesh, Spec("rank")), NamedSharding(mesh, Spec())
    params: Any = {
        name: jax.make_array_from_process_local_data(same, value) for name, value in held.items()
    }

    @jax.jit
    def one_step(params: Any, x: jax.Array, y: jax.Array) -> tuple[Any, jax.Array]:
        loss, slopes = jax.value_and_grad(loss_of)(params, x, y)
        return jax.tree.map(lambda w, g: w - RATE * g, params, slopes), loss

    def here(params: Any) -> dict[str, np.ndarray]:
        return {name: np.asarray(value.addressable_data(0)) for name, value in params.items()}

    def keep(step: int) -> None:
        if process == 0:
            say(f"saving checkpoint step={step}")
            save(path, step, here(params))
            say(f"saved checkpoint step={step}")

    for step in range(start + 1, options.steps + 1):
        began = time.monotonic()
        x, y = batch(step, process, options.size)
        params, loss = one_step(
            params,
            jax.make_array_from_process_local_data(split, x),
            jax.make_array_from_process_local_data(split, y),
        )
        value = float(loss.addressable_data(0))  # waits until the step is done
        time.sleep(max(0.0, options.step_time - (time.monotonic() - began)))
        say(f"step {step} loss {value:.6f} time {time.monotonic() - began:.3f}")
        told = rank.should_save(step)
        if told or step % options.every == 0:
            keep(step)
        if told:
            rank.drain_exit()
    if process == 0:
        (options.folder / "weights.sha256").write_text(digest(here(params)) + "\n")
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
    options = parser.parse_args()
    with rank.step_guard():
        rank.initialize()
        train(options)


if __name__ == "__main__":
    main()
