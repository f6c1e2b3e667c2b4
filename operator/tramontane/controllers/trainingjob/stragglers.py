"""Find the rank that holds the others up, from samples of the ranks' own step times.

Pure. In synchronous training all ranks end a step together: the slowest one's time is everybody's,
and the time between two lines of a log shows nothing. So a rank is judged by what it says of
itself: the time that its own part of a step took, in a group `seconds` of the step pattern.

| a sampled rank | |
|---|---|
| fewer than 5 steps in what was read, or no new step since its last sample | says nothing |
| median over 1.5 times the median of the others in the same round | suspect, since its first time |
| suspect in 3 rounds in a row, over a minute at least | slow |
| anything else | as fast as the others: what was held against it is forgotten |

Of several slow ranks the one with the largest ratio is told. Suspects are sampled in each round,
the other ranks by turns; where most of the sampled are slow, none of them is.

Source: half again and three rounds in a row stand between ByteRobust (fail-slow: five rounds of
10 s) and Minder (4 minutes of continuity for precision 0.9); reference training.md, section 2.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Final

from tramontane.controllers.trainingjob.words import Slow

RATIO: Final = 1.5
ROUNDS: Final = 3
LEAST_S: Final = 60.0
STEPS: Final = 5
PER_ROUND: Final = 8
_SUSPECTS = 3  # of a round, so that most of it is others to compare with
# A suspicion that could not be looked at again for so long is none any more.
_STALE_S = 600.0


@dataclass(frozen=True, slots=True)
class Sample:
    """Hold what one rank said of its last steps: the newest one, and the median time (s)."""

    seat: int
    uid: str
    step: int
    median_s: float


@dataclass(frozen=True, slots=True)
class _Suspicion:
    seat: int
    since: float
    seen_at: float
    step: int
    rounds: int = 1
    ratio: float = 0.0


def sample_of(seat: int, uid: str, steps: Sequence[tuple[int, float]]) -> Sample | None:
    """Return the sample of a rank's last steps, (step, seconds) each; None: too few."""
    if len(steps) < STEPS:
        return None
    return Sample(seat, uid, steps[-1][0], median(seconds for _, seconds in steps))


@dataclass(slots=True)
class Watch:
    """Remember who is suspected, from round to round. Pods are told apart by uid."""

    _suspicions: dict[str, _Suspicion] = field(default_factory=dict)
    _turn: int = 0

    def choose(self, uids: Sequence[str]) -> list[str]:
        """Return whom to sample next; `uids` are all ranks' in the order of their seats."""
        wanted = [uid for uid in self._suspicions if uid in set(uids)][:_SUSPECTS]
        others = [uid for uid in uids if uid not in wanted]
        count = min(PER_ROUND - len(wanted), len(others))
        first = self._turn % len(others) if others else 0
        self._turn = first + count
        return wanted + (others + others)[first : first + count]

    def keep(self, uids: Collection[str]) -> None:
        """Forget the pods that are gone."""
        for uid in self._suspicions.keys() - set(uids):
            del self._suspicions[uid]

    def take(self, samples: Sequence[Sample], at: float) -> None:
        """Take the samples of one round, made at `at` (Unix s)."""
        for one in samples:
            others = [other.median_s for other in samples if other is not one]
            usual_s = median(others) if others else 0.0
            ratio = one.median_s / usual_s if usual_s > 0 else 0.0
            before = self._suspicions.get(one.uid)
            if before is not None and one.step <= before.step:
                continue
            if ratio <= RATIO:
                self._suspicions.pop(one.uid, None)
            elif before is None:
                self._suspicions[one.uid] = _Suspicion(one.seat, at, at, one.step, ratio=ratio)
            else:
                self._suspicions[one.uid] = replace(
                    before, seen_at=at, step=one.step, rounds=before.rounds + 1, ratio=ratio
                )
        for uid, suspicion in list(self._suspicions.items()):
            if at - suspicion.seen_at > _STALE_S:
                del self._suspicions[uid]

    def slow(self) -> Slow | None:
        """Return the slowest rank that is slow beyond doubt, or None."""
        found = [
            Slow(one.seat, round(one.ratio, 2), one.since, uid)
            for uid, one in self._suspicions.items()
            if one.rounds >= ROUNDS and one.seen_at - one.since >= LEAST_S
        ]
        return max(found, key=lambda one: (one.ratio, -one.seat), default=None)
