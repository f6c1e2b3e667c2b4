"""Read what the NVIDIA driver says in the kernel log: XIDs of GPUs, SXIDs of NVSwitches.

NVML pushes the number of an XID and no more. Which unit it struck, how bad it is, and what the
driver wants done stand in the log line alone:

| code          | in the line                                      | read as                     |
|---------------|--------------------------------------------------|-----------------------------|
| 13            | `(GPC 2, TPC 1, SM 0)`                           | unit                        |
| 31            | `ENGINE CE0 HUBCLIENT_HOST`, `FAULT_PTE`         | unit, sub-code              |
| 48, 171, 172  | partition or FBPA                                | unit                        |
| 63, 64        | address of the row                               | unit                        |
| 74            | `link 14(0x0, …)`, seven registers               | see nvlink_codes            |
| 94, 95        | what was (not) contained; `RST: Yes`             | unit; the driver wants Reset|
| 144-150       | `NETIR_LINK_EVT Fatal XC0 i0 Link 09 (0x… 0x…)`  | see nvlink_codes            |
| 154           | `changed from 0x0 (None) to 0x2 (Node Reboot …)` | wanted, as NVML field 230   |
| SXID          | `Fatal` or `Non-fatal`, `Link 28`                | severity, unit              |

Pure; one line costs some microseconds, so whoever reads the log filters first (kmsg.py).
Source: NVIDIA's XID catalogue and its "XID 144-150 decode"; formats as in the open kernel
modules and in logs that users have published.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from tramontane.api.blade import Action
from tramontane.health import nvlink_codes

_XID = re.compile(
    r"NVRM: Xid \((?:PCI:)?(?P<pci>[0-9a-fA-F:.]+)(?: GPU-I:\w+)?\): (?P<code>\d+)"
    r"(?:, pid=[^,]*)?(?:, name=[^,]*)?(?:, )?(?P<rest>.*)"
)
_SXID = re.compile(
    r"nvidia-nvswitch\d+: SXid \(PCI:(?P<pci>[0-9a-fA-F:.]+)\): (?P<code>\d+), (?P<rest>.*)"
)
_IDENTITY = re.compile(r"NVRM: GPU at PCI:(?P<pci>[0-9a-fA-F:.]+): (?P<uuid>GPU-[0-9a-fA-F-]{36})")

_TPC = re.compile(r"\(GPC (\d+), TPC (\d+)")
_MMU = re.compile(r"ENGINE (\w+ \w+)")
_FAULT = re.compile(r"(FAULT_\w+)")
_PARTITION = re.compile(r"(?:partition|FBPA) (\d+),? subpartition (\d+)")
_ROW = re.compile(r"\((0x[0-9a-fA-F]+)\)")
_CONTAINED = re.compile(r"(?:Unc|C)ontained: (.*?)\. RST: (Yes|No), D-RST: (Yes|No)")
_RECOVERY = re.compile(r"changed from \S+ \(.*?\) to (0x[0-9a-fA-F]+) \((.*?)\)")
_LINK = re.compile(r"\bLink (\d+)", re.IGNORECASE)
_SXID_SEVERITY = re.compile(r"(Non-fatal|Nonfatal|Fatal)\b", re.IGNORECASE)
# Dumps of registers that follow an SXID under its number.
_SXID_MORE = ("Severity ", "Data {")

# What the driver wants, as NVML field 230 numbers it; 5 (IMEX domain) is no matter of one blade.
# Source: health.md check 1; NVIDIA's XID catalogue, XID_154.
_WANTED = {
    0: Action.NONE,
    1: Action.RESET,
    2: Action.REBOOT,
    3: Action.DRAIN,
    4: Action.RESET,
    5: Action.INSPECT,
    6: Action.REBOOT,
    7: Action.REBOOT,
}
# SXIDs that nothing but a restart of the host ends, whichever link they are on.
# Source: NVIDIA Fabric Manager User Guide, table of always-fatal errors.
_ALWAYS_FATAL = frozenset({12020, 22003, 22011, *range(23001, 23018)})
# A non-fatal SXID after which GPUs and switches must be reset all the same.
# Source: NVIDIA Fabric Manager User Guide, non-fatal errors (19084, AN1 heartbeat timeout).
_RESET_ANYWAY = frozenset({19084})


@dataclass(frozen=True, slots=True)
class KernelLine:
    """What one line says.

    Attributes:
        code: the XID, or the SXID where `switch` is true.
        pci: address as the line has it, e.g. `0000:1b:00`.
        unit: part of the GPU or switch, e.g. `GPC 2, TPC 1`; empty where the line names none.
        subcode: what kind of the error it is, e.g. `NETIR_LINK_DOWN.4`.
        fatal: None where the line does not say.
        wanted: what the line asks for; None leaves it to the catalogue.
        text: the line, without what comes before the driver's own words.
    """

    code: int
    pci: str
    text: str
    switch: bool = False
    unit: str = ""
    subcode: str = ""
    fatal: bool | None = None
    wanted: Action | None = None


def parse(text: str) -> KernelLine | None:
    """Return what a line of the kernel log says of a GPU or switch, or None."""
    if found := _XID.search(text):
        code, rest = int(found["code"]), found["rest"]
        details = _DETAILS.get(code, _plain)(rest)
        return KernelLine(
            code,
            found["pci"],
            found[0],
            unit=details.unit,
            subcode=details.subcode,
            fatal=details.fatal,
            wanted=details.wanted,
        )
    if found := _SXID.search(text):
        return _switch(found)
    return None


def identity(text: str) -> tuple[str, str] | None:
    """Return PCI address and UUID from the line that the driver writes before a GPU's XIDs."""
    found = _IDENTITY.search(text)
    return (found["pci"], found["uuid"]) if found else None


def slot(pci: str) -> str:
    """Return an address in one form, `0:1b:0`, whether NVML or the kernel wrote it; "" if none.

    `00000000:1B:00.0` and `0000:1b:00` are the same device.
    """
    try:
        return ":".join(f"{int(part, 16):x}" for part in pci.partition(".")[0].split(":"))
    except ValueError:
        return ""


def _switch(found: re.Match[str]) -> KernelLine | None:
    code, rest = int(found["code"]), found["rest"]
    if rest.startswith(_SXID_MORE):
        return None
    said = _SXID_SEVERITY.match(rest)
    fatal = None if said is None else said[1].lower() == "fatal"
    link = _LINK.search(rest)
    wanted: Action | None = None
    if code in _ALWAYS_FATAL:
        wanted = Action.REBOOT
    elif fatal or code in _RESET_ANYWAY:
        wanted = Action.RESET
    elif fatal is False:
        wanted = Action.NONE
    unit = "" if link is None else f"link {int(link[1])}"
    return KernelLine(code, found["pci"], found[0], True, unit, "", fatal, wanted)


def _plain(_rest: str) -> nvlink_codes.Details:
    return nvlink_codes.Details()


def _exception(rest: str) -> nvlink_codes.Details:
    found = _TPC.search(rest)
    return nvlink_codes.Details(f"GPC {found[1]}, TPC {found[2]}" if found else "")


def _mmu_fault(rest: str) -> nvlink_codes.Details:
    engine, kind = _MMU.search(rest), _FAULT.search(rest)
    return nvlink_codes.Details(engine[1] if engine else "", kind[1] if kind else "")


def _memory(rest: str) -> nvlink_codes.Details:
    found = _PARTITION.search(rest)
    unit = f"partition {found[1]}, subpartition {found[2]}" if found else ""
    return nvlink_codes.Details(unit)


def _row(rest: str) -> nvlink_codes.Details:
    found = _ROW.search(rest)
    return nvlink_codes.Details(f"row {found[1]}" if found else "")


def _containment(rest: str) -> nvlink_codes.Details:
    found = _CONTAINED.search(rest)
    if found is None:
        return nvlink_codes.Details()
    wanted = Action.RESET if "Yes" in (found[2], found[3]) else None
    return nvlink_codes.Details(found[1], wanted=wanted)


def _recovery(rest: str) -> nvlink_codes.Details:
    found = _RECOVERY.search(rest)
    if found is None:
        return nvlink_codes.Details()
    number = int(found[1], 16)
    # An action that a newer driver has added is one all the same: a person must look.
    wanted = _WANTED.get(number, Action.INSPECT)
    return nvlink_codes.Details(subcode=found[2], fatal=number != 0, wanted=wanted)


_DETAILS: dict[int, Callable[[str], nvlink_codes.Details]] = {
    13: _exception,
    31: _mmu_fault,
    48: _memory,
    63: _row,
    64: _row,
    74: nvlink_codes.link_error,
    94: _containment,
    95: _containment,
    **dict.fromkeys(range(144, 151), nvlink_codes.nvlink5_error),
    154: _recovery,
    171: _memory,
    172: _memory,
}
