"""Keep one rank running inside its pod: PID 1 of the rank's container.

One file, standard library only, Python 3.8 or later: it is put into pods by a ConfigMap and runs
under whatever `python3` the image has. Usage: `python3 rankagent.py COMMAND [ARGUMENT ...]`.

    start the rank ─► exit 0 ─► exit 0
         ▲        ├─► exit ≠ 0 or a signal ─► wait for a new epoch ─► none came: exit the same
         │        ├─► drain: TERM, it saves and ends ─► wait for a new epoch ─► none: exit 143
         └────────┴── new epoch: end all its processes (TERM, then KILL), start it again

What is wanted are annotations of the pod, seen as files of a downward-API volume. A survivor of a
lost peer ends by itself, or hangs; either way the operator raises the epoch once the peer has been
replaced, and the rank starts anew without the kubelet's restart back-off. One line per event goes
to standard error, for people and for the operator.

Environment: TRAMONTANE_AGENT_FOLDER (files `epoch`, `peers`, `drain`),
TRAMONTANE_AGENT_WAIT_S (how long a failed rank waits for a new epoch), TRAMONTANE_AGENT_BACKOFF_S
(how long the operator lets pass before it restarts a first crash), TRAMONTANE_AGENT_GRACE_S
(between TERM and KILL).
"""
# ruff: noqa: E402, PTH100, PTH118, PTH120, PTH123, PTH208 - pathlib costs a third of the start-up time

from __future__ import annotations

import signal

ENDING = (signal.SIGTERM, signal.SIGINT)
if __name__ == "__main__":
    # First of all: what is neither handled nor blocked, the kernel drops where it is for PID 1.
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)

import ctypes
import errno
import json
import os
import sys
import time
from contextlib import suppress
from typing import Any, NoReturn

POLL_S = 0.1
# A rank that fails this soon after its start has hardly lost a peer: it failed by itself.
QUICK_S = 10.0
# The operator needs so long, besides its back-off, to see a crash and to raise the epoch.
DECISION_S = 20.0
# A rank that has done its work, or was told so by a peer.
DONE_S = 3.0
# A replacement may find its peers' last life still ending, and die with it: it is started again
# after a pause, for so long beyond the grace that they have.
MEETS_S = 15.0
PAUSE_S = 1.0
# A drained rank waits so much longer: its successor may have to wait for a blade first.
DRAINED_S = 600.0
# What even KILL does not end in this time is stuck in its driver: only a new pod helps.
UNKILLABLE_S = 30.0
EXIT_USAGE = 2
EXIT_STUCK = 70
EXIT_CANNOT_START = 127
# Of a rank that ended well because it was told to: it has not finished its work.
EXIT_TOLD = 128 + signal.SIGTERM

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
        self._epoch = self._number("epoch") or self._epoch
        return self._epoch

    def drained(self) -> int:
        """Return the attempt whose rank is to save and end; 0 while none is."""
        return self._number("drain")

    def peers(self) -> dict[str, str]:
        """Return the addresses of replaced seats, by seat."""
        try:
            peers = json.loads(self._read("peers") or "{}")
        except ValueError:
            return {}
        return peers if isinstance(peers, dict) else {}

    def _number(self, name: str) -> int:
        return number(self._read(name).strip())

    def _read(self, name: str) -> str:
        try:
            with open(os.path.join(self._folder, name), encoding="utf-8") as file:
                return file.read()
        except OSError:
            return ""


def environment(base: dict[str, str], epoch: int, peers: dict[str, str]) -> dict[str, str]:
    """Return the rank's environment in this epoch.

    Where the first seat (of its replica group) has moved, its address goes in by number: a name
    may still be cached somewhere. The folder of this file goes last into PYTHONPATH.
    """
    env = dict(base)
    env["TRAMONTANE_ATTEMPT"] = str(epoch)
    ours = os.path.dirname(os.path.abspath(__file__))
    env["PYTHONPATH"] = os.pathsep.join(filter(None, (env.get("PYTHONPATH"), ours)))
    if env.get("PET_RDZV_BACKEND") == "c10d":  # who is late for an old epoch must not join this one
        env["PET_RDZV_ID"] = f"{env.get('PET_RDZV_ID', '')}-{epoch}"
    if peers:
        env["TRAMONTANE_PEERS"] = json.dumps(peers, sort_keys=True)
    seat, first = env.get("TRAMONTANE_SEAT", ""), "0"
    if "REPLICA_GROUP_ID" in env:
        first = str(number(seat) - number(env.get("PET_NODE_RANK", "0")))
    master = peers.get(first)
    if master and seat != first:
        host = f"[{master}]" if ":" in master else master
        for name in ("MASTER_ADDR", "PET_MASTER_ADDR"):
            if name in env:
                env[name] = master
        for name in ("JAX_COORDINATOR_ADDRESS", "PET_RDZV_ENDPOINT"):
            if ":" in env.get(name, ""):
                env[name] = host + ":" + env[name].rsplit(":", 1)[1]
    return env


def number(text: str) -> int:
    """Return the number, or 0 where the text is none."""
    return int(text) if text.isdigit() else 0


def parent(pid: str) -> int:
    """Return the parent of a process; -1 where it has ended while we looked."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rsplit(b")", 1)[1].split()[1])
    except (OSError, IndexError, ValueError):
        return -1


def descendants(root: int) -> set[int]:
    """Return the process ids below `root`, however deep; those that wait to be reaped too."""
    parent_of = {int(name): parent(name) for name in os.listdir("/proc") if name.isdigit()}
    found, grown = {root}, True
    while grown:
        below = {pid for pid, above in parent_of.items() if above in found} - found
        found |= below
        grown = bool(below)
    return found - {root}


def signal_each(pids: set[int], number: int) -> None:
    """Send a signal to each process that is still there."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


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
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:  # it has just ended, or has no group of its own yet
            if self.code is None:
                signal_each({self.pid}, number)

    def ask_to_end(self, number: int = signal.SIGTERM) -> None:
        """Signal the group, and let all that is stopped go on, or it would never know."""
        self.signal_group(number)
        signal_each(descendants(os.getpid()), signal.SIGCONT)

    def end(self, grace_s: float) -> bool:
        """End every process: TERM to the group, then KILL to all; return whether all are gone.

        Launchers put workers into sessions of their own, so the group is not all there is.
        """
        self.ask_to_end()
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
                signal_each(left, signal.SIGKILL)
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
        self._backoff_s = float(env.get("TRAMONTANE_AGENT_BACKOFF_S", "10"))
        self._grace_s = float(env.get("TRAMONTANE_AGENT_GRACE_S", "5"))
        self._is_first = env.get("TRAMONTANE_SEAT", "0") == "0"
        self._rank = Rank(command)
        self._epoch = self._wanted.epoch()
        is_replacement = self._epoch > 1 and not self._is_first
        self._meets_until = time.monotonic() + self._grace_s + MEETS_S if is_replacement else 0.0
        self._ending = self._draining = False
        self._give_up_at: float | None = None  # of a rank that has ended

    def run(self) -> int:
        """Return the exit code of the container."""
        self._start()
        while True:
            self._handle(signal.sigtimedwait(WATCHED, POLL_S))
            self._rank.reap()
            # Before the exit is looked at: what ended after the order is drained, not done.
            if not self._draining and self._wanted.drained() == self._epoch:
                self._drain()
            if self._rank.code is not None and self._has_met_the_old(self._rank.code):
                self._start_again(self._rank.code)
            if self._rank.code is not None and self._is_over(self._rank.code):
                self._rank.end(0.0)
                told = self._ending or self._draining
                if self._rank.code == 0 and not told:
                    self._tell_done()
                return self._rank.code or (EXIT_TOLD if told else 0)
            if not self._ending and self._wanted.epoch() > self._epoch and not self._restart():
                return EXIT_STUCK

    def _tell_done(self) -> None:
        """Leave which attempt is done: the pod may be of a newer one, whose order came too late."""
        path = self._env.get("TRAMONTANE_TERMINATION_LOG", "/dev/termination-log")
        try:
            log = os.open(path, os.O_WRONLY | os.O_TRUNC)  # never made by us: the kubelet did
        except OSError:
            return
        os.write(log, json.dumps({"attempt": self._epoch}).encode())
        os.close(log)

    def _start(self) -> None:
        env = environment(self._env, self._epoch, self._wanted.peers())
        self._give_up_at, self._draining = None, False
        self._rank.start(env)
        say("started", attempt=self._epoch, pid=self._rank.pid)

    def _handle(self, received: Any) -> None:
        if received is None or received.si_signo == signal.SIGCHLD:
            return
        say("signal", number=received.si_signo)
        is_ending = received.si_signo in ENDING
        self._ending = self._ending or is_ending
        if self._rank.code is None:
            send = self._rank.ask_to_end if is_ending else self._rank.signal_group
            send(received.si_signo)

    def _drain(self) -> None:
        """Ask the rank once to save and end; it takes what time it needs."""
        self._draining = True
        say("draining", attempt=self._epoch)
        if self._rank.code is None:
            self._rank.ask_to_end()
        elif self._give_up_at is not None:  # it had ended before: its successor is under way
            self._give_up_at += DRAINED_S

    def _has_met_the_old(self, code: int) -> bool:
        """Return whether the rank may have failed with its peers' last life, and not with ours."""
        told = self._ending or self._draining or self._wanted.epoch() > self._epoch
        return code != 0 and not told and time.monotonic() < self._meets_until

    def _start_again(self, code: int) -> None:
        say("retrying", attempt=self._epoch, code=code, after=f"{PAUSE_S:g}s")
        self._rank.end(0.0)
        time.sleep(PAUSE_S)
        self._start()

    def _is_over(self, code: int) -> bool:
        """Return whether the container should end, too, now that the rank has."""
        now = time.monotonic()
        if self._give_up_at is None:
            waits = self._patience_s(code, now)
            say("exited", attempt=self._epoch, code=code, waits=f"{waits:g}s")
            self._give_up_at = now + waits
        return self._ending or now >= self._give_up_at

    def _patience_s(self, code: int, now: float) -> float:
        """Return how long an ended rank waits for the next epoch.

        The operator sees the exit of seat 0 in its log, and that of other seats when seat 0 ends,
        too. A seat that fails alone while seat 0 waits for it is seen by the end of its pod only:
        so its pod ends, but not before the operator would have restarted all of them, since a
        mistake that ends all alike must not cost a pod.

        | the rank | waits |
        |---|---|
        | was drained | WAIT + 600 s |
        | the container is told to end | not at all |
        | ended with 0 | 3 s: its peers may have been drained before this agent has seen the order |
        | failed within 10 s of its start, not seat 0 | BACKOFF, doubled per attempt, + 20 s |
        | failed otherwise | WAIT |
        """
        if self._ending:
            return 0.0
        if self._draining:
            return self._wait_s + DRAINED_S
        if code == 0:
            return min(DONE_S, self._wait_s)
        if self._is_first or now - self._rank.started_at >= QUICK_S:
            return self._wait_s
        backoff_s = self._backoff_s * 2.0 ** min(self._epoch - 1, 20)
        return min(self._wait_s, backoff_s + DECISION_S)

    def _restart(self) -> bool:
        wanted = self._wanted.epoch()
        say("restarting", attempt=wanted, after=self._epoch)
        if not self._rank.end(self._grace_s):
            say("stuck", attempt=self._epoch, left=len(descendants(os.getpid())))
            return False
        self._epoch, self._meets_until = wanted, 0.0
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
