"""Read a NodePool's spec once, so that judging a blade parses nothing."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from tramontane.api.blade import Action, Report, Severity
from tramontane.api.nodepool import HealthRule, NodePool, RemediationMode, RuleSeverity
from tramontane.api.quantity import of_percent, parse_duration, parse_quantity
from tramontane.controllers.nodepool import care
from tramontane.controllers.nodepool.care import Care, Raw


@dataclass(frozen=True, slots=True)
class Rule:
    """An override of the catalogue; `severity` None drops the fault."""

    code: str | None
    check: str | None
    count: int
    window_s: float | None
    severity: Severity | None
    action: Action | None


@dataclass(frozen=True, slots=True)
class Usual:
    """The versions that most of a pool's blades have; empty where that is not known."""

    driver: str = ""
    vbios: str = ""
    gsp: str = ""


@dataclass(frozen=True, slots=True)
class Policy:
    """What a pool wants of its blades.

    Attributes:
        memory_b: least memory per GPU, or None where it is not checked.
        min_driver: the oldest driver as numbers, empty where it is not checked.
        nvlink_links, infiniband_ports, infiniband_rate: the least per GPU, per blade and per port
            (Gb/s); 0 where it is not checked.
        usual: what the pool's blades have in common; the caller knows the others, not the spec.
        levels: Node labels that tell the domains apart, widest first.
        care: what its blades go through: qualification and repair.
    """

    pool: str
    uid: str
    product: str | None
    gpus: int
    memory: str | None
    memory_b: int | None
    min_driver: tuple[int, ...]
    levels: tuple[str, ...]
    tranche_label: str
    clear_after_s: float
    unknown_after_s: float
    rules: tuple[Rule, ...]
    mode: RemediationMode
    max_unavailable: int | str
    care: Care = field(default_factory=Care)
    nvlink_links: int = 0
    infiniband_ports: int = 0
    infiniband_rate: int = 0
    usual: Usual = Usual()

    def budget(self, total: int) -> int:
        """Return how many of `total` blades may be out at once: at least 1 if a percentage."""
        at_least = 1 if str(self.max_unavailable).endswith("%") else 0
        return of_percent(self.max_unavailable, total, at_least=at_least)


def read(pool: NodePool, reset: Raw | None = None, *, dry_run: bool = False) -> Policy:
    """Return the policy of a pool; `reset` is the pod that resets where it gives none.

    With `dry_run` a pool that would act only says what it would do, whatever its spec asks for, and
    tests nothing: the blades of a hall that runs already work on as they do.

    Raises:
        InvalidValue: a value that the CRD would have refused.
    """
    spec = pool.spec
    return Policy(
        pool=pool.metadata.name,
        uid=pool.metadata.uid or "",
        product=as_product(spec.gpu.product) if spec.gpu.product else None,
        gpus=spec.gpu.count,
        memory=spec.gpu.memory,
        memory_b=int(parse_quantity(spec.gpu.memory)) if spec.gpu.memory else None,
        min_driver=as_version(spec.gpu.min_driver or ""),
        levels=tuple(level.label for level in spec.topology.levels),
        tranche_label=spec.tranche_label,
        clear_after_s=parse_duration(spec.health.clear_after),
        unknown_after_s=parse_duration(spec.health.unknown_after),
        rules=tuple(map(_rule, spec.health.rules)),
        mode=_mode(spec.remediation.mode, dry_run=dry_run),
        max_unavailable=spec.remediation.max_unavailable,
        care=Care() if dry_run else care.read(pool, reset),
        nvlink_links=spec.gpu.nvlink_links,
        infiniband_ports=spec.gpu.infiniband_ports,
        infiniband_rate=spec.gpu.infiniband_rate,
    )


def _mode(asked: RemediationMode, *, dry_run: bool) -> RemediationMode:
    acts = asked is RemediationMode.AUTO
    return RemediationMode.DRY_RUN if dry_run and acts else asked


def usual_of(reports: Iterable[Report]) -> Usual:
    """Return the versions that more than half of those blades have that show one. O(GPUs).

    With no majority there is no telling who differs: that version is not checked.
    """
    drivers: Counter[str] = Counter()
    vbios: Counter[str] = Counter()
    gsp: Counter[str] = Counter()
    for report in reports:
        drivers.update({report.agent.driver or ""})
        vbios.update({gpu.vbios or "" for gpu in report.gpus})
        gsp.update({gpu.gsp_firmware or "" for gpu in report.gpus})
    return Usual(_majority(drivers), _majority(vbios), _majority(gsp))


def _majority(seen: Counter[str]) -> str:
    known = {version: count for version, count in seen.items() if version}
    most = max(known, key=known.__getitem__, default="")
    return most if most and 2 * known[most] > sum(known.values()) else ""


def as_product(text: str) -> str:
    """Return a product name as NVML's with dashes for spaces, the form that labels have."""
    return text.strip().replace(" ", "-")


def as_version(text: str) -> tuple[int, ...]:
    """Return the numbers of a version: `580.95.05` → (580, 95, 5); empty where there are none."""
    return tuple(int(part) for part in text.split(".") if part.isdecimal())


def _rule(rule: HealthRule) -> Rule:
    ignored = rule.severity is RuleSeverity.IGNORE
    return Rule(
        code=rule.match.code,
        check=rule.match.check,
        count=rule.count,
        window_s=parse_duration(rule.window) if rule.window else None,
        severity=None if ignored else Severity(rule.severity.value),
        action=rule.action,
    )
