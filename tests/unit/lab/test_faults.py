"""Each fault shows up in the simulated library and in the device in memory, or in the node."""

import asyncio

import pytest

from tramontane.api.errors import InvalidValue
from tramontane.lab.device import LabDevice
from tramontane.lab.faults import (
    KINDS,
    Fault,
    Mend,
    calm_machine,
    calm_memory,
    flap_s,
    left_after,
    parse_fault,
    trouble_of,
)
from tramontane.lab.nvml import blade


@pytest.mark.parametrize(
    ("text", "gpu", "fault"),
    [
        pytest.param("gpu-lost", 3, Fault("gpu-lost", 3), id="plain"),
        pytest.param("xid 94", 0, Fault("xid", 0, 94), id="code"),
        pytest.param("recovery-action", 7, Fault("recovery-action", 7), id="code-left-out"),
        pytest.param("recovery-action 2", 7, Fault("recovery-action", 7, 2), id="code-optional"),
    ],
)
def test_faults_are_read_as_they_are_typed(text: str, gpu: int, fault: Fault) -> None:
    assert parse_fault(text, gpu) == fault
    assert str(fault) == text


@pytest.mark.parametrize(
    ("text", "gpu", "says"),
    [
        pytest.param("fire", 0, "must be one of gpu-lost", id="unknown"),
        pytest.param("xid", 0, 'as in "xid 94"', id="code-missing"),
        pytest.param("xid many", 0, "a number", id="code-no-number"),
        pytest.param("gpu-lost 3", 0, "and no more", id="code-not-taken"),
        pytest.param("gpu-lost", 8, "a GPU from 0 to 7", id="no-such-gpu"),
    ],
)
def test_nonsense_is_refused_with_the_way_out(text: str, gpu: int, says: str) -> None:
    with pytest.raises(InvalidValue, match=says):
        parse_fault(text, gpu)


def asked_for(kind: str) -> Fault:
    return Fault(kind, 3, 94 if kind == "xid" else None)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_fault_is_seen_or_is_the_nodes(kind: str) -> None:
    what = KINDS[kind]
    if what.machine is None or what.memory is None:
        assert what.machine is None
        assert what.memory is None
        assert what.silent or what.fails, "somebody must notice it"
        return
    healthy = blade("gpu-0001")
    assert what.machine(healthy, asked_for(kind)).render() != healthy.render()

    device = LabDevice("gpu-0001")
    first = await device.next()
    what.memory(device, asked_for(kind))
    async with asyncio.timeout(1):
        assert await device.next() != first


@pytest.mark.parametrize(
    ("text", "dies"),
    [
        pytest.param("gpu-lost", True, id="gpu-lost"),
        pytest.param("node-down", True, id="node-down"),
        pytest.param("ecc-dbe", True, id="ecc-dbe"),
        pytest.param("xid 79", True, id="deadly-xid"),
        pytest.param("xid 94", False, id="contained-ecc"),
        pytest.param("hang", False, id="hang"),
        pytest.param("agent-silent", False, id="agent-silent"),
        pytest.param("recovery-action", False, id="recovery-action"),
        pytest.param("dead-on-arrival", True, id="dead-on-arrival"),
        pytest.param("slow-memory", False, id="slow-memory"),
        pytest.param("bad-link", False, id="bad-link"),
        pytest.param("flapping", False, id="flapping"),
    ],
)
def test_only_some_faults_kill_the_rank(text: str, *, dies: bool) -> None:
    assert bool(trouble_of(parse_fault(text))) is dies


@pytest.mark.parametrize(
    ("text", "mend"),
    [
        pytest.param("row-remap-pending", Mend.RESET, id="row-remap-pending"),
        pytest.param("row-remap-failure", Mend.PARTS, id="row-remap-failure"),
        pytest.param("gpu-lost", Mend.REBOOT, id="gpu-lost"),
        pytest.param("xid 79", Mend.REBOOT, id="xid-that-asks-for-a-reboot"),
        pytest.param("xid 95", Mend.RESET, id="xid-that-asks-for-a-reset"),
        pytest.param("recovery-action", Mend.RESET, id="recovery-reset"),
        pytest.param("recovery-action 2", Mend.REBOOT, id="recovery-reboot"),
        pytest.param("slow-memory", Mend.PARTS, id="slow-memory"),
        pytest.param("dead-on-arrival", Mend.PARTS, id="dead-on-arrival"),
        pytest.param("flapping", Mend.PARTS, id="flapping"),
    ],
)
def test_a_repair_ends_what_it_mends_and_no_more(text: str, mend: Mend) -> None:
    fault = parse_fault(text, gpu=3)
    assert fault.mend is mend
    for repair in Mend:
        assert left_after([fault], repair, None) == (() if repair >= mend else (fault,))


def test_a_reset_of_another_gpu_mends_nothing() -> None:
    fault = parse_fault("row-remap-pending", gpu=3)
    assert left_after([fault], Mend.RESET, 2) == (fault,)
    assert left_after([fault], Mend.RESET, 3) == ()


async def test_a_missing_gpu_is_missing_until_a_technician_has_been_there() -> None:
    device = LabDevice("gpu-0001")
    KINDS["dead-on-arrival"].memory(device, Fault("dead-on-arrival", 3))  # type: ignore[misc]
    seen = device.reading.gpus
    assert [one.index for one in seen] == list(range(7))
    assert "gpu-0001-3" not in [one.facts.serial for one in seen]
    device.reboot()
    device.reset_all()
    assert len(device.reading.gpus) == 7
    device.xid(6, 63)
    last = (await device.next()).events[-1]
    assert last.uuid == seen[6].facts.uuid
    device.heal()
    assert [one.facts.serial for one in device.reading.gpus] == [f"gpu-0001-{i}" for i in range(8)]


def test_a_gpu_that_is_gone_from_the_library_is_gone_from_its_count() -> None:
    healthy = blade("gpu-0001")
    left = KINDS["dead-on-arrival"].machine(healthy, Fault("dead-on-arrival", 3))  # type: ignore[misc]
    assert [one.serial for one in left.gpus] == [f"gpu-0001-{i}" for i in (0, 1, 2, 4, 5, 6, 7)]


def test_a_flapping_fault_comes_and_goes() -> None:
    fault, what = Fault("flapping", 3), KINDS["flapping"]
    assert what.machine is not None
    assert what.memory is not None
    healthy = blade("gpu-0001")
    sick = what.machine(healthy, fault)
    assert sick.gpus[3].recovery_action == 1
    assert calm_machine(sick, fault).gpus == healthy.gpus
    device = LabDevice("gpu-0001")
    before = device.reading
    what.memory(device, fault)
    assert device.reading.gpus[3].recovery_action == 1
    calm_memory(device, fault)
    assert device.reading == before


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        pytest.param("flapping", 2.0, id="default"),
        pytest.param("flapping 120", 120.0, id="as-asked"),
        pytest.param("flapping 0", 1.0, id="never-busy"),
    ],
)
def test_how_fast_a_fault_flaps(text: str, seconds: float) -> None:
    assert flap_s(parse_fault(text)) == seconds
