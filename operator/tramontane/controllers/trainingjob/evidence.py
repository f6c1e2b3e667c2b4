"""Gather what is known of a job's time since its status was last written.

Three sources tell: the status as it was, the incidents that the next one will tell of, and the
marks that the log has left. Each may be late or missing: an operator was away, a log could not be
read, a clock went back. What is not known is infinitely far away, or now.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite

from tramontane.api import clock
from tramontane.api.trainingjob import IncidentCause, JobIncident, JobPhase, TrainingJobStatus
from tramontane.controllers.trainingjob.durations import seconds
from tramontane.controllers.trainingjob.goodput import Ledger
from tramontane.controllers.trainingjob.observe import World
from tramontane.controllers.trainingjob.progress import Marks
from tramontane.controllers.trainingjob.stall import SETTLED_S, stands_until

# A log that cannot be read is not waited for longer; nor one that says so much and no step.
LOG_PATIENCE_S = 60.0
_UNMATCHED = 1000
_BEFORE_STEPS = frozenset({JobPhase.STARTING, JobPhase.RUNNING, JobPhase.RECOVERING})


@dataclass(frozen=True, slots=True)
class Evidence:
    """Show a job's time since the last write; times in Unix seconds.

    Attributes:
        since, end: the time that has no cause yet; a clock that went back makes it empty.
        told: incidents that the old status has too, and that were open there.
        fresh: open incidents that the status tells of for the first time.
    """

    world: World
    old: TrainingJobStatus
    marks: Marks
    created: float
    since: float
    end: float
    told: tuple[JobIncident, ...]
    fresh: tuple[JobIncident, ...]

    @classmethod
    def of(
        cls, world: World, marks: Marks, before: Ledger, incidents: Sequence[JobIncident]
    ) -> "Evidence":
        """Return what bears on the time since `before` ended."""
        old, created = world.job.status, world.created_s
        since = before.accounted_until(created)
        known = {key_of(one) for one in old.incidents}
        was_open = {key_of(one) for one in old.incidents if one.running_after is None}
        return cls(
            world=world,
            old=old,
            marks=marks,
            created=created,
            since=since,
            end=max(world.now, since),
            told=tuple(one for one in incidents if key_of(one) in was_open),
            fresh=tuple(
                one for one in incidents if key_of(one) not in known and one.running_after is None
            ),
        )

    @property
    def phase_since(self) -> float:
        """Return when the old phase began."""
        return clock.parse(self.old.phase_since) if self.old.phase_since else self.since

    @property
    def awaits_step(self) -> bool:
        """Return whether the job only looks as if it were running: it has never made a step.

        Where steps cannot be seen, running is productive: nothing else is known.
        """
        if self.old.phase is not JobPhase.RUNNING or self.old.step is not None:
            return False
        marks, is_young = self.marks, self.end - self.phase_since < LOG_PATIENCE_S
        was_read = marks.unmatched > 0 or marks.agent_attempt is not None
        return (self.world.log_alive or was_read or is_young) and marks.unmatched < _UNMATCHED

    @property
    def is_hung(self) -> bool:
        """Return whether the job has just been found to hang."""
        return any(one.cause is IncidentCause.HANG for one in self.fresh)

    @property
    def fault_s(self) -> float:
        """Return when the first fresh incident happened; now where there is none."""
        return min((clock.parse(one.at) for one in self.fresh), default=self.end)

    @property
    def hangs_at(self) -> float:
        """Return until when the job may stand after its last step; inf: it is not known."""
        at = self.marks.step_at
        return inf if at is None else stands_until(self.world, self.marks, at)

    @property
    def stands(self) -> bool:
        """Return whether the job is known to have stood for longer than it may."""
        if self.is_hung:
            return self.marks.step_at is not None
        is_read = self.world.log_alive and self.end >= self.world.log_since + SETTLED_S
        return is_read and self.end >= self.hangs_at

    @property
    def replaced_at(self) -> float:
        """Return when all seats of the open incidents had pods again; inf: not yet."""
        ends = [
            clock.parse(one.at) + seconds(took)
            if (took := one.replaced_after or one.running_after) is not None
            else inf
            for one in self.told
        ]
        return max(ends, default=-inf)

    @property
    def life_since(self) -> float:
        """Return from when on a step is one of the life that begins; inf: none can begin yet.

        Of several replica groups some step although others have no pods.
        """
        if self.old.phase is not JobPhase.RECOVERING or not self.told:
            return self.phase_since
        at = self.replaced_at
        is_partial = self.world.job.spec.launcher.replica_groups > 1 and not isfinite(at)
        return self.phase_since if is_partial else at

    @property
    def steps_anew(self) -> bool:
        """Return whether the marks are of a life that has begun since the last one ended.

        Where the log cannot be read they may be an older life's.
        """
        first = self.marks.first_step_at
        return self.old.phase in _BEFORE_STEPS and first is not None and first >= self.life_since


def key_of(incident: JobIncident) -> tuple[str | None, ...]:
    """Return what stays the same of an incident while it is followed."""
    return incident.at, incident.cause, incident.code, incident.blade
