"""Break the fake on purpose: each way in which engines break has a switch.

`POST /fake/NAME`, only with FAKE_VLLM_FAULTS=1, with an optional JSON object:

    die     {"code": 1, "after": 0}     the process ends at once, nothing is tidied up
    hang    {"for": 60, "deaf": true}   steps freeze, /health stays 200; deaf: SIGTERM is ignored
    slow    {"factor": 1.5}             every time of the engine is so much longer
    errors  {"rate": 1.0}               that part of the requests is answered with 500
    oom     {}                          the engine dies: /health 503, exit 1 a moment later
    clear   {}                          hang, slow and errors are over

With {"rank": N}, die and hang happen on another rank of a replica over several nodes.
"""

import math
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from . import logs


class Faults:
    """Hold what is broken now.

    Attributes:
        errors: part of the requests that fail.
        is_deaf: whether SIGTERM is ignored.
        slow: is told the factor; kill: is told why the engine dies.
        order: hands a fault to another rank; returns whether there is one.
    """

    names = ("die", "hang", "slow", "errors", "oom", "clear")

    def __init__(
        self,
        errors: float,
        slow: Callable[[float], None],
        kill: Callable[[str], None],
        order: Callable[[int, dict[str, Any]], bool],
    ) -> None:
        self.errors = errors
        self.is_deaf = False
        self._hangs_until = 0.0
        self._slow = slow
        self._kill = kill
        self._order = order

    @property
    def hangs(self) -> bool:
        """Tell whether steps are frozen."""
        return time.monotonic() < self._hangs_until

    def set(self, name: str, values: dict[str, Any]) -> None:
        """Make a fault happen.

        Raises:
            ValueError: a value is none, or there is no such fault or rank.
        """
        rank = int(values.get("rank", 0))
        if rank:
            rest = {key: value for key, value in values.items() if key != "rank"}
            if not self._order(rank, {"name": name, "values": rest}):
                raise ValueError(f"rank must be one of the replica's (got {rank})")
            return
        logs.warning("faults.py:1", f"fault {name} {values}")
        match name:
            case "die":
                self._die(int(values.get("code", 1)))
            case "hang":
                self.hang(float(values.get("for", math.inf)))
                self.is_deaf = bool(values.get("deaf"))
            case "slow":
                factor = float(values.get("factor", 2.0))
                if factor <= 0:
                    raise ValueError(f"factor must be over 0 (got {factor})")
                self._slow(factor)
            case "errors":
                self.errors = float(values.get("rate", 1.0))
            case "oom":
                self._kill(OOM)
            case "clear":
                self.clear()
            case _:
                raise ValueError(f"fault must be one of {', '.join(self.names)} (got {name})")

    def hang(self, for_s: float = math.inf) -> None:
        """Freeze the steps."""
        self._hangs_until = time.monotonic() + for_s

    def clear(self) -> None:
        """Mend what can be mended."""
        self._hangs_until = 0.0
        self.is_deaf = False
        self.errors = 0.0
        self._slow(1.0)

    @staticmethod
    def _die(code: int) -> None:
        sys.stdout.flush()
        os._exit(code)


OOM = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total "
    "capacity of 139.81 GiB of which 1.19 GiB is free."
)
