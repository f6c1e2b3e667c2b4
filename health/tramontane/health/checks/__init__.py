"""Judge a reading: one file per check, each a pure function with its threshold's source.

`run` is what the agent calls. Add a check by adding its file and naming it in `CHECKS`.
"""

from collections.abc import Mapping

from tramontane.health.checks import (
    bank_remap,
    clock_events,
    clocksource,
    count,
    ecc_aggregate,
    ecc_errors,
    ecc_mode,
    ecc_rate,
    fabric,
    firmware,
    gpu_repair,
    host,
    idle,
    infiniband_counters,
    infiniband_flaps,
    infiniband_rate,
    infiniband_state,
    inforom,
    inventory,
    lost,
    memory_size,
    mig,
    nvlink_errors,
    nvlink_state,
    nvme,
    pci_count,
    pcie_generation,
    pcie_replay,
    pcie_width,
    persistence,
    power,
    recovery_action,
    retired_pages,
    row_remap,
    row_spares,
    session,
    sram,
    sxid,
    thermal,
    xid,
)
from tramontane.health.checks.base import Check, Finding, Outcome, Past
from tramontane.health.device import Reading

CHECKS: tuple[Check, ...] = (
    # The library, and whether all GPUs are there.
    session.CHECK,
    count.CHECK,
    lost.CHECK,
    inventory.CHECK,
    firmware.CHECK,
    recovery_action.CHECK,
    xid.CHECK,
    sxid.CHECK,
    # Memory.
    row_remap.CHECK,
    row_spares.CHECK,
    retired_pages.CHECK,
    bank_remap.CHECK,
    gpu_repair.CHECK,
    ecc_mode.CHECK,
    ecc_errors.CHECK,
    ecc_aggregate.CHECK,
    ecc_rate.CHECK,
    sram.CHECK,
    # Links.
    nvlink_state.CHECK,
    nvlink_errors.CHECK,
    fabric.CHECK,
    pcie_width.CHECK,
    pcie_generation.CHECK,
    pcie_replay.CHECK,
    # Running conditions, setup and use.
    clock_events.CHECK,
    thermal.CHECK,
    power.CHECK,
    inforom.CHECK,
    persistence.CHECK,
    mig.CHECK,
    idle.CHECK,
    # The host.
    infiniband_state.CHECK,
    infiniband_rate.CHECK,
    infiniband_flaps.CHECK,
    infiniband_counters.CHECK,
    nvme.CHECK,
    memory_size.CHECK,
    clocksource.CHECK,
    pci_count.CHECK,
)
NAMES = frozenset(check.name for check in CHECKS)
# Checks that have something to look at without a session: the kernel's word.
WITHOUT_SESSION = frozenset({session.NAME, xid.NAME, sxid.NAME}) | host.NAMES

# What a check says that could not look at the blade at all.
BLIND = Outcome(blind=frozenset({None}), unknown=True)

__all__ = [
    "BLIND",
    "CHECKS",
    "NAMES",
    "WITHOUT_SESSION",
    "Check",
    "Finding",
    "Outcome",
    "Past",
    "run",
]


def run(
    reading: Reading, past: Past, disabled: frozenset[str] = frozenset()
) -> Mapping[str, Outcome]:
    """Return the outcome of every check that is switched on.

    Without a session with NVML, all checks are blind that look through it.
    """
    outcomes = {}
    for check in CHECKS:
        if check.name in disabled:
            continue
        if reading.session_error and check.name not in WITHOUT_SESSION:
            outcomes[check.name] = BLIND
        else:
            outcomes[check.name] = check.judge(reading, past)
    return outcomes
