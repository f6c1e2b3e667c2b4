"""The child's loop, with a blade in memory: what it says, in which order."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tramontane.health import wire
from tramontane.health.child import serve
from tramontane.health.device import Event, Update
from tramontane.health.fake import FakeDevice

from .builders import xid

PATIENCE_S = 60.0


class Said:
    """The lines of a loop that runs in a thread."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def updates(self) -> list[Update]:
        return [wire.decode(line) for line in self.lines]

    def until(self, wanted: Callable[[list[Update]], object]) -> list[Update]:
        end = time.monotonic() + PATIENCE_S
        while not wanted(updates := self.updates()):
            assert time.monotonic() < end, updates
            time.sleep(0.005)
        return updates


@contextmanager
def serving(device: FakeDevice, interval_s: float = 0.02) -> Iterator[Said]:
    said, stop = Said(), threading.Event()

    def work() -> None:
        serve(device, said.lines.append, stop, interval_s, lambda: "boot-9")

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
        device.fail_session("LibRmVersionMismatch")
        updates = said.until(
            lambda updates: updates[-1].reading and updates[-1].reading.session_error
        )
    assert updates[0].reading != updates[-1].reading
