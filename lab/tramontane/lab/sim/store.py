"""Hold the objects of one cluster, their versions and who owns their fields; and what happened.

The lower half of the API server in memory: it finds, lists, remembers and tells; what may be
written is decided above it (apiserver.py). Objects are never changed in place: what was given out
stays as it was.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from tramontane.kube.errors import Gone, NotFound
from tramontane.kube.resources import Resource
from tramontane.lab.sim.history import Event
from tramontane.lab.sim.owning import Owners
from tramontane.lab.sim.selecting import Test, selects

Raw = dict[str, Any]

_HISTORY = 20_000


@dataclass(slots=True)
class Stored:
    """One object as it is stored, and who owns which of its fields."""

    raw: Raw
    owners: Owners = field(default_factory=dict)


class Objects:
    """All objects of one cluster. `now`: Unix seconds, for stamps.

    Attributes:
        heard: called with each event, after the change.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._objects: dict[Resource, dict[str, Stored]] = defaultdict(dict)
        self._dependents: dict[str, set[tuple[Resource, str]]] = defaultdict(set)
        self._history: deque[Event] = deque(maxlen=_HISTORY)
        self._forgotten = 0  # events up to this version are no more
        self._version = 0
        self._uids = count(1)
        self.heard: list[Callable[[Event], None]] = []

    @property
    def writes(self) -> int:
        """Return how many changes there were."""
        return self._version

    # Reading

    def get(self, resource: Resource, name: str, namespace: str | None = None) -> Raw:
        """Return an object.

        Raises:
            NotFound: there is none.
        """
        return self.stored(resource, name, namespace).raw

    def find(self, resource: Resource, name: str, namespace: str | None = None) -> Raw | None:
        """Return an object, or None."""
        stored = self._objects[resource].get(key_of(resource, name, namespace))
        return stored.raw if stored else None

    def objects(self, resource: Resource) -> Iterator[Raw]:
        """Yield all objects of a kind, by key."""
        for _, stored in sorted(self._objects[resource].items()):
            yield stored.raw

    def list_page(
        self,
        resource: Resource,
        namespace: str | None,
        test: Test,
        limit: int,
        continue_: str | None,
    ) -> Raw:
        """Return a page. Unlike there, later pages show what has changed meanwhile.

        Raises:
            Gone: the token is older than the last compaction.
        """
        after, version = "", str(self._version)
        if continue_:
            version, _, after = continue_.partition(":")
            if int(version) < self._forgotten:
                raise Gone(410, "Expired", "the provided continue parameter is too old")
        found = [
            (key, stored.raw)
            for key, stored in sorted(self._objects[resource].items())
            if key > after
            and (not namespace or stored.raw["metadata"].get("namespace") == namespace)
            and test(stored.raw)
        ]
        meta: Raw = {"resourceVersion": version}
        if len(found) > limit:
            meta["continue"] = f"{version}:{found[limit - 1][0]}"
        # As there: items of a list carry neither apiVersion nor kind.
        items = [
            {k: v for k, v in raw.items() if k not in {"apiVersion", "kind"}}
            for _, raw in found[:limit]
        ]
        return {"metadata": meta, "items": items}

    def since(self, version: int) -> list[Event]:
        """Return what happened after a version.

        Raises:
            Gone: that is not known any more.
        """
        if version < self._forgotten:
            raise Gone(410, "Expired", f"too old resource version: {version} ({self._forgotten})")
        found = []
        for event in reversed(self._history):
            if event.version <= version:
                break
            found.append(event)
        found.reverse()
        return found

    def compact(self) -> None:
        """Forget what happened so far: watches and lists that are behind get a 410."""
        self._history.clear()
        self._forgotten = self._version

    def stored(self, resource: Resource, name: str, namespace: str | None) -> Stored:
        """Return an object with its owners, or raise NotFound."""
        stored = self._objects[resource].get(key_of(resource, name, namespace))
        if stored is None:
            raise not_found(resource, name)
        return stored

    def put(self, resource: Resource, key: str, old: Raw | None, raw: Raw, owners: Owners) -> Raw:
        """Store an object at the next version, and tell of it; `old` is what was there."""
        self._version += 1
        raw = {**raw, "metadata": {**raw["metadata"], "resourceVersion": str(self._version)}}
        self._objects[resource][key] = Stored(raw, owners)
        for uid in _owner_uids(old) - _owner_uids(raw):
            self._dependents[uid].discard((resource, key))
        for uid in _owner_uids(raw):
            self._dependents[uid].add((resource, key))
        self._tell(Event(self._version, resource, key, old, raw))
        return raw

    def remove(self, resource: Resource, key: str) -> Raw:
        """Let an object be gone, and tell of it."""
        raw = self._objects[resource].pop(key).raw
        self._version += 1
        for uid in _owner_uids(raw):
            self._dependents[uid].discard((resource, key))
        self._tell(Event(self._version, resource, key, raw, None))
        return raw

    def orphans_of(self, uid: str) -> list[tuple[Resource, str, str | None, str]]:
        """Return what has no owner left now that `uid` is gone: resource, name, namespace, uid."""
        found = []
        for resource, key in sorted(self._dependents.pop(uid, ()), key=lambda one: one[1]):
            stored = self._objects[resource].get(key)
            if stored is None or any(map(self._is_there, _owner_uids(stored.raw) - {uid})):
                continue
            meta = stored.raw["metadata"]
            found.append((resource, meta["name"], meta.get("namespace"), meta["uid"]))
        return found

    def _is_there(self, uid: str) -> bool:
        return any(
            stored.raw["metadata"]["uid"] == uid
            for objects in self._objects.values()
            for stored in objects.values()
        )

    def _tell(self, event: Event) -> None:
        if len(self._history) == _HISTORY:
            self._forgotten = self._history[0].version
        self._history.append(event)
        for listener in self.heard:
            listener(event)


def key_of(resource: Resource, name: str, namespace: str | None) -> str:
    """Return the key under which an object is stored."""
    return f"{namespace}/{name}" if resource.namespaced else name


def not_found(resource: Resource, name: str) -> NotFound:
    """Return the error of an object that is not there."""
    return NotFound(404, "NotFound", f'{resource.plural} "{name}" not found')


def _owner_uids(raw: Raw | None) -> set[str]:
    owners = raw["metadata"].get("ownerReferences") if raw else None
    return {one["uid"] for one in owners or ()}


def matching(label_selector: str | None, field_selector: str | None) -> Test:
    """Return the test of both selectors."""
    return selects(label_selector or None, field_selector or None)
