"""Say what an active check found: one JSON line, and an exit code that is the verdict.

| verdict | exit code | meaning                                                              |
|---------|-----------|----------------------------------------------------------------------|
| PASS    | 0         | everything asked for was done and seen to be right                   |
| FAIL    | 1         | the hardware gave a wrong answer, or a slower one than asked for     |
| ERROR   | 2         | the checker broke or was stopped: nothing is known of the blade      |
| (usage) | 3         | the command line is wrong; also an ERROR                             |

Only FAIL condemns a blade, so whatever is not the hardware's doing must end as ERROR, and never
with the 1 of an interpreter that dies. The line is the last one on standard output, and the
container's termination message. Exactly one is written, also when SIGTERM comes while the last
call into a driver does not return.
"""

import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, NoReturn, TextIO

TERMINATION_LOG = Path("/dev/termination-log")
# Source: Kubernetes, "Customizing the termination message": 4096 bytes per container.
MAX_LINE_BYTES = 4096
MAX_REASON_CHARS = 512
EXIT_USAGE = 3
STOPPED = "stopped"


class Verdict(Enum):
    """Name the verdicts; the value is the exit code."""

    PASS = 0
    FAIL = 1
    ERROR = 2


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a check found. `value` is the figure that people compare, in `unit`."""

    check: str
    verdict: Verdict
    reason: str
    value: float | None = None
    unit: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """Return the verdict as an exit code, or that of a wrong command line."""
        return EXIT_USAGE if "usage" in self.details else self.verdict.value

    def line(self) -> str:
        """Return the JSON line, without details where they would make it too long."""
        reason = self.reason
        if len(reason) > MAX_REASON_CHARS:
            reason = reason[: MAX_REASON_CHARS - 1] + "…"
        shown = {
            "check": self.check,
            "verdict": self.verdict.name,
            "value": None if self.value is None else round(self.value, 3),
            "unit": self.unit,
            "reason": " ".join(reason.split()),
            "details": dict(self.details),
        }
        line = json.dumps(shown, default=str)
        if len(line) < MAX_LINE_BYTES:
            return line
        return json.dumps(shown | {"details": {"left_out": "longer than the message may be"}})


class Speaker:
    """Write the outcome, once: whoever comes first is heard."""

    def __init__(self, check: str, termination_log: Path = TERMINATION_LOG) -> None:
        self._check = check
        self.termination_log = termination_log
        self._lock = threading.Lock()
        self._last_words: list[Callable[[], object]] = []
        self.stage = "start"

    def note(self, text: str) -> None:
        """Tell people how far it is, and remember it for the outcome of a stop."""
        self.stage = text
        _write(sys.stderr, text)

    def say(self, outcome: Outcome) -> int:
        """Write the line to both places and return the exit code; wait for ever if it was said."""
        self._lock.acquire()  # never released: the process ends with what was said
        line = outcome.line()
        with suppress(OSError):  # outside a container; standard output has it
            if self.termination_log.exists():
                self.termination_log.write_text(line + "\n")
        _write(sys.stdout, line)
        return outcome.exit_code

    def error(self, reason: str, **details: Any) -> Outcome:
        """Return the outcome of a checker that broke."""
        return Outcome(self._check, Verdict.ERROR, reason, details=details)

    def before_stop(self, act: Callable[[], object]) -> None:
        """Do `act` when SIGTERM comes: end the processes that were started."""
        self._last_words.append(act)

    def stop_on_signals(self) -> None:
        """End the process at once on SIGTERM or SIGINT, from a thread of its own.

        The main thread may be inside a call that never returns, where a handler in Python would
        not run; the one in C below it does, and wakes the thread.
        """
        reads, writes = os.pipe()
        os.set_blocking(writes, False)
        signal.set_wakeup_fd(writes, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)

        def watch() -> None:
            os.read(reads, 1)
            for act in self._last_words:
                act()
            os._exit(self.say(self.error(STOPPED, during=self.stage)))

        threading.Thread(target=watch, name="stop", daemon=True).start()


def guarded(speaker: Speaker, work: Callable[[], Outcome]) -> int:
    """Do the work and say its outcome; whatever it raises means that the checker broke."""
    try:
        speaker.stop_on_signals()
        outcome = work()
    except BaseException as error:  # noqa: BLE001 nothing that breaks here may condemn a blade
        if isinstance(error, SystemExit) and not error.code:  # --help
            sys.stdout.flush()
            return Verdict.PASS.value
        outcome = speaker.error(f"{type(error).__name__}: {error}", during=speaker.stage)
    return speaker.say(outcome)


def leave(main: Callable[[], int]) -> NoReturn:
    """End the process with the exit code that `main` returns; with ERROR's where it raises.

    It does not end as Python does: that waits for threads, of which one may hang in a driver, and
    makes a code of its own of an exception, or of a standard output that is full.
    """
    code = Verdict.ERROR.value
    try:
        code = main()
    except BaseException:  # noqa: BLE001 the last one who could look at it
        traceback.print_exc()
    finally:
        os._exit(code)


def _write(stream: TextIO | None, text: str) -> None:
    """Write a line where that can be: a pipe without a reader or a full disk is no verdict."""
    if stream is not None:
        with suppress(OSError, ValueError):  # ValueError: it is closed
            stream.write(text + "\n")
            stream.flush()
