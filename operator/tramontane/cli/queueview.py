"""Say what the scheduler decides, for people: pure, from answers to text."""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

from tramontane.api import clock
from tramontane.api.names import GPU_RESOURCE
from tramontane.cli.queueask import Answer, Tried
from tramontane.cli.tables import Table, age, counted, facts
from tramontane.scheduler.gangs import GangRecord

MOST_SHOWN = 12
View = tuple[list[str], Sequence[Table]]


def why(answer: Answer) -> View:
    """Return why a gang waits and what would help; or where it sits, and what is amiss there."""
    gang, outcome, now_s = answer.gang, answer.outcome, answer.world.now_s
    if answer.placed:
        since = outcome.placed_s
        held = f" for {age(now_s - since)}" if since is not None else ""
        pairs = [("State", f"{outcome.phase}{held}"), *_place(answer)]
    else:
        since = gang.waiting_since_s()
        pairs = [("State", f"{outcome.phase} for {age(now_s - (since or now_s))}")]
        if outcome.position:
            pairs.append(("Position", f"{outcome.position} of {answer.waiting} that wait"))
    return facts([*_asked(gang), *pairs, *_reason(answer)]), _tables(answer)


def simulation(answer: Answer) -> View:
    """Return where a gang would go if it were submitted, or why it would wait."""
    outcome = answer.outcome
    if answer.placed:
        pairs = [("Would", "start at once"), *_place(answer)]
    else:
        of = f"{outcome.position} of {answer.waiting}" if outcome.position else ""
        pairs = [("Would", "wait"), ("Position", of)]
    pairs += _reason(answer)
    pairs.append(("Delays", _some(answer.delays)))
    return facts([*_asked(answer.gang), *pairs]), _tables(answer)


def plan(replayed: dict[str, Any]) -> View:
    """Return a plan as one row per gang."""
    rows = [
        (
            key,
            status["phase"],
            str(len(status["placement"]["seats"])) if "placement" in status else "",
            str(status.get("position", "")),
            status.get("reason", ""),
            status.get("estimatedStart", {}).get("p50", ""),
            status.get("message", "").removeprefix(f"Gang {key}: "),
        )
        for key, status in replayed["gangs"].items()
    ]
    headings = ("GANG", "PHASE", "SEATS", "POSITION", "REASON", "ESTIMATE", "MESSAGE")
    return [f"As of {replayed['time']}:"], [Table(headings, rows)]


def _asked(gang: GangRecord) -> list[tuple[str, str]]:
    counts = ", ".join(
        f"{counted(slot.count, 'seat')}, {slot.ask.amount(GPU_RESOURCE)} GPUs each"
        for slot in gang.slots
    )
    extra = [
        f"or {', '.join(map(str, gang.sizes[1:]))}" if len(gang.sizes) > 1 else "",
        f"in one {gang.pack}" + ("" if gang.required else " if there is one") if gang.pack else "",
        f"slices of {gang.slice_size} in one {gang.slice_level}" if gang.slice_size > 1 else "",
        f"{gang.spares} spare" + ("s" if gang.spares > 1 else "") if gang.spares else "",
        f"priority {gang.priority}" if gang.priority else "",
        f"for at most {age(gang.max_runtime_s)}" if gang.max_runtime_s is not None else "",
    ]
    return [
        ("Gang", gang.key),
        ("Pool", gang.pool),
        ("Tenant", gang.tenant),
        ("Asks for", "; ".join(filter(None, [counts, *extra]))),
    ]


def _reason(answer: Answer) -> list[tuple[str, str]]:
    outcome, now_s = answer.outcome, answer.world.now_s
    prefix = f"Gang {answer.gang.key}: "
    pairs = [("Reason", str(outcome.reason)), ("Message", outcome.message.removeprefix(prefix))]
    if outcome.order is not None:
        deadline = _when(outcome.order.deadline_s, now_s)
        pairs.append(("Gives way", f"to {outcome.order.by} by {deadline}: {outcome.order.reason}"))
    if outcome.estimate is not None and not answer.placed:
        half, most = outcome.estimate.p50_s, outcome.estimate.p90_s
        text = f"{_when(half, now_s)}; in nine of ten cases by {_when(most, now_s)}"
        pairs.append(("Estimate", text))
    if outcome.reserved_s is not None and not answer.placed:
        pairs.append(("At the latest", f"{_when(outcome.reserved_s, now_s)}, by others' limits"))
    if outcome.advised_size:
        pairs.append(("Better size", _better(answer)))
    return pairs


def _better(answer: Answer) -> str:
    """Return the size that serves a placed gang better, and why."""
    size, placement = answer.outcome.advised_size, answer.outcome.placement
    smaller = placement is not None and size < answer.gang.size_of(len(placement.seats))
    why = "without its lost seats" if smaller else "which there is room for"
    return f"{size} seats, {why}"


def _place(answer: Answer) -> list[tuple[str, str]]:
    placement = answer.outcome.placement
    assert placement is not None
    return [
        ("Seats", str(len(placement.seats))),
        ("Blades", _some(_by_domain(answer, placement.seats))),
        ("Spares", _some(placement.spares)),
    ]


def _by_domain(answer: Answer, seats: Iterable[str]) -> list[str]:
    """Return the blades in the order of seats, by their lowest domain: `b0/r1: gpu-1 … gpu-4`."""
    fleet, gang = answer.world.fleet, answer.gang
    pool = fleet.pools.get(gang.pool)

    def domain(name: str) -> str:
        row = fleet.row_of.get(name)
        if pool is None or row is None or not pool.first <= row < pool.end:
            return "elsewhere"
        level = pool.topology.blade_level - 1
        place = pool.topology.domain_name(level, int(pool.topology.ids[level][row - pool.first]))
        return place if level else ""

    runs = []
    for place, run in itertools.groupby(seats, domain):
        names = list(run)
        if len(names) == 1:
            text = names[0]
        elif names == sorted(names):
            text = f"{names[0]} … {names[-1]} ({len(names)})"
        else:  # a seat that moved: no range, then
            text = _some(names)
        runs.append(f"{place}: {text}" if place else text)
    return runs


def _tables(answer: Answer) -> list[Table]:
    tables = [_ways(answer), _giving_way(answer)]
    return [one for one in tables if one.rows]


def _ways(answer: Answer) -> Table:
    now_s = answer.world.now_s
    rows = [
        (one.way.kind.value, one.way.words, _cost(one), _then(one, now_s)) for one in answer.ways
    ]
    return Table(("KIND", "CHANGE", "COST", "THEN"), rows, "What would let it run")


def _cost(tried: Tried) -> str:
    hours = tried.way.gpu_hours
    return f"{hours:,.1f} GPU-hours" if hours else ""


def _then(tried: Tried, now_s: float) -> str:
    """Return what follows: when it comes by itself, and whether others go first."""
    when = f"by {_when(tried.way.at_s, now_s)}" if tried.way.at_s is not None else ""
    then = f"position {tried.then.position}, {tried.then.reason}"
    ahead = "" if tried.starts else f"room, but others go first: then {then}"
    return "; ".join(filter(None, (when, ahead))) or "starts"


def _giving_way(answer: Answer) -> Table:
    world = answer.world
    rows = [
        (key, str(world.gangs[key].priority), f"{answer.hours(key):,.1f}")
        for key in answer.gives_way
    ]
    return Table(("GANG", "PRIORITY", "GPU-HOURS LOST"), rows, "Gives way to it")


def _when(at_s: float, now_s: float) -> str:
    return f"{clock.utc(at_s)} (in {age(at_s - now_s)})"


def _some(names: Sequence[str]) -> str:
    more = len(names) - MOST_SHOWN
    shown = ", ".join(names[:MOST_SHOWN])
    return f"{shown} and {more} more" if more > 0 else shown
