"""Read the engines' metrics: of each replica the page of the pod that answers requests.

The shell around `scrape`: one task per deployment reads all its pods every 5 s, and at most 16
requests are in flight for all of them together. An engine that does not answer, or not well, leaves
its load as it was; it grows old, and whoever decides upon it sees that by `Load.at`.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import aiohttp
from yarl import URL

from tramontane.api.inferencedeployment import EngineName, InferenceDeployment
from tramontane.controllers.inferencedeployment.engines.metricnames import METRICS, MetricNames
from tramontane.controllers.inferencedeployment.judge import ENOUGH, STALE_S, WHOLE_WINDOW_S
from tramontane.controllers.inferencedeployment.load import Load
from tramontane.controllers.inferencedeployment.scrape import Tracker, parse
from tramontane.controllers.inferencedeployment.totals import Totals
from tramontane.kube.views import PodView

log = logging.getLogger(__name__)

PORT: Final = 8000
EVERY_S: Final = 5.0
TIMEOUT_S: Final = 2.0
MAX_BODY_B: Final = 2**22
IN_FLIGHT: Final = 16
_OK: Final = 200


def address_of(pod: PodView) -> URL:
    """Return where the engine of a pod that has an address answers."""
    return URL.build(scheme="http", host=pod.pod_ip or "", port=PORT, path="/metrics")


@dataclass(slots=True)
class _Followed:
    names: MetricNames
    pods: dict[str, PodView] = field(default_factory=dict)
    tracker: Tracker = field(default_factory=Tracker)
    totals: Totals = field(default_factory=Totals)
    told: object = None
    task: asyncio.Task[None] | None = field(default=None, repr=False)

    def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()
            self.task = None


class Scraper:
    """Follow the pods that answer requests, by deployment; `notify(key)` when loads changed much.

    Args:
        clock: gives the time of samples, in Unix seconds.
        notify: called once per round at most.
        address: where the metrics of a pod are; for tests.
        every_s: from the end of one round to the beginning of the next one.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        notify: Callable[[str], None],
        *,
        address: Callable[[PodView], URL] = address_of,
        every_s: float = EVERY_S,
    ) -> None:
        self._now = clock
        self._notify = notify
        self._address = address
        self._every_s = every_s
        self._followed: dict[str, _Followed] = {}
        self._crowd = asyncio.Semaphore(IN_FLIGHT)
        self._session: aiohttp.ClientSession | None = None

    def watch(self, key: str, deployment: InferenceDeployment, pods: Mapping[str, PodView]) -> None:
        """Follow the deployment's pods, as its engine is."""
        self.follow(key, pods, deployment.spec.engine.name)

    def follow(self, key: str, pods: Mapping[str, PodView], engine: EngineName) -> None:
        """Read from now on the metrics of these pods, by gang, and of no others of the key.

        Costs nothing where nothing changed. An engine without metrics is not asked.
        """
        names = METRICS[engine]
        followed = self._followed.get(key)
        if followed is not None and followed.names != names:
            self.forget(key)
            followed = None
        if followed is None:
            followed = self._followed[key] = _Followed(names)
        followed.pods = {gang: pod for gang, pod in pods.items() if pod.pod_ip}
        followed.tracker.keep([pod.uid for pod in followed.pods.values()])
        if not names.running or not followed.pods:
            followed.stop()
        elif followed.task is None or followed.task.done():
            followed.task = asyncio.create_task(self._run(key, followed), name=f"scrape {key}")

    def forget(self, key: str) -> None:
        """Read nothing more of the key, and know nothing of it."""
        followed = self._followed.pop(key, None)
        if followed is not None:
            followed.stop()

    def loads(self, key: str) -> Mapping[str, Load]:
        """Return what the replicas' engines last said, by gang; of those that ever answered."""
        followed = self._followed.get(key)
        if followed is None:
            return {}
        loads = {gang: followed.tracker.load(pod.uid) for gang, pod in followed.pods.items()}
        return {gang: load for gang, load in loads.items() if load is not None}

    def totals(self, key: str) -> Totals | None:
        """Return what the engines of a deployment have counted since it is followed."""
        followed = self._followed.get(key)
        return None if followed is None else followed.totals

    async def close(self) -> None:
        """End all reading."""
        tasks = [one.task for one in self._followed.values() if one.task is not None]
        for key in list(self._followed):
            self.forget(key)
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _run(self, key: str, followed: _Followed) -> None:
        while True:
            pods = list(followed.pods.values())
            await asyncio.gather(*(self._read(followed, pod) for pod in pods))
            news = _summary(self.loads(key), self._now())
            if news != followed.told:
                followed.told = news
                self._notify(key)
            await asyncio.sleep(self._every_s)

    async def _read(self, followed: _Followed, pod: PodView) -> None:
        async with self._crowd:
            try:
                body = await self._fetch(self._address(pod))
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                log.debug("no metrics pod=%s error=%r", pod.key, error)
                return
        sample = parse(body, followed.names, self._now()) if body is not None else None
        # While it was asked, the pod may have been left out.
        if sample is not None and any(pod.uid == one.uid for one in followed.pods.values()):
            followed.totals = followed.totals.plus(followed.tracker.last(pod.uid), sample)
            followed.tracker.take(pod.uid, sample)

    async def _fetch(self, url: URL) -> bytes | None:
        """Return the page; None where it is no page of metrics, or too large."""
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=IN_FLIGHT)
            # Unpacking would let a small answer become a large one.
            headers = {"Accept": "text/plain", "Accept-Encoding": "identity"}
            self._session = aiohttp.ClientSession(
                connector=connector,
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
                auto_decompress=False,
            )
        async with self._session.get(url, allow_redirects=False) as answer:
            if answer.status != _OK:
                return None
            body = bytearray()
            async for chunk in answer.content.iter_any():
                body += chunk
                if len(body) > MAX_BODY_B:
                    answer.close()
                    return None
            return bytes(body)


def _summary(loads: Mapping[str, Load], now: float) -> object:
    """Return what differs where somebody may decide otherwise: numbers in coarse steps."""
    return {
        gang: (
            now - load.at <= STALE_S,
            load.window_s >= WHOLE_WINDOW_S,
            load.idle_since is None,
            _steps(load.waiting, 0.25),
            _steps(load.running, 0.5),
            round(20 * (load.kv_use or 0.0)),
            load.requests >= ENOUGH,
            _steps(load.errors, 0.5),
            _steps(1000 * load.ttft.sum_s / (load.ttft.count or 1.0), 0.1),
            _steps(load.ttft.count, 0.25),
        )
        for gang, load in loads.items()
    }


def _steps(value: float, part: float) -> int:
    """Return the number of the step in which a value lies; each is larger by that part."""
    return round(math.log1p(max(value, 0.0)) / math.log1p(part))
