"""The backends compute exactly, and see one bit that is wrong."""

import os
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tramontane.health.burnin import command, numpy_backend, torch_backend
from tramontane.health.burnin.backend import (
    DeviceFaultError,
    Filling,
    Pattern,
    largest_entry,
)
from tramontane.health.burnin.numpy_backend import NumpyBackend, matrices
from tramontane.health.burnin.outcome import Speaker, Verdict
from tramontane.health.burnin.torch_backend import (
    find_torch,
    hardware_faults,
    has_cuda,
    most_of,
)

INDEX = np.arange(1000, dtype=np.int64)
GIB = 1 << 30


@pytest.mark.parametrize("size", [1, 2, 1024, 8192, 2**24], ids=str)
def test_no_sum_is_too_large_for_float32(size: int) -> None:
    assert 1 <= largest_entry(size) <= 127
    assert size * largest_entry(size) ** 2 <= 2**24


@pytest.mark.parametrize("size", [0, 2**24 + 1], ids=str)
def test_a_size_without_exact_sums_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"got {size}"):
        largest_entry(size)


def test_products_are_exact_in_any_order_of_summation() -> None:
    left, right = matrices(200, seed=3)
    exact = left.astype(np.int64) @ right.astype(np.int64)
    order = np.random.Generator(np.random.PCG64(0)).permutation(200)
    for product in (left @ right, left[:, order] @ right[order, :]):
        assert np.array_equal(product, exact)
    assert int(np.abs(left).max()) == 127


def test_a_seed_gives_the_same_matrices_everywhere() -> None:
    one, same, other = (matrices(16, seed)[0] for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    assert one[0, :4].tolist() == [-7.0, 3.0, 65.0, 115.0]


def test_the_numpy_backend_multiplies_as_expected() -> None:
    backend = NumpyBackend()
    for _ in range(2):
        product = backend.multiply("cpu", 64, 1)
        assert (product.wrong, product.evidence) == (0, "")
        assert product.elapsed_s > 0


@pytest.mark.parametrize(
    "value", [pytest.param(1e-30, id="one bit"), pytest.param(np.nan, id="not a number")]
)
def test_one_wrong_element_is_seen(value: float) -> None:
    backend = NumpyBackend()
    backend.multiply("cpu", 64, 1)
    _, _, expected = backend._made[64, 1]
    expected[5, 7] = np.nextafter(expected[5, 7], np.float32(0)) if value == 1e-30 else value
    product = backend.multiply("cpu", 64, 1)
    assert (product.wrong, product.evidence) == (1, "first at (5, 7)")


def test_a_product_that_is_not_written_is_not_the_one_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backend = NumpyBackend()
    assert backend.multiply("cpu", 64, 1).wrong == 0
    monkeypatch.setattr(np, "matmul", lambda *_, out: out)
    assert backend.multiply("cpu", 64, 1).wrong == 64**2


@pytest.mark.parametrize("filling", list(Filling), ids=lambda filling: filling.value)
def test_a_pattern_is_kept_and_one_flipped_bit_is_seen(
    filling: Filling, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numpy_backend, "_CHUNK_WORDS", 100)
    memory = NumpyBackend().memory("cpu", 250 * 8)
    assert memory.size_bytes == 2000
    for turn in (0, 63, 200):
        memory.write(Pattern(filling, turn))
        assert memory.check(Pattern(filling, turn)).wrong == 0
    memory.words[130] ^= 1 << 5
    memory.words[240] ^= -(2**63)
    recall = memory.check(Pattern(filling, 200))
    assert (recall.wrong, recall.evidence) == (2, "at byte 0x410, bits 0x20")


@pytest.mark.parametrize("filling", [Filling.WALKING_ONE, Filling.WALKING_ZERO])
def test_the_bit_walks_through_the_word(filling: Filling) -> None:
    sign = 1 if filling is Filling.WALKING_ONE else -1
    seen = set()
    for turn in range(64):
        word = int(Pattern(filling, turn).words(INDEX[:1])[0])
        ones = (word & (2**64 - 1)).bit_count()
        assert ones == (1 if sign == 1 else 63)
        seen.add(word)
    assert len(seen) == 64


def test_an_address_is_in_one_place_only() -> None:
    for filling in (Filling.ADDRESS, Filling.ADDRESS_INVERTED, Filling.RANDOM):
        assert len(set(Pattern(filling).words(INDEX).tolist())) == len(INDEX)


def test_random_words_differ_by_turn_and_toggle_half_of_the_bits() -> None:
    one, two = (Pattern(Filling.RANDOM, turn).words(INDEX) for turn in (0, 1))
    assert not np.any(one == two)
    share = np.bitwise_count(one.view(np.uint64)).mean() / 64
    assert 0.48 < share < 0.52


@pytest.mark.parametrize("source", [None, "cpu"], ids=["from the host", "in its memory"])
def test_a_copy_is_compared_and_timed(source: str | None) -> None:
    copy = NumpyBackend().copy(source, "cpu", 1 << 16)
    assert copy.wrong == 0
    assert copy.elapsed_s > 0


def test_memory_is_256_mib_where_nothing_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numpy_backend, "DEFAULT_MEMORY_BYTES", 4096)
    assert NumpyBackend().memory("cpu", None).size_bytes == 4096


@pytest.mark.parametrize(
    ("free", "total", "taken"),
    [
        pytest.param(139 * GIB, 140 * GIB, 130, id="a large GPU"),
        pytest.param(70 * GIB, 140 * GIB, 64, id="half of it"),
        pytest.param(3 * GIB, 4 * GIB, 1, id="a small GPU"),
    ],
)
def test_patterns_take_most_of_a_gpu(free: int, total: int, taken: int) -> None:
    assert most_of("cuda:0", free, total) // GIB == taken


def test_a_gpu_whose_memory_something_else_holds_is_no_answer() -> None:
    problem = r"cuda:3: half of its 143360 MiB must be free \(got 1536 MiB\); end what holds them"
    with pytest.raises(LookupError, match=problem):
        most_of("cuda:3", 3 * GIB // 2, 140 * GIB)


@pytest.mark.parametrize(
    ("text", "raised"),
    [
        pytest.param(
            "CUDA error: uncorrectable ECC error encountered\nCompile with …",
            DeviceFaultError,
            id="memory",
        ),
        pytest.param(
            "CUDA error: uncorrectable NVLink error detected during the execution",
            DeviceFaultError,
            id="link",
        ),
        pytest.param("CUDA out of memory. Tried to allocate …", RuntimeError, id="out of memory"),
        pytest.param(
            "CUDA error: an illegal memory access was encountered", RuntimeError, id="a bug"
        ),
        pytest.param("No CUDA GPUs are available", RuntimeError, id="no GPU"),
    ],
)
def test_only_the_hardwares_own_word_is_an_answer(text: str, raised: type[Exception]) -> None:
    with pytest.raises(raised) as caught, hardware_faults():
        raise RuntimeError(text)
    assert type(caught.value) is raised
    assert "\n" not in str(caught.value) or raised is RuntimeError


def test_gpus_have_the_numbers_of_nvidia_smi(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "torch.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "torch", None)  # so that what is imported goes again
    del sys.modules["torch"]
    monkeypatch.setattr(os, "environ", {})
    assert find_torch() is not None
    assert os.environ == {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def test_a_torch_that_cannot_be_imported_is_not_taken_for_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "torch.py").write_text("import of_which_torch_is_made\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    with pytest.raises(ModuleNotFoundError, match="of_which_torch_is_made"):
        find_torch()


def torch_with(*, cuda: bool) -> SimpleNamespace:
    return SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: cuda))


def test_gpus_that_were_asked_for_must_be_usable() -> None:
    assert has_cuda(torch_with(cuda=True), asked=True)
    for torch in (None, torch_with(cuda=False)):
        with pytest.raises(LookupError, match=r"must be usable \(got .*torch"):
            has_cuda(torch, asked=True)


def test_a_gpu_that_hangs_the_start_of_cuda_is_no_error_of_the_checker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    over = threading.Event()
    torch = SimpleNamespace(cuda=SimpleNamespace(is_available=over.wait))
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setattr(torch_backend, "_PATIENCE_S", 0.01)
    outcome = command.work(["--backend=cuda"], Speaker("burnin"))
    over.set()
    assert outcome.verdict is Verdict.FAIL
    assert outcome.reason == "CUDA gives no answer for 0.01 s as it starts"


@pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="this machine has a GPU")
def test_without_gpus_the_processor_may_stand_in() -> None:
    assert not has_cuda(torch_with(cuda=False), asked=False)
    assert not has_cuda(None, asked=False)
