"""Say what a work pod is: a test or a repair on one blade, seen and wanted.

How a pod ends is how its container does:

| the container                      | outcome | what it says                             |
|------------------------------------|---------|------------------------------------------|
| exit code 0                        | Passed  | the blade is good, the repair was done   |
| exit code 1                        | Failed  | the blade is bad, the repair did not work|
| exit code 1, verdict ERROR or a trace | Broken | nothing: it was not the test that said so|
| another code, a signal, no image   | Broken  | nothing: the checker broke               |
| runs longer than the time allowed  | Failed  | as exit code 1                           |
| has not started in that time       | Broken  | nothing: it is the cluster's doing       |

The last thing a test says is one line of JSON in its termination message:
`{"check": "burnin", "verdict": "PASS", "value": 341.5, "unit": "GB/s", "reason": "…"}`.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from tramontane.api import clock, names
from tramontane.api.names import Work

Raw = dict[str, Any]

ANNOTATION_GROUP_SIZE = "tramontane.dev/group-size"
_MOST_EVIDENCE = 512
_PASS, _FAIL = 0, 1
_TRACE = "Traceback (most recent call last)"
# An image that cannot be had, or a container that cannot be made, does not get better by waiting.
_HOPELESS = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "CreateContainerConfigError"}
)


class Outcome(Enum):
    """Say how a work pod ended, or that it has not."""

    RUNNING = "running"
    PASSED = "passed"
    FAILED = "failed"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class WorkPod:
    """A work pod as it is seen."""

    name: str
    blade: str
    pool: str
    kind: Work
    outcome: Outcome
    created_at: float
    started_at: float | None = None
    deleting: bool = False
    group: str = ""
    group_size: int = 0
    value: float | None = None
    unit: str = ""
    evidence: str = ""

    def outcome_at(self, now: float, timeout_s: float) -> Outcome:
        """Return the outcome: Failed if it has run for too long, Broken if it never began to."""
        since = self.created_at if self.started_at is None else self.started_at
        if self.outcome is not Outcome.RUNNING or now - since <= timeout_s:
            return self.outcome
        return Outcome.BROKEN if self.started_at is None else Outcome.FAILED


@dataclass(frozen=True, slots=True)
class Want:
    """A work pod that a blade must have; the same want always has the same name."""

    kind: Work
    name: str
    gpu: int | None = None


def name_of(kind: Work, blade: str, token: str) -> str:
    """Return a work pod's name."""
    return f"{kind.value.lower()}-{blade}-{token}"


def decode(raw: Raw) -> WorkPod:
    """Return the view of a pod that has the label `tramontane.dev/work`."""
    meta, status = raw["metadata"], raw.get("status") or {}
    labels, annotations = meta.get("labels") or {}, meta.get("annotations") or {}
    outcome, said = _outcome(status)
    value, started_at = said.get("value"), _state(status).get("running", {}).get("startedAt")
    evidence = str(said.get("reason") or "")[:_MOST_EVIDENCE]
    return WorkPod(
        name=meta["name"],
        blade=labels.get(names.LABEL_BLADE, ""),
        pool=labels.get(names.LABEL_POOL, ""),
        kind=Work(labels[names.LABEL_WORK]),
        outcome=outcome,
        created_at=clock.parse(meta["creationTimestamp"]),
        started_at=clock.parse(started_at) if started_at else None,
        deleting="deletionTimestamp" in meta,
        group=labels.get(names.LABEL_GROUP, ""),
        group_size=int(annotations.get(ANNOTATION_GROUP_SIZE) or 0),
        value=float(value) if isinstance(value, int | float) else None,
        unit=str(said.get("unit") or "")[:32],
        evidence=evidence,
    )


def _outcome(status: Raw) -> tuple[Outcome, Raw]:
    """Return how the pod ended and what its container said."""
    state = _state(status)
    ended = state.get("terminated")
    if ended is None:
        waiting = (state.get("waiting") or {}).get("reason", "")
        if waiting in _HOPELESS:
            return Outcome.BROKEN, {"reason": waiting}
        if status.get("phase") == "Failed":
            return Outcome.BROKEN, {"reason": status.get("message") or status.get("reason")}
        done = status.get("phase") == "Succeeded"
        return (Outcome.PASSED, {}) if done else (Outcome.RUNNING, {"reason": waiting})
    code = ended.get("exitCode")
    said = _said(ended.get("message"))
    if code == _PASS:
        return Outcome.PASSED, said
    said.setdefault("reason", f"exit code {code} ({ended.get('reason') or 'no reason'})")
    # An interpreter that dies of an exception exits with 1, too; that condemns no blade.
    died = said.get("verdict") == "ERROR" or _TRACE in str(ended.get("message") or "")
    return (Outcome.FAILED if code == _FAIL and not died else Outcome.BROKEN), said


def _state(status: Raw) -> Raw:
    """Return the state of its one container; empty where no kubelet has taken it yet."""
    containers: Sequence[Raw] = status.get("containerStatuses") or ({},)
    return containers[0].get("state") or {}


def _said(message: object) -> Raw:
    """Return the JSON object in the last line of a termination message, or an empty one."""
    lines = str(message or "").strip().splitlines()
    try:
        said = json.loads(lines[-1]) if lines else {}
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}
