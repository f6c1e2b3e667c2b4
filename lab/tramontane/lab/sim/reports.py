"""Write what a blade's agent would report of a machine."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from tramontane.api import clock
from tramontane.api.blade import (
    AgentInfo,
    Checks,
    Fault,
    GpuInventory,
    Report,
    Severity,
)
from tramontane.lab.fleet import Layout
from tramontane.lab.sim.iron import Machine

_MEMORY = "141Gi"


def of(machine: Machine, layout: Layout, now: float) -> Report:
    """Return the report of a machine that has changed at `now` (Unix s)."""
    fault = machine.fault
    seen: tuple[Fault, ...] = ()
    if fault is not None and fault.kind.code:
        seen = (
            Fault(
                code=fault.kind.code,
                check=fault.kind.code.partition("-")[0],
                gpu=int(fault.draw * layout.gpus),
                severity=Severity.FATAL,
                action=fault.kind.action,
                first_seen=clock.micro(machine.since_s),
                last_seen=clock.micro(machine.since_s),
                boot_id=machine.boot_id,
            ),
        )
    return Report(
        agent=AgentInfo(
            version="sim", boot_id=machine.boot_id, driver="580.95.05", time=clock.utc(now)
        ),
        gpus=_gpus(layout.gpus, layout.product),
        faults=seen,
        checks=Checks(run=41),
    )


def differs(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Return whether a report says something else; when it was written is nothing."""
    parts = ("faults", "gpus")
    boots = old["agent"].get("bootID") != new["agent"].get("bootID")
    return boots or any(list(old.get(part, ())) != list(new.get(part, ())) for part in parts)


@lru_cache(maxsize=8)
def _gpus(count: int, product: str) -> tuple[GpuInventory, ...]:
    return tuple(
        GpuInventory(index=index, product=product, memory=_MEMORY) for index in range(count)
    )
