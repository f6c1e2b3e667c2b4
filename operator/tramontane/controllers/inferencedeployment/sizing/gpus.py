"""Know what GPUs have: memory as the driver counts it, and how fast it is read.

The names are NVML's, as NodePool.spec.gpu.product has them. What is not listed is taken by the
memory that the pool promises.
"""

from dataclasses import dataclass
from typing import Final

_MIB: Final = 1 << 20
# A promise of 141Gi means the GPU of 140.4.
_NEAR: Final = 0.03


@dataclass(frozen=True, slots=True)
class GpuKind:
    """Hold one kind of GPU.

    Attributes:
        words: all of them are in the product's name, between dashes.
        bandwidth_b: bytes per second that its memory delivers; 0 where it is not known.
    """

    name: str
    words: tuple[str, ...]
    memory_b: int
    bandwidth_b: int


def _kind(name: str, words: str, memory_mib: int, bandwidth_gb: int) -> GpuKind:
    return GpuKind(name, tuple(words.split()), memory_mib * _MIB, bandwidth_gb * 10**9)


# Those with more words first. Source: memory.total of the driver, vendor's data sheets; that of
# the B300 is not verified.
_KINDS: Final = (
    _kind("H100-NVL", "H100 NVL", 95_830, 3_900),
    _kind("H100-PCIe", "H100 PCIE", 81_559, 2_000),
    _kind("A100-80GB", "A100 80GB", 81_920, 2_039),
    _kind("A100-40GB", "A100 40GB", 40_960, 1_555),
    _kind("H100", "H100", 81_559, 3_350),
    _kind("H200", "H200", 143_771, 4_800),
    _kind("B200", "B200", 183_359, 8_000),
    _kind("B300", "B300", 275_040, 8_000),
    _kind("L40S", "L40S", 46_068, 864),
)
#: The kinds by the name that people call them.
KINDS: Final = {kind.name.lower(): kind for kind in _KINDS}
_BY_MEMORY: Final = tuple(KINDS[name] for name in ("h100", "h200", "b200", "b300"))


def gpu_of(product: str | None, memory_b: int | None) -> GpuKind | None:
    """Return what is known of a pool's GPUs; None where not even their memory is.

    | product | memory | taken |
    |---|---|---|
    | known | any | that kind's memory and bandwidth |
    | absent | within 3 % of an H100, H200, B200 or B300 | that kind's |
    | unknown, or absent | other | the promised memory, no bandwidth |
    | unknown, or absent | absent | None |
    """
    words = set((product or "").upper().replace(" ", "-").split("-"))
    for kind in _KINDS:
        if words.issuperset(kind.words):
            return kind
    if not memory_b:
        return None
    for kind in _BY_MEMORY:
        if product is None and abs(memory_b - kind.memory_b) <= _NEAR * kind.memory_b:
            return kind
    return GpuKind(product or "GPU", (), memory_b, 0)
