"""Run a big hall for weeks: one pool, one job, the pure cores of all three controllers.

    faults ─▶ Ward (nodepool.plan) ─▶ Places (scheduler.decide) ─▶ Crew (trainingjob.plan) ─▶ Course

The shells of the processes (shells.py) would carry the same decisions through an API server in
memory at some 0.2 ms for each pod of the gang and each fault: at 2,048 blades minutes for each
day. Here the objects are handed over as they are. That both say the same of the same hall is
tested (tests/sim/test_agreement.py).
"""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tramontane.api.nodepool import NodePool
from tramontane.api.trainingjob import TrainingJobStatus
from tramontane.controllers.trainingjob.goodput import Ledger
from tramontane.lab.fleet import Layout
from tramontane.lab.sim.agenda import Agenda
from tramontane.lab.sim.bodies import job_of, pool_of
from tramontane.lab.sim.crew import Crew, created
from tramontane.lab.sim.faults import DAY_S, Fault, Model, faults
from tramontane.lab.sim.iron import Times
from tramontane.lab.sim.pace import Pace
from tramontane.lab.sim.places import Places
from tramontane.lab.sim.ward import Ward

START_S = 1_800_000_000.0
_WARM_S = 60.0


@dataclass(frozen=True, slots=True)
class Setup:
    """One hall and its job.

    Attributes:
        job_blades: seats of the job; `spares` blades are held for it besides.
        restart: `InPlace` or `Gang` (TrainingJob.spec.recovery.restart).
        stall_after: how long no step may come (TrainingJob.spec.progress.stallAfter).
        max_unavailable: how many blades may be out (NodePool.spec.remediation.maxUnavailable).
    """

    layout: Layout
    job_blades: int
    spares: int
    days: float
    seed: int
    pace: Pace
    times: Times = field(default_factory=Times)
    model: Model = field(default_factory=Model)
    restart: str = "InPlace"
    stall_after: str = "auto"
    max_unavailable: str = "10%"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one run. Times in seconds.

    Attributes:
        ettr: share of the time in steps that were not done again, by the model's own count.
        ledger: the same by the job's goodput ledger, and `lost` by cause from it.
        faults: that hit a blade; `interruptions` of the job.
        waits: for each interruption how long training stood, until its first step.
    """

    ettr: float
    ledger: float
    lost: dict[str, float]
    faults: int
    interruptions: int
    waits: tuple[float, ...]
    rework_s: float
    looks: int
    passes: int
    halts: int
    status: TrainingJobStatus = field(repr=False)


class Engine:
    """One run. `progress` hears the share that is done, now and then."""

    def __init__(self, setup: Setup, progress: Callable[[float], None] = lambda _: None) -> None:
        self.setup = setup
        self._progress = progress
        self.agenda = Agenda(START_S)
        layout = setup.layout
        raw_pool = pool_of(layout, max_unavailable=setup.max_unavailable)
        raw_pool["metadata"] |= {"uid": "pool", "generation": 1}
        pool = NodePool.model_validate(raw_pool)
        self.ward = Ward(self.agenda, layout, setup.times, pool)
        amounts = {"cpu": layout.cpu, "memory": layout.memory, "nvidia.com/gpu": str(layout.gpus)}
        self.places = Places(self.agenda, self.ward, pool, amounts)
        raw = job_of(
            "run",
            setup.job_blades,
            spares=setup.spares,
            recovery={"restart": setup.restart},
            progress={"stallAfter": setup.stall_after},
        )
        self.ward.gang = "ml/run"
        self.crew = Crew(
            self.agenda,
            self.ward,
            self.places,
            pool,
            job=created(raw, START_S + _WARM_S),
            pace=setup.pace,
        )
        self.hits: list[Fault] = []

    def run(self) -> Outcome:
        """Play all days."""
        with _without_collector():
            self._begin()
            end_s = START_S + _WARM_S + self.setup.days * DAY_S
            setup, layout = self.setup, self.setup.layout
            names = tuple(layout.names())
            for fault in faults(setup.model, names, setup.days, setup.seed, layout.rack):
                self.agenda.run_until(START_S + _WARM_S + fault.at_s)
                if self.ward.fail(fault):
                    self.hits.append(fault)
                self._progress(fault.at_s / DAY_S / self.setup.days)
            self.agenda.run_until(end_s)
            self.crew.settle()
        return self._outcome()

    def _begin(self) -> None:
        self.ward.deliver()
        self.places.start()
        self.ward.changed = self._blade_changed
        self.ward.died = self.crew.ranks_died
        self.ward.back = self.crew.machine_back
        self.places.told = self.crew.gang_told
        self.agenda.run_until(START_S + _WARM_S)
        self.crew.submit()

    def _blade_changed(self, name: str) -> None:
        self.places.blade_changed(name)
        self.crew.blade_changed(name)

    def _outcome(self) -> Outcome:
        crew, now = self.crew, self.agenda.now
        wall_s = self.setup.days * DAY_S
        status = crew.job.status
        ledger = Ledger.of(status.goodput)
        lost: dict[str, float] = {}
        total_ms = ledger.total_ms or 1
        for name in type(ledger).__dataclass_fields__:
            lost[name] = getattr(ledger, name) / 1000
        productive_s = lost.pop("productive")
        return Outcome(
            ettr=crew.course.retained_s(now) / wall_s,
            ledger=productive_s * 1000 / total_ms,
            lost=lost,
            faults=len(self.hits),
            interruptions=len(crew.ranks.waits),
            waits=crew.ranks.waits,
            rework_s=crew.course.reworked * self.setup.pace.step_s,
            looks=crew.looks,
            passes=self.places.passes,
            halts=self.ward.halts,
            status=status,
        )


@contextmanager
def _without_collector() -> Iterator[None]:
    """Keep the garbage collector from walking through a hall that does not change."""
    was = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if was:
            gc.enable()
