"""Ask the scheduler's core: why a gang waits, what would help, what a new one would do.

Where there is room and others go before, `turns` says what would give the gang its turn. Else
`ways_out` says what would make room for it; that looks at this gang alone, so the whole queue is
asked again after each: a gang that is ahead may take what it frees.
"""

import difflib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tramontane.api import clock
from tramontane.api.errors import TramontaneError
from tramontane.cli import objects
from tramontane.cli.objects import Ref
from tramontane.kube.client import Client
from tramontane.kube.resources import (
    BLADES,
    GANGS,
    INFERENCEDEPLOYMENTS,
    NODEPOOLS,
    NODES,
    PODS,
    PRIORITYCLASSES,
    TRAININGJOBS,
)
from tramontane.scheduler.engine import Outcome, Pass
from tramontane.scheduler.gangs import GangRecord
from tramontane.scheduler.leaving import gpu_hours_lost
from tramontane.scheduler.pruned import PRUNE
from tramontane.scheduler.saved import Saved, prune
from tramontane.scheduler.status import render
from tramontane.scheduler.unblocking.turns import Decided, decided, turns
from tramontane.scheduler.unblocking.unblock import ways_out
from tramontane.scheduler.unblocking.whatif import Case, WayOut
from tramontane.scheduler.world import OURS_AND_UNBOUND, UNFINISHED_AND_BOUND

KINDS = {
    "nodepools": NODEPOOLS,
    "priorityclasses": PRIORITYCLASSES,
    "blades": BLADES,
    "nodes": NODES,
    "gangs": GANGS,
}
Raw = dict[str, Any]


class NoSuchGang(TramontaneError):  # noqa: N818 - named for what was found
    """Say that no gang has that name, or that several have it."""


@dataclass(frozen=True, slots=True)
class Tried:
    """Hold a way out, and what the whole queue makes of it."""

    way: WayOut
    then: Outcome

    @property
    def starts(self) -> bool:
        """Return whether the gang starts at once after it, whoever else waits."""
        return self.then.placement is not None


@dataclass(frozen=True, slots=True)
class Answer:
    """Hold what is to be said of one gang.

    `waiting` is how many gangs wait in its pool; `gives_way` are those that are asked to, and
    `delays` those that would start now but for this gang.
    """

    world: Saved
    gang: GangRecord
    outcome: Outcome
    ways: tuple[Tried, ...]
    waiting: int = 0
    gives_way: tuple[str, ...] = ()
    delays: tuple[str, ...] = ()

    @property
    def placed(self) -> bool:
        """Return whether the gang has a place."""
        return self.outcome.placement is not None

    def hours(self, key: str) -> float:
        """Return the GPU-hours that another gang would lose."""
        return gpu_hours_lost(self.world.gangs[key], self.world.now_s)

    def to_dict(self) -> Raw:
        """Return the answer for programs: the status as the scheduler writes it, and the rest."""
        status = render(self.gang, self.outcome, self.world.now_s)["status"]
        whole: Raw = {"gang": self.gang.key, "pool": self.gang.pool, "status": status}
        if not self.placed:
            whole["waiting"] = self.waiting
            if self.outcome.reserved_s is not None:
                whole["reservedStart"] = clock.utc(self.outcome.reserved_s)
            whole["waysOut"] = [_way(one) for one in self.ways]
        if self.gives_way:
            whole["givesWay"] = [
                {"gang": key, "gpuHours": round(self.hours(key), 2)} for key in self.gives_way
            ]
        if self.delays:
            whole["delays"] = list(self.delays)
        return whole


async def capture(client: Client) -> Saved:
    """Return a snapshot of the cluster, as it is now; of no object more is held than it has."""
    objects = {
        kind: await client.list_kept(resource, PRUNE[kind]) for kind, resource in KINDS.items()
    }
    pods = [
        pod
        for which in (UNFINISHED_AND_BOUND, OURS_AND_UNBOUND)
        for pod in await client.list_kept(PODS, PRUNE["pods"], field_selector=which)
    ]
    # One that was bound in between is in both.
    one_each = {(pod["metadata"]["namespace"], pod["metadata"]["name"]): pod for pod in pods[::-1]}
    return prune({**objects, "pods": one_each.values()}, time.time())


def parse(said: str, namespace: str | None) -> Ref:
    """Return which gangs are meant, by their own name or their owner's.

    Raises:
        click.BadParameter: it is no name of such an object.
    """
    return objects.parse(said, (TRAININGJOBS, INFERENCEDEPLOYMENTS, GANGS), namespace)


def find(world: Saved, ref: Ref) -> list[str]:
    """Return the keys of the gangs that are meant, in the order of their numbers.

    Raises:
        NoSuchGang: none has the name, or gangs of several namespaces have it.
    """
    for kind in ref.kinds:
        names = _of_deployment if kind is INFERENCEDEPLOYMENTS else _of_name
        found = names(world, ref)
        spaces = sorted({key.partition("/")[0] for key in found})
        if len(spaces) == 1:
            return found
        if found:
            raise NoSuchGang(
                f"Gang {ref.name}: must be of one namespace (got {', '.join(found)}); "
                "name it with -n"
            )
    wanted = "/".join(filter(None, (ref.namespace, ref.name)))
    known = _names(world, whole=ref.namespace is not None)
    near = difflib.get_close_matches(wanted, known, n=1)
    if near and near[0] == wanted:
        hint = f'a gang of that name is none of a deployment: "{wanted}" alone means it'
    elif near:
        hint = f'did you mean "{near[0]}"?'
    elif ref.kinds == (INFERENCEDEPLOYMENTS,):
        hint = (
            "an InferenceDeployment has a Gang for each replica that it wants: "
            f"`tramontane explain inf/{wanted}` says how many"
        )
    else:
        hint = (
            "a TrainingJob has its Gang once the operator has accepted it: "
            f"`tramontane explain tj/{wanted}` says what it lacks"
        )
    raise NoSuchGang(f"Gang {wanted}: must exist (got none of {len(world.gangs)}); {hint}")


def _of_name(world: Saved, ref: Ref) -> list[str]:
    return sorted(key for key in world.gangs if _fits(key, ref.namespace, ref.name))


def _of_deployment(world: Saved, ref: Ref) -> list[str]:
    """Return the gangs of a deployment's replicas: its name and a number."""
    found = []
    for key in world.gangs:
        name, _, number = key.rpartition("-")
        if number.isdecimal() and _fits(name, ref.namespace, ref.name):
            found.append((int(number), key))
    return [key for _, key in sorted(found)]


def _fits(key: str, namespace: str | None, name: str) -> bool:
    space, _, rest = key.partition("/")
    return rest == name and namespace in {None, space}


def explain(world: Saved, key: str) -> Answer:
    """Return why a gang of the world waits, or where it sits."""
    done = world.decide()
    gang = world.gangs[key]
    if key not in done.outcomes:
        raise NoSuchGang(f"Gang {key}: must not be on its way out (got a deletionTimestamp)")
    return _answer(world, gang, done, world.gangs)


def submit(world: Saved, gang: GangRecord) -> Answer:
    """Return what becomes of a gang that is submitted now.

    Raises:
        NoSuchGang: there is a gang of that name already.
    """
    if gang.key in world.gangs:
        raise NoSuchGang(
            f"Gang {gang.key}: must not exist yet (got one that does); "
            f"ask `tramontane why {gang.key}`, or give it another name"
        )
    without, done = world.decide(), world.decide(gang)
    return _answer(world, gang, done, world.gangs | {gang.key: gang}, without)


def _answer(
    world: Saved,
    gang: GangRecord,
    done: Pass,
    gangs: Mapping[str, GangRecord],
    without: Pass | None = None,
) -> Answer:
    outcome = done.outcomes[gang.key]
    if outcome.estimate is not None and gang.told.estimate is not None:
        # The scheduler has learnt from earlier starts; a pass of ours has not.
        outcome = replace(outcome, estimate=gang.told.estimate)
    ways: tuple[Tried, ...] = ()
    if outcome.placement is None and gang.active:
        now = Case(world.fleet, gangs, world.pods, gang, world.now_s)
        # Those that start in this very pass have their places before this gang is asked for one.
        seated = {key: _as_decided(one, done.outcomes.get(key)) for key, one in gangs.items()}
        ways = tuple(_tried(now, turns(Decided(now, done)) or ways_out(replace(now, gangs=seated))))
    orders = {key: one.order for key, one in done.outcomes.items() if one.order is not None}
    return Answer(
        world,
        gang,
        outcome,
        ways,
        waiting=sum(
            one.placement is None and gangs[key].active and gangs[key].pool == gang.pool
            for key, one in done.outcomes.items()
        ),
        gives_way=tuple(sorted(key for key, order in orders.items() if order.by == gang.key)),
        delays=tuple(
            sorted(
                key
                for key, one in (without.outcomes if without else {}).items()
                if one.placement is not None and done.outcomes[key].placement is None
            )
        ),
    )


def _as_decided(gang: GangRecord, outcome: Outcome | None) -> GangRecord:
    return gang if outcome is None else replace(gang, placement=outcome.placement)


def _tried(case: Case, ways: tuple[WayOut, ...]) -> Iterator[Tried]:
    """Yield each way with what the gang's outcome would be, the whole queue being asked."""
    for way in ways:
        yield Tried(way, decided(way.apply(case)).outcome)


def _way(tried: Tried) -> Raw:
    way, change = tried.way, tried.way.change
    whole: Raw = {"kind": way.kind.value, "change": way.words, "touches": way.things}
    lists = {
        "blades": change.back or change.released or change.cleared,
        "gangs": change.ended,
    }
    whole |= {name: list(names) for name, names in lists.items() if names}
    if way.at_s is not None:
        whole["at"] = clock.utc(way.at_s)
    if way.gpu_hours is not None:
        whole["gpuHours"] = round(way.gpu_hours, 2)
    whole["startsAtOnce"] = tried.starts
    if not tried.starts:
        whole["then"] = {"reason": str(tried.then.reason), "position": tried.then.position}
    return whole


def _names(world: Saved, *, whole: bool) -> list[str]:
    return [key if whole else key.partition("/")[2] for key in world.gangs]
