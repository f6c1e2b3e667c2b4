"""Name the metrics of each engine, as they stand on its /metrics page.

The rank agent looks at the steps and at whether there is work, to tell a hang from idleness; the
operator at the load, to scale and to judge a new revision. Read from the engines' sources: vLLM
0.31 to 0.33, SGLang 0.5.22 and 0.5.23, llama.cpp 0.5.0. The agents and the operator ask for nothing
that is not here, so that a renamed metric is one change.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tramontane.api.inferencedeployment import EngineName


@dataclass(frozen=True, slots=True)
class Series:
    """Name the samples of one metric whose labels match, all added up.

    Attributes:
        where: by label, a pattern for its whole value; a sample without the label matches none.
    """

    name: str
    where: tuple[tuple[str, str], ...] = ()

    def matches(self, name: str, labels: Mapping[str, str]) -> bool:
        """Return whether a sample counts."""
        return name == self.name and all(
            re.fullmatch(pattern, labels.get(label, "")) for label, pattern in self.where
        )


@dataclass(frozen=True, slots=True)
class MetricNames:
    """Name what an engine says of itself; an empty name or None where it says nothing.

    Attributes:
        running, waiting: gauges of requests, one sample per engine of a replica: add them up.
        kv_use: gauge from 0 to 1, one sample per engine: the highest counts.
        ttft, itl: histograms in seconds, without `_bucket`, `_sum` and `_count`.
        requests, errors: counters of answers to clients, and of those that the server failed.
        tokens: counter of tokens generated.
        steps: counter that grows with every step while there is work; may be missing until then.
    """

    running: str = ""
    waiting: str = ""
    kv_use: str = ""
    ttft: str = ""
    itl: str = ""
    requests: Series | None = None
    errors: Series | None = None
    tokens: str = ""
    steps: str = ""

    @property
    def busy(self) -> tuple[str, ...]:
        """Return the gauges that tell whether there is work, the running ones first."""
        return tuple(name for name in (self.running, self.waiting) if name)


#: Of an engine that says nothing.
NO_METRICS: Final = MetricNames()

# What the agent itself asks (/health, /metrics) is on the counters of SGLang's HTTP server, too.
_ANSWERS: Final = ("endpoint", r"/v1/.*|/generate")

METRICS: Final[Mapping[EngineName, MetricNames]] = {
    EngineName.VLLM: MetricNames(
        running="vllm:num_requests_running",
        waiting="vllm:num_requests_waiting",
        kv_use="vllm:kv_cache_usage_perc",
        ttft="vllm:time_to_first_token_seconds",
        itl="vllm:inter_token_latency_seconds",
        # Of the HTTP server, not of the engine: an engine that is gone counts no failures. The
        # status is a class there, "5xx".
        requests=Series("http_requests_total"),
        errors=Series("http_requests_total", (("status", "5.."),)),
        tokens="vllm:generation_tokens_total",
        steps="vllm:iteration_tokens_total_count",
    ),
    EngineName.SGLANG: MetricNames(
        running="sglang:num_running_reqs",
        waiting="sglang:num_queue_reqs",
        kv_use="sglang:token_usage",
        ttft="sglang:time_to_first_token_seconds",
        itl="sglang:inter_token_latency_seconds",
        requests=Series("sglang:http_responses_total", (_ANSWERS,)),
        errors=Series("sglang:http_responses_total", (_ANSWERS, ("status_code", "5.."))),
        tokens="sglang:generation_tokens_total",
        steps="sglang:realtime_tokens_total",
    ),
    # It measures no latency and counts no answers: its revisions are judged by nothing but life.
    EngineName.LLAMACPP: MetricNames(
        running="llamacpp:requests_processing",
        waiting="llamacpp:requests_deferred",
        tokens="llamacpp:tokens_predicted_total",
        steps="llamacpp:n_decode_total",
    ),
    EngineName.CUSTOM: NO_METRICS,
}
