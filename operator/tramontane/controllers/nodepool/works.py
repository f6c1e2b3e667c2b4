"""Say what a work pod is: a test or a repair on one blade, seen and wanted.

How a pod ends is how its container does, and what that says in its last line: one of JSON in the
termination message, `{"check": "burnin", "verdict": "PASS", "value": 341.5, "unit": "GB/s",
"reason": "…"}`. Our own checks (`tramontane.health.*`) always say one; of other tools the exit
code is enough. From the first row that holds:

| the container                                  | outcome | what it says                     |
|------------------------------------------------|---------|----------------------------------|
| exit code 0, verdict PASS                      | Passed  | the blade is good, or repaired   |
| exit code 1, verdict FAIL                      | Failed  | the blade is bad, or not repaired|
| another verdict: PASS with 1, FAIL with 0, …   | Broken  | nothing: it contradicts itself   |
| no verdict, and it is one of ours              | Broken  | nothing: our check never came far|
| no verdict, short of memory or put off the node| Broken  | nothing: it was killed           |
| no verdict, an interpreter's trace, exit code 1| Broken  | nothing: the tool died           |
| no verdict, exit code 0                        | Passed  | as above                         |
| no verdict, exit code 1                        | Failed  | as above                         |
| another code, a signal, no image, no container | Broken  | nothing: the checker broke       |
| the API server refuses the pod                 | Broken  | nothing: it may not run          |
| has not started in the time allowed            | Broken  | nothing: it is the cluster's     |
| runs longer than that, and it is one of ours   | Broken  | nothing: ours end a GPU that     |
|                                                |         | hangs by themselves, with FAIL   |
| runs longer than that                          | Failed  | as exit code 1                   |
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from tramontane.api import clock, names
from tramontane.api.names import Work
from tramontane.kube.waiting import NO_CONTAINER, NO_IMAGE

Raw = dict[str, Any]

ANNOTATION_GROUP_SIZE = "tramontane.dev/group-size"
_MOST_EVIDENCE, _MOST_UNIT = 512, 32
# Far beyond any rate; what is written down has no exponent.
_MOST_VALUE = 1e12
_OURS = "tramontane.health."
_ERROR = "ERROR"
_VERDICTS = ("PASS", "FAIL", _ERROR)
# The last words of an interpreter that dies, which it does with exit code 1, too.
_DIED = ("Traceback (most recent call last)", "No module named ")
_OOM_KILLED = "OOMKilled"


class Outcome(Enum):
    """Say how a work pod ended, or that it has not."""

    RUNNING = "running"
    PASSED = "passed"
    FAILED = "failed"
    BROKEN = "broken"


# Which verdict an exit code stands for.
_BY_CODE = {0: ("PASS", Outcome.PASSED), 1: ("FAIL", Outcome.FAILED)}


@dataclass(frozen=True, slots=True)
class WorkPod:
    """A work pod as it is seen.

    Attributes:
        created_at: by the API server's clock.
        started_at: when its container began to run, by the blade's clock, which may be hours off:
            on delivery many a machine keeps local time. None: it does not run.
        waited_s: how long the kubelet had the pod until then, by the same clock.
        ours: it runs one of our own checks, which end by themselves and always say a verdict.
        refused: the API server took no such pod, so it never ran.
    """

    name: str
    blade: str
    pool: str
    kind: Work
    outcome: Outcome
    created_at: float
    started_at: float | None = None
    waited_s: float = 0.0
    deleting: bool = False
    ours: bool = False
    refused: bool = False
    group: str = ""
    group_size: int = 0
    value: float | None = None
    unit: str = ""
    evidence: str = ""

    def outcome_at(self, now: float, timeout_s: float) -> Outcome:
        """Return the outcome, also of one that has not ended, or not begun, in the time allowed."""
        if self.outcome is not Outcome.RUNNING or now - self._since(now) <= timeout_s:
            return self.outcome
        says_nothing = self.started_at is None or self.ours
        return Outcome.BROKEN if says_nothing else Outcome.FAILED

    def _since(self, now: float) -> float:
        """Return from when its time counts.

        A kubelet takes a pod at once, as a rule, so that the start can be told without the blade's
        clock. Where it took it late, a clock that is not ahead says so.
        """
        at = self.created_at + self.waited_s
        return at if self.started_at is None or self.started_at > now else max(at, self.started_at)


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
    container = _container(raw)
    ours, state = _is_ours(container), _state(status, container.get("name"))
    outcome, said = _outcome(status, state, ours=ours)
    started_at = _time(state.get("running", {}).get("startedAt"))
    taken_at = _time(status.get("startTime"))
    waited_s = started_at - taken_at if started_at is not None and taken_at is not None else 0.0
    return WorkPod(
        name=meta["name"],
        blade=labels.get(names.LABEL_BLADE, ""),
        pool=labels.get(names.LABEL_POOL, ""),
        kind=Work(labels[names.LABEL_WORK]),
        outcome=outcome,
        created_at=clock.parse(meta["creationTimestamp"]),
        started_at=started_at,
        waited_s=max(0.0, waited_s),
        deleting="deletionTimestamp" in meta,
        ours=ours,
        group=labels.get(names.LABEL_GROUP, ""),
        group_size=int(annotations.get(ANNOTATION_GROUP_SIZE) or 0),
        value=_number(said.get("value")),
        unit=_line(said.get("unit"))[:_MOST_UNIT],
        evidence=_line(said.get("reason"))[:_MOST_EVIDENCE],
    )


def _container(raw: Raw) -> Raw:
    """Return the container that tests or repairs: the first, whatever runs beside it."""
    containers: Sequence[Raw] = (raw.get("spec") or {}).get("containers") or ({},)
    return containers[0]


def _is_ours(container: Raw) -> bool:
    """Return whether it runs one of our own checks, maybe within a shell's command."""
    words = (*(container.get("command") or ()), *(container.get("args") or ()))
    return any(_OURS in word for word in words)


def _state(status: Raw, name: object) -> Raw:
    """Return the state of a container, which kubelets list by name; empty while none has it."""
    statuses: Sequence[Raw] = status.get("containerStatuses") or ({},)
    found = next((one for one in statuses if one.get("name") == name), statuses[0])
    return found.get("state") or {}


def _time(text: str | None) -> float | None:
    return clock.parse(text) if text else None


def _number(said: object) -> float | None:
    """Return a value that can be compared and written down: NaN and a mere text are none."""
    if isinstance(said, bool) or not isinstance(said, int | float):
        return None
    return float(said) if abs(said) <= _MOST_VALUE else None


def _line(said: object) -> str:
    """Return a text as one line of characters that can be written down."""
    text = "" if said is None else str(said)
    return " ".join(text.encode(errors="replace").decode().split())


def _outcome(status: Raw, state: Raw, *, ours: bool) -> tuple[Outcome, Raw]:
    """Return how the pod ended and what its container said."""
    if (ended := state.get("terminated")) is not None:
        return _ending(status, ended, ours=ours)
    waiting = (state.get("waiting") or {}).get("reason", "")
    if waiting in NO_IMAGE | NO_CONTAINER:
        return Outcome.BROKEN, {"reason": waiting}
    if status.get("phase") == "Failed":
        return Outcome.BROKEN, {"reason": status.get("message") or status.get("reason")}
    done = status.get("phase") == "Succeeded"
    return (Outcome.PASSED, {}) if done else (Outcome.RUNNING, {"reason": waiting})


def _ending(status: Raw, ended: Raw, *, ours: bool) -> tuple[Outcome, Raw]:
    """Return what the end of a container means, and what it said or who ended it."""
    code: int = ended["exitCode"]
    message = str(ended.get("message") or "").strip()
    why = status.get("reason") or ended.get("reason") or "no reason"
    end, said = f"exit code {code} ({why})", _said(message)
    meant, outcome = _BY_CODE.get(code, ("", Outcome.BROKEN))
    verdict = said.get("verdict")
    if verdict in _VERDICTS:
        if verdict != meant:
            outcome = Outcome.BROKEN
            if verdict != _ERROR:
                said["reason"] = f"{end}, though it says {verdict}: {said.get('reason')}"
    else:
        killed = status.get("reason") or why == _OOM_KILLED
        died = outcome is Outcome.FAILED and any(words in message for words in _DIED)
        if ours or killed or died:
            outcome = Outcome.BROKEN
        end += " and no verdict" if ours else ""
    if outcome is not Outcome.PASSED and not said.get("reason"):
        last = f": {message.splitlines()[-1]}" if message and not said else ""
        said["reason"] = f"{end}{last}"
    return outcome, said


def _said(message: str) -> Raw:
    """Return the JSON object in the last line of a termination message, or an empty one."""
    lines = message.splitlines()
    try:
        said = json.loads(lines[-1]) if lines else {}
    except (ValueError, RecursionError):  # the latter of nothing but brackets
        return {}
    return said if isinstance(said, dict) else {}
