"""Start processes, know them again, and stop every one of them.

Two ways of living:

* *attached*: the children die with us, whatever kills us (Linux tells the kernel so with
  PR_SET_PDEATHSIG, which goes by the thread: start them from the main one); for tests,
  benchmarks and demos;
* *detached*: they outlive us and are written down in `processes.json`, with their start
  time, so that a later `down` stops them and never a stranger that got the same pid.
"""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tramontane.lab.paths import LabError

_PR_SET_PDEATHSIG = 1
_POLL_S = 0.02
_TAIL_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Record:
    """One started process, enough to find it again from another process."""

    name: str
    pid: int
    started: int  # clock ticks since boot: with the pid, unique
    log: str
    gentle: bool  # ended by SIGTERM first; the others hold nothing worth a good-bye
    argv: tuple[str, ...] = field(default=(), repr=False)


def _stat(pid: int) -> list[str] | None:
    """Return the fields of /proc/PID/stat from the state on, or None when it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(")")[2].split()


def start_ticks(pid: int) -> int | None:
    """Return when the process started, or None when it is gone or only a zombie."""
    fields = _stat(pid)
    return None if fields is None or fields[0] in "ZX" else int(fields[19])


def rss_mib(pid: int) -> float:
    """Return the resident memory of a process in MiB (0 when it is gone)."""
    fields = _stat(pid)
    return 0.0 if fields is None else int(fields[21]) * os.sysconf("SC_PAGESIZE") / 2**20


def alive(record: Record) -> bool:
    """Tell whether the very process that was recorded still runs."""
    return start_ticks(record.pid) == record.started


def log_tail(path: str | Path, lines: int = 12) -> str:
    """Return the last lines of a log, indented, for an error message."""
    try:
        with Path(path).open("rb") as log:
            log.seek(0, os.SEEK_END)
            log.seek(max(0, log.tell() - _TAIL_BYTES))
            text = log.read().decode(errors="replace")
    except FileNotFoundError:
        return "  (no log)"
    return "\n".join(f"  {line}" for line in text.splitlines()[-lines:])


def _die_with_parent(parent: int) -> Callable[[], None] | None:
    """Return what a child runs before exec so that it dies when `parent` does."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None, use_errno=True)

    def arrange() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)

    return arrange


class Processes:
    """The processes of one lab folder."""

    def __init__(self, folder: Path, *, attached: bool = True) -> None:
        self.folder = folder
        self.attached = attached
        self._records: dict[str, Record] = {}
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    @classmethod
    def load(cls, folder: Path) -> "Processes":
        """Read what an earlier process started detached in this folder."""
        processes = cls(folder, attached=False)
        try:
            raw = json.loads((folder / "processes.json").read_text())
        except FileNotFoundError:
            return processes
        for entry in raw:
            record = Record(**(entry | {"argv": tuple(entry["argv"])}))
            processes._records[record.name] = record
        return processes

    @property
    def records(self) -> tuple[Record, ...]:
        """All that was started, in that order."""
        return tuple(self._records.values())

    def running(self) -> list[Record]:
        """Return those that still run."""
        return [record for record in self.records if self._running(record)]

    def get(self, name: str) -> Record:
        """Return one by its name."""
        return self._records[name]

    def start(
        self,
        name: str,
        argv: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        gentle: bool = False,
    ) -> Record:
        """Start a process with its output in `logs/NAME.log` and record it."""
        if (old := self._records.get(name)) and alive(old):
            raise LabError(
                f"process {name}: must not run twice (got pid {old.pid} in {self.folder});"
                " `tramontane lab down` stops it"
            )
        logs = self.folder / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        log = logs / f"{name}.log"
        words = tuple(str(word) for word in argv)
        with log.open("ab") as output:
            child = subprocess.Popen(  # noqa: S603 - the lab's own commands
                words,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | (env or {}),
                start_new_session=True,  # Ctrl-C is for us; we stop them in order
                preexec_fn=_die_with_parent(os.getpid()) if self.attached else None,  # noqa: PLW1509 - one prctl, no locks
            )
        started = start_ticks(child.pid)
        record = Record(name, child.pid, started or 0, str(log), gentle, words)
        if self.attached:
            self._children[name] = child
        else:
            child.returncode = 0  # it is not ours to wait for: /proc tells whether it lives
        self._records[name] = record
        self._save()
        return record

    def check(self, names: Iterable[str] | None = None) -> None:
        """Ensure that the named processes (all) still run.

        Raises:
            LabError: one has ended; the message has the end of its log.
        """
        for record in self.records if names is None else map(self.get, names):
            if not self._running(record):
                raise LabError(
                    f"process {record.name}: must run (got: it ended); its last lines in"
                    f" {record.log}:\n{log_tail(record.log)}"
                )

    def kill(self, name: str, sig: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to one process, if it is still the one that was started."""
        record = self.get(name)
        if self._running(record):
            with contextlib.suppress(ProcessLookupError):
                os.kill(record.pid, sig)

    def stop(self, *names: str, gentle_s: float = 5.0) -> None:
        """Stop the named processes (all, newest first) and wait until they are gone."""
        chosen = [self.get(name) for name in names] or list(reversed(self.records))
        for record in chosen:
            self.kill(record.name, signal.SIGCONT)  # a stopped process hears no SIGTERM
            self.kill(record.name, signal.SIGTERM if record.gentle else signal.SIGKILL)
        deadline = time.monotonic() + gentle_s
        for record in chosen:
            while self._running(record):
                if time.monotonic() > deadline:
                    self.kill(record.name)
                time.sleep(_POLL_S)
            self._children.pop(record.name, None)
            del self._records[record.name]
        self._save()

    def _running(self, record: Record) -> bool:
        """Tell whether a process runs, reaping it if it was our child and has ended."""
        if child := self._children.get(record.name):
            return child.poll() is None
        return alive(record)

    def _save(self) -> None:
        """Write the table for other processes, whole or not at all."""
        path = self.folder / "processes.json"
        if self.folder.is_dir():
            draft = path.with_suffix(".draft")
            draft.write_text(json.dumps([asdict(record) for record in self.records], indent=1))
            draft.replace(path)
