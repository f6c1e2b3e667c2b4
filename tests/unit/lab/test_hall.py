"""A fault reaches the GPUs, the node and the agent, and clearing takes all of it back."""

import asyncio
from pathlib import Path

import pytest

from tramontane.lab.faults import Fault, parse_fault
from tramontane.lab.fleet import Fleet
from tramontane.lab.hall import Hall, ProcessAgent, state_file
from tramontane.lab.paths import LabError


class Recorder:
    """A fleet and an agent that write down what is asked of them."""

    def __init__(self) -> None:
        self.said: list[str] = []

    async def power_off(self, name: str) -> None:
        self.said.append(f"off {name}")

    async def power_on(self, name: str) -> None:
        self.said.append(f"on {name}")

    def show(self, fault: Fault) -> None:
        self.said.append(f"show {fault}")

    def heal(self) -> None:
        self.said.append("heal")

    async def silence(self) -> None:
        self.said.append("silence")

    async def speak(self) -> None:
        self.said.append("speak")


def hall_of(recorder: Recorder) -> Hall:
    fleet: Fleet = recorder  # type: ignore[assignment]  # only its power matters here
    hall = Hall(fleet, {"gpu-0001": recorder})
    hall.changed = lambda: recorder.said.append("changed")
    return hall


@pytest.mark.parametrize(
    ("text", "injected", "cleared"),
    [
        pytest.param("gpu-lost", [], [], id="gpu"),
        pytest.param("node-down", ["off gpu-0001", "silence"], ["on gpu-0001", "speak"], id="node"),
        pytest.param("agent-silent", ["silence"], ["speak"], id="agent"),
    ],
)
async def test_a_fault_comes_and_goes(text: str, injected: list[str], cleared: list[str]) -> None:
    recorder = Recorder()
    hall = hall_of(recorder)
    fault = parse_fault(text)
    await hall.inject("gpu-0001", fault)
    assert recorder.said == ["changed", f"show {text}", *injected]
    assert hall.faults == {"gpu-0001": (fault,)}

    recorder.said.clear()
    assert await hall.clear("gpu-0001") == (fault,)
    assert recorder.said == ["heal", *cleared, "changed"]
    assert hall.faults == {}


async def test_ranks_die_of_the_first_deadly_fault() -> None:
    hall = hall_of(Recorder())
    assert hall.trouble("gpu-0001") == ""
    await hall.inject("gpu-0001", parse_fault("xid 94"))
    assert hall.trouble("gpu-0001") == ""
    await hall.inject("gpu-0001", parse_fault("ecc-dbe"))
    assert "uncorrectable ECC" in hall.trouble("gpu-0001")


async def test_an_unknown_blade_is_named_with_those_that_are_known() -> None:
    with pytest.raises(LabError, match=r'blade "gpu-9999".*gpu-0001'):
        await hall_of(Recorder()).inject("gpu-9999", parse_fault("hang"))


async def test_a_real_agents_library_reads_a_file(tmp_path: Path) -> None:
    agent = ProcessAgent("gpu-0001", tmp_path, 8)
    path = state_file(tmp_path, "gpu-0001")
    healthy = await asyncio.to_thread(path.read_text)
    agent.show(parse_fault("gpu-lost", gpu=3))
    broken = await asyncio.to_thread(path.read_text)
    assert "lost 1" in broken
    assert "event 1 3 8 79" in broken
    agent.heal()
    healed = await asyncio.to_thread(path.read_text)
    assert "lost 1" not in healed
    assert healed == healthy + "event 1 3 8 79\n", "what happened stays happened"
    await agent.silence()  # nobody runs: nothing to stop
