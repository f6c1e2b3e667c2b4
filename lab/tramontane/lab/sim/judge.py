"""Hold every change of a simulated hall against the invariants of docs/architecture.md.

The checks are those that watch real clusters (lab/invariants.py). Here they see each change in the
moment it is made, before anybody can have reacted to it.
"""

from collections.abc import Callable
from typing import Any

from tramontane.api.names import GPU_RESOURCE, LABEL_GANG
from tramontane.kube.resources import BLADES, GANGS, NODES, PODS, TRAININGJOBS
from tramontane.lab import invariants
from tramontane.lab.invariants import Recorded, SeenBlade, SeenGang, SeenPod, Violation
from tramontane.lab.sim.apiserver import ApiServer
from tramontane.lab.sim.history import Event
from tramontane.lab.watcher import see_gang, see_pod

Raw = dict[str, Any]


class Judge:
    """Everything that was broken so far is in `found`. `now`: the loop's clock (s)."""

    def __init__(self, api: ApiServer, now: Callable[[], float]) -> None:
        self._now = now
        self._pods: dict[str, SeenPod] = {}
        self._gangs: dict[str, SeenGang] = {}
        self._blades: dict[str, SeenBlade] = {}
        self._capacity: dict[str, int] = {}
        self._recorded: dict[str, Recorded] = {}
        self._removed: list[SeenPod] = []
        self._uids: dict[str, str] = {}
        self.found: list[Violation] = []
        api.heard.append(self._heard)

    def violations(self) -> list[Violation]:
        """Return all that was broken, restarts without a recorded cause included."""
        late = invariants.restarted_without_cause(self._removed, self._recorded, self._now())
        return [*self.found, *late]

    def _heard(self, event: Event) -> None:
        if event.resource == PODS:
            self._pod(event)
        elif event.resource == GANGS:
            self._gang(event)
        elif event.resource == BLADES:
            state = str(((event.after or {}).get("status") or {}).get("state") or "")
            old = self._blades.get(event.key)
            if old is None or old.state != state:
                self._blades[event.key] = SeenBlade(event.key, state, self._now())
        elif event.resource == NODES and event.after is not None:
            capacity = (event.after.get("status") or {}).get("capacity") or {}
            self._capacity[event.key] = int(capacity.get(GPU_RESOURCE, 0))
        elif event.resource == TRAININGJOBS and event.after is not None:
            self._job(event.key, event.before or {}, event.after)

    def _pod(self, event: Event) -> None:
        raw = event.after or event.before
        assert raw is not None
        if LABEL_GANG not in (raw["metadata"].get("labels") or {}):
            return
        if event.after is None:
            self._removed.append(self._pods.pop(event.key))
            return
        self._pods[event.key] = see_pod(event.after)
        if event.before is None:
            at_s = self._now()
            self.found += invariants.gpus_given_twice(self._pods.values(), self._capacity, at_s)

    def _gang(self, event: Event) -> None:
        if event.after is None:
            self._gangs.pop(event.key, None)
            return
        before, after, at_s = self._gangs.get(event.key), see_gang(event.after), self._now()
        self._gangs[event.key] = after
        if before is not None and (before.seats, before.spares) == (after.seats, after.spares):
            return
        self.found += invariants.partly_placed(after, at_s)
        self.found += invariants.seated_on_sick_blades(before, after, self._blades, at_s)
        self.found += invariants.survivors_moved(before, after, at_s)
        self.found += invariants.seats_given_twice(self._gangs.values(), at_s)

    def _job(self, key: str, before: Raw, after: Raw) -> None:
        old, new = before.get("status") or {}, after.get("status") or {}
        recorded = self._recorded.setdefault(key, Recorded())
        for one in new.get("incidents", ()):
            recorded.incidents.add((one["cause"], tuple(one.get("seats", ()))))
        again = new.get("attempt", 0) > max(1, old.get("attempt", 0))
        if again and old.get("incidents") == new.get("incidents"):
            text = f"{key} begins attempt {new['attempt']}, and no incident is new"
            self.found.append(
                Violation("never restarted without a recorded cause", text, self._now())
            )
