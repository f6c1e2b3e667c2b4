"""Count as vLLM counts, and tell it as its Prometheus client tells it."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

# Source: vllm/v1/metrics/buckets.py, 0.32.
REQUEST_LATENCY = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0,
    480.0, 960.0, 1920.0, 7680.0,
)  # fmt: skip
TIME_TO_FIRST_TOKEN = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
)  # fmt: skip
INTER_TOKEN_LATENCY = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0,
    40.0, 80.0,
)  # fmt: skip
ITERATION_TOKENS = (
    1.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0,
)  # fmt: skip

FINISHED = ("stop", "length", "abort", "error", "repetition")
REJECTED = ("max_num_queued_reqs", "max_num_queued_tokens")
_SLEEP_STATES = (("awake", 1), ("weights_offloaded", 0), ("discard_all", 0))

_HISTOGRAMS = {
    "time_to_first_token_seconds": TIME_TO_FIRST_TOKEN,
    "inter_token_latency_seconds": INTER_TOKEN_LATENCY,
    "request_time_per_output_token_seconds": INTER_TOKEN_LATENCY,
    "iteration_tokens_total": ITERATION_TOKENS,
    "e2e_request_latency_seconds": REQUEST_LATENCY,
    "request_queue_time_seconds": REQUEST_LATENCY,
    "request_inference_time_seconds": REQUEST_LATENCY,
    "request_prefill_time_seconds": REQUEST_LATENCY,
    "request_decode_time_seconds": REQUEST_LATENCY,
}
_COUNTERS = (
    "prefix_cache_queries",
    "prefix_cache_hits",
    "num_preemptions",
    "prompt_tokens",
    "generation_tokens",
)


class Histogram:
    """Count observations in buckets."""

    __slots__ = ("bounds", "buckets", "count", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.buckets = [0] * (len(bounds) + 1)
        self.count = 0
        self.sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count a value. O(log buckets)."""
        self.buckets[bisect_left(self.bounds, value)] += times
        self.count += times
        self.sum += value * times


class EngineMetrics:
    """Hold the numbers of one engine; gauges are set when they are asked for."""

    def __init__(self) -> None:
        self.histograms = {name: Histogram(bounds) for name, bounds in _HISTOGRAMS.items()}
        self.counters: Counter[str] = Counter()
        self.finished: Counter[str] = Counter()
        self.running = 0
        self.waiting = 0
        self.kv_use = 0.0
        # Looked up for each token.
        self.itl = self.histograms["inter_token_latency_seconds"]
        self.ttft = self.histograms["time_to_first_token_seconds"]
        self.steps = self.histograms["iteration_tokens_total"]


class Metrics:
    """Hold the numbers of the server."""

    def __init__(self, model: str, engines: Iterable[int], started_at: float) -> None:
        self._model = model
        self._started_at = started_at
        self.engines = {index: EngineMetrics() for index in engines}
        self.rejections: Counter[str] = Counter()
        self.http: Counter[tuple[str, str, str]] = Counter()
        self.lora: dict[tuple[str, str, str], float] = {}
        self.cache: dict[str, object] = {}

    def text(self) -> str:
        """Return all of it in Prometheus' text format."""
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        yield from self._gauges()
        for name in _COUNTERS:
            yield from _family(f"vllm:{name}", "counter")
            for labels, engine in self._labelled():
                yield f"vllm:{name}_total{{{labels}}} {float(engine.counters[name])}"
        yield from _family("vllm:request_success", "counter")
        for labels, engine in self._labelled():
            for reason in FINISHED:
                count = float(engine.finished[reason])
                label = f'{labels},finished_reason="{reason}"'
                yield f"vllm:request_success_total{{{label}}} {count}"
        yield from _family("vllm:admission_rejections", "counter")
        for reason in REJECTED:
            label = f'model_name="{_escaped(self._model)}",reason="{reason}"'
            yield f"vllm:admission_rejections_total{{{label}}} {float(self.rejections[reason])}"
        for name in _HISTOGRAMS:
            yield from _family(f"vllm:{name}", "histogram")
            for labels, engine in self._labelled():
                yield from _buckets(f"vllm:{name}", labels, engine.histograms[name])
        yield from self._infos()
        yield from _family("http_requests", "counter")
        for (handler, method, status), count in sorted(self.http.items()):
            label = _label({"handler": handler, "method": method, "status": status})
            yield f"http_requests_total{{{label}}} {float(count)}"
        yield from _family("process_start_time_seconds", "gauge")
        yield f"process_start_time_seconds {self._started_at}"

    def _labelled(self) -> Iterator[tuple[str, EngineMetrics]]:
        for index, engine in self.engines.items():
            yield f'engine="{index}",model_name="{_escaped(self._model)}"', engine

    def _gauges(self) -> Iterator[str]:
        for name, key in (
            ("num_requests_running", "running"),
            ("num_requests_waiting", "waiting"),
            ("kv_cache_usage_perc", "kv_use"),
        ):
            yield from _family(f"vllm:{name}", "gauge")
            for labels, engine in self._labelled():
                yield f"vllm:{name}{{{labels}}} {float(getattr(engine, key))}"
        yield from _family("vllm:num_requests_waiting_by_reason", "gauge")
        for labels, engine in self._labelled():
            for reason, count in (("capacity", engine.waiting), ("deferred", 0)):
                label = f'{labels},reason="{reason}"'
                yield f"vllm:num_requests_waiting_by_reason{{{label}}} {float(count)}"
        yield from _family("vllm:engine_sleep_state", "gauge")
        for labels, _ in self._labelled():
            for state, value in _SLEEP_STATES:
                label = f'{labels},sleep_state="{state}"'
                yield f"vllm:engine_sleep_state{{{label}}} {float(value)}"

    def _infos(self) -> Iterator[str]:
        if self.lora:
            yield from _family("vllm:lora_requests_info", "gauge")
        for (most, running, waiting), at in self.lora.items():
            label = _label(
                {
                    "max_lora": most,
                    "running_lora_adapters": running,
                    "waiting_lora_adapters": waiting,
                }
            )
            yield f"vllm:lora_requests_info{{{label}}} {at}"
        yield from _family("vllm:cache_config_info", "gauge")
        for index in self.engines:
            yield f"vllm:cache_config_info{{{_label({**self.cache, 'engine': index})}}} 1.0"


def _family(name: str, kind: str) -> Iterator[str]:
    told = f"{name}_total" if kind == "counter" else name
    yield f"# HELP {told} {name} of vLLM."
    yield f"# TYPE {told} {kind}"


def _buckets(name: str, labels: str, histogram: Histogram) -> Iterator[str]:
    total = 0
    edges = [*(str(bound) for bound in histogram.bounds), "+Inf"]
    for edge, count in zip(edges, histogram.buckets, strict=True):
        total += count
        yield f'{name}_bucket{{{labels},le="{edge}"}} {float(total)}'
    yield f"{name}_count{{{labels}}} {float(histogram.count)}"
    yield f"{name}_sum{{{labels}}} {histogram.sum}"


def _label(values: Mapping[str, object]) -> str:
    return ",".join(f'{name}="{_escaped(str(value))}"' for name, value in sorted(values.items()))


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
