"""From what is asked to a layout, or to a refusal that says the sum and what fits."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tramontane.api.inferencedeployment import EngineName, Layout
from tramontane.controllers.inferencedeployment.layout import CPU_ONLY, Sizing
from tramontane.controllers.inferencedeployment.layout import Layout as Planned
from tramontane.controllers.inferencedeployment.sizing.ask import Ask
from tramontane.controllers.inferencedeployment.sizing.gpus import KINDS
from tramontane.controllers.inferencedeployment.sizing.layouts import problem_of
from tramontane.controllers.inferencedeployment.sizing.memory import gpu_share
from tramontane.controllers.inferencedeployment.sizing.modelconfig import Model
from tramontane.controllers.inferencedeployment.sizing.plan import plan_layout
from unit.inferencedeployment.sizes import GIB, MODELS, ask, config, model, planned, refused

SMALL, LARGE, EDGE = "mistral-small-4-119b-fp8", "mistral-large-3-fp8", "ministral-3-3b-fp8"


def fixed(tensor: int, **degrees: Any) -> Layout:
    return Layout.model_validate({"mode": "Fixed", "tensor": tensor, **degrees})


@pytest.mark.parametrize(
    ("asked", "layout", "nodes"),
    [
        pytest.param(ask(), "TP2", 1, id="fewest GPUs"),
        pytest.param(ask(concurrent_requests=70), "TP4", 1, id="more at once"),
        pytest.param(ask(context_tokens=131_072), "TP4", 1, id="longer"),
        pytest.param(ask(gpu="b300"), "TP1", 1, id="larger GPUs"),
        pytest.param(ask(itl_p95_s=0.008), "TP4", 1, id="quicker"),
        pytest.param(ask(LARGE, "h100"), "TP8xPP2", 2, id="two blades"),
        pytest.param(
            ask(SMALL, "h100", context_tokens=65_536), "TP1xDP2+EP", 1, id="a cache per rank"
        ),
        pytest.param(ask(gpus_per_blade=1, gpu="h100"), "TP1xPP3", 3, id="blades of one GPU"),
        pytest.param(ask(LARGE, blades=0, gpu="h100"), "TP8xPP2", 2, id="blades not counted yet"),
        pytest.param(ask(weights_b=70 * GIB), "TP1", 1, id="weights seen to be smaller"),
        pytest.param(ask(kv_value_b=1, concurrent_requests=80), "TP2", 1, id="cache of 8 bits"),
        pytest.param(ask(fixed=fixed(8)), "TP8", 1, id="fixed"),
        pytest.param(ask(fixed=fixed(16, nodes=2)), "TP16", 2, id="fixed, over two blades"),
        pytest.param(
            ask(LARGE, fixed=fixed(1, data=16, expert=True, nodes=2)), "TP1xDP16+EP", 2, id="wide"
        ),
    ],
)
def test_what_is_chosen(asked: Ask, layout: str, nodes: int) -> None:
    found = planned(asked)
    assert (str(found.layout), found.layout.nodes) == (layout, nodes), found.why
    assert found.fits
    assert found.requests >= asked.concurrent_requests


def test_the_sum_is_told() -> None:
    found = planned(ask())
    assert found.why == (
        "TP2 (2 GPUs on 1 blade): 126.4 GiB usable of 140.4 - 65.7 GiB of weights - 6.9 GiB for "
        "activations and graphs = 53.8 GiB of KV cache per GPU; 160.0 KiB per token (GQA, over 2 "
        "tensor ranks), 352,272 tokens: 43 requests of 8,192 tokens (asked 8); a token takes at "
        "least 14.5 ms"
    )
    assert found.total_weights_b == model("llama-3.3-70b").weights_b
    assert (found.kv_tokens, found.requests) == (352_272, 43)


@pytest.mark.parametrize(
    ("asked", "parts"),
    [
        pytest.param(
            ask(LARGE, "h100", blades=1),
            [
                "must hold 8 requests of 8,192 tokens (got TP8 (8 GPUs on 1 blade): 71.7 GiB ",
                "usable of 79.6 - 79.2 GiB of weights",
                "nearest: TP8xPP2 (16 GPUs on 2 blades)",
            ],
            id="weights too large",
        ),
        pytest.param(
            ask(LARGE, blades=1, context_tokens=65_536, concurrent_requests=64),
            ["nearest: 24 requests of 65,536 tokens there, or TP4xDP4+EP (16 GPUs on 2 blades)"],
            id="too many requests",
        ),
        pytest.param(
            ask("ministral-3-14b-fp8", gpu_memory_b=40 * GIB, gpus_per_blade=1, blades=1,
                context_tokens=200_000, concurrent_requests=1),
            ["nearest: 1 request of 118,624 tokens there, or TP1xPP2 (2 GPUs on 2 blades)"],
            id="too long",
        ),
        pytest.param(
            ask(LARGE, gpus_per_blade=1, gpu_memory_b=8 * GIB),
            ["must hold 8 requests", "= -"],
            id="nothing fits",
        ),
        pytest.param(
            ask(fixed=fixed(1)),
            ["got TP1 (1 GPU on 1 blade): 126.4 GiB", "; mode Auto takes TP2 (2 GPUs on 1 blade)"],
            id="fixed, too small",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit(asked: Ask, parts: list[str]) -> None:
    found = refused(asked)
    assert found.reason == "DoesNotFit"
    for part in parts:
        assert part in found.message, found.message


def test_the_nearest_is_less_here_or_more_elsewhere() -> None:
    less = refused(ask(LARGE, blades=1, context_tokens=65_536, concurrent_requests=64)).nearest
    assert less is not None
    assert (less.fits, less.requests, less.layout.nodes) == (False, 24, 1)
    more = refused(ask(LARGE, "h100", blades=1)).nearest
    assert more is not None
    assert (more.fits, more.layout.nodes) == (True, 2)
    assert refused(ask(LARGE, gpus_per_blade=1, gpu_memory_b=8 * GIB)).nearest is None


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        pytest.param(
            ask(context_tokens=200_000),
            "capacity.contextTokens must be at most the model's 131,072 (got 200,000); ask for",
            id="context beyond the model's",
        ),
        pytest.param(
            ask(fixed=fixed(3)),
            "layout.tensor must divide the model's 64 attention heads (got 3); mode Auto takes TP2",
            id="does not divide",
        ),
        pytest.param(
            ask(fixed=fixed(16)), "must leave at most 8 GPUs on each blade (got 16: 16", id="nodes"
        ),
        pytest.param(
            ask(fixed=fixed(8, pipeline=5, nodes=5)), "at most the 4 blades", id="too many blades"
        ),
        pytest.param(
            ask(fixed=fixed(4, pipeline=2, nodes=3)), "nodes must divide its 8 GPUs", id="uneven"
        ),
        pytest.param(ask(fixed=fixed(8, expert=True)), "without experts", id="experts of none"),
        pytest.param(
            ask(itl_p95_s=0.001),
            "slo.itlP95 must be at least 3.6ms, the time to read the 16.2 GiB of active weights per"
            " GPU at 4.80 TB/s for one token with TP8 (8 GPUs on 1 blade) (got 1ms)",
            id="SLO below one token",
        ),
        pytest.param(ask(ttft_p95_s=0.001), "slo.ttftP95 must be at least 3.6ms", id="first token"),
        pytest.param(
            ask(itl_p95_s=0.01, fixed=fixed(2)),
            "must be at least 14.5ms",
            id="SLO below one token of a fixed layout",
        ),
        pytest.param(
            replace(ask(), model=None),
            "model.config must be given to plan engine vllm (got none); copy the model's config",
            id="no configuration",
        ),
        pytest.param(
            replace(ask(fixed=fixed(2), weights_b=GIB), model=None),
            "(got 1.0 GiB of weights alone)",
            id="weights alone",
        ),
    ],
)
def test_what_is_no_good_input(asked: Ask, message: str) -> None:
    found = refused(asked)
    assert found.reason == "Misconfigured"
    assert message in found.message, found.message


# llama.cpp and custom engines


def edge(name: str, ram_gib: float, **fields: Any) -> Ask:
    from tramontane.controllers.inferencedeployment.sizing.modelconfig import (  # noqa: PLC0415
        read_model,
    )

    gguf = {"quantization_config": {"quant_method": "gguf", "bits": 4}, "quantization": None}
    return replace(
        ask(read_model(config(name, **gguf))),
        engine=EngineName.LLAMACPP,
        gpus_per_blade=0,
        gpu_memory_b=0,
        bandwidth_b=0,
        blades=1,
        concurrent_requests=1,
        ram_b=int(ram_gib * GIB),
        **fields,
    )


@pytest.mark.parametrize(
    ("name", "ram_gib", "fits"),
    [
        pytest.param(EDGE, 4, True, id="3B on 4 GiB"),
        pytest.param(EDGE, 8, True, id="3B on 8 GiB"),
        pytest.param("ministral-3-8b-fp8", 4, False, id="8B on 4 GiB"),
        pytest.param("ministral-3-8b-fp8", 8, True, id="8B on 8 GiB"),
    ],
)
def test_a_host_without_gpus(name: str, ram_gib: float, fits: bool) -> None:
    found = plan_layout(edge(name, ram_gib))
    assert isinstance(found, Sizing) == fits, found
    if isinstance(found, Sizing):
        assert found.layout == CPU_ONLY
        assert found.requests >= 1
    else:
        assert "got CPU: 3.6 GiB usable of 4.0 - " in found.message
        assert found.reason == "DoesNotFit"


@pytest.mark.parametrize(
    ("asked", "layout", "why"),
    [
        pytest.param({}, CPU_ONLY, "CPU, taken as it is", id="nothing is known"),
        pytest.param({"ram_b": 4 * GIB}, CPU_ONLY, "CPU, taken as it is", id="no weights"),
        pytest.param(
            {"ram_b": 4 * GIB, "weights_b": 2 * GIB},
            CPU_ONLY,
            "CPU: 3.6 GiB usable of 4.0 - 2.0 GiB of weights",
            id="weights and memory",
        ),
        pytest.param(
            {"fixed": fixed(2)}, Planned(tensor=2), "TP2 (2 GPUs on 1 blade), taken", id="fixed"
        ),
        pytest.param(
            {"fixed": fixed(2), "gpus_per_blade": 8, "gpu_memory_b": 80 * GIB, "weights_b": GIB},
            Planned(tensor=2),
            "TP2 (2 GPUs on 1 blade): 72.0 GiB usable of 80.0 - 0.5 GiB",
            id="fixed, weights known",
        ),
    ],
)
@pytest.mark.parametrize("engine", [EngineName.LLAMACPP, EngineName.CUSTOM])
def test_what_is_taken_as_it_is(
    asked: dict[str, Any], layout: Planned, why: str, engine: EngineName
) -> None:
    bare = Ask(None, engine, 0, 0, 1, 8192, 4)
    found = planned(replace(bare, **asked))
    assert found.layout == layout
    assert found.why.startswith(why)
    assert (found.kv_tokens, found.requests) == (0, 0)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        pytest.param({"weights_b": 5 * GIB}, "must hold 5.0 GiB of weights (got CPU", id="RAM"),
        pytest.param(
            {"fixed": fixed(2), "gpu_memory_b": 16 * GIB, "weights_b": 40 * GIB},
            "must hold 40.0 GiB of weights (got TP2",
            id="GPUs",
        ),
        pytest.param(
            {"fixed": fixed(9), "gpus_per_blade": 8}, "at most 8 GPUs", id="no such blade"
        ),
    ],
)
def test_what_is_refused_all_the_same(asked: dict[str, Any], message: str) -> None:
    bare = Ask(None, EngineName.LLAMACPP, 0, 0, 1, 8192, 4, ram_b=4 * GIB)
    assert message in refused(replace(bare, **asked)).message


@pytest.mark.parametrize(
    ("gpu", "layout"),
    [pytest.param("h200", "TP2", id="two"), pytest.param("b300", "TP1", id="one")],
)
def test_llama_cpp_puts_whole_layers_on_gpus(gpu: str, layout: str) -> None:
    found = planned(ask(gpu=gpu, engine=EngineName.LLAMACPP))
    assert str(found.layout) == layout
    assert found.layout.pipeline == 1


# Properties

NAMES = sorted(path.stem for path in MODELS.glob("*.json"))
asks = st.builds(
    ask,
    st.sampled_from(NAMES),
    st.sampled_from(["h100", "h200", "b200", "b300"]),
    gpus_per_blade=st.sampled_from([8, 4, 6, 3, 2, 1, 16]),
    blades=st.integers(0, 9),
    gpu_memory_b=st.integers(1, 400).map(lambda gib: (401 - gib) * GIB + gib),
    context_tokens=st.integers(1, 35_000),
    concurrent_requests=st.integers(1, 100),
    engine=st.sampled_from([EngineName.VLLM, EngineName.SGLANG, EngineName.LLAMACPP]),
    itl_p95_s=st.none() | st.floats(0.0005, 1),
)


@given(asks, st.integers(1, 400 * GIB), st.integers(0, 4), st.integers(0, 1000))
def test_more_never_turns_a_fit_into_a_refusal(
    asked: Ask, memory_b: int, blades: int, fewer: int
) -> None:
    assume(isinstance(plan_layout(asked), Sizing))
    more = replace(
        asked,
        gpu_memory_b=asked.gpu_memory_b + memory_b,
        blades=asked.blades and asked.blades + blades,
        concurrent_requests=max(1, asked.concurrent_requests - fewer),
    )
    assert isinstance(plan_layout(more), Sizing)


@given(asks)
def test_a_plan_keeps_what_it_promises(asked: Ask) -> None:
    found = plan_layout(asked)
    if not isinstance(found, Sizing):
        assert found.nearest is None or found.nearest.kv_tokens > 0
        return
    layout, one = found.layout, asked.model
    assert isinstance(one, Model)
    assert found.fits
    assert layout.gpus_per_node * layout.nodes == layout.gpus
    assert layout.gpus_per_node <= asked.gpus_per_blade
    assert layout.nodes <= (asked.blades or 64)
    assert found.requests >= asked.concurrent_requests
    assert found.kv_tokens >= found.requests * asked.context_tokens
    spread = layout
    if asked.engine is EngineName.LLAMACPP:
        spread = Planned(pipeline=layout.tensor)
    else:
        assert problem_of(one, layout) is None
        assert layout.tensor <= asked.gpus_per_blade
    share = gpu_share(one, spread, asked.gpu_memory_b, asked.utilisation)
    assert share.rank_tokens * layout.data == found.kv_tokens
    held = share.weights_b + share.overhead_b + share.rank_tokens * share.kv_token_b
    assert held <= share.usable_b <= asked.gpu_memory_b
    if asked.itl_p95_s is not None:
        assert share.weights_b > 0


@given(asks)
def test_no_smaller_layout_would_do(asked: Ask) -> None:
    found = plan_layout(asked)
    assume(isinstance(found, Sizing) and asked.engine is not EngineName.LLAMACPP)
    assert isinstance(found, Sizing)
    one = asked.model
    assert one is not None
    for tensor in range(1, min(found.layout.gpus, asked.gpus_per_blade + 1)):
        smaller = Planned(tensor=tensor)
        if problem_of(one, smaller) is None and asked.itl_p95_s is None:
            share = gpu_share(one, smaller, asked.gpu_memory_b, asked.utilisation)
            assert share.rank_tokens // asked.context_tokens < asked.concurrent_requests


def test_all_kinds_have_memory_and_bandwidth() -> None:
    assert all(kind.memory_b and kind.bandwidth_b for kind in KINDS.values())
