"""Count up what the engines of a deployment say, over replicas that come and go: pure.

An engine counts from its own start, and takes its counts along when it ends. What is exported of a
deployment must only grow, so each sample adds what its engine counted since the one before:

| the sample before, of the same pod | what is added |
|---|---|
| there is none: the pod is new to us | nothing: a leader before us may have counted it |
| of another process, which ended since | all that the new one has counted |
| of the same process | the difference |

Histograms with other bounds than before, of another engine, begin anew.
"""

from dataclasses import dataclass

from tramontane.controllers.inferencedeployment.load import NOTHING, Histogram
from tramontane.controllers.inferencedeployment.scrape import (
    Sample,
    between,
    is_another_process,
)


@dataclass(frozen=True, slots=True)
class Totals:
    """Hold what was counted of a deployment; `errors` are among the `requests`."""

    requests: float = 0.0
    errors: float = 0.0
    tokens: float = 0.0
    ttft: Histogram = NOTHING
    itl: Histogram = NOTHING

    def plus(self, before: Sample | None, now: Sample) -> "Totals":
        """Return the totals with what a replica counted from one sample to the next."""
        if before is None:
            before = now
        elif is_another_process(before, now):
            before = Sample(before.at)
        return Totals(
            self.requests + now.requests - before.requests,
            self.errors + now.errors - before.errors,
            self.tokens + now.tokens - before.tokens,
            _plus(self.ttft, between(before.ttft, now.ttft)),
            _plus(self.itl, between(before.itl, now.itl)),
        )


def _plus(total: Histogram, more: Histogram) -> Histogram:
    if not more.counts:
        return total
    if total.bounds_s != more.bounds_s:
        return more
    counts = tuple(a + b for a, b in zip(total.counts, more.counts, strict=True))
    return Histogram(total.bounds_s, counts, total.sum_s + more.sum_s)
