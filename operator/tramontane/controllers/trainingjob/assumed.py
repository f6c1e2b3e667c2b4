"""Remember what this process has written and the caches do not show yet.

A reconcile that reads a cache right after its own writes would create a pod twice, or raise an
epoch twice. What all owners of gangs write is in `gangpods.written`; here is a job's own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from tramontane.api.gang import Gang
from tramontane.api.names import ANNOTATION_DRAIN, ANNOTATION_EPOCH
from tramontane.controllers.gangpods.written import WrittenGang, WrittenPods
from tramontane.controllers.trainingjob.observe import drained_of, epoch_of, seat_of
from tramontane.kube.views import PodView


# Without slots, which would give the class another self than the one that super() knows.
@dataclass
class Assumed(WrittenPods):
    """Hold one job's writes in flight; see the module.

    Attributes:
        vanished: seats whose pod went away without our doing, and the epoch it had.
        gang_after: when the Gang may be applied again, which was refused (Unix s).
    """

    vanished: dict[int, int] = field(default_factory=dict)
    gang_after: float = 0.0
    _raised: dict[str, tuple[int, float]] = field(default_factory=dict)
    _drained: dict[str, tuple[int, float]] = field(default_factory=dict)
    _gang: WrittenGang = field(default_factory=WrittenGang)

    def created(self, pod: PodView, now: float) -> None:
        """Note a pod that the API server has taken."""
        super().created(pod, now)
        self.vanished.pop(seat_of(pod), None)

    def raised(self, uid: str, epoch: int, now: float) -> None:
        """Note a pod whose epoch we have raised."""
        self._raised[uid] = (epoch, now)

    def drained(self, uid: str, attempt: int, now: float) -> None:
        """Note a pod whose rank we have told to save and end."""
        self._drained[uid] = (attempt, now)

    def applied(self, gang: Gang) -> None:
        """Note the Gang as the API server returned it."""
        self._gang.applied(gang)

    def gang(self, cached: Gang | None) -> Gang | None:
        """Return the newer of the cached Gang and the one we wrote last."""
        return self._gang.newer(cached)

    def gang_gone(self, _: str = "") -> None:
        """Take it that the Gang is gone from the API server."""
        self._gang.gone()

    def went(self, pod: PodView, *, ours: bool) -> None:
        """Take it that a pod is gone; `ours` says whether we have deleted it."""
        if not ours:
            self.vanished[seat_of(pod)] = epoch_of(pod)
        self._raised.pop(pod.uid, None)
        self._drained.pop(pod.uid, None)

    def came(self, pod: PodView) -> None:
        """Take it that a pod is there, or has changed."""
        self.vanished.pop(seat_of(pod), None)
        for ours, shown in ((self._raised, epoch_of(pod)), (self._drained, drained_of(pod))):
            wanted = ours.get(pod.uid)
            if wanted is not None and shown >= wanted[0]:
                del ours[pod.uid]

    def is_shown(self) -> bool:
        """Return whether the cache shows all that we have written."""
        return super().is_shown() and not (self._raised or self._drained)

    def overlaid(self, pod: PodView) -> PodView:
        """Return a cached pod as it is by now."""
        for ours, key, shown in (
            (self._raised, ANNOTATION_EPOCH, epoch_of(pod)),
            (self._drained, ANNOTATION_DRAIN, drained_of(pod)),
        ):
            wanted = ours.get(pod.uid)
            if wanted is not None and shown < wanted[0]:
                annotations: Mapping[str, str] = {**pod.annotations, key: str(wanted[0])}
                pod = replace(pod, annotations=annotations)
        return super().overlaid(pod)

    def forget(self, since: float) -> None:
        """Drop what was written before `since` (Unix s)."""
        super().forget(since)
        for ours in (self._raised, self._drained):
            for uid in [uid for uid, (_, at) in ours.items() if at < since]:
                del ours[uid]
