"""Log, count and tell people what was decided, once it is written."""

import logging
from typing import Final

from tramontane.api.names import API_VERSION
from tramontane.api.reasons import JobReason, PendingReason
from tramontane.kube.events import EventRecorder
from tramontane.scheduler import metrics
from tramontane.scheduler.fleet import Fleet
from tramontane.scheduler.gangs import PLACED, GangRecord
from tramontane.scheduler.outcome import Outcome

log = logging.getLogger(__name__)

_ACTION: Final = "Scheduling"


class Teller:
    """Tell what became of gangs, and what is odd about pools."""

    def __init__(self, events: EventRecorder) -> None:
        self._events = events
        self._odd: dict[str, tuple[str, ...]] = {}

    def wrote(self, gang: GangRecord, outcome: Outcome, now_s: float) -> None:
        """Tell of a status that was just written; `gang` is what it said before."""
        if gang.placement is None and outcome.phase == PLACED and outcome.placement is not None:
            metrics.PLACED.inc()
            since = gang.waiting_since_s()
            waited_s = now_s - (gang.created_s if since is None else since)
            metrics.WAIT_SECONDS.labels(gang.told.reason).observe(max(0.0, waited_s))
            log.info(
                "gang placed gang=%s seats=%d spares=%d epoch=%d waited_s=%.1f",
                gang.key,
                len(outcome.placement.seats),
                len(outcome.placement.spares),
                outcome.epoch,
                waited_s,
            )
        before, after = gang.placement, outcome.placement
        if before is not None and after is not None and len(before.seats) != len(after.seats):
            log.info(
                "gang resized gang=%s seats=%d before=%d kept=%d epoch=%d",
                gang.key,
                len(after.seats),
                len(before.seats),
                len({*before.seats} & {*after.seats}),
                outcome.epoch,
            )
        for move in outcome.moves:
            to = "spare" if move.was_spare else "free"
            metrics.MOVED.labels(to).inc()
            log.info(
                "seat moved gang=%s seat=%d old=%s new=%s to=%s epoch=%d",
                gang.key,
                move.seat,
                move.old,
                move.new,
                to,
                outcome.epoch,
            )
        if outcome.order is not None and gang.told.order is None:
            metrics.ORDERED.labels(gang.pool).inc()
            log.info(
                "gang gives way gang=%s by=%s reason=%r",
                gang.key,
                outcome.order.by,
                outcome.order.reason,
            )
            self._events.record(
                _gang(gang), "Warning", JobReason.PREEMPTED, outcome.message, "Preempting"
            )
        if outcome.reason and outcome.reason != gang.told.reason:
            log.info("gang waits gang=%s reason=%s", gang.key, outcome.reason)

    def looked_at(self, fleet: Fleet) -> None:
        """Tell of labels of a pool's nodes that are missing or contradict, when that changes."""
        odd = {pool.name: pool.oddities for pool in fleet.pools.values()}
        for name, lines in odd.items():
            if lines == self._odd.get(name, ()):
                continue
            for line in lines:
                log.warning("topology pool=%s finding=%r", name, line)
                about = {"apiVersion": API_VERSION, "kind": "NodePool", "name": name}
                text = f"NodePool {name}: {line}; correct the labels of the Nodes"
                self._events.record(about, "Warning", PendingReason.MISCONFIGURED, text, _ACTION)
        self._odd = odd


def _gang(gang: GangRecord) -> dict[str, str]:
    namespace, name = gang.key.split("/", 1)
    about = {"apiVersion": API_VERSION, "kind": "Gang", "name": name, "namespace": namespace}
    return {**about, "uid": gang.uid}
