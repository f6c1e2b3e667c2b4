"""Remember what this process has written and the caches do not show yet.

A reconcile that reads a cache right after its own writes would create a pod twice, or raise an
epoch twice. Everything here is a hint about the present and dies with the process: the API server
holds the truth, and a deterministic name makes a repeated write harmless.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from tramontane.api.gang import Gang
from tramontane.api.names import ANNOTATION_DRAIN, ANNOTATION_EPOCH
from tramontane.controllers.trainingjob.observe import drained_of, epoch_of, seat_of
from tramontane.kube.views import PodView

# A cache that has not shown a write after this long missed it (a pod made and deleted in a gap).
_FORGET_S = 30.0


@dataclass(slots=True)
class Assumed:
    """Hold one job's writes in flight; see the module.

    Attributes:
        vanished: seats whose pod went away without our doing, and the epoch it had.
        refusal: what the API server said against an object of ours, and until when to believe it.
    """

    vanished: dict[int, int] = field(default_factory=dict)
    refusal: tuple[str, float] | None = None
    _created: dict[str, tuple[PodView, float]] = field(default_factory=dict)
    _deleted: dict[str, float] = field(default_factory=dict)
    _raised: dict[str, tuple[int, float]] = field(default_factory=dict)
    _drained: dict[str, tuple[int, float]] = field(default_factory=dict)
    _gang: Gang | None = None

    def created(self, pod: PodView, now: float) -> None:
        """Note a pod that the API server has taken."""
        self._created[pod.name] = (pod, now)
        self.vanished.pop(seat_of(pod), None)

    def deleted(self, uid: str, now: float) -> None:
        """Note a pod that we have deleted."""
        self._deleted[uid] = now

    def raised(self, uid: str, epoch: int, now: float) -> None:
        """Note a pod whose epoch we have raised."""
        self._raised[uid] = (epoch, now)

    def drained(self, uid: str, attempt: int, now: float) -> None:
        """Note a pod whose rank we have told to save and end."""
        self._drained[uid] = (attempt, now)

    def applied(self, gang: Gang) -> None:
        """Note the Gang as the API server returned it."""
        self._gang = gang

    def seen(self, old: PodView | None, new: PodView | None) -> None:
        """Take a change of the pod cache: what it shows need not be assumed any more."""
        pod = new or old
        if pod is None:
            return
        assumed = self._created.get(pod.name)
        if assumed is not None and assumed[0].uid == pod.uid:
            del self._created[pod.name]
        if new is None:
            if self._deleted.pop(pod.uid, None) is None:
                self.vanished[seat_of(pod)] = epoch_of(pod)
            self._raised.pop(pod.uid, None)
            self._drained.pop(pod.uid, None)
            return
        self.vanished.pop(seat_of(new), None)
        for ours, shown in ((self._raised, epoch_of(new)), (self._drained, drained_of(new))):
            wanted = ours.get(new.uid)
            if wanted is not None and shown >= wanted[0]:
                del ours[new.uid]

    def pods(self, cached: Iterable[PodView], now: float) -> tuple[PodView, ...]:
        """Return the cached pods with our writes laid over them. O(pods)."""
        self._forget(now)
        if not (self._created or self._deleted or self._raised or self._drained):
            return tuple(cached)
        shown = {pod.name: self._overlaid(pod) for pod in cached}
        for name, (pod, _) in self._created.items():
            shown.setdefault(name, pod)
        return tuple(shown.values())

    def gang(self, cached: Gang | None) -> Gang | None:
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

    def gang_gone(self) -> None:
        """Take it that the Gang is gone from the API server."""
        self._gang = None

    def refused(self, now: float) -> str | None:
        """Return what the API server refused lately, or None."""
        if self.refusal is not None and now >= self.refusal[1]:
            self.refusal = None
        return self.refusal[0] if self.refusal else None

    def _overlaid(self, pod: PodView) -> PodView:
        for ours, key, shown in (
            (self._raised, ANNOTATION_EPOCH, epoch_of(pod)),
            (self._drained, ANNOTATION_DRAIN, drained_of(pod)),
        ):
            wanted = ours.get(pod.uid)
            if wanted is not None and shown < wanted[0]:
                annotations: Mapping[str, str] = {**pod.annotations, key: str(wanted[0])}
                pod = replace(pod, annotations=annotations)
        if pod.uid in self._deleted and not pod.deleting:
            pod = replace(pod, deleting=True)
        return pod

    def _forget(self, now: float) -> None:
        since = now - _FORGET_S
        for name in [name for name, (_, at) in self._created.items() if at < since]:
            del self._created[name]
        for uid in [uid for uid, at in self._deleted.items() if at < since]:
            del self._deleted[uid]
        for ours in (self._raised, self._drained):
            for uid in [uid for uid, (_, at) in ours.items() if at < since]:
                del ours[uid]
