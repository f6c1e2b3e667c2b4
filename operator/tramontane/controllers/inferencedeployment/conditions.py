"""Say what holds of a deployment, as conditions that kstatus understands.

| condition | True | False | Unknown |
|---|---|---|---|
| Ready | as many replicas serve as are wanted | fewer | |
| Planned | the spec's revision has a layout | it was refused | nothing is planned yet |
| ArtifactVerified | its weights are as they must be, and signed | they are not | not loaded |
| Scheduled | every replica's Gang has its place | one waits | there are none |
| SLOMet | p95 within spec.slo | above | no SLO, or no requests |
| Reconciling | something is on its way | all is as wanted, or Stalled | |
| Stalled | only people can help | | |

Messages carry no number that changes by itself.
"""

from dataclasses import dataclass

from tramontane.api.conditions import Condition, ConditionType, condition
from tramontane.api.inferencedeployment import Slo
from tramontane.api.inferencestatus import InferencePhase
from tramontane.api.reasons import InferenceReason
from tramontane.controllers.inferencedeployment.layout import Refusal
from tramontane.controllers.inferencedeployment.load import Load, merged, quantile
from tramontane.controllers.trainingjob.durations import seconds

_P95 = 0.95


@dataclass(frozen=True, slots=True)
class Holds:
    """Hold what the conditions are made of.

    Attributes:
        planned: None while there is nothing to plan.
        verified: of the weights of the revision that serves, or is about to.
        scheduled: None where there are no replicas.
        slo: whether it is met, None where nobody knows.
        moving: something is on its way.
    """

    phase: InferencePhase
    reason: str | None
    message: str
    refusal: Refusal | None
    serving: int
    wanted: int
    planned: bool | None
    verified: bool | None
    scheduled: bool | None
    waits: str
    slo: bool | None
    slo_text: str
    moving: bool
    stalled: bool


def conditions(found: Holds, generation: int | None) -> list[Condition]:
    """Return all conditions, without times."""
    why = str(found.reason or found.phase)
    enough = found.serving >= found.wanted
    refused = found.refusal.reason if found.refusal is not None else ""
    text = found.refusal.message if found.refusal is not None else ""
    mismatch = found.verified is False

    def made(type_: ConditionType, holds: bool | None, reason: str, note: str = "") -> Condition:
        return condition(type_, holds, reason, note, generation)

    ready = enough and found.phase is not InferencePhase.FAILED
    return [
        made(
            ConditionType.READY,
            ready,
            str(found.phase) if ready else why,
            "" if ready else found.message,
        ),
        made(
            ConditionType.PLANNED,
            found.planned,
            refused or ("Planned" if found.planned else "Planning"),
            text,
        ),
        made(
            ConditionType.ARTIFACT_VERIFIED,
            found.verified,
            str(InferenceReason.ARTIFACT_MISMATCH)
            if mismatch
            else "Verified"
            if found.verified
            else "NotLoaded",
            found.message if mismatch else "",
        ),
        made(
            ConditionType.SCHEDULED,
            found.scheduled,
            found.waits or ("Placed" if found.scheduled else "NoReplicas"),
            found.message if found.waits else "",
        ),
        made(
            ConditionType.SLO_MET,
            found.slo,
            {True: "Met", False: str(InferenceReason.SLO_BREACHED), None: "NotJudged"}[found.slo],
            found.slo_text,
        ),
        made(ConditionType.RECONCILING, found.moving and not found.stalled, why),
        made(
            ConditionType.STALLED,
            found.stalled,
            why if found.stalled else "Progressing",
            found.message if found.stalled else "",
        ),
    ]


def slo_met(slo: Slo | None, loads: list[Load]) -> tuple[bool | None, str]:
    """Return whether answers are as quick as they must be, and which are not."""
    if slo is None:
        return None, ""
    late, judged = [], False
    for name, limit, histograms in (
        ("ttftP95", slo.ttft_p95, [load.ttft for load in loads]),
        ("itlP95", slo.itl_p95, [load.itl for load in loads]),
    ):
        p95_s = quantile(merged(histograms), _P95)
        if limit is None or p95_s is None:
            continue
        judged = True
        if p95_s > seconds(limit):
            late.append(f"{name} is above {limit}")
    return (not late) if judged else None, ", ".join(late)
