"""Time how long blades are out: from leaving service until they are Healthy again.

A blade's record tells when a fault took it away, whoever leads. Of a blade that fell silent only
the process knows that saw it: after a change of leader such an outage is not timed.
"""

from tramontane.api.blade import BladeState, BladeStatus
from tramontane.controllers.nodepool import history

WORKS = frozenset({BladeState.HEALTHY, BladeState.SUSPECT})
_SILENT = frozenset({BladeState.LOST, BladeState.UNKNOWN})


class Outages:
    """Remember since when blades are silent that worked until then."""

    def __init__(self) -> None:
        self._silent_since: dict[str, float] = {}

    def forget(self, blade: str) -> None:
        """Drop a blade that is no more."""
        self._silent_since.pop(blade, None)

    def change(
        self, blade: str, status: BladeStatus, state: BladeState, now: float
    ) -> float | None:
        """Take a change of state; return how long the blade was out (s) where that is over.

        `status` is the one before, `now` in Unix seconds.
        """
        if status.state in WORKS and state in _SILENT:
            self._silent_since[blade] = now
        if state not in WORKS:
            return None
        silent_since = self._silent_since.pop(blade, None)
        since = history.left_at(status) or silent_since
        if state is not BladeState.HEALTHY or since is None:
            return None
        return max(0.0, now - since)
