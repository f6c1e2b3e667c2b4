"""Lines as drivers wrote them, and what they mean; the decode tables hold NVIDIA's own rows."""

from typing import Any

import pytest

from tramontane.api.blade import Action
from tramontane.health.kernel_lines import KernelLine, identity, parse, slot

DEAD = {"fatal": True, "wanted": Action.RESET}
FINE = {"fatal": False, "wanted": Action.NONE}


def xid(code: int, rest: str, pci: str = "0000:1b:00") -> str:
    return f"NVRM: Xid (PCI:{pci}): {code}{rest}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            xid(79, ", pid='<unknown>', name=<unknown>, GPU has fallen off the bus."),
            {"code": 79, "pci": "0000:1b:00"},
            id="79",
        ),
        pytest.param(xid(46, ""), {"code": 46}, id="nothing-but-the-code"),
        pytest.param(
            "kernel: [3.1] NVRM: Xid (0000:03:00): 14, Channel 00000001",
            {"code": 14, "pci": "0000:03:00"},
            id="old-and-prefixed",
        ),
        pytest.param(
            xid(94, ", Contained: CE User Channel (0x9). RST: No, D-RST: No", "0:1:0 GPU-I:5"),
            {"code": 94, "pci": "0:1:0", "unit": "CE User Channel (0x9)"},
            id="94-of-a-mig-instance",
        ),
        pytest.param(
            xid(95, ", pid=7062, Uncontained: LTC TAG (0x2,0x1). RST: Yes, D-RST: No"),
            {"code": 95, "unit": "LTC TAG (0x2,0x1)", "wanted": Action.RESET},
            id="95",
        ),
        pytest.param(
            xid(13, ", pid=4, Graphics SM Warp Exception on (GPC 10, TPC 2, SM 0): Illegal"),
            {"code": 13, "unit": "GPC 10, TPC 2"},
            id="13",
        ),
        pytest.param(
            xid(13, ", Graphics Exception: ESR 0x404600=0x80000002"), {"code": 13}, id="13-more"
        ),
        pytest.param(
            xid(31, ", pid=9, name=a, Ch 00000018, intr 00000000. MMU Fault: ENGINE GRAPHICS"
                " GPCCLIENT_T1_0 faulted @ 0x7f2c_4a. Fault is of type FAULT_PDE ACCESS_TYPE"),
            {"code": 31, "unit": "GRAPHICS GPCCLIENT_T1_0", "subcode": "FAULT_PDE"},
            id="31",
        ),
        pytest.param(
            xid(48, ", An uncorrectable double bit error (DBE) has been detected on GPU in the"
                " framebuffer at physAddr 0x18f31d80 partition 16, subpartition 3."),
            {"code": 48, "unit": "partition 16, subpartition 3"},
            id="48",
        ),
        pytest.param(
            xid(171, ", GDDR, Uncorrectable DRAM error in FBPA 3 subpartition 0 physAddr 0xe9b"),
            {"code": 171, "unit": "partition 3, subpartition 0"},
            id="171",
        ),
        pytest.param(
            xid(63, ", pid=1, name=x, Row Remapper: New row (0x0000000018f31d80) marked"),
            {"code": 63, "unit": "row 0x0000000018f31d80"},
            id="63",
        ),
        pytest.param(
            xid(64, ", pid=5, Row Remapper Error: (0x00000005d28c03a0) - All reserved rows"),
            {"code": 64, "unit": "row 0x00000005d28c03a0"},
            id="64",
        ),
    ],
)  # fmt: skip
def test_a_line_is_read(text: str, expected: dict[str, Any]) -> None:
    line = parse(text)
    assert line is not None
    assert line == KernelLine(**{"pci": line.pci, "text": line.text, **expected})
    assert line.text.startswith("NVRM: Xid (")


@pytest.mark.parametrize(
    "text",
    [
        "NVRM: GPU at PCI:0000:55:00: GPU-455e672a-1111-2222-3333-444455556666",
        "NVRM: Xid (PCI:0000:66:00): abc, pid=2280636",
        "audit: Xid is a word",
        "nvidia-nvswitch2: SXid (PCI:0000:c4:00.0): 10002, Severity 5 Engine instance 00",
        "nvidia-nvswitch2: SXid (PCI:0000:c4:00.0): 10002, Data {0x0000, 0x0001}",
        "",
    ],
)
def test_other_lines_say_nothing(text: str) -> None:
    assert parse(text) is None


@pytest.mark.parametrize(
    ("rest", "fatal", "wanted"),
    [
        pytest.param("22012, Fatal, Link 27 LTSSM Fault Up", True, Action.RESET, id="fatal"),
        pytest.param("11012, Non-fatal, Link 03 NCISOC", False, Action.NONE, id="non-fatal"),
        pytest.param("23001, Fatal, Link 03 ingress", True, Action.REBOOT, id="always-fatal"),
        pytest.param("19084, Non-fatal, Link 10 AN1 Heartbeat", False, Action.RESET, id="19084"),
        pytest.param("29999, Link 4 something new", None, None, id="unsaid"),
    ],
)
def test_a_switchs_line_is_read(rest: str, fatal: bool | None, wanted: Action | None) -> None:
    line = parse(f"nvidia-nvswitch1: SXid (PCI:0000:c3:00.0): {rest}")
    assert line is not None
    assert (line.switch, line.pci, line.code) == (True, "0000:c3:00.0", int(rest[:5]))
    assert line.unit.startswith("link ")
    assert (line.fatal, line.wanted) == (fatal, wanted)


@pytest.mark.parametrize(
    ("change", "fatal", "wanted"),
    [
        ("0x2 (Node Reboot Required)", True, Action.REBOOT),
        ("0x2 (OS Reboot)", True, Action.REBOOT),
        ("0x1 (GPU Reset Required)", True, Action.RESET),
        ("0x3 (Drain P2P)", True, Action.DRAIN),
        ("0x4 (Drain and Reset)", True, Action.RESET),
        ("0x9 (Something New)", True, Action.INSPECT),
        ("0x0 (None)", False, Action.NONE),
    ],
)
def test_154_says_what_the_driver_wants(change: str, fatal: bool, wanted: Action) -> None:
    line = parse(xid(154, f", GPU recovery action changed from 0x0 (None) to {change}"))
    assert line is not None
    assert (line.subcode, line.fatal, line.wanted) == (
        change.partition("(")[2].rstrip(")"),
        fatal,
        wanted,
    )


@pytest.mark.parametrize("code", [74, 145, 154, 94, 48, 63, 31, 13], ids=lambda code: f"xid-{code}")
def test_a_line_without_its_details_leaves_all_to_the_catalogue(code: int) -> None:
    line = parse(xid(code, ", pid=1, name=x, words that no driver has written yet"))
    assert line is not None
    assert (line.unit, line.subcode, line.fatal, line.wanted) == ("", "", None, None)


def register(number: int, *bits: int) -> str:
    values = ["0x0"] * 7
    values[number] = hex(sum(1 << bit for bit in bits))
    return ", ".join(values)


@pytest.mark.parametrize(
    ("registers", "subcode", "fatal", "wanted"),
    [
        pytest.param(register(0, 0, 30), "reg0.0,reg0.30", False, Action.NONE, id="none"),
        pytest.param(register(4, 20, 29), "reg4.20,reg4.29", False, Action.NONE, id="corrected"),
        pytest.param(register(0, 8), "reg0.8", True, Action.INSPECT, id="connection"),
        pytest.param(register(0, 21), "reg0.21", True, Action.INSPECT, id="signal"),
        pytest.param(register(2, 13), "reg2.13", True, Action.INSPECT, id="unexpected"),
        pytest.param(register(0, 4), "reg0.4", True, Action.RESET, id="parity"),
        pytest.param(register(2, 16), "reg2.16", True, Action.RESET, id="repeats-matter"),
        pytest.param(register(3, 18), "reg3.18", True, Action.RESET, id="fabric"),
        pytest.param(register(4, 18), "reg4.18", True, Action.RESET, id="parity-late"),
        pytest.param(register(0, 1, 20), "reg0.1,reg0.20", True, None, id="secondary"),
        pytest.param(register(0, 0, 4), "reg0.0,reg0.4", True, Action.RESET, id="harmless-and-not"),
        pytest.param(register(1, 3), "", True, None, id="a-register-that-says-nothing"),
    ],
)  # fmt: skip
def test_74_is_as_bad_as_its_registers(
    registers: str, subcode: str, fatal: bool, wanted: Action | None
) -> None:
    line = parse(xid(74, f", NVLink: fatal error detected on link 14({registers})"))
    assert line is not None
    assert (line.unit, line.subcode) == ("link 14", subcode)
    assert (line.fatal, line.wanted) == (fatal, wanted)


@pytest.mark.parametrize(
    ("code", "words", "expected"),
    [
        pytest.param(
            149,
            "NETIR_LINK_EVT Fatal XC0 i0 Link 08 (0x004505c6 0x00000000 0x0 0x0 0x0 0x0)",
            {"unit": "link 8", "subcode": "NETIR_LINK_EVT.4/0x0", **DEAD},
            id="link-down",
        ),
        pytest.param(
            149,
            "NETIR_LINK_DOWN Fatal XC0 i0 Link 08 (0x02600011 0x0)",
            {"unit": "link 8", "subcode": "NETIR_LINK_DOWN.38/0x0", **FINE},
            id="link-down-on-purpose",
        ),
        pytest.param(
            149,
            "NETIR_LINK_EVT Fatal XC 1 i 2 Link 01 [0x0000000a]",
            {"unit": "link 1", "subcode": "NETIR_LINK_EVT.0", **DEAD},
            id="before-R575",
        ),
        pytest.param(
            149,
            "NETIR Fatal XC0 i0 Link -1 (0x000fe406 0x0)",
            {"subcode": "NETIR.0/0x0", **DEAD},
            id="no-link",
        ),
        pytest.param(
            149,
            "NETIR_BER_EVENT Nonfatal XC0 i0 Link 03 (0x00086226 0x00000001)",
            {"unit": "link 3", "subcode": "NETIR_BER_EVENT.0/0x1", **FINE},
            id="bit-errors",
        ),
        pytest.param(
            149,
            "NETIR_MFDE_EVENT Nonfatal XC0 i0 Link 03 (0x14 0x3)",
            {"unit": "link 3", "subcode": "NETIR_MFDE_EVENT.0/0x3", **FINE},
            id="firmware-notice",
        ),
        pytest.param(
            149,
            "NETIR_MFDE_EVENT Fatal XC0 i0 Link 03 (0x14 0x4)",
            {"unit": "link 3", "subcode": "NETIR_MFDE_EVENT.0/0x4", **DEAD},
            id="firmware-fatal",
        ),
        pytest.param(
            144,
            "SAW_MVB Nonfatal XC0 i0 Link 00 (0x1 0x1)",
            {"unit": "link 0", "subcode": "SAW_MVB.0/0x1", **FINE},
            id="saw-poison",
        ),
        pytest.param(
            144,
            "SAW_MVB Fatal XC0 i0 Link 00 (0x1 0x10)",
            {"unit": "link 0", "subcode": "SAW_MVB.0/0x10", **DEAD},
            id="saw-fatal",
        ),
        pytest.param(
            145,
            "pid=11436, name=cache, RLW_SRC_TRACK Nonfatal XC1 i0 Link 03 (0x040868e2 0x8)",
            {"unit": "link 3", "subcode": "RLW_SRC_TRACK.0/0x8", "fatal": False,
             "wanted": Action.RESTART_APP},
            id="rlw-the-application-alone",
        ),
        pytest.param(
            145,
            "RLW_REMAP Fatal XC0 i0 Link 00 (0x4 0x40)",
            {"unit": "link 0", "subcode": "RLW_REMAP.0/0x40", **DEAD},
            id="rlw-fatal",
        ),
        pytest.param(
            145,
            "RLW_RXPIPE Nonfatal XC0 i0 Link 13 (0x0409a0c2 0x8)",
            {"unit": "link 13", "subcode": "RLW_RXPIPE.0/0x8", **FINE},
            id="rxpipe",
        ),
        pytest.param(
            145,
            "RLW_RXPIPE Nonfatal XC0 i0 Link 13 (0x00000086 0x1)",
            {"unit": "link 13", "subcode": "RLW_RXPIPE.0/0x1", "fatal": False,
             "wanted": Action.RESET},
            id="rxpipe-lost",
        ),
        pytest.param(
            145,
            "RLW_RXPIPE Nonfatal XC0 i0 Link 13 (0x000004c2 0x1)",
            {"unit": "link 13", "subcode": "RLW_RXPIPE.0/0x1", "fatal": False,
             "wanted": Action.RESET},
            id="rxpipe-lost-before-R575",
        ),
        pytest.param(
            146,
            "TLW_RX_PIPE1 Fatal XC0 i0 Link 02 (0xb 0x4)",
            {"unit": "link 2", "subcode": "TLW_RX_PIPE1.0/0x4", **DEAD},
            id="tlw-fatal",
        ),
        pytest.param(
            147,
            "TREX Nonfatal XC0 i0 Link 02 (0xe 0x80000000)",
            {"unit": "link 2", "subcode": "TREX.0/0x80000000", **FINE},
            id="trex",
        ),
        pytest.param(
            148,
            "NVLPW_CTRL Nonfatal XC0 i0 Link 02 (0x5 0x80000000)",
            {"unit": "link 2", "subcode": "NVLPW_CTRL.0/0x80000000", **FINE},
            id="nvlpw",
        ),
        pytest.param(
            150,
            "MSE_WATCHDOG Fatal XC0 i0 Link -1 (0x0 0x0)",
            {"subcode": "MSE_WATCHDOG.0/0x0", **DEAD},
            id="mse",
        ),
        pytest.param(
            150,
            "MSE Degraded Fatal XC0 i0 Link -1 (0x0 0x0)",
            {"subcode": "MSE DEGRADED.0/0x0", **DEAD},
            id="mse-two-words",
        ),
        pytest.param(
            146,
            "TLW_FUTURE Fatal XC0 i0 Link 02 (0xb 0x1)",
            {"unit": "link 2", "subcode": "TLW_FUTURE.0/0x1", **DEAD},
            id="a-part-we-do-not-know-says-fatal",
        ),
        pytest.param(
            146,
            "TLW_FUTURE Nonfatal XC0 i0 Link 02 (0xb 0x1)",
            {"unit": "link 2", "subcode": "TLW_FUTURE.0/0x1", **FINE},
            id="a-part-we-do-not-know-says-nonfatal",
        ),
    ],
)  # fmt: skip
def test_144_to_150_are_as_bad_as_part_and_status(
    code: int, words: str, expected: dict[str, Any]
) -> None:
    line = parse(xid(code, f", {words}"))
    assert line is not None
    assert line == KernelLine(code=code, pci=line.pci, text=line.text, **expected)


@pytest.mark.parametrize(
    ("pci", "expected"),
    [
        ("00000000:1B:00.0", "0:1b:0"),
        ("0000:1b:00", "0:1b:0"),
        ("0018:01:00", "18:1:0"),
        ("0000:c3:00.0", "0:c3:0"),
        ("", ""),
        ("nonsense", ""),
    ],
)
def test_one_device_has_one_slot(pci: str, expected: str) -> None:
    assert slot(pci) == expected


def test_the_driver_introduces_a_gpu_before_its_xids() -> None:
    uuid = "GPU-455e672a-1111-2222-3333-444455556666"
    assert identity(f"NVRM: GPU at PCI:0000:55:00: {uuid}") == ("0000:55:00", uuid)
    assert identity("NVRM: GPU Board Serial Number: 17946256") is None
