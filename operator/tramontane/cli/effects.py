"""Say what a person's word would do to blades, to what runs there and to the pool: pure.

A hold is never refused: neither the budget nor the breaker stands in a person's way. So the plan
says what they would have said.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tramontane.api.blade import Blade, BladeState
from tramontane.api.nodepool import BladeCounts, NodePool, RemediationMode
from tramontane.api.reasons import BladeReason
from tramontane.cli import bladeview, wishes
from tramontane.cli.changes import Plan
from tramontane.cli.tables import Table, counted, cut, facts
from tramontane.controllers.nodepool import policy
from tramontane.controllers.nodepool.budget import is_out

# What ends by itself, and by no word of a person.
BY_ITSELF = frozenset({BladeState.LOST, BladeState.UNKNOWN})
COMES_BACK = "its Node is Ready and its agent reports"
# What is said of a blade that no release is written to.
HEALTHY = "Healthy already"

Raw = dict[str, Any]

_MOST_SHOWN = 20
_CELL = 60


@dataclass(frozen=True, slots=True)
class Use:
    """Hold what uses a blade: gangs with a seat or a spare there, and pods of others with GPUs.

    `gangs` and `spare_of` are namespace/name; `replicas` are those of the gangs that serve a model.
    None for `pods` where they could not be read.
    """

    gangs: tuple[str, ...] = ()
    spare_of: tuple[str, ...] = ()
    pods: tuple[str, ...] | None = ()
    replicas: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [
            *self.gangs,
            *(f"spare of {key}" for key in self.spare_of),
            *(f"pod {key}" for key in self.pods or ()),
        ]
        if self.pods is None:
            parts.append("pods not known")
        return ", ".join(parts) or "nothing"

    def to_dict(self) -> Raw:
        """Return it for programs."""
        return {
            "gangs": list(self.gangs),
            "spareOf": list(self.spare_of),
            "pods": None if self.pods is None else list(self.pods),
            "replicas": list(self.replicas),
        }


def hold(
    blades: Sequence[Blade],
    uses: Mapping[str, Use],
    pools: Mapping[str, NodePool],
    reason: str,
    by: str,
) -> Plan:
    """Return what it means to take the blades out."""
    rows = [
        (one.metadata.name, _state(one), str(uses.get(one.metadata.name, Use())), _held(one))
        for one in blades
    ]
    mine = [uses.get(one.metadata.name, Use()) for one in blades]
    moving = {key for use in mine for key in use.replicas}
    staying = {key for use in mine for key in use.gangs} - moving
    after = list(_after(blades, uses, pools))
    lines = facts(
        [
            ("Will write", f"spec.hold on {counted(len(blades), 'blade')}: {reason} (by {by})"),
            *(fact for one in after for fact in _told(one, pools.get(one["name"]))),
            ("New work", "none starts there until they are released"),
            ("Running work", _running(len(staying), len(moving))),
        ]
    )
    content = {
        "hold": {"reason": reason, "by": by},
        "blades": [
            _blade(one) | {"inUseBy": use.to_dict()} for one, use in zip(blades, mine, strict=True)
        ],
        "pools": after,
    }
    headings = ("BLADE", "STATE", "IN USE BY", "HELD ALREADY")
    return Plan(tuple(lines), [_table(headings, rows)], content)


def release(
    blades: Sequence[Blade],
    pools: Mapping[str, NodePool],
    reason: str,
    by: str,
    *,
    skip_burn_in: bool,
) -> Plan:
    """Return what it means to take the blades back."""
    working = [one.metadata.name for one in blades if wishes.is_working(one)]
    blades = [one for one in blades if one.metadata.name not in working]
    rows = [
        (one.metadata.name, _state(one), _ended(one), ", ".join(_open_faults(one)))
        for one in blades
    ]
    still = sum(bool(_open_faults(one)) for one in blades)
    names = sorted({one.spec.pool for one in blades})
    tests = {name: [] if skip_burn_in else _tests(pools.get(name)) for name in names}
    untested = "none: skipped" if skip_burn_in else "none: a clean report will do"
    lines = facts(
        [
            ("Will write", f"spec.release on {counted(len(blades), 'blade')}: {reason} (by {by})"),
            ("Will leave", f"{', '.join(working)}: {HEALTHY}" if working else ""),
            *((f"Tests in {name}", ", ".join(steps) or untested) for name, steps in tests.items()),
            (
                "Open faults",
                f"on {counted(still, 'blade')}: what the report still shows takes a blade out again"
                if still
                else "",
            ),
        ]
    )
    content = {
        "release": {"reason": reason, "by": by, "skipBurnIn": skip_burn_in},
        "blades": [_blade(one) | {"openFaults": _open_faults(one)} for one in blades],
        "left": working,
        "tests": tests,
    }
    headings = ("BLADE", "STATE", "IT ENDS", "OPEN FAULTS")
    return Plan(tuple(lines), [_table(headings, rows)], content)


def close_breaker(pool: NodePool, blades: Iterable[Blade], reason: str | None, by: str) -> Plan:
    """Return what it means to close the breaker of the pool."""
    blades = list(blades)
    waiting = [one for one in blades if one.status.reason is BladeReason.BREAKER_OPEN]
    opened = pool.status.breaker
    room = max(0, _limit(pool, len(blades)) - out_of(pool))
    rule = pool.spec.remediation.breaker
    mode = pool.spec.remediation.mode
    acts = mode is RemediationMode.AUTO
    count = min(len(waiting), room) if acts else 0
    lines = facts(
        [
            ("Will write", f"breaker closed on NodePool {pool.metadata.name} (by {by})"),
            ("Reason", reason or ""),
            ("Opened by", (opened.reason or "") if opened is not None else ""),
            ("Budget", f"{room} more may be out; {budget(pool, len(blades))}"),
            (
                "Then go out",
                "none: no blade waits behind it"
                if not waiting
                else f"{count} of {counted(len(waiting), 'blade')} behind it"
                if acts
                else f"none: remediation.mode is {mode}",
            ),
            ("Opens again", f"at {rule.threshold} within {rule.window}"),
        ]
    )
    rows = [bladeview.short_row(one) for one in waiting]
    content = {
        "pool": pool.metadata.name,
        "close": {"reason": reason, "by": by},
        "breaker": opened.to_dict() if opened is not None else None,
        "opensAgain": {"threshold": rule.threshold, "window": rule.window},
        "mode": mode.value,
        "roomInBudget": room,
        "blades": [_blade(one) for one in waiting],
        "thenGoOut": count,
    }
    return Plan(tuple(lines), [_table(bladeview.SHORT, rows)] if rows else [], content)


def out_of(pool: NodePool) -> int:
    """Return how many blades of the pool are out, by its own count."""
    counts = pool.status.blades or BladeCounts()
    return counts.quarantined + counts.repairing + counts.rma + counts.unknown + counts.lost


def _after(
    blades: Sequence[Blade], uses: Mapping[str, Use], pools: Mapping[str, NodePool]
) -> Iterator[Raw]:
    """Yield what becomes of each pool's budget and spares; the name alone where it is unknown."""
    for name, count in sorted(Counter(one.spec.pool for one in blades).items()):
        pool = pools.get(name)
        if pool is None:
            yield {"name": name}
            continue
        mine = [one for one in blades if one.spec.pool == name]
        total = (pool.status.blades or BladeCounts()).total or count
        out = out_of(pool) + sum(not _is_out(one) for one in mine)
        after: Raw = {"name": name, "total": total, "out": out, "budget": _limit(pool, total)}
        spares = pool.status.spares
        if spares is not None and spares.target:
            free = sum(_is_free(one, uses) for one in mine)
            after["spares"] = {"target": spares.target, "ready": max(0, spares.ready - free)}
        yield after


def _told(after: Raw, pool: NodePool | None) -> Iterator[tuple[str, str]]:
    """Yield in words what becomes of a pool."""
    if pool is None:
        yield (f"Pool {after['name']}", "not known")
        return
    out, total, beyond = after["out"], after["total"], after["out"] - after["budget"]
    over = f": {beyond} beyond it, so no fault takes another" if beyond > 0 else ""
    yield (f"Pool {after['name']}", f"{out} of {total} out after it; {budget(pool, total)}{over}")
    if spares := after.get("spares"):
        short = spares["target"] - spares["ready"]
        few = f": {short} too few" if short > 0 else ""
        yield ("Spares", f"{spares['ready']} ready of {spares['target']} after it{few}")


def _is_free(blade: Blade, uses: Mapping[str, Use]) -> bool:
    use = uses.get(blade.metadata.name, Use())
    return blade.status.state is BladeState.HEALTHY and not use.gangs


def _limit(pool: NodePool, total: int) -> int:
    return policy.read(pool).budget(total)


def _is_out(blade: Blade) -> bool:
    status = blade.status
    return is_out(status.state, status.reason, reported=status.report is not None)


def budget(pool: NodePool, total: int) -> str:
    """Return in words how many blades of the pool may be out."""
    wanted = pool.spec.remediation.max_unavailable
    share = f" ({wanted})" if "%" in str(wanted) else ""
    return f"the budget is {_limit(pool, total)}{share}"


def _tests(pool: NodePool | None) -> list[str]:
    asked = pool.spec.qualification if pool is not None else None
    if asked is None:
        return []
    steps = [
        f"soak {asked.soak}" if asked.soak else "",
        "burn-in" if asked.burn_in is not None else "",
        "collective" if asked.collective is not None else "",
    ]
    return list(filter(None, steps))


def _blade(blade: Blade) -> Raw:
    """Return a blade for programs: the hold is there where it is in force."""
    spec, status = blade.spec, blade.status.to_dict()
    return {
        "name": blade.metadata.name,
        "pool": spec.pool,
        **{key: status[key] for key in ("state", "reason", "message") if key in status},
        **({"hold": spec.hold.to_dict()} if spec.hold and wishes.is_held(blade) else {}),
    }


def _state(blade: Blade) -> str:
    status = blade.status
    return " ".join(filter(None, (status.state or "not seen yet", status.reason or "")))


def _held(blade: Blade) -> str:
    spec = blade.spec
    return f"by {spec.hold.by}: {spec.hold.reason}" if spec.hold and wishes.is_held(blade) else ""


def _ended(blade: Blade) -> str:
    if held := _held(blade):
        return f"hold {held}"
    if blade.status.state in BY_ITSELF:
        return f"nothing: it is back when {COMES_BACK}"
    return cut(blade.status.message or "", _CELL)


def _open_faults(blade: Blade) -> list[str]:
    report = blade.status.report
    codes = dict.fromkeys(
        one.code
        for one in (report.faults if report is not None else ())
        if one.severity not in {"None", "Info"}
    )
    return list(codes)


def _table(headings: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Table:
    """Return the first rows, and one that counts the rest."""
    more = len(rows) - _MOST_SHOWN
    if more <= 0:
        return Table(headings, rows)
    rest = (f"and {more} more", *("" for _ in headings[1:]))
    return Table(headings, [*rows[:_MOST_SHOWN], rest])


def _running(staying: int, moving: int) -> str:
    """Return what becomes of what runs there: training stays, replicas of models move."""
    told = []
    if staying:
        told.append(
            "1 gang, which stays until it ends" if staying == 1 else f"{staying} gangs, which stay"
        )
    if moving:
        told.append(f"{counted(moving, 'replica')} of models, made anew elsewhere at once")
    return "; ".join(told) or "none"
