"""Each fault shows up in the simulated library and in the device in memory, or in the node."""

import asyncio

import pytest

from tramontane.api.errors import InvalidValue
from tramontane.health.fake import FakeDevice
from tramontane.lab.faults import KINDS, Fault, parse_fault, trouble_of
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
        assert what.silent
        return
    healthy = blade("gpu-0001")
    assert what.machine(healthy, asked_for(kind)).render() != healthy.render()

    device = FakeDevice("gpu-0001")
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
    ],
)
def test_only_some_faults_kill_the_rank(text: str, *, dies: bool) -> None:
    assert bool(trouble_of(parse_fault(text))) is dies
