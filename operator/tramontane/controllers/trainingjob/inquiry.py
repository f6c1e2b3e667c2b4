"""Ask pods for their last words: the shell around `words`.

All ranks of a gang are asked at once when its training has ended, and nothing is decided before
each has answered or its kubelet was given its time. Who did not answer is asked again while it is
wanted, because a kubelet that is busy for a moment is not a lost node.

| the log's request ends with | the pod's kubelet |
|---|---|
| lines, or none | answered |
| 4xx: no such pod or container, nothing to read yet, not allowed | answered, no lines |
| 429, 5xx, no answer in 3 s, a broken connection | did not answer |
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tramontane.api.trainingjob import TrainingJob
from tramontane.controllers.trainingjob.template import trainer_of
from tramontane.controllers.trainingjob.words import LastWords, last_words
from tramontane.kube.client import Client
from tramontane.kube.errors import ApiError, TooManyRequests, Unreachable
from tramontane.kube.views import PodView

log = logging.getLogger(__name__)

IN_FLIGHT = 64
TIMEOUT_S = 3.0
ASK_AGAIN_S = 5.0
_TAIL_LINES = 64
_LIMIT_B = 2**18
_NO_KUBELET = 500  # from this HTTP status on


@dataclass(slots=True)
class _Asked:
    words: dict[str, LastWords] = field(default_factory=dict)
    asked_at: dict[str, float] = field(default_factory=dict)
    tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)


class Inquiry:
    """Fetch the last words of the pods asked for; `notify(key)` when the last one is there."""

    def __init__(
        self, client: Client, now: Callable[[], float], notify: Callable[[str], None]
    ) -> None:
        self._client = client
        self._now = now
        self._notify = notify
        self._slots = asyncio.Semaphore(IN_FLIGHT)
        self._jobs: dict[str, _Asked] = {}

    def words(self, key: str) -> Mapping[str, LastWords]:
        """Return what is there, by pod uid."""
        asked = self._jobs.get(key)
        return dict(asked.words) if asked else {}

    def ask(self, job: TrainingJob, pods: Sequence[PodView]) -> None:
        """Fetch the words of these pods: each once, and again while its kubelet is silent.

        Words of pods that are not among them are dropped: no pods, no words.
        """
        key = job.key
        if not pods:
            self.forget(key)
            return
        asked = self._jobs.setdefault(key, _Asked())
        wanted = {pod.uid: pod for pod in pods}
        for uid in asked.asked_at.keys() - wanted.keys():
            _drop(asked, uid)
        container = trainer_of(job.spec.template)["name"]
        for uid, pod in wanted.items():
            if uid not in asked.tasks and self._is_due(asked, uid):
                asked.asked_at[uid] = self._now()
                asked.tasks[uid] = asyncio.create_task(
                    self._fetch(key, asked, pod, container), name=f"words {pod.key}"
                )

    def forget(self, key: str) -> None:
        """Drop the words of a job."""
        asked = self._jobs.pop(key, None)
        if asked is not None:
            for uid in list(asked.asked_at):
                _drop(asked, uid)

    async def close(self) -> None:
        """Drop everything, and wait until no request is under way."""
        tasks = [task for asked in self._jobs.values() for task in asked.tasks.values()]
        for key in list(self._jobs):
            self.forget(key)
        await asyncio.gather(*tasks, return_exceptions=True)

    def _is_due(self, asked: _Asked, uid: str) -> bool:
        said = asked.words.get(uid)
        if said is None:
            return True
        return not said.answered and self._now() >= asked.asked_at[uid] + ASK_AGAIN_S

    async def _fetch(self, key: str, asked: _Asked, pod: PodView, container: str) -> None:
        async with self._slots:
            said = await self._said(pod, container)
        asked.words[pod.uid] = said
        del asked.tasks[pod.uid]
        if not asked.tasks:
            self._notify(key)

    async def _said(self, pod: PodView, container: str) -> LastWords:
        lines: list[bytes] = []
        try:
            async with (
                asyncio.timeout(TIMEOUT_S),
                self._client.pod_log(
                    pod.namespace,
                    pod.name,
                    container=container,
                    follow=False,
                    tail_lines=_TAIL_LINES,
                    limit_bytes=_LIMIT_B,
                    timestamps=True,
                ) as stream,
            ):
                lines.extend([line async for line in stream])
        except (ApiError, Unreachable, TimeoutError) as error:
            log.debug("asking for last words failed pod=%s error=%r", pod.key, str(error))
            if not (isinstance(error, ApiError) and is_from_kubelet(error)):
                return LastWords(answered=False)
        return last_words(lines, self._now())


def is_from_kubelet(error: ApiError) -> bool:
    """Return whether the refusal says something of the pod, and not of the way to its kubelet."""
    return error.status < _NO_KUBELET and not isinstance(error, TooManyRequests)


def _drop(asked: _Asked, uid: str) -> None:
    asked.words.pop(uid, None)
    asked.asked_at.pop(uid, None)
    task = asked.tasks.pop(uid, None)
    if task is not None:
        task.cancel()
