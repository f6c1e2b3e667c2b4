"""Turn updates into JSON lines and back: what the child process says to the agent.

One line per update; an empty object is a beat: alive, nothing new.
"""

import json
from dataclasses import fields, is_dataclass
from typing import Any

from tramontane.health.device import (
    EccErrors,
    EccMode,
    Event,
    GpuFacts,
    GpuReading,
    Reading,
    RemappedRows,
    Unsupported,
    Update,
)

BEAT = b"{}\n"
_UNSUPPORTED = "unsupported"
_PARTS = {"ecc_mode": EccMode, "ecc_errors": EccErrors, "remapped_rows": RemappedRows}


def encode(update: Update) -> bytes:
    """Return one line for a reading or events; the child never says that it is unresponsive."""
    body: dict[str, Any] = {}
    if update.reading is not None:
        body["reading"] = _plain(update.reading)
    if update.events:
        body["events"] = [_plain(event) for event in update.events]
    return json.dumps(body, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> Update:
    """Return the update of one line.

    Raises:
        ValueError: the line is not what `encode` writes.
    """
    try:
        body = json.loads(line)
        reading = body.get("reading")
        return Update(
            reading=None if reading is None else _reading(reading),
            events=tuple(Event(**event) for event in body.get("events", ())),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"probe: a line must be an update (got {line[:80]!r})") from error


def _plain(value: Any) -> Any:
    if isinstance(value, Unsupported):
        return {_UNSUPPORTED: value.error}
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: _plain(getattr(value, item.name)) for item in fields(value)}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _value(name: str, value: Any) -> Any:
    if isinstance(value, dict) and _UNSUPPORTED in value:
        return Unsupported(value[_UNSUPPORTED])
    return _PARTS[name](**value) if name in _PARTS else value


def _gpu(body: dict[str, Any]) -> GpuReading:
    facts = GpuFacts(**body.pop("facts"))
    unread = tuple(body.pop("unread"))
    values = {name: _value(name, value) for name, value in body.items()}
    return GpuReading(facts=facts, unread=unread, **values)


def _reading(body: dict[str, Any]) -> Reading:
    gpus = tuple(_gpu(gpu) for gpu in body.pop("gpus"))
    return Reading(gpus=gpus, **body)
