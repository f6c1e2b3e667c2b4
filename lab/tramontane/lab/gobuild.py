"""Build commands from the Go modules under `lab/go`, once per version, and say how far it is.

One `go build` per module, so that commands of one module share the packages they have in
common. Debug information is left out at the compiler, not only at the linker: that saves a
fifth of the time. `go build -v` names each package when it has been compiled; against the
known number of them that is a true progress bar.

One process builds at a time. It writes into the lock file how far it is, for those that wait.
"""

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Protocol, TextIO

from tramontane.lab.binaries import BINARIES, MENDING, Binary, Module, bin_dir, built, unfit
from tramontane.lab.paths import LabError, cache_dir

_TAIL_LINES = 25
_PLAIN_EVERY_S = 20.0
# How often the lock file is written, and tried by those that wait for it.
_LOCK_EVERY_S = 1.0
_ENVIRONMENT = {"CGO_ENABLED": "0", "GOWORK": "off"}


class BuildFailed(LabError):  # noqa: N818 - named for the finding
    """A command could not be built; the message ends with what to do."""


class Progress(Protocol):
    """Whoever shows how far a build is."""

    def step(self, done: int, note: str) -> None:
        """Say that `done` packages in all are compiled; `note` names the last."""


class PlainProgress:
    """Print a line now and then: for logs and CI."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._started = self._said = time.monotonic()

    def step(self, done: int, note: str) -> None:
        """Print a line if the last one is old enough."""
        now = time.monotonic()
        if now - self._said < _PLAIN_EVERY_S:
            return
        self._said = now
        _say(_how_far(done, self._total, now - self._started, note))


class LockProgress:
    """Write into the lock file what a build does and how far it is; show it as another does."""

    def __init__(self, lock: TextIO, names: Sequence[str], total: int, shown: Progress) -> None:
        self._lock = lock
        self._who = f"process {os.getpid()} builds {', '.join(names)}"
        self._total = total
        self._shown = shown
        self._started = self._written = time.monotonic()
        _write(lock, self._who)

    def step(self, done: int, note: str) -> None:
        """Show it, and write it down if what is written is old enough."""
        self._shown.step(done, note)
        now = time.monotonic()
        if now - self._written < _LOCK_EVERY_S:
            return
        self._written = now
        far = _how_far(done, self._total, now - self._started, note)
        _write(self._lock, f"{self._who}: {far}")


def _how_far(done: int, total: int, took_s: float, note: str) -> str:
    """Return how far a build is: `43 % after 1:12, kubernetes: k8s.io/api/core/v1`."""
    return f"{min(99, 100 * done // total)} % after {_clock(took_s)}, {note}"


@contextmanager
def _progress(total: int, expected_s: int, names: Sequence[str]) -> Iterator[Progress]:
    """Show progress as fits the terminal: a bar where there is one, else plain lines."""
    _say(f"{', '.join(names)}: once, about {_clock(expected_s)} on two cores")
    started = time.monotonic()
    if not sys.stderr.isatty():
        yield PlainProgress(total)
    else:
        from rich import progress as bars  # noqa: PLC0415 - slow to import; only for a terminal
        from rich.console import Console  # noqa: PLC0415 - the same

        columns = (
            bars.TextColumn("build:"),
            bars.BarColumn(bar_width=32),
            bars.TextColumn("{task.percentage:3.0f} %"),
            bars.TimeElapsedColumn(),
            bars.TextColumn(f"of about {_clock(expected_s)}"),
            bars.TextColumn("{task.fields[note]}", style="dim"),
        )
        with bars.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("", total=total, note="")

            class Terminal:
                def step(self, done: int, note: str) -> None:
                    bar.update(task, completed=min(done, total - 1), note=note[-40:])

            yield Terminal()
    _say(f"done in {_clock(time.monotonic() - started)}")


def _say(text: str) -> None:
    """Tell a person, beside whatever standard output is for."""
    print(f"build: {text}", file=sys.stderr, flush=True)  # noqa: T201 - for people


def _clock(seconds: float) -> str:
    """Write seconds as m:ss."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


@contextmanager
def _lock() -> Iterator[TextIO]:
    """Let one process build at a time; say how far another one is that is at it."""
    cache_dir().mkdir(parents=True, exist_ok=True)
    with (cache_dir() / "build.lock").open("a+") as lock:  # not "w": another may have written in it
        _wait_for(lock)
        try:
            _write(lock, "")
            yield lock
        finally:
            _write(lock, "")


def _wait_for(lock: TextIO) -> None:
    """Take the lock; as long as another process has it, say now and then what that one does."""
    said: float | None = None
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            now = time.monotonic()
            if said is None or now - said >= _PLAIN_EVERY_S:
                said = now
                lock.seek(0)
                _say(f"waiting: {lock.read() or 'another process is building'}")
            time.sleep(_LOCK_EVERY_S)
        else:
            return


def _write(lock: TextIO, text: str) -> None:
    """Let the lock file hold this and nothing else."""
    lock.truncate(0)
    lock.write(text)
    lock.flush()


def build(binaries: Sequence[Binary]) -> None:
    """Build the commands into the cache, all or an error; returns when they are in place.

    Raises:
        BuildFailed: Go is missing, or `go build` failed.
    """
    go = shutil.which("go")
    if go is None:
        absent = ", ".join(binary.name for binary in binaries)
        got = "; ".join((*(why for binary in binaries for why in unfit(binary)), "no `go` on PATH"))
        raise BuildFailed(
            f"{absent}: must be on this machine or be built with Go 1.26 or newer (got {got});"
            " install Go, or point KUBEBUILDER_ASSETS at a folder that has them"
        )
    with _lock() as lock:
        wanted = [
            binary for binary in BINARIES.values() if binary in binaries and not built(binary)
        ]
        if not wanted:
            return
        for binary in wanted:
            for why in unfit(binary):
                _say(f"{binary.name}: {why}; building")
        total = sum(binary.packages for binary in wanted)
        expected_s = sum(binary.expected_s for binary in wanted)
        names = [binary.name for binary in wanted]
        with _progress(total, expected_s, names) as shown:
            progress = LockProgress(lock, names, total, shown)
            done = 0
            for _, group in groupby(wanted, key=lambda binary: binary.module.name):
                together = list(group)
                done = _build_module(go, together[0].module, together, progress, done)


def _build_module(
    go: str, module: Module, binaries: Sequence[Binary], progress: Progress, done: int
) -> int:
    """Run one `go build`, move its commands into place, and return the packages done so far."""
    expected = done + sum(binary.packages for binary in binaries)
    bin_dir().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=bin_dir(), prefix=".build-") as folder:
        # A folder as -o takes several commands; a lone command may be named by its last
        # path element only (etcd's is "v3"), so it is given its file.
        target = f"{folder}/{binaries[0].name}" if len(binaries) == 1 else f"{folder}/"
        argv = [
            go, "build", "-v", "-trimpath", "-gcflags=all=-dwarf=false",
            *(("-tags", module.tags) if module.tags else ()),
            *_mended(go, module, Path(folder)),
            "-ldflags", f"-s -w {module.stamp}", "-o", target,
            *(binary.package for binary in binaries),
        ]  # fmt: skip
        env = os.environ | _ENVIRONMENT
        tail: deque[str] = deque(maxlen=_TAIL_LINES)
        with subprocess.Popen(  # noqa: S603 - the command is ours
            argv, cwd=module.folder, env=env, text=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        ) as process:  # fmt: skip
            assert process.stderr is not None
            for line in process.stderr:
                note = line.rstrip()
                tail.append(note)
                if not note.startswith("go: "):
                    done += 1
                progress.step(min(done, expected), f"{module.name}: {note}")
        if process.returncode != 0:
            said = "\n".join(f"  {line}" for line in tail)
            raise BuildFailed(
                f"{module.name} {module.version}: `go build` must succeed (got exit code"
                f" {process.returncode}); its last lines:\n{said}\n"
                "  Check that the Go module proxy can be reached (GOPROXY), that Go is 1.26 or"
                f" newer, and that {cache_dir()} has 1 GB to spare; then run it again: what is"
                " compiled is kept"
            )
        for binary in binaries:
            (Path(folder) / binary.name).replace(bin_dir() / binary.name)
            binary.stamp_file.parent.mkdir(exist_ok=True)
            binary.stamp_file.write_text(binary.key())
    return expected


def _mended(go: str, module: Module, folder: Path) -> list[str]:
    """Return the flag by which a copy of the module that we mend is built, with our files in it.

    Go's own overlay does not reach into its module cache.

    Raises:
        BuildFailed: that module cannot be had, or is not the one that we mend.
    """
    if not module.mends:
        return []
    where = ""
    for what in (("mod", "download"), ("list", "-m", "-f", "{{.Dir}}")):
        done = subprocess.run(  # noqa: S603 - the command is ours
            [go, *what, module.mends], cwd=module.folder, env=os.environ | _ENVIRONMENT,
            text=True, capture_output=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise BuildFailed(
                f"{module.mends}: must be downloaded (got exit code {done.returncode}: "
                f"{done.stderr.strip()}); check that the Go module proxy can be reached (GOPROXY)"
            )
        where = done.stdout.strip()
    copy = folder / "mended"
    shutil.copytree(where, copy, copy_function=shutil.copyfile)
    for ours in module.mending:
        target = copy / ours.relative_to(module.folder / MENDING)
        target.unlink()
        shutil.copyfile(ours, target)
    for edit in module.edits:
        text = (copy / edit.file).read_text()
        if text.count(edit.old) != 1:
            raise BuildFailed(f"{module.mends}: {edit.file} must have {edit.old!r} once")
        (copy / edit.file).write_text(text.replace(edit.old, edit.new))
    asked = (module.folder / "go.mod").read_text()
    (folder / "go.mod").write_text(f"{asked}\nreplace {module.mends} => {copy}\n")
    shutil.copyfile(module.folder / "go.sum", folder / "go.sum")
    return ["-modfile", str(folder / "go.mod")]
