"""Say what people want to see of a Blade: pure, from the object to text."""

from collections.abc import Iterable, Sequence

from tramontane.api import clock
from tramontane.api.blade import Blade, BladeState, Fault, Incident, StepResult
from tramontane.api.reasons import BladeReason
from tramontane.cli.tables import Table, age, facts
from tramontane.cli.wishes import is_held

SHORT = ("NAME", "STATE", "REASON", "MESSAGE")
_LIST = ("NAME", "POOL", "STATE", "SINCE", "VERDICT", "ACTION", "REASON")
_WIDE = (*_LIST, "FAULTS", "DRIVER", "LEMON", "HELD BY", "MESSAGE")
_OUT = frozenset({BladeState.QUARANTINED, BladeState.DRAINING, BladeState.REPAIRING})


def table(blades: Iterable[Blade], now: float, *, wide: bool) -> Table:
    """Return one row per blade."""
    rows = [(*_row(one, now), *(_more(one) if wide else ())) for one in blades]
    return Table(_WIDE if wide else _LIST, rows)


def behind_breaker(blades: Iterable[Blade]) -> list[Blade]:
    """Return the blades that a fault has taken out, or would if the breaker were closed."""
    return [
        one
        for one in blades
        if one.status.reason is BladeReason.BREAKER_OPEN
        or (one.status.state in _OUT and one.status.reason is not BladeReason.HELD_BY_PERSON)
    ]


def short_row(blade: Blade) -> tuple[str, ...]:
    """Return one row under the headings `SHORT`."""
    status = blade.status
    return (
        blade.metadata.name,
        status.state or "not seen yet",
        status.reason or "",
        status.message or "",
    )


def _row(blade: Blade, now: float) -> tuple[str, ...]:
    status = blade.status
    verdict = status.verdict
    return (
        blade.metadata.name,
        blade.spec.pool,
        status.state or "",
        _ago(status.state_since, now),
        verdict.severity if verdict is not None else "",
        verdict.action if verdict is not None else "",
        status.reason or "",
    )


def _more(blade: Blade) -> tuple[str, ...]:
    status = blade.status
    report, history, hold = status.report, status.history, blade.spec.hold
    codes = dict.fromkeys(fault.code for fault in (report.faults if report is not None else ()))
    return (
        ",".join(codes),
        (report.agent.driver or "") if report is not None else "",
        (history.lemon_score or "") if history is not None else "",
        hold.by if hold is not None and is_held(blade) else "",
        status.message or "",
    )


def story(blade: Blade, now: float) -> tuple[list[str], Sequence[Table]]:
    """Return all there is to know of one blade: lines, and tables that follow them."""
    status = blade.status
    report = status.report
    lines = facts(
        [
            ("Blade", blade.metadata.name),
            ("Pool", blade.spec.pool),
            ("State", _state(blade, now)),
            ("Why", ": ".join(filter(None, (status.reason, status.message)))),
            ("Verdict", _verdict(blade)),
            ("Hold", _hold(blade)),
            ("Release", _release(blade)),
            ("Qualification", _qualification(blade, now)),
            ("Repair", _repair(blade, now)),
            ("Last 28 days", _history(blade)),
            ("Agent", _agent(blade, now)),
            ("Network", _network(blade)),
            ("Unknown checks", ", ".join(report.checks.unknown) if report is not None else ""),
        ]
    )
    tables = [
        _faults(report.faults if report is not None else (), now),
        _results(status.qualification.results if status.qualification is not None else (), now),
        _incidents(status.incidents, now),
    ]
    return lines, [one for one in tables if one.rows]


def _state(blade: Blade, now: float) -> str:
    status = blade.status
    if status.state is None:
        return "not seen yet"
    since = f" for {_ago(status.state_since, now)}" if status.state_since else ""
    return f"{status.state}{since}"


def _verdict(blade: Blade) -> str:
    verdict = blade.status.verdict
    return "" if verdict is None else f"{verdict.severity}, action {verdict.action}"


def _hold(blade: Blade) -> str:
    hold = blade.spec.hold
    if hold is None:
        return ""
    ended = "" if is_held(blade) else " (ended)"
    return f"{_at(hold.at)}by {hold.by}: {hold.reason}{ended}"


def _release(blade: Blade) -> str:
    release = blade.spec.release
    if release is None:
        return ""
    skip = ", without a burn-in" if release.skip_burn_in else ""
    return f"{_at(release.at)}by {release.by}: {release.reason}{skip}"


def _qualification(blade: Blade, now: float) -> str:
    asked = blade.status.qualification
    if asked is None or asked.step is None:
        return ""
    since = asked.step_since or asked.started_at
    return f"step {asked.step}{f' for {_ago(since, now)}' if since else ''}"


def _repair(blade: Blade, now: float) -> str:
    repair = blade.status.repair
    if repair is None:
        return ""
    running = f", running for {_ago(repair.started_at, now)}" if repair.started_at else ""
    of = f" of {repair.code}" if repair.code else ""
    return f"{repair.doing}{of}, attempts {repair.attempts}{running}"


def _history(blade: Blade) -> str:
    history = blade.status.history
    if history is None:
        return ""
    score = f", lemon score {history.lemon_score}" if history.lemon_score else ""
    return (
        f"incidents {history.incidents28d}, quarantines {history.quarantines28d}, "
        f"failed jobs {history.job_failures28d}{score}"
    )


def _agent(blade: Blade, now: float) -> str:
    report = blade.status.report
    if report is None:
        return "has not reported yet"
    agent = report.agent
    parts = [
        f"version {agent.version}" if agent.version else "",
        f"driver {agent.driver}" if agent.driver else "",
        f"{len(report.gpus)} GPUs",
        f"{report.checks.run} checks",
        f"report changed {_ago(agent.time, now)} ago" if agent.time else "",
    ]
    return ", ".join(filter(None, parts))


def _network(blade: Blade) -> str:
    report = blade.status.report
    network = report.network if report is not None else None
    if network is None:
        return ""
    rate = f", {network.rate} Gb/s" if network.rate is not None else ""
    return f"{network.ports} ports active{rate}"


def _faults(faults: Sequence[Fault], now: float) -> Table:
    rows = [
        (
            one.code,
            _gpu(one.gpu),
            one.severity.value,
            one.action.value,
            str(one.count),
            _ago(one.last_seen or one.first_seen, now),
            one.evidence or "",
        )
        for one in faults
    ]
    headings = ("CODE", "GPU", "SEVERITY", "ACTION", "COUNT", "SEEN", "EVIDENCE")
    return Table(headings, rows, "Faults")


def _results(results: Sequence[StepResult], now: float) -> Table:
    rows = [
        (
            one.step,
            "passed" if one.passed else "failed",
            " ".join(filter(None, (one.value, one.unit))),
            _ago(one.at, now),
            one.group or "",
            one.evidence or "",
        )
        for one in results
    ]
    headings = ("STEP", "RESULT", "VALUE", "AGO", "GROUP", "EVIDENCE")
    return Table(headings, rows, "Qualification")


def _incidents(incidents: Sequence[Incident], now: float) -> Table:
    rows = [
        (
            _ago(one.at, now),
            one.code or "hold",
            _gpu(one.gpu),
            f"{one.from_ or 'new'} to {one.to or '?'}",
            ", ".join(one.jobs),
            one.outcome or "open",
        )
        for one in reversed(incidents)
    ]
    return Table(("AGO", "CODE", "GPU", "CHANGE", "JOBS", "OUTCOME"), rows, "Incidents")


def _gpu(index: int | None) -> str:
    return "" if index is None else str(index)


def _ago(time: str | None, now: float) -> str:
    return age(now - clock.parse(time)) if time else ""


def _at(time: str | None) -> str:
    return f"{time} " if time else ""
