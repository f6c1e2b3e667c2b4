"""Explain an object as it is now: evidence, rule, who, what it blocks, what ends it. Pure."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tramontane.api import clock
from tramontane.api.blade import Blade, BladeState, Fault
from tramontane.api.conditions import Condition, ConditionStatus
from tramontane.api.gang import Gang
from tramontane.api.inferencedeployment import InferenceDeployment
from tramontane.api.meanings import Meaning
from tramontane.api.nodepool import NodePool
from tramontane.api.trainingjob import TrainingJob
from tramontane.cli import dictionary, happenings, objects, tables, wishes
from tramontane.cli.effects import BY_ITSELF, COMES_BACK, Use
from tramontane.cli.tables import Table, age, facts
from tramontane.kube.resources import (
    BLADES,
    GANGS,
    INFERENCEDEPLOYMENTS,
    NODEPOOLS,
    TRAININGJOBS,
    Resource,
)

Pairs = list[tuple[str, str]]
Told = tuple[Pairs, list[Table]]

_GANG, _BLADE = "Why a gang waits", "Why a blade is out"
_JOB, _SERVED = "What happened to a job", "What happened to a deployment"
_MOST_SHOWN = 5
# Conditions that are bad news when they hold; of all others it is bad news when they do not.
_BAD_IF_TRUE = frozenset(
    {"Stalled", "Failed", "BudgetExhausted", "BreakerOpen", "TooFewSpares", "Reconciling"}
)


@dataclass(frozen=True, slots=True)
class Explained:
    """Hold an object and what stands around it.

    Attributes:
        pool: the NodePool of a blade or a gang, where it can be read.
        gang: of a job, or None.
        use: who uses a blade.
        waiting: gangs of the same pool that have no place, the first in the queue first.
    """

    kind: Resource
    raw: Mapping[str, Any]
    pool: Mapping[str, Any] | None = None
    gang: Mapping[str, Any] | None = None
    use: Use | None = None
    waiting: Sequence[Mapping[str, Any]] = ()


def story(found: Explained, now: float) -> tuple[list[str], list[Table]]:
    """Return the explanation for people."""
    pairs, shown = _OF[found.kind](found, now)
    return facts(pairs), [one for one in shown if one.rows]


def content(found: Explained) -> dict[str, Any]:
    """Return it for programs: the status as it is, and what the words in it mean."""
    status = found.raw.get("status") or {}
    whole: dict[str, Any] = {
        "object": objects.said_of(found.kind, found.raw),
        "status": status,
    }
    if (reason := status.get("reason")) and (told := dictionary.reason(reason)) is not None:
        whole["reason"] = told.to_dict()
    codes = [one["code"] for one in (status.get("report") or {}).get("faults") or ()]
    if codes:
        whole["faults"] = [one.to_dict() for code in dict.fromkeys(codes) for one in _known(code)]
    if found.use is not None:
        whole["usedBy"] = {"gangs": list(found.use.gangs), "spareOf": list(found.use.spare_of)}
        if found.use.pods:
            whole["usedBy"]["pods"] = list(found.use.pods)
    if found.waiting:
        whole["waiting"] = [objects.said_of(GANGS, one) for one in found.waiting]
    return whole


def _blade(found: Explained, now: float) -> Told:
    blade = Blade.model_validate(found.raw)
    pool = NodePool.model_validate(found.pool) if found.pool is not None else None
    status = blade.status
    state = status.state or "not seen yet"
    pairs: Pairs = [
        ("Blade", f"{blade.metadata.name} in pool {blade.spec.pool}"),
        ("State", f"{state}{_since(status.state_since, now)}"),
        *_meaning(status.reason, status.message, _BLADE),
        ("By", _who(blade)),
        ("Blocks", _blocks(blade, found)),
        ("Ends when", _ends(blade, pool)),
    ]
    faults = status.report.faults if status.report is not None else ()
    rows = [
        (
            one.code,
            "" if one.gpu is None else str(one.gpu),
            str(one.severity),
            str(one.action),
            _rule(one, pool),
            one.evidence or "",
        )
        for one in faults
    ]
    meanings = [
        (code, "; ".join(_says(told) for told in _known(code)))
        for code in dict.fromkeys(one.code for one in faults)
    ]
    return pairs, [
        Table(("CODE", "GPU", "SEVERITY", "ACTION", "RULE", "EVIDENCE"), rows, "Evidence"),
        Table(("CODE", "MEANS"), meanings, "Codes"),
        _queue(found.waiting) if state != BladeState.HEALTHY else Table(()),
    ]


def _who(blade: Blade) -> str:
    """Return whose word or finding the state is."""
    hold = blade.spec.hold
    if hold is not None and wishes.is_held(blade):
        return f"{hold.by}, {hold.at or 'at no known time'}: {hold.reason}"
    last = blade.status.incidents[-1] if blade.status.incidents else None
    if last is None or blade.status.state is BladeState.HEALTHY:
        return ""
    gpu = f" on GPU {last.gpu}" if last.gpu is not None else ""
    return f"the operator, {last.at or 'at no known time'}: {last.code or 'hold'}{gpu}"


def _blocks(blade: Blade, found: Explained) -> str:
    """Return what the state keeps from running, or what runs all the same."""
    use, state = found.use, blade.status.state
    runs = str(use) if use is not None else "nothing"
    if state is BladeState.HEALTHY:
        return f"nothing; in use by {runs}" if runs != "nothing" else "nothing; it is free"
    gpus = len(blade.status.report.gpus) if blade.status.report is not None else 0
    lost = f"{gpus} GPUs take no new work" if gpus else "it takes no new work"
    waiting = tables.counted(len(found.waiting), "gang")
    waits = f"; {waiting} waiting in its pool" if found.waiting else ""
    still = f"; still there: {runs}" if runs != "nothing" else ""
    return f"{lost}{still}{waits}"


def _ends(blade: Blade, pool: NodePool | None) -> str:
    """Return what takes the blade back to work."""
    if blade.status.state is BladeState.HEALTHY:
        return ""
    name, verdict = blade.metadata.name, blade.status.verdict
    if wishes.is_held(blade):
        return f'somebody releases it: tramontane release {name} --reason "…"'
    if blade.status.state in BY_ITSELF:
        return f"{COMES_BACK}; a release does not end it"
    after = f"its faults are gone for {pool.spec.health.clear_after}" if pool is not None else ""
    action = str(verdict.action) if verdict is not None else "None"
    first = f"{action} is done" if action not in {"None", "RestartApp"} else ""
    tests = ""
    if pool is not None and pool.spec.qualification is not None and first:
        tests = "it has passed the pool's tests"
    parts = ", ".join(filter(None, (first, after, tests)))
    mended = f'once mended: tramontane release {name} --reason "…"'
    return f"{parts}; or {mended}" if parts else mended


def _rule(fault: Fault, pool: NodePool | None) -> str:
    """Return which rule judges a fault: the pool's first that matches, else the catalogue."""
    for number, rule in enumerate(pool.spec.health.rules if pool is not None else (), 1):
        match = rule.match
        if match.code not in {None, fault.code} or match.check not in {None, fault.check}:
            continue
        often = f", {rule.count} within {rule.window}" if rule.count > 1 else ""
        action = f" and {rule.action}" if rule.action is not None else ""
        return f"health.rules[{number - 1}]: {rule.severity}{action}{often}"
    return "catalogue"


def _job(found: Explained, now: float) -> Told:
    job = TrainingJob.model_validate(found.raw)
    status = job.status
    gang = Gang.model_validate(found.gang).status if found.gang is not None else None
    name = objects.said_of(TRAININGJOBS, found.raw)
    waits = gang is not None and gang.placement is None
    pairs: Pairs = [
        ("TrainingJob", job.metadata.key),
        ("Phase", f"{status.phase or 'not seen yet'}{_since(status.phase_since, now)}"),
        *_meaning(
            status.reason,
            happenings.plain(status.message, job.metadata.key),
            _GANG if waits else _JOB,
        ),
        ("Ready", f"{status.ready} ranks" if status.ready else ""),
        ("Gang", _placed(gang) if gang is not None else "none yet"),
        ("Progress", f"step {status.step:,}, {status.step_time} each" if status.step else ""),
        ("Time", happenings.goodput(job)),
        ("See also", f"tramontane {'why' if waits else 'timeline'} {name}"),
    ]
    return pairs, [_conditions(status.conditions, now)]


def _placed(gang: Any) -> str:
    if gang.placement is None:
        position = f", position {gang.position}" if gang.position else ""
        return f"{gang.phase or 'not looked at yet'}{position}"
    spares = len(gang.placement.spares)
    return (
        f"{gang.phase} on {tables.counted(len(gang.placement.seats), 'blade')}, "
        f"{tables.counted(spares, 'spare')}"
    )


def _deployment(found: Explained, now: float) -> Told:
    deployment = InferenceDeployment.model_validate(found.raw)
    status = deployment.status
    name = objects.said_of(INFERENCEDEPLOYMENTS, found.raw)
    plan = status.plan
    pairs: Pairs = [
        ("InferenceDeployment", deployment.metadata.key),
        ("Phase", str(status.phase or "not seen yet")),
        *_meaning(status.reason, status.message, _SERVED),
        ("Ready", f"{status.ready} replicas" if status.ready else ""),
        ("Endpoint", status.endpoint or ""),
        ("Plan", f"{plan.layout or 'none'}: {plan.why or ''}" if plan is not None else ""),
        ("See also", f"tramontane why {name}, tramontane timeline {name}"),
    ]
    amiss = [
        (
            one.name,
            one.state or "",
            one.ranks or "",
            str(one.restarts),
            one.why or str(one.reason or ""),
        )
        for one in status.replicas
        if one.state != "Serving" or one.why
    ]
    decided = [
        (age(now - clock.parse(one.at)), one.what, one.why or "")
        for one in reversed(status.decisions)
    ]
    return pairs, [
        Table(("REPLICA", "STATE", "RANKS", "RESTARTS", "WHY"), amiss, "Replicas that lack"),
        Table(("AGO", "DECIDED", "WHY"), decided[:_MOST_SHOWN], "Decisions"),
        _conditions(status.conditions, now),
    ]


def _gang(found: Explained, now: float) -> Told:
    gang = Gang.model_validate(found.raw)
    status = gang.status
    name = objects.said_of(GANGS, found.raw)
    pairs: Pairs = [
        ("Gang", f"{gang.metadata.key} in pool {gang.spec.pool}"),
        ("State", f"{_placed(status)}{_since(status.placed_at, now)}"),
        *_meaning(status.reason, happenings.plain(status.message, gang.metadata.key), _GANG),
        ("See also", f"tramontane why {name}"),
    ]
    return pairs, []


def _pool(found: Explained, now: float) -> Told:
    pool = NodePool.model_validate(found.raw)
    ready = next((one for one in pool.status.conditions if one.type == "Ready"), None)
    message = ready.message if ready is not None else ""
    pairs: Pairs = [
        ("NodePool", pool.metadata.name),
        ("Ready", f"{ready.status}: {message}" if ready is not None else "not seen yet"),
        ("Remediation", f"{pool.spec.remediation.mode}"),
        ("See also", f"tramontane fleet --pool {pool.metadata.name}"),
    ]
    for one in pool.status.conditions:
        if one.type in _BAD_IF_TRUE and one.status is ConditionStatus.TRUE:
            pairs[-1:-1] = _meaning(one.reason, one.message, _BLADE)
    return pairs, [_queue(found.waiting), _conditions(pool.status.conditions, now)]


def _meaning(reason: Any, message: str | None, of: str) -> Pairs:
    """Return the reason with what it means in general, the message, and the way out."""
    if not reason:
        return [("Message", message or "")]
    told = dictionary.reason(str(reason), of)
    return [
        ("Reason", str(reason)),
        ("Message", message or ""),
        ("Means", told.text if told is not None else ""),
        ("Way out", told.way_out if told is not None else ""),
    ]


def _known(code: str) -> "Sequence[Meaning | dictionary.Code]":
    try:
        return dictionary.look_up(code)
    except dictionary.NoSuchWord:
        return ()


def _says(told: "Meaning | dictionary.Code") -> str:
    must = told.must if isinstance(told, dictionary.Code) else ""
    return f"must hold: {must}" if must else told.text


def _queue(waiting: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        (
            _key(one),
            str(one["status"].get("reason") or ""),
            happenings.plain(one["status"].get("message"), _key(one)),
        )
        for one in waiting[:_MOST_SHOWN]
    ]
    title = f"{tables.counted(len(waiting), 'gang')} waiting in this pool"
    return Table(("GANG", "REASON", "MESSAGE"), rows, title)


def _key(raw: Mapping[str, Any]) -> str:
    return f"{raw['metadata']['namespace']}/{raw['metadata']['name']}"


def _conditions(conditions: Iterable[Condition], now: float) -> Table:
    """Return what is not as it should be."""
    rows = [
        (
            one.type,
            str(one.status),
            _since(one.last_transition_time, now).removeprefix(" for "),
            one.reason,
            one.message,
        )
        for one in conditions
        if (one.status is ConditionStatus.TRUE) == (one.type in _BAD_IF_TRUE)
        and one.type != "Complete"
    ]
    return Table(("CONDITION", "STATUS", "SINCE", "REASON", "MESSAGE"), rows, "Not as it should be")


def _since(time: str | None, now: float) -> str:
    return f" for {age(now - clock.parse(time))}" if time else ""


_OF: Mapping[Resource, Callable[[Explained, float], Told]] = {
    BLADES: _blade,
    TRAININGJOBS: _job,
    INFERENCEDEPLOYMENTS: _deployment,
    GANGS: _gang,
    NODEPOOLS: _pool,
}
