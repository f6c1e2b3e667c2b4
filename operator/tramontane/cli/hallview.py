"""Say how a hall is, what is wrong first: pure, from pools and blades to lines."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from tramontane.api import clock
from tramontane.api.blade import Blade
from tramontane.api.conditions import find
from tramontane.api.nodepool import BladeCounts, BreakerState, NodePool, RemediationMode
from tramontane.cli import looks
from tramontane.cli.effects import budget, out_of
from tramontane.cli.looks import Look
from tramontane.cli.tables import Table, age, cut

# Of what is wrong, so many blades are named one by one.
MOST_BLADES = 10
_BAR = 64


@dataclass(frozen=True, slots=True)
class Cell:
    """Hold one blade as the map shows it; `place` are its domains, widest first."""

    name: str
    pool: str
    state: str
    look: Look
    place: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Hall:
    """Hold what is seen of a hall.

    Attributes:
        bad: blades that are not at work and not on their way, worst first: those that are named.
        bad_count: how many there are of each state and pool, the named ones among them.
        cells: all blades, where the map was asked for.
    """

    pools: Sequence[NodePool]
    bad: Sequence[Blade] = ()
    bad_count: Mapping[tuple[str, str], int] | None = None
    cells: Sequence[Cell] = ()


def story(
    hall: Hall, by: str, now: float, width: int | None = None
) -> tuple[list[str], list[Table]]:
    """Return what is wrong, and then the hall by pool, by one of its levels, or by blade.

    What is wrong is cut to `width`; None leaves it whole.
    """
    lines = _wrong_lines(hall, now, width)
    if by == "pool":
        for one in hall.pools:
            lines += _pool(one)
    else:
        lines += _map(hall.cells) if by == "blade" else _domains(hall, by)
    lines.append("")
    lines.append(looks.legend())
    return lines, []


def wrong(hall: Hall, now: float) -> list[tuple[str, str, str]]:
    """Return what is wrong, gravest first: of which pool, since when, and what."""
    found = [one for pool in hall.pools for one in _of_pool(pool, now)]
    for blade in hall.bad:
        status = blade.status
        since = age(now - clock.parse(status.state_since)) if status.state_since else ""
        why = ": ".join(filter(None, (status.reason, status.message)))
        text = f"{blade.metadata.name} {status.state or 'not seen yet'}"
        found.append((blade.spec.pool, since, f"{text}, {why}" if why else text))
    named = Counter((one.spec.pool, str(one.status.state or "")) for one in hall.bad)
    rest = {
        key: count - named[key]
        for key, count in (hall.bad_count or {}).items()
        if count > named[key]
    }
    for pool, state in sorted(rest, key=lambda key: (key[0], looks.WORST.index(key[1]))):
        more = f"{rest[pool, state]:,} more {state or 'without a state'}: "
        command = f"tramontane blade list --pool {pool} --state {state or 'unknown'}"
        found.append((pool, "", more + command))
    return found


def _of_pool(pool: NodePool, now: float) -> Iterable[tuple[str, str, str]]:
    """Yield what is wrong with a pool itself."""
    status, name = pool.status, pool.metadata.name
    breaker = status.breaker
    if breaker is not None and breaker.state is BreakerState.OPEN:
        since = age(now - clock.parse(breaker.since)) if breaker.since else ""
        text = f"breaker open: {breaker.reason or 'no reason given'}"
        yield (name, since, f"{text}; see `tramontane breaker show {name}`")
    for type_ in ("Stalled", "BudgetExhausted", "TooFewSpares"):
        one = find(status.conditions, type_)
        if one is not None and one.status.value == "True":
            at = one.last_transition_time
            since = age(now - clock.parse(at)) if at else ""
            yield (name, since, f"{type_}: {one.message or one.reason}")


def _wrong_lines(hall: Hall, now: float, width: int | None) -> list[str]:
    rows = wrong(hall, now)
    if not rows:
        return [click.style("Nothing is wrong.", fg="green"), ""]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return [
        click.style("What is wrong", bold=True),
        *(
            cut(f"  {pool:<{widths[0]}}  {since:>{widths[1]}}  {text}", width)
            for pool, since, text in rows
        ),
        "",
    ]


def _pool(pool: NodePool) -> list[str]:
    status = pool.status
    counts = looks.of_counts(status.blades or BladeCounts())
    total = (status.blades or BladeCounts()).total
    gpus = status.gpus
    used = f", {gpus.allocated:,} of {gpus.allocatable:,} GPUs in use" if gpus is not None else ""
    spares = status.spares
    breaker = status.breaker
    facts = [
        f"spares {spares.ready} of {spares.target}" if spares is not None and spares.target else "",
        f"out {out_of(pool)}, {budget(pool, total)}",
        f"breaker {breaker.state}" if breaker is not None else "breaker Closed",
        _not_acting(pool),
    ]
    return [
        f"{click.style(pool.metadata.name, bold=True)}  {total:,} blades{used}",
        f"  {looks.bar(counts, _BAR)}",
        f"  {looks.words(counts) or 'no blades yet'}",
        f"  {' · '.join(filter(None, facts))}",
    ]


def _not_acting(pool: NodePool) -> str:
    """Return why nothing is done about faults, by the pool's own word or the operator's."""
    mode = pool.spec.remediation.mode
    told = find(pool.status.conditions, "DryRun")
    if mode is RemediationMode.OFF or (told is None and mode is RemediationMode.AUTO):
        return f"remediation {mode}" if mode is RemediationMode.OFF else ""
    asked = told is not None and told.status.value == "True"
    return "remediation DryRun" if asked or mode is RemediationMode.DRY_RUN else ""


def by_domain(cells: Iterable[Cell], depth: int) -> dict[tuple[str, tuple[str, ...]], list[Cell]]:
    """Return the cells by pool and their first `depth` domains, in order."""
    found: dict[tuple[str, tuple[str, ...]], list[Cell]] = {}
    for one in sorted(cells, key=lambda cell: (cell.pool, cell.place, cell.name)):
        found.setdefault((one.pool, one.place[:depth]), []).append(one)
    return found


def depths(pools: Iterable[NodePool], level: str) -> dict[str, int]:
    """Return, for each pool that has the level, how many domains lead to it."""
    found = {}
    for pool in pools:
        names = [one.name for one in pool.spec.topology.levels]
        if level in names:
            found[pool.metadata.name] = names.index(level) + 1
    return found


def _domains(hall: Hall, level: str) -> list[str]:
    """Return a bar and its words for each domain of a level."""
    lines = []
    for pool, depth in depths(hall.pools, level).items():
        lines.append(click.style(pool, bold=True))
        groups = by_domain((one for one in hall.cells if one.pool == pool), depth)
        names = {key: _place(key[1]) for key in groups}
        width = max(map(len, names.values()), default=0)
        for key, cells in groups.items():
            counts = Counter(one.look for one in cells)
            drawn = looks.bar(counts, _BAR)
            pad = " " * (_BAR - len(click.unstyle(drawn)))
            lines.append(f"  {names[key]:<{width}}  {drawn}{pad}  {looks.words(counts)}".rstrip())
    return lines


def _map(cells: Sequence[Cell]) -> list[str]:
    """Return one sign for each blade, a line for each lowest domain."""
    lines = []
    pool = ""
    groups = by_domain(cells, max((len(one.place) for one in cells), default=0))
    width = max((len(_place(place)) for _, place in groups), default=0)
    for (name, place), members in groups.items():
        if name != pool:
            pool = name
            lines.append(click.style(name, bold=True))
        signs = "".join(one.look.sign for one in members)
        ends = members[0].name if len(members) == 1 else f"{members[0].name} … {members[-1].name}"
        lines.append(f"  {_place(place):<{width}}  {signs}  {ends}")
    return lines


def _place(place: Sequence[str]) -> str:
    return "/".join(place) or "everywhere"


def content(hall: Hall, by: str, now: float) -> dict[str, Any]:
    """Return all of it for programs."""
    whole: dict[str, Any] = {
        "wrong": [{"pool": pool, "what": text} for pool, _, text in wrong(hall, now)],
        "pools": [
            {"name": one.metadata.name, "status": one.status.to_dict()} for one in hall.pools
        ],
    }
    if by == "blade":
        whole["blades"] = [
            {
                "name": one.name,
                "pool": one.pool,
                "domain": list(one.place),
                "state": one.state,
                "look": one.look.words,
            }
            for one in hall.cells
        ]
    elif by != "pool":
        whole["domains"] = [
            {
                "pool": key[0],
                "domain": list(key[1]),
                "blades": len(cells),
                "counts": {
                    look.words: count for look, count in Counter(c.look for c in cells).items()
                },
            }
            for pool, depth in depths(hall.pools, by).items()
            for key, cells in by_domain((c for c in hall.cells if c.pool == pool), depth).items()
        ]
    return whole
