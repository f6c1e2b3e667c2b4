"""Split a gang into replica groups, which restart by themselves: torchft.

Most jobs are one group: whatever is lost, all ranks meet again. With more, a group restarts while
the others step on, and the job trains as long as `minReplicaGroups` of them are whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tramontane.api.trainingjob import JobIncident, TrainingJobSpec
from tramontane.controllers.trainingjob.observe import drained_of
from tramontane.controllers.trainingjob.seats import Seat


@dataclass(frozen=True, slots=True)
class Groups:
    """Hold how many groups there are, how many must be whole, and the seats of each."""

    count: int
    least: int
    seats_each: int

    @classmethod
    def of(cls, spec: TrainingJobSpec, size: int) -> "Groups":
        """Return the groups of a gang of `size` seats; one group where it does not divide."""
        count = spec.launcher.replica_groups
        if count <= 1 or size % count:
            return cls(1, 1, size)
        return cls(count, min(spec.launcher.min_replica_groups, count), size // count)

    def of_seat(self, seat: int) -> int:
        """Return the group of a seat."""
        return seat // self.seats_each if self.count > 1 else 0

    def due(
        self,
        seats: Sequence[Seat],
        incidents: Sequence[JobIncident],
        attempt: int,
        *,
        saves: bool = False,
    ) -> tuple[int, ...]:
        """Return the epoch that each seat's pod ought to have.

        A group is due at the present attempt while seats of it that an open incident names have
        no new pods, or when its ranks have been told to end, unless the job `saves` just now. The
        others stay at the newest epoch that they have: one that is coming back is not disturbed.
        """
        if self.count == 1:
            return (attempt,) * len(seats)
        hit = {
            self.of_seat(n)
            for one in incidents
            if one.running_after is None and one.replaced_after is None
            for n in one.seats
        }
        if not saves:
            hit |= {
                self.of_seat(seat.number)
                for seat in seats
                if seat.pod is not None and drained_of(seat.pod) >= seat.epoch > 0
            }
        newest = [0] * self.count
        for seat in seats:
            group = self.of_seat(seat.number)
            newest[group] = max(newest[group], seat.epoch)
        due = [attempt if n in hit or not newest[n] else newest[n] for n in range(self.count)]
        return tuple(due[self.of_seat(seat.number)] for seat in seats)
