"""How one simulated job trains and what goes wrong in it: read from its pods' environment.

| TRAMONTANE_LAB_... | means | default |
|---|---|---|
| STEP_TIME, START_TIME | of a step; from whole to the first step (s) | 0.5, 2 |
| SAVE_EVERY, SAVE_TIME | steps between checkpoints; what one takes (s) | 20, 0 |
| STEPS, EXIT | after so many steps it ends, with this code | never, 0 |
| HANG, HANG_TIMES | stands still from this step on, in so many lives (0: each) | never, 1 |
| CRASH, CRASH_TIMES | RANK@STEP:CODE, in so many lives (0: each) | never, 1 |
| ABORT_TIME | ranks die so long after they have lost a peer (s) | never: they hang |
| STRAGGLER | RANK:FACTOR: its part of a step takes so many times the others' | none |
| GRACEFUL | 0: SIGTERM is not heard | 1 |

A step that was saved is not done again: "at step 40" is the first step of a life from 40 on.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tramontane.api.errors import InvalidValue

PREFIX: Final = "TRAMONTANE_LAB_"


@dataclass(frozen=True, slots=True)
class Crash:
    """One rank that ends by itself: who, from which step on, with what code."""

    rank: int
    step: int
    code: int

    @classmethod
    def parse(cls, text: str) -> "Crash":
        """Read `RANK@STEP:CODE`.

        Raises:
            InvalidValue: it is not of that form.
        """
        rank, _, rest = text.partition("@")
        step, _, code = rest.partition(":")
        if not (rank.isdecimal() and step.isdecimal() and code.isdecimal()):
            raise InvalidValue("must be RANK@STEP:CODE, as in 3@40:1", text)
        return cls(int(rank), int(step), int(code))


@dataclass(frozen=True, slots=True)
class Straggler:
    """One rank that is slow: its part of a step takes `factor` times the others'."""

    rank: int
    factor: float

    @classmethod
    def parse(cls, text: str) -> "Straggler":
        """Read `RANK:FACTOR`.

        Raises:
            InvalidValue: it is not of that form.
        """
        rank, _, factor = text.partition(":")
        try:
            return cls(int(rank), float(factor))
        except ValueError:
            raise InvalidValue("must be RANK:FACTOR, as in 5:2.5", text) from None


@dataclass(frozen=True, slots=True)
class Pace:
    """How one job trains; see the module's table. Times are inf, and counts None, for never."""

    step_s: float = 0.5
    start_s: float = 2.0  # processes up, ranks met, checkpoint loaded
    save_every: int = 20
    save_s: float = 0.0
    steps: int | None = None
    exit_code: int = 0
    hang_at: int | None = None
    hang_times: int = 1
    crash: Crash | None = None
    crash_times: int = 1
    abort_s: float = math.inf
    straggler: Straggler | None = None
    graceful: bool = True

    @classmethod
    def of(cls, env: Mapping[str, str]) -> "Pace":
        """Read the pace from a container's environment.

        Raises:
            InvalidValue: a crash or a straggler is not written as it must be.
            ValueError: something else is no number.
        """
        given = {
            name.removeprefix(PREFIX): value
            for name, value in env.items()
            if name.startswith(PREFIX)
        }
        normal = cls()
        return cls(
            step_s=float(given.get("STEP_TIME", normal.step_s)),
            start_s=float(given.get("START_TIME", normal.start_s)),
            save_every=max(1, int(given.get("SAVE_EVERY", normal.save_every))),
            save_s=float(given.get("SAVE_TIME", normal.save_s)),
            steps=int(given["STEPS"]) if "STEPS" in given else None,
            exit_code=int(given.get("EXIT", normal.exit_code)),
            hang_at=int(given["HANG"]) if "HANG" in given else None,
            hang_times=int(given.get("HANG_TIMES", normal.hang_times)),
            crash=Crash.parse(given["CRASH"]) if "CRASH" in given else None,
            crash_times=int(given.get("CRASH_TIMES", normal.crash_times)),
            abort_s=float(given.get("ABORT_TIME", normal.abort_s)),
            straggler=Straggler.parse(given["STRAGGLER"]) if "STRAGGLER" in given else None,
            graceful=given.get("GRACEFUL", "1") != "0",
        )

    def hangs(self, step: int, hung: int) -> bool:
        """Return whether training stands still after this step, having hung in `hung` lives."""
        again = self.hang_times == 0 or hung < self.hang_times
        return self.hang_at is not None and step >= self.hang_at and again

    def crashes(self, step: int, crashed: int) -> bool:
        """Return whether a rank ends after this step, having done so in `crashed` lives."""
        again = self.crash_times == 0 or crashed < self.crash_times
        return self.crash is not None and step >= self.crash.step and again
