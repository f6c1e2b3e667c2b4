"""Play a hall with the real shells to its end, and look at what became of it."""

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from tramontane.kube.resources import BLADES, GANGS
from tramontane.lab.fleet import Layout
from tramontane.lab.sim.bodies import job_of, pool_of
from tramontane.lab.sim.client import Weather
from tramontane.lab.sim.engine import START_S
from tramontane.lab.sim.faults import KINDS, Fault
from tramontane.lab.sim.iron import Times
from tramontane.lab.sim.pace import Course, Pace
from tramontane.lab.sim.shells import Hall
from tramontane.lab.sim.virtual import VirtualLoop, run

T = TypeVar("T")
JOB = "ml/run"
PACE = Pace(step_s=1, steps=60, save_s=5, reload_s=20)
READY_S = 60.0
GPU, MEMORY, FIRMWARE, NETWORK, HOST = KINDS


def virtually(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run on a virtual clock."""
    return run(work(), VirtualLoop(START_S))


def a_fault(at_s: float, blade: str, kind: Any = GPU, *, parts: bool = False) -> Fault:
    return Fault(at_s, blade, kind, needs_parts=parts, draw=0.5)


@dataclass(frozen=True, slots=True)
class Played:
    """What was there at the end."""

    job: dict[str, Any]
    gang: dict[str, Any]
    blades: dict[str, str]
    course: Course
    violations: list[str]
    said: list[str]

    @property
    def incidents(self) -> list[tuple[str, str, str, tuple[int, ...]]]:
        return [
            (one["cause"], one["code"], one.get("blade", ""), tuple(one["seats"]))
            for one in self.job["status"]["incidents"]
        ]


def play(
    blades: int,
    nodes: int,
    faults: Sequence[Fault],
    until_s: float,
    *,
    spares: int = 0,
    weather: Weather | None = None,
    times: Times | None = None,
    **spec: Any,
) -> Played:
    """Return what becomes of a hall with one job after these faults; times from its submission."""

    async def work() -> Played:
        layout = Layout(blades=blades)
        pool = pool_of(layout, max_unavailable="50%")
        async with Hall(layout, pool=pool, pace=PACE, weather=weather, times=times) as hall:
            await hall.play([], READY_S)
            hall.submit(job_of("run", nodes, spares=spares, **spec))
            moved = [
                Fault(f.at_s + READY_S, f.blade, f.kind, f.needs_parts, f.draw) for f in faults
            ]
            await hall.play(moved, READY_S + until_s)
            return Played(
                job=hall.job(JOB),
                gang=hall.api.get(GANGS, "run", "ml"),
                blades={
                    raw["metadata"]["name"]: raw["status"]["state"]
                    for raw in hall.api.objects(BLADES)
                },
                course=hall.machines.courses[JOB],
                violations=[str(one) for one in hall.judge.violations()],
                said=[f"{name} {reason} {note}" for _, name, reason, note in hall.recorder.said],
            )

    return virtually(work)
