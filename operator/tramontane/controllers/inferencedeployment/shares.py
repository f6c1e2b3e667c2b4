"""Say how many replicas and what part of the requests each revision has in a rollout.

Pure. Of `wanted` replicas, a step of w % gives the candidate w %, rounded up; the last one all.

| | Surge | Serial |
|---|---|---|
| live together, at most | `wanted` + 1 | `wanted` |
| the stable revision's, with the candidate's as the step has them | the rest of that | the rest |
| the same, after the last step | 0 | 0 |
| one of it leaves where without it there serve | `wanted` | `wanted` - 1 |

So Serial needs no free blade, and always ends. What is given up leaves in the same way while others
come; of what is rejected one more goes at once.

Requests follow the replicas that serve, as each is sized for its part of what is wanted:

| | percent for the candidate |
|---|---|
| the replicas of its step serve | the step's |
| fewer | their part of `wanted`, or of all that serve if these are fewer |
| no other replica serves | 100 |
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil
from typing import Any, Final

from tramontane.api.inferencedeployment import Rollout, RolloutStrategy, Slo
from tramontane.api.inferencestatus import Revision, RevisionVerdict, RolloutStatus
from tramontane.controllers.inferencedeployment.load import Load

_ALL: Final = 100


@dataclass(frozen=True, slots=True)
class Standing:
    """Hold what there is of one revision.

    Attributes:
        live: replicas that are not leaving; `serving`: of these, those that answer.
        waiting_for_capacity: one of its gangs has waited for some seconds, and was evaluated.
        failed: why its replicas cannot start; empty where they can.
        load: of the replicas that serve.
        leaving: replicas that drain, and hold their blades until they are gone.
    """

    hash: str
    live: int = 0
    serving: int = 0
    waiting_for_capacity: bool = False
    failed: str = ""
    load: tuple[Load, ...] = ()
    leaving: int = 0


@dataclass(frozen=True, slots=True)
class Case:
    """Hold what `roll` is asked about, and what it has decided so far.

    Attributes:
        new: the candidate; None where there is none.
        state: of the rollout to it.
        watched_since: since when there has been somebody who could see their loads.
    """

    now: float
    wanted: int
    spec: Rollout
    slo: Slo | None
    standings: Mapping[str, Standing]
    known: tuple[Revision, ...]
    old: Standing
    new: Standing | None = None
    state: RolloutStatus | None = None
    decisions: tuple[tuple[str, str], ...] = ()
    watched_since: float = 0.0

    def decided(self, what: str, why: str) -> "Case":
        """Return the case with one decision more."""
        return replace(self, decisions=(*self.decisions, (what, why)))

    def noted(self, hash_: str, **fields: Any) -> "Case":
        """Return the case with these fields of a revision, which is added where it is not known."""
        known = self.known
        if all(one.hash != hash_ for one in known):
            known = (*known, Revision(hash=hash_))
        updated = (one.model_copy(update=fields) if one.hash == hash_ else one for one in known)
        return replace(self, known=tuple(updated))

    def moved(self, **fields: Any) -> "Case":
        """Return the case with these fields of the rollout's state."""
        assert self.state is not None
        return replace(self, state=self.state.model_copy(update=fields))

    @property
    def is_last(self) -> bool:
        """Return whether the candidate is to have all requests."""
        return self.state is not None and self.state.step >= len(self.spec.steps)

    @property
    def weight(self) -> int:
        """Return the percent that the step gives to the candidate."""
        if self.state is None or self.is_last:
            return _ALL
        return self.spec.steps[self.state.step].weight

    @property
    def need(self) -> int:
        """Return the replicas that the candidate needs for that."""
        return max(1, ceil(self.weight * self.wanted / _ALL))

    @property
    def is_serial(self) -> bool:
        """Return whether one replica may be missing: as the rollout has it, or on the way back."""
        if self.state is not None:
            return self.state.serial
        if self.spec.strategy is not RolloutStrategy.AUTO:
            return self.spec.strategy is RolloutStrategy.SERIAL
        room_comes = any(one.leaving for one in self.standings.values())
        return self.old.waiting_for_capacity and not room_comes


def targets_of(case: Case) -> dict[str, int]:
    """Return how many live replicas each revision is to have."""
    wanted, old, new = case.wanted, case.old, case.new
    if not wanted:
        return {}
    if new is None:
        remnants = _remnants(case)
        room = wanted + (not case.is_serial) - sum(remnants.values())
        return {old.hash: min(wanted, max(old.live, room)), **remnants}
    serial, need = case.is_serial, case.need
    # Of a revision that cannot start, only what serves is worth keeping.
    have = old.serving if old.failed else old.live
    least = 0 if case.is_last else max(wanted + 1 - need, 0)
    if serial:
        least = wanted - need
        olds = max(least, min(have, wanted - 1 - new.serving))
        news = min(need, max(new.live, wanted - olds))
    else:
        olds = max(least, min(have, wanted - new.serving))
        news = min(need, max(1, new.live, wanted + 1 - have))
    return {old.hash: olds, new.hash: news, **_remnants(case)}


def _remnants(case: Case) -> dict[str, int]:
    """Return how many replicas of all other revisions stay for now: those that are still needed."""
    named = {case.old.hash} | ({case.new.hash} if case.new else set())
    serving = case.old.serving + (case.new.serving if case.new else 0)
    rejected = {one.hash for one in case.known if one.verdict is RevisionVerdict.REJECTED}
    found: dict[str, int] = {}
    for one in case.standings.values():
        if one.hash in named:
            continue
        missing = case.wanted - serving - sum(found.values())
        count = min(one.serving, missing - (case.is_serial or one.hash in rejected))
        if count > 0:
            found[one.hash] = count
    return found


def weights_of(case: Case) -> dict[str, int]:
    """Return the percent of the requests that each revision is to get now."""
    old, new = case.old, case.new
    remnants = _remnants(case) if case.wanted else {}
    others = old.serving + sum(remnants.values())
    weights: dict[str, int] = {}
    left = _ALL
    if new is not None and new.serving:
        total = min(case.wanted, new.serving + others) or 1
        part = max(1, min(case.weight, _ALL * new.serving // total)) if others else _ALL
        weights[new.hash] = part
        left -= part
    elif new is not None:
        weights[new.hash] = 0
    for hash_, count in remnants.items():
        weights[hash_] = left * count // others
    return {old.hash: _ALL - sum(weights.values()), **weights}
