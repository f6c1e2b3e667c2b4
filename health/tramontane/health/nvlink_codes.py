"""Decode the NVLink errors of the kernel log: the registers of XID 74, the words of 144-150.

The numbers are NVIDIA's, the reading is ours:

| XID 74, bits of           | mean                       | fatal | wanted          |
|---------------------------|----------------------------|-------|-----------------|
| REG0 0, 23, 30            | nothing                    | no    | None            |
| REG4 20, 23, 26, 29       | many corrected errors      | no    | None            |
| REG0 8, 9, 12, 16, 17, …  | the connection, its signal | yes   | Inspect         |
| REG2 13                   | never seen in production   | yes   | Inspect         |
| REG0 1, 20; REG3 16, 17   | follow another error       | yes   | the catalogue's |
| any other                 | parity, or the fabric      | yes   | Reset           |

| XID 144-150                                             | fatal       | wanted         |
|---------------------------------------------------------|-------------|----------------|
| the status has a bit of `_FATAL`                        | yes         | Reset          |
| it has a bit of `_FOLLOWS_154`                          | no          | RestartApp     |
| RLW_RXPIPE that lost a packet for good                  | no          | Reset          |
| link down, on purpose (sub-code 38) or by the host (40) | no          | None           |
| any other link down; NETIR; MFDE but 3; MSE             | yes         | Reset          |
| anything else that the table has                        | no          | None           |
| a part that the table does not have                     | as it says  | Reset if fatal |

A repeat is no matter of one line: the repair ladder sees what comes back after a reset.
Source: NVIDIA XID catalogue, WORKFLOW_NVLINK_ERR (74) and "XID 144-150 decode".
"""

import re
from dataclasses import dataclass

from tramontane.api.blade import Action

_LINK_ERROR = re.compile(r"link (\d+)\s*\((0x[0-9a-fA-F]+(?:,\s*0x[0-9a-fA-F]+){6})\)")
_NVLINK5 = re.compile(
    r"(?P<part>[A-Za-z]\w*(?: Degraded)?)\s+(?P<word>Fatal|Non-?fatal)\s+XC\s*\d+\s+i\s*\d+\s+"
    r"Link\s+(?P<link>-?\d+)\s+[(\[](?P<info>0x[0-9a-fA-F]+)(?:\s+(?P<status>0x[0-9a-fA-F]+))?",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Details:
    """What a line says beside its number; see kernel_lines.KernelLine."""

    unit: str = ""
    subcode: str = ""
    fatal: bool | None = None
    wanted: Action | None = None


def _bits(*numbers: int) -> int:
    return sum(1 << number for number in numbers)


# Bits by register.
_HARMLESS = {0: _bits(0, 23, 30), 4: _bits(20, 23, 26, 29)}
_CONNECTION = {0: _bits(8, 9, 12, 16, 17, 21, 22, 24, 28), 2: _bits(13)}
_SECONDARY = {0: _bits(1, 20), 3: _bits(16, 17)}
# Those that the driver fills.
_VALID = (0, 2, 3, 4)

_INFO_SUBCODE_SHIFT = 20
_INFO_SUBCODE_MASK = 0x3F
# RLW_RXPIPE: a packet was lost for good. Drivers before R575 put the bit elsewhere; they also
# write another number for the part into the low bits, which is how the two are told apart.
_RXPIPE = 0x06
_RXPIPE_LOST = 1 << 7
_RXPIPE_LOST_OLD = 1 << 10
_PART_MASK = 0x7F

_FATAL = {
    "SAW_MVB": 0x12,
    "RLW_REMAP": 0xC0,
    "RLW_RSPCOL": 0x2,
    "RLW_SRC_TRACK": 0x31,
    "RLW_TAGSTATE": 0x120002,
    "TLW_CTRL": 0x4,
    "TLW_RX": 0x4,
    "TLW_RX_PIPE0": 0x4,
    "TLW_RX_PIPE1": 0x4,
    "TLW_TX": 0x4,
    "TLW_TX_PIPE0": 0x4,
    "TLW_TX_PIPE1": 0x4,
}
_FOLLOWS_154 = {"RLW_REMAP": 0x3F, "RLW_SRC_TRACK": 0xC}
_NEVER = frozenset({"RLW_CTRL", "RLW_RXPIPE", "TREX", "NVLPW_CTRL", "NVLPW", "NETIR_BER_EVENT"})
_LINK_DOWN = frozenset({"NETIR_LINK_EVT", "NETIR_LINK_DOWN"})
_LINK_DOWN_HARMLESS = frozenset({38, 40})
_ALWAYS = frozenset({"NETIR", "NETIR_INT", "MSE DEGRADED", "MSE_WATCHDOG"})
_MFDE_HARMLESS = 3


def link_error(rest: str) -> Details:
    """Return link, bits and severity of an XID 74."""
    found = _LINK_ERROR.search(rest)
    if found is None:
        return Details()
    registers = [int(value, 16) for value in found[2].split(",")]
    seen = {number: registers[number] for number in _VALID if registers[number]}
    names = ",".join(
        f"reg{number}.{bit}"
        for number, value in seen.items()
        for bit in range(value.bit_length())
        if value >> bit & 1
    )
    unit = f"link {int(found[1])}"
    telling = {number: value & ~_HARMLESS.get(number, 0) for number, value in seen.items()}
    if seen and not any(telling.values()):
        return Details(unit, names, fatal=False, wanted=Action.NONE)
    if any(value & _CONNECTION.get(number, 0) for number, value in telling.items()):
        return Details(unit, names, fatal=True, wanted=Action.INSPECT)
    if any(value & ~_SECONDARY.get(number, 0) for number, value in telling.items()):
        return Details(unit, names, fatal=True, wanted=Action.RESET)
    return Details(unit, names, fatal=True)


def nvlink5_error(rest: str) -> Details:
    """Return link, sub-code and severity of an XID from 144 to 150."""
    found = _NVLINK5.search(rest)
    if found is None:
        return Details()
    part = found["part"].upper()
    info = int(found["info"], 16)
    status = None if found["status"] is None else int(found["status"], 16)
    number = info >> _INFO_SUBCODE_SHIFT & _INFO_SUBCODE_MASK
    says_fatal = found["word"].lower() == "fatal"
    fatal, wanted = _judge(part, info, number, status, says_fatal=says_fatal)
    link = int(found["link"])
    subcode = f"{part}.{number}" if status is None else f"{part}.{number}/{status:#x}"
    return Details(f"link {link}" if link >= 0 else "", subcode, fatal, wanted)


def _judge(
    part: str, info: int, number: int, status: int | None, *, says_fatal: bool
) -> tuple[bool, Action]:
    """Return (fatal, wanted); see the module's table."""
    if part in _LINK_DOWN:
        fatal = number not in _LINK_DOWN_HARMLESS
    elif part in _ALWAYS or part in _NEVER:
        fatal = part in _ALWAYS
    elif part == "NETIR_MFDE_EVENT":
        fatal = status != _MFDE_HARMLESS
    elif part in _FATAL and status is not None:
        fatal = bool(status & _FATAL[part])
    else:
        fatal = says_fatal
    if fatal or (part == "RLW_RXPIPE" and _lost_a_packet(info)):
        return fatal, Action.RESET
    if (status or 0) & _FOLLOWS_154.get(part, 0):
        return False, Action.RESTART_APP
    return False, Action.NONE


def _lost_a_packet(info: int) -> bool:
    """Return whether RLW_RXPIPE lost one for good, in the words of either age of the driver."""
    new = info & _PART_MASK == _RXPIPE
    return bool(info & (_RXPIPE_LOST if new else _RXPIPE_LOST_OLD))
