"""Keep one rank running inside its pod: PID 1 of the rank's container.

One file, standard library only, Python 3.8 or later: it is put into pods by a ConfigMap and runs
under whatever `python3` the image has. Usage: `python3 rankagent.py COMMAND [ARGUMENT ...]`.

    start the rank ─► exit 0 ─► exit 0
         ▲        ├─► exit ≠ 0 or a signal ─► wait for a new epoch ─► none came: exit the same
         └────────┴── new epoch: end all its processes (TERM, then KILL), start it again

The wanted epoch and the peers' addresses are annotations of the pod, seen as files of a
downward-API volume. A survivor of a lost peer ends by itself, or hangs; either way the operator
raises the epoch once the peer has been replaced, and the rank starts anew without the kubelet's
restart back-off. One line per event goes to standard error, for people and for the operator.

Environment: TRAMONTANE_AGENT_FOLDER (files `epoch` and `peers`), TRAMONTANE_AGENT_WAIT_S (how long
a failed rank waits for a new epoch), TRAMONTANE_AGENT_GRACE_S (between TERM and KILL).
"""
# ruff: noqa: PTH118, PTH123, PTH208 - pathlib costs a third of the start-up time

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import sys
import time
from contextlib import suppress
from typing import Any, NoReturn

POLL_S = 0.1
# A rank of the first attempt that fails this soon after its start has no lost peer to wait for.
QUICK_S = 10.0
QUICK_WAIT_S = 3.0
# What even KILL does not end in this time is stuck in its driver: only a new pod helps.
UNKILLABLE_S = 30.0
EXIT_USAGE = 2
EXIT_STUCK = 70
EXIT_CANNOT_START = 127

ENDING = (signal.SIGTERM, signal.SIGINT)
PASSED_ON = (*ENDING, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
WATCHED = frozenset(PASSED_ON) | {signal.SIGCHLD}
_PR_SET_CHILD_SUBREAPER = 36


def say(event: str, **fields: object) -> None:
    """Print one event as key=value, in one write."""
    words = [f"event={event}", *(f"{name}={value}" for name, value in fields.items())]
    sys.stderr.write("tramontane-agent " + " ".join(words) + "\n")
    sys.stderr.flush()


class Wanted:
    """Read what the operator wants of this pod."""

    def __init__(self, folder: str, first_epoch: int) -> None:
        self._folder = folder
        self._epoch = first_epoch

    def epoch(self) -> int:
        """Return the wanted epoch; the last one seen while the file cannot be read."""
        text = self._read("epoch").strip()
        if text.isdigit():
            self._epoch = int(text)
        return self._epoch

    def peers(self) -> dict[str, str]:
        """Return the addresses of replaced seats, by seat."""
        try:
            peers = json.loads(self._read("peers") or "{}")
        except ValueError:
            return {}
        return peers if isinstance(peers, dict) else {}

    def _read(self, name: str) -> str:
        try:
            with open(os.path.join(self._folder, name), encoding="utf-8") as file:
                return file.read()
        except OSError:
            return ""


def environment(base: dict[str, str], epoch: int, peers: dict[str, str]) -> dict[str, str]:
    """Return the rank's environment in this epoch.

    Where seat 0 has moved, its address goes in by number: a name may still be cached somewhere.
    """
    env = dict(base)
    env["TRAMONTANE_ATTEMPT"] = str(epoch)
    if peers:
        env["TRAMONTANE_PEERS"] = json.dumps(peers, sort_keys=True)
    master = peers.get("0")
    if master and env.get("TRAMONTANE_SEAT") != "0":
        for name in ("MASTER_ADDR", "PET_MASTER_ADDR"):
            if name in env:
                env[name] = master
        coordinator = env.get("JAX_COORDINATOR_ADDRESS", "")
        if ":" in coordinator:
            host = f"[{master}]" if ":" in master else master
            env["JAX_COORDINATOR_ADDRESS"] = host + ":" + coordinator.rsplit(":", 1)[1]
    return env


def descendants(root: int) -> set[int]:
    """Return the process ids below `root`, however deep; those that wait to be reaped too."""
    parent_of = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            # A process may end while we look.
            with (
                suppress(OSError, IndexError, ValueError),
                open(f"/proc/{name}/stat", "rb") as file,
            ):
                parent_of[int(name)] = int(file.read().rsplit(b")", 1)[1].split()[1])
    found, grown = {root}, True
    while grown:
        below = {pid for pid, parent in parent_of.items() if parent in found} - found
        found |= below
        grown = bool(below)
    return found - {root}


class Rank:
    """Hold the rank's process and all that came of it."""

    def __init__(self, command: list[str]) -> None:
        self._command = command
        self.pid = 0
        self.code: int | None = None
        self.started_at = 0.0

    def start(self, env: dict[str, str]) -> None:
        """Start the command in a session of its own."""
        self.code, self.started_at = None, time.monotonic()
        self.pid = os.fork()
        if self.pid == 0:
            self._become(env)

    def _become(self, env: dict[str, str]) -> NoReturn:
        try:
            os.setsid()
            for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores these; ranks do not
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, WATCHED)
            os.execvpe(self._command[0], self._command, env)  # noqa: S606 - it is the user's own
        except OSError as error:
            why = errno.errorcode.get(error.errno or 0, "unknown")
            say("cannot-start", command=self._command[0], error=why)
        finally:
            os._exit(EXIT_CANNOT_START)

    def reap(self) -> None:
        """Collect every process that has ended, ours or an orphan of the rank's."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.pid:
                exited = os.WIFEXITED(status)
                self.code = os.WEXITSTATUS(status) if exited else 128 + os.WTERMSIG(status)

    def signal_group(self, number: int) -> None:
        """Pass a signal on to the rank's process group."""
        with suppress(ProcessLookupError):  # it ended before the signal came
            os.killpg(self.pid, number)

    def end(self, grace_s: float) -> bool:
        """End every process: TERM to the group, then KILL to all; return whether all are gone.

        Launchers put workers into sessions of their own, so the group is not all there is.
        """
        self.signal_group(signal.SIGTERM)
        kill_at = time.monotonic() + grace_s
        give_up_at = kill_at + UNKILLABLE_S
        while True:
            self.reap()
            left = descendants(os.getpid())
            if not left:
                return True
            now = time.monotonic()
            if now >= give_up_at:
                return False
            # Once the rank itself is gone, what it left behind has nobody to ask it to end.
            if now >= kill_at or self.code is not None:
                for pid in left:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)


class Agent:
    """Run the rank through its epochs."""

    def __init__(self, command: list[str], env: dict[str, str]) -> None:
        self._env = env
        self._wanted = Wanted(
            env.get("TRAMONTANE_AGENT_FOLDER", "/tramontane/pod"),
            int(env.get("TRAMONTANE_ATTEMPT", "1")),
        )
        self._wait_s = float(env.get("TRAMONTANE_AGENT_WAIT_S", "60"))
        self._grace_s = float(env.get("TRAMONTANE_AGENT_GRACE_S", "5"))
        self._rank = Rank(command)
        self._epoch = self._wanted.epoch()
        self._ending = False
        self._give_up_at: float | None = None  # of a rank that has ended

    def run(self) -> int:
        """Return the exit code of the container."""
        self._start()
        while True:
            self._handle(signal.sigtimedwait(WATCHED, POLL_S))
            self._rank.reap()
            if self._rank.code is not None and self._is_over(self._rank.code):
                self._rank.end(0.0)
                return self._rank.code
            if not self._ending and self._wanted.epoch() > self._epoch and not self._restart():
                return EXIT_STUCK

    def _start(self) -> None:
        env = environment(self._env, self._epoch, self._wanted.peers())
        self._give_up_at = None
        self._rank.start(env)
        say("started", attempt=self._epoch, pid=self._rank.pid)

    def _handle(self, received: Any) -> None:
        if received is None or received.si_signo == signal.SIGCHLD:
            return
        if received.si_signo in ENDING:
            self._ending = True
        say("signal", number=received.si_signo)
        if self._rank.code is None:
            self._rank.signal_group(received.si_signo)

    def _is_over(self, code: int) -> bool:
        """Return whether the container should end, too, now that the rank has."""
        now = time.monotonic()
        if self._give_up_at is None:
            waits = 0.0 if code == 0 or self._ending else self._patience_s(now)
            say("exited", attempt=self._epoch, code=code, waits=f"{waits:g}s")
            self._give_up_at = now + waits
        return self._ending or now >= self._give_up_at

    def _patience_s(self, now: float) -> float:
        quick = self._epoch <= 1 and now - self._rank.started_at < QUICK_S
        return min(self._wait_s, QUICK_WAIT_S) if quick else self._wait_s

    def _restart(self) -> bool:
        wanted = self._wanted.epoch()
        say("restarting", attempt=wanted, after=self._epoch)
        if not self._rank.end(self._grace_s):
            say("stuck", attempt=self._epoch, left=len(descendants(os.getpid())))
            return False
        self._epoch = wanted
        self._start()
        return True


def adopt_orphans() -> None:
    """Become the parent of the rank's orphans; PID 1 is that already."""
    if os.getpid() == 1:
        return
    try:
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    except (OSError, AttributeError):
        say("no-subreaper")


def main(arguments: list[str]) -> int:
    """Run the agent over a command."""
    if not arguments:
        sys.stderr.write("usage: rankagent.py COMMAND [ARGUMENT ...]\n")
        return EXIT_USAGE
    signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    adopt_orphans()
    return Agent(arguments, dict(os.environ)).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
