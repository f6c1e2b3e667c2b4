"""Read Kubernetes quantities, Go durations and percentages.

The patterns are the ones that the CRDs carry, so that the API server and these functions refuse
the same strings. They use only what RE2, Rust's regex and Python's `re` have in common.
"""

import re
from decimal import Decimal
from fractions import Fraction
from typing import Final

from tramontane.api.errors import InvalidValue

QUANTITY_PATTERN: Final = r"^[0-9]+(\.[0-9]+)?([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]{1,2})?$"
DURATION_PATTERN: Final = r"^([0-9]+(\.[0-9]+)?(ns|us|ms|s|m|h))+$"
DURATION_OR_AUTO_PATTERN: Final = r"^(auto|([0-9]+(\.[0-9]+)?(ns|us|ms|s|m|h))+)$"
PERCENT_PATTERN: Final = r"^(100(\.0+)?|[0-9]{1,2}(\.[0-9]+)?)%$"
INT_OR_PERCENT_PATTERN: Final = r"^([0-9]{1,9}|(100(\.0+)?|[0-9]{1,2}(\.[0-9]+)?)%)$"

_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]{1,2})?")
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ns|us|ms|s|m|h)")
_SUFFIX: Final[dict[str, Fraction]] = {
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 1000),
    **{suffix: Fraction(1000 ** (i + 1)) for i, suffix in enumerate("kMGTPE")},
    **{f"{suffix}i": Fraction(1024 ** (i + 1)) for i, suffix in enumerate("KMGTPE")},
}
_UNIT_S: Final[dict[str, Fraction]] = {
    "ns": Fraction(1, 10**9),
    "us": Fraction(1, 10**6),
    "ms": Fraction(1, 1000),
    "s": Fraction(1),
    "m": Fraction(60),
    "h": Fraction(3600),
}


def parse_quantity(text: str | int) -> Fraction | int:
    """Return the exact value of a Kubernetes quantity: an int where it is whole.

    `"512Gi"` → 549755813888, `"64"` → 64, `"250m"` → Fraction(1, 4), `"1e3"` → 1000.

    Raises:
        InvalidValue: negative, or no quantity.
    """
    match = _QUANTITY.fullmatch(str(text))
    if match is None:
        raise InvalidValue("must be a Kubernetes quantity", text, "write it as 8, 500m or 141Gi")
    number, suffix = match.groups()
    if suffix is None:
        scale = Fraction(1)
    elif suffix in _SUFFIX:
        scale = _SUFFIX[suffix]
    else:
        scale = Fraction(10) ** int(suffix[1:])
    value = Fraction(number) * scale
    return value.numerator if value.denominator == 1 else value


def parse_duration(text: str) -> float:
    """Return the seconds of a Go duration: `"1h30m"` → 5400.0, `"250ms"` → 0.25.

    Raises:
        InvalidValue: negative, without a unit, or no duration.
    """
    if re.fullmatch(DURATION_PATTERN, text) is None:
        raise InvalidValue("must be a duration", text, "write it as 90s, 10m or 1h30m")
    parts = (Fraction(number) * _UNIT_S[unit] for number, unit in _DURATION.findall(text))
    return float(sum(parts, Fraction(0)))


def format_duration(seconds: float) -> str:
    """Return the shortest Go duration of `seconds`, exact to the millisecond.

    5400 → `1h30m`, 90 → `1m30s`, 5.1 → `5.1s`, 0.25 → `250ms`, 0 → `0s`.

    Raises:
        InvalidValue: negative.
    """
    if seconds < 0:
        raise InvalidValue("must be a duration of at least 0s", seconds)
    total_ms = round(seconds * 1000)
    if 0 < total_ms < 1000:  # noqa: PLR2004 - a second
        return f"{total_ms}ms"
    minutes, ms = divmod(total_ms, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = (f"{hours}h" if hours else "") + (f"{minutes}m" if minutes else "")
    if ms or not text:
        text += f"{(Decimal(ms) / 1000).normalize():f}s"
    return text


def of_percent(value: str | int, total: int, *, at_least: int = 0) -> int:
    """Return how many of `total` a number or a percentage means; a percentage is rounded down.

    `("10%", 64)` → 6, `(4, 64)` → 4, `("4", 64)` → 4. With `at_least=1` a small pool's
    percentage does not become nothing: `("10%", 8)` → 1. Never more than `total`.

    Raises:
        InvalidValue: negative, above 100%, or neither a number nor a percentage.
    """
    if re.fullmatch(INT_OR_PERCENT_PATTERN, str(value)) is None:
        raise InvalidValue('must be a number or a percentage up to "100%"', value)
    text = str(value)
    count = int(Fraction(text[:-1]) * total / 100) if text.endswith("%") else int(text)
    return min(max(count, at_least), total)
