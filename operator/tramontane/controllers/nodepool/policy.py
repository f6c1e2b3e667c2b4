"""Read a NodePool's spec once, so that judging a blade parses nothing."""

from dataclasses import dataclass

from tramontane.api.blade import Action, Severity
from tramontane.api.nodepool import HealthRule, NodePool, RemediationMode, RuleSeverity
from tramontane.api.quantity import of_percent, parse_duration, parse_quantity


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
class Policy:
    """What a pool wants of its blades.

    Attributes:
        memory_b: least memory per GPU, or None where it is not checked.
        min_driver: the oldest driver as numbers, empty where it is not checked.
        levels: Node labels that tell the domains apart, widest first.
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

    def budget(self, total: int) -> int:
        """Return how many of `total` blades may be out at once: at least 1 if a percentage."""
        at_least = 1 if str(self.max_unavailable).endswith("%") else 0
        return of_percent(self.max_unavailable, total, at_least=at_least)


def read(pool: NodePool) -> Policy:
    """Return the policy of a pool.

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
        mode=spec.remediation.mode,
        max_unavailable=spec.remediation.max_unavailable,
    )


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
