"""Burn the processor and its memory with numpy: for blades without torch, tests and the demo.

There is one device, `cpu`; all its cores multiply. The reference of a product is computed once by
the same library, so what is found here is what changes from one repeat to the next.
"""

import time

import numpy as np
from numpy.typing import NDArray

from tramontane.health.burnin.backend import Copy, Pattern, Product, Recall, largest_entry

DEVICE = "cpu"
DEFAULT_MEMORY_BYTES = 256 << 20
_CHUNK_WORDS = 1 << 20

Floats = NDArray[np.float32]
Words = NDArray[np.int64]


def matrices(size: int, seed: int) -> tuple[Floats, Floats]:
    """Return the two matrices of a seed; the same in every process and on every machine."""
    entry = largest_entry(size)
    draw = np.random.Generator(np.random.PCG64(seed))
    left, right = (
        draw.integers(-entry, entry, (size, size), endpoint=True).astype(np.float32)
        for _ in range(2)
    )
    return left, right


class NumpyMemory:
    """An array of words, handled in pieces so that the words to compare with stay few."""

    def __init__(self, size_bytes: int) -> None:
        self.words: Words = np.zeros(max(size_bytes // 8, 1), np.int64)
        self.size_bytes = self.words.nbytes

    def write(self, pattern: Pattern) -> None:
        """Fill all of it."""
        for start in range(0, len(self.words), _CHUNK_WORDS):
            piece = self.words[start : start + _CHUNK_WORDS]
            piece[:] = pattern.words(np.arange(start, start + len(piece), dtype=np.int64))

    def check(self, pattern: Pattern) -> Recall:
        """Read all of it and compare."""
        wrong, evidence = 0, ""
        for start in range(0, len(self.words), _CHUNK_WORDS):
            piece = self.words[start : start + _CHUNK_WORDS]
            expected = pattern.words(np.arange(start, start + len(piece), dtype=np.int64))
            differ = np.flatnonzero(piece != expected)
            if differ.size and not evidence:
                at = int(differ[0])
                bits = (int(piece[at]) ^ int(expected[at])) & (2**64 - 1)
                evidence = f"at byte {(start + at) * 8:#x}, bits {bits:#x}"
            wrong += differ.size
        return Recall(wrong, evidence)


class NumpyBackend:
    """Compute with numpy on the processor."""

    name = "numpy"
    patience_s: float | None = None

    def __init__(self) -> None:
        self._made: dict[tuple[int, int], tuple[Floats, Floats, Floats]] = {}
        self._target: Floats = np.empty((0, 0), np.float32)

    def devices(self) -> tuple[str, ...]:
        """Return the one device."""
        return (DEVICE,)

    def prepare(self, size: int, seed: int) -> None:
        """Make the matrices of `seed` and their product."""
        if (size, seed) not in self._made:
            left, right = matrices(size, seed)
            self._made = {(size, seed): (left, right, left @ right)}
            self._target = np.empty((size, size), np.float32)

    def multiply(self, device: str, size: int, seed: int) -> Product:
        """Return how the product of the two matrices of `seed` went, compared bit for bit."""
        del device
        self.prepare(size, seed)
        left, right, expected = self._made[size, seed]
        self._target.fill(np.nan)  # or an element that is not written is right, from last time
        began = time.perf_counter()
        np.matmul(left, right, out=self._target)
        elapsed_s = time.perf_counter() - began
        # Compared as bits: NaN equals nothing, and 0.0 is not -0.0.
        differ = np.flatnonzero(self._target.view(np.int32) != expected.view(np.int32))
        evidence = f"first at {divmod(int(differ[0]), size)}" if differ.size else ""
        return Product(elapsed_s, int(differ.size), evidence)

    def memory(self, device: str, size_bytes: int | None) -> NumpyMemory:
        """Take this much memory, or 256 MiB: what the host's other work needs is not known."""
        del device
        return NumpyMemory(size_bytes or DEFAULT_MEMORY_BYTES)

    def copy(self, source: str | None, target: str | None, size_bytes: int) -> Copy:
        """Copy known bytes from memory to memory and compare."""
        del source, target
        here = np.resize(np.arange(251, dtype=np.uint8), size_bytes)
        there = np.zeros_like(here)  # touched, so that no page is made while the clock runs
        began = time.perf_counter()
        np.copyto(there, here)
        elapsed_s = time.perf_counter() - began
        return Copy(elapsed_s, int(np.count_nonzero(here != there)))
