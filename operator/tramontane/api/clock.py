"""Turn seconds since the epoch into the API's timestamps and back.

Pure functions of a time that the caller passes in: nothing here reads a clock.
"""

from datetime import UTC, datetime

from tramontane.api.errors import InvalidValue


def utc(ts: float) -> str:
    """Return `ts` (Unix seconds) as RFC 3339 in UTC, whole seconds: `2026-11-24T15:02:07Z`.

    Fractions are cut off, so that a time is never shown before it has come.
    """
    return datetime.fromtimestamp(int(ts // 1), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def micro(ts: float) -> str:
    """Return `ts` (Unix seconds) as a Lease's MicroTime: `2026-11-24T15:02:07.250000Z`."""
    return datetime.fromtimestamp(ts, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse(text: str) -> float:
    """Return the Unix seconds of an RFC 3339 timestamp, with or without fractions.

    Raises:
        InvalidValue: `text` is no timestamp, or names no time zone.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise InvalidValue(
            "must be an RFC 3339 timestamp with a time zone",
            text,
            "write it as 2026-12-01T00:00:00Z",
        )
    return moment.timestamp()
