"""What the agent costs on a blade, and how soon it sees a fault.

    make bench ARGS=agent

The real process over the simulated NVML with eight GPUs, against a real API server. Temperatures
and power change between all looks, as they do on a blade; eight InfiniBand ports, eight drives and
a kernel log lie in a folder; Prometheus asks every 15 seconds. Its environment is that of the
chart's DaemonSet. Byte code is compiled beforehand, as in an image: without it the child alone
takes 14 MiB more.

1. memory and CPU while nothing is wrong, at a poll of 5 s, and CPU at the chart's interval. The
   simulated library looks at its file 200 times a second where NVML sleeps in the kernel; what
   that takes is measured by itself (`_library`), written down, and not the agent's;
2. an XID, from the moment at which the driver raises it to the fault in `Blade.status` as another
   client sees it; the same for a state that only a poll shows;
3. 800,000 lines of XID 95 in the kernel log (NVSentinel#1120), and another XID in the midst.
"""

import asyncio
import os
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench import results
from bench.agent_process import Agent, Memory, running
from bench.results import Budget
from chart.helm import Helm
from tramontane.api.names import SYSTEM_NAMESPACE
from tramontane.kube.client import Client
from tramontane.kube.resources import BLADES
from tramontane.lab import binaries
from tramontane.lab.cluster import apply_crds, ensure_namespace
from tramontane.lab.controlplane import ControlPlane
from tramontane.lab.nvml import StateFile, blade, build
from tramontane.lab.paths import cache_dir
from tramontane.lab.watcher import Watcher, watching
from unit.health import hosts

NAME = "gpu-0001"
GPUS = 8
INTERVAL_S = 5.0
RUNS = 5
# The agent keeps ten minutes of readings: only then its memory is what it stays at.
SETTLE_S, QUIET_S, CHART_S = 20.0, 620.0, 60.0
SCRAPE_S = 15.0
FLOOD_LINES = 800_000
SEED = 20261124
_PATIENCE_S = 60.0
_FLOOD_PATIENCE_S = 600.0
_PIECE = 10_000
_WAIT = """
import sys, time
from tramontane.health.nvml import BOOT_ID_FILE, NvmlDevice
device = NvmlDevice(sys.argv[1], BOOT_ID_FILE)
device.open()
began = time.process_time()
device.wait(float(sys.argv[2]))
print(time.process_time() - began)
"""


@dataclass(frozen=True, slots=True)
class Bench:
    """Where agents run: a blade of files, an API server with its Blade, one who watches."""

    folder: Path
    machine: StateFile
    kubeconfig: Path
    watcher: Watcher
    environment: Mapping[str, str]

    @property
    def kernel_log(self) -> Path:
        """The file that the agents read as the kernel's log."""
        return self.folder / "kmsg"

    def agent(self, interval_s: float) -> AbstractAsyncContextManager[Agent]:
        """Run an agent while the block lasts; it is ready when the block begins."""
        arguments = {
            "--node-name": NAME,
            "--namespace": SYSTEM_NAMESPACE,
            "--interval": str(interval_s),
            "--nvml-library": str(build(cache_dir())),
            "--kernel-log": str(self.kernel_log),
            "--sysfs-root": str(self.folder / "sys"),
        }
        environment = {
            **self.environment,
            **self.machine.environment(),
            "KUBECONFIG": str(self.kubeconfig),
        }
        flat = [word for pair in arguments.items() for word in pair]
        return running(flat, environment, self.folder / "bytecode")

    def fault(self, code: str, gpu: int) -> Callable[[], bool]:
        """Return whether the API server's Blade has a fault."""
        return lambda: any(
            fault["code"] == code and fault.get("gpu") == gpu for fault in self.faults()
        )

    def faults(self) -> list[dict[str, Any]]:
        """Return the faults of the Blade as it was last seen."""
        report = self.watcher.blades.cache[NAME].get("status", {}).get("report", {})
        return list(report.get("faults", []))

    async def time_to(self, code: str, gpu: int, cause: Callable[[], None]) -> float:
        """Cause a fault and return the seconds until it is in the Blade."""
        began = time.monotonic()
        cause()
        _, at = await self.watcher.until(
            f"{code} on GPU {gpu}", self.fault(code, gpu), timeout_s=_PATIENCE_S
        )
        return at - began


async def run() -> list[Budget]:
    """Measure, write bench/results/agent.json, return the budgets."""
    with tempfile.TemporaryDirectory() as name:
        interval_s, environment = _chart(Path(name))
        async with _bench(Path(name), environment) as bench:
            async with bench.agent(INTERVAL_S):  # compiles the byte code
                pass
            print("  the simulated library", flush=True)
            library = await _library(bench, CHART_S)
            print("  quiet, at the chart's interval", flush=True)
            async with bench.agent(interval_s) as agent:
                often, _ = await _quiet(bench, agent, CHART_S)
            print("  quiet", flush=True)
            async with bench.agent(INTERVAL_S) as agent:
                quiet, memory = await _quiet(bench, agent, QUIET_S)
                print("  faults", flush=True)
                by_event, by_poll = await _detection(bench)
                print("  flood", flush=True)
                flood = await _flood(bench, agent)
    cpu = {
        "library_percent": library,
        "percent": quiet,
        "percent_at_interval_of_chart": often,
        "interval_of_chart_s": interval_s,
    }
    return _write(memory, cpu, by_event, by_poll, flood)


def _write(
    memory: Mapping[str, Memory],
    cpu: Mapping[str, Any],
    by_event: list[float],
    by_poll: list[float],
    flood: Mapping[str, float],
) -> list[Budget]:
    event, poll = results.summary(by_event), results.summary(by_poll)
    pss = sum(one.pss for one in memory.values())
    ours = sum(cpu["percent"].values()) - cpu["library_percent"]
    budgets = [
        Budget("RSS of the agent", memory["agent"].rss, 60, "MB"),
        Budget("RSS of its child", memory["child"].rss, 60, "MB"),
        Budget("PSS of both", pss, 60, "MB"),
        Budget("CPU at a poll of 5 s", ours, 1, "% of one core"),
        Budget("XID to Blade.status, median", event["median"], 1, "s"),
        Budget("polled fault to Blade.status, slowest", poll["max"], INTERVAL_S + 1, "s"),
        Budget("CPU during the flood", flood["cpu_percent"], 25, "% of one core"),
        Budget("XID during the flood to Blade.status", flood["other_xid_s"], 1, "s"),
        Budget("faults per GPU after the flood", flood["faults_per_gpu"], 1),
    ]
    figures = {
        "seed": SEED,
        "gpus": GPUS,
        "interval_s": INTERVAL_S,
        "memory_mb": {
            name: {"rss": one.rss, "pss": one.pss, "peak_rss": one.peak_rss}
            for name, one in memory.items()
        },
        "rss_of_both_mb": round(sum(one.rss for one in memory.values()), 1),
        "cpu": {**cpu, "agent_s_per_minute": round(ours * 0.6, 3)},
        "xid_to_status_s": event,
        "polled_fault_to_status_s": poll,
        "flood": dict(flood),
    }
    results.write("agent", figures, budgets)
    return budgets


@asynccontextmanager
async def _bench(folder: Path, environment: Mapping[str, str]) -> AsyncIterator[Bench]:
    machine = StateFile(folder / "blade.nvml")
    machine.write(blade(NAME, count=GPUS))
    hosts.machine(folder / "sys", ports=8, drives=8, gpus=GPUS)
    (folder / "kmsg").touch()
    async with (
        ControlPlane(folder) as plane,
        await Client.connect(plane.kubeconfig, user_agent="bench") as client,
    ):
        await apply_crds(client)
        await ensure_namespace(client, SYSTEM_NAMESPACE)
        await client.create(BLADES, {"metadata": {"name": NAME}, "spec": {"pool": "p"}})
        status = {"status": {"state": "Healthy"}}
        await client.merge_patch(BLADES, NAME, status, subresource="status")
        async with watching(client) as watcher:
            yield Bench(folder, machine, plane.kubeconfig, watcher, environment)


def _chart(home: Path) -> tuple[float, dict[str, str]]:
    """Return the interval (s) and the environment of the agent in the chart's DaemonSet."""
    objects = Helm(binaries.ensure(["helm"])["helm"], home).template()
    (agent,) = next(one for one in objects if one["kind"] == "DaemonSet")["spec"]["template"][
        "spec"
    ]["containers"]
    (interval,) = (one.partition("=")[2] for one in agent["args"] if one.startswith("--interval="))
    return float(interval), {one["name"]: one["value"] for one in agent["env"] if "value" in one}


async def _quiet(
    bench: Bench, agent: Agent, seconds: float
) -> tuple[dict[str, float], dict[str, Memory]]:
    """Return CPU (% of one core) and memory by process of an agent that sees nothing wrong."""
    async with _weather(bench.machine), _scraped(agent):
        await asyncio.sleep(SETTLE_S)
        began, used = time.monotonic(), agent.cpu_s()
        await asyncio.sleep(seconds)
        took_s, now = time.monotonic() - began, agent.cpu_s()
        memory = agent.memory()
    return {name: round(100 * (now[name] - used[name]) / took_s, 3) for name in now}, memory


async def _library(bench: Bench, seconds: float) -> float:
    """Return the CPU (% of one core) of one call that waits for an event that never comes."""
    async with _weather(bench.machine):
        waiting = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _WAIT, str(build(cache_dir())), str(seconds)),
            env={**os.environ, **bench.machine.environment()},
            stdout=asyncio.subprocess.PIPE,
        )
        said, _ = await waiting.communicate()
    return round(100 * float(said) / seconds, 3)


@asynccontextmanager
async def _weather(machine: StateFile) -> AsyncIterator[None]:
    """Have temperatures and power change faster than anybody looks."""
    chance = random.Random(SEED)

    async def blow() -> None:
        while True:
            for index in range(GPUS):
                power_mw = chance.randint(110_000, 130_000)
                machine.state = machine.state.with_gpu(
                    index, temperature=chance.randint(38, 46), power_mw=power_mw
                )
            machine.write(machine.state)
            await asyncio.sleep(0.4)

    async with _while(blow()):
        yield


@asynccontextmanager
async def _scraped(agent: Agent) -> AsyncIterator[None]:
    async def scrape() -> None:
        while True:
            await agent.get("/metrics")
            await asyncio.sleep(SCRAPE_S)

    async with _while(scrape()):
        yield


@asynccontextmanager
async def _while(work: Any) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _detection(bench: Bench) -> tuple[list[float], list[float]]:
    """Return the seconds to a fault by an event, and by a poll; each on a GPU of its own."""
    chance = random.Random(SEED)
    seen: dict[str, list[float]] = {"xid-79": [], "row-remap-pending": []}
    for code, seconds in seen.items():
        for gpu in range(RUNS):
            await asyncio.sleep(chance.uniform(0, INTERVAL_S))
            if code == "xid-79":
                cause = partial(bench.machine.xid, gpu, 79)
            else:
                cause = partial(bench.machine.change, gpu, remap_pending=True)
            seconds.append(await bench.time_to(code, gpu, cause))
    return seen["xid-79"], seen["row-remap-pending"]


async def _flood(bench: Bench, agent: Agent) -> dict[str, float]:
    """Write FLOOD_LINES lines as fast as a busy kernel would, and return what that cost."""
    reports = "tramontane_agent_reports_total"
    began, used, written = time.monotonic(), sum(agent.cpu_s().values()), await agent.total(reports)
    with bench.kernel_log.open("a") as log:
        for lines in _lines(FLOOD_LINES):
            log.write(lines)
            log.flush()
            await asyncio.sleep(0)
    wrote_s = time.monotonic() - began
    other_s = await bench.time_to("xid-79", 7, lambda: bench.machine.xid(7, 79))
    counter = "tramontane_gpu_xid_errors_total"
    await agent.reaches(counter, FLOOD_LINES, _FLOOD_PATIENCE_S, xid="95")
    took_s, cpu_s = time.monotonic() - began, sum(agent.cpu_s().values()) - used
    faults = [fault for fault in bench.faults() if fault["code"] == "xid-95"]
    memory = agent.memory()["agent"]
    return {
        "lines": FLOOD_LINES,
        "written_in_s": round(wrote_s, 1),
        "read_in_s": round(took_s, 1),
        "cpu_s": round(cpu_s, 2),
        "cpu_percent": round(100 * cpu_s / took_s, 2),
        "other_xid_s": round(other_s, 3),
        "faults_per_gpu": len(faults) / GPUS,
        "reports_written": await agent.total(reports) - written,
        "rss_mb": memory.rss,
        "peak_rss_mb": memory.peak_rss,
    }


def _lines(lines: int) -> Iterator[str]:
    """Yield records of XID 95, in pieces; few of them differ in their words.

    Source of the words: NVIDIA's XID catalogue, XID_95; NVSentinel#1120.
    """
    for first in range(0, lines, _PIECE):
        at_us = time.monotonic_ns() // 1000
        yield "".join(
            f"3,{number},{at_us},-;NVRM: Xid (PCI:0000:{0x10 + 0x10 * (number % GPUS):02x}:00): 95,"
            f" pid='<unknown>', name=<unknown>, Uncontained: LTC TAG (0x{number % 3},0x0)."
            " RST: Yes, D-RST: No\n"
            for number in range(first, min(first + _PIECE, lines))
        )
