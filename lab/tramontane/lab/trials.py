"""What a test or a repair on simulated blades finds: pure, from their faults to a verdict.

What a burn-in or a collective test measures follows from the faults alone; the real checks' own
judges make the verdict of it, as if the pool asked for what docs/qualification.md has:

| work       | blade has                       | exit code | says                                 |
|------------|---------------------------------|-----------|--------------------------------------|
| burnIn     | an ECC error that ranks die of  | 1 FAIL    | that the device reports it           |
| any        | what else ranks die of          | 2 ERROR   | the checker broke                    |
| burnIn     | slow-memory, pcie-width         | 1 FAIL    | what is slow                         |
| collective | bad-link, nvlink-down, any of   | 1 FAIL    | the bandwidth of the whole group     |
|            | the group's blades              |           |                                      |
| reset      | a GPU that does not hear it     | 1 FAIL    | which (hall.reset)                   |
| any        | anything else                   | 0 PASS    | what was measured                    |

One of a group that breaks takes the group along: nobody can tell who of them was to blame.
"""

import zlib
from collections.abc import Iterable, Mapping
from typing import Any

from tramontane.api.names import Work
from tramontane.health.burnin import judge as burn
from tramontane.health.burnin.backend import product_flops
from tramontane.health.burnin.outcome import Outcome, Verdict
from tramontane.health.burnin.run import DeviceRun, Settings
from tramontane.health.burnin.torch_backend import of_the_hardware
from tramontane.health.collective import measure
from tramontane.health.collective.group import Member
from tramontane.lab.faults import KINDS, Fault, trouble_of

GPUS = 8
GOOD_TFLOPS = 640.0
_GOOD_MEMORY_GBPS, _SLOW_MEMORY_GBPS = 4_020.0, 1_912.0
_GOOD_HOST_GBPS, _NARROW_HOST_GBPS = 55.2, 27.4
_NEXT_GBPS = 390.0
_GOOD_BUS_GBPS, _SLOW_BUS_GBPS = 341.5, 41.7
_SPREAD = 0.02
_ASKED = burn.Thresholds(host_gbps=48, memory_gbps=3_600, tflops=500)
_ASKED_OF_GROUPS = measure.Settings(size_bytes=4 << 30, min_gbps=300)
# A burn-in of half an hour: three quarters of it are products.
_BURN_IN = Settings(duration_s=1800)
_BUSY_S = 1350.0
_PATTERNS = 520
_MEMORY_BYTES = 131 << 30


def burn_in(blade: str, faults: Iterable[Fault]) -> Outcome:
    """Return what a burn-in of one blade finds."""
    known = tuple(faults)
    bad = [one for one in known if KINDS[one.kind].fails is Work.BURN_IN]
    runs = [_run(blade, gpu, bad) for gpu in range(max(GPUS, *(one.gpu + 1 for one in known), 0))]
    for fault in known:
        if of_the_hardware(trouble := trouble_of(fault)):
            runs[fault.gpu].wrong.append(f"the device reports: {trouble}")
        elif trouble:
            return _broke(burn.CHECK, trouble)
    return burn.judge(runs, _ASKED, _BURN_IN, "torch-cuda")


def _run(blade: str, gpu: int, faults: Iterable[Fault]) -> DeviceRun:
    """Return what one GPU gives."""
    has = {one.kind for one in faults if one.gpu == gpu}
    flops = _about(GOOD_TFLOPS, f"{blade}/{gpu}") * 1e12 * _BUSY_S
    memory_gbps = _SLOW_MEMORY_GBPS if "slow-memory" in has else _GOOD_MEMORY_GBPS
    host_gbps = _NARROW_HOST_GBPS if "pcie-width" in has else _GOOD_HOST_GBPS
    return DeviceRun(
        device=f"cuda:{gpu}",
        products=int(flops / product_flops(_BURN_IN.size)),
        flops=flops,
        busy_s=_BUSY_S,
        memory_bytes=_MEMORY_BYTES,
        patterns=_PATTERNS,
        memory_gbps=_about(memory_gbps, f"{blade}/{gpu} memory"),
        to_device_gbps=_about(host_gbps, f"{blade}/{gpu} to"),
        to_host_gbps=_about(host_gbps, f"{blade}/{gpu} from"),
        to_next_gbps=_about(_NEXT_GBPS, f"{blade}/{gpu} next"),
    )


def collective(group: str, faults: Mapping[str, Iterable[Fault]]) -> Outcome:
    """Return what a collective test finds, the same on each blade of the group."""
    known = {blade: tuple(all_) for blade, all_ in faults.items()}
    for blade, all_ in sorted(known.items()):
        if trouble := next(filter(None, map(trouble_of, all_)), ""):
            return _broke(measure.CHECK, f"{blade}: {trouble}")
    bad = any(KINDS[one.kind].fails is Work.COLLECTIVE for all_ in known.values() for one in all_)
    ranks = len(known) * GPUS
    gbps = _about(_SLOW_BUS_GBPS if bad else _GOOD_BUS_GBPS, group)
    time_s = measure.bus_gbps(ranks, _ASKED_OF_GROUPS.size_bytes, 1.0) / gbps
    member = Member(0, ranks, "", 0, name=group)
    return measure.judge(
        "torch-nccl", member, _ASKED_OF_GROUPS, time_s=time_s, slowest=0, wrong_by_rank=[0] * ranks
    )


def repair(kind: Work, problem: str) -> Outcome:
    """Return what a repair says; `problem` is why it could not be done."""
    if problem:
        return Outcome(kind.value, Verdict.FAIL, problem)
    return Outcome(kind.value, Verdict.PASS, f"{kind.value} done")


def ended(containers: Iterable[Mapping[str, Any]], outcome: Outcome, now: str) -> dict[str, Any]:
    """Return the status that a kubelet writes when a pod ends so; all its containers do.

    `containers` are those of `status.containerStatuses` while the pod ran.
    """
    code = outcome.exit_code
    return {
        "phase": "Failed" if code else "Succeeded",
        "containerStatuses": [
            {
                **one,
                "ready": False,
                "started": False,
                "state": {
                    "terminated": {
                        "exitCode": code,
                        "reason": "Error" if code else "Completed",
                        "message": outcome.line(),
                        "startedAt": _started(one) or now,
                        "finishedAt": now,
                    }
                },
            }
            for one in containers
        ],
    }


def _started(container: Mapping[str, Any]) -> str | None:
    running: Mapping[str, Any] = (container.get("state") or {}).get("running") or {}
    return running.get("startedAt")


def _broke(check: str, trouble: str) -> Outcome:
    return Outcome(check, Verdict.ERROR, f"RuntimeError: {trouble}")


def share(name: str) -> float:
    """Return a number from 0 to 1, always the same for a name."""
    return zlib.crc32(name.encode()) / 0xFFFFFFFF


def _about(value: float, name: str) -> float:
    """Return nearly the value: real figures differ a little."""
    return value * (1 + _SPREAD * (share(name) - 0.5))
