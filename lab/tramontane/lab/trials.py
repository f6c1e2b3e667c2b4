"""What a test or a repair on simulated blades finds: pure, from their faults to a verdict.

A verdict is written as the real checks write it, and follows from the faults alone:

| work       | blade has                       | exit code | says                                 |
|------------|---------------------------------|-----------|--------------------------------------|
| any        | what ranks die of               | 2 ERROR   | the checker broke                    |
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
from tramontane.health.burnin.outcome import Outcome, Verdict
from tramontane.lab.faults import KINDS, Fault, trouble_of

GOOD_MEMORY_GBPS = 4_020.0
_SLOW_MEMORY_GBPS = 1_912.0
GOOD_BUS_GBPS = 341.5
_SLOW_BUS_GBPS = 41.7
_SPREAD = 0.02
_UNIT = "GB/s"

# The names by which the real checks call themselves.
_CHECKS = {Work.BURN_IN: "burnin", Work.COLLECTIVE: "collective"}


def burn_in(blade: str, faults: Iterable[Fault]) -> Outcome:
    """Return what a burn-in of one blade finds."""
    known = tuple(faults)
    if trouble := _trouble(known):
        return Outcome(_CHECKS[Work.BURN_IN], Verdict.ERROR, trouble)
    if bad := _failing(known, Work.BURN_IN):
        value = _about(_SLOW_MEMORY_GBPS, blade)
        reason = f"GPU {bad.gpu}: {value:.0f} {_UNIT}, the others {GOOD_MEMORY_GBPS:.0f}"
        return Outcome(_CHECKS[Work.BURN_IN], Verdict.FAIL, reason, value, _UNIT)
    value = _about(GOOD_MEMORY_GBPS, blade)
    return Outcome(
        _CHECKS[Work.BURN_IN], Verdict.PASS, "memory and products as expected", value, _UNIT
    )


def collective(group: str, faults: Mapping[str, Iterable[Fault]]) -> Outcome:
    """Return what a collective test finds, the same on each blade of the group."""
    known = {blade: tuple(all_) for blade, all_ in faults.items()}
    check = _CHECKS[Work.COLLECTIVE]
    for blade, all_ in sorted(known.items()):
        if trouble := _trouble(all_):
            return Outcome(check, Verdict.ERROR, f"{blade}: {trouble}")
    bad = any(_failing(all_, Work.COLLECTIVE) for all_ in known.values())
    value = _about(_SLOW_BUS_GBPS if bad else GOOD_BUS_GBPS, group)
    reason = f"all_reduce over {len(known)} blades: bus bandwidth {value:.1f} {_UNIT}"
    return Outcome(check, Verdict.FAIL if bad else Verdict.PASS, reason, value, _UNIT)


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


def _trouble(faults: Iterable[Fault]) -> str:
    return next(filter(None, map(trouble_of, faults)), "")


def _failing(faults: Iterable[Fault], work: Work) -> Fault | None:
    return next((one for one in faults if KINDS[one.kind].fails is work), None)


def share(name: str) -> float:
    """Return a number from 0 to 1, always the same for a name."""
    return zlib.crc32(name.encode()) / 0xFFFFFFFF


def _about(value: float, name: str) -> float:
    """Return nearly the value: real figures differ a little."""
    return value * (1 + _SPREAD * (share(name) - 0.5))
