"""Turn an engine's metrics page into a Sample, and the samples of a replica into its Load.

Pure. A page has up to hundreds of kilobytes, of which some dozens of lines matter: these are found
by their names first, and only they are parsed. Of 300 KB with 53 such lines that takes 5 ms (3 to
find them), where parsing all of it takes 150.

| since the sample before | the window |
|---|---|
| a counter fell, or buckets changed: the engine is another process | begins anew |
| nothing came for longer than the longest window | begins anew |
| anything else | the last 60 s; with less than 100 first tokens in them up to 120 s |
"""

import math
import re
from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Final

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample as Line

from tramontane.controllers.inferencedeployment.engines.metricnames import MetricNames, Series
from tramontane.controllers.inferencedeployment.load import Histogram, Load, Peak

WINDOW_S: Final = 60.0
LONGEST_WINDOW_S: Final = 120.0
# With as many in a window, `judge` finds what is half as slow again.
_PLENTY: Final = 100
# Samples come every 5 s, give or take.
_SLACK_S: Final = 2.5
_MINUTE_S: Final = 60.0
_MINUTES: Final = 121
# Eight engines of one replica have about a thousand.
MAX_LINES: Final = 5_000
_NONE: Final = Histogram()


@dataclass(frozen=True, slots=True)
class Sample:
    """Hold what a page says; counters and histograms are from the start of the engine.

    Attributes:
        at: when it was read (Unix seconds).
        kv_use: of the engine of the replica that uses most; None where it is not said.
    """

    at: float
    running: float = 0.0
    waiting: float = 0.0
    kv_use: float | None = None
    requests: float = 0.0
    errors: float = 0.0
    tokens: float = 0.0
    ttft: Histogram = _NONE
    itl: Histogram = _NONE


def parse(body: bytes, names: MetricNames, at: float) -> Sample | None:
    """Return what a page says; None where it does not tell how many requests run.

    Lines that cannot be read are left out. O(bytes) in C, and about 40 µs for each line that
    matters; a page with more than MAX_LINES of these is no engine's.
    """
    lines = _pattern(names).findall(body)
    if not names.running or len(lines) > MAX_LINES:
        return None
    found: dict[str, list[Line]] = {}
    for line in _parsed(lines):
        found.setdefault(line.name, []).append(line)
    if names.running not in found:
        return None
    kv_use = max((line.value for line in found.get(names.kv_use, ())), default=None)
    return Sample(
        at,
        _sum(found, Series(names.running)),
        _sum(found, Series(names.waiting)),
        kv_use,
        _sum(found, names.requests),
        _sum(found, names.errors),
        _sum(found, Series(names.tokens)),
        _histogram(found, names.ttft),
        _histogram(found, names.itl),
    )


@lru_cache(maxsize=32)
def _pattern(names: MetricNames) -> re.Pattern[bytes]:
    series = [one.name for one in (names.requests, names.errors) if one is not None]
    gauges = (names.running, names.waiting, names.kv_use)
    plain = {name for name in (*gauges, names.tokens, *series) if name}
    histograms = {name for name in (names.ttft, names.itl) if name}
    wanted = [re.escape(name) for name in sorted(plain)]
    wanted += [re.escape(name) + "_(?:bucket|sum|count)" for name in sorted(histograms)]
    return re.compile(rf"^(?:{'|'.join(wanted)})[ \t{{][^\n]*".encode(), re.MULTILINE)


def _parsed(lines: list[bytes]) -> Iterator[Line]:
    text = b"\n".join(lines).decode(errors="replace") + "\n"
    try:
        families = list(text_string_to_metric_families(text))
    except ValueError:
        if len(lines) > 1:
            for line in lines:
                yield from _parsed([line])
        return
    for family in families:
        yield from (line for line in family.samples if math.isfinite(line.value))


def _sum(found: dict[str, list[Line]], series: Series | None) -> float:
    if series is None:
        return 0.0
    lines = found.get(series.name, ())
    return math.fsum(line.value for line in lines if series.matches(line.name, line.labels))


def _histogram(found: dict[str, list[Line]], name: str) -> Histogram:
    """Return the histograms of all engines of a replica together."""
    counts: dict[float, float] = {}
    for line in found.get(f"{name}_bucket", ()):
        try:
            bound = float(line.labels.get("le", ""))
        except ValueError:
            continue
        counts[bound] = counts.get(bound, 0.0) + line.value
    if math.inf not in counts:
        return _NONE
    bounds = tuple(sorted(counts))
    sum_s = _sum(found, Series(f"{name}_sum"))
    return Histogram(bounds, tuple(counts[bound] for bound in bounds), sum_s)


@dataclass(slots=True)
class _History:
    samples: deque[Sample] = field(default_factory=deque)
    peaks: deque[Peak] = field(default_factory=lambda: deque(maxlen=_MINUTES))
    idle_since: float | None = None


@dataclass(slots=True)
class Tracker:
    """Remember the last samples of replicas, told apart by the uid of the pod that answers."""

    _histories: dict[str, _History] = field(default_factory=dict)

    def take(self, uid: str, sample: Sample) -> None:
        """Take the sample of one replica; they come in the order of time."""
        history = self._histories.setdefault(uid, _History())
        before = history.samples[-1] if history.samples else None
        _note_idle(history, before, sample)
        if before is not None:
            if is_another_process(before, sample):
                history.samples.clear()
            if sample.at - before.at > _MINUTE_S:
                history.peaks.clear()
        _note_peak(history.peaks, sample)
        history.samples.append(sample)
        while history.samples[0].at < sample.at - LONGEST_WINDOW_S - _SLACK_S:
            history.samples.popleft()

    def last(self, uid: str) -> Sample | None:
        """Return the last sample of a replica; None before the first."""
        history = self._histories.get(uid)
        return None if history is None else history.samples[-1]

    def load(self, uid: str) -> Load | None:
        """Return the load of a replica at its last sample; None before the first."""
        history = self._histories.get(uid)
        return None if history is None else _load(history)

    def keep(self, uids: Collection[str]) -> None:
        """Forget all other replicas."""
        for uid in self._histories.keys() - set(uids):
            del self._histories[uid]


def is_another_process(before: Sample, now: Sample) -> bool:
    """Return whether the engine was started anew between two samples of a pod."""
    counters = ("requests", "errors", "tokens")
    fell = any(getattr(now, name) < getattr(before, name) for name in counters)
    return fell or any(
        old.count and (new.bounds_s != old.bounds_s or new.count < old.count)
        for old, new in ((before.ttft, now.ttft), (before.itl, now.itl))
    )


def _note_idle(history: _History, before: Sample | None, sample: Sample) -> None:
    idle = not sample.running and not sample.waiting
    if before is not None:
        idle = idle and sample.requests == before.requests
        idle = idle and sample.ttft.count == before.ttft.count
    if not idle:
        history.idle_since = None
    elif history.idle_since is None:
        history.idle_since = sample.at


def _note_peak(peaks: deque[Peak], sample: Sample) -> None:
    minute = sample.at - sample.at % _MINUTE_S
    kv_use = sample.kv_use or 0.0
    if peaks and peaks[-1].at == minute:
        last = peaks.pop()
        peaks.append(
            replace(
                last,
                running=max(last.running, sample.running),
                waiting=max(last.waiting, sample.waiting),
                kv_use=max(last.kv_use, kv_use),
            )
        )
    else:
        peaks.append(Peak(minute, sample.running, sample.waiting, kv_use))


def _load(history: _History) -> Load:
    last, first = history.samples[-1], _begin(history.samples)
    return Load(
        at=last.at,
        running=last.running,
        waiting=last.waiting,
        kv_use=last.kv_use,
        window_s=last.at - first.at,
        requests=last.requests - first.requests,
        errors=last.errors - first.errors,
        ttft=between(first.ttft, last.ttft),
        itl=between(first.itl, last.itl),
        idle_since=history.idle_since,
        peaks=tuple(history.peaks),
    )


def _begin(samples: deque[Sample]) -> Sample:
    """Return the sample that the window begins with."""
    last = samples[-1]
    old = [one for one in samples if one.at <= last.at - WINDOW_S + _SLACK_S]
    if not old:
        return samples[0]
    begin = old[-1]
    return begin if last.ttft.count - begin.ttft.count >= _PLENTY else old[0]


def between(first: Histogram, last: Histogram) -> Histogram:
    """Return what was observed from the first sample of a process to the last."""
    if not first.counts:
        return last
    if not last.counts:
        return _NONE
    pairs = zip(first.counts, last.counts, strict=True)
    counts = tuple(max(new - old, 0.0) for old, new in pairs)
    return Histogram(last.bounds_s, counts, max(last.sum_s - first.sum_s, 0.0))
