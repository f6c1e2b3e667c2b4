"""Measure an all-reduce: `python -m tramontane.health.collective`; see the package."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tramontane.health.burnin.arguments import (
    Parser,
    UsageError,
    count,
    mebibytes,
    positive,
    seconds,
)
from tramontane.health.burnin.outcome import TERMINATION_LOG, Outcome, Speaker
from tramontane.health.burnin.torch_backend import find_torch, has_cuda
from tramontane.health.collective import ring
from tramontane.health.collective.group import Group, Member, member_from
from tramontane.health.collective.launch import launch
from tramontane.health.collective.measure import Settings, measure
from tramontane.health.collective.torch_group import TorchGroup, log_apart

BACKENDS = ("auto", "nccl", "gloo", "ring")
# Large enough to be bound by bandwidth, not latency.
# Source: health.md, row 42: 16 GB by Azure within a blade, 4 GB by NVSentinel between blades.
_GPU_BYTES = 4 << 30
_CPU_BYTES = 64 << 20


def parser() -> Parser:
    """Return the command line."""
    line = Parser(prog="python -m tramontane.health.collective", description=__doc__)
    option = line.add_argument
    option("--backend", choices=BACKENDS, default="auto", help="what sums [%(default)s]")
    option("--size", type=mebibytes, help="MiB per rank [GPU 4096, CPU 64]")
    option("--repeats", type=count, default="20", help="sums that are timed [%(default)s]")
    option("--min-bandwidth", type=positive, help="least bus bandwidth in GB/s")
    option("--timeout", type=seconds, default="5m", help="wait for a peer [%(default)s]")
    option("--procs-per-blade", type=count, help="ranks per blade [nccl: one per GPU, else 1]")
    option("--termination-log", type=Path, default=TERMINATION_LOG, help="[%(default)s]")
    return line


def find_kind(name: str) -> tuple[str, Any]:
    """Return what sums, and torch where that does.

    Raises:
        LookupError: what it needs is not there.
    """
    if name == "ring":
        return name, None
    torch = find_torch()
    if name == "gloo" and torch is None:
        raise LookupError("torch must be installed (got none); or use --backend ring")
    if name != "gloo" and has_cuda(torch, asked=name == "nccl"):
        return "nccl", torch
    return ("ring", None) if torch is None else ("gloo", torch)


def meet(kind: str, torch: Any, member: Member, timeout_s: float) -> Group:
    """Return the group once all are there."""
    if kind == "ring":
        return ring.form(member, timeout_s)
    device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if kind == "nccl" else "cpu"
    return TorchGroup(torch, member, kind, device, timeout_s)


def work(arguments: Sequence[str], speaker: Speaker) -> Outcome:
    """Read the command line, meet the others, measure and judge."""
    try:
        options = parser().parse_args(arguments)
        member = member_from(os.environ)
    except (UsageError, LookupError, ValueError) as error:
        return speaker.error(str(error), usage="--help tells the options")
    speaker.termination_log = options.termination_log
    kind, torch = find_kind(options.backend)
    log_apart(os.environ)
    processes = options.procs_per_blade or (torch.cuda.device_count() if kind == "nccl" else 1)
    if processes > 1:
        return launch(arguments, member, processes, speaker, options.timeout)
    settings = Settings(
        size_bytes=options.size or (_GPU_BYTES if kind == "nccl" else _CPU_BYTES),
        repeats=options.repeats,
        min_gbps=options.min_bandwidth,
    )
    speaker.note(f"rank {member.rank} of {member.size}, {kind}: waiting for the others")
    group = meet(kind, torch, member, options.timeout)
    try:
        return measure(group, settings, speaker.note)
    finally:
        group.close()
