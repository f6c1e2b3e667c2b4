"""Watch the engine of seat 0 through its own HTTP pages, and bring it its adapters.

What the pages say becomes a Reading; `servingrules.py` says what it means. Standard library only,
Python 3.8 or later.
"""
# ruff: noqa: PTH123 - pathlib costs a third of the start-up time

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tramontane.controllers.inferencedeployment.podfiles import servingrules
    from tramontane.controllers.inferencedeployment.podfiles.servinghttp import (
        NOT_FOUND,
        OK,
        PING_S,
        REFUSED,
        SILENT,
        Aside,
        ask,
    )
    from tramontane.controllers.inferencedeployment.podfiles.servingrules import (
        AdapterJob,
        Reading,
    )
else:  # in the pod, the files lie side by side
    import servingrules
    from servinghttp import NOT_FOUND, OK, PING_S, REFUSED, SILENT, Aside, ask
    from servingrules import Reading

METRICS_S = 5.0
# The engine copies an adapter to every GPU between two steps.
ADAPTER_S = 120.0
# A busy server may answer late for so long before it gets no more requests.
SLOW_S = 10.0


_SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)")
_ENGINE = re.compile(r'(?:^|,)\s*(?:engine|dp_rank)="([^"]*)"')


def read_metrics(text: str, steps_metric: str, busy_metrics: Iterable[str]) -> Reading:
    """Return the reading of a page of metrics; what is not on it counts 0.

    Where steps and gauges do not speak of the same engines, all of them count as one; without a
    metric of steps, the requests are there but say nothing of a hang.
    """
    gauges = list(busy_metrics)
    steps: dict[str, float] = {}
    busy: dict[str, float] = {}
    running = 0.0
    for line in text.splitlines():
        found = _SAMPLE.match(line)
        if not found or (found.group(1) != steps_metric and found.group(1) not in gauges):
            continue
        name, labels, value = found.group(1), found.group(2) or "", _value(found.group(3))
        engine = _ENGINE.search(labels)
        key = engine.group(1) if engine else ""
        of = steps if name == steps_metric else busy
        of[key] = of.get(key, 0.0) + value
        running += value if name in gauges[:1] else 0.0
    if steps and steps.keys() == busy.keys():
        return Reading({key: (count, busy[key]) for key, count in steps.items()}, running)
    total = sum(busy.values())
    if not steps_metric:
        return Reading({"": (0.0, 0.0)}, running, total)
    return Reading({"": (sum(steps.values()), total)}, running)


def connections(port: int, folder: str = "/proc/net") -> int:
    """Return how many connections are open to a port of this network namespace."""
    count = 0
    for name in ("tcp", "tcp6"):
        with suppress(OSError), open(f"{folder}/{name}", encoding="ascii") as file:
            rows = [line.split() for line in file][1:]
            # Local address and state; 01 is established.
            count += sum(row[1].endswith(f":{port:04X}") and row[3] == "01" for row in rows)
    return count


def _value(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if value == value else 0.0  # noqa: PLR0124 - only NaN differs from itself


@dataclass(frozen=True)
class EngineApi:
    """Ask the engine, at its own port; the names of its metrics differ by engine."""

    port: int
    health_path: str
    steps_metric: str
    busy_metrics: tuple[str, ...]
    key: str = ""

    def health(self) -> int:
        """Return the status of its health page."""
        return self._ask(self.health_path, PING_S)[0]

    def reading(self) -> Reading | None:
        """Return what its metrics say, None where it does not say.

        An engine without gauges lives as long as its health page answers anything, and has as many
        requests as connections: clients that keep idle ones for later make it look busier.
        """
        if not self.busy_metrics:
            if self.health() <= 0:
                return None
            count = connections(self.port)
            return Reading({"": (0.0, 0.0)}, count, count)
        status, text = self._ask("/metrics", METRICS_S)
        return read_metrics(text, self.steps_metric, self.busy_metrics) if status == OK else None

    def nudge(self, timeout_s: float) -> None:
        """Have it make one token: who can, counts a step and puts its gauges right.

        vLLM leaves its gauges as they are when the last request is aborted: it then looks busy and
        frozen while it has nothing to do.
        """
        names = self._models()
        if names:
            body = {"model": next(iter(names)), "prompt": "a", "max_tokens": 1}
            self._ask("/v1/completions", timeout_s, body)

    def change(self, job: AdapterJob) -> str:
        """Load or unload an adapter; return what went wrong, empty where nothing did."""
        body = {"lora_name": job.name}
        if job.verb == "load":
            body["lora_path"] = job.path
        status, text = self._ask(f"/v1/{job.verb}_lora_adapter", ADAPTER_S, body)
        if status == OK or (job.verb == "unload" and status == NOT_FOUND):
            return ""
        # A call that was not answered in time may have done its work.
        if job.verb == "load" and self._models().get(job.name) == job.path:
            return ""
        if status <= 0:
            return "no answer" if status == SILENT else "nobody listens"
        return f"{status} {_message(text)}".rstrip()

    def _models(self) -> dict[str, str]:
        status, text = self._ask("/v1/models", METRICS_S)
        with suppress(ValueError, KeyError, TypeError, AttributeError):
            if status == OK:
                return {one["id"]: str(one.get("root")) for one in json.loads(text)["data"]}
        return {}

    def _ask(
        self, path: str, timeout_s: float, body: Mapping[str, Any] | None = None
    ) -> tuple[int, str]:
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else None
        return ask("127.0.0.1", self.port, path, timeout_s, body=body, headers=headers)


def _message(text: str) -> str:
    """Return the sentence in an error body of the OpenAI kind, or its beginning."""
    try:
        body = json.loads(text)
        error = body.get("error", body)
        return str(error.get("message", error))[:300]
    except (ValueError, AttributeError):
        return text.strip()[:300]


class Sight:
    """Hold what is seen of the engine, from its start on."""

    def __init__(self, api: EngineApi, hang_after_s: float, look_s: float) -> None:
        # Between two looks nobody can tell.
        self._hang_after_s = max(hang_after_s, 3 * look_s) if hang_after_s else 0.0
        self._look_s = look_s
        self._ask_health = Aside(api.health, look_s)
        self._ask_metrics = Aside(api.reading, look_s)
        self._nudge = Aside(api.nudge)
        self._watch = servingrules.EngineWatch(self._hang_after_s)
        self._nudged = False
        self._status = REFUSED
        self._healthy_at = float("-inf")
        self.has_served = False
        #: The last reading.
        self.reading: Reading | None = None
        self._read_at = float("-inf")

    def look(self, now: float, *, is_draining: bool) -> bool:
        """Look at the pages; return whether the engine hangs.

        One that is still starting cannot. Of one that drains only the requests matter; ours for its
        health would be among them.
        """
        for status in self._ask_health.take() if is_draining else self._ask_health.turn(now):
            self._status = status
            if status == OK:
                self._healthy_at, self.has_served = now, True
        if not self.has_served:
            return False
        fresh: Reading | None = None
        for fresh in self._ask_metrics.turn(now):
            if fresh is not None:
                self.reading, self._read_at = fresh, now
        hangs = self._watch.seen(now, fresh, is_sick=self._status > 0 and self._status != OK)
        self._nudge_if_still(now)
        return hangs

    def _nudge_if_still(self, now: float) -> None:
        """Ask for a token half-way to the verdict, once each time."""
        self._nudge.take()
        after_s = max(self._hang_after_s / 2, 2 * self._look_s)
        is_still = self._hang_after_s > 0 and self._watch.still_s(now) >= after_s
        if is_still and not self._nudged and self._nudge.is_free:
            self._nudge.begin(self._hang_after_s)
        self._nudged = is_still

    def busy(self, now: float) -> float | None:
        """Return the requests in the engine, None where its metrics have not just said so."""
        is_fresh = now - self._read_at <= 3 * self._look_s
        return self.reading.busy if self.reading and is_fresh else None

    @property
    def health(self) -> str:
        """Return what its health page said last."""
        words = {SILENT: "no answer", REFUSED: "nobody listens"}
        return f"health: {words.get(self._status, self._status)}"

    def why_unhealthy(self, now: float) -> str:
        """Return why it should get no requests now; empty where it should."""
        if not self.has_served:
            return "starting"
        is_slow = self._status == SILENT and now - self._healthy_at < SLOW_S
        return "" if self._status == OK or is_slow else self.health

    def why_hung(self, now: float) -> str:
        """Return what the verdict rests on."""
        still_s = self._watch.still_s(now)
        busy = self.busy(now)
        if busy is None:
            return f"the engine's metrics do not answer, no step for {still_s:.0f} s; {self.health}"
        return f"no step for {still_s:.0f} s with {busy:g} requests; {self.health}"


class Shelf:
    """Bring the engine's adapters to what is wanted, and know when they were so first."""

    def __init__(self, api: EngineApi) -> None:
        self._call = Aside(api.change)
        self._job: AdapterJob | None = None
        self.adapters = servingrules.Adapters()
        #: Whether all wanted ones have been there once; later ones keep no replica out.
        self.was_settled = False

    def turn(self, now: float, wanted: Mapping[str, str]) -> str:
        """Go on; return what has just happened, empty where nothing has."""
        self.adapters.want(wanted)
        event = ""
        for error in self._call.take():
            assert self._job is not None
            self.adapters.done(now, self._job, error)
            event = f"{self._job.verb} {self._job.name}: {error or 'done'}"
            self._job = None
        self.was_settled = self.was_settled or self.adapters.settled
        if self._job is None:
            self._job = self.adapters.next(now)
            if self._job is not None:
                self._call.begin(self._job)
        return event
