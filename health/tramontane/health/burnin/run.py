"""Work all devices of a blade hard and write down what they gave. Order and time, no judgement.

1. Copies, one device at a time, so that none waits for a bus that another one uses: host to
   device, device to host, within the device, and each device to the next one.
2. Then all devices at once, each in its own thread, until the time is over: products of one seed,
   the same on every device, with a turn of memory patterns for about a quarter of the time.

The first wrong answer anywhere ends the run: the blade is bad, and the rest of the half hour
belongs to its repair. Every device does at least one product and one turn, however little time
there is. One that no longer answers is not waited for, and its thread cannot be ended: whoever
calls this must leave by `os._exit`.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial

from tramontane.health.burnin.backend import (
    Backend,
    DeviceFaultError,
    Filling,
    Memory,
    Pattern,
    product_flops,
)

# A share of the time for memory: products draw the power, patterns find the cells.
_MEMORY_SHARE = 0.25
_COPIES = 5
_PROGRESS_S = 10.0
# How often the devices are looked at while one keeps silent, before it is given up.
_LOOKS = 10


@dataclass(frozen=True, slots=True)
class Settings:
    """What to do.

    Attributes:
        memory_bytes: of each device for patterns; None: most of what is free.
        copy_bytes, memory_copy_bytes: per copy between two places, and within a device; None: the
            same. A copy within a device must be larger than its cache.
        devices: their indexes; None: all.
    """

    duration_s: float = 60.0
    size: int = 8192
    seed: int = 1
    memory_bytes: int | None = None
    copy_bytes: int = 256 << 20
    memory_copy_bytes: int | None = None
    devices: tuple[int, ...] | None = None


@dataclass(slots=True)
class DeviceRun:
    """What one device gave. Rates are of the whole run, or the median of a few copies."""

    device: str
    copies: int = 0
    products: int = 0
    flops: float = 0.0
    busy_s: float = 0.0
    memory_bytes: int = 0
    patterns: int = 0
    memory_gbps: float | None = None
    to_device_gbps: float | None = None
    to_host_gbps: float | None = None
    to_next_gbps: float | None = None
    wrong: list[str] = field(default_factory=list)

    @property
    def tflops(self) -> float | None:
        """Return the mean over the run: a device that slows down when hot shows here."""
        return self.flops / self.busy_s / 1e12 if self.busy_s > 0 else None

    @property
    def answers(self) -> int:
        """Return how much it has done: a device whose number stands still is silent."""
        return self.copies + self.products + self.patterns


def chosen(backend: Backend, settings: Settings) -> tuple[str, ...]:
    """Return the devices to work on.

    Raises:
        LookupError: one that was asked for is not there.
    """
    there = backend.devices()
    wanted = range(len(there)) if settings.devices is None else settings.devices
    if missing := [index for index in wanted if not 0 <= index < len(there)]:
        raise LookupError(f"device {missing[0]}: must exist (got {len(there)} devices)")
    if not there:
        raise LookupError(f"{backend.name}: must show a device (got none)")
    return tuple(there[index] for index in wanted)


class Burner:
    """Do the module's two steps on a backend.

    Attributes:
        enough: set at the first wrong answer, and when a backend breaks.
    """

    def __init__(
        self,
        backend: Backend,
        settings: Settings,
        note: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._backend = backend
        self._settings = settings
        self._note = note
        self._clock = clock
        self.enough = threading.Event()

    def run(self) -> tuple[DeviceRun, ...]:
        """Return what each device gave.

        Raises:
            Exception: what the backend raised where no device was wrong; DeviceFaultError is.
        """
        settings = self._settings
        runs = tuple(DeviceRun(device) for device in chosen(self._backend, settings))
        self._note("the product to compare with")
        self._backend.prepare(settings.size, settings.seed)
        threads = ThreadPoolExecutor(len(runs), "device")
        try:
            self._work(runs, threads)
        finally:
            threads.shutdown(wait=False)
        return runs

    def _work(self, runs: Sequence[DeviceRun], threads: ThreadPoolExecutor) -> None:
        for place, run in enumerate(runs):
            self._note(f"copies: {run.device}")
            following = runs[(place + 1) % len(runs)].device
            copies = partial(self._copies, run, following)
            self._await({threads.submit(_asked, run, copies): run})
            if run.wrong:
                return
        duration_s = self._settings.duration_s
        self._note(f"products and patterns: {len(runs)} devices, {duration_s:g} s")
        end = self._clock() + duration_s
        self._await({threads.submit(self._device, run, end): run for run in runs})

    def _await(self, works: Mapping[Future[None], DeviceRun]) -> None:
        """Return when all are done, or one has given no answer for the backend's patience.

        Silence is counted in looks, not taken from a clock: who stops a whole machine for an hour
        stops this thread, too.
        """
        patience_s = self._backend.patience_s
        look_s = None if patience_s is None else patience_s / _LOOKS
        heard = {work: run.answers for work, run in works.items()}
        looks = dict.fromkeys(works, 0)
        while left := wait(works, look_s).not_done:
            for work in left:
                run = works[work]
                looks[work] = looks[work] + 1 if run.answers == heard[work] else 0
                heard[work] = run.answers
            if silent := [works[work] for work in works if work in left and looks[work] >= _LOOKS]:
                self.enough.set()
                for run in silent:
                    run.wrong.append(
                        f"no answer for {patience_s:g} s, after {run.copies} copies, "
                        f"{run.products} products and {run.patterns} patterns"
                    )
                break
        broke = [(run, error) for work, run in works.items() if (error := _error(work))]
        if broke and not any(run.wrong for run in works.values()):
            raise broke[0][1]
        for run, error in broke:  # there is a verdict without it
            self._note(f"{run.device}: {type(error).__name__}: {error}")

    def _copies(self, run: DeviceRun, following: str) -> None:
        """Measure the ways to and from one device, and its own memory."""
        size_bytes = self._settings.copy_bytes
        run.to_device_gbps = self._rate(run, None, run.device, size_bytes)
        run.to_host_gbps = self._rate(run, run.device, None, size_bytes)
        if following != run.device:
            run.to_next_gbps = self._rate(run, run.device, following, size_bytes)
        size_bytes = self._settings.memory_copy_bytes or size_bytes
        # Each byte is read once and written once.
        run.memory_gbps = 2 * self._rate(run, run.device, run.device, size_bytes)

    def _rate(
        self, run: DeviceRun, source: str | None, target: str | None, size_bytes: int
    ) -> float:
        """Return the median rate of a few copies, in GB/s."""
        times = []
        for _ in range(_COPIES):
            copy = self._backend.copy(source, target, size_bytes)
            run.copies += 1
            times.append(copy.elapsed_s)
            if copy.wrong:
                way = f"{source or 'host'} to {target or 'host'}"
                run.wrong.append(f"copy {way}: {copy.wrong} of {size_bytes} bytes changed")
                break
        return size_bytes / max(sorted(times)[len(times) // 2], 1e-9) / 1e9

    def _device(self, run: DeviceRun, end: float) -> None:
        """Work one device until `end` or `enough`."""
        try:
            _asked(run, partial(self._rounds, run, end))
        except BaseException:
            self.enough.set()  # the others need not go on: there will be no verdict
            raise
        if run.wrong:
            self.enough.set()

    def _rounds(self, run: DeviceRun, end: float) -> None:
        # The first product makes matrices, reference and plans: its time is nobody's rate.
        self._multiply(run, timed=False)
        memory = self._backend.memory(run.device, self._settings.memory_bytes)
        run.memory_bytes = memory.size_bytes
        began = said_at = self._clock()
        memory_s = 0.0
        turn = 0
        while not run.wrong and not self.enough.is_set() and (turn == 0 or self._clock() < end):
            self._multiply(run)
            now = self._clock()
            if turn == 0 or memory_s < _MEMORY_SHARE * (now - began):
                _patterns(memory, run, turn)
                turn += 1
                memory_s += self._clock() - now
            if now - said_at >= _PROGRESS_S:
                said_at = now
                self._note(
                    f"{run.device}: {run.products} products, {run.tflops or 0:.3g} TFLOPS, "
                    f"{run.patterns} patterns"
                )

    def _multiply(self, run: DeviceRun, *, timed: bool = True) -> None:
        size, seed = self._settings.size, self._settings.seed
        product = self._backend.multiply(run.device, size, seed)
        run.products += 1
        if timed:
            run.flops += product_flops(size)
            run.busy_s += product.elapsed_s
        if product.wrong:
            run.wrong.append(
                f"product {run.products} of seed {seed}: "
                f"{product.wrong} of {size**2} elements differ, {product.evidence}"
            )


def _patterns(memory: Memory, run: DeviceRun, turn: int) -> None:
    """Write and read back one turn of every pattern."""
    for filling in Filling:
        pattern = Pattern(filling, turn)
        memory.write(pattern)
        recall = memory.check(pattern)
        run.patterns += 1
        if recall.wrong:
            run.wrong.append(f"memory, {pattern}: {recall.wrong} words changed, {recall.evidence}")
            return


def _asked(run: DeviceRun, work: Callable[[], None]) -> None:
    """Do the work; a fault that the hardware itself reports is a wrong answer."""
    try:
        work()
    except DeviceFaultError as fault:
        run.wrong.append(f"the device reports: {fault}")


def _error(work: Future[None]) -> BaseException | None:
    """Return what a thread ended with; None while it has not."""
    return work.exception() if work.done() else None
