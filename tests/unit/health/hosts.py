"""Hosts for the tests: a small sysfs in a folder, and readings of it."""

from pathlib import Path

from tramontane.health.host import Port

NOW = 1_790_000_000.0
_COUNTERS = {
    "excessive_buffer_overrun_errors": 0,
    "link_downed": 0,
    "link_error_recovery": 0,
    "local_link_integrity_errors": 0,
    "port_rcv_errors": 0,
    "rnr_nak_retry_err": 0,
    "symbol_error": 0,
}


def counters(**values: int) -> tuple[tuple[str, int], ...]:
    return tuple(sorted({**_COUNTERS, **values}.items()))


def port(
    device: str = "mlx5_0", state: str = "ACTIVE", rate_gbps: int = 400, **counts: int
) -> Port:
    phys_state = "LinkUp" if state == "ACTIVE" else "Polling"
    return Port(device, 1, "InfiniBand", state, phys_state, rate_gbps, counters(**counts))


def add_port(
    root: Path,
    device: str,
    *,
    link_layer: str = "InfiniBand",
    rate: str = "400 Gb/sec (4X NDR)",
    carriers: int | None = None,
) -> None:
    folder = root / f"class/infiniband/{device}/ports/1"
    for name, values in (("counters", _COUNTERS), ("hw_counters", {"rnr_nak_retry_err": 0})):
        (folder / name).mkdir(parents=True)
        for counter, value in values.items():
            if name == "hw_counters" or counter != "rnr_nak_retry_err":
                (folder / name / counter).write_text(f"{value}\n")
    (folder / "link_layer").write_text(link_layer + "\n")
    (folder / "state").write_text("4: ACTIVE\n")
    (folder / "phys_state").write_text("5: LinkUp\n")
    (folder / "rate").write_text(rate + "\n")
    if carriers is not None:
        network = root / f"class/infiniband/{device}/device/net/eth0"
        network.mkdir(parents=True)
        (network / "carrier_changes").write_text(f"{carriers}\n")


def machine(root: Path, *, ports: int = 1, drives: int = 1, gpus: int = 1) -> None:
    """Make a whole blade; sysfs and procfs are one folder."""
    for number in range(ports):
        add_port(root, f"mlx5_{number}")
    for number in range(drives):
        drive = root / f"class/nvme/nvme{number}"
        drive.mkdir(parents=True)
        (drive / "state").write_text("live\n")
    clock = root / "devices/system/clocksource/clocksource0"
    clock.mkdir(parents=True)
    (clock / "current_clocksource").write_text("tsc\n")
    for number in range(gpus):
        gpu = root / f"bus/pci/devices/0000:{number:02x}:00.0"
        gpu.mkdir(parents=True)
        (gpu / "vendor").write_text("0x10de\n")
        (gpu / "class").write_text("0x030200\n")
    (root / "meminfo").write_text(f"MemTotal: {(2 << 40) // 1024} kB\nMemFree: 3 kB\n")
