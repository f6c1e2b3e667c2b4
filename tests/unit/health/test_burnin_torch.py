"""The torch backend on the processor; skipped where torch is not installed, as in CI."""

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
