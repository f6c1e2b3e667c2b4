"""What a blade answers decides: wrong and slow fail it, a checker that breaks does not."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from tramontane.health.burnin.backend import (
    Copy,
    DeviceFaultError,
    Pattern,
    Product,
    Recall,
    product_flops,
)
from tramontane.health.burnin.judge import Thresholds, judge
from tramontane.health.burnin.outcome import Outcome, Verdict
from tramontane.health.burnin.run import Burner, Settings

SIZE = 1000
COPY_BYTES = 10**9
MEMORY_COPY_BYTES = 4 * COPY_BYTES
NO_THRESHOLDS = Thresholds()
SETTINGS = Settings(
    duration_s=10.0,
    size=SIZE,
    seed=7,
    copy_bytes=COPY_BYTES,
    memory_copy_bytes=MEMORY_COPY_BYTES,
)


@dataclass
class FakeBackend:
    """Devices in memory. Each thread has a clock; work takes the time that it says.

    Attributes:
        product_s: time of one product; at 2e9 operations, 0.5 s are 0.004 TFLOPS.
        corrupt: device to the number of the product that is wrong.
        flip: device to the pattern that comes back with one bit less.
        raises: device to what its products raise.
        hangs: a device's second product, or the copies on a way, wait for `end`.
        changed: the ways on which a byte changes.
    """

    count: int = 4
    product_s: dict[str, float] = field(default_factory=dict)
    copy_s: dict[tuple[str | None, str | None], float] = field(default_factory=dict)
    corrupt: dict[str, int] = field(default_factory=dict)
    flip: dict[str, int] = field(default_factory=dict)
    raises: dict[str, Exception] = field(default_factory=dict)
    changed: frozenset[tuple[str | None, str | None]] = frozenset()
    hangs: frozenset[str | tuple[str | None, str | None]] = frozenset()
    name: str = "fake"
    patience_s: float | None = None
    end: threading.Event = field(default_factory=threading.Event)
    done: dict[str, int] = field(default_factory=dict)
    prepared: tuple[int, int] = (0, 0)
    seeds: set[tuple[int, int]] = field(default_factory=set)
    at: threading.local = field(default_factory=threading.local)

    def clock(self) -> float:
        return getattr(self.at, "now", 0.0)

    def pass_time(self, seconds: float) -> None:
        self.at.now = self.clock() + seconds

    def devices(self) -> tuple[str, ...]:
        return tuple(f"fake:{index}" for index in range(self.count))

    def prepare(self, size: int, seed: int) -> None:
        self.prepared = (size, seed)

    def multiply(self, device: str, size: int, seed: int) -> Product:
        if device in self.raises:
            raise self.raises[device]
        assert self.prepared == (size, seed)
        if device in self.hangs and device in self.done:
            self.end.wait()
        self.seeds.add((size, seed))
        if device not in self.done:
            self.at.now = 0.0  # the thread may have worked another device before
        self.done[device] = self.done.get(device, 0) + 1
        elapsed_s = self.product_s.get(device, 0.5)
        self.pass_time(elapsed_s)
        if self.done[device] == self.corrupt.get(device):
            return Product(elapsed_s, 1, "first at (3, 5)")
        return Product(elapsed_s)

    def memory(self, device: str, size_bytes: int | None) -> "FakeMemory":
        return FakeMemory(self, self.flip.get(device, 0), size_bytes or 1 << 20)

    def copy(self, source: str | None, target: str | None, size_bytes: int) -> Copy:
        assert size_bytes == (MEMORY_COPY_BYTES if source == target else COPY_BYTES)
        if (source, target) in self.hangs:
            self.end.wait()
        return Copy(self.copy_s.get((source, target), 0.02), int((source, target) in self.changed))


@dataclass
class FakeMemory:
    backend: FakeBackend
    flip_at: int
    size_bytes: int
    wrote: Pattern | None = None
    checks: int = 0

    def write(self, pattern: Pattern) -> None:
        self.backend.pass_time(0.1)
        self.wrote = pattern

    def check(self, pattern: Pattern) -> Recall:
        assert self.wrote == pattern
        self.checks += 1
        dropped = self.checks == self.flip_at
        return Recall(1, "at byte 0x10, bits 0x8") if dropped else Recall()


def burnt(
    backend: FakeBackend, settings: Settings = SETTINGS, thresholds: Thresholds = NO_THRESHOLDS
) -> Outcome:
    runs = Burner(backend, settings, lambda _: None, backend.clock).run()
    return judge(runs, thresholds, settings, backend.name)


@pytest.mark.parametrize(
    ("backend", "thresholds", "verdict", "reason"),
    [
        pytest.param(
            FakeBackend(), Thresholds(), Verdict.PASS, "4 devices, ", id="all is as expected"
        ),
        pytest.param(
            FakeBackend(),
            Thresholds(host_gbps=48, device_gbps=48, memory_gbps=390, tflops=0.003),
            Verdict.PASS,
            "4 devices, ",
            id="fast enough",
        ),
        pytest.param(
            FakeBackend(corrupt={"fake:2": 3}),
            Thresholds(),
            Verdict.FAIL,
            "fake:2: product 3 of seed 7: 1 of 1000000 elements differ, first at (3, 5)",
            id="one product is wrong once",
        ),
        pytest.param(
            FakeBackend(corrupt={"fake:0": 1}),
            Thresholds(),
            Verdict.FAIL,
            "fake:0: product 1 of seed 7: 1 of 1000000 elements differ, first at (3, 5)",
            id="the first product is wrong",
        ),
        pytest.param(
            FakeBackend(flip={"fake:1": 4}),
            Thresholds(),
            Verdict.FAIL,
            "fake:1: memory, address inverted, turn 0: 1 words changed, at byte 0x10, bits 0x8",
            id="memory drops a bit",
        ),
        pytest.param(
            FakeBackend(flip={"fake:1": 6}),
            Thresholds(),
            Verdict.FAIL,
            "fake:1: memory, walking one, turn 1: 1 words changed, at byte 0x10, bits 0x8",
            id="memory drops a bit in the second turn",
        ),
        pytest.param(
            FakeBackend(changed=frozenset({("fake:3", "fake:0")})),
            Thresholds(),
            Verdict.FAIL,
            "fake:3: copy fake:3 to fake:0: 1 of 1000000000 bytes changed",
            id="a copy changes a byte",
        ),
        pytest.param(
            FakeBackend(changed=frozenset({("fake:3", "fake:3")})),
            Thresholds(),
            Verdict.FAIL,
            "fake:3: copy fake:3 to fake:3: 1 of 4000000000 bytes changed",
            id="a copy within a device changes a byte",
        ),
        pytest.param(
            FakeBackend(
                corrupt={"fake:2": 1}, raises={"fake:0": RuntimeError("unspecified launch failure")}
            ),
            Thresholds(),
            Verdict.FAIL,
            "fake:2: product 1 of seed 7: 1 of 1000000 elements differ, first at (3, 5)",
            id="one device is wrong while another one breaks the checker",
        ),
        pytest.param(
            FakeBackend(raises={"fake:1": DeviceFaultError("uncorrectable ECC error")}),
            Thresholds(),
            Verdict.FAIL,
            "fake:1: the device reports: uncorrectable ECC error",
            id="the device says that it is broken",
        ),
        pytest.param(
            FakeBackend(product_s={"fake:3": 2.0}),
            Thresholds(tflops=0.003),
            Verdict.FAIL,
            "fake:3: compute must be 0.003 TFLOPS or more (got 0.001)",
            id="a slow device",
        ),
        pytest.param(
            FakeBackend(copy_s={("fake:2", "fake:2"): 0.04}),
            Thresholds(memory_gbps=390),
            Verdict.FAIL,
            "fake:2: memory must be 390 GB/s or more (got 200)",
            id="slow memory",
        ),
        pytest.param(
            FakeBackend(copy_s={("fake:1", None): 0.1}),
            Thresholds(host_gbps=48),
            Verdict.FAIL,
            "fake:1: device to host must be 48 GB/s or more (got 10)",
            id="slow to the host",
        ),
        pytest.param(
            FakeBackend(copy_s={(None, "fake:1"): 0.1}),
            Thresholds(host_gbps=48),
            Verdict.FAIL,
            "fake:1: host to device must be 48 GB/s or more (got 10)",
            id="slow from the host",
        ),
        pytest.param(
            FakeBackend(copy_s={("fake:0", "fake:1"): 0.1}),
            Thresholds(device_gbps=48),
            Verdict.FAIL,
            "fake:0: device to device must be 48 GB/s or more (got 10)",
            id="slow to its neighbour",
        ),
        pytest.param(
            FakeBackend(count=1),
            Thresholds(device_gbps=48),
            Verdict.ERROR,
            "device to device: must be measured (got none on 1 devices)",
            id="asked for what one device cannot show",
        ),
        pytest.param(
            FakeBackend(product_s=dict.fromkeys(["fake:0", "fake:3"], 20.0)),
            Thresholds(),
            Verdict.PASS,
            "4 devices, ",
            id="slow without a threshold is only reported",
        ),
    ],
)
def test_what_is_seen_decides(
    backend: FakeBackend, thresholds: Thresholds, verdict: Verdict, reason: str
) -> None:
    outcome = burnt(backend, thresholds=thresholds)
    assert (outcome.verdict, outcome.reason[: len(reason)]) == (verdict, reason)
    assert outcome.reason == reason or verdict is Verdict.PASS


def test_a_backend_that_breaks_is_no_answer() -> None:
    with pytest.raises(RuntimeError, match="out of memory"):
        burnt(FakeBackend(raises={"fake:1": RuntimeError("out of memory")}))


def test_the_first_wrong_answer_ends_the_work_of_all_devices() -> None:
    endless = replace(SETTINGS, duration_s=float("inf"))
    assert burnt(FakeBackend(corrupt={"fake:2": 3}), endless).verdict is Verdict.FAIL


def test_a_broken_backend_ends_the_work_of_all_devices() -> None:
    endless = replace(SETTINGS, duration_s=float("inf"))
    with pytest.raises(RuntimeError, match="gone"):
        burnt(FakeBackend(raises={"fake:1": RuntimeError("gone")}), endless)


@pytest.mark.parametrize(
    ("hangs", "did"),
    [
        pytest.param("fake:2", "20 copies, 1 products and 0 patterns", id="in a product"),
        pytest.param(("fake:2", None), "5 copies, 0 products and 0 patterns", id="in a copy"),
    ],
)
def test_a_device_that_no_longer_answers_is_named_and_not_waited_for(
    hangs: str | tuple[str | None, str | None], did: str
) -> None:
    backend = FakeBackend(hangs=frozenset({hangs}), patience_s=1.0)
    try:
        outcome = burnt(backend, replace(SETTINGS, duration_s=0.0))
    finally:
        backend.end.set()
    assert outcome.verdict is Verdict.FAIL
    assert outcome.reason == f"fake:2: no answer for 1 s, after {did}"


def test_a_device_that_answers_slowly_is_waited_for() -> None:
    class Slow(FakeBackend):
        def multiply(self, device: str, size: int, seed: int) -> Product:
            self.end.wait(0.1)
            return super().multiply(device, size, seed)

    assert burnt(Slow(patience_s=0.5)).verdict is Verdict.PASS


def test_all_devices_compute_the_product_of_the_same_seed() -> None:
    backend = FakeBackend()
    assert burnt(backend).verdict is Verdict.PASS
    assert backend.seeds == {(SIZE, 7)}
    assert set(backend.done) == set(backend.devices())


def test_a_quarter_of_the_time_is_the_memorys() -> None:
    backend = FakeBackend(count=1)
    runs = Burner(
        backend, replace(SETTINGS, duration_s=1000.0), lambda _: None, backend.clock
    ).run()
    assert runs[0].patterns * 0.1 == pytest.approx(250.0, rel=0.02)
    assert runs[0].busy_s == pytest.approx(750.0, rel=0.02)


def test_without_time_each_device_still_does_all_once() -> None:
    outcome = burnt(FakeBackend(), replace(SETTINGS, duration_s=0.0))
    assert outcome.reason == "4 devices, 8 products and 20 patterns, all as expected"


@pytest.mark.parametrize(
    ("devices", "used"),
    [
        pytest.param(None, ["fake:0", "fake:1", "fake:2", "fake:3"], id="all"),
        pytest.param((3, 1), ["fake:3", "fake:1"], id="some"),
    ],
)
def test_devices_are_chosen(devices: tuple[int, ...] | None, used: list[str]) -> None:
    outcome = burnt(FakeBackend(), replace(SETTINGS, devices=devices))
    assert [one["device"] for one in outcome.details["devices"]] == used


@pytest.mark.parametrize(
    ("count", "devices", "problem"),
    [
        pytest.param(7, (6, 7), r"device 7: must exist \(got 7 devices\)", id="one is not there"),
        pytest.param(0, None, r"fake: must show a device \(got none\)", id="no device"),
    ],
)
def test_a_device_that_is_not_there_is_no_answer(
    count: int, devices: tuple[int, ...] | None, problem: str
) -> None:
    with pytest.raises(LookupError, match=problem):
        burnt(FakeBackend(count=count), Settings(devices=devices))


def test_the_value_is_the_slowest_devices_rate() -> None:
    outcome = burnt(FakeBackend(product_s={"fake:3": 2.0}))
    assert outcome.value == pytest.approx(product_flops(SIZE) / 2e12)
    assert outcome.unit == "TFLOPS"
    shown = {one["device"]: one for one in outcome.details["devices"]}
    assert shown["fake:0"]["tflops"] == pytest.approx(0.004)
    assert shown["fake:0"]["to_device"] == pytest.approx(50.0)
    assert shown["fake:3"]["to_next"] == pytest.approx(50.0)
    assert shown["fake:3"]["memory_gbps"] == pytest.approx(400.0), "read and written"


def test_people_are_told_how_far_it_is() -> None:
    said: list[str] = []
    note: Callable[[str], None] = said.append
    backend = FakeBackend(count=1)
    Burner(backend, replace(SETTINGS, duration_s=60.0), note, backend.clock).run()
    assert said[1:3] == ["copies: fake:0", "products and patterns: 1 devices, 60 s"]
    assert 4 <= len(said[3:]) <= 6
