"""Hold what a rank's pod said last: who died first, of what, and who cannot be asked any more."""

from dataclasses import dataclass

from tramontane.controllers.trainingjob.progress import Exited


@dataclass(frozen=True, slots=True)
class LastWords:
    """Show the end of one pod's log.

    Attributes:
        answered: whether the pod's kubelet answered at all, in time.
        lines: the last lines, without the rank agent's own, oldest first; bounded.
        exited: how the rank's last process ended, as its agent said; None: it has not, or there
            is no agent.
    """

    answered: bool
    lines: tuple[str, ...] = ()
    exited: Exited | None = None


@dataclass(frozen=True, slots=True)
class Slow:
    """Say which rank holds the others up: its steps take `ratio` times theirs, since `since`."""

    seat: int
    ratio: float
    since: float
