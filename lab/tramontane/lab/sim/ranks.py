"""Keep who of a job's ranks is alive, and let training step while all are, of one epoch."""

from collections import Counter
from collections.abc import Callable

from tramontane.lab.sim.agenda import Agenda
from tramontane.lab.sim.pace import Course, Pace

# From a rank's line to the look that it brings.
_LINE_S = 0.05


class Ranks:
    """The ranks of one job, by seat.

    Attributes:
        course: the training of these ranks.
        stood: for each time that it stood: when it stopped, when it stepped again.
        stopped_s: since when it stands now, or None while it steps.
        size: asked for the seats that there must be.
        stopped, first_step: called when training stops, and when a life's first step is told.
    """

    def __init__(self, agenda: Agenda, pace: Pace, size: Callable[[], int]) -> None:
        self._agenda = agenda
        self.course = Course(pace)
        self.stood: list[tuple[float, float]] = []
        self.stopped_s: float | None = agenda.now
        self.size = size
        self.stopped: Callable[[], None] = lambda: None
        self.first_step: Callable[[], None] = lambda: None
        self._up: dict[int, int] = {}
        self._epochs: Counter[int] = Counter()

    @property
    def waits(self) -> tuple[float, ...]:
        """Return how long training stood each time, also since it stands now; without the start."""
        found = [back - at for at, back in self.stood[1:]]
        if self.stopped_s is not None and self.stood:
            found.append(self._agenda.now - self.stopped_s)
        return tuple(found)

    def is_up(self, seat: int) -> bool:
        """Return whether the seat's rank is alive."""
        return seat in self._up

    def up(self, seat: int, epoch: int) -> None:
        """Let a rank be alive, of an epoch; `see` says what follows."""
        self.down(seat)
        self._up[seat] = epoch
        self._epochs[epoch] += 1

    def down(self, seat: int) -> None:
        """Let a rank be dead; `see` says what follows."""
        epoch = self._up.pop(seat, None)
        if epoch is not None:
            self._epochs[epoch] -= 1
            if not self._epochs[epoch]:
                del self._epochs[epoch]

    def see(self) -> None:
        """Let training step if all ranks are there, of one epoch; let it stand if not. O(1)."""
        now, size, course = self._agenda.now, self.size(), self.course
        whole = size > 0 and len(self._up) == size and len(self._epochs) == 1
        epoch = next(iter(self._epochs), 0)
        if course.attempt and (not whole or epoch != course.attempt):
            course.stop(now)
            self.stopped_s = now
            self.stopped()
        if whole and not course.attempt:
            begins_s = course.begin(now, epoch)
            if self.stopped_s is not None:
                self.stood.append((self.stopped_s, begins_s))
                self.stopped_s = None
            line_s = begins_s - now + course.pace.step_s + _LINE_S
            self._agenda.after(line_s, self._tell, course.lives)

    def _tell(self, life: int) -> None:
        if self.course.lives == life:
            self.first_step()
