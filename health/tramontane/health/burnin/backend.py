"""Say what the burn-in needs of a machine: products, memory, copies. Frozen values, a Protocol.

The matrices hold whole numbers that are small enough for every partial sum to be exact in the
24 bits of a float32 significand. Then the order of summation, which differs between devices,
libraries and numbers of threads, cannot change the result: two products of the same seed are
equal bit for bit, or hardware has computed wrongly. The same holds after the one rounding to
bfloat16.

The memory patterns are written as one function of the word's index, in operators only, so that
numpy arrays and torch tensors compute the same words.
"""

from dataclasses import dataclass
from enum import Enum
from math import isqrt
from typing import Any, Protocol

# The whole numbers up to this are exact in float32.
_EXACT = 2**24
# The whole numbers up to this are exact in bfloat16 (8 bits of significand).
_LARGEST_ENTRY = 127
WORD_BYTES = 8
_WORD_BITS = 64
# An odd multiplier spreads an index over all 64 bits.
# Source: Steele and others, "Fast splittable pseudorandom number generators" (2014), as int64.
_SPREAD = 0x9E3779B97F4A7C15 - 2**64
_MIX = 0xBF58476D1CE4E5B9 - 2**64


class DeviceFaultError(Exception):
    """Say that the hardware itself reported a fault: a FAIL, where any other error is not."""


class Filling(Enum):
    """Name the memory patterns. Source: memtest86's tests 0 to 6, the same families."""

    WALKING_ONE = "walking one"
    WALKING_ZERO = "walking zero"
    ADDRESS = "address in address"
    ADDRESS_INVERTED = "address inverted"
    RANDOM = "random"


@dataclass(frozen=True, slots=True)
class Pattern:
    """A filling of memory; `turn` moves the walking bit and seeds the random words."""

    filling: Filling
    turn: int = 0

    def __str__(self) -> str:
        """Return the name for people."""
        return f"{self.filling.value}, turn {self.turn}"

    def words(self, index: Any) -> Any:
        """Return the words at `index`, an int64 array or tensor; of the same type."""
        match self.filling:
            case Filling.WALKING_ONE:
                return 1 << ((index + self.turn) % _WORD_BITS)
            case Filling.WALKING_ZERO:
                return ~(1 << ((index + self.turn) % _WORD_BITS))
            case Filling.ADDRESS:
                return index * WORD_BYTES
            case Filling.ADDRESS_INVERTED:
                return ~(index * WORD_BYTES)
            case Filling.RANDOM:
                mixed = (index + (self.turn + 1) * 0x632BE5AB) * _SPREAD
                mixed = (mixed ^ (mixed >> 30)) * _MIX
                return mixed ^ (mixed >> 27)


@dataclass(frozen=True, slots=True)
class Product:
    """A product that was computed: how long it took and how many elements are not as expected."""

    elapsed_s: float
    wrong: int = 0
    evidence: str = ""


@dataclass(frozen=True, slots=True)
class Recall:
    """What memory gave back: wrong words, and the first of them."""

    wrong: int = 0
    evidence: str = ""


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy that was made: how long it took and how many bytes arrived changed."""

    elapsed_s: float
    wrong: int = 0


class Memory(Protocol):
    """A piece of one device's memory."""

    size_bytes: int

    def write(self, pattern: Pattern) -> None:
        """Fill all of it."""
        ...

    def check(self, pattern: Pattern) -> Recall:
        """Read all of it and compare."""
        ...


class Backend(Protocol):
    """What the burn-in needs. Every call waits until the device is done.

    Different devices are called from different threads at once; one device from one thread.

    Attributes:
        patience_s: a device that answers no call for so long hangs; None: it is the processor,
            and whoever would notice hangs with it.

    Raises:
        DeviceFaultError: the hardware says of itself that it is broken.
    """

    name: str
    patience_s: float | None

    def devices(self) -> tuple[str, ...]:
        """Return the names of the devices, in order."""
        ...

    def prepare(self, size: int, seed: int) -> None:
        """Make the matrices of `seed` and their product on the host: no device is asked."""
        ...

    def multiply(self, device: str, size: int, seed: int) -> Product:
        """Return how the product of the two matrices of `seed` went, compared bit for bit."""
        ...

    def memory(self, device: str, size_bytes: int | None) -> Memory:
        """Take this much memory, or most of what is free.

        Raises:
            LookupError: the size was left open, and too little is free to say anything.
        """
        ...

    def copy(self, source: str | None, target: str | None, size_bytes: int) -> Copy:
        """Copy known bytes and look at them where they arrived; None is the host.

        From a device to itself the copy is one in its memory.
        """
        ...


def largest_entry(size: int) -> int:
    """Return the largest entry of matrices of `size` whose products' sums are exact.

    Raises:
        ValueError: no entry but zero would do.
    """
    if not 1 <= size <= _EXACT:
        raise ValueError(f"size: must be between 1 and {_EXACT} (got {size})")
    return min(_LARGEST_ENTRY, isqrt(_EXACT // size))


def product_flops(size: int) -> float:
    """Return the floating-point operations of one product."""
    return 2.0 * size**3
