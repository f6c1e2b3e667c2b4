"""Run a real Prometheus beside a lab, and ask it.

Its targets carry the labels that the chart's PodMonitor gives them: `component`, `cluster`, `pod`,
and `blade` on agents. Labels of a series win over the target's, as there.
"""

import asyncio
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp

from tramontane.lab.binaries import ensure
from tramontane.lab.controlplane import free_ports
from tramontane.lab.description import Description
from tramontane.lab.hall import agent_process
from tramontane.lab.paths import LabError
from tramontane.lab.processes import Processes

CLUSTER: Final = "paris"
_PROCESS: Final = "prometheus"
_READY_S: Final = 60.0
_POLL_S: Final = 0.1
_OK: Final = 200

Raw = dict[str, Any]


def config(description: Description, scrape_s: float, rules: Path) -> Raw:
    """Return Prometheus' configuration for a lab."""
    agents = {agent_process(name): name for name in description.real_agents}
    jobs = []
    for process, port in description.metrics_ports.items():
        blade = agents.get(process)
        labels = {
            "cluster": CLUSTER,
            "component": "agent" if blade else process.partition("-")[0],
            "namespace": description.namespace,
            "pod": process,
            **({"blade": blade} if blade else {}),
        }
        jobs.append({"targets": [f"127.0.0.1:{port}"], "labels": labels})
    interval = f"{round(scrape_s * 1000)}ms"
    return {
        "global": {
            "scrape_interval": interval,
            "scrape_timeout": interval,
            "evaluation_interval": "2s",
        },
        "rule_files": [str(rules)],
        "scrape_configs": [
            {"job_name": "tramontane", "honor_labels": True, "static_configs": jobs}
        ],
    }


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A Prometheus that runs; ask it within the `async with` block of its session."""

    url: str
    scrape_s: float
    started_at: float
    session: aiohttp.ClientSession

    async def now(self, expr: str) -> list[Raw]:
        """Return what an expression says now: series with `metric` and `value`.

        Raises:
            LabError: Prometheus cannot evaluate it; the message is Prometheus' own.
        """
        found: list[Raw] = await self._ask("query", {"query": expr})
        return found

    async def since_start(self, expr: str, step_s: float = 2.0) -> list[Raw]:
        """Return what an expression said all the time: series with `metric` and `values`.

        Raises:
            LabError: as `now`.
        """
        span = {"start": f"{self.started_at:.3f}", "end": f"{time.time():.3f}"}
        found: list[Raw] = await self._ask(
            "query_range", {"query": expr, **span, "step": f"{step_s}"}
        )
        return found

    async def alerts(self) -> set[str]:
        """Return the names of the alerts that fire now."""
        asked: Raw = await self._ask("alerts", {})
        return {one["labels"]["alertname"] for one in asked["alerts"] if one["state"] == "firing"}

    async def broken_rules(self) -> dict[str, str]:
        """Return the rules that could not be evaluated, with Prometheus' reasons."""
        asked: Raw = await self._ask("rules", {})
        rules = (rule for group in asked["groups"] for rule in group["rules"])
        return {rule["name"]: rule["lastError"] for rule in rules if rule.get("lastError")}

    async def down(self) -> list[str]:
        """Return the targets that do not answer."""
        asked: Raw = await self._ask("targets", {"state": "active"})
        return [
            f"{one['labels']['pod']}: {one['lastError'] or one['health']}"
            for one in asked["activeTargets"]
            if one["health"] != "up"
        ]

    async def _ask(self, what: str, query: Mapping[str, str]) -> Any:
        async with self.session.get(f"{self.url}/api/v1/{what}", params=query) as answer:
            said = await answer.json()
        if said["status"] != "success":
            raise LabError(f"prometheus: {query.get('query', what)}: {said.get('error')}")
        data = said["data"]
        return data["result"] if "query" in query else data


def has_data(series: list[Raw]) -> bool:
    """Return whether a range's answer has a number somewhere; NaN is none."""
    values = (value for one in series for _, value in one["values"])
    return any(not math.isnan(float(value)) for value in values)


async def start_prometheus(
    processes: Processes,
    description: Description,
    session: aiohttp.ClientSession,
    rules: Mapping[str, Any],
    scrape_s: float,
) -> Prometheus:
    """Start it in a lab's folder, and return once it answers.

    Raises:
        LabError: it ended, or did not answer in time.
    """
    folder = processes.folder / _PROCESS
    folder.mkdir(exist_ok=True)
    # JSON is YAML.
    (folder / "rules.json").write_text(json.dumps(rules, indent=1))
    settings = folder / "prometheus.json"
    settings.write_text(json.dumps(config(description, scrape_s, folder / "rules.json"), indent=1))
    (port,) = free_ports(1)
    processes.start(
        _PROCESS,
        [
            ensure([_PROCESS])[_PROCESS], f"--config.file={settings}",
            f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
        ],
        gentle=True,
    )  # fmt: skip
    found = Prometheus(f"http://127.0.0.1:{port}", scrape_s, time.time(), session)
    await _until(lambda: _answers(found), processes)
    return found


async def _answers(found: Prometheus) -> bool:
    try:
        async with found.session.get(f"{found.url}/-/ready") as answer:
            return answer.status == _OK
    except aiohttp.ClientConnectionError:
        return False


async def _until(ready: Callable[[], Any], processes: Processes) -> None:
    deadline = time.monotonic() + _READY_S
    while not await ready():
        processes.check([_PROCESS])
        if time.monotonic() > deadline:
            raise LabError(f"prometheus: must be ready within {_READY_S:.0f} s (got: it is not)")
        await asyncio.sleep(_POLL_S)
