"""Run a hall in which things happen, with a real Prometheus that sees all of it.

    async with live(folder) as hall:
        await hall.open()
        found = await hall.prometheus.since_start('rate(tramontane_reconcile_seconds_count[8s])')

The control plane, operator, scheduler and some of the agents are the real ones; blades are KWOK's,
GPUs the simulated library's, engines fake ones on loopback. `open` returns when everything of
`livescenes` has happened once, faults among them; `go_on` lets it happen again and again.

`python -m tramontane.lab.observe.live --dir D --minutes N --ready-file F` runs it for whoever
wants to look: F appears when all has happened once, and says where Prometheus is and what to look
at; SIGTERM ends it.
"""

import asyncio
import contextlib
import json
import logging
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Final

import aiohttp
import click
import yaml

from tramontane.kube.resources import (
    BLADES,
    GANGS,
    INFERENCEDEPLOYMENTS,
    NODEPOOLS,
    PODS,
    TRAININGJOBS,
)
from tramontane.lab.ageing import age_blades
from tramontane.lab.cluster import Lab, Setup, ensure_namespace
from tramontane.lab.faults import parse_fault
from tramontane.lab.observe import livescenes as scenes
from tramontane.lab.observe.alertrules import rules_at_once
from tramontane.lab.observe.alerts import ALERTS, RECORDS
from tramontane.lab.observe.liveengines import Engines
from tramontane.lab.observe.liveprometheus import CLUSTER, Prometheus, start_prometheus
from tramontane.lab.paths import LabError

SCRAPE_S: Final = 1.0
_VALUES: Final = Path(__file__).parents[4] / "charts" / "tramontane" / "values.yaml"
_POLL_S: Final = 0.2
_PATIENCE_S: Final = 150.0
BETWEEN_FAULTS_S: Final = 40.0
_ENGINE_DIES_EVERY: Final = 3  # rounds of it
_REAL_AGENTS: Final = 8

Raw = dict[str, Any]

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Live:
    """A hall that lives; `sick` is the blade that fell ill first."""

    lab: Lab
    prometheus: Prometheus
    engines: Engines
    sick: str = ""
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    @property
    def show(self) -> dict[str, str]:
        """Return which values of the boards' variables have most to show."""
        return {
            "cluster": CLUSTER,
            "pool": scenes.POOL,
            "namespace": scenes.NAMESPACE,
            "job": scenes.TRAINING,
            "deployment": scenes.SERVED,
            "blade": self.sick,
        }

    async def open(self) -> None:
        """Let everything happen once.

        Raises:
            LabError: something did not happen in time.
        """
        client = self.lab.client
        for namespace in (scenes.NAMESPACE, scenes.OTHER):
            await ensure_namespace(client, namespace)
        for pool in scenes.pools():
            await client.apply(NODEPOOLS, pool, manager="kubectl")
        await self.until("all blades healthy", self._all_healthy)
        await age_blades(self.lab.plane.etcd, scenes.AGE_DAYS)
        # The model first: so it gets blades with real agents, which tell what they draw.
        # Its second replica later: a counter that a first scrape finds at 2 has not risen.
        for replicas in (1, scenes.REPLICAS):
            body = scenes.served(replicas)
            await client.apply(INFERENCEDEPLOYMENTS, body, manager="kubectl")
            await self.until(f"{replicas} replicas that answer", partial(self._serves, replicas))
            await self.until("their starts scraped", partial(self._has_scraped_starts, replicas))
        await self._apply(scenes.trained())
        await client.create(PODS, scenes.notebook(), scenes.OTHER)
        await self.until("a job that trains", self._trains)
        await self._slow_down()
        await self._short_ones()
        await self.until("short jobs that are over", self._short_ones_are_over)
        await self._apply(*scenes.waiting())
        self.sick = await self._sickness(scenes.TRAINING)
        await self.until("whole again", self._recovered)
        await self.engines.die(scenes.SERVED)
        async with self.lab.remote() as remote:
            for name in self.lab.fleet.names[-2:]:  # of the small pool
                await remote.inject(name, parse_fault("gpu-lost"))
        await self.until("an open breaker", self._breaker_open)
        await self.until("the blade back", self._sick_is_back)
        await self.until("all replicas again", self._serves)

    async def go_on(self, every_s: float = BETWEEN_FAULTS_S) -> None:
        """Let short jobs, and a fault after each of them, come again and again, for ever."""
        while True:
            number = await self._short_ones()
            await asyncio.sleep(every_s)
            with contextlib.suppress(LabError):
                await self._sickness(scenes.TRAINING if number % 2 else "")
            if number % _ENGINE_DIES_EVERY == 0:
                await self.engines.die(scenes.SERVED)

    async def _short_ones(self) -> int:
        number = next(self._numbers)
        await self._apply(*scenes.short_ones(number))
        return number

    async def _apply(self, *jobs: Raw) -> None:
        for body in jobs:
            await self.lab.client.apply(TRAININGJOBS, body, manager="kubectl")

    async def until(self, what: str, holds: Callable[[], Awaitable[Any]]) -> Any:
        """Return what was waited for.

        Raises:
            LabError: it did not come in time.
        """
        began = time.monotonic()
        while not (found := await holds()):
            self.lab.processes.check(("operator", "scheduler", "simulator", "prometheus"))
            if time.monotonic() - began > _PATIENCE_S:
                raise LabError(
                    f"live: there must be {what} within {_PATIENCE_S:.0f} s (got: not yet);"
                    f" the logs are in {self.lab.folder / 'logs'}"
                )
            await asyncio.sleep(_POLL_S)
        log.info("live after=%.1f what=%r", time.monotonic() - began, what)
        return found

    async def _slow_down(self) -> None:
        """Let GPUs of the training be held down: one is too hot, two are short of power."""
        able = await self._able(scenes.TRAINING)
        async with self.lab.remote() as remote:
            await remote.inject(able[-1], parse_fault("thermal", gpu=1))
            for blade in {able[0], able[-1]}:
                await remote.inject(blade, parse_fault("clocks", gpu=2))

    async def _sickness(self, job: str = "") -> str:
        """Let a GPU fall off the bus of a blade, of a job's where one is named; returns which."""
        blade = (await self._able(job))[0]
        async with self.lab.remote() as remote:
            await remote.inject(blade, parse_fault("gpu-lost", gpu=3))
        return blade

    async def _able(self, job: str) -> list[str]:
        """Return the healthy blades with a real agent; of a job's only, where one is named.

        Raises:
            LabError: there is none.
        """
        blades = {one["metadata"]["name"]: one for one in await self.lab.client.list_all(BLADES)}
        real = self.lab.setup.real_agents
        able = [name for name in real if blades[name]["status"].get("state") == "Healthy"]
        if job:
            gang = await self.lab.client.get(GANGS, job, scenes.NAMESPACE)
            able = [name for name in able if name in gang["status"]["placement"]["seats"]]
        if not able:
            raise LabError("live: a healthy blade must have a real agent and a seat (got none)")
        return able

    async def _job(self, name: str, namespace: str = scenes.NAMESPACE) -> Raw:
        status: Raw = (await self.lab.client.get(TRAININGJOBS, name, namespace)).get("status", {})
        return status

    async def _all_healthy(self) -> bool:
        pools = await self.lab.client.list_all(NODEPOOLS)
        healthy = (pool.get("status", {}).get("blades", {}).get("healthy", 0) for pool in pools)
        return bool(sum(healthy) == scenes.LAYOUT.blades)

    async def _trains(self) -> bool:
        return bool((await self._job(scenes.TRAINING)).get("lastCheckpoint"))

    async def _short_ones_are_over(self) -> bool:
        jobs = scenes.short_ones(1)
        names = ((job["metadata"]["name"], job["metadata"]["namespace"]) for job in jobs)
        phases = [(await self._job(*name)).get("phase") for name in names]
        return set(phases) == {"Succeeded"}

    async def _serves(self, replicas: int = scenes.REPLICAS) -> bool:
        found = await self.lab.client.get(INFERENCEDEPLOYMENTS, scenes.SERVED, scenes.NAMESPACE)
        return bool(found.get("status", {}).get("ready") == f"{replicas}/{replicas}")

    async def _has_scraped_starts(self, replicas: int) -> bool:
        count = f"tramontane_inference_start_seconds_count >= {replicas}"
        return bool(await self.prometheus.now(count))

    async def _recovered(self) -> bool:
        status = await self._job(scenes.TRAINING)
        return bool(status.get("phase") == "Running" and status.get("attempt", 1) > 1)

    async def _breaker_open(self) -> bool:
        pool = await self.lab.client.get(NODEPOOLS, scenes.SMALL_POOL)
        return bool(pool["status"].get("breaker", {}).get("state") == "Open")

    async def _sick_is_back(self) -> bool:
        blade = await self.lab.client.get(BLADES, self.sick)
        return bool(blade["status"].get("state") == "Healthy")


def alert_values() -> Raw:
    """Return the chart's values that bear on alerts."""
    values: Raw = yaml.safe_load(_VALUES.read_text())["prometheusRule"]
    return values


def setup(folder: Path) -> Setup:
    """Return what the lab is to have; prepares its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    return Setup(
        scenes.LAYOUT,
        real_agents=tuple(scenes.LAYOUT.names())[:_REAL_AGENTS],
        agent_metrics=True,
        agent_arguments=("--sysfs-root", str(scenes.machine(folder.resolve()))),
    )


@asynccontextmanager
async def live(folder: Path, scrape_s: float = SCRAPE_S) -> AsyncIterator[Live]:
    """Give a hall with a Prometheus, before anything happens; all of it ends with the block.

    Raises:
        LabError: something did not come up.
    """
    lab = Lab(folder, setup(folder))
    rules = rules_at_once(RECORDS, ALERTS, alert_values())
    async with lab, aiohttp.ClientSession() as session:
        prometheus = await start_prometheus(
            lab.processes, lab.description, session, rules, scrape_s
        )
        async with Engines(lab.client, lab.processes).running() as engines:
            yield Live(lab, prometheus, engines)


@click.command()
@click.option("--dir", "folder", type=click.Path(path_type=Path), required=True)
@click.option("--minutes", type=float, default=60.0, show_default=True, help="How long at most.")
@click.option("--ready-file", type=click.Path(path_type=Path), help="Written when all has begun.")
@click.option("--every", "every_s", default=BETWEEN_FAULTS_S, help="Seconds between faults.")
@click.option("--scrape", "scrape_s", default=SCRAPE_S, help="Seconds between scrapes.")
def main(
    *, folder: Path, minutes: float, ready_file: Path | None, every_s: float, scrape_s: float
) -> None:
    """Run the live hall until SIGTERM, or for so many minutes."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(message)s")

    async def run() -> None:
        stop = asyncio.Event()
        for sig in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(sig, stop.set)
        async with live(folder, scrape_s) as hall:
            click.echo(f"prometheus {hall.prometheus.url}")
            playing = asyncio.create_task(_play(hall, ready_file, every_s))
            ending = asyncio.create_task(stop.wait())
            done, _ = await asyncio.wait(
                {playing, ending}, timeout=minutes * 60, return_when=asyncio.FIRST_COMPLETED
            )
            for task in {playing, ending} - done:
                task.cancel()
            await asyncio.gather(playing, ending, return_exceptions=playing not in done)

    asyncio.run(run())


async def _play(hall: Live, ready_file: Path | None, every_s: float) -> None:
    await hall.open()
    click.echo("everything has happened once")
    if ready_file is not None:
        _tell(ready_file, hall)
    await hall.go_on(every_s)


def _tell(file: Path, hall: Live) -> None:
    """Write what to look at, whole or not at all."""
    prometheus = hall.prometheus
    ready = {"prometheus": prometheus.url, "scrape_s": prometheus.scrape_s, "show": hall.show}
    draft = file.with_suffix(".draft")
    draft.write_text(json.dumps(ready))
    draft.replace(file)


if __name__ == "__main__":
    main()
