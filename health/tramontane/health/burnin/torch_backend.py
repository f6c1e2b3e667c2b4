"""Burn GPUs (CUDA) or the processor with torch, where torch is installed; it is no dependency.

Products are of bfloat16 matrices on a GPU, so that they run on the tensor cores and draw full
power, and of float32 ones on the processor. Their sums are compared in float32, before they are
rounded, where torch can give them so (2.8). The reference is computed once, by numpy on the host:
a GPU that is wrong in the same way each time is found as well.

Of CUDA's errors only those that speak of the hardware are answers; running out of memory, an
illegal address or a driver that is gone break the checker.
"""

import importlib
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tramontane.health.burnin.backend import (
    Copy,
    DeviceFaultError,
    Filling,
    Pattern,
    Product,
    Recall,
)
from tramontane.health.burnin.numpy_backend import DEFAULT_MEMORY_BYTES, matrices

_CHUNK_WORDS = 1 << 24
# Kept free of the patterns: scratch of comparisons, and the driver's own.
_SCRATCH_BYTES = 2 << 30
_FREE_SHARE = 0.95
# Below that something else holds the memory, and what is left says little of it.
_LEAST_FREE_SHARE = 0.5
# No call takes a GPU more than seconds; the first ones wait for libraries to be read, which may
# come over a network with the rest of the image.
_PATIENCE_S = 300.0
# Source: CUDA runtime API, cudaErrorECCUncorrectable (214) and cudaErrorNvlinkUncorrectable (220).
_HARDWARE_ERRORS = ("uncorrectable ecc error", "uncorrectable nvlink error")


def find_torch() -> Any | None:
    """Return the module torch, or None where it is not installed.

    CUDA will number the GPUs as nvidia-smi does, for people who replace the one that is named.

    Raises:
        ImportError: it is, and cannot be used.
    """
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    try:
        return importlib.import_module("torch")
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        return None


def has_cuda(torch: Any | None, *, asked: bool) -> bool:
    """Return whether GPUs can be used; where there are some, the processor is no stand-in.

    A check that forgot the GPUs must not end as an answer: nothing would be known of them.

    Raises:
        LookupError: they were asked for, or are there, and cannot be used.
        DeviceFaultError: CUDA does not come to an end of its start, which one GPU is enough for.
    """
    if torch is not None and _starts(torch):
        return True
    if asked or any(Path("/dev").glob("nvidia[0-9]*")):
        got = "no torch" if torch is None else "torch without CUDA devices"
        raise LookupError(
            f"CUDA devices must be usable (got {got}); give the pod GPUs and an image with torch"
        )
    return False


def _starts(torch: Any) -> bool:
    """Start CUDA; return whether it has devices."""
    thread = ThreadPoolExecutor(max_workers=1)
    try:
        return bool(thread.submit(torch.cuda.is_available).result(_PATIENCE_S))
    except TimeoutError:
        text = f"CUDA gives no answer for {_PATIENCE_S:g} s as it starts"
        raise DeviceFaultError(text) from None
    finally:
        thread.shutdown(wait=False)


def most_of(device: str, free: int, total: int) -> int:
    """Return how many of a GPU's free bytes the patterns take.

    Raises:
        LookupError: something else holds half of the memory or more.
    """
    if free < total * _LEAST_FREE_SHARE:
        raise LookupError(
            f"{device}: half of its {total >> 20} MiB must be free (got {free >> 20} MiB); "
            "end what holds them, or say by --memory how much to test"
        )
    return int(max(free - _SCRATCH_BYTES, free / 2) * _FREE_SHARE)


def of_the_hardware(text: str) -> bool:
    """Return whether an error of CUDA speaks of the hardware."""
    return any(known in text.lower() for known in _HARDWARE_ERRORS)


@contextmanager
def hardware_faults() -> Iterator[None]:
    """Tell the errors of the hardware from those of the software."""
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if of_the_hardware(text):
            raise DeviceFaultError(text.splitlines()[0]) from error
        raise


class TorchMemory:
    """A tensor of words, handled in pieces so that the words to compare with stay few."""

    def __init__(self, torch: Any, device: str, size_bytes: int) -> None:
        self._torch = torch
        self._device = device
        with hardware_faults():
            self.words = torch.zeros(max(size_bytes // 8, 1), dtype=torch.int64, device=device)
        self.size_bytes: int = self.words.numel() * 8

    def _pieces(self, pattern: Pattern) -> Iterator[tuple[int, Any, Any]]:
        """Yield start, piece and the words that the pattern puts there."""
        for start in range(0, self.words.numel(), _CHUNK_WORDS):
            piece = self.words[start : start + _CHUNK_WORDS]
            index = self._torch.arange(
                start, start + piece.numel(), dtype=self._torch.int64, device=self._device
            )
            yield start, piece, pattern.words(index)

    def write(self, pattern: Pattern) -> None:
        """Fill all of it."""
        with hardware_faults():
            for _, piece, words in self._pieces(pattern):
                piece.copy_(words)

    def check(self, pattern: Pattern) -> Recall:
        """Read all of it and compare."""
        wrong, evidence = 0, ""
        with hardware_faults():
            for start, piece, words in self._pieces(pattern):
                differ = piece != words
                count = int(differ.sum())
                if count and not evidence:
                    at = int(differ.nonzero()[0, 0])
                    bits = (int(piece[at]) ^ int(words[at])) & (2**64 - 1)
                    evidence = f"at byte {(start + at) * 8:#x}, bits {bits:#x}"
                wrong += count
        return Recall(wrong, evidence)


class TorchBackend:
    """Compute with torch, on all CUDA devices or on the processor."""

    def __init__(self, torch: Any, kind: str) -> None:
        self._torch = torch
        self._kind = kind
        self.name = f"torch-{kind}"
        self.patience_s: float | None = _PATIENCE_S if kind == "cuda" else None
        self._lock = threading.Lock()
        self._on_host: dict[tuple[int, int], tuple[Any, Any, Any]] = {}
        self._on_device: dict[tuple[str, int, int], tuple[Any, Any, Any, Any, Any]] = {}
        self._host_words: Any = None
        # Sums that are split over blocks must stay in float32, or they are not exact.
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False

    def devices(self) -> tuple[str, ...]:
        """Return the names of the devices, in order."""
        if self._kind == "cpu":
            return ("cpu",)
        return tuple(f"cuda:{index}" for index in range(self._torch.cuda.device_count()))

    def prepare(self, size: int, seed: int) -> None:
        """Make the matrices of `seed` and their product on the host."""
        self._reference(size, seed)

    def multiply(self, device: str, size: int, seed: int) -> Product:
        """Return how the product of the two matrices of `seed` went, compared bit for bit."""
        torch = self._torch
        with hardware_faults():
            left, right, expected, target, options = self._operands(device, size, seed)
            target.fill_(float("nan"))  # or what is not written is right, from last time
            self._wait(device)
            began = time.perf_counter()
            torch.mm(left, right, out=target, **options)
            self._wait(device)
            elapsed_s = time.perf_counter() - began
            bits = torch.int16 if target.dtype == torch.bfloat16 else torch.int32
            differ = target.view(bits) != expected.view(bits)
            wrong = int(differ.sum())
            first = tuple(differ.nonzero()[0].tolist()) if wrong else ()
        return Product(elapsed_s, wrong, f"first at {first}" if wrong else "")

    def memory(self, device: str, size_bytes: int | None) -> TorchMemory:
        """Take this much memory; by default most of what is free on a GPU, 256 MiB of a host."""
        if size_bytes is None and self._kind == "cpu":
            size_bytes = DEFAULT_MEMORY_BYTES
        if size_bytes is None:
            with hardware_faults():
                self._torch.cuda.empty_cache()  # what the copies have left is free, too
                free, total = self._torch.cuda.mem_get_info(device)
            size_bytes = most_of(device, free, total)
        return TorchMemory(self._torch, device, size_bytes)

    def copy(self, source: str | None, target: str | None, size_bytes: int) -> Copy:
        """Copy known bytes and look at them where they arrived; None is the host."""
        torch = self._torch
        ends = [name for name in (source, target) if name is not None]
        with hardware_faults():
            if source == target:  # nothing of it comes from the host
                known = torch.arange(1, size_bytes // 8 + 1, dtype=torch.int64, device=source)
            else:
                known = self._words_on_host(size_bytes)
            here = known if source is None else known.to(source)
            there = torch.zeros_like(known, device=target or "cpu", pin_memory=self._pins(target))
            for name in ends:
                self._wait(name)
            began = time.perf_counter()
            there.copy_(here, non_blocking=True)
            for name in ends:
                self._wait(name)
            elapsed_s = time.perf_counter() - began
            wrong = int((there != known.to(there.device)).sum())
        return Copy(elapsed_s, wrong * 8)

    def _operands(self, device: str, size: int, seed: int) -> tuple[Any, Any, Any, Any, Any]:
        """Return both matrices, their product, the place for another one, and how to ask for it."""
        torch = self._torch
        key = (device, size, seed)
        if key not in self._on_device:
            options = self._unrounded(device)
            factor = torch.bfloat16 if self._kind == "cuda" else torch.float32
            product = options.get("out_dtype", factor)
            # The copy is the device's own: on the processor it would share the reference's bytes.
            left, right, expected = (
                torch.from_numpy(array).to(device=device, dtype=dtype, copy=True)
                for array, dtype in zip(
                    self._reference(size, seed), (factor, factor, product), strict=True
                )
            )
            target = torch.empty_like(expected)
            self._on_device[key] = (left, right, expected, target, options)
        return self._on_device[key]

    def _unrounded(self, device: str) -> dict[str, Any]:
        """Return what makes mm give the float32 sums of bfloat16 matrices, where it can do so.

        Rounded to bfloat16 they would show nothing of their lower 16 bits.
        """
        torch = self._torch
        if self._kind == "cpu":
            return {}
        options = {"out_dtype": torch.float32}
        one = torch.ones((16, 16), dtype=torch.bfloat16, device=device)
        try:
            torch.mm(one, one, out=one.float(), **options)
        except (TypeError, RuntimeError):  # an older torch; a fault comes again with the next call
            return {}
        return options

    def _reference(self, size: int, seed: int) -> tuple[Any, Any, Any]:
        """Return the matrices and their product, computed once for all devices."""
        with self._lock:
            if (size, seed) not in self._on_host:
                left, right = matrices(size, seed)
                self._on_host = {(size, seed): (left, right, left @ right)}
            return self._on_host[size, seed]

    def _words_on_host(self, size_bytes: int) -> Any:
        torch = self._torch
        if self._host_words is None or self._host_words.numel() != size_bytes // 8:
            index = torch.arange(size_bytes // 8, dtype=torch.int64)
            words = Pattern(Filling.RANDOM).words(index)
            self._host_words = words.pin_memory() if self._pins(None) else words
        return self._host_words

    def _pins(self, target: str | None) -> bool:
        """Return whether a buffer is pinned: those of the host are, where a GPU reads them."""
        return target is None and self._kind == "cuda"

    def _wait(self, device: str) -> None:
        if self._kind == "cuda":
            self._torch.cuda.synchronize(device)
