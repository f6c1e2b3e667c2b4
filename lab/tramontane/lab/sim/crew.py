"""Look after one training job in a big hall: its pods, its ranks, and the planner of its job.

The decisions are `controllers.trainingjob.plan`'s, carried out in the order of its shell. Looks in
which nothing but the clock has changed are put off:

| the last look | the next, if nothing happens |
|---|---|
| was of a job that runs, and found nothing to do | in six hours, for the ledger |
| asked for another in less than 5 s (a silent node, a back-off) | then; twice as long each time |
| asked for one in 5 s or more | in two minutes; twice as long each time |

And those that an event brings, but that could find nothing new: our own writes coming back; a
report that the blade's verdict does not follow yet; a Gang that says only that it was looked at;
a new placement while the old seat's pod is still ending, whose end brings a look.
"""

from typing import Any

from tramontane.api import clock
from tramontane.api.gang import GangSpec
from tramontane.api.names import (
    ANNOTATION_DRAIN,
    ANNOTATION_EPOCH,
    LABEL_SEAT,
)
from tramontane.api.nodepool import NodePool
from tramontane.api.trainingjob import JobPhase, TrainingJob, TrainingJobStatus
from tramontane.controllers.trainingjob import render, stall
from tramontane.controllers.trainingjob.actions import Plan
from tramontane.controllers.trainingjob.durations import seconds
from tramontane.controllers.trainingjob.observe import World
from tramontane.controllers.trainingjob.plan import plan
from tramontane.controllers.trainingjob.status import is_worth_writing
from tramontane.lab.paths import LabError
from tramontane.lab.sim.agenda import Agenda, Entry
from tramontane.lab.sim.pace import Pace, SimFollowers
from tramontane.lab.sim.places import Places
from tramontane.lab.sim.podset import CROWD_S, PodSet
from tramontane.lab.sim.ranks import Ranks
from tramontane.lab.sim.ward import ECHO_S, Ward

Raw = dict[str, Any]

_QUIET_S = 6 * 3600.0
# The way of a change to the job's queue, and until a worker has read the job.
_REACH_S = 0.025
_POLL_S = 5.0
_FIRST_POLL_S = 120.0


class Crew:
    """One job.

    Attributes:
        job: as the API would have it.
        course: its training, which is the truth that its ledger is held against.
        ranks: who of its ranks is alive.
        looks: how often it was planned.
    """

    def __init__(
        self,
        agenda: Agenda,
        ward: Ward,
        places: Places,
        pool: NodePool,
        *,
        job: TrainingJob,
        pace: Pace,
    ) -> None:
        self._agenda, self._ward, self._places = agenda, ward, places
        self._pools = {pool.metadata.name: pool}
        self.job = job
        self.ranks = Ranks(agenda, pace, self._size)
        self.ranks.stopped = self._stopped
        self.ranks.first_step = lambda: self.look(0.0)
        self.course = self.ranks.course
        self.pods = PodSet(agenda, ward, places, self.ranks, job=job, look=self.look)
        self._logs = SimFollowers(lambda _: self.course, lambda: agenda.now)
        self._seen: dict[str, object] = {}  # of blades: what the planner reads of them
        self._told: object = None
        self._due: Entry | None = None
        self._look_at_s = float("inf")
        self._pause_s = 0.0
        self.looks = 0
        self._log_since = agenda.now

    def submit(self) -> None:
        """Let a person create the job."""
        self.look(ECHO_S)

    def settle(self) -> None:
        """Bring the ledger up to now."""
        self._look(at_end=True)

    # What happens

    def blade_changed(self, name: str) -> None:
        """Take a change of a blade: urgent where the job has a seat, a spare or a pod there."""
        status, node = self._ward.blades[name].status, self._ward.nodes[name]
        seen = (status.state, status.reason, status.verdict, node.ready)
        is_news, self._seen[name] = seen != self._seen.get(name), seen
        if is_news and (name in self._ward.seated or name in self._ward.guests):
            self.look(_REACH_S)

    def ranks_died(self, blade: str) -> None:
        """Take the death of ranks on a blade."""
        for pod in list(self.pods.on(blade)):
            self.ranks.down(int(pod.labels[LABEL_SEAT]))
        self.ranks.see()

    def machine_back(self, blade: str) -> None:
        """Take that a machine is back and knows no pod any more."""
        for pod in list(self.pods.on(blade)):
            self.pods.drop(pod)

    def gang_told(self) -> None:
        """Take a change of Gang.status."""
        gang = self._places.gang
        placement = gang.status.placement if gang is not None else None
        named = (*placement.seats, *placement.spares) if placement is not None else ()
        self._seat(frozenset(named))
        assert gang is not None
        status = gang.status
        told = (
            status.phase,
            placement,
            status.reason,
            status.message,
            status.preempt,
            status.advised_size,
        )
        is_news, self._told = told != self._told, told
        begins = self.job.status.phase not in _UNDER_WAY
        if (is_news or begins) and not self.pods.ending:
            self.look(_REACH_S)

    def look(self, seconds: float) -> None:
        """Have the job looked at, unless that is due sooner; something has happened."""
        self._pause_s = 0.0
        self._schedule(seconds)

    def _schedule(self, seconds: float) -> None:
        at_s = self._agenda.now + seconds
        if self._due is not None:
            if self._look_at_s <= at_s:
                return
            self._due.cancel()
        self._look_at_s, self._due = at_s, self._agenda.after(seconds, self._look)

    def _seat(self, named: frozenset[str]) -> None:
        before, self._ward.seated = self._ward.seated, named
        for name in before ^ named:
            if not self._ward.is_healthy(name):
                self._ward.look(name)

    # What is decided

    def _look(self, *, at_end: bool = False) -> None:
        self._due, self._look_at_s = None, float("inf")
        self.looks += 1
        job, now = self.job, self._agenda.now
        world = World(
            now=now,
            job=job,
            gang=self._places.gang,
            pods=tuple(self.pods.by_seat.values()),
            blades=self._ward.blades,
            nodes=self._ward.nodes,
            pools=self._pools,
            priority=0,
            marks=self._logs.marks(job.key),
            log_alive=self._logs.is_alive(job.key),
            log_since=self._log_since,
            words=self._logs.words(job.key),
            vanished=dict(self.pods.vanished),
        )
        planned = plan(world)
        acts = self._carry_out(planned)
        after_s = planned.after
        wait_s = is_worth_writing(job.status, planned.status, now)
        if planned.record_first or wait_s == 0 or at_end:
            acts |= _says_more(job.status, planned.status)
            self._write(planned.status)
        elif wait_s is not None:
            after_s = wait_s if after_s is None else min(after_s, wait_s)
        self._look_again(after_s, planned.status, acts=acts)

    def _carry_out(self, planned: Plan) -> bool:
        """Do what the plan says; return whether it asked for anything."""
        if planned.record_first:
            self._write(planned.status)
        if planned.gang is not None:
            self._apply(planned.gang)
        for delete in planned.deletes:
            self.pods.delete(delete.uid, delete.grace_s)
        if planned.creates:
            assert planned.life is not None
            for create in planned.creates:
                self.pods.create(create.seat, create.blade, planned.life.attempt)
        for raised in planned.raises:
            self.pods.annotate(raised.uid, ANNOTATION_EPOCH, str(planned.status.attempt))
        for drain in planned.drains:
            self.pods.annotate(drain.uid, ANNOTATION_DRAIN, str(drain.attempt))
        if planned.raises:
            self.ranks.see()
        if planned.ask:
            self._logs.ask(self.job, planned.ask)
            self.look(CROWD_S)
        return bool(
            planned.gang or planned.deletes or planned.creates or planned.raises or planned.ask
        )

    def _apply(self, spec: GangSpec) -> None:
        self._places.gang_applied(render.gang(self.job, spec))
        left = frozenset(one.blade for one in spec.lost)
        changed, self._ward.left = left ^ self._ward.left, left
        for name in changed:
            self._ward.look(name)

    def _look_again(self, after_s: float | None, status: TrainingJobStatus, *, acts: bool) -> None:
        """Put off looks in which nothing but the clock will have changed; see the module."""
        if after_s is None:
            return
        if acts:
            self._pause_s = 0.0
        if status.phase is JobPhase.RUNNING and after_s >= _POLL_S:
            since = self.ranks.stopped_s
            if since is None:
                self._schedule(_QUIET_S)
            else:
                # While it stands, that no step comes is what is left to tell of it.
                hangs_s = since + self._patience_s() + CROWD_S - self._agenda.now
                self._schedule(max(_FIRST_POLL_S / 4, hangs_s))
            return
        least_s = _FIRST_POLL_S if after_s >= _POLL_S else after_s
        self._pause_s = min(_QUIET_S, max(least_s, 2 * self._pause_s))
        self._schedule(self._pause_s)

    def _write(self, status: TrainingJobStatus) -> None:
        before = self.job.status
        again = status.attempt > max(before.attempt, 1)
        if again and status.incidents == before.incidents:
            raise LabError(f"job: attempt {status.attempt} must have a recorded cause (got none)")
        self.job = self.job.model_copy(update={"status": status})

    def _stopped(self) -> None:
        # If nothing else tells of it, that no step comes does.
        self._schedule(self._patience_s() + CROWD_S)

    def _patience_s(self) -> float:
        """Return how long no step may come before the planner calls that a hang."""
        given = self.job.spec.progress.stall_after
        if given != "auto":
            return seconds(given)
        pace = self.course.pace
        steps_s, saves_s = stall.STALL_STEPS * pace.step_s, stall.STALL_SAVES * pace.save_s
        return pace.step_s + max(stall.STALL_LEAST_S, steps_s, saves_s)

    def _size(self) -> int:
        gang = self._places.gang
        placement = gang.status.placement if gang is not None else None
        return len(placement.seats) if placement is not None else 0


_UNDER_WAY = frozenset({JobPhase.STARTING, JobPhase.RUNNING, JobPhase.RECOVERING})


def _says_more(old: TrainingJobStatus, new: TrainingJobStatus) -> bool:
    """Return whether more than progress and the ledger has changed."""
    fields = ("phase", "reason", "attempt", "incidents", "size")
    return any(getattr(old, name) != getattr(new, name) for name in fields)


def created(raw: Raw, now: float) -> TrainingJob:
    """Return a job as the API server would have it after its creation."""
    stamp = {"uid": "job", "generation": 1, "creationTimestamp": clock.utc(now)}
    return TrainingJob.model_validate({**raw, "metadata": {**raw["metadata"], **stamp}})
