"""The worked numbers of the sizing reference: KV tokens of a replica, model by model.

They are estimates at u = 0.90 with a KV cache of 16 bits. The same formula is behind them, but with
published weights rather than counted ones, and stages of a pipeline taken as even.
"""

import pytest

from tramontane.controllers.inferencedeployment.layout import Layout
from tramontane.controllers.inferencedeployment.sizing.gpus import KINDS
from tramontane.controllers.inferencedeployment.sizing.memory import gpu_share
from unit.inferencedeployment.sizes import GIB, model

K, M = 10**3, 10**6


def tp(tensor: int, pipeline: int = 1) -> Layout:
    return Layout(tensor=tensor, pipeline=pipeline, nodes=-(-tensor * pipeline // 8))


def ep(data: int) -> Layout:
    return Layout(data=data, expert=True, nodes=-(-data // 8))


WORKED = [
    ("ministral-3-3b-fp8", "h100", tp(1), 653 * K),
    ("ministral-3-3b-fp8", "h200", tp(1), 1.2 * M),
    ("ministral-3-3b-fp8", "b200", tp(1), 1.55 * M),
    ("ministral-3-3b-fp8", "b300", tp(1), 2.4 * M),
    ("ministral-3-8b-fp8", "h100", tp(1), 455 * K),
    ("ministral-3-8b-fp8", "h200", tp(1), 876 * K),
    ("ministral-3-8b-fp8", "b200", tp(1), 1.14 * M),
    ("ministral-3-8b-fp8", "b300", tp(1), 1.77 * M),
    ("ministral-3-14b-fp8", "h100", tp(1), 352 * K),
    ("ministral-3-14b-fp8", "h200", tp(1), 710 * K),
    ("ministral-3-14b-fp8", "b200", tp(1), 938 * K),
    ("ministral-3-14b-fp8", "b300", tp(1), 1.47 * M),
    ("mixtral-8x7b", "h100", tp(2), 374 * K),
    ("mixtral-8x7b", "h200", tp(1), 253 * K),
    ("mixtral-8x7b", "b200", tp(1), 538 * K),
    ("mixtral-8x7b", "b300", tp(1), 1.2 * M),
    ("mixtral-8x22b", "h100", tp(8), 1.29 * M),
    ("mixtral-8x22b", "h200", tp(4), 1.0 * M),
    ("mixtral-8x22b", "b200", tp(2), 174 * K),
    ("mixtral-8x22b", "b200", tp(4), 1.66 * M),
    ("mixtral-8x22b", "b300", tp(2), 929 * K),
    ("llama-3.3-70b", "h100", tp(2), 0),
    ("llama-3.3-70b", "h100", tp(4), 448 * K),
    ("llama-3.3-70b", "h200", tp(2), 352 * K),
    ("llama-3.3-70b", "b200", tp(1), 59 * K),
    ("llama-3.3-70b", "b200", tp(2), 580 * K),
    ("llama-3.3-70b", "b300", tp(1), 323 * K),
    ("llama-3.3-70b-fp8", "h100", tp(2), 217 * K),
    ("llama-3.3-70b-fp8", "h200", tp(1), 169 * K),
    ("llama-3.3-70b-fp8", "b200", tp(1), 283 * K),
    ("llama-3.3-70b-fp8", "b300", tp(1), 547 * K),
    ("mistral-small-4-119b-fp8", "h100", tp(2), 423 * K),
    ("mistral-small-4-119b-fp8", "h100", tp(4), 1.83 * M),
    ("mistral-small-4-119b-fp8", "h200", tp(2), 2.97 * M),
    ("mistral-small-4-119b-fp8", "b200", tp(1), 1.78 * M),
    ("mistral-small-4-119b-fp8", "b300", tp(1), 5.5 * M),
    ("mistral-medium-3.5-128b-fp8", "h100", tp(4), 430 * K),
    ("mistral-medium-3.5-128b-fp8", "h200", tp(2), 342 * K),
    ("mistral-medium-3.5-128b-fp8", "b200", tp(2), 549 * K),
    ("mistral-medium-3.5-128b-fp8", "b300", tp(1), 316 * K),
    ("mistral-large-3-fp8", "h100", tp(16), 411 * K),
    ("mistral-large-3-fp8", "h100", tp(8, 2), 822 * K),
    ("mistral-large-3-fp8", "h100", ep(32), 12 * M),
    ("mistral-large-3-fp8", "h200", tp(8), 597 * K),
    ("mistral-large-3-fp8", "h200", ep(8), 2.2 * M),
    ("mistral-large-3-fp8", "b200", tp(8), 1.13 * M),
    ("mistral-large-3-fp8", "b200", ep(8), 6.5 * M),
    ("mistral-large-3-fp8", "b300", tp(4), 1.06 * M),
    ("mistral-large-3-fp8", "b300", tp(8), 2.36 * M),
    ("mistral-large-3-nvfp4", "h100", tp(8), 329 * K),
    ("mistral-large-3-nvfp4", "h200", tp(4), 433 * K),
    ("mistral-large-3-nvfp4", "b200", tp(4), 964 * K),
    ("mistral-large-3-nvfp4", "b300", tp(2), 733 * K),
]
# Where the weights nearly fill the GPU the difference is small, and an error of 1 % in the weights
# is large in it: 16.6k became "16k", and with 62.7 GiB on each GPU, 2.3 GiB are left where the
# table, whose weights beside the experts are 2 GiB fewer, has 4.5.
COARSE = [
    ("mistral-medium-3.5-128b-fp8", "h100", tp(2), 16 * K, 0.25),
    ("mistral-large-3-fp8", "h100", ep(16), 1.1 * M, 0.55),
]
EXACT = 0.02
# The table's weights of this one are an estimate: 358 GiB where 360 are counted.
ESTIMATED = 0.03
UNEVEN = 0.05
ORDER = 0.15


def tokens(name: str, gpu: str, layout: Layout) -> int:
    share = gpu_share(model(name), layout, KINDS[gpu].memory_b, 0.90)
    return share.rank_tokens * layout.data


@pytest.mark.parametrize(("name", "gpu", "layout", "expected"), WORKED, ids=str)
def test_kv_tokens(name: str, gpu: str, layout: Layout, expected: float) -> None:
    rel = EXACT
    if layout.expert:
        rel = ORDER
    elif layout.pipeline > 1:
        rel = UNEVEN
    elif name.endswith("nvfp4"):
        rel = ESTIMATED
    assert tokens(name, gpu, layout) == pytest.approx(expected, rel=rel)


@pytest.mark.parametrize(("name", "gpu", "layout", "expected", "rel"), COARSE, ids=str)
def test_kv_tokens_where_little_is_left(
    name: str, gpu: str, layout: Layout, expected: float, rel: float
) -> None:
    assert tokens(name, gpu, layout) == pytest.approx(expected, rel=rel)


def test_what_an_engine_reported() -> None:
    """Source: kaito#2132, two H100-NVL at u = 0.84: 17.39 GiB free, 22.5 GiB for 1,048,576."""
    share = gpu_share(model("mistral-small-4-119b-fp8"), tp(2), KINDS["h100-nvl"].memory_b, 0.84)
    assert share.free_b / GIB == pytest.approx(17.39, rel=0.10)
    assert share.kv_token_b == 23_040
    assert share.kv_token_b * 1_048_576 == 22.5 * GIB
