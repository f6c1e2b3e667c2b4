"""Remember what this process has written and the caches do not show yet.

A reconcile that reads a cache right after its own writes would create a pod twice. Everything here
is a hint about the present and dies with the process: the API server holds the truth, and a
deterministic name makes a repeated write harmless.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from tramontane.api.gang import Gang
from tramontane.kube.views import PodView

# A cache that has not shown a write after this long missed it (a pod made and deleted in a gap).
FORGET_S = 30.0


@dataclass(slots=True)
class WrittenPods:
    """Hold the pods that one owner of gangs has created and deleted.

    Attributes:
        refusal: what the API server said against an object of ours, and until when to believe it.
    """

    refusal: tuple[str, float] | None = None
    _created: dict[str, tuple[PodView, float]] = field(default_factory=dict)
    _deleted: dict[str, float] = field(default_factory=dict)

    def created(self, pod: PodView, now: float) -> None:
        """Note a pod that the API server has taken."""
        self._created[pod.name] = (pod, now)

    def deleted(self, uid: str, now: float) -> None:
        """Note a pod that we have deleted."""
        self._deleted[uid] = now

    def seen(self, old: PodView | None, new: PodView | None) -> None:
        """Take a change of the pod cache: what it shows need not be assumed any more."""
        pod = new or old
        if pod is None:
            return
        assumed = self._created.get(pod.name)
        if assumed is not None and assumed[0].uid == pod.uid:
            del self._created[pod.name]
        if new is None:
            self.went(pod, ours=self._deleted.pop(pod.uid, None) is not None)
        else:
            self.came(new)

    def went(self, pod: PodView, *, ours: bool) -> None:
        """Take it that a pod is gone; `ours` says whether we have deleted it."""

    def came(self, pod: PodView) -> None:
        """Take it that a pod is there, or has changed."""

    def pods(self, cached: Iterable[PodView], now: float) -> tuple[PodView, ...]:
        """Return the cached pods with our writes laid over them. O(pods)."""
        self.forget(now - FORGET_S)
        if self.is_shown():
            return tuple(cached)
        shown = {pod.name: self.overlaid(pod) for pod in cached}
        for name, (pod, _) in self._created.items():
            shown.setdefault(name, pod)
        return tuple(shown.values())

    def is_shown(self) -> bool:
        """Return whether the cache shows all that we have written."""
        return not (self._created or self._deleted)

    def overlaid(self, pod: PodView) -> PodView:
        """Return a cached pod as it is by now."""
        if pod.uid in self._deleted and not pod.deleting:
            pod = replace(pod, deleting=True)
        return pod

    def forget(self, since: float) -> None:
        """Drop what was written before `since` (Unix s)."""
        for name in [name for name, (_, at) in self._created.items() if at < since]:
            del self._created[name]
        for uid in [uid for uid, at in self._deleted.items() if at < since]:
            del self._deleted[uid]

    def refused(self, now: float) -> str | None:
        """Return what the API server refused lately, or None."""
        if self.refusal is not None and now >= self.refusal[1]:
            self.refusal = None
        return self.refusal[0] if self.refusal else None


@dataclass(slots=True)
class WrittenGang:
    """Hold a Gang as the API server returned it when we wrote it last."""

    _gang: Gang | None = None

    def applied(self, gang: Gang) -> None:
        """Note the Gang as the API server returned it."""
        self._gang = gang

    def newer(self, cached: Gang | None) -> Gang | None:
        """Return the newer of the cached Gang and the one we wrote last.

        One that was deleted meanwhile is not held on to: the cache has its word once it knows ours.
        """
        ours = self._gang
        if ours is None:
            return cached
        if cached is not None and (
            cached.metadata.uid != ours.metadata.uid
            or (cached.metadata.generation or 0) >= (ours.metadata.generation or 0)
        ):
            self._gang = None
            return cached
        return ours

    def gone(self) -> None:
        """Take it that the Gang is gone from the API server."""
        self._gang = None
