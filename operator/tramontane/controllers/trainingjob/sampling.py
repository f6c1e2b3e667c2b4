"""Sample the logs of a few ranks at a time, for `stragglers`: the shell around it.

At most one round per job in 10 s, of at most eight ranks, and 100 requests a second over all jobs:
where many jobs are sampled, their rounds come less often.
"""

import asyncio
import logging
import math
import re
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tramontane.api.trainingjob import Stragglers, TrainingJob
from tramontane.controllers.trainingjob.observe import seat_of
from tramontane.controllers.trainingjob.progress import AGENT, MAX_LINE
from tramontane.controllers.trainingjob.stragglers import PER_ROUND, Sample, Watch, sample_of
from tramontane.controllers.trainingjob.template import trainer_of
from tramontane.controllers.trainingjob.words import Slow
from tramontane.kube.client import Client
from tramontane.kube.errors import ApiError, Unreachable
from tramontane.kube.views import PodView

log = logging.getLogger(__name__)

EVERY_S = 10.0
GROUP = "seconds"
_REQUESTS_A_SECOND = 100
_IN_FLIGHT = 16
_TIMEOUT_S = 3.0
_TAIL_LINES = 400
_LIMIT_B = 2**17
_KEPT_STEPS = 16


@dataclass(slots=True)
class _Sampled:
    watch: Watch = field(default_factory=Watch)
    pattern: re.Pattern[str] | None = None
    due: float = 0.0
    task: asyncio.Task[None] | None = None


class Sampler:
    """Sample ranks while asked to; `notify(key)` when a slow rank appears or is gone."""

    def __init__(
        self, client: Client, now: Callable[[], float], notify: Callable[[str], None]
    ) -> None:
        self._client = client
        self._now = now
        self._notify = notify
        self._slots = asyncio.Semaphore(_IN_FLIGHT)
        self._jobs: dict[str, _Sampled] = {}

    def slow(self, key: str) -> Slow | None:
        """Return the rank that holds the others up, or None."""
        sampled = self._jobs.get(key)
        return sampled.watch.slow() if sampled else None

    def sample(
        self, job: TrainingJob, pods: Sequence[PodView], pattern: re.Pattern[str] | None
    ) -> None:
        """Begin a round, if one is due and ranks can say how long their own steps take."""
        key = job.key
        wanted = job.spec.progress.stragglers is not Stragglers.OFF
        if not wanted or pattern is None or GROUP not in pattern.groupindex:
            self.forget(key)
            return
        sampled = self._jobs.setdefault(key, _Sampled())
        if sampled.pattern != pattern:
            sampled.pattern, sampled.watch = pattern, Watch()
        by_uid = {pod.uid: pod for pod in sorted(pods, key=seat_of) if not pod.finished}
        sampled.watch.keep(by_uid.keys())
        now = self._now()
        if sampled.task is not None or now < sampled.due or len(by_uid) <= 1:
            return
        sampled.due = now + max(EVERY_S, PER_ROUND * len(self._jobs) / _REQUESTS_A_SECOND)
        chosen = [by_uid[uid] for uid in sampled.watch.choose(list(by_uid))]
        container = trainer_of(job.spec.template)["name"]
        sampled.task = asyncio.create_task(
            self._round(key, sampled, pattern, chosen, container), name=f"sample {key}"
        )

    def forget(self, key: str) -> None:
        """Drop what is known of a job's ranks."""
        sampled = self._jobs.pop(key, None)
        if sampled is not None and sampled.task is not None:
            sampled.task.cancel()

    async def close(self) -> None:
        """Drop everything, and wait until no request is under way."""
        tasks = [one.task for one in self._jobs.values() if one.task is not None]
        for key in list(self._jobs):
            self.forget(key)
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _round(
        self,
        key: str,
        sampled: _Sampled,
        pattern: re.Pattern[str],
        pods: Sequence[PodView],
        container: str,
    ) -> None:
        before = sampled.watch.slow()
        try:
            found = await asyncio.gather(*(self._said(pod, container, pattern) for pod in pods))
            sampled.watch.take([one for one in found if one is not None], self._now())
        finally:
            sampled.task = None
        after = sampled.watch.slow()
        if (before is None) != (after is None) or (before and after and before.seat != after.seat):
            self._notify(key)

    async def _said(self, pod: PodView, container: str, pattern: re.Pattern[str]) -> Sample | None:
        steps: deque[tuple[int, float]] = deque(maxlen=_KEPT_STEPS)
        try:
            async with (
                self._slots,
                asyncio.timeout(_TIMEOUT_S),
                self._client.pod_log(
                    pod.namespace,
                    pod.name,
                    container=container,
                    follow=False,
                    tail_lines=_TAIL_LINES,
                    limit_bytes=_LIMIT_B,
                ) as lines,
            ):
                async for line in lines:
                    take_step(steps, line.decode("utf-8", "replace"), pattern)
        except (ApiError, Unreachable, TimeoutError) as error:
            log.debug("sampling a log failed pod=%s error=%r", pod.key, str(error))
            return None
        return sample_of(seat_of(pod), pod.uid, list(steps))


def take_step(steps: deque[tuple[int, float]], line: str, pattern: re.Pattern[str]) -> None:
    """Add the step of a line, if it tells one and its time; another life begins anew."""
    if AGENT in line:
        steps.clear()
        return
    match = pattern.search(line[:MAX_LINE])
    if match is None:
        return
    step, text = match.group("step"), match.group(GROUP)
    try:
        seconds = float(text)
    except (TypeError, ValueError):
        return
    if step and step.isdecimal() and math.isfinite(seconds) and seconds > 0:
        if steps and int(step) < steps[-1][0]:
            steps.clear()
        steps.append((int(step), seconds))
