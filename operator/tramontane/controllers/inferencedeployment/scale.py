"""Say how many replicas the load calls for.

Pure. The first line that applies decides; all but the first three are read from the engines' own
metrics, of the replicas that serve.

| seen | replicas wanted |
|---|---|
| fewer than minReplicas, more than maxReplicas | that bound |
| none, and a request came since | minReplicas, at least 1; without a request none |
| none serves yet | as now |
| metrics of a serving replica are older than 30 s, or missing | as now (onStaleMetrics: Hold) |
| all idle for idleToZeroAfter, no request came, not 0s | 0 |
| more is needed (below), while a gang of ours already waits for capacity | as now |
| more is needed | what is needed, at most twice what serves |
| one fewer would do (below) for scaleDownAfter, and the number is as old | one fewer |
| anything else | as now |

*Needed* is the largest of: the replicas that serve times waiting requests per replica over
targetQueue; times the KV use over 0.9; one more where TTFT p95 is over the SLO, with 20 requests
and a whole window since the last replica came. It grows from what *serves*, so replicas that are
still loading are not asked for again. *One fewer would do* where the peaks since then, added up,
leave the others at most half a target queue, 72 % of their KV cache and 80 % of the requests that
they were sized for, with TTFT within the SLO: after it has gone, nothing calls for it again.

An explicit idleToZeroAfter goes below minReplicas, as KEDA's idleReplicaCount does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final

from tramontane.api.inferencedeployment import Autoscaling, Capacity, Slo
from tramontane.api.quantity import parse_duration
from tramontane.controllers.inferencedeployment.judge import ENOUGH, STALE_S, WHOLE_WINDOW_S
from tramontane.controllers.inferencedeployment.load import Load, merged, quantile

KV_HIGH: Final = 0.9
# What must be left below a limit before a replica goes, so that it is not called for again.
_MARGIN: Final = 0.8
_QUIET_QUEUE: Final = 0.5
_GROWTH: Final = 2
_LONGEST_MEMORY_S: Final = 7200.0
_MINUTE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Scaled:
    """Say how many replicas there are to be, why, and when to look again at the latest (s)."""

    wanted: int
    why: str
    after: float | None = None


@dataclass(frozen=True, slots=True)
class _Busy:
    """Hold what all serving replicas have to do together, now or at most."""

    running: float
    waiting: float
    kv_use: float


@dataclass(frozen=True, slots=True)
class _Case:
    """Hold what `scale` is asked about; `least` and `most` are the spec's bounds."""

    now: float
    least: int
    most: int
    capacity: Capacity
    autoscaling: Autoscaling
    current: int
    since: float
    loads: Sequence[Load]
    serving: int
    blocked: bool
    demand_at: float
    slo: Slo | None

    def keep(self, why: str, after: float | None = None) -> Scaled:
        return Scaled(self.current, why, after)


def scale(  # noqa: PLR0917 - the planner gives them in this order
    now: float,
    capacity: Capacity,
    autoscaling: Autoscaling,
    current: int,
    scaled_at: float | None,
    loads: Sequence[Load],
    serving: int,
    blocked: bool,
    demand_at: float,
    slo: Slo | None = None,
) -> Scaled:
    """Return the number of replicas that is wanted; `why` names what decided, with numbers.

    Args:
        now: Unix seconds.
        capacity: the spec's bounds, and what a replica was sized for.
        autoscaling: the spec's thresholds.
        current: replicas wanted so far.
        scaled_at: when that last changed; None never.
        loads: of the replicas that serve.
        serving: how many these are.
        blocked: whether a gang of the deployment waits for capacity.
        demand_at: when a request last came while no replica served; 0 never.
        slo: the spec's; without it TTFT is not looked at.
    """
    least, since = capacity.min_replicas, scaled_at or 0.0
    most = max(1, least) if capacity.max_replicas is None else capacity.max_replicas
    case = _Case(
        now, least, most, capacity, autoscaling, current, since, loads, serving, blocked,
        demand_at, slo,
    )  # fmt: skip
    return _within_bounds(case) or _blind(case) or _by_load(case)


def _within_bounds(case: _Case) -> Scaled | None:
    """Return what the bounds and a request from nobody's replicas decide; None: nothing."""
    if case.current > case.most:
        return Scaled(case.most, f"maxReplicas is {case.most}")
    if case.current >= max(1, case.least):
        return None
    if case.current:
        return Scaled(case.least, f"minReplicas is {case.least}")
    if case.demand_at > case.since:
        return Scaled(max(1, case.least), "a request came")
    was_idle = case.since and parse_duration(case.autoscaling.idle_to_zero_after)
    if case.least and not was_idle:
        return Scaled(case.least, f"minReplicas is {case.least}")
    return Scaled(0, "no request came")


def _blind(case: _Case) -> Scaled | None:
    """Hold where there is nothing to decide upon."""
    if case.serving == 0:
        return case.keep("no replica serves yet")
    fresh = sum(case.now - load.at <= STALE_S for load in case.loads)
    if fresh < case.serving:
        blind = f"{case.serving - fresh} of {case.serving} replicas"
        return case.keep(f"held: the metrics of {blind} are missing or older than {STALE_S:.0f} s")
    return None


def _by_load(case: _Case) -> Scaled:
    idle = _idle(case)
    if idle is not None and idle.wanted == 0:
        return idle
    needed, cause = _needed(case)
    if needed > case.current:
        limit = f", maxReplicas is {case.most}" if needed > case.most else ""
        if not case.blocked or case.current == case.most:
            return Scaled(min(needed, case.most), cause + limit)
        return case.keep(f"{cause} calls for {needed}, but a gang here waits for capacity")
    kept = _fewer(case, cause)
    moments = [one.after for one in (idle, kept) if one and one.after is not None]
    return Scaled(kept.wanted, kept.why, min(moments, default=None))


def _idle(case: _Case) -> Scaled | None:
    """Return 0 once nothing was asked for long enough, else when that may be; None: never."""
    limit_s = parse_duration(case.autoscaling.idle_to_zero_after)
    starts = [load.idle_since for load in case.loads if load.idle_since is not None]
    if not limit_s or len(starts) < len(case.loads):
        return None
    idle_s = case.now - max(*starts, case.since, case.demand_at)
    if idle_s >= limit_s:
        return Scaled(0, f"no request for {idle_s:.0f} s")
    return case.keep("", limit_s - idle_s)


def _needed(case: _Case) -> tuple[int, str]:
    """Return what the present load needs, and what says so."""
    serving, target = case.serving, case.autoscaling.target_queue
    queue = sum(load.waiting for load in case.loads) / serving
    kv_use = sum(load.kv_use or 0.0 for load in case.loads) / serving
    asks = [
        (serving * queue / target, f"queue {queue:.1f} per replica (target {target})"),
        (serving * kv_use / KV_HIGH, f"KV use {kv_use:.2f} (at most {KV_HIGH})"),
    ]
    late = _late(case)
    # A window that began before the last replica came tells of a load that is shared by now.
    if late and serving >= case.current and all(_is_whole(load) for load in case.loads):
        asks.append((serving + 1, late))
    replicas, cause = max(asks, key=lambda ask: ask[0])
    # 1e-9: nine tenths of KV use over nine tenths is one, whatever floats make of it.
    return min(ceil(replicas - 1e-9), _GROWTH * serving), cause


def _late(case: _Case) -> str:
    """Return how TTFT breaches the SLO; empty where it does not, or too few requests say so."""
    if case.slo is None or case.slo.ttft_p95 is None:
        return ""
    limit_s, ttft = parse_duration(case.slo.ttft_p95), merged(load.ttft for load in case.loads)
    p95_s = quantile(ttft, 0.95)
    if p95_s is None or ttft.count < ENOUGH or p95_s <= limit_s:
        return ""
    return f"TTFT p95 {p95_s:.3g} s (SLO {limit_s:.3g} s)"


def _is_whole(load: Load) -> bool:
    return load.window_s >= WHOLE_WINDOW_S


def _fewer(case: _Case, cause: str) -> Scaled:
    """Return one fewer where the others would do, and have done for long enough."""
    fewer = case.current - 1
    if fewer < max(1, case.least):
        return case.keep(f"{cause}, and no fewer than {case.current} are allowed")
    wait_s = parse_duration(case.autoscaling.scale_down_after)
    memory_s, left = min(wait_s, _LONGEST_MEMORY_S), min(fewer, case.serving)
    busy = _peak(case.loads, case.now - memory_s)
    too_much = _late(case) or _too_much(case, busy, left)
    if too_much:
        return case.keep(f"{too_much}: too much for {left}")
    known_since = max((load.peaks[0].at for load in case.loads if load.peaks), default=0.0)
    due_at = max(case.since + wait_s, known_since + memory_s)
    if case.now < due_at:
        return case.keep(f"{left} would do, once for {wait_s:.0f} s", due_at - case.now)
    why = (
        f"at most {busy.waiting:.0f} waiting, {busy.running:.0f} running and KV use "
        f"{busy.kv_use / left:.2f} with {left}, for {wait_s:.0f} s"
    )
    return Scaled(fewer, why)


def _too_much(case: _Case, busy: _Busy, left: int) -> str:
    """Return what the replicas that are left could not take; empty where they could."""
    if busy.waiting > _QUIET_QUEUE * case.autoscaling.target_queue * left:
        return f"a queue of {busy.waiting:.0f}"
    if busy.kv_use > _MARGIN * KV_HIGH * left:
        return f"KV use {busy.kv_use / left:.2f}"
    sized_for = case.capacity.concurrent_requests
    if sized_for * left >= busy.running > _MARGIN * sized_for * left:
        return f"{busy.running:.0f} running requests"
    return ""


def _peak(loads: Sequence[Load], begin: float) -> _Busy:
    """Return each replica's peaks since `begin`, added up: at least the peak of the sum."""
    running = waiting = kv_use = 0.0
    for load in loads:
        recent = [peak for peak in load.peaks if peak.at + _MINUTE_S > begin]
        running += max((peak.running for peak in recent), default=load.running)
        waiting += max((peak.waiting for peak in recent), default=load.waiting)
        kv_use += max((peak.kv_use for peak in recent), default=load.kv_use or 0.0)
    return _Busy(running, waiting, kv_use)
