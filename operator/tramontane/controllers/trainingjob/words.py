"""Hold what a rank's pod said last: who died first, of what, and who cannot be asked any more."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from tramontane.controllers.trainingjob.progress import AGENT, AgentLines, Exited
from tramontane.controllers.trainingjob.stamps import split

MAX_LINES: Final = 20
MAX_LENGTH: Final = 256  # characters


@dataclass(frozen=True, slots=True)
class LastWords:
    """Show the end of one pod's log.

    Attributes:
        answered: whether the pod's kubelet answered at all, in time.
        lines: the last lines, without the rank agent's own, oldest first; bounded.
        exited: how the rank's last process ended by itself, as its agent said; None: it has not,
            or there is no agent.
    """

    answered: bool
    lines: tuple[str, ...] = ()
    exited: Exited | None = None


@dataclass(frozen=True, slots=True)
class Slow:
    """Say which rank holds the others up: its steps take `ratio` times theirs, since `since`.

    The suspicion is of one pod, by `uid`: whoever comes after it has done nothing yet.
    """

    seat: int
    ratio: float
    since: float
    uid: str = ""


def last_words(lines: Iterable[bytes], now: float) -> LastWords:
    """Return the words of a pod that answered; `now` (Unix s) is the time of unstamped lines."""
    kept: deque[str] = deque(maxlen=MAX_LINES)
    agent = AgentLines()
    for raw in lines:
        at, text = split(raw)
        line = text.decode("utf-8", "replace")
        if AGENT in line:
            agent.take(line, now if at is None else at)
        else:
            kept.append(line[:MAX_LENGTH])
    return LastWords(True, tuple(kept), agent.exited)
