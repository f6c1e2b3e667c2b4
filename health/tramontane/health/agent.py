"""Run the agent of one blade: take updates, fold them, write what changed, give a heartbeat.

Tasks that share the latest update:

1. *watch* takes updates from a probe and never stops, whatever NVML does; the host's probe (kernel
   log, sysfs) has a watch of its own, and goes on while NVML's hangs;
2. *publish* waits for the Blade, reads the last report back, and from then on writes
   `status.report` by server-side apply when, and only when, it has changed (report.urgency);
3. *beat* renews the Lease `blade-<node>`: its silence is how the operator sees that the agent
   died, so it stops with the agent and with nothing else.

The API server may be away: what was seen is kept folded, and the newest state is written when it
is back, after a pause with jitter so that a fleet does not return all at once.

A Blade that was made anew has no report, and nothing here would change to write one; so the Blade
is read again every `refresh_s`, and more often while something is wrong with it: the same look
brings what ends faults, `spec.release` from a person and `status.repair` from the operator. Where a
reset may begin it is read most often: it is refused as long as we look at the GPUs (pause.py).
"""

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Any

from tramontane.api import clock as api_clock
from tramontane.api.blade import Action, Blade, BladeRepair, Release, Report
from tramontane.api.errors import TramontaneError
from tramontane.api.names import API_VERSION, MANAGER_AGENT, SYSTEM_NAMESPACE, heartbeat_lease
from tramontane.health import report as reports
from tramontane.health import sources
from tramontane.health.backoff import Backoff
from tramontane.health.checks import session
from tramontane.health.checks.window import remember
from tramontane.health.device import Event, Reading, Sample, Unresponsive, Update
from tramontane.health.host import HostReading
from tramontane.health.ledger import is_noted
from tramontane.health.metrics import Metrics
from tramontane.health.pause import Pausing
from tramontane.health.probe import HostWatch, Probe
from tramontane.health.report import Seen, Urgency
from tramontane.kube.client import Client, NotFound
from tramontane.kube.lease import renew_heartbeat
from tramontane.kube.resources import BLADES

VERSION = metadata.version("tramontane")

# Events that came while the Blade was not there yet; more than that say nothing new.
_LEAST_WAIT_S = 0.001
_MAX_PENDING = 4096

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Timing:
    """How long the agent waits for what (s)."""

    heartbeat_s: float = 30.0
    lease_s: float = 45.0
    refresh_s: float = 60.0
    refresh_faulty_s: float = 10.0
    refresh_reset_s: float = 2.0
    later_s: float = 30.0
    retry_s: float = 0.5
    max_retry_s: float = 10.0


class Agent:
    """The agent of one blade. Owns `Blade.status.report` and the Lease `blade-<node>`.

    Args:
        node_name: name of the Node and of its Blade.
        probe: where updates come from: `ChildProbe`, or a `FakeDevice` for a simulated blade.
        host_probe: `HostProbe`; None where there is no host to look at.
        client: the way to the API server; may be shared by many agents.
        namespace: where the Lease lives.
        timing: how long to wait for what.
        disabled: names of checks that are switched off.
        clock: wall clock (Unix seconds).
        metrics: where to count; None for a simulated blade.
    """

    def __init__(
        self,
        node_name: str,
        probe: Probe,
        client: Client,
        *,
        host_probe: HostWatch | None = None,
        namespace: str = SYSTEM_NAMESPACE,
        timing: Timing | None = None,
        disabled: frozenset[str] = frozenset(),
        clock: Callable[[], float] = time.time,
        rng: Callable[[], float] = random.random,
        metrics: Metrics | None = None,
    ) -> None:
        self.node_name = node_name
        self._nvml = Pausing(probe)
        self._host_probe = host_probe
        self._probes = (self._nvml,) if host_probe is None else (self._nvml, host_probe)
        self._client = client
        self._namespace = namespace
        self._timing = timing or Timing()
        self._disabled = disabled
        self._clock = clock
        self._rng = rng
        self._metrics = metrics
        self._news = asyncio.Event()
        self._reading: Reading | None = None
        self._host: HostReading | None = None
        self._previous: tuple[Sample, ...] = ()
        self._unresponsive: Unresponsive | None = None
        self._pending: deque[Event] = deque(maxlen=_MAX_PENDING)
        self._report: Report | None = None
        self._published: Report | None = None
        self._began = 0.0
        self._began_with: Report | None = None
        self._release: Release | None = None
        self._released_at: float | None = None
        self._repair: BladeRepair | None = None
        self._written_at = 0.0
        self._read_at = 0.0
        self._jitter = 1.0
        self._reported = False

    @property
    def reported(self) -> bool:
        """Return whether the API server has a report of this process's making, or its equal."""
        return self._reported

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set; then end the probe in order."""
        self._began = asyncio.get_running_loop().time()
        tasks = [
            asyncio.create_task(work, name=f"{self.node_name}: {name}")
            for name, work in (
                ("stop", stop.wait()),
                *(("watch", self._watch(probe)) for probe in self._probes),
                ("publish", self._publish()),
                ("beat", self._beat()),
            )
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for probe in self._probes:
                await probe.aclose()

    # 1. watch

    async def _watch(self, probe: Probe) -> None:
        backoff = self._backoff()
        while True:
            try:
                self._absorb(await probe.next())
                backoff.reset()
            except (OSError, ValueError) as error:  # no child could be started, or it talks rubbish
                log.warning("taking an update from the probe failed error=%r", str(error))
                await asyncio.sleep(backoff.next())

    def _absorb(self, update: Update) -> None:
        if update.reading is not None:
            self._reading, self._unresponsive = update.reading, None
        if update.unresponsive is not None:
            self._unresponsive = update.unresponsive
        if update.host is not None:
            self._host = update.host
        self._pending.extend(update.events)
        if self._metrics is not None:
            self._metrics.saw(update)
        self._news.set()

    # 2. publish

    async def _publish(self) -> None:
        await self._read_back(waiting=True)
        self._report = self._began_with = self._published
        backoff = self._backoff()
        while True:
            if self._refresh_in_s() <= 0:
                await self._read_back(waiting=False)
            loop_time = asyncio.get_running_loop().time()
            pause_s = self._nvml.mind(self._repair)
            if pause_s is not None and self._metrics is not None:
                self._metrics.left()
            wait_s = self._refresh_in_s()
            if self._reading is None and self._unresponsive is None:
                self._news.clear()  # NVML has said nothing yet; what the host says is kept
            else:
                wanted = self._fold()
                wait_s = self._refresh_in_s()
                urgency = reports.urgency(self._published, wanted)
                due_s = max(0.0, self._written_at + self._timing.later_s - loop_time)
                if urgency is Urgency.NOW or (urgency is Urgency.LATER and due_s == 0):
                    if await self._write(wanted):
                        backoff.reset()
                        continue
                    wait_s = backoff.next()
                    await asyncio.sleep(wait_s)
                    continue
                self._reported = True
                if urgency is Urgency.LATER:
                    wait_s = min(wait_s, due_s)
                settles_in_s = reports.settles_in(wanted, self._clock())
                if settles_in_s is not None:
                    wait_s = min(wait_s, settles_in_s)
            if pause_s is not None:
                wait_s = min(wait_s, pause_s)
            # A timer may fire a hair before its time; the rest must not be waited for in a spin.
            await self._wait_for_news(max(wait_s, _LEAST_WAIT_S))

    def _fold(self) -> Report:
        now = self._clock()
        if self._released_at is not None:  # not later than now, though the clock was set back
            self._released_at = min(self._released_at, now)
        reading = self._merged()
        gpus = sources.addresses(self._report, reading)
        events = tuple(
            sources.located(event, gpus)
            for event in self._pending
            if self._is_news(event, reading, now)
        )
        self._pending.clear()
        self._news.clear()
        seen = Seen(
            reading=reading,
            unresponsive=None if self._nvml.blind else self._unresponsive,
            events=events,
            released_at=self._released_at,
            disabled=self._disabled,
            previous=self._previous,
            repair=self._repair,
        )
        self._report = reports.fold(self._report, seen, now, VERSION)
        if reading is not None and self._unresponsive is None and not self._nvml.blind:
            self._previous = remember(self._previous, Sample(now, reading))
        if self._metrics is not None:
            self._metrics.reports(self._report)
        return self._report

    def _merged(self) -> Reading | None:
        """Return what both probes last saw as one reading.

        NVML may have said nothing yet but that it hangs; the host is known all the same.
        """
        reading = self._reading
        if reading is None and self._host is not None and self._unresponsive is not None:
            reading = Reading(self._unresponsive.boot_id, session_error="NotRead")
        if reading is not None and self._nvml.blind:
            left = session.LEFT
            reading = replace(reading, gpus=(), session_error=left, events_error=left)
        if reading is None or self._host is None:
            return reading
        return replace(reading, host=self._host)

    def _is_news(self, event: Event, reading: Reading | None, now: float) -> bool:
        boot_id = "" if reading is None else reading.boot_id
        began_at = now - (asyncio.get_running_loop().time() - self._began)
        return sources.is_news(event, self._began_with, boot_id, self._released_at, began_at)

    async def _write(self, wanted: Report) -> bool:
        """Apply the report; False where the API server did not take it."""
        body = {
            "apiVersion": API_VERSION,
            "kind": "Blade",
            "metadata": {"name": self.node_name},
            "status": {"report": wanted.to_dict()},
        }
        try:
            await self._client.apply(BLADES, body, manager=MANAGER_AGENT, subresource="status")
        except NotFound:
            log.info("blade is gone blade=%s", self.node_name)
            self._published = None
            await self._read_back(waiting=True)
            return True
        except TramontaneError as error:
            log.warning("writing the report failed blade=%s error=%r", self.node_name, str(error))
            return False
        self._published = wanted
        self._written_at = asyncio.get_running_loop().time()
        if self._metrics is not None:
            self._metrics.wrote(wanted)
        return True

    async def _read_back(self, *, waiting: bool) -> None:
        """Take over what the API has of this blade; `waiting`: until it has a Blade at all."""
        backoff = self._backoff()
        self._jitter = 0.5 + self._rng()
        while True:
            try:
                self._take_over(await self._client.get(BLADES, self.node_name))
            except NotFound:
                self._published = None
                log.debug("waiting for the blade blade=%s", self.node_name)
            except TramontaneError as error:
                log.warning(
                    "reading the blade failed blade=%s error=%r", self.node_name, str(error)
                )
            else:
                waiting = False
            self._read_at = asyncio.get_running_loop().time()
            if not waiting:
                return
            await asyncio.sleep(backoff.next())

    def _take_over(self, raw: dict[str, Any]) -> None:
        blade = Blade.model_validate(raw)
        self._published = blade.status.report
        self._repair = blade.status.repair
        release = blade.spec.release
        if release is not None and release.at is not None and release != self._release:
            self._release = release
            written_at = _release_written_at(raw)
            times = (release.at, *((written_at,) if written_at else ()))
            self._released_at = min(self._clock(), *map(api_clock.parse, times))
            if self._host_probe is not None:
                self._host_probe.forget(self._released_at)

    async def _wait_for_news(self, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await self._news.wait()
        except TimeoutError:
            return

    def _is_faulty(self) -> bool:
        return self._report is not None and not all(map(is_noted, self._report.faults))

    def _refresh_in_s(self) -> float:
        """Return when to read the Blade again."""
        due_at = self._read_at + self._refresh_s() * self._jitter
        return due_at - asyncio.get_running_loop().time()

    def _refresh_s(self) -> float:
        timing = self._timing
        if self._awaits_reset():
            return timing.refresh_reset_s
        return timing.refresh_faulty_s if self._is_faulty() else timing.refresh_s

    def _awaits_reset(self) -> bool:
        """Return whether a reset runs, is due, or may be ordered for what was just reported."""
        repair = self._repair
        if repair is not None and repair.action is Action.RESET and repair.repaired_at is None:
            return True
        asked = self._report is not None and any(
            fault.action is Action.RESET and not is_noted(fault) for fault in self._report.faults
        )
        since_s = asyncio.get_running_loop().time() - self._written_at
        return asked and since_s < self._timing.later_s

    # 3. beat

    async def _beat(self) -> None:
        backoff = self._backoff()
        period_s = self._timing.heartbeat_s
        # The first period is cut, so that agents that start together do not beat together.
        next_s = period_s * (0.2 + 0.8 * self._rng())
        while True:
            try:
                await renew_heartbeat(
                    self._client,
                    heartbeat_lease(self.node_name),
                    self._namespace,
                    self.node_name,
                    self._timing.lease_s,
                )
            except TramontaneError as error:
                log.warning("renewing the heartbeat failed error=%r", str(error))
                await asyncio.sleep(backoff.next())
                continue
            backoff.reset()
            await asyncio.sleep(next_s)
            next_s = period_s

    def _backoff(self) -> Backoff:
        return Backoff(self._timing.retry_s, self._timing.max_retry_s, self._rng)


def _release_written_at(raw: dict[str, Any]) -> str | None:
    """Return when spec.release was last written, by the API server's clock.

    A release says its time by the clock of whoever made it; where that is ahead, it must not end
    what came after it, neither now nor after the agent's restart.
    """
    entries = raw["metadata"].get("managedFields", ())
    times = [
        entry["time"]
        for entry in entries
        if "f:release" in entry.get("fieldsV1", {}).get("f:spec", {}) and "time" in entry
    ]
    return max(times, default=None)
