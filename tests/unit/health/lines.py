"""Events of kernel lines for the tests, made as the host's probe makes them."""

from dataclasses import replace
from typing import Any

from tramontane.health import kernel_lines
from tramontane.health.device import SXID_EVENT, XID_EVENT, Event, Reading
from tramontane.health.host import HostReading

from .builders import NOW, reading

# A blade whose kernel log can be read, and one that has none: NVML's word is all there is.
LOGGED: Reading = replace(reading(), host=HostReading(boot_id="boot-1"))
UNLOGGED: Reading = replace(reading(), host=HostReading(boot_id="boot-1", kernel_log="EACCES"))


def said(text: str, index: int = 3, at: float = NOW, **changes: Any) -> Event:
    """Return the event of a kernel line."""
    line = kernel_lines.parse(text)
    assert line is not None
    gpu, uuid = (-1, "") if line.switch else (index, reading().gpus[index].facts.uuid)
    event = Event(
        gpu,
        uuid,
        SXID_EVENT if line.switch else XID_EVENT,
        line.code,
        at,
        line=line.text,
        source="kmsg",
        fatal=line.fatal,
        pci=line.pci,
        unit=line.unit,
        subcode=line.subcode,
        wanted=line.wanted.value if line.wanted is not None else "",
    )
    return replace(event, **changes)


def nvrm(code: int, words: str, index: int = 3, at: float = NOW, **changes: Any) -> Event:
    """Return the event of an XID's line."""
    text = f"NVRM: Xid (PCI:0000:1b:00): {code}, pid=4711, name=python, {words}"
    return said(text, index, at, **changes)


def exception(gpc: int, tpc: int, index: int = 3, at: float = NOW) -> Event:
    """Return an XID 13 on one unit."""
    where = f"(GPC {gpc}, TPC {tpc}, SM 0)"
    return nvrm(13, f"Graphics SM Warp Exception on {where}: Out Of Range Address", index, at)


def burst(gpc: int, tpc: int, index: int = 3, at: float = NOW) -> list[Event]:
    """Return all that the driver says of an XID 13 on one unit; the last line names none."""
    where = f"(GPC {gpc}, TPC {tpc}, SM 0)"
    several = f"Graphics SM Global Exception on {where}: Multiple Warp Errors"
    registers = "Graphics Exception: ESR 0x504730=0x9 0x504734=0x20 0x504728=0x4c1eb72"
    return [
        exception(gpc, tpc, index, at),
        nvrm(13, several, index, at),
        nvrm(13, registers, index, at),
    ]


def link_error(link: int, at: float = NOW, register: str = "0x0") -> Event:
    """Return an XID 74 on one link."""
    registers = f"{register}, 0x0, 0x10000, 0x0, 0x0, 0x0, 0x0"
    return nvrm(74, f"NVLink: fatal error detected on link {link}({registers})", at=at)
