"""Own the NVML session, in a process that the agent can kill.

A dying GPU can block an NVML call for ever, and nothing inside the process can end that. So this
process does nothing but NVML: one thread waits for events and reads the state in between, and
says both on its standard output, one JSON line each (wire.py). The agent measures the silence.

How it ends: SIGTERM (from the agent, or from the kernel when the agent has died) makes it leave
the session with nvmlShutdown, because a client that is killed hard can itself freeze a GPU
(dcgm-exporter#84). If NVML does not let it, it ends anyway after `GRACE_S`.

It leaves by itself, for the agent to start another, where only a new process can help: a library
that is loaded stays loaded, and after an update of the driver the one on disk is another.

| no session, because                      | in a process that has had one | that never had one |
|------------------------------------------|-------------------------------|--------------------|
| the library does not fit the driver      | leaves                        | leaves             |
| of anything else: no driver, no library  | leaves                        | tries again        |

It leaves no sooner than `RENEW_AFTER_S` after its start, so that what lasts costs little.
"""

import argparse
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from tramontane.health import wire
from tramontane.health.device import Device, DeviceError, Reading, Update
from tramontane.health.nvml import BOOT_ID_FILE, NvmlDevice

GRACE_S = 1.0
RENEW_AFTER_S = 5.0
_MISFIT = "LibRmVersionMismatch"
# A wait for events is cut into pieces, so that SIGTERM is seen between them.
_SLICE_S = 0.2
# A flood of events is no reason to read the state without pause.
_MIN_INTERVAL_S = 0.05
_PR_SET_PDEATHSIG = 1


def serve(
    device: Device,
    send: Callable[[bytes], object],
    stop: threading.Event,
    interval_s: float,
    boot_id: Callable[[], str],
    *,
    renew_after_s: float = RENEW_AFTER_S,
) -> None:
    """Read and wait until `stop`; say what is new at once and something in every interval.

    1. Open the session; without one, say so in a reading and try again, or leave (above).
    2. Read the state; say it if it has changed, else give a beat.
    3. Wait for events until the next reading is due; say them at once, and read again soon,
       because an event is how a state begins.
    """
    is_open = had_session = False
    started = time.monotonic()
    last: Reading | None = None
    while not stop.is_set():
        began = time.monotonic()
        due = began + interval_s
        took_s: float | None = None
        try:
            if not is_open:
                device.open()
                is_open = True
            asked = time.monotonic()
            reading = device.read()
            took_s = time.monotonic() - asked
            had_session = True
        except DeviceError as error:
            device.close()
            is_open = False
            reading = Reading(boot_id=boot_id(), session_error=str(error))
        news = None if reading == last else reading
        send(wire.encode(Update(reading=news, took_s=took_s)))
        last = reading
        of_yesterday = not is_open and (had_session or reading.session_error == _MISFIT)
        if of_yesterday and began - started >= renew_after_s:
            return
        while not stop.is_set() and (left := due - time.monotonic()) > 0:
            if not is_open:
                stop.wait(left)
            elif events := device.wait(min(left, _SLICE_S)):
                send(wire.encode(Update(events=events)))
                due = min(due, began + _MIN_INTERVAL_S)
    device.close()


def _end_with_parent(parent: int) -> None:
    """Ask the kernel for SIGTERM when the agent dies; leave if it died before we asked."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit(1)


def _stop_on_sigterm(stop: threading.Event) -> None:
    """Set `stop` on SIGTERM, from a thread: the main one may be inside a call that hangs."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})

    def watch() -> None:
        while signal.sigwait({signal.SIGTERM, signal.SIGINT}) != signal.SIGTERM:
            continue  # Ctrl-C reaches the whole group; the agent decides what it means
        stop.set()
        time.sleep(GRACE_S)
        os._exit(1)

    threading.Thread(target=watch, name="sigterm", daemon=True).start()


def _own_stdout() -> BinaryIO:
    """Keep standard output for our lines: what the library prints goes to standard error."""
    ours = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    return ours


def main() -> int:
    """Run the child; see the module's story."""
    parser = argparse.ArgumentParser(prog="python -m tramontane.health.child")
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--interval", type=float, required=True)
    parser.add_argument("--nvml-library")
    parser.add_argument("--boot-id-file", type=Path, default=BOOT_ID_FILE)
    options = parser.parse_args()
    stop = threading.Event()
    _stop_on_sigterm(stop)
    _end_with_parent(options.parent)
    out = _own_stdout()
    device = NvmlDevice(options.nvml_library, options.boot_id_file)
    boot_file: Path = options.boot_id_file
    try:
        serve(device, out.write, stop, options.interval, lambda: boot_file.read_text().strip())
    except BrokenPipeError:  # the agent is gone
        device.close()
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
