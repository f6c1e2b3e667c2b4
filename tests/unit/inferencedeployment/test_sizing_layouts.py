"""What a layout must divide, which layouts there are, what lies on each GPU."""

from dataclasses import replace

import pytest

from tramontane.controllers.inferencedeployment.layout import Layout
from tramontane.controllers.inferencedeployment.sizing.gpus import gpu_of
from tramontane.controllers.inferencedeployment.sizing.layouts import candidates, problem_of
from tramontane.controllers.inferencedeployment.sizing.memory import (
    kv_on_gpu,
    token_floor_b,
    weights_on_gpu,
)
from unit.inferencedeployment.sizes import GIB, model

DENSE, MOE, LATENT = "llama-3.3-70b", "qwen3-235b-a22b-fp8", "mistral-large-3-fp8"


@pytest.mark.parametrize(
    ("name", "layout", "problem"),
    [
        pytest.param(DENSE, Layout(tensor=8), None, id="divides"),
        pytest.param(DENSE, Layout(tensor=16, nodes=2), None, id="a multiple of the KV heads"),
        pytest.param(DENSE, Layout(tensor=3), "64 attention heads (got 3)", id="heads"),
        pytest.param("mixtral-8x22b", Layout(tensor=6), "8 KV heads", id="KV heads"),
        pytest.param(DENSE, Layout(tensor=128), "64 attention heads", id="more than heads"),
        pytest.param(DENSE, Layout(pipeline=81), "at most the model's 80 layers", id="layers"),
        pytest.param(DENSE, Layout(expert=True), "without experts", id="no experts"),
        pytest.param(DENSE, Layout(data=3), None, id="copies of a dense model"),
        pytest.param(MOE, Layout(tensor=8), "multiples of 128", id="block of the quantization"),
        pytest.param(MOE, Layout(tensor=8, expert=True), None, id="whole experts instead"),
        pytest.param(LATENT, Layout(data=16, expert=True, nodes=2), None, id="experts"),
        pytest.param(LATENT, Layout(data=24, expert=True, nodes=3), "128 experts", id="24 ranks"),
        pytest.param(LATENT, Layout(tensor=16, nodes=2), None, id="MLA has no KV heads"),
    ],
)
def test_what_must_divide(name: str, layout: Layout, problem: str | None) -> None:
    found = problem_of(model(name), layout)
    assert (found is None) == (problem is None), found
    assert (problem or "") in (found or "")


def test_the_vocabulary_counts_with_its_padding() -> None:
    odd = replace(model(DENSE), vocabulary=128_001)
    assert problem_of(odd, Layout(tensor=8)) is None
    heads = replace(odd, heads=60, kv_heads=60, kv_values=60 * 256, widths=(600,))
    assert problem_of(heads, Layout(tensor=5)) == (
        "tensor must divide the model's padded vocabulary of 128064 (got 5)"
    )


@pytest.mark.parametrize(
    ("name", "gpus", "blades", "expected"),
    [
        pytest.param(DENSE, 8, 1, ["TP1", "TP2", "TP4", "TP8"], id="one blade"),
        pytest.param(
            DENSE, 4, 3, ["TP1", "TP2", "TP4", "TP4xPP2", "TP4xPP3"], id="pipeline over blades"
        ),
        pytest.param(
            MOE, 8, 2, ["TP1", "TP2", "TP4", "TP8+EP", "TP8xPP2+EP"], id="experts kept whole"
        ),
        pytest.param(
            LATENT,
            4,
            1,
            ["TP1", "TP2", "TP1xDP2+EP", "TP4", "TP2xDP2+EP", "TP1xDP4+EP"],
            id="a cache per rank",
        ),
    ],
)
def test_candidates(name: str, gpus: int, blades: int, expected: list[str]) -> None:
    assert [str(layout) for layout in candidates(model(name), gpus, blades)] == expected


def test_a_pipeline_within_a_blade_where_tensor_cannot_fill_it() -> None:
    four = replace(model(DENSE), heads=28, kv_heads=4, kv_values=4 * 256)
    found = [str(layout) for layout in candidates(four, 8, 2)]
    assert found == ["TP1", "TP2", "TP4", "TP4xPP2", "TP4xPP4"]


@pytest.mark.parametrize(
    ("name", "layout", "weights_gib"),
    [
        pytest.param(DENSE, Layout(tensor=4), 131.4 / 4, id="tensor"),
        pytest.param(DENSE, Layout(tensor=4, data=2), 131.4 / 4, id="copies"),
        pytest.param(LATENT, Layout(tensor=8), 633.6 / 8, id="experts sliced"),
        pytest.param(LATENT, Layout(data=8, expert=True), 24.6 + 609.0 / 8, id="experts spread"),
        pytest.param(LATENT, Layout(data=8), 24.6 + 609.0 / 8, id="experts sliced over data"),
        pytest.param(
            LATENT, Layout(tensor=8, pipeline=2, nodes=2), 40.5, id="the stage with 31 of 61"
        ),
    ],
)
def test_weights_on_the_fullest_gpu(name: str, layout: Layout, weights_gib: float) -> None:
    assert weights_on_gpu(model(name), layout) / GIB == pytest.approx(weights_gib, rel=0.005)


@pytest.mark.parametrize(
    ("name", "layout", "kib"),
    [
        pytest.param(DENSE, Layout(tensor=4), 80, id="heads are divided"),
        pytest.param(DENSE, Layout(tensor=16), 40, id="down to one each"),
        pytest.param(DENSE, Layout(tensor=8, pipeline=2), 20, id="and the layers"),
        pytest.param(LATENT, Layout(tensor=8), 68.625, id="a latent is whole on each rank"),
        pytest.param(
            LATENT, Layout(tensor=8, pipeline=2), 31 * 576 * 2 / 1024, id="but not layers"
        ),
        pytest.param(LATENT, Layout(data=8, expert=True), 68.625, id="each rank has its own"),
    ],
)
def test_kv_per_token(name: str, layout: Layout, kib: float) -> None:
    assert kv_on_gpu(model(name), layout) / 1024 == kib


@pytest.mark.parametrize(
    ("layout", "part"),
    [
        pytest.param(Layout(), 1.0, id="one GPU"),
        pytest.param(Layout(tensor=4), 0.25, id="tensor ranks read together"),
        pytest.param(Layout(tensor=4, pipeline=2), 0.25, id="stages take turns"),
    ],
)
def test_what_is_read_for_a_token(layout: Layout, part: float) -> None:
    one = model(DENSE)
    assert token_floor_b(one, layout) == (one.body_b + one.output_b) * part


def test_only_active_experts_are_read() -> None:
    one = model(LATENT)
    alone = token_floor_b(one, Layout())
    assert alone < 0.08 * one.weights_b
    spread = token_floor_b(one, Layout(data=32, expert=True, nodes=4))
    assert alone - spread == pytest.approx(one.expert_b * 4 / 128 * 3 / 4, rel=1e-6)


@pytest.mark.parametrize(
    ("product", "memory_gib", "name", "mib"),
    [
        pytest.param("NVIDIA-H200", 141, "H200", 143_771, id="by name"),
        pytest.param("NVIDIA-H100-80GB-HBM3", None, "H100", 81_559, id="a long name"),
        pytest.param("NVIDIA-H100-NVL", 80, "H100-NVL", 95_830, id="the narrower name"),
        pytest.param("NVIDIA B200", None, "B200", 183_359, id="with spaces"),
        pytest.param(None, 141, "H200", 143_771, id="by memory"),
        pytest.param("NVIDIA-GB200", 186, "NVIDIA-GB200", 186 * 1024, id="another of like name"),
        pytest.param("NVIDIA-H200", None, "H200", 143_771, id="nothing promised"),
        pytest.param(None, 100, "GPU", 100 * 1024, id="neither"),
    ],
)
def test_gpus(product: str | None, memory_gib: int | None, name: str, mib: int) -> None:
    found = gpu_of(product, None if memory_gib is None else memory_gib * GIB)
    assert found is not None
    assert (found.name, found.memory_b >> 20) == (name, mib)
    assert (found.bandwidth_b > 0) == (name in {"H100", "H100-NVL", "H200", "B200"})


def test_a_gpu_of_which_nothing_is_known() -> None:
    assert gpu_of("Wonder-1", None) is None
    assert gpu_of(None, None) is None
