"""Run the real controllers and the real scheduler over an API server in memory.

The shells are those of the processes, queues, informers and all: what differs from a cluster is
only what they speak to, and that time is virtual. Small halls run a day in seconds; a hall of
thousands is `engine.py`'s, which drives the same pure cores without the shells' cost.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, cast

from tramontane.api.names import MANAGER_OPERATOR, MANAGER_SCHEDULER, SYSTEM_NAMESPACE
from tramontane.controllers import informers as caches
from tramontane.controllers.nodepool.reconcile import NodePoolController
from tramontane.controllers.trainingjob import TrainingJobController
from tramontane.kube.client import Client
from tramontane.kube.events import EventRecorder
from tramontane.kube.resources import NODEPOOLS, TRAININGJOBS, Resource
from tramontane.lab.fleet import Layout
from tramontane.lab.sim.apiserver import ApiServer
from tramontane.lab.sim.bodies import pool_of
from tramontane.lab.sim.client import SimClient, Weather
from tramontane.lab.sim.faults import Fault
from tramontane.lab.sim.history import Event
from tramontane.lab.sim.iron import Times
from tramontane.lab.sim.judge import Judge
from tramontane.lab.sim.machines import Machines
from tramontane.lab.sim.pace import Pace, SimFollowers
from tramontane.lab.sim.virtual import VirtualLoop
from tramontane.lab.sim.watching import collect_garbage, forget_often
from tramontane.scheduler.cycle import Cycle
from tramontane.scheduler.world import World

Raw = dict[str, Any]


@dataclass(slots=True)
class Recorder:
    """Keep what would become Events: when, about whom, reason, note."""

    wall: Callable[[], float]
    said: list[tuple[float, str, str, str]] = field(default_factory=list)

    def record(self, regarding: Any, type_: str, reason: str, note: str, action: str) -> None:
        """Keep an Event."""
        del type_, action
        self.said.append((self.wall(), str(regarding["name"]), str(reason), note))

    async def run(self) -> None:
        """Write nothing."""
        await asyncio.Event().wait()


class Hall:
    """A hall with all its controllers; use it by `async with`, on a VirtualLoop.

    Attributes:
        api, machines: what the controllers work on, and what stands in the hall.
        judge: what was broken of the invariants.
        recorder: what the controllers said.
    """

    def __init__(
        self,
        layout: Layout,
        *,
        pool: Raw | None = None,
        times: Times | None = None,
        pace: Pace | None = None,
        weather: Weather | None = None,
    ) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        self.loop, self.weather = loop, weather or Weather()
        # The shells spread their waits by the global generator.
        random.seed(self.weather.seed)
        self.api = ApiServer(loop.wall)
        self.machines = Machines(self.api, layout, times or Times(), pace or Pace(), wall=loop.wall)
        self.judge = Judge(self.api, loop.time)
        self.pool = pool or pool_of(layout)
        self.recorder = Recorder(loop.wall)
        self._tasks: list[asyncio.Task[Any]] = []
        operator, scheduler = self.client(MANAGER_OPERATOR), self.client(MANAGER_SCHEDULER)
        self._informers = caches.connect(operator, SYSTEM_NAMESPACE)
        recorder = cast("EventRecorder", self.recorder)
        self.nodepools = NodePoolController(
            operator,
            self._informers,
            recorder,
            SYSTEM_NAMESPACE,
            clock=loop.wall,
            monotonic=loop.time,
        )
        self.trainingjobs = TrainingJobController(
            operator, cast("Any", self._informers), recorder, loop.wall, logs=self._logs
        )
        self.nodepools.wire()
        self.trainingjobs.wire()
        self._world = World(scheduler)
        self._cycle = Cycle(scheduler, self._world, clock=loop.wall)
        self.api.heard.append(self._heard)

    def _logs(self, notify: Callable[[str], None]) -> SimFollowers:
        self.machines.stepped = notify
        return SimFollowers(self.machines.courses.get, self.loop.wall)

    def client(self, name: str) -> Client:
        """Return a client that writes as `name`."""
        return cast("Client", SimClient(self.api, name, self.weather))

    async def __aenter__(self) -> Self:
        self.machines.deliver()
        self.api.apply(NODEPOOLS, self.pool, "people", None, force=True)
        stop = asyncio.Event()
        self._start(self._informers.run(), *(follow() for follow in self._world.following()))
        self._start(collect_garbage(self.api), forget_often(self.api, self.weather.forget_every_s))
        self._start(self.machines.run())
        await self._informers.wait_synced()
        self._start(self.nodepools.run(stop), self.trainingjobs.run(stop), self._cycle.run(stop))
        self.nodepools.pools.add(self.pool["metadata"]["name"])
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def check(self) -> None:
        """Raise what has ended one of the hall's tasks, if anything has."""
        for task in self._tasks:
            if task.done():
                task.result()

    def submit(self, job: Raw) -> Raw:
        """Create a TrainingJob, as a person would."""
        return self.api.create(TRAININGJOBS, job, None, "people")

    def job(self, key: str) -> Raw:
        """Return a TrainingJob as it is stored."""
        namespace, _, name = key.partition("/")
        return self.api.get(TRAININGJOBS, name, namespace)

    async def play(self, faults: Sequence[Fault], until_s: float) -> None:
        """Let the faults happen in their time; return at `until_s` of the loop's clock."""
        for fault in faults:
            if fault.at_s >= until_s:
                break
            await asyncio.sleep(max(0.0, fault.at_s - self.loop.time()))
            self.machines.fail(fault)
        await asyncio.sleep(max(0.0, until_s - self.loop.time()))
        self.check()

    def _start(self, *works: Any) -> None:
        self._tasks += [asyncio.create_task(work) for work in works]

    def _heard(self, event: Event) -> None:
        """Push keys as kopf does."""
        sinks: dict[Resource, Callable[[str], None]] = {
            NODEPOOLS: self.nodepools.pools.add,
            TRAININGJOBS: self.trainingjobs.queue.add,
        }
        if (sink := sinks.get(event.resource)) is not None:
            self.loop.call_later(self.weather.watch_s, sink, event.key)
