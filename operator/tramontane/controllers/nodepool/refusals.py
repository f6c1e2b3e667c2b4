"""Remember what the API server refused of tests and repairs: by a policy, a quota or a webhook.

| refused             | who is told                                                                |
|---------------------|----------------------------------------------------------------------------|
| a pod of one blade  | the blade: it sees a pod that broke, and tries again as after one          |
| a part of a group   | the blades that wait for a group: they do so longer each time              |
| any                 | the pool, once while it lasts                                              |

What the API server only puts off, or is too ill to judge, is no refusal: that is raised, and the
queue comes back.
"""

from collections.abc import Callable
from typing import Any

from tramontane.api import names
from tramontane.api.names import Work
from tramontane.controllers.nodepool.works import Outcome, WorkPod
from tramontane.kube.errors import ApiError

Raw = dict[str, Any]

# A bad request, forbidden, no such namespace, invalid: waiting does not help against these.
_FOR_GOOD = frozenset({400, 403, 404, 422})
# Longer than any pause until the next try: after that it was put right.
_LASTS_S = 1800.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 5.0, 600.0
_MOST_DOUBLINGS = 10
_MOST_CHARS = 512


def is_for_good(error: ApiError) -> bool:
    """Return whether it is a refusal, and no passing trouble."""
    return error.status in _FOR_GOOD


class Refusals:
    """What was refused in one cluster, by blade and by pool."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._pods: dict[str, WorkPod] = {}
        # By pool: what to tell, and until when it is believed.
        self._texts: dict[str, dict[str, float]] = {}
        # By pool: how often in a row, why, and until when no group starts.
        self._groups: dict[str, tuple[int, str, float]] = {}

    def on(self, blade: str) -> tuple[WorkPod, ...]:
        """Return the blade's pod that was refused last, as one that broke."""
        return (self._pods[blade],) if blade in self._pods else ()

    def of(self, pool: str) -> tuple[str, ...]:
        """Return what people must know of the pool."""
        known, now_s = self._texts.get(pool, {}), self._now_s()
        for text in [text for text, until_s in known.items() if until_s <= now_s]:
            del known[text]
        return tuple(known)

    def note(self, pool: str, body: Raw, error: ApiError) -> str:
        """Remember that an object was refused; return why, for a message."""
        meta, said = body["metadata"], " ".join(error.message.split())[:_MOST_CHARS]
        # The same for all pods, so that it is told once.
        same = said.replace(meta["name"], "…")
        text = (
            f"the API server refuses what is to test or repair blades: {same}; let the operator's "
            "namespace have it, or correct the template"
        )
        self._texts.setdefault(pool, {})[text] = self._now_s() + _LASTS_S
        return f"the API server refuses it: {said}"

    def broke(self, pod: Raw, why: str) -> None:
        """Have the blade of a refused pod see one that broke."""
        meta = pod["metadata"]
        labels, blade = meta["labels"], meta["labels"][names.LABEL_BLADE]
        self._pods[blade] = WorkPod(
            name=meta["name"],
            blade=blade,
            pool=labels[names.LABEL_POOL],
            kind=Work(labels[names.LABEL_WORK]),
            outcome=Outcome.BROKEN,
            created_at=0.0,
            refused=True,
            evidence=why,
        )

    def keep(self, blade: str, name: str | None) -> bool:
        """Drop what was refused on the blade under any other name; return whether this one was."""
        known = self._pods.get(blade)
        if known is not None and known.name != name:
            del self._pods[blade]
        return blade in self._pods

    def put_off(self, pool: str, why: str) -> None:
        """Let no group of the pool start for a while, longer each time."""
        count = self._groups.get(pool, (0, "", 0.0))[0] + 1
        pause_s = min(_FIRST_PAUSE_S * 2 ** min(count - 1, _MOST_DOUBLINGS), _LONGEST_PAUSE_S)
        self._groups[pool] = (count, why, self._now_s() + pause_s)

    def keeps_off(self, pool: str) -> str:
        """Return why no group of the pool may start now; empty where they may."""
        _, why, until_s = self._groups.get(pool, (0, "", 0.0))
        return why if until_s > self._now_s() else ""

    def begun(self, pool: str) -> None:
        """Forget that groups were refused: they have started."""
        self._groups.pop(pool, None)

    def forget_pool(self, pool: str) -> None:
        """Drop what is remembered of a pool, but not of its blades."""
        self._groups.pop(pool, None)
        self._texts.pop(pool, None)
