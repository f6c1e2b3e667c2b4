"""What a spec and a pool ask for."""

from typing import Any

import pytest

from tramontane.api.nodepool import NodePool
from tramontane.controllers.inferencedeployment.layout import Refusal
from tramontane.controllers.inferencedeployment.sizing.ask import Ask, ask_of, layout_of
from tramontane.controllers.inferencedeployment.sizing.plan import plan_layout
from unit.inferencedeployment.sizes import GIB, config, pool, spec

SOURCE = {"hostPath": "/models/m"}
BARE = {"source": SOURCE}


def asked(found: Ask | Refusal) -> Ask:
    assert isinstance(found, Ask), found.message
    return found


def engine(name: str, *arguments: str) -> dict[str, Any]:
    return {"name": name, "image": "registry.hall/engine:1", "extraArgs": list(arguments)}


def template(**limits: Any) -> dict[str, Any]:
    container = {"name": "engine", "resources": {"limits": limits}}
    return {"spec": {"containers": [container]}}


def test_all_of_it() -> None:
    found = asked(ask_of(spec(slo={"ttftP95": "2s", "itlP95": "50ms"}), pool(), 4))
    assert found.model is not None
    assert (found.gpus_per_blade, found.blades, found.gpu_memory_b >> 20) == (8, 4, 143_771)
    assert (found.context_tokens, found.concurrent_requests) == (8192, 8)
    assert (found.ttft_p95_s, found.itl_p95_s, found.bandwidth_b) == (2.0, 0.05, 4_800 * 10**9)
    assert (found.fixed, found.weights_b, found.ram_b, found.kv_value_b) == (None, None, None, None)
    assert not isinstance(plan_layout(found), Refusal)


def test_a_fixed_layout() -> None:
    layout = {"mode": "Fixed", "tensor": 4, "pipeline": 2, "nodes": 2}
    found = asked(ask_of(spec(layout=layout), pool(), 4))
    assert found.fixed is not None
    assert (str(layout_of(found.fixed)), layout_of(found.fixed).nodes) == ("TP4xPP2", 2)


@pytest.mark.parametrize(
    ("arguments", "utilisation", "kv_b"),
    [
        pytest.param([], 0.90, None, id="none"),
        pytest.param(["--gpu-memory-utilization", "0.84"], 0.84, None, id="memory"),
        pytest.param(["--mem-fraction-static=0.8"], 0.80, None, id="memory, of SGLang"),
        pytest.param(["--kv-cache-dtype", "fp8_e4m3"], 0.90, 1, id="cache of 8 bits"),
        pytest.param(["--kv-cache-dtype=bfloat16"], 0.90, 2, id="cache of 16 bits"),
        pytest.param(["--kv-cache-dtype=auto"], 0.90, None, id="as the model says"),
        pytest.param(["--kv-cache-dtype"], 0.90, None, id="without a value"),
    ],
)
def test_arguments_that_change_memory(
    arguments: list[str], utilisation: float, kv_b: int | None
) -> None:
    found = asked(ask_of(spec(engine=engine("vllm", *arguments)), pool(), 1))
    assert (found.utilisation, found.kv_value_b) == (utilisation, kv_b)


@pytest.mark.parametrize(
    ("model", "seen_b", "weights_b", "known"),
    [
        pytest.param({"config": config("llama-3.3-70b")}, None, None, True, id="counted"),
        pytest.param({"config": config("llama-3.3-70b")}, 5, 5, True, id="seen"),
        pytest.param(
            {"config": config("llama-3.3-70b", weights_b=10**9)}, None, 10**9, True, id="told"
        ),
        pytest.param({"config": config("llama-3.3-70b", weights_b=7)}, 5, 5, True, id="seen first"),
        pytest.param({"config": {"weights_b": 7}}, None, 7, False, id="told alone"),
        pytest.param({}, None, None, False, id="neither"),
    ],
)
def test_weights(model: dict[str, Any], seen_b: int | None, weights_b: int, known: bool) -> None:
    found = asked(ask_of(spec(model={**BARE, **model}), pool(), 1, weights_b=seen_b))
    assert found.weights_b == weights_b
    assert (found.model is not None) == known


@pytest.mark.parametrize(
    ("fields", "given_pool", "gpus", "memory_gib", "fixed"),
    [
        pytest.param({"engine": engine("llamacpp")}, pool(), 8, None, None, id="planned"),
        pytest.param(
            {"engine": engine("llamacpp"), "model": BARE}, pool(), 0, None, None, id="CPU"
        ),
        pytest.param({"engine": engine("custom")}, None, 0, None, None, id="no pool"),
        pytest.param(
            {"engine": engine("custom"), "model": BARE, "template": template(memory="4Gi")},
            pool(),
            0,
            4,
            None,
            id="CPU with a limit",
        ),
        pytest.param(
            {
                "engine": engine("custom"),
                "model": BARE,
                "template": template(**{"nvidia.com/gpu": 2}),
            },
            pool(),
            8,
            None,
            2,
            id="the template's GPUs",
        ),
        pytest.param(
            {"engine": engine("llamacpp"), "layout": {"mode": "Fixed", "tensor": 4}},
            pool(),
            8,
            None,
            4,
            id="fixed",
        ),
        pytest.param(
            {"engine": engine("llamacpp"), "profile": "Edge", "template": template(memory="8Gi")},
            None,
            0,
            8,
            None,
            id="Edge",
        ),
        pytest.param(
            {"template": template(**{"nvidia.com/gpu": 2})}, pool(), 8, None, None, id="vllm plans"
        ),
    ],
)
def test_engines_that_nobody_plans(
    fields: dict[str, Any],
    given_pool: NodePool | None,
    gpus: int,
    memory_gib: int | None,
    fixed: int | None,
) -> None:
    found = asked(ask_of(spec(**fields), given_pool, 3))
    assert found.gpus_per_blade == gpus
    assert found.ram_b == (None if memory_gib is None else memory_gib * GIB)
    assert (found.fixed and found.fixed.tensor) == fixed
    assert found.blades == (1 if fields.get("profile") == "Edge" else 3)


def test_the_template_says_how_much_memory_there_is() -> None:
    fields = {"engine": engine("llamacpp"), "profile": "Edge"}
    assert asked(ask_of(spec(**fields), None, 1, ram_b=9 * GIB)).ram_b == 9 * GIB
    limited = spec(**fields, template=template(memory="4Gi"))
    assert asked(ask_of(limited, None, 1, ram_b=9 * GIB)).ram_b == 4 * GIB


@pytest.mark.parametrize(
    ("fields", "given_pool", "message"),
    [
        pytest.param({}, None, "engine vllm must have a NodePool with GPUs (got none)", id="pool"),
        pytest.param(
            {},
            pool(product="Wonder-1"),
            "NodePool hall must say how much memory its GPUs have (got product Wonder-1 and no",
            id="unknown GPU",
        ),
        pytest.param(
            {"model": {**BARE, "config": {}}},
            pool(),
            "model.config must have num_hidden_layers (got no keys)",
            id="empty configuration",
        ),
        pytest.param(
            {"engine": engine("vllm", "--gpu-memory-utilization=2")},
            pool(),
            "--gpu-memory-utilization must be above 0 and at most 1 (got",
            id="more memory than there is",
        ),
        pytest.param(
            {"engine": engine("vllm", "--gpu-memory-utilization=nan")},
            pool(),
            "must be above 0 and at most 1",
            id="no number",
        ),
        pytest.param(
            {"engine": engine("custom"), "template": template(**{"nvidia.com/gpu": "two"})},
            pool(),
            "must be a Kubernetes quantity",
            id="no quantity",
        ),
    ],
)
def test_what_is_missing(fields: dict[str, Any], given_pool: NodePool | None, message: str) -> None:
    found = ask_of(spec(**fields), given_pool, 1)
    assert isinstance(found, Refusal)
    assert found.reason == "Misconfigured"
    assert message in found.message


def test_a_config_that_was_never_given_is_asked_for() -> None:
    found = plan_layout(asked(ask_of(spec(model=BARE), pool(), 1)))
    assert isinstance(found, Refusal)
    assert found.reason == "Misconfigured"
    assert "model.config must be given" in found.message
