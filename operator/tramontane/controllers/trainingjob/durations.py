"""Read a spec's durations; the same few strings are read at each reconcile."""

from functools import lru_cache

from tramontane.api.quantity import parse_duration


@lru_cache(maxsize=1024)
def seconds(text: str) -> float:
    """Return the seconds of a Go duration; raises as `parse_duration` does."""
    return parse_duration(text)
