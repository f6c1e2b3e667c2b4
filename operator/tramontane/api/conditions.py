"""Define conditions, and how a new set follows an old one."""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Annotated

from tramontane.api.base import Model, Timestamp, about


class ConditionStatus(StrEnum):
    """Say whether a condition holds; Unknown is neither."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class ConditionType(StrEnum):
    """List the condition types of all kinds."""

    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    BUDGET_EXHAUSTED = "BudgetExhausted"
    BREAKER_OPEN = "BreakerOpen"
    TOO_FEW_SPARES = "TooFewSpares"
    DRY_RUN = "DryRun"
    ADMITTED = "Admitted"
    GANG_READY = "GangReady"
    COMPLETE = "Complete"
    FAILED = "Failed"
    PLANNED = "Planned"
    ARTIFACT_VERIFIED = "ArtifactVerified"
    SCHEDULED = "Scheduled"
    SLO_MET = "SLOMet"


class Condition(Model):
    """State one finding about an object, as all of Kubernetes does."""

    type: Annotated[
        str,
        about(
            "What the finding is about.",
            example="Ready",
            min_length=1,
            max_length=316,
            pattern=r"^[A-Za-z]([-A-Za-z0-9_./]*[A-Za-z0-9])?$",
        ),
    ]
    status: Annotated[
        ConditionStatus, about("Whether it holds: True, False or Unknown.", example="True")
    ]
    reason: Annotated[
        str,
        about(
            "Why, in one CamelCase word.",
            example="WaitingForCapacity",
            min_length=1,
            max_length=1024,
            pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
        ),
    ]
    message: Annotated[
        str,
        about(
            "Why, for people, with numbers.",
            example="needs 128 blades (got 120 free)",
            max_length=32768,
        ),
    ] = ""
    last_transition_time: Annotated[
        Timestamp | None, about("When the status last flipped.", example="2026-11-24T15:02:07Z")
    ] = None
    observed_generation: Annotated[
        int | None, about("The generation of the spec this was said of.", example=3, ge=0)
    ] = None


Conditions = tuple[Condition, ...]


def condition(
    type_: str,
    holds: bool | None,
    reason: str,
    message: str = "",
    observed_generation: int | None = None,
) -> Condition:
    """Return a condition without a time yet; `holds` is None where nobody knows."""
    status = {
        True: ConditionStatus.TRUE,
        False: ConditionStatus.FALSE,
        None: ConditionStatus.UNKNOWN,
    }[holds]
    return Condition(
        type=type_,
        status=status,
        reason=reason,
        message=message,
        observed_generation=observed_generation,
    )


def find(conditions: Iterable[Condition], type_: str) -> Condition | None:
    """Return the condition of that type, or None."""
    return next((c for c in conditions if c.type == type_), None)


def holds(conditions: Iterable[Condition], type_: str) -> bool:
    """Return whether the condition of that type is there and True."""
    found = find(conditions, type_)
    return found is not None and found.status is ConditionStatus.TRUE


def set_conditions(
    old: Sequence[Condition], new: Sequence[Condition], now: str
) -> tuple[Condition, ...]:
    """Return `new` with transition times, sorted by type; what is not in `new` is gone.

    | status against the old condition of the same type | lastTransitionTime |
    |---|---|
    | there was none    | `now`         |
    | flipped           | `now`         |
    | the same          | the old one's |

    So applying the same findings twice gives the same bytes, and no new resourceVersion.
    """
    before = {c.type: c for c in old}

    def at(fresh: Condition) -> str:
        past = before.get(fresh.type)
        if past is None or past.status is not fresh.status:
            return now
        return past.last_transition_time or now

    return tuple(
        c.model_copy(update={"last_transition_time": at(c)})
        for c in sorted(new, key=lambda c: c.type)
    )
