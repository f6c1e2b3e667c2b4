"""Save what a pass looks at in one file, and decide from it again: elsewhere, later, the same.

The format is JSON: `format`, `version`, `time`, and the API objects of each kind, sorted, with
only those fields that decide about a place. No image, command, environment, volume or secret is
in it, nor any annotation but those that say what a gang of pods is. So a snapshot can go into a
bug report, and a test.

The same objects and time give the same bytes, and the same bytes give the same plan. What a
running scheduler remembers besides is not in them: how good its estimates were, writes that were
not answered yet, and sizes of groups that only an object of another API tells.
"""

import functools
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tramontane.api import clock
from tramontane.api.errors import InvalidValue
from tramontane.scheduler.engine import Pass, decide
from tramontane.scheduler.fleet import Fleet, build_fleet
from tramontane.scheduler.foreign.member import Member, decode_member, is_foreign
from tramontane.scheduler.foreign.roster import Roster
from tramontane.scheduler.gangs import GangRecord, decode_gang
from tramontane.scheduler.pruned import PRUNE
from tramontane.scheduler.records import (
    PodRecord,
    PoolRecord,
    Raw,
    decode_blade,
    decode_node,
    decode_pod,
    decode_pool,
)
from tramontane.scheduler.snapshot import Pods
from tramontane.scheduler.status import render

FORMAT: Final = "tramontane.dev/snapshot"
VERSION: Final = 1


@dataclass(frozen=True)
class Saved:
    """Hold a snapshot: `objects` are its API objects by kind, as lists.

    What is decoded from them is made once, when it is first asked for.
    """

    objects: Mapping[str, list[Raw]]
    now_s: float

    @functools.cached_property
    def pools(self) -> dict[str, PoolRecord]:
        """Return the pools by name."""
        return _by_name(self.objects["nodepools"], decode_pool)

    @functools.cached_property
    def fleet(self) -> Fleet:
        """Return the fleet."""
        blades = _by_name(self.objects["blades"], decode_blade)
        return build_fleet(blades, _by_name(self.objects["nodes"], decode_node), self.pools)

    @functools.cached_property
    def gangs(self) -> dict[str, GangRecord]:
        """Return all gangs, those made of the pods of other controllers included."""
        roster = Roster(lambda _namespace, _group: None)
        for key, pod in self._pods.items():
            if isinstance(pod, Member):
                show = roster.show_bound if pod.node else roster.show_waiting
                show(key, pod)
        foreign = roster.gangs(self.pools)
        own = {gang.key: gang for gang in map(decode_gang, self.objects["gangs"])}
        return own | {key: one.record for key, one in foreign.items() if not one.lacking}

    @functools.cached_property
    def pods(self) -> Pods:
        """Return what pods take besides the seats of such gangs."""
        pods = Pods()
        for key, pod in self._pods.items():
            if not isinstance(pod, Member):
                pods.change(key, None, pod)
            elif pod.deleting:
                left = PodRecord(pod.node, "", -1, deleting=True, requests=pod.ask.requests)
                pods.change(key, None, left)
        return pods

    @functools.cached_property
    def _pods(self) -> dict[str, PodRecord | Member]:
        return {
            f"{raw['metadata']['namespace']}/{raw['metadata']['name']}": (
                decode_member(raw) if is_foreign(raw) else decode_pod(raw)
            )
            for raw in self.objects["pods"]
        }

    def decide(self, *more: GangRecord) -> Pass:
        """Return what a pass says of all gangs, and some more or in place of others."""
        gangs = self.gangs | {gang.key: gang for gang in more}
        return decide(self.fleet, gangs, self.pods, self.now_s)


def prune(objects: Mapping[str, Iterable[Raw]], now_s: float) -> Saved:
    """Return a snapshot of API objects: kinds that are missing are empty. Whole microseconds."""
    return Saved(
        {
            kind: sorted((pruned(raw) for raw in objects.get(kind, ())), key=_name)
            for kind, pruned in PRUNE.items()
        },
        clock.parse(clock.micro(now_s)),
    )


def dump(saved: Saved) -> str:
    """Return the text of a snapshot: one object to a line, so that two can be compared."""
    head = {"format": FORMAT, "version": VERSION, "time": clock.micro(saved.now_s)}
    parts = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
    for kind, items in saved.objects.items():
        lines = ",\n".join(
            f"  {json.dumps(one, sort_keys=True, separators=(',', ':'))}" for one in items
        )
        parts.append(
            f" {json.dumps(kind)}: [\n{lines}\n ]" if items else f" {json.dumps(kind)}: []"
        )
    return "{\n" + ",\n".join(parts) + "\n}\n"


def load(path: Path) -> Saved:
    """Return the snapshot in a file.

    Raises:
        InvalidValue: it cannot be read, or is none that this version knows.
    """
    try:
        document = json.loads(path.read_text())
    except OSError as error:
        raise InvalidValue(f"{path}: must be readable ({error.strerror})") from error
    except ValueError as error:
        raise InvalidValue(f"{path}: must be JSON ({error})", remedy=_REMEDY) from error
    return read(document, str(path))


def read(document: Any, where: str = "the snapshot") -> Saved:
    """Return the snapshot that a document is.

    Raises:
        InvalidValue: it is none that this version knows.
    """
    known = document if isinstance(document, dict) else {}
    if known.get("format") != FORMAT:
        raise InvalidValue(
            f'{where}: must have "format": "{FORMAT}"', str(known.get("format", "none")), _REMEDY
        )
    if known.get("version") != VERSION:
        remedy = f"write it anew with a tramontane that writes version {VERSION}"
        raise InvalidValue(f"{where}: must be of version {VERSION}", known.get("version"), remedy)
    try:
        return prune({kind: known.get(kind) or () for kind in PRUNE}, clock.parse(known["time"]))
    except (KeyError, TypeError, AttributeError, InvalidValue) as error:
        raise InvalidValue(
            f"{where}: must hold API objects and a time ({type(error).__name__}: {error})",
            remedy=_REMEDY,
        ) from error


def replay(saved: Saved) -> dict[str, Any]:
    """Return the plan: the status of each gang as the scheduler would write it now."""
    done = saved.decide()
    gangs = saved.gangs
    return {
        "time": clock.micro(saved.now_s),
        "gangs": {
            key: render(gangs[key], outcome, saved.now_s)["status"]
            for key, outcome in sorted(done.outcomes.items())
        },
    }


_REMEDY: Final = "write one with `tramontane snapshot -o FILE`"


def _by_name(raws: Iterable[Raw], decode: Callable[[Raw], Any]) -> dict[str, Any]:
    return {record.name: record for record in map(decode, raws)}


def _name(raw: Raw) -> tuple[str, str]:
    meta = raw["metadata"]
    return meta.get("namespace", ""), meta["name"]
