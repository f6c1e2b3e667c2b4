"""What is read from the engines' pages of metrics."""

import pytest

from tramontane.api.inferencedeployment import EngineName
from tramontane.controllers.inferencedeployment.engines.metricnames import METRICS, Series

VLLM, SGLANG = METRICS[EngineName.VLLM], METRICS[EngineName.SGLANG]


def test_every_engine_has_its_names() -> None:
    assert set(METRICS) == set(EngineName)


@pytest.mark.parametrize("name", [EngineName.VLLM, EngineName.SGLANG, EngineName.LLAMACPP])
def test_whether_there_is_work_is_known_where_steps_are(name: EngineName) -> None:
    names = METRICS[name]
    assert names.steps
    assert names.busy == (names.running, names.waiting)
    prefix = f"{name}:"
    assert all(one.startswith(prefix) for one in (*names.busy, names.steps))


def test_of_a_custom_engine_nothing_is_asked() -> None:
    assert METRICS[EngineName.CUSTOM].busy == ()


def answered(status: str, endpoint: str = "/v1/chat/completions") -> dict[str, str]:
    return {"endpoint": endpoint, "status_code": status}


SAMPLES = {
    "vllm, failed": (VLLM.errors, {"status": "5xx", "handler": "/v1/completions"}, True),
    "vllm, refused": (VLLM.errors, {"status": "4xx"}, False),
    "vllm, answered": (VLLM.errors, {"status": "2xx"}, False),
    "vllm, answers": (VLLM.requests, {"status": "2xx"}, True),
    "sglang, failed": (SGLANG.errors, answered("500"), True),
    "sglang, not ready": (SGLANG.errors, answered("503", "/health"), False),
    "sglang, answered": (SGLANG.errors, answered("200"), False),
    "sglang, answers": (SGLANG.requests, answered("200"), True),
    "sglang, asked by us": (SGLANG.requests, answered("200", "/metrics"), False),
    "no labels": (SGLANG.requests, {}, False),
}


@pytest.mark.parametrize(("series", "labels", "counts"), SAMPLES.values(), ids=SAMPLES)
def test_which_samples_count(series: Series, labels: dict[str, str], counts: bool) -> None:
    assert series.matches(series.name, labels) is counts
    assert not series.matches("other", labels)
