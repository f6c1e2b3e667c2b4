"""Turn updates into JSON lines and back: what the child process says to the agent.

One line per update; one with neither reading nor events is a beat: alive, nothing new. How a
value is written follows from its type hint in device.py, so a new field needs no change here:

| hint                              | written as                          |
|-----------------------------------|-------------------------------------|
| bool, int, float, str, Literal    | itself                              |
| frozen dataclass                  | list of its fields, in their order  |
| tuple[T, ...], tuple[A, B]        | list                                |
| Mapping[str, T]                   | object                              |
| T or Unsupported                  | T, or {"unsupported": error}        |
| T or None                         | T, or null                          |

Child and agent are started from one source, so fields need no names on the way. The converters
are made once; a field that needs none is copied as it is.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from tramontane.health import device
from tramontane.health.device import Event, Reading, Unsupported, Update
from tramontane.health.host import HostReading

_UNSUPPORTED = "unsupported"
_PLAIN = (bool, int, float, str, Any)

Convert = Callable[[Any], Any]


def encode(update: Update) -> bytes:
    """Return one line for a reading, events or neither; a child never says that it hangs."""
    body: dict[str, Any] = {}
    if update.took_s is not None:
        body["took"] = round(update.took_s, 6)
    if update.reading is not None:
        body["reading"] = _writer(Reading)(update.reading)
    if update.events:
        write = _writer(Event)
        body["events"] = [write(event) for event in update.events]
    return json.dumps(body, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> Update:
    """Return the update of one line.

    Raises:
        ValueError: the line is not what `encode` writes.
    """
    try:
        body = json.loads(line)
        reading = body.get("reading")
        read = _reader(Event)
        return Update(
            reading=None if reading is None else _reader(Reading)(reading),
            events=tuple(read(event) for event in body.get("events", ())),
            took_s=body.get("took"),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"probe: a line must be an update (got {line[:80]!r})") from error


def _hints(kind: type) -> list[tuple[str, Any]]:
    """Return a dataclass's fields with their types; host.py's names are known here only."""
    known = {**vars(device), HostReading.__name__: HostReading}
    hints = get_type_hints(kind, localns=known)
    return [(item.name, hints[item.name]) for item in fields(kind)]


def _alternatives(hint: Any) -> tuple[Any, bool, bool]:
    """Return a union's one real member, and whether it may be Unsupported or None instead."""
    members = get_args(hint) if get_origin(hint) in {Union, UnionType} else (hint,)
    real = [member for member in members if member not in {Unsupported, NoneType}]
    if len(real) != 1:
        raise TypeError(
            f"wire: a field must have one type beside Unsupported and None (got {hint})"
        )
    return real[0], Unsupported in members, NoneType in members


@cache
def _writer(kind: type) -> Convert:
    """Return what writes a dataclass."""
    parts = [(name, _write(hint)) for name, hint in _hints(kind)]

    def write(value: Any) -> list[Any]:
        return [
            item if (item := getattr(value, name)) is None or part is None else part(item)
            for name, part in parts
        ]

    return write


def _write(hint: Any) -> Convert | None:
    """Return what writes a value of a type; None where it goes as it is."""
    real, unsupported, _ = _alternatives(hint)
    part = _write_real(real)
    if not unsupported:
        return part

    def write(value: Any) -> Any:
        if type(value) is Unsupported:
            return {_UNSUPPORTED: value.error}
        return value if part is None else part(value)

    return write


def _write_real(hint: Any) -> Convert | None:
    origin = get_origin(hint)
    if hint in _PLAIN or origin is Literal:
        return None
    if is_dataclass(hint) and isinstance(hint, type):
        return _writer(hint)
    if origin is tuple:
        inner = _parts(hint, _write)
        if all(part is None for part in inner):
            return None
        one = inner[0]
        if _homogeneous(hint) and one is not None:
            return lambda value: [one(item) for item in value]
        return lambda value: [
            item if part is None else part(item) for part, item in zip(inner, value, strict=True)
        ]
    if _is_mapping(origin):
        part = _write(get_args(hint)[1])
        return lambda value: {k: v if part is None else part(v) for k, v in value.items()}
    raise TypeError(f"wire: a field's type must be one of the table above (got {hint})")


@cache
def _reader(kind: type) -> Convert:
    """Return what reads a dataclass."""
    parts = [_read(hint) for _, hint in _hints(kind)]
    size = len(parts)

    def read(value: Any) -> Any:
        if not isinstance(value, list) or len(value) != size:
            raise ValueError(f"{kind.__name__}: must have {size} fields (got {value!r})")
        return kind(
            *[
                item if item is None or part is None else part(item)
                for part, item in zip(parts, value, strict=True)
            ]
        )

    return read


def _read(hint: Any) -> Convert | None:
    """Return what reads a value of a type; None where it comes as it is."""
    real, unsupported, _ = _alternatives(hint)
    part = _read_real(real)
    if not unsupported:
        return part

    def read(value: Any) -> Any:
        if type(value) is dict and _UNSUPPORTED in value:
            return Unsupported(value[_UNSUPPORTED])
        return value if part is None else part(value)

    return read


def _read_real(hint: Any) -> Convert | None:
    origin = get_origin(hint)
    if hint in _PLAIN or origin is Literal:
        return None
    if is_dataclass(hint) and isinstance(hint, type):
        return _reader(hint)
    if origin is tuple:
        inner = _parts(hint, _read)
        one = inner[0]
        if all(part is None for part in inner):
            return tuple
        if _homogeneous(hint) and one is not None:
            return lambda value: tuple([one(item) for item in value])
        return lambda value: tuple(
            item if part is None else part(item) for part, item in zip(inner, value, strict=True)
        )
    if _is_mapping(origin):
        part = _read(get_args(hint)[1])
        return lambda value: {k: v if part is None else part(v) for k, v in value.items()}
    raise TypeError(f"wire: a field's type must be one of the table above (got {hint})")


def _homogeneous(hint: Any) -> bool:
    return len(get_args(hint)) == 2 and get_args(hint)[1] is Ellipsis  # noqa: PLR2004 -- (T, ...)


def _parts(hint: Any, make: Callable[[Any], Convert | None]) -> list[Convert | None]:
    return [make(part) for part in get_args(hint) if part is not Ellipsis]


def _is_mapping(origin: Any) -> bool:
    return isinstance(origin, type) and issubclass(origin, Mapping)
