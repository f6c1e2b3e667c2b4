"""Burn a blade in: `python -m tramontane.health.burnin`. See the package and outcome.py."""

import argparse
import os
import re
from collections.abc import Sequence
from pathlib import Path

from tramontane.health.burnin.arguments import Parser, UsageError, mebibytes, positive, seconds
from tramontane.health.burnin.backend import Backend, DeviceFaultError, largest_entry
from tramontane.health.burnin.judge import CHECK, Thresholds, judge
from tramontane.health.burnin.numpy_backend import NumpyBackend
from tramontane.health.burnin.outcome import TERMINATION_LOG, Outcome, Speaker, Verdict
from tramontane.health.burnin.run import Burner, Settings
from tramontane.health.burnin.torch_backend import TorchBackend, find_torch, has_cuda

BACKENDS = ("auto", "cuda", "torch-cpu", "numpy")
_GPU_SIZE = 8192
_CPU_SIZE = 1024
# Far more than a GPU's cache: what is read comes from memory, and what is written goes there.
# Source: NVIDIA, architecture white papers: L2 of 50 MB (H100, H200) and 126 MB (B200).
_GPU_MEMORY_COPY = 1 << 30


def matrix_size(text: str) -> int:
    """Return rows of a matrix."""
    try:
        size = int(text)
        largest_entry(size)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return size


def devices(text: str) -> tuple[int, ...] | None:
    """Return the indexes of `0,2,4-7`, or None for `all`."""
    if text == "all":
        return None
    found: list[int] = []
    for part in text.split(","):
        if (match := re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip())) is None:
            raise argparse.ArgumentTypeError(f"must be all or such as 0,2,4-7 (got {text!r})")
        found += range(int(match[1]), int(match[2] or match[1]) + 1)
    return tuple(dict.fromkeys(found))


def parser() -> Parser:
    """Return the command line."""
    line = Parser(prog="python -m tramontane.health.burnin", description=__doc__)
    option = line.add_argument
    option("--backend", choices=BACKENDS, default="auto", help="what computes [%(default)s]")
    option("--devices", type=devices, default="all", help="all, or such as 0,2,4-7 [%(default)s]")
    option("--duration", type=seconds, default="60s", help="such as 90s or 30m [%(default)s]")
    option("--size", type=matrix_size, help=f"rows of a matrix [GPU {_GPU_SIZE}, CPU {_CPU_SIZE}]")
    option("--seed", type=int, default=1, help="seed of the matrices [%(default)s]")
    option("--memory", type=mebibytes, help="MiB for patterns [GPU: most of it, CPU: 256]")
    option("--copy", type=mebibytes, default="256", help="MiB per copy [%(default)s]")
    option("--min-tflops", type=positive, help="least compute rate of each device")
    option("--min-memory-bandwidth", type=positive, help="least GB/s of each device's own memory")
    option("--min-host-bandwidth", type=positive, help="least GB/s host to device and back")
    option("--min-device-bandwidth", type=positive, help="least GB/s from device to device")
    option("--termination-log", type=Path, default=TERMINATION_LOG, help="[%(default)s]")
    return line


def find_backend(name: str) -> Backend:
    """Return the backend; `auto` takes the processor only where there is no NVIDIA device.

    Raises:
        LookupError: what it needs is not there.
        DeviceFaultError: CUDA hangs as it starts.
    """
    if name == "numpy":
        return NumpyBackend()
    torch = find_torch()
    if name == "torch-cpu" and torch is None:
        raise LookupError("torch must be installed (got none); or use --backend numpy")
    if name != "torch-cpu" and has_cuda(torch, asked=name == "cuda"):
        return TorchBackend(torch, "cuda")
    return NumpyBackend() if torch is None else TorchBackend(torch, "cpu")


def work(arguments: Sequence[str], speaker: Speaker) -> Outcome:
    """Read the command line, burn and judge."""
    try:
        options = parser().parse_args(arguments)
    except UsageError as error:
        return speaker.error(str(error), usage="--help tells the options")
    speaker.termination_log = options.termination_log
    try:
        backend = find_backend(options.backend)
    except DeviceFaultError as error:
        return Outcome(CHECK, Verdict.FAIL, str(error))
    on_gpus = backend.name == "torch-cuda"
    settings = Settings(
        duration_s=options.duration,
        size=options.size or (_GPU_SIZE if on_gpus else _CPU_SIZE),
        seed=options.seed,
        memory_bytes=options.memory,
        copy_bytes=options.copy,
        memory_copy_bytes=max(options.copy, _GPU_MEMORY_COPY if on_gpus else 0),
        devices=options.devices,
    )
    thresholds = Thresholds(
        memory_gbps=options.min_memory_bandwidth,
        host_gbps=options.min_host_bandwidth,
        device_gbps=options.min_device_bandwidth,
        tflops=options.min_tflops,
    )
    speaker.note(f"{os.environ.get('TRAMONTANE_BLADE', 'this machine')}: {backend.name}")
    runs = Burner(backend, settings, speaker.note).run()
    return judge(runs, thresholds, settings, backend.name)
