"""Say what a blade's iron is, how long things take in a hall, and who mends what."""

import math
from dataclasses import dataclass

from tramontane.api.blade import Action
from tramontane.lab.sim.faults import Fault


@dataclass(frozen=True, slots=True)
class Times:
    """How long things take, in seconds.

    Sources (health.md, section 4): a reset within NCSA Delta's 5 min, back after a reboot within
    MegaScale's 15 min, repaired by people in Delta's 2.2 h. `rma_s` is an assumption: nobody
    publishes how long new parts take.
    """

    detect_s: float = 1.0
    start_s: float = 2.0
    stop_s: float = 0.5
    heartbeat_s: float = 30.0
    node_grace_s: float = 40.0
    reset_s: float = 300.0
    reboot_s: float = 900.0
    repair_s: float = 7920.0
    rma_s: float = 5 * 86400.0


@dataclass(slots=True)
class Machine:
    """One blade's iron: its power, its boot, what is wrong with it."""

    name: str
    powered: bool = True
    boot: int = 1
    fault: Fault | None = None
    since_s: float = 0.0

    @property
    def boot_id(self) -> str:
        """Return the boot ID that kernel and agent show."""
        return f"{self.name}-boot-{self.boot}"

    @property
    def kills(self) -> bool:
        """Return whether ranks on it are dead."""
        return not self.powered or self.fault is not None

    def mend(self, *, boots: bool) -> None:
        """Let a reset, or a reboot, end what it can end."""
        fault = self.fault
        ends = boots or (fault is not None and fault.kind.action is Action.RESET)
        if fault is not None and not fault.needs_parts and ends:
            self.fault = None
        self.boot += boots

    def renew(self) -> None:
        """Let new parts be in: nothing is wrong with it, and it has booted."""
        self.powered, self.fault = True, None
        self.boot += 1


def spread_s(fault: Fault, mean_s: float) -> float:
    """Return what this repair takes: exponentially distributed, drawn with the fault."""
    return -math.log(1 - fault.draw) * mean_s
