"""What the child says to the agent: every field of every value, by its type hint."""

from dataclasses import dataclass, fields, replace

import pytest

from tramontane.health import wire
from tramontane.health.device import (
    NOT_READ,
    SXID_EVENT,
    VALUES,
    Event,
    GpuReading,
    Reading,
    Unsupported,
    Update,
    unread,
)
from tramontane.health.fake import HEALTHY

from .builders import lost, reading, with_gpu, xid


@pytest.mark.parametrize(
    "update",
    [
        pytest.param(Update(reading=reading()), id="healthy"),
        pytest.param(Update(reading=lost(reading(), 3)), id="lost"),
        pytest.param(Update(reading=replace(reading(), host=None)), id="no-host"),
        pytest.param(Update(reading=Reading("b", session_error="Unknown")), id="no-session"),
        pytest.param(Update(reading=Reading("b", gpus=(GpuReading(0),))), id="not-read"),
        pytest.param(Update(events=(xid(79), xid(31))), id="events"),
        pytest.param(
            Update(events=(Event(-1, "", SXID_EVENT, 20034, 1.5, "SXid …", "kmsg", fatal=True),)),
            id="sxid",
        ),
        pytest.param(Update(reading=reading(), events=(xid(94),)), id="both"),
        pytest.param(Update(), id="beat"),
        pytest.param(Update(took_s=0.012), id="beat-that-was-timed"),
        pytest.param(Update(reading=reading(), took_s=1.5), id="look-that-was-timed"),
    ],
)
def test_an_update_is_read_as_it_was_written(update: Update) -> None:
    assert wire.decode(wire.encode(update)) == update


@pytest.mark.parametrize("name", VALUES)
def test_each_value_crosses_known_and_unknown(name: str) -> None:
    for value in (HEALTHY[name], Unsupported("NotSupported")):
        look = with_gpu(reading(), 2, **{name: value})
        read = wire.decode(wire.encode(Update(reading=look))).reading
        assert read == look
        assert type(getattr(read.gpus[2], name)) is type(value)


def test_a_beat_is_an_update_without_anything() -> None:
    assert wire.encode(Update()) == b"{}\n"


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"not json\n",
        b"[]\n",
        b'{"reading":{}}\n',
        b'{"reading":["boot"]}\n',
        b'{"reading":["b","","",[[0]],null,"","",null]}\n',
        b'{"events":[[1,2]]}\n',
        b'{"events":7}\n',
    ],
)
def test_what_is_no_update_is_a_value_error(line: bytes) -> None:
    with pytest.raises(ValueError, match="must be an update"):
        wire.decode(line)


@dataclass(frozen=True)
class Two:
    value: int | str


@dataclass(frozen=True)
class Odd:
    value: set[int]


@pytest.mark.parametrize("kind", [Two, Odd])
def test_a_field_of_a_type_that_cannot_cross_is_told_at_once(kind: type) -> None:
    with pytest.raises(TypeError, match="wire: a field"):
        wire._writer(kind)
    with pytest.raises(TypeError, match="wire: a field"):
        wire._reader(kind)


@dataclass(frozen=True)
class Inner:
    pair: tuple[str, int]


@dataclass(frozen=True)
class Outer:
    many: tuple[Inner, ...]
    mixed: tuple[Inner, int]
    named: dict[str, Inner]
    maybe: Inner | None = None


def test_nested_values_of_every_kind_cross() -> None:
    inner = Inner(("a", 1))
    for value in (
        Outer((inner, inner), (inner, 3), {"x": inner}, inner),
        Outer((), (inner, 3), {}),
    ):
        assert wire._reader(Outer)(wire._writer(Outer)(value)) == value


def test_the_values_are_those_that_may_be_unknown() -> None:
    hints = {item.name: item.type for item in fields(GpuReading)}
    assert {name for name, hint in hints.items() if "Unsupported" in str(hint)} == set(VALUES)
    assert set(HEALTHY) == set(VALUES)
    assert all(value is NOT_READ for value in unread(NOT_READ).values())
