"""Read the command lines of the active checks: what is wrong with one is said as an outcome."""

import argparse
import re
from typing import NoReturn

_UNITS_S = {"": 1, "s": 1, "m": 60, "h": 3600}


class UsageError(Exception):
    """Say what is wrong with the command line."""


class Parser(argparse.ArgumentParser):
    """A parser that says its errors where all outcomes are said, with exit code 3."""

    def error(self, message: str) -> NoReturn:
        """Raise what is wrong instead of leaving."""
        raise UsageError(message)


def seconds(text: str) -> float:
    """Return a time such as 90, 90s, 30m or 1h in seconds."""
    if (match := re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)) is None:
        raise argparse.ArgumentTypeError(f"must be a time such as 90s or 30m (got {text!r})")
    return float(match[1]) * _UNITS_S[match[2]]


def positive(text: str) -> float:
    """Return a number above zero."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number above 0 (got {text!r})")
    return value


def mebibytes(text: str) -> int:
    """Return a number of MiB in bytes."""
    return max(int(positive(text) * (1 << 20)) // 8 * 8, 8)


def count(text: str) -> int:
    """Return a whole number above zero."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number above 0 (got {text!r})")
    return int(text)
