"""The child's loop, with a blade in memory: what it says, in which order."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from tramontane.health import wire
from tramontane.health.child import serve
from tramontane.health.device import Event, Reading, Update
from tramontane.health.fake import FakeDevice

from .builders import xid

PATIENCE_S = 60.0


class Said:
    """The lines of a loop that runs in a thread."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def updates(self) -> list[Update]:
        return [replace(wire.decode(line), took_s=None) for line in self.lines]

    def until(self, wanted: Callable[[list[Update]], object]) -> list[Update]:
        end = time.monotonic() + PATIENCE_S
        while not wanted(updates := self.updates()):
            assert time.monotonic() < end, updates
            time.sleep(0.005)
        return updates


@contextmanager
def serving(
    device: FakeDevice, interval_s: float = 0.02, renew_after_s: float = 5.0
) -> Iterator[Said]:
    said, stop = Said(), threading.Event()

    def work() -> None:
        send = said.lines.append
        serve(device, send, stop, interval_s, lambda: "boot-9", renew_after_s=renew_after_s)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield said
    finally:
        stop.set()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def test_a_reading_is_said_once_and_then_there_are_beats() -> None:
    device = FakeDevice("b")
    with serving(device) as said:
        updates = said.until(lambda updates: len(updates) > 5)
    assert updates[0] == Update(reading=device.reading)
    assert set(updates[1:]) == {Update()}


def test_each_look_is_timed_and_none_that_failed() -> None:
    class Slow(FakeDevice):
        def read(self) -> Reading:
            time.sleep(0.01)
            return super().read()

    device = Slow("b")
    with serving(device) as said:
        said.until(lambda updates: len(updates) > 2)
        device.fail_session("DriverNotLoaded")
        said.until(lambda updates: updates[-1].reading and updates[-1].reading.session_error)
    timed = [(update, update.took_s) for update in map(wire.decode, said.lines)]
    assert all(took_s is not None and 0.01 <= took_s < PATIENCE_S for _, took_s in timed[:3])
    (failed,) = [
        took_s
        for update, took_s in timed
        if update.reading is not None and update.reading.session_error
    ]
    assert failed is None


def test_events_are_said_before_the_reading_that_shows_their_effect() -> None:
    device = FakeDevice("b")
    with serving(device, interval_s=3600.0) as said:
        said.until(len)
        device.lose(3)
        updates = said.until(lambda updates: len(updates) > 2)
    assert [event.xid for event in updates[1].events] == [79]
    assert updates[2] == Update(reading=device.reading)


def test_a_flood_of_events_does_not_stop_the_readings_nor_multiply_them() -> None:
    class Flooded(FakeDevice):
        def wait(self, timeout_s: float) -> tuple[Event, ...]:
            time.sleep(min(timeout_s, 0.001))
            return (xid(31),)

    with serving(Flooded("b"), interval_s=3600.0) as said:
        updates = said.until(lambda updates: sum(not u.events for u in updates) > 3)
    events = sum(len(update.events) for update in updates)
    looks = len(updates) - events
    assert events > 3 * looks


def test_a_session_that_is_of_no_use_is_said_and_tried_again() -> None:
    device = FakeDevice("b")
    device.fail_session("DriverNotLoaded")
    with serving(device) as said:
        (first, *_) = said.until(len)
        assert first.reading is not None
        assert (first.reading.session_error, first.reading.boot_id) == ("DriverNotLoaded", "boot-9")
        device.heal()
        updates = said.until(lambda updates: any(u.reading == device.reading for u in updates))
        device.fail_session("DriverNotLoaded")
        updates = said.until(
            lambda updates: updates[-1].reading and updates[-1].reading.session_error
        )
    assert updates[0] == updates[-1]


@pytest.mark.parametrize(
    ("happens", "leaves"),
    [
        pytest.param(["DriverNotLoaded"], False, id="no-driver-yet"),
        pytest.param(["LibraryNotFound"], False, id="no-library-yet"),
        pytest.param(["LibRmVersionMismatch"], True, id="the-library-does-not-fit"),
        pytest.param(["", "DriverNotLoaded"], True, id="the-driver-went"),
        pytest.param(["", "LibRmVersionMismatch"], True, id="another-driver-came"),
        pytest.param(["", "GpuIsLost"], True, id="the-session-broke"),
    ],
)
def test_a_library_that_may_be_of_yesterday_is_left(happens: list[str], *, leaves: bool) -> None:
    device, said, stop = FakeDevice("b"), Said(), threading.Event()
    device.fail_session(happens[0])
    work = threading.Thread(
        target=serve,
        args=(device, said.lines.append, stop, 0.01, lambda: "boot-9"),
        kwargs={"renew_after_s": 0.3},
    )
    work.start()
    for error in happens[1:]:
        said.until(len)
        device.fail_session(error)
    said.until(lambda updates: any(u.reading and u.reading.session_error for u in updates))
    work.join(1.0)
    assert work.is_alive() is not leaves
    stop.set()
    work.join(PATIENCE_S)


def test_a_session_that_breaks_and_heals_is_taken_up_in_the_same_process() -> None:
    device = FakeDevice("b")
    with serving(device, renew_after_s=3600.0) as said:
        said.until(len)
        device.fail_session("Uninitialized")
        said.until(lambda updates: updates[-1].reading and updates[-1].reading.session_error)
        device.heal()
        said.until(lambda updates: any(u.reading == device.reading for u in updates))
