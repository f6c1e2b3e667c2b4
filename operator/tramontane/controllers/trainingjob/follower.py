"""Follow the log of each running job's rank 0 and keep its marks.

One task per job. A broken stream is opened again where it ended: lines carry the kubelet's time
stamps, and what was seen is not fed twice. An operator that starts anew reads back as far as the
job's ledger has not come yet.
"""

import asyncio
import logging
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from tramontane.api import clock
from tramontane.api.errors import InvalidValue
from tramontane.api.trainingjob import TrainingJob
from tramontane.controllers.trainingjob.progress import Marks, Progress, Saved
from tramontane.controllers.trainingjob.template import trainer_of
from tramontane.kube.client import Client
from tramontane.kube.errors import ApiError, Unreachable
from tramontane.kube.views import PodView

log = logging.getLogger(__name__)

_OVERLAP_S = 60.0
_PAUSES_S = (0.5, 1.0, 2.0, 5.0, 10.0)
_LINES_AT_ONCE = 200  # then the event loop gets its turn


@dataclass(slots=True)
class _Followed:
    progress: Progress
    patterns: tuple[str | None, str]
    pod_uid: str = ""
    read_until: float = 0.0
    alive: bool = False
    task: asyncio.Task[None] | None = field(default=None, repr=False)


class Followers:
    """Follow one log per job; `notify(key)` is called when a life's first step has come."""

    def __init__(
        self, client: Client, now: Callable[[], float], notify: Callable[[str], None]
    ) -> None:
        self._client = client
        self._now = now
        self._notify = notify
        self._followed: dict[str, _Followed] = {}

    def marks(self, key: str) -> Marks | None:
        """Return what the job's log has said so far; None before it was ever read."""
        followed = self._followed.get(key)
        return followed.progress.marks() if followed else None

    def is_alive(self, key: str) -> bool:
        """Return whether the job's log is being read at this moment."""
        followed = self._followed.get(key)
        return followed is not None and followed.alive

    def follow(self, job: TrainingJob, pod: PodView | None) -> None:
        """Read the log of `pod` from now on; None stops reading and keeps the marks."""
        key = job.key
        followed = self._followed.get(key)
        if pod is None:
            if followed is not None:
                _stop(followed)
            return
        patterns = (job.spec.progress.effective_step_pattern, job.spec.checkpoint.saved_pattern)
        if followed is None or followed.patterns != patterns:
            if followed is not None:
                _stop(followed)
            followed = self._followed[key] = self._begin(job, patterns)
        if followed.task is not None and followed.pod_uid == pod.uid and not followed.task.done():
            return
        _stop(followed)
        if followed.pod_uid != pod.uid:
            followed.progress.begin_life(pod.uid)
        followed.pod_uid = pod.uid
        container = trainer_of(job.spec.template)["name"]
        followed.task = asyncio.create_task(
            self._read(key, followed, pod, container), name=f"log {key}"
        )

    def forget(self, key: str) -> None:
        """Stop reading, and drop the marks of a job that is gone."""
        followed = self._followed.pop(key, None)
        if followed is not None:
            _stop(followed)

    async def close(self) -> None:
        """Stop reading all logs."""
        tasks = [one.task for one in self._followed.values() if one.task is not None]
        for key in list(self._followed):
            self.forget(key)
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, job: TrainingJob, patterns: tuple[str | None, str]) -> _Followed:
        step, saved_pattern = (re.compile(one) if one else None for one in patterns)
        last, goodput = job.status.last_checkpoint, job.status.goodput
        saved = None
        if last is not None and last.step is not None and last.at is not None:
            saved = Saved(last.step, clock.parse(last.at))
        read_until = clock.parse(goodput.at) - _OVERLAP_S if goodput and goodput.at else 0.0
        return _Followed(Progress(step, saved_pattern, saved), patterns, read_until=read_until)

    async def _read(self, key: str, followed: _Followed, pod: PodView, container: str) -> None:
        failures = 0
        while True:
            since_s = math.ceil(self._now() - max(followed.read_until, pod.created_at)) + 1
            try:
                async with self._client.pod_log(
                    pod.namespace,
                    pod.name,
                    container=container,
                    since_seconds=max(1, since_s),
                    timestamps=True,
                ) as lines:
                    followed.alive, count = True, 0
                    async for line in lines:
                        failures, count = 0, count + 1
                        self._feed(key, followed, line)
                        if count % _LINES_AT_ONCE == 0:
                            await asyncio.sleep(0)
            except (ApiError, Unreachable) as error:
                log.debug("reading a log failed pod=%s error=%r", pod.key, str(error))
            finally:
                followed.alive = False
            await asyncio.sleep(_PAUSES_S[min(failures, len(_PAUSES_S) - 1)])
            failures += 1

    def _feed(self, key: str, followed: _Followed, line: bytes) -> None:
        stamp, _, text = line.partition(b" ")
        try:
            at = clock.parse(stamp.decode("ascii"))
        except (InvalidValue, UnicodeDecodeError):
            at, text = self._now(), line
        else:
            if at <= followed.read_until:
                return
            followed.read_until = at
        before = followed.progress.marks_of_life
        followed.progress.feed(text.decode("utf-8", "replace"), at)
        if followed.progress.marks_of_life != before:
            self._notify(key)


def _stop(followed: _Followed) -> None:
    if followed.task is not None:
        followed.task.cancel()
        followed.task = None
    followed.alive = False
