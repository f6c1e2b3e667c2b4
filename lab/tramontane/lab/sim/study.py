"""Ask the simulator what a planner asks: what a hall, a policy and a checkpoint are worth.

A *case* is one hall under one policy; it is played once for each seed. The same seed brings the
same faults to every case, so that what differs between two cases is what they do about them.
"""

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tramontane.api.blade import Action
from tramontane.lab.fleet import Layout
from tramontane.lab.sim import formula
from tramontane.lab.sim.engine import Engine, Outcome, Setup
from tramontane.lab.sim.faults import Model
from tramontane.lab.sim.iron import Times
from tramontane.lab.sim.pace import Pace

IN_PLACE, GANG = "in-place", "gang"
# A pool clears a fault after it has been gone for so long (NodePool spec.health.clearAfter).
CLEAR_S = 600.0
# What came beyond this with a replacement was waiting for a blade.
_WAITED_S = 60.0
# Who never fails need never save; once a day all the same.
_LONGEST_INTERVAL_S = 86400.0
_LOST = {
    "restart": ("detect", "replace", "resume", "restart"),
    "rework": ("rework",),
    "checkpoint": ("checkpoint",),
    "hang": ("hang",),
    "start": ("queue", "start"),
}


@dataclass(frozen=True, slots=True)
class Case:
    """One hall, its job and the policy. Times in seconds.

    Attributes:
        name: what tells it from the others, for people.
        blades: of the hall; `job_blades` of them train, `spares` are held for them.
        interval_s: of work between two checkpoints; None: Young's, for the job's failure rate.
        reload_s: from a replacement's pod to its first step.
        policy: `in-place` replaces one pod and keeps the others; `gang` makes all anew.
    """

    name: str
    blades: int
    job_blades: int
    spares: int
    days: float = 30.0
    gpus: int = 8
    policy: str = IN_PLACE
    save_s: float = 30.0
    interval_s: float | None = None
    reload_s: float = 60.0
    step_s: float = 5.0
    max_unavailable: str = "10%"
    times: Times = field(default_factory=Times)
    model: Model = field(default_factory=Model)

    @property
    def mean_detect_s(self) -> float:
        """Return what passes on average until the job knows of a fault."""
        total = sum(kind.weight for kind in self.model.kinds)
        silent = sum(kind.weight for kind in self.model.kinds if kind.takes_node) / total
        return (1 - silent) * self.times.detect_s + silent * self.times.node_grace_s

    @property
    def plan(self) -> formula.Plan:
        """Return what the closed formula takes of it."""
        return formula.Plan(
            blades=self.job_blades,
            rate=self.model.rate,
            save_s=self.save_s,
            detect_s=self.mean_detect_s,
            restart_s=self.reload_s,
            interval_s=self.interval_s,
        )

    @property
    def away_s(self) -> float:
        """Return how long a blade is away on average, from its fault until it works again."""
        times, parts = self.times, self.model.parts
        total = sum(kind.weight for kind in self.model.kinds)
        mean_s = 0.0
        for kind in self.model.kinds:
            if kind.takes_node:
                repaired_s = times.repair_s
            else:
                resets = kind.action is Action.RESET
                repaired_s = (times.reset_s if resets else times.reboot_s) + CLEAR_S
            mean_s += kind.weight / total * ((1 - parts) * repaired_s + parts * times.rma_s)
        return mean_s

    def setup(self, seed: int) -> Setup:
        """Return one run of it."""
        pace = Pace.saving_every(
            min(self.plan.every_s, _LONGEST_INTERVAL_S),
            step_s=self.step_s,
            save_s=self.save_s,
            reload_s=max(0.0, self.reload_s - self.times.start_s),
        )
        return Setup(
            layout=Layout(blades=self.blades, gpus=self.gpus),
            job_blades=self.job_blades,
            spares=self.spares,
            days=self.days,
            seed=seed,
            pace=pace,
            times=self.times,
            model=self.model,
            max_unavailable=self.max_unavailable,
            restart="InPlace" if self.policy == IN_PLACE else "Gang",
            # Who restarts the gang by hand does not watch its steps either.
            stall_after="auto" if self.policy == IN_PLACE else f"{2 * self.times.detect_s:g}s",
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a case, over all its seeds."""

    case: Case
    outcomes: tuple[Outcome, ...]

    @property
    def ettr(self) -> float:
        """Return the mean share of time in steps that count."""
        return statistics.fmean(one.ettr for one in self.outcomes)

    @property
    def spread(self) -> tuple[float, float]:
        """Return the least and the most of it among the seeds."""
        found = [one.ettr for one in self.outcomes]
        return min(found), max(found)

    @property
    def ledger(self) -> float:
        """Return the same share as the job's own goodput ledger has it."""
        return statistics.fmean(one.ledger for one in self.outcomes)

    @property
    def interruptions(self) -> float:
        """Return how often the job was interrupted in one run."""
        return statistics.fmean(one.interruptions for one in self.outcomes)

    @property
    def stood_s(self) -> float:
        """Return the mean time from an interruption to the next step."""
        waits = [wait for one in self.outcomes for wait in one.waits]
        return statistics.fmean(waits) if waits else 0.0

    @property
    def waited(self) -> float:
        """Return the share of interruptions in which no blade was free at once."""
        usual_s = self.case.reload_s + max(self.case.times.detect_s, self.case.times.node_grace_s)
        waits = [wait for one in self.outcomes for wait in one.waits]
        late = sum(wait > usual_s + _WAITED_S for wait in waits)
        return late / len(waits) if waits else 0.0

    @property
    def lost(self) -> dict[str, float]:
        """Return the share of time lost by cause, as the ledger has it."""
        whole_s = self.case.days * 86400.0 * len(self.outcomes)
        return {
            cause: sum(one.lost.get(name, 0.0) for one in self.outcomes for name in names) / whole_s
            for cause, names in _LOST.items()
        }

    def to_dict(self) -> dict[str, Any]:
        """Return all of it, for programs. Shares from 0 to 1, times in seconds."""
        case, plan = self.case, self.case.plan
        return {
            "case": case.name,
            "policy": case.policy,
            "blades": case.blades,
            "gpus": case.job_blades * case.gpus,
            "jobBlades": case.job_blades,
            "spares": case.spares,
            "days": case.days,
            "failureRate": case.model.rate,
            "checkpointSeconds": case.save_s,
            "intervalSeconds": round(plan.every_s, 1),
            "reloadSeconds": case.reload_s,
            "detectSeconds": case.times.detect_s,
            "seeds": len(self.outcomes),
            "ettr": round(self.ettr, 5),
            "ettrLeast": round(self.spread[0], 5),
            "ettrMost": round(self.spread[1], 5),
            "ettrLedger": round(self.ledger, 5),
            "ettrFormula": round(plan.ettr, 5) if plan.is_valid else None,
            "interruptions": round(self.interruptions, 1),
            "stoodSeconds": round(self.stood_s, 1),
            "waited": round(self.waited, 4),
            "lost": {cause: round(share, 5) for cause, share in self.lost.items()},
        }


Progress = Callable[[float], None]


def ask(
    cases: Sequence[Case], seeds: Sequence[int], progress: Progress = lambda _: None
) -> Iterator[Answer]:
    """Play all cases with all seeds; yield each case's answer as it is known.

    `progress` hears the share of all runs that is done.
    """
    runs = len(cases) * len(seeds)
    for number, case in enumerate(cases):
        outcomes = []
        for index, seed in enumerate(seeds):
            done = number * len(seeds) + index

            def heard(share: float, done: int = done) -> None:
                progress((done + share) / runs)

            outcomes.append(Engine(case.setup(seed), heard).run())
        yield Answer(case, tuple(outcomes))
    progress(1.0)


def spares_for(case: Case, wait_share: float = 0.01) -> int:
    """Return the spares with which at most that share of failures finds no blade free."""
    return formula.spares_needed(case.job_blades, case.model.rate, case.away_s, wait_share)


def slower(case: Case, times: float) -> Case:
    """Return the case with repairs, by people and of parts, that take `times` as long."""
    slow = replace(
        case.times,
        reset_s=min(case.times.reset_s * times, _LONGEST_REPAIR_S),
        reboot_s=min(case.times.reboot_s * times, _LONGEST_REPAIR_S),
        repair_s=case.times.repair_s * times,
        rma_s=case.times.rma_s * times,
    )
    return replace(case, name=f"repairs {times:g} times as long", times=slow)


# A reset or reboot that takes longer is taken for failed (NVSentinel: 25 min).
_LONGEST_REPAIR_S = 1400.0


def sweep(base: Case) -> list[Case]:
    """Return cases around one, with one thing changed in each: the committed table's rows."""
    spares, saves = base.spares, (5.0, 10.0, 30.0, 60.0, 120.0)
    found = [replace(base, name="base")]
    for count in sorted({0, max(1, spares // 4), max(1, spares // 2), 2 * spares} - {spares}):
        hall = base.blades - base.spares + count
        found.append(replace(base, name=f"spares {count}", spares=count, blades=hall))
    found += [
        replace(base, name=f"checkpoint {save:g}s", save_s=save)
        for save in saves
        if save != base.save_s
    ]
    found += [
        replace(base, name=f"reload {reload:g}s", reload_s=reload)
        for reload in (30.0, 180.0, 600.0)
        if reload != base.reload_s
    ]
    for detect in (10.0, 60.0, 600.0):
        grace = max(detect, base.times.node_grace_s)
        times = replace(base.times, detect_s=detect, node_grace_s=grace)
        found.append(replace(base, name=f"detection {detect:g}s", times=times))
    found += [slower(base, 4.0), without_tramontane(base)]
    return found


def without_tramontane(base: Case, detect_s: float = 600.0) -> Case:
    """Return the same hall without its care: no spares, found late, all pods made anew."""
    times = replace(
        base.times, detect_s=detect_s, node_grace_s=max(detect_s, base.times.node_grace_s)
    )
    name = f"gang restart, found after {detect_s:g}s"
    return replace(base, name=name, policy=GANG, spares=0, times=times)
