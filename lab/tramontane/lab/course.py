"""Follow blades through their life, as their status tells it, and pick what people want to hear.

What is expected (Delivered, Qualifying, the next step, Healthy) is only counted; what is not gets
a line, with the state's reason and the evidence. A failed group gets one line, not one per blade.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Raw = dict[str, Any]

# In the order of a blade's life; the rest needs a word.
ON_COURSE = ("Delivered", "Qualifying", "Healthy")
_ORDER = (
    *ON_COURSE,
    "Suspect",
    "Quarantined",
    "Draining",
    "Repairing",
    "Requalifying",
    "RMA",
    "Unknown",
    "Lost",
)
_MOST_CHARS = 120


@dataclass(frozen=True, slots=True)
class View:
    """What a blade's status says of where it is. `groups`: failed ones, with their evidence."""

    name: str
    state: str = ""
    reason: str = ""
    message: str = ""
    step: str = ""
    repairs: int = 0
    groups: Mapping[str, bool] = field(default_factory=dict)
    evidence: Mapping[str, str] = field(default_factory=dict)


def view(raw: Raw) -> View:
    """Read a Blade."""
    status = raw.get("status") or {}
    asked, repair = status.get("qualification") or {}, status.get("repair") or {}
    results = [one for one in asked.get("results") or () if one.get("group")]
    return View(
        name=raw["metadata"]["name"],
        state=status.get("state", ""),
        reason=status.get("reason", ""),
        message=status.get("message", ""),
        step=asked.get("step", ""),
        repairs=int(repair.get("attempts", 0)),
        groups={one["group"]: bool(one["passed"]) for one in results},
        evidence={one["group"]: one.get("evidence", "") for one in results if not one["passed"]},
    )


def news(old: View | None, new: View) -> str:
    """Return what there is to say of a blade; empty where all is as expected.

    | changed                                         | said                                |
    |-------------------------------------------------|-------------------------------------|
    | to a state off the course                       | the state, its reason, the message  |
    | another repair of the same fault                | the same                            |
    | back to Healthy from off the course             | that it is back                     |
    | anything else                                   | nothing                             |
    """
    was = old.state if old is not None else ""
    if new.state not in ON_COURSE:
        if new.state and (new.state != was or (old is not None and new.repairs > old.repairs)):
            why = f" {new.reason}" if new.reason else ""
            return f"{new.name} {new.state}{why}: {_short(new.message)}"
        return ""
    if new.state == "Healthy" and was and was not in ON_COURSE:
        return f"{new.name} Healthy again"
    return ""


class Course:
    """All blades of one delivery; a listener of an informer on Blades."""

    def __init__(
        self, say: Callable[[str, float], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._say = say
        self._clock = clock
        self.views: dict[str, View] = {}
        self.first: dict[tuple[str, str], float] = {}  # blade and state: when it was first seen
        self.since: dict[str, float] = {}  # in its present state
        self.groups: dict[str, bool] = {}

    def saw(self, _key: str, _old: Raw | None, raw: Raw | None) -> None:
        """Take a change of a Blade."""
        if raw is None:
            return
        now, new = self._clock(), view(raw)
        old = self.views.get(new.name)
        self.views[new.name] = new
        if new.state:
            self.first.setdefault((new.name, new.state), now)
        if old is None or old.state != new.state:
            self.since[new.name] = now
        if said := news(old, new):
            self._say(said, now)
        for group, passed in new.groups.items():
            if group in self.groups:
                continue
            self.groups[group] = passed
            if not passed:
                self._say(f"group {group} failed: {_short(new.evidence[group])}", now)

    def counts(self) -> str:
        """Return how many blades are in each state, and in which steps the qualifying ones are."""
        states = Counter(one.state for one in self.views.values() if one.state)
        steps = Counter(one.step for one in self.views.values() if one.state == "Qualifying")
        parts = []
        for state in sorted(states, key=lambda one: _ORDER.index(one) if one in _ORDER else 99):
            text = f"{states[state]} {state}"
            if state == "Qualifying":
                text += f" ({', '.join(f'{steps[one]} {one}' for one in sorted(steps) if one)})"
            parts.append(text)
        return ", ".join(parts)

    def in_state(self, state: str) -> list[str]:
        """Return the blades that are in a state now."""
        return sorted(name for name, one in self.views.items() if one.state == state)


def _short(text: str) -> str:
    return text if len(text) <= _MOST_CHARS else f"{text[: _MOST_CHARS - 1]}…"
