"""Have something to photograph: the live lab, run in a process of its own until all has happened.

`tramontane.lab.observe.live` says in its ready file where its Prometheus is, and which job, blade
and deployment make the best pictures.
"""

import asyncio
import json
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tramontane.lab.paths import LabError
from tramontane.lab.processes import log_tail

_START_S = 600.0
_STOP_S = 60.0
_LOOK_S = 0.5
_MORE_MIN = 15  # if we are killed, it ends by itself
# The first fault comes about this long before the ready file, and belongs into the picture.
_OPENING_S = 90.0
# Calm enough that a picture shows what one fault does, and how it heals.
_BETWEEN_FAULTS_S = 150
# The operator reads its engines every five seconds: looked at more often, their rates are combs.
_SCRAPE_S = 5
# Of these one makes the better picture; of the others (clusters, pools) all are shown.
_CHOSEN = ("namespace", "job", "deployment", "blade")


@dataclass(frozen=True, slots=True)
class Live:
    """A Prometheus with something in it, and the values of the boards' variables to show."""

    prometheus: str
    scrape_s: float
    show: Mapping[str, str | Sequence[str]]


def read(ready: Path) -> Live:
    """Return what the ready file says of the hall and of what is worth looking at."""
    said = json.loads(ready.read_text())
    show = {name: value for name, value in said["show"].items() if name in _CHOSEN}
    return Live(said["prometheus"], float(said["scrape_s"]), show)


@asynccontextmanager
async def lab(minutes: float) -> AsyncIterator[Live]:
    """Start the live lab and wait until it has `minutes` to show; stop it in the end.

    Raises:
        LabError: it ended by itself, or is not ready in ten minutes.
    """
    with tempfile.TemporaryDirectory(prefix="tramontane-live-") as name:
        folder = Path(name)
        ready, log = folder / "ready.json", folder / "live.log"
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tramontane.lab.observe.live",
                "--dir", str(folder / "lab"), "--minutes", str(minutes + _MORE_MIN),
                "--ready-file", str(ready),
                "--every", str(_BETWEEN_FAULTS_S), "--scrape", str(_SCRAPE_S),
                stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=asyncio.subprocess.STDOUT,
            )  # fmt: skip
        try:
            await _wait(process, ready, log)
            await asyncio.sleep(max(0.0, minutes * 60 - _OPENING_S))
            yield read(ready)
        finally:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), _STOP_S)
            except TimeoutError:
                process.kill()
                await process.wait()


async def _wait(process: asyncio.subprocess.Process, ready: Path, log: Path) -> None:
    """Return when the ready file is there; it is the only sign there is, so it is looked for."""
    deadline = time.monotonic() + _START_S
    while not await asyncio.to_thread(ready.exists):
        if process.returncode is not None or time.monotonic() > deadline:
            raise LabError(
                "live lab: must become ready (got: it did not); its last lines:\n" + log_tail(log)
            )
        await asyncio.sleep(_LOOK_S)
