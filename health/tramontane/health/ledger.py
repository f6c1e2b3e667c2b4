"""Take events one by one and let them open, repeat, explain or cancel faults.

An event is told up to three times: by NVML, by the kernel log, and by the log again when the
agent starts. Which tellings are one event:

| telling                                          | beside                    | means        |
|--------------------------------------------------|---------------------------|--------------|
| the log's, more than a day old                   | anything                  | over         |
| the log's, well before `lastSeen`, in this boot  | its fault                 | known        |
| the log's, within 5 s                            | its fault, told by NVML   | its line     |
| NVML's, within 5 s                               | its fault, told by the log| known        |
| NVML's, where the line says what it means        | its fault, a readable log | known        |
| the same                                         | a readable log, no fault  | Degraded for |
|                                                  |                           | 2 s at most  |

The last is for codes that are Fatal or nothing (144-150): the line decides, and until it is here
nothing that runs may be ended. Counts live in the report, because the agent has no other memory:
the line in a fault's evidence names the part that was struck, first and last time tell bursts
apart. A burst is one occurrence, and `count` is of occurrences; the metrics count lines. A repeat
costs some microseconds, whatever its number.

What the catalogue ignores is *noted*: a fault of severity None, which is wrong with nothing, but
can be counted by a pool's rules.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from tramontane.api import clock
from tramontane.api.blade import Action, Fault, Severity
from tramontane.health import catalogue, kernel_lines
from tramontane.health.checks import sxid, xid
from tramontane.health.checks.base import Finding
from tramontane.health.device import Event
from tramontane.health.escalation import (
    BURST_S,
    CANCELS,
    DAY_S,
    DETAILS,
    FOLLOWERS,
    NEAR_S,
    RECURRENCES,
    SAME_S,
    SOFTENED,
    Recurrence,
)

# Long enough for a kernel line with all its registers.
MAX_EVIDENCE = 200
# What no reboot ends.
STAYS = frozenset({Action.INSPECT, Action.REPLACE})
# How long NVML's event waits for its line: the log is looked at every 0.2 s (kmsg.py).
AWAIT_S = 2.0

_SEVERAL = "on several units: "
_LINES = ("NVRM: ", "nvidia-nvswitch")
_AWAITED = {xid.code(code): code for code in xid.TOLD_BY_LINE}
_BY_LINE = {*_AWAITED, *(code for code, rule in RECURRENCES.items() if rule.by_unit)}

Key = tuple[str, str]
Asks = tuple[Severity, Action]


def key(code: str, uuid: str | None, gpu: int | None) -> Key:
    """Return what makes two faults the same: the code and the GPU, by UUID where it is known."""
    return code, uuid or ("" if gpu is None else f"#{gpu}")


def key_of(fault: Fault) -> Key:
    """Return the key of a fault."""
    return key(fault.code, fault.uuid, fault.gpu)


@dataclass(frozen=True, slots=True)
class Scene:
    """What decides, beside the faults, what an event means.

    Attributes:
        now: Unix seconds; None where nothing is too old.
        log_readable: whether the kernel log tells all that NVML does.
        unasked: GPUs whose driver does not tell its recovery action.
    """

    now: float | None = None
    log_readable: bool = False
    unasked: frozenset[int] = frozenset()


@dataclass(slots=True)
class _Open:
    """A fault while events are taken; `fault` is what it was before, None once it has changed."""

    check: str
    gpu: int | None
    uuid: str
    asks: Asks
    count: int
    first_at: float
    last_at: float
    boot_id: str
    evidence: str
    fault: Fault | None = None

    @property
    def by_log(self) -> bool:
        """Return whether the kernel log told it last."""
        return any(start in self.evidence for start in _LINES)


@dataclass(slots=True)
class Ledger:
    """The open faults by code and GPU, while events are taken."""

    boot_id: str
    uuids: Mapping[int, str]
    scene: Scene
    kept: dict[Key, _Open] = field(default_factory=dict)
    # When the last event that is no fault came, by GPU: it may be what a follower follows.
    ignored: dict[str, float] = field(default_factory=dict)

    def keep(self, fault: Fault) -> None:
        """Begin with a fault of the report.

        Nothing is of the future: where the clock was set back, the fault was last seen now, so that
        what comes next is neither taken for its past nor for its burst for as long as the step was.
        """
        now = self.scene.now
        at = (now or 0.0) if fault.last_seen is None else clock.parse(fault.last_seen)
        set_back = now is not None and at > now
        if now is not None:
            at = min(at, now)
        asks = (fault.severity, fault.action)
        overdue = now is None or not self.scene.log_readable or now - at > AWAIT_S
        if overdue and is_awaiting(fault):
            asks = _alone(fault.code)
        self.kept[key_of(fault)] = _Open(
            check=fault.check or xid.NAME,
            gpu=fault.gpu,
            uuid=fault.uuid or "",
            asks=asks,
            count=fault.count,
            first_at=at if fault.first_seen is None else min(at, clock.parse(fault.first_seen)),
            last_at=at,
            boot_id=fault.boot_id or "",
            evidence=fault.evidence or "",
            fault=None if set_back or asks != (fault.severity, fault.action) else fault,
        )

    def faults(self) -> list[Fault]:
        """Return the faults as they are now; those that did not change are the same objects."""
        return [opened.fault or _fault(code, opened) for (code, _), opened in self.kept.items()]

    def take(self, event: Event) -> None:
        """Take one event: drop it, or let it open, repeat, explain or end a fault."""
        if event.xid is not None:
            code, uuid = xid.code(event.xid), event.uuid or self.uuids.get(event.gpu, "")
            finding = xid.judge(event, asked=event.gpu not in self.scene.unasked)
            where = key(code, uuid, None if event.gpu < 0 else event.gpu)[1]
        elif event.sxid is not None:
            code, uuid, where, finding = sxid.code(event.sxid), "", "", sxid.judge(event)
        else:
            return
        # 1. What has been told before.
        if self._is_over(event, finding) or self._is_retold(event, code, where):
            return
        # 2. What it ends, and what it only explains.
        for cancelled in CANCELS.get(code, ()):
            self.kept.pop((cancelled, where), None)
        if self._explains(event, code, where):
            return
        # 3. A follower is nothing beside its cause, whichever comes first.
        if code in FOLLOWERS and self._has_cause(event, where):
            return
        if code not in FOLLOWERS:
            self._drop_followers(event.at, where)
        if finding is None or (code in CANCELS and finding.severity is Severity.NONE):
            self.ignored[where] = event.at
            return
        # 4. What it asks for, alone and with the others.
        opened = self.kept.get((code, where))
        if opened is None:
            self._open(event, code, where, finding, uuid)
        else:
            self._repeat(event, code, where, finding, opened)
        self._soften(where)

    def _is_over(self, event: Event, finding: Finding | None) -> bool:
        """Return whether it is so old that nobody knows what has ended it since."""
        old = self.scene.now is not None and self.scene.now - event.at > DAY_S
        return old and finding is not None and finding.action not in STAYS

    def _is_retold(self, event: Event, code: str, where: str) -> bool:
        """Return whether its fault has it already, or will have it by the log's line."""
        opened = self.kept.get((code, where))
        if opened is None:
            return False
        if event.source != "kmsg":
            return self.scene.log_readable and code in _BY_LINE
        return opened.boot_id == self.boot_id and event.at < opened.last_at - SAME_S

    def _explains(self, event: Event, code: str, where: str) -> bool:
        detail = DETAILS.get(code)
        if detail is None:
            return False
        explained = self.kept.get((detail.of, where))
        if explained is None or abs(event.at - explained.last_at) > NEAR_S:
            return False
        self._change(explained, event.at, _with(detail.text, explained.evidence))
        return True

    def _has_cause(self, event: Event, where: str) -> bool:
        times = [
            opened.last_at
            for (code, at_gpu), opened in self.kept.items()
            if at_gpu == where and code not in FOLLOWERS
        ]
        times += [self.ignored[where]] if where in self.ignored else []
        return any(abs(event.at - at) <= NEAR_S for at in times)

    def _drop_followers(self, at: float, where: str) -> None:
        for follower in FOLLOWERS:
            opened = self.kept.get((follower, where))
            if opened is not None and abs(at - opened.last_at) <= NEAR_S:
                del self.kept[follower, where]

    def _open(self, event: Event, code: str, where: str, finding: Finding, uuid: str) -> None:
        asks = (finding.severity, finding.action)
        if event.source != "kmsg" and self.scene.log_readable and code in _AWAITED:
            asks = _until_told(asks)
        evidence = finding.evidence
        for detail_code, detail in DETAILS.items():
            known = self.kept.get((detail_code, where)) if detail.of == code else None
            if known is not None and abs(event.at - known.last_at) <= NEAR_S:
                del self.kept[detail_code, where]
                evidence = _with(detail.text, evidence)
        self.kept[code, where] = _Open(
            check=sxid.NAME if event.xid is None else xid.NAME,
            gpu=finding.gpu,
            uuid=uuid,
            asks=asks,
            count=1,
            first_at=event.at,
            last_at=event.at,
            boot_id=self.boot_id,
            evidence=evidence,
        )
        self._spread(event, code, where, finding)

    def _repeat(self, event: Event, code: str, where: str, finding: Finding, opened: _Open) -> None:
        asks = (finding.severity, finding.action)
        by_line = event.source == "kmsg"
        if abs(event.at - opened.last_at) <= SAME_S and by_line != opened.by_log:
            if by_line:  # NVML was faster; the line knows more
                told_once = opened.first_at == opened.last_at
                opened.asks = asks if told_once else _worse(opened.asks, asks)
                self._change(opened, event.at, finding.evidence)
            return
        evidence = finding.evidence
        rule = RECURRENCES.get(code)
        again = event.at - opened.last_at > (BURST_S if rule is None else rule.burst_s)
        if rule is not None:
            if again and self._recurs(rule, event, code, where, opened):
                asks = _worse(asks, (rule.severity, rule.action))
            elif not again and rule.by_unit and not event.unit:
                evidence = opened.evidence  # XID 13's registers, a burst's last line, name no part
            elif not again and rule.by_unit and rule.alone and _other_unit(event, opened):
                opened.asks, evidence = asks, _SEVERAL + finding.evidence
        opened.asks = _worse(opened.asks, asks)
        opened.count += again
        self._change(opened, event.at, evidence)
        self._spread(event, code, where, finding)

    def _recurs(self, rule: Recurrence, event: Event, code: str, where: str, opened: _Open) -> bool:
        """Return whether a burst after another one is the part's, not the application's."""
        if event.at - opened.last_at > rule.window_s:
            return False
        if rule.by_unit and (not event.unit or event.unit != unit(opened.evidence)):
            return False
        return not rule.alone or all(
            abs(event.at - other.last_at) > rule.window_s for other in self._others(code, where)
        )

    def _spread(self, event: Event, code: str, where: str, finding: Finding) -> None:
        """Take back what another GPU was charged with, where this one has it at the same time."""
        rule = RECURRENCES.get(code)
        if rule is None or not rule.alone:
            return
        asks = (finding.severity, finding.action)
        for other in self._others(code, where):
            if abs(event.at - other.last_at) <= rule.burst_s and _worse(other.asks, asks) != asks:
                other.asks, other.fault = asks, None

    def _others(self, code: str, where: str) -> Iterator[_Open]:
        for (kept_code, at_gpu), opened in self.kept.items():
            if kept_code == code and at_gpu != where:
                yield opened

    def _soften(self, where: str) -> None:
        for code, rule in SOFTENED.items():
            opened = self.kept.get((code, where))
            if opened is None or opened.asks[1] is not rule.action:
                continue
            near = (self.kept.get((other, where)) for other in rule.by)
            if any(o is not None and abs(o.last_at - opened.last_at) <= NEAR_S for o in near):
                opened.asks, opened.fault = (rule.severity, rule.action), None

    def _change(self, opened: _Open, at: float, evidence: str) -> None:
        opened.last_at = max(opened.last_at, at)
        opened.boot_id = self.boot_id
        opened.evidence = evidence
        opened.fault = None


def is_noted(fault: Fault) -> bool:
    """Return whether a fault is there for a pool's rules only: nothing is wrong."""
    return fault.severity is Severity.NONE


def is_awaiting(fault: Fault) -> bool:
    """Return whether a fault is only doubted, because its line has not come yet."""
    by_log = any(start in (fault.evidence or "") for start in _LINES)
    return fault.code in _AWAITED and fault.severity is Severity.DEGRADED and not by_log


def _until_told(asks: Asks) -> Asks:
    return (Severity.DEGRADED, asks[1]) if asks[0] is Severity.FATAL else asks


def _alone(code: str) -> Asks:
    row = catalogue.look_up(_AWAITED[code])
    return row.severity, row.action


def _fault(code: str, opened: _Open) -> Fault:
    return Fault(
        code=code,
        check=opened.check,
        gpu=opened.gpu,
        uuid=opened.uuid or None,
        severity=opened.asks[0],
        action=opened.asks[1],
        count=opened.count,
        first_seen=clock.utc(opened.first_at),
        last_seen=clock.utc(opened.last_at),
        boot_id=opened.boot_id or None,
        evidence=opened.evidence[:MAX_EVIDENCE],
    )


def _worse(a: Asks, b: Asks) -> Asks:
    """Return the worse of two; the severity decides, then the action."""
    return a if catalogue.rank(*a) >= catalogue.rank(*b) else b


def _with(text: str, evidence: str) -> str:
    return evidence if text in evidence else f"{text}; {evidence}"


def _other_unit(event: Event, opened: _Open) -> bool:
    known = unit(opened.evidence)
    return event.unit != known and (bool(known) or opened.evidence.startswith(_SEVERAL))


@lru_cache(maxsize=256)
def unit(evidence: str) -> str:
    """Return the part that a fault's evidence names; empty where it names none, or several."""
    if evidence.startswith(_SEVERAL):
        return ""
    line = kernel_lines.parse(evidence)
    return line.unit if line is not None else ""
