"""Decide as the scheduler's process does: the engine, and what it learns from pass to pass."""

from collections.abc import Mapping

from tramontane.scheduler import engine
from tramontane.scheduler.engine import Pass
from tramontane.scheduler.fleet import Fleet
from tramontane.scheduler.forecast import Learner
from tramontane.scheduler.gangs import GangRecord
from tramontane.scheduler.snapshot import Pods
from tramontane.scheduler.timetable import Promise


class Scheduler:
    """A policy that remembers promises and starts, as the cycle does; new for each run."""

    def __init__(self) -> None:
        self._learner = Learner()
        self._promises: Mapping[str, Promise] = {}

    def __call__(
        self, fleet: Fleet, gangs: Mapping[str, GangRecord], pods: Pods, now_s: float
    ) -> Pass:
        """Return the outcome of every gang."""
        done = engine.decide(
            fleet,
            gangs,
            pods,
            now_s,
            forecast=self._learner.forecast,
            promises=self._promises,
        )
        self._promises = done.promises
        started = [
            key
            for key, outcome in done.outcomes.items()
            if outcome.placement is not None and gangs[key].placement is None
        ]
        self._learner.started(started, now_s)
        self._learner.waits(done.promised(), now_s)
        return done
