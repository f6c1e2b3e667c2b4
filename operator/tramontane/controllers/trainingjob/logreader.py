"""Read one job's log for as long as its pod is followed: the loop inside `follower`.

A broken stream is opened again where it ended (`stamps`); one that was silent for a while is opened
again to see whether there is still somebody at its other end. Lines are read a moment's worth at a
time, and no job's log takes more than a tenth of a core, nor all logs together more than a half:
one that is written faster falls behind, and is then not *alive*: nothing is concluded from it.
"""

import asyncio
import logging
import math
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from tramontane.api import clock
from tramontane.controllers.trainingjob.progress import Progress
from tramontane.controllers.trainingjob.stamps import Cursor, Skew, split
from tramontane.kube.client import Client
from tramontane.kube.errors import ApiError, Silent, Unreachable
from tramontane.kube.views import PodView

log = logging.getLogger(__name__)

PAUSES_S = (0.5, 1.0, 2.0, 5.0, 10.0)
# Lines of so long come with one wake-up; until the first step somebody waits for it.
GATHER_S = 0.5
EAGER_S = 0.05
# Less than the time after which a job hangs: a hang is told only of a log that answers.
SILENCE_S = 45.0
LEAST_SILENCE_S = 2.0
# A line that was waited for so long has just been printed.
_WAITED_S = 0.3
# So many without waiting, and there is no telling how many more there are.
_BEHIND_LINES = 2000
# A log of which nothing comes for so long has been read to its end.
_QUIET_S = 1.0
_SLICE_S = 0.01
_LEAST_REST = 9  # of a slice: a tenth of a core
_REST_PER_JOB = 2  # half a core, shared by those that are behind


@dataclass(slots=True)
class Crowd:
    """Count the logs that are behind: they share what time there is."""

    behind: int = 0

    def rest_s(self, busy_s: float) -> float:
        """Return how long to leave the loop to others after so much work (s)."""
        return busy_s * max(_LEAST_REST, _REST_PER_JOB * self.behind)


@dataclass(slots=True)
class LogReader:
    """Feed a job's progress from the log of the pod that it is told to read.

    Attributes:
        read_from: nothing before this is of interest (Unix s).
        silence_s: how long a stream may bring nothing before it is opened again.
        progress: what the lines are fed to.
        tell: called when the progress has news.
    """

    client: Client
    now: Callable[[], float]
    progress: Progress
    tell: Callable[[], None]
    crowd: Crowd
    read_from: float = 0.0
    silence_s: float = SILENCE_S
    pod_uid: str = ""
    alive_since: float | None = None  # Unix s; None: no stream is open
    _cursor: Cursor = field(default_factory=Cursor)
    _skew: Skew = field(default_factory=Skew)
    _behind: bool = False
    _came: bool = False  # whether the stream has brought anything new
    _last_at: float = 0.0  # when a line came last, by the loop's clock
    _time: Callable[[], float] = field(default=lambda: 0.0, repr=False)

    def begin(self, pod: PodView) -> None:
        """Say whose log comes next."""
        if pod.uid != self.pod_uid:
            self.pod_uid = pod.uid
            self.progress.begin_life(pod.uid)
            self._cursor, self._skew = Cursor(), Skew()

    @property
    def is_alive(self) -> bool:
        """Return whether what the log says by now has been read."""
        if self.alive_since is None:
            return False
        return not self._behind or self._time() - self._last_at >= _QUIET_S

    def closed(self) -> None:
        """Say that nothing is read any more."""
        self.alive_since = None
        self._set_behind(False)

    async def run(self, pod: PodView, container: str) -> None:
        """Read until cancelled."""
        self._time = asyncio.get_running_loop().time
        failures, was_silent = 0, False
        while True:
            self._came = False
            try:
                since_time, since_seconds = self._since(pod)
                async with self.client.pod_log(
                    pod.namespace,
                    pod.name,
                    container=container,
                    timestamps=True,
                    silence_s=self.silence_s,
                    pause=self._pause_s,
                    since_time=since_time,
                    since_seconds=since_seconds,
                ) as lines:
                    self._opened(was_silent=was_silent)
                    await self._take(lines)
            except Silent:
                was_silent = True
                continue
            except (ApiError, Unreachable) as error:
                log.debug("reading a log failed pod=%s error=%r", pod.key, str(error))
            self.closed()
            was_silent = False
            failures = 0 if self._came else failures + 1
            await asyncio.sleep(PAUSES_S[min(failures, len(PAUSES_S) - 1)])

    def _pause_s(self) -> float:
        return EAGER_S if self.progress.is_fresh else GATHER_S

    def _since(self, pod: PodView) -> tuple[str | None, int | None]:
        """Return from where to read: a time by the node's clock, or an age; neither: all."""
        if self._cursor.at is not None:
            return clock.utc(self._cursor.at), None
        if self.read_from <= pod.created_at:
            return None, None
        return None, max(1, math.ceil(self.now() - self.read_from) + 1)

    def _opened(self, *, was_silent: bool) -> None:
        if self.alive_since is None:
            self.alive_since = self.now()
        self._cursor.reopened()
        # There may be a backlog, and nobody says how long it is; but not of what was silent.
        if not was_silent:
            self._set_behind(True)
        self._last_at = self._time()

    def _set_behind(self, behind: bool) -> None:
        self.crowd.behind += behind - self._behind
        self._behind = behind

    async def _take(self, lines: AsyncIterator[bytes]) -> None:
        """Feed lines until there are no more."""
        time, news = self._time, self.progress.news
        count, busy_s, got = 0, 0.0, time()
        while True:
            asked = time()
            busy_s += asked - got
            if busy_s > _SLICE_S:
                await asyncio.sleep(self.crowd.rest_s(busy_s))
                busy_s, asked = 0.0, time()
            line = await anext(lines, None)
            got = time()
            if line is None:
                return
            count += 1
            waited = got - asked >= _WAITED_S
            if waited:
                count, busy_s = 0, 0.0
                self._set_behind(False)
            elif count == _BEHIND_LINES:
                self._set_behind(True)
            self._last_at = got
            self._feed(line, is_fresh=waited)
            if self.progress.news != news:
                news = self.progress.news
                self.tell()

    def _feed(self, line: bytes, *, is_fresh: bool) -> None:
        at, text = split(line)
        if at is None:
            at = self.now()
        else:
            if not self._cursor.is_new(at):
                return
            if is_fresh:
                change_s = self._skew.fresh(at, self.now())
                if change_s:
                    self.progress.shift(change_s)
            at += self._skew.offset_s
        self._came = True
        self.progress.feed(text.decode("utf-8", "replace"), at)


def compiled(pattern: str | None, job: str) -> re.Pattern[str] | None:
    """Return the pattern to search with; None where there is none, or Python does not take it.

    The API server's regular expressions (RE2) are not quite Python's.
    """
    try:
        return re.compile(pattern) if pattern else None
    except re.error as error:
        log.warning("pattern not understood job=%s pattern=%r error=%s", job, pattern, error)
        return None
