"""Follow each running job: the log of its rank 0, its metrics, and what other ranks say when asked.

One task per job reads rank 0's log (`logreader`) and keeps its marks (`progress`); where the job
names metrics, another asks for these, and the log is read for checkpoints and the agent's lines.
`inquiry` fetches last words, `sampling` looks for stragglers. An operator that starts anew reads
back as far as the job's ledger has not come yet.
"""

import asyncio
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import aiohttp

from tramontane.api import clock
from tramontane.api.trainingjob import MetricsSource, TrainingJob
from tramontane.controllers.trainingjob import metricsource
from tramontane.controllers.trainingjob.durations import seconds
from tramontane.controllers.trainingjob.inquiry import Inquiry
from tramontane.controllers.trainingjob.logreader import (
    LEAST_SILENCE_S,
    SILENCE_S,
    Crowd,
    LogReader,
    compiled,
)
from tramontane.controllers.trainingjob.progress import Marks, Progress, Saved
from tramontane.controllers.trainingjob.sampling import Sampler
from tramontane.controllers.trainingjob.template import trainer_of
from tramontane.controllers.trainingjob.words import LastWords, Slow
from tramontane.kube.client import Client
from tramontane.kube.views import PodView

log = logging.getLogger(__name__)

_OVERLAP_S = 60.0
# A pod that has gone may have said something in its last moment that is still on its way.
LINGER_S = 2.0
_METRICS_CONNECTIONS = 64


@dataclass(frozen=True, slots=True)
class _Patterns:
    """Hold what the spec says of reading; a change begins the reading anew."""

    step: str | None
    loss: str | None
    saving: str
    saved: str
    metrics: MetricsSource | None
    stall_after: str

    @classmethod
    def of(cls, job: TrainingJob) -> "_Patterns":
        progress, checkpoint = job.spec.progress, job.spec.checkpoint
        return cls(
            progress.effective_step_pattern,
            progress.loss_pattern,
            checkpoint.saving_pattern,
            checkpoint.saved_pattern,
            progress.metrics,
            progress.stall_after,
        )


@dataclass(slots=True)
class _Followed:
    patterns: _Patterns
    reader: LogReader
    step: re.Pattern[str] | None
    address: str | None = None
    polled_since: float | None = None  # Unix s; None: the endpoint does not answer
    tasks: list[asyncio.Task[None]] = field(default_factory=list, repr=False)
    ending: asyncio.TimerHandle | None = field(default=None, repr=False)

    @property
    def progress(self) -> Progress:
        return self.reader.progress

    def stop_soon(self) -> None:
        """Stop once what has been printed by now can have come: a last checkpoint, maybe."""
        if self.tasks and self.ending is None:
            self.ending = asyncio.get_running_loop().call_later(LINGER_S, self.stop)

    def stop(self) -> None:
        if self.ending is not None:
            self.ending.cancel()
            self.ending = None
        for task in self.tasks:
            task.cancel()
        self.tasks = []
        self.reader.closed()
        self.polled_since = None


class Followers:
    """Follow one rank 0 per job; `notify(key)` when somebody may be waiting for what it said."""

    def __init__(
        self, client: Client, now: Callable[[], float], notify: Callable[[str], None]
    ) -> None:
        self._client = client
        self._now = now
        self._notify = notify
        self._followed: dict[str, _Followed] = {}
        self._crowd = Crowd()
        self._inquiry = Inquiry(client, now, notify)
        self._sampler = Sampler(client, now, notify)
        self._session: aiohttp.ClientSession | None = None

    def marks(self, key: str) -> Marks | None:
        """Return what the job has said so far; None before it was ever read."""
        followed = self._followed.get(key)
        return followed.progress.marks() if followed else None

    def is_alive(self, key: str) -> bool:
        """Return whether the marks are of this moment: the source answers and is read to its end.

        Nothing can be concluded from marks that are not, least of all that a job hangs.
        """
        return self.alive_since(key) is not None

    def alive_since(self, key: str) -> float | None:
        """Return since when the source has been read without a break (Unix s); None: it is not."""
        followed = self._followed.get(key)
        if followed is None:
            return None
        if followed.patterns.metrics is not None:
            return followed.polled_since
        return followed.reader.alive_since if followed.reader.is_alive else None

    def follow(self, job: TrainingJob, pod: PodView | None) -> None:
        """Read what `pod` says from now on; None stops reading in a moment and keeps the marks."""
        key = job.key
        followed = self._followed.get(key)
        if pod is None:
            if followed is not None:
                followed.stop_soon()
            return
        patterns = _Patterns.of(job)
        if followed is None or followed.patterns != patterns:
            if followed is not None:
                followed.stop()
            followed = self._followed[key] = self._begin(job, patterns)
        followed.address = pod.pod_ip
        is_read = followed.tasks and not any(task.done() for task in followed.tasks)
        if is_read and followed.ending is None and followed.reader.pod_uid == pod.uid:
            return
        followed.stop()
        followed.reader.begin(pod)
        container = trainer_of(job.spec.template)["name"]
        reading = followed.reader.run(pod, container)
        followed.tasks.append(asyncio.create_task(reading, name=f"log {key}"))
        if patterns.metrics is not None:
            polling = self._poll(key, followed, patterns.metrics)
            followed.tasks.append(asyncio.create_task(polling, name=f"metrics {key}"))

    def ask(self, job: TrainingJob, pods: Sequence[PodView]) -> None:
        """Fetch the last words of these pods, and of no others; see `words`."""
        self._inquiry.ask(job, pods)

    def words(self, key: str) -> Mapping[str, LastWords]:
        """Return the last words that have come, by pod uid."""
        return self._inquiry.words(key)

    def sample(self, job: TrainingJob, pods: Sequence[PodView]) -> None:
        """Sample a few of the running job's pods for stragglers, if it is time to."""
        followed = self._followed.get(job.key)
        self._sampler.sample(job, pods, followed.step if followed else None)

    def slow(self, key: str) -> Slow | None:
        """Return the rank that holds the others up, or None."""
        return self._sampler.slow(key)

    def forget(self, key: str) -> None:
        """Stop reading, and drop all that is known of a job that is gone."""
        followed = self._followed.pop(key, None)
        if followed is not None:
            followed.stop()
        self._inquiry.forget(key)
        self._sampler.forget(key)

    async def close(self) -> None:
        """Stop reading, asking and sampling."""
        tasks = [task for one in self._followed.values() for task in one.tasks]
        for key in list(self._followed):
            self.forget(key)
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._inquiry.close()
        await self._sampler.close()
        if self._session is not None:
            await self._session.close()

    def _begin(self, job: TrainingJob, patterns: _Patterns) -> _Followed:
        last, goodput = job.status.last_checkpoint, job.status.goodput
        saved = None
        if last is not None and last.step is not None and last.at is not None:
            saved = Saved(last.step, clock.parse(last.at))
        key = job.key
        step = compiled(patterns.step, key)
        progress = Progress(
            step,
            compiled(patterns.saved, key),
            saved,
            loss_pattern=compiled(patterns.loss, key),
            saving_pattern=compiled(patterns.saving, key),
        )
        reader = LogReader(
            self._client,
            self._now,
            progress,
            tell=lambda: self._notify(key),
            crowd=self._crowd,
            read_from=clock.parse(goodput.at) - _OVERLAP_S if goodput and goodput.at else 0.0,
            silence_s=_silence_s(patterns.stall_after),
        )
        return _Followed(patterns, reader, step)

    async def _poll(self, key: str, followed: _Followed, source: MetricsSource) -> None:
        while True:
            try:
                await self._poll_once(key, followed, source)
            except metricsource.NoMetrics as error:
                followed.polled_since = None
                log.debug("reading metrics failed job=%s error=%r", key, str(error))
            await asyncio.sleep(metricsource.EVERY_S)

    async def _poll_once(self, key: str, followed: _Followed, source: MetricsSource) -> None:
        if followed.address is None:
            raise metricsource.NoMetrics(f"{key}: pod 0 must have an address (got none)")
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=_METRICS_CONNECTIONS)
            self._session = aiohttp.ClientSession(connector=connector)
        body = await metricsource.fetch(self._session, followed.address, source)
        step, loss = metricsource.read(body, source)
        progress, news = followed.progress, followed.progress.news
        progress.feed_loss(loss)
        if step is not None:
            progress.feed_step(step, self._now())
        if followed.polled_since is None:
            followed.polled_since = self._now()
        if progress.news != news:
            self._notify(key)


def _silence_s(stall_after: str) -> float:
    """Return how long a log may be silent before somebody looks whether it still is one."""
    if stall_after == "auto":
        return SILENCE_S
    return min(SILENCE_S, max(LEAST_SILENCE_S, seconds(stall_after) / 2))
