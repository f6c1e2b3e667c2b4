"""Turn a person's word into what is written to the API: pure.

Each word has a time, and counts against what is not younger. The clock of a person's machine may
be behind the cluster's; a word that was said in view of something is never older than that.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from tramontane.api import clock
from tramontane.api.blade import Blade, BladeState, Severity
from tramontane.api.names import ANNOTATION_BREAKER_CLOSED
from tramontane.api.nodepool import BreakerState, NodePool

Raw = dict[str, Any]

# For people, beside the time that the operator reads: who closed the breaker, and why.
ANNOTATION_BREAKER_CLOSED_BY = "tramontane.dev/breaker-closed-by"

_MS = 0.001


def hold(blade: Blade, reason: str, by: str, now: float) -> Raw:
    """Return the patch that takes the blade out; a release ends only an older hold."""
    release = blade.spec.release
    at = _after(now, [release.at if release is not None else None])
    return {"spec": {"hold": {"reason": reason, "by": by, "at": at}}}


def release(blade: Blade, reason: str, by: str, now: float, *, skip_burn_in: bool) -> Raw:
    """Return the patch that takes the blade back, whatever is known against it by now."""
    status = blade.status
    asked, repair, report = status.qualification, status.repair, status.report
    known = [
        blade.spec.hold.at if blade.spec.hold is not None else None,
        status.state_since,
        repair.since if repair is not None else None,
        *(one.at for one in status.incidents),
        *(one.at for one in (asked.results if asked is not None else ())),
        *(one.last_seen or one.first_seen for one in (report.faults if report is not None else ())),
    ]
    word = {"reason": reason, "by": by, "at": _after(now, known), "skipBurnIn": skip_burn_in}
    return {"spec": {"release": word}}


def close_breaker(pool: NodePool, reason: str | None, by: str, now: float) -> Raw | None:
    """Return the patch that closes the breaker, or None where it is not open."""
    breaker = pool.status.breaker
    if breaker is None or breaker.state is BreakerState.CLOSED:
        return None
    since = clock.parse(breaker.since) if breaker.since else now
    annotations = {
        ANNOTATION_BREAKER_CLOSED: clock.micro(max(now, since + _MS)),
        ANNOTATION_BREAKER_CLOSED_BY: f"{by}: {reason}" if reason else by,
    }
    return {"metadata": {"annotations": annotations}}


def is_held(blade: Blade) -> bool:
    """Return whether a person's hold is in force: no release is as young."""
    held, freed = blade.spec.hold, blade.spec.release
    if held is None or freed is None:
        return held is not None
    return bool(held.at and freed.at) and clock.parse(freed.at or "") < clock.parse(held.at or "")


def is_working(blade: Blade) -> bool:
    """Return whether there is nothing that a release would end."""
    verdict = blade.status.verdict
    good = verdict is not None and verdict.severity in {Severity.NONE, Severity.INFO}
    return blade.status.state is BladeState.HEALTHY and good and not is_held(blade)


def _after(now: float, known: Iterable[str | None]) -> str:
    """Return a time that is not before now, and after all that is known; whole seconds."""
    times = [clock.parse(time) for time in known if time]
    return clock.utc(max([now, *(math.floor(time) + 1.0 for time in times)]))


def closed_by(annotations: Mapping[str, str]) -> str:
    """Return who last closed the breaker, when and why; empty where nobody did."""
    at = annotations.get(ANNOTATION_BREAKER_CLOSED)
    if not at:
        return ""
    by = annotations.get(ANNOTATION_BREAKER_CLOSED_BY, "somebody")
    return f"{at[:19]}Z by {by}"
