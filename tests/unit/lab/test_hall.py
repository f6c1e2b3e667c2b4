"""A fault reaches the GPUs, the node and the agent, and clearing takes all of it back."""

import asyncio
from pathlib import Path

import pytest

from tramontane.lab.faults import Fault, parse_fault
from tramontane.lab.fleet import Fleet
from tramontane.lab.hall import Hall, ProcessAgent, boot_file, state_file
from tramontane.lab.nvml.state import GpuState
from tramontane.lab.paths import LabError


class Nodes:
    """A fleet that writes down what is asked of it."""

    def __init__(self, said: list[str]) -> None:
        self.said = said

    async def power_off(self, name: str) -> None:
        self.said.append(f"off {name}")

    async def power_on(self, name: str) -> None:
        self.said.append(f"on {name}")

    async def reboot(self, name: str, boot_id: str) -> None:
        self.said.append(f"node {name} {boot_id}")


class Recorder:
    """An agent that writes down what is asked of it."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def reset(self, gpu: int | None) -> None:
        self.said.append(f"reset {gpu}")

    def reboot(self) -> str:
        self.said.append("reboot")
        return "boot-2"

    def calm(self, fault: Fault) -> None:
        self.said.append(f"calm {fault}")

    def show(self, fault: Fault) -> None:
        self.said.append(f"show {fault}")

    def heal(self) -> None:
        self.said.append("heal")

    async def silence(self) -> None:
        self.said.append("silence")

    async def speak(self) -> None:
        self.said.append("speak")


def hall_of(recorder: Recorder) -> Hall:
    fleet: Fleet = Nodes(recorder.said)  # type: ignore[assignment]  # only its power matters here
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


async def test_a_repair_takes_back_only_what_it_mends() -> None:
    recorder = Recorder()
    hall = hall_of(recorder)
    pending, failed, lost = map(parse_fault, ("row-remap-pending", "row-remap-failure", "gpu-lost"))
    for fault in (pending, failed):
        await hall.inject("gpu-0001", fault)
    recorder.said.clear()
    assert hall.reset("gpu-0001", 0) == ""
    assert recorder.said == ["reset 0", "show row-remap-failure", "changed"]
    assert hall.of("gpu-0001") == (failed,)

    await hall.inject("gpu-0001", lost)
    recorder.said.clear()
    assert "gpu-lost" in hall.reset("gpu-0001", None)
    assert recorder.said == [], "a GPU that is not there hears nothing"
    await hall.reboot("gpu-0001")
    assert recorder.said == [
        "silence",
        "reboot",
        "show row-remap-failure",
        "changed",
        "node gpu-0001 boot-2",
        "speak",
    ]


async def test_a_reset_of_one_gpu_leaves_the_others_alone() -> None:
    recorder = Recorder()
    hall = hall_of(recorder)
    for gpu in (2, 3):
        await hall.inject("gpu-0001", parse_fault("row-remap-failure", gpu=gpu))
    recorder.said.clear()
    assert hall.reset("gpu-0001", 3) == ""
    assert recorder.said == ["reset 3", "show row-remap-failure"]


async def test_a_silent_agent_stays_silent_through_a_reboot() -> None:
    recorder = Recorder()
    hall = hall_of(recorder)
    await hall.inject("gpu-0001", parse_fault("agent-silent"))
    recorder.said.clear()
    await hall.reboot("gpu-0001")
    assert recorder.said == ["reboot", "show agent-silent", "node gpu-0001 boot-2"]


@pytest.mark.looptime
async def test_what_flaps_comes_and_goes_until_it_is_cleared() -> None:
    recorder = Recorder()
    hall = hall_of(recorder)
    await hall.inject("gpu-0001", parse_fault("flapping 5"))
    await asyncio.sleep(16)
    assert recorder.said == [
        "changed",
        "show flapping 5",
        "calm flapping 5",
        "show flapping 5",
        "calm flapping 5",
    ]
    assert hall.reset("gpu-0001", None) == ""
    assert recorder.said[-1] == "reset None", "it comes back by itself, in its time"
    await hall.clear("gpu-0001")
    del recorder.said[:]
    await asyncio.sleep(60)
    assert recorder.said == []


async def test_a_gpu_that_is_missing_can_have_no_fault() -> None:
    class Short(Recorder):
        def show(self, fault: Fault) -> None:
            raise IndexError(fault.gpu)

    hall = hall_of(Short())
    with pytest.raises(LabError, match="must have GPU 7"):
        await hall.inject("gpu-0001", parse_fault("gpu-lost", gpu=7))
    assert hall.faults == {}


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


def test_a_real_agents_library_sees_a_reset_of_one_gpu_and_a_reboot(tmp_path: Path) -> None:
    agent = ProcessAgent("gpu-0001", tmp_path, 8)

    def gpus() -> tuple[GpuState, ...]:
        return agent._file.state.gpus

    for gpu in (2, 3):
        agent.show(parse_fault("row-remap-pending", gpu=gpu))
    agent.reset(3)
    assert [one.remap_pending for one in gpus()] == [i == 2 for i in range(8)]
    agent.show(parse_fault("flapping", gpu=1))
    agent.calm(parse_fault("flapping", gpu=1))
    assert gpus()[1].recovery_action == 0
    first = boot_file(tmp_path, "gpu-0001").read_text().strip()
    boot = agent.reboot()
    assert boot_file(tmp_path, "gpu-0001").read_text().strip() == boot != first
    assert not any(one.remap_pending for one in gpus())
