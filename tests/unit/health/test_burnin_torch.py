"""The torch backend on the processor; skipped where torch is not installed, as in CI.

What it does on a GPU is tried there too: a GPU's name is only a string, and the sums of bfloat16
matrices come from float32 ones.
"""

from types import SimpleNamespace
from typing import Any

import pytest

from tramontane.health.burnin.backend import Filling, Pattern
from tramontane.health.burnin.torch_backend import TorchBackend

torch: Any = pytest.importorskip("torch", reason="torch is not installed")


def test_a_product_is_compared_bit_for_bit() -> None:
    backend = TorchBackend(torch, "cpu")
    assert backend.devices() == ("cpu",)
    assert backend.multiply("cpu", 96, 1).wrong == 0
    expected = backend._on_device["cpu", 96, 1][2]
    expected[5, 7] = float("nan")
    product = backend.multiply("cpu", 96, 1)
    assert (product.wrong, product.evidence) == (1, "first at (5, 7)")


@pytest.mark.parametrize("filling", list(Filling), ids=lambda filling: filling.value)
def test_torch_writes_the_words_that_numpy_writes(filling: Filling) -> None:
    import numpy as np  # noqa: PLC0415 after the skip

    memory = TorchBackend(torch, "cpu").memory("cpu", 8000)
    memory.write(Pattern(filling, 77))
    assert np.array_equal(
        memory.words.numpy(), Pattern(filling, 77).words(np.arange(1000, dtype=np.int64))
    )
    assert memory.check(Pattern(filling, 77)).wrong == 0
    memory.words[130] ^= 1 << 5
    recall = memory.check(Pattern(filling, 77))
    assert (recall.wrong, recall.evidence) == (1, "at byte 0x410, bits 0x20")


def test_a_copy_is_compared() -> None:
    assert TorchBackend(torch, "cpu").copy(None, "cpu", 1 << 16).wrong == 0


def test_a_copy_in_the_memory_of_a_device_is_compared() -> None:
    assert TorchBackend(torch, "cpu").copy("cpu", "cpu", 1 << 16).wrong == 0


def test_a_product_that_is_not_written_is_not_the_one_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backend = TorchBackend(torch, "cpu")
    assert backend.multiply("cpu", 96, 1).wrong == 0
    monkeypatch.setattr(torch, "mm", lambda *_, out: out)
    assert backend.multiply("cpu", 96, 1).wrong == 96**2


class Cuda:
    """torch as it is with GPUs; `flip` is changed in one float32 sum, `new` is 2.8 or later."""

    def __init__(self, *, new: bool = True) -> None:
        self.new = new
        self.flip = 0
        self.cuda = SimpleNamespace(synchronize=lambda _: None)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def mm(self, left: Any, right: Any, *, out: Any, out_dtype: Any = None) -> None:
        if out_dtype is not None and not self.new:
            raise TypeError("mm() received an invalid combination of arguments")
        sums = left.float() @ right.float()
        sums.view(torch.int32)[5, 7] ^= self.flip
        assert out.dtype == (out_dtype or left.dtype)
        out.copy_(sums)


@pytest.mark.parametrize(
    ("new", "flip", "wrong"),
    [
        pytest.param(True, 0, 0, id="right"),
        pytest.param(True, 1, 1, id="the last bit"),
        pytest.param(True, 1 << 30, 1, id="the first bit"),
        pytest.param(False, 0, 0, id="right, before torch 2.8"),
        pytest.param(False, 1 << 30, 1, id="the first bit, before torch 2.8"),
    ],
)
def test_one_bit_of_a_sum_on_a_gpu_is_seen(*, new: bool, flip: int, wrong: int) -> None:
    cuda = Cuda(new=new)
    backend = TorchBackend(cuda, "cuda")
    assert backend.multiply("cpu", 96, 1).wrong == 0
    cuda.flip = flip
    assert backend.multiply("cpu", 96, 1).wrong == wrong
