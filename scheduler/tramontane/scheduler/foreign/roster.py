"""Know of every pod that names this scheduler where it stands, while two informers catch up.

Kubernetes cannot be asked for unbound and bound pods in one list of few, so there are two, and a
pod moves from one to the other when it is bound. What is known of a pod, the first that fits:

| seen | then it is |
|---|---|
| bound                                        | there |
| not bound, or no longer so, but we bound it  | where we bound it: *assumed* |
| not bound                                    | waiting |

Pods of one name are told apart by uid. There is never more than one of a name: where two are seen,
the older one is gone, and its watch is late. An assumption ends when the pod is seen bound, or
when it was looked up.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from tramontane.scheduler.foreign.gangs import ForeignGang, gangs_of
from tramontane.scheduler.foreign.groups import Group, Sizes
from tramontane.scheduler.foreign.member import Member
from tramontane.scheduler.records import PoolRecord


@dataclass(frozen=True, slots=True)
class Assumed:
    """Hold a pod that we gave a node, and when (Unix seconds)."""

    member: Member
    since_s: float


class Roster:
    """Hold the pods that name this scheduler, and the gangs that they are.

    `sizes` says what is known of a group's size, or None: (namespace, group) → sizes.
    """

    def __init__(self, sizes: Callable[[str, Group], Sizes | None]) -> None:
        self._sizes = sizes
        self._waiting: dict[str, Member] = {}
        self._bound: dict[str, Member] = {}
        self._assumed: dict[str, Assumed] = {}
        self._families: dict[str, dict[str, None]] = {}
        self._seated: Counter[str] = Counter()  # pods seen bound, by group
        self._gangs: dict[str, tuple[ForeignGang, ...]] = {}
        self._dirty: set[str] = set()
        self._pools: Mapping[str, PoolRecord] = {}

    @property
    def assumed(self) -> Mapping[str, Assumed]:
        """Return what we bound and have not seen bound yet."""
        return self._assumed

    def show_waiting(self, key: str, new: Member | None) -> bool:
        """Take what the informer of unbound pods says; return whether a gang may start for it."""
        old = self._waiting.get(key)
        self._put(self._waiting, key, new)
        if new is None:
            # Bound, as a rule; a pod that is gone frees no room, but may have kept others waiting.
            return old is not None and not self._is_given(old)
        return not new.gated and not self._is_given(new) and self._is_whole(new)

    def show_bound(self, key: str, new: Member | None) -> None:
        """Take what the informer of bound pods says."""
        if new is not None and self.is_assumed(new):
            del self._assumed[key]
        old = self._bound.get(key)
        if old is not None:
            self._seated[old.family] -= 1
        if new is not None:
            self._seated[new.family] += 1
        self._put(self._bound, key, new)

    def assume(self, member: Member, node: str, now_s: float) -> None:
        """Take a pod as bound from now on."""
        self._assumed[member.key] = Assumed(replace(member, node=node, bound_s=now_s), now_s)
        self._touch(member)

    def is_assumed(self, member: Member) -> bool:
        """Return whether this very pod counts as bound by us, and was not seen bound."""
        assumed = self._assumed.get(member.key)
        return assumed is not None and assumed.member.uid == member.uid

    def is_seen(self, member: Member) -> bool:
        """Return whether this very pod was seen bound."""
        seen = self._bound.get(member.key)
        return seen is not None and seen.uid == member.uid

    def forget(self, member: Member) -> None:
        """Take a pod as not bound by us after all."""
        if self.is_assumed(member):
            del self._assumed[member.key]
            self._touch(member)
            self._leave(member)

    def touch(self, api: str, of: str) -> bool:
        """Note that the size of the groups of an object changed; return whether there are any."""
        touched = False
        for member in self._waiting.values():
            namespace = member.key.partition("/")[0]
            if member.group.api == api and f"{namespace}/{member.group.of}" == of:
                self._dirty.add(member.family)
                touched = True
        return touched

    def gangs(self, pools: Mapping[str, PoolRecord]) -> dict[str, ForeignGang]:
        """Return all gangs by key. O(pods of groups that changed)."""
        if pools != self._pools:
            self._pools = dict(pools)
            self._dirty.update(self._families)
        for family in self._dirty:
            known = (self._known(key) for key in self._families.get(family, ()))
            members = [m for m in known if m is not None and m.family == family]
            if not members:
                self._gangs.pop(family, None)
                continue
            sizes = self._sizes(members[0].key.partition("/")[0], members[0].group)
            self._gangs[family] = tuple(gangs_of(members, sizes, pools))
        self._dirty.clear()
        return {gang.record.key: gang for gangs in self._gangs.values() for gang in gangs}

    def _put(self, where: dict[str, Member], key: str, new: Member | None) -> None:
        old = where.pop(key, None)
        if new is not None:
            where[key] = new
            self._touch(new)
        if old is not None:
            self._dirty.add(old.family)
            self._leave(old)

    def _touch(self, member: Member) -> None:
        self._families.setdefault(member.family, {})[member.key] = None
        self._dirty.add(member.family)

    def _leave(self, member: Member) -> None:
        """Drop a pod from its group once nothing of it is known there any more."""
        known = self._known(member.key)
        if known is not None and known.family == member.family:
            return
        family = self._families.get(member.family, {})
        family.pop(member.key, None)
        if not family:
            self._families.pop(member.family, None)
            self._seated.pop(member.family, None)

    def _known(self, key: str) -> Member | None:
        """Return what is known of the newest pod of a name; see the table above."""
        newest = self._waiting.get(key)
        for other in (self._given(key), self._bound.get(key)):
            if other is None:
                continue
            if newest is None or other.uid == newest.uid or other.created_s > newest.created_s:
                newest = other
        return newest

    def _given(self, key: str) -> Member | None:
        assumed = self._assumed.get(key)
        return None if assumed is None else assumed.member

    def _is_given(self, member: Member) -> bool:
        """Return whether a pod that is seen as unbound is known to be bound."""
        known = (self._bound.get(member.key), self._given(member.key))
        return any(one is not None and one.uid == member.uid for one in known)

    def _is_whole(self, member: Member) -> bool:
        """Return whether a pod may be placed now: its group may be whole, or is bound already."""
        if self._seated[member.family]:
            return True
        sizes = self._sizes(member.key.partition("/")[0], member.group)
        least = member.size or min((sizes or {}).values(), default=0)
        return len(self._families[member.family]) >= least
