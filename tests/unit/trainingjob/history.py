"""Live through a job's life with the real planner: faults, lost writes, restarts, odd clocks.

A History is the cluster around one job of four blades: a scheduler that moves seats, kubelets that
start pods and end them, and a training loop whose every step takes the same time, so that how much
of its time was productive is known exactly: the steps that were kept. The operator is nothing but
`plan`, looked at whenever the dice say so; its status goes through JSON each time it is written.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tramontane.api import clock
from tramontane.api.blade import Blade
from tramontane.api.gang import Gang, GangSpec
from tramontane.api.trainingjob import JobPhase, TrainingJobStatus
from tramontane.controllers.gangpods.actions import Delete
from tramontane.controllers.trainingjob.actions import Plan
from tramontane.controllers.trainingjob.goodput import Cause, Ledger
from tramontane.controllers.trainingjob.observe import World
from tramontane.controllers.trainingjob.plan import plan
from tramontane.controllers.trainingjob.progress import KEPT_SAVES, Exited, Marks, Saved
from tramontane.controllers.trainingjob.status import is_worth_writing
from tramontane.controllers.trainingjob.words import LastWords
from tramontane.kube.views import PodView
from unit.trainingjob.builders import NOW, a_blade, a_gang, a_job, a_node, a_pod, a_pool

SEATS = 4
NAMES = tuple(f"b{number}" for number in range(24))
POOL = a_pool()
NODES = {name: a_node(name) for name in NAMES}
SOUND = {name: a_blade(name) for name in NAMES}
JOB = a_job(
    metadata={"creationTimestamp": clock.utc(NOW)},
    recovery={
        "userFailures": {"max": 1000, "window": "24h"},
        "infraFailures": {"max": 1000, "window": "24h"},
        "backoff": {"base": "1s", "max": "5s"},
        "avoidAfter": 0,
    },
    checkpoint={"grace": "60s"},
    progress={"stallAfter": "2m"},
)
WORDS = LastWords(answered=True, lines=("it was dark",))
EVENTS = ("fault", "degrade", "crash", "exit", "hang", "evict", "preempt", "suspend", "blind")
# Which causes may have less at the next write, by the phase before it: time is moved from them
# when more is known.
MAY_SHRINK: Mapping[JobPhase | None, frozenset[Cause]] = {
    JobPhase.STARTING: frozenset({Cause.START}),
    JobPhase.RECOVERING: frozenset({Cause.RESUME}),
    JobPhase.CHECKPOINTING: frozenset({Cause.CHECKPOINT, Cause.PREEMPTED}),
}


@dataclass(slots=True)
class Pod:
    """One seat's pod as its kubelet has it."""

    seat: int
    node: str
    epoch: int
    created: float
    ready_at: float
    drained: int = 0
    going: bool = False
    failed: bool = False

    def view(self, now: float) -> PodView:
        status: dict[str, object] = {"phase": "Failed" if self.failed else "Running"}
        state: dict[str, object] = {"running": {}}
        if self.failed:
            state = {"terminated": {"exitCode": 1}}
        if now >= self.ready_at and not self.failed:
            status["conditions"] = [{"type": "Ready", "status": "True"}]
            status["podIP"] = f"10.0.0.{self.seat}"
        status["containerStatuses"] = [{"name": "trainer", "state": state}]
        pod = a_pod(
            self.seat,
            self.node,
            self.epoch,
            status=status,
            uid=f"{self.seat}-{self.created}",
            creationTimestamp=clock.utc(self.created),
            annotations={
                "tramontane.dev/epoch": str(self.epoch),
                "tramontane.dev/drain": str(self.drained),
            },
        )
        return replace(pod, deleting=self.going)


class Trainer:
    """A training loop; each step takes `step_s`, each checkpoint `save_s` more."""

    def __init__(self, dice: random.Random) -> None:
        self.step_s = dice.choice([0.5, 1.0, 2.5, 4.0])
        self.save_s = dice.choice([0.0, 1.0, 7.5])
        self.every = dice.choice([4, 20, 50])
        self.load_s = dice.choice([1.0, 20.0, 90.0])
        self.saves_at_end = dice.random() < 0.5
        self.kept = 0  # steps that are safe, in a checkpoint
        self.alive = False
        self.attempt = 0
        self.next_at = 0.0
        self.marks: Marks = Marks()

    def begin(self, at: float, attempt: int) -> None:
        self.alive, self.attempt = True, attempt
        self.next_at = at + self.load_s + self.step_s
        self.marks = replace(
            self.marks, step=None, step_at=None, first_step=None, first_step_at=None,
            exited=None, agent_attempt=attempt,
        )  # fmt: skip

    def run_to(self, now: float) -> None:
        while self.alive and self.next_at <= now:
            at, marks = self.next_at, self.marks
            step = (self.kept if marks.step is None else marks.step) + 1
            saves = marks.saves
            settles = marks.saved is not None and marks.saved.step == step - 1 == self.kept
            if settles and marks.step is not None and self.save_s:
                saves = (*saves, Saved(step - 1, at, self.save_s))[-KEPT_SAVES:]
            first = marks.first_step is None
            self.marks = marks = replace(
                marks,
                step=step,
                step_at=at,
                first_step=step if first else marks.first_step,
                first_step_at=at if first else marks.first_step_at,
                step_time_s=self.step_s,
                saves=saves,
            )
            self.next_at = at + self.step_s
            if step % self.every == 0:
                self.save(at)
                self.next_at += self.save_s

    def save(self, at: float) -> None:
        """Save at once, safe when the kubelets have written it: `save_s` later."""
        if self.marks.step is not None:
            self.kept = self.marks.step
            self.marks = replace(self.marks, saved=Saved(self.kept, at + self.save_s))

    def end(self, at: float, *, asked: bool = False) -> None:
        """End; if it was asked to, maybe with a last checkpoint."""
        if self.alive and asked and self.saves_at_end:
            self.save(at)
        self.alive = False


class History:
    """One life; `step` lets time pass, lets things happen and has the operator look."""

    def __init__(self, seed: int, *, clock_jumps: bool) -> None:
        self.dice = random.Random(seed)
        self.jumps = clock_jumps
        self.now, self.skew = NOW, 0.0
        self.status = TrainingJobStatus()
        self.suspend = False
        self.gang_spec: GangSpec | None = None
        self.placement: tuple[str, ...] = ()
        self.placed_at = NOW + self.dice.uniform(0, 60)
        self.preempted = False
        self.blades: dict[str, Blade] = dict(SOUND)
        self.pods: dict[int, Pod] = {}
        self.trainer = Trainer(self.dice)
        self.life: tuple[tuple[float, int], ...] = ()
        self.words: dict[str, LastWords] = {}
        self.vanished: dict[int, int] = {}
        self.blind = self.was_blind = False
        # By how much the ledger's productive time may be off: what could not be known (s).
        self.unknown_s, self.lost = 0.0, False
        self.interruptions = 0
        self.happened: list[str] = []

    def step(self, *, calm: bool = False) -> None:
        dice = self.dice
        passed = dice.choice([0.2, 1.0, 3.0, 10.0, 30.0])
        # A failed write is tried again soon.
        away = not calm and not self.lost and dice.random() < 0.03
        self.now += dice.uniform(60, 400) if away else passed * dice.uniform(0.5, 1.5)
        if self.jumps and not calm and dice.random() < 0.05:
            self.skew = dice.choice([0.0, 0.0, -90.0, -5.0, 40.0])
        self._cluster()
        if self.suspend and dice.random() < 0.2:
            self.suspend = False
        if not calm and dice.random() < 0.12:
            self._happen(dice.choice(EVENTS))
        self.lost = not calm and dice.random() < 0.1
        self._look(loses=self.lost)

    @property
    def productive_s(self) -> float:
        """Return the time that went into the steps that are still there."""
        return (self.trainer.marks.step or 0) * self.trainer.step_s

    @property
    def tolerance_s(self) -> float:
        """Return by how much the ledger may be off: two steps and a save for each interruption.

        The one that was in flight, the one that comes with the next look, and what it saved.
        """
        each_s = 2 * self.trainer.step_s + self.trainer.save_s
        return self.unknown_s + each_s * (1 + self.interruptions)

    # ---- the cluster

    def _cluster(self) -> None:
        """Let trainers, kubelets and the scheduler go on until now."""
        self.trainer.run_to(self.now)
        self.pods = {seat: pod for seat, pod in self.pods.items() if not pod.going}
        if self.preempted and not self.pods:
            self.preempted, self.placement = False, ()
            self.placed_at = self.now + self.dice.uniform(0, 120)
        spec = self.gang_spec
        if spec is None:
            return
        if not spec.active:
            self.placement, self.placed_at = (), self.now
        elif not self.placement and self.now >= self.placed_at:
            self.placement = tuple(self._free()[:SEATS])
        elif self.placement:
            seats = list(self.placement)
            for one in spec.lost:
                if seats[one.seat] == one.blade:
                    seats[one.seat] = self._free()[0]
            self.placement = tuple(seats)
        pods = list(self.pods.values())
        epochs = {pod.epoch for pod in pods}
        usable = [p for p in pods if not p.going and not p.failed and self.now >= p.ready_at]
        sound = all(self.blades[pod.node].status.state == "Healthy" for pod in usable)
        whole = len(usable) == SEATS and len(epochs) == 1 and sound
        life = tuple((pod.created, pod.epoch) for pod in pods)
        if whole and not self.trainer.alive and life != self.life:
            self.life = life
            self.trainer.begin(self.now, epochs.pop())

    def _free(self) -> list[str]:
        taken = {*self.placement, *(pod.node for pod in self.pods.values())}
        return [
            name
            for name in NAMES
            if name not in taken and self.blades[name].status.state == "Healthy"
        ]

    def _happen(self, what: str) -> None:
        self.happened.append(f"{self.now - NOW:.1f} {what}")
        if what == "suspend":
            self.suspend = True
        elif what == "blind":
            # Only while it runs: else such an operator takes it for running again, and guesses.
            self.blind = self.status.phase is JobPhase.RUNNING
        elif what == "preempt":
            self.preempted = bool(self.placement)
        elif what == "hang" and self.trainer.marks.step is not None:
            self._end()
        elif what == "exit" and self.trainer.alive:
            self._end()
            exited = Exited(self.trainer.attempt, 1, self.now)
            self.trainer.marks = replace(self.trainer.marks, exited=exited)
        running = [pod for pod in self.pods.values() if not pod.going and not pod.failed]
        if what in {"fault", "degrade", "crash", "evict"} and running:
            self._strike(what, self.dice.choice(running))

    def _strike(self, what: str, pod: Pod) -> None:
        """Let something happen to one pod."""
        if what in {"fault", "degrade"}:
            if len(self._free()) <= SEATS:
                return
            self._break(pod.node, "Fatal" if what == "fault" else "Degraded")
        elif what == "crash":
            pod.failed = True
        else:
            del self.pods[pod.seat]
            self.vanished[pod.seat] = pod.epoch
        if what != "degrade":
            self._end()

    def _end(self, *, asked: bool = False) -> None:
        """End the training, maybe before the operator has seen that it had begun."""
        marks, trainer = self.trainer.marks, self.trainer
        unseen = self.status.phase in {JobPhase.STARTING, JobPhase.RECOVERING}
        if unseen and trainer.alive and marks.first_step_at is not None:
            self.unknown_s += self.now - marks.first_step_at + trainer.step_s
        trainer.end(self.now, asked=asked)

    def _break(self, blade: str, severity: str) -> None:
        fault = {"code": "xid-79", "severity": severity, "firstSeen": clock.micro(self.now)}
        self.blades[blade] = a_blade(
            blade,
            "Quarantined",
            stateSince=clock.utc(self.now),
            reason="HardwareFault",
            verdict={"severity": severity, "action": "Reset"},
            report={"faults": [fault]},
        )

    # ---- the operator

    def _gang(self) -> Gang | None:
        if self.gang_spec is None:
            return None
        status: dict[str, Any] = {"phase": "Pending", "observedGeneration": 1}
        if self.placement:
            seats = list(self.placement)
            status |= {"phase": "Placed", "placement": {"size": len(seats), "seats": seats}}
        if self.preempted:
            status |= {"phase": "Preempting", "preempt": {"by": "ml/urgent"}}
        return a_gang(JOB, spec=self.gang_spec, **status)

    def world(self) -> World:
        """Return what the operator sees now, with its own clock."""
        now = self.now + self.skew
        spec = JOB.spec.model_copy(update={"suspend": self.suspend})
        there = self.pods.get(0)
        alive = there is not None and not there.failed and self.now >= there.ready_at
        return World(
            now=now,
            job=JOB.model_copy(update={"status": self.status, "spec": spec}),
            gang=self._gang(),
            pods=tuple(pod.view(self.now) for _, pod in sorted(self.pods.items())),
            blades=self.blades,
            nodes=NODES,
            pools={"hall": POOL},
            marks=None if self.blind else self.trainer.marks,
            log_alive=alive and not self.blind,
            words=self.words,
            vanished=self.vanished,
        )

    def _look(self, *, loses: bool) -> None:
        world = self.world()
        self.was_blind, self.blind = self.was_blind or self.blind, False
        planned = plan(world)
        self.check(world, planned)
        leaves = planned.status.phase is JobPhase.CHECKPOINTING is not self.status.phase
        if leaves and not self.trainer.alive and self.trainer.marks.step_at is not None:
            # It had just ended or begun to hang when it was told to save: nobody knows of that.
            self.unknown_s += self.now - self.trainer.marks.step_at
        self.words = {pod.uid: WORDS for pod in planned.ask} | self.words
        if planned.record_first and loses:
            return  # the reconcile ends with the error
        if planned.gang is not None:
            self.gang_spec = planned.gang
        attempt = planned.status.attempt
        for gone in planned.deletes:
            self._delete(gone)
        for order in planned.raises:
            self.pods[int(order.name.rpartition("-")[2])].epoch = attempt
            self._end()
        for told in planned.drains:
            pod = self.pods[int(told.name.rpartition("-")[2])]
            pod.drained = pod.epoch
            if self.trainer.alive:
                self._end(asked=True)
                exited = Exited(self.trainer.attempt, 143, self.now)
                self.trainer.marks = replace(self.trainer.marks, exited=exited)
        for made in planned.creates:
            self.vanished.pop(made.seat, None)
            ready = self.now + self.dice.uniform(0, 20)
            self.pods[made.seat] = Pod(made.seat, made.blade, max(attempt, 1), self.now, ready)
        wait_s = is_worth_writing(self.status, planned.status, world.now)
        if (planned.record_first or wait_s == 0) and not loses:
            self.status = TrainingJobStatus.model_validate_json(planned.status.model_dump_json())

    def _delete(self, gone: Delete) -> None:
        pod = self.pods.get(int(gone.name.rpartition("-")[2]))
        if pod is not None:
            pod.going = True
            self._end(asked=gone.grace_s is None)

    # ---- what must hold

    def check(self, world: World, planned: Plan) -> None:
        """Check the ledger of a status that would be written now against the last one."""
        if planned.status is world.job.status:
            return
        old, new = world.job.status, planned.status
        assert new.goodput is not None
        before, after = Ledger.of(old.goodput), Ledger.of(new.goodput)
        passed_ms = round((world.now - world.created_s) * 1000)
        assert after.total_ms == max(before.total_ms, passed_ms)
        assert all(getattr(after, cause) >= 0 for cause in Cause)
        shown = new.goodput.to_dict()
        stages = [ms(text) for text in shown["restart"].values()]
        assert sum(stages) == ms(shown["lost"]["restart"])
        lost = sum(ms(text) for text in shown["lost"].values())
        assert ms(shown["productive"]) + lost == after.total_ms
        less = {cause for cause in Cause if getattr(after, cause) < getattr(before, cause)}
        starts = old.phase is JobPhase.RUNNING and old.step is None
        early = MAY_SHRINK.get(JobPhase.STARTING if starts else old.phase, frozenset())
        assert less <= {Cause.PRODUCTIVE} | early
        self.tell(old, new)

    def tell(self, old: TrainingJobStatus, new: TrainingJobStatus) -> None:
        """Note what comes to pass, for whoever looks at a history that failed."""
        if old.phase is not new.phase:
            self.interruptions += new.phase is not JobPhase.RUNNING
            self.happened.append(f"{self.now - NOW:.1f} {new.phase}")


def ms(text: str) -> int:
    """Return the milliseconds of a duration in seconds."""
    return round(float(text.removesuffix("s")) * 1000)
