"""Help a training script to end cleanly: `import tramontane_rank` in any rank under the rank agent.

One file, standard library only besides the user's own jax. Under JAX a rank whose peer died must
leave at once and without clean-up, or its interpreter waits for the dead one at exit; and all ranks
that are told to end must save at the same step, or there is no checkpoint. (Measured; the numbers
are in docs/training.md.) A torch script takes `terminating` alone.

    import tramontane_rank as rank
    rank.initialize()
    with rank.step_guard():
        for step in range(start, steps):
            ...train...
            if rank.should_save(step): save(step); rank.drain_exit()

Environment: JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID as the operator sets
them; TRAMONTANE_JAX_HEARTBEAT_S, TRAMONTANE_JAX_SHUTDOWN_S, TRAMONTANE_JAX_START_S by the user.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

# Of a rank that left on a failed step: its own mistake, or a peer that is gone.
EXIT_FAILED_STEP = 13
# A dead coordinator or a stopped rank is noticed within 0.7 to 1.2 of it; jax waits for 100 s.
HEARTBEAT_S = 10
# All leave together after a save; who does not come is not worth 300 s.
SHUTDOWN_S = 10
# A replacement pulls its image first; jax's own default.
START_S = 300

_told = False


def initialize(**options: Any) -> None:
    """Join the other ranks, as jax.distributed.initialize does, with short time-outs.

    A rank alone (no JAX_COORDINATOR_ADDRESS, or one process) joins nobody. `options` go before
    what the environment says. Raises what jax raises when the others do not come.
    """
    address = os.environ.get("JAX_COORDINATOR_ADDRESS")
    processes = int(os.environ.get("JAX_NUM_PROCESSES", "1"))
    if not options and (address is None or processes <= 1):
        _listen()
        return
    given = {
        "coordinator_address": address,
        "num_processes": processes,
        "process_id": int(os.environ.get("JAX_PROCESS_ID", "0")),
        # Else jax asks the Kubernetes API who it is, without being allowed to.
        "cluster_detection_method": "deactivate",
        "initialization_timeout": _seconds("TRAMONTANE_JAX_START_S", START_S),
        "heartbeat_timeout_seconds": _seconds("TRAMONTANE_JAX_HEARTBEAT_S", HEARTBEAT_S),
        "shutdown_timeout_seconds": _seconds("TRAMONTANE_JAX_SHUTDOWN_S", SHUTDOWN_S),
    }
    _jax("jax").distributed.initialize(**{**given, **options})


@contextmanager
def step_guard() -> Iterator[None]:
    """Leave the process at once when a step fails: print why, and run no clean-up.

    An exit with 0 goes its usual way; another code is kept.
    """
    try:
        yield
    except SystemExit as left:
        if left.code is None or left.code == 0:
            raise
        if not isinstance(left.code, int):
            sys.stderr.write(f"{left.code}\n")
        _leave(left.code if isinstance(left.code, int) else 1)
    except KeyboardInterrupt:
        _leave(128 + signal.SIGINT)
    except BaseException:  # noqa: BLE001 - whatever it was, nothing here goes on
        traceback.print_exc()
        _leave(EXIT_FAILED_STEP)


def run(train: Callable[[], Any]) -> Any:
    """Return what `train()` returns; its failed step ends the process, see `step_guard`."""
    with step_guard():
        return train()


def should_save(step: int) -> bool:
    """Return whether all ranks are to save now, after this step, and then `drain_exit`.

    Ask once per step, on all ranks. Once any rank has got SIGTERM, jax agrees on the first step
    that none has reached yet: true there, on all ranks alike. A rank alone asks its own flag.
    """
    if _is_distributed():
        multihost = _jax("jax.experimental.multihost_utils")
        return bool(multihost.reached_preemption_sync_point(step))
    return terminating()


def drain_exit() -> NoReturn:
    """End with 0 once all ranks are here: nobody leaves while another still reads or writes."""
    if _is_distributed():
        _jax("jax").distributed.shutdown()
    _leave(0)


def terminating() -> bool:
    """Return whether this process has got SIGTERM; the first call begins to listen.

    A flag of this rank alone: torch ranks agree by an all-reduce (maximum) over it, each step.
    Call it once before the loop. Not beside jax.distributed, which listens itself.
    """
    _listen()
    return _told


def _listen() -> None:
    if signal.getsignal(signal.SIGTERM) is not _note:
        signal.signal(signal.SIGTERM, _note)


def _note(_number: int, _frame: Any) -> None:
    global _told  # noqa: PLW0603 - a signal has no other place to leave its mark
    _told = True


def _is_distributed() -> bool:
    jax = sys.modules.get("jax")
    return jax is not None and bool(jax.distributed.is_initialized())


def _jax(name: str) -> Any:
    """Return a module of jax, which only ranks that use it have."""
    return importlib.import_module(name)


def _seconds(name: str, default: int) -> int:
    return int(os.environ.get(name, default))


def _leave(code: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
