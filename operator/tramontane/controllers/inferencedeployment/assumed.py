"""Remember what this process has written for one deployment and the caches do not show yet."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from tramontane.api.gang import Gang
from tramontane.api.names import ANNOTATION_PEERS
from tramontane.controllers.gangpods.written import WrittenGang, WrittenPods
from tramontane.kube.views import PodView


@dataclass(frozen=True, slots=True)
class Marked:
    """Hold the labels and annotations that a pod was given, and when."""

    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    at: float


# Without slots, which would give the class another self than the one that super() knows.
@dataclass
class Assumed(WrittenPods):
    """Hold one deployment's writes in flight; see the module."""

    _gangs: dict[str, WrittenGang] = field(default_factory=dict)
    _dropped: set[str] = field(default_factory=set)  # uids of Gangs that we have deleted
    _marked: dict[str, Marked] = field(default_factory=dict)  # by the pod's uid

    def applied(self, gang: Gang) -> None:
        """Note a Gang as the API server returned it."""
        self._gangs.setdefault(gang.metadata.name, WrittenGang()).applied(gang)

    def dropped(self, gang: Gang) -> None:
        """Note a Gang that we have deleted."""
        self._dropped.add(gang.metadata.uid or "")
        self._gangs.pop(gang.metadata.name, None)

    def gang_gone(self, name: str) -> None:
        """Take it that a Gang is gone from the API server."""
        self._gangs.pop(name, None)

    def gangs(self, cached: Iterable[Gang]) -> dict[str, Gang]:
        """Return the Gangs by name, with our writes laid over what the cache shows."""
        shown = {gang.metadata.name: gang for gang in cached}
        self._dropped &= {gang.metadata.uid or "" for gang in shown.values()}
        newest = {
            name: self._gangs[name].newer(shown.get(name)) if name in self._gangs else shown[name]
            for name in shown.keys() | self._gangs.keys()
        }
        return {
            name: gang
            for name, gang in sorted(newest.items())
            if gang is not None and (gang.metadata.uid or "") not in self._dropped
        }

    def marked(
        self, uid: str, labels: Mapping[str, str], annotations: Mapping[str, str], now: float
    ) -> None:
        """Note labels and annotations that a pod was given."""
        before = self._marked.get(uid)
        if before is not None:
            labels = {**before.labels, **labels}
            annotations = {**before.annotations, **annotations}
        self._marked[uid] = Marked(labels, annotations, now)

    def went(self, pod: PodView, *, ours: bool) -> None:  # noqa: ARG002 - who did it is all one
        """Take it that a pod is gone."""
        self._marked.pop(pod.uid, None)

    def came(self, pod: PodView) -> None:
        """Take it that a pod is there, or has changed."""
        if (marked := self._marked.get(pod.uid)) is not None and _shows(pod, marked):
            del self._marked[pod.uid]

    def is_shown(self) -> bool:
        """Return whether the cache shows all that we have written."""
        return super().is_shown() and not self._marked

    def overlaid(self, pod: PodView) -> PodView:
        """Return a cached pod as it is by now."""
        if (marked := self._marked.get(pod.uid)) is not None:
            pod = replace(
                pod,
                labels={**pod.labels, **marked.labels},
                annotations={**pod.annotations, **_visible(marked)},
            )
        return super().overlaid(pod)

    def forget(self, since: float) -> None:
        """Drop what was written before `since` (Unix s)."""
        super().forget(since)
        for uid in [uid for uid, marked in self._marked.items() if marked.at < since]:
            del self._marked[uid]


def _visible(marked: Marked) -> dict[str, str]:
    return {key: value for key, value in marked.annotations.items() if key != ANNOTATION_PEERS}


def _shows(pod: PodView, marked: Marked) -> bool:
    return (
        pod.labels.items() >= marked.labels.items()
        and pod.annotations.items() >= _visible(marked).items()
    )
