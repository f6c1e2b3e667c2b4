"""What an engine's page says, and what a replica's samples come to."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tramontane.api.inferencedeployment import EngineName
from tramontane.controllers.inferencedeployment.engines.metricnames import METRICS
from tramontane.controllers.inferencedeployment.load import Histogram, Load, Peak
from tramontane.controllers.inferencedeployment.scrape import MAX_LINES, Sample, Tracker, parse
from unit.inferencedeployment.loads import NONE, NOW, a_histogram

VLLM = METRICS[EngineName.VLLM]
TTFT = "vllm:time_to_first_token_seconds"

PAGE = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 2.0
vllm:num_requests_waiting{engine="0",model_name="m"} 7.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="m",reason="capacity"} 9.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.75
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.1",model_name="m"} 4.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.25",model_name="m"} 6.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="+Inf",model_name="m"} 7.0
vllm:time_to_first_token_seconds_count{engine="0",model_name="m"} 7.0
vllm:time_to_first_token_seconds_sum{engine="0",model_name="m"} 1.5
vllm:time_to_first_token_seconds_created{engine="0",model_name="m"} 1.7e+09
vllm:time_to_first_token_seconds_bucket{engine="1",le="0.1",model_name="m"} 1.0
vllm:time_to_first_token_seconds_bucket{engine="1",le="0.25",model_name="m"} 1.0
vllm:time_to_first_token_seconds_bucket{engine="1",le="+Inf",model_name="m"} 1.0
vllm:time_to_first_token_seconds_sum{engine="1",model_name="m"} 0.5
http_requests_total{handler="/v1/chat/completions",method="POST",status="2xx"} 40.0
http_requests_total{handler="/v1/chat/completions",method="POST",status="4xx"} 3.0
http_requests_total{handler="/v1/chat/completions",method="POST",status="5xx"} 2.0
http_requests_created{handler="/v1/chat/completions"} 9.0
vllm:generation_tokens_total{engine="0",model_name="m"} 600.0
vllm:generation_tokens_total{engine="1",model_name="m"} 300.0
vllm:generation_tokens_created{engine="0",model_name="m"} 1.7e+09
"""


def test_a_page() -> None:
    ttft = Histogram((0.1, 0.25, math.inf), (5.0, 7.0, 8.0), 2.0)
    assert parse(PAGE.encode(), VLLM, NOW) == Sample(
        NOW,
        running=5.0,
        waiting=7.0,
        kv_use=0.75,
        requests=45.0,
        errors=2.0,
        tokens=900.0,
        ttft=ttft,
    )


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        pytest.param("", {}, id="nothing more"),
        pytest.param("vllm:num_requests_waiting NaN", {}, id="no number"),
        pytest.param('vllm:num_requests_waiting{a="b 3', {}, id="a broken line"),
        pytest.param("vllm:num_requests_waiting\t3", {"waiting": 3.0}, id="a tab"),
        pytest.param("vllm:num_requests_waiting \xff", {}, id="no text"),
        pytest.param(f'{TTFT}_bucket{{le="0.1"}} 3', {}, id="buckets without an end"),
        pytest.param(f'{TTFT}_bucket{{le="x"}} 3', {}, id="a bucket without a bound"),
        pytest.param(f"{TTFT}_bucket 3", {}, id="the same"),
        pytest.param('http_requests_total{code="500"} 3', {"requests": 3.0, "errors": 0.0},
                     id="another label"),
    ],
)  # fmt: skip
def test_lines_that_cannot_be_read_are_left_out(line: str, fields: dict[str, Any]) -> None:
    page = f"{line}\nvllm:num_requests_running 1\n"
    assert parse(page.encode("latin-1"), VLLM, NOW) == Sample(NOW, **{"running": 1.0, **fields})


@pytest.mark.parametrize(
    ("engine", "page", "sample"),
    [
        pytest.param("vllm", "", None, id="an empty page"),
        pytest.param("vllm", "vllm:num_requests_waiting 1\n", None, id="not whether it runs"),
        pytest.param("custom", PAGE, None, id="an engine without names"),
        pytest.param(
            "vllm", "vllm:num_requests_running 1\n" * (MAX_LINES + 1), None, id="too long"
        ),
        pytest.param(
            "sglang",
            "sglang:num_running_reqs 1\nsglang:num_queue_reqs 2\nsglang:token_usage 0.5\n",
            Sample(NOW, 1.0, 2.0, 0.5),
            id="sglang",
        ),
        pytest.param(
            "llamacpp",
            "llamacpp:requests_processing 1\nllamacpp:requests_deferred 2\n",
            Sample(NOW, 1.0, 2.0, None),
            id="llama.cpp",
        ),
    ],
)
def test_engines(engine: str, page: str, sample: Sample | None) -> None:
    assert parse(page.encode(), METRICS[EngineName(engine)], NOW) == sample


@given(
    lines=st.lists(
        st.sampled_from([b"vllm:num_requests_running", b"http_requests_total", TTFT.encode()])
        .flatmap(lambda name: st.binary(max_size=30).map(lambda rest: name + rest))
        .map(lambda line: line.replace(b"\n", b" ")),
        max_size=5,
    )
)
def test_no_page_is_too_bad(lines: list[bytes]) -> None:
    good = b"vllm:num_requests_running 1"
    sample = parse(b"\n".join([*lines, good]), VLLM, NOW)
    assert sample is not None


def a_sample(at: float, requests: float = 0.0, **fields: Any) -> Sample:
    """Return a sample after so many requests, each with a first token after 0.12 s."""
    ttft = a_histogram([0.12] * round(requests)) if requests else NONE
    return Sample(NOW + at, **{"requests": requests, "ttft": ttft, **fields})


def tracked(*samples: Sample) -> Load:
    tracker = Tracker()
    for sample in samples:
        tracker.take("u", sample)
    load = tracker.load("u")
    assert load is not None
    return load


@pytest.mark.parametrize(
    ("times", "rate", "window_s", "requests"),
    [
        pytest.param([0], 10, 0, 0, id="one sample"),
        pytest.param([0, 5], 10, 5, 50, id="two"),
        pytest.param(range(0, 65, 5), 10, 60, 600, id="a minute"),
        pytest.param(range(0, 305, 5), 10, 60, 600, id="five minutes"),
        pytest.param(range(0, 305, 5), 1, 120, 120, id="few requests: two minutes"),
        pytest.param(range(0, 95, 5), 1, 90, 90, id="few requests, and new"),
        pytest.param([0, 58, 116], 10, 58, 580, id="a little too early"),
        pytest.param([0, 30, 300, 305], 10, 5, 50, id="after a gap"),
    ],
)
def test_windows(times: Any, rate: float, window_s: float, requests: float) -> None:
    load = tracked(*(a_sample(at, rate * at) for at in times))
    assert load.at == NOW + times[-1]
    assert (load.window_s, load.requests) == (window_s, requests)
    assert load.ttft.count == requests
    assert load.ttft.sum_s == pytest.approx(0.12 * requests)


@pytest.mark.parametrize(
    "then",
    [
        pytest.param(a_sample(10, 5, ttft=a_histogram([0.12] * 50)), id="fewer requests"),
        pytest.param(a_sample(10, 50, ttft=NONE), id="fewer first tokens"),
        pytest.param(
            a_sample(10, 50, ttft=Histogram((math.inf,), (60.0,), 1.0)), id="other buckets"
        ),
    ],
)
def test_an_engine_that_started_anew_is_not_compared_with_itself(then: Sample) -> None:
    load = tracked(a_sample(0, 40), a_sample(5, 50), then)
    assert (load.window_s, load.requests, load.ttft.count) == (0, 0, 0)


@pytest.mark.parametrize(
    ("samples", "idle_since"),
    [
        pytest.param([a_sample(0)], 0, id="from the first sample on"),
        pytest.param([a_sample(0), a_sample(5), a_sample(10)], 0, id="still"),
        pytest.param([a_sample(0, running=1.0), a_sample(5)], 5, id="it ended"),
        pytest.param([a_sample(0), a_sample(5, running=1.0)], None, id="one runs"),
        pytest.param([a_sample(0), a_sample(5, waiting=1.0)], None, id="one waits"),
        pytest.param([a_sample(0), a_sample(5, 1.0)], None, id="one came and went"),
        pytest.param([a_sample(0), a_sample(5, 1.0), a_sample(10, 1.0)], 10, id="since then"),
    ],
)
def test_idleness(samples: list[Sample], idle_since: float | None) -> None:
    assert tracked(*samples).idle_since == (idle_since if idle_since is None else NOW + idle_since)


def test_peaks_are_by_the_minute() -> None:
    samples = [
        a_sample(0, running=1.0, kv_use=0.5),
        a_sample(30, running=3.0, waiting=2.0, kv_use=0.4),
        a_sample(60, running=1.0),
    ]
    peaks = tracked(*samples).peaks
    assert peaks == (Peak(NOW, 3.0, 2.0, 0.5), Peak(NOW + 60, 1.0, 0.0, 0.0))
    assert tracked(*samples, a_sample(180)).peaks == (Peak(NOW + 180),)  # nobody saw the minutes


def test_two_hours_are_kept() -> None:
    load = tracked(*(a_sample(30 * number) for number in range(400)))
    assert len(load.peaks) == 121
    assert load.peaks[-1].at - load.peaks[0].at == 7200


def test_who_is_gone_is_forgotten() -> None:
    tracker = Tracker()
    tracker.take("u", a_sample(0))
    tracker.take("v", a_sample(0))
    tracker.keep(["v", "w"])
    assert tracker.load("u") is None
    assert tracker.load("v") is not None
