"""Keep one rank of an inference server running inside its pod: PID 1 of the engine's container.

Standard library only, Python 3.8 or later. Beside it lie `rankagent.py` (its processes),
`servingwanted.py` (what it is told), `servingrules.py` (its decisions), `servingengine.py` and
`servinghttp.py` (its eyes and ears), `weightcache.py` (what it keeps from being removed). Usage:
`python3 serving.py ENGINE [ARGUMENT ...]`.

    seat 0 ──────────────────────────► start the engine ─► serve ─► told to end: drain ─► exit 143
    others ─► wait for seat 0's agent ─┘      │              ├─► the engine died: exit its code
                                              │              ├─► seat 0: it hangs: exit 71
            seat 0: longer than its budget ◄──┘              └─► others: seat 0 is gone: exit 73
            exit 72

Exit 64: the operator's words make no sense here; 69: the weights were replaced since verified.

It never starts an engine twice: a replica lives and dies whole, and the operator sees by the exit
code, and by one line of JSON in the termination log, what there is to do. One line per event goes
to standard error; the engine's own output passes through untouched.

Environment: TRAMONTANE_SEAT, _NODES, _POD_IP, _AGENT_FOLDER (files `peers`, `adapters`), _STATE
(file `weights.json`), _AGENT_PORT, _API_PORT, _HEALTH_PATH, _STEPS_METRIC, _BUSY_METRICS,
_HANG_AFTER_S (0: never), _DRAIN_S, _DRAINS_ITSELF, _SETTLE_S, _START_BASE_S, _WEIGHTS_BYTES,
_READY_VARIABLE, _LORA, _LOST_AFTER_S, _LOOK_S (between two looks), _TERMINATION_LOG.
"""
# ruff: noqa: PTH123 - pathlib costs a third of the start-up time

from __future__ import annotations

import signal

if __name__ == "__main__":
    # First of all: what is neither handled nor blocked, the kernel drops where it is for PID 1.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))

import errno
import json
import math
import os
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tramontane.controllers.inferencedeployment.podfiles import (
        servingengine,
        servinghttp,
        servingrules,
        servingwanted,
        weightcache,
        weightfiles,
    )
    from tramontane.controllers.trainingjob import rankagent
else:  # in the pod, the files lie side by side
    import rankagent
    import servingengine
    import servinghttp
    import servingrules
    import servingwanted
    import weightcache
    import weightfiles

POLL_S = 0.1
# An engine that has to go without finishing anything gets so long to let its GPUs go.
GRACE_S = 2.0
# Whoever told the pod to end knows why; to all others, it was taken away.
PREEMPTED = "Preempted"
MISCONFIGURED = "Misconfigured"
EXIT_USAGE = 64
EXIT_HUNG = 71
EXIT_LATE = 72
EXIT_LOST = 73
# Of a server that ended well although nobody had asked it to end.
EXIT_UNASKED = 1
EXIT_SIGNALLED = 128


class Engine(rankagent.Rank):
    """Hold the engine's process: a Rank that is spawned, since threads run beside it by now."""

    error = ""

    def start(self, env: dict[str, str]) -> None:
        """Start the command in a session of its own, with every signal as a program expects it."""
        self.started_at = time.monotonic()
        try:
            self.pid = os.posix_spawnp(
                self._command[0],
                self._command,
                env,
                setsid=True,
                setsigmask=(),
                setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),
            )
        except OSError as error:
            self.code = rankagent.EXIT_CANNOT_START
            self.error = errno.errorcode.get(error.errno or 0, "unknown")

    def ask_leader_to_end(self) -> None:
        """Send TERM to the engine alone: its workers would drop the streams that it lets finish."""
        if self.code is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)
            rankagent.signal_each(rankagent.descendants(os.getpid()), signal.SIGCONT)


class Agent:
    """Run the engine through its one life."""

    def __init__(
        self, command: list[str], env: dict[str, str], settings: servingwanted.Settings
    ) -> None:
        self._command, self._env, self._set = command, env, settings
        self._leads = settings.seat == 0
        self._wanted = servingwanted.Wanted(settings.folder)
        self._weights = servingwanted.measured(settings.state_folder)
        self._budget = servingrules.StartBudget.of(
            settings.start_base_s, settings.weights_b, self._weights
        )
        self._engine: Engine | None = None
        self._has_served = False
        self._drain: servingrules.DrainPlan | None = None
        self._has_termed = False
        # Of seat 0: its engine and adapters; of the others: seat 0.
        self._sight = servingengine.Sight(settings.api, settings.hang_after_s, settings.look_s)
        self._shelf = servingengine.Shelf(settings.api)
        self._master = (settings.pod_ip or "127.0.0.1") if self._leads else ""
        self._seat_0 = servingrules.SeatZero(settings.lost_after_s)
        self._ping = servinghttp.Aside(servinghttp.answers, settings.look_s)
        self._door = servinghttp.Door(settings.pod_ip, settings.agent_port)
        # Nothing is removed from the blade's cache while this process lives.
        self._held: list[int] = []

    def run(self) -> int:
        """Return the exit code of the container."""
        self._door.open()
        try:
            self._held = weightcache.hold(self._set.state_folder)
        except weightfiles.WeightsError as error:
            return self._end(error.code, error.reason, str(error))
        while True:
            code = self._turn(time.monotonic())
            if code is not None:
                return code
            self._show("")
            self._handle(signal.sigtimedwait(rankagent.WATCHED, POLL_S))

    def _turn(self, now: float) -> int | None:
        """Look and act once; return the exit code where it is over."""
        if not self._leads:
            self._look_at_seat_0(now)
        if self._engine is None:
            if self._drain:
                return self._end(rankagent.EXIT_TOLD, PREEMPTED, "told to end before the start")
            if self._leads or self._seat_0.answers:
                self._engine = self._start()
            return None
        self._engine.reap()
        if self._engine.code is not None:
            return self._ended(self._engine, self._engine.code)
        hangs = self._leads and self._sight.look(now, is_draining=self._drain is not None)
        if self._drain:
            return self._go_on_draining(now, self._engine, self._drain)
        return self._lead(now, self._engine, hangs) if self._leads else self._follow(now)

    def _start(self) -> Engine:
        """Start the engine; at another seat than 0 not before seat 0 is there to be joined.

        Until then seat 0's init container may still fetch, for longer than engines wait for peers.
        """
        env = {
            name: servingwanted.with_master(value, self._master)
            for name, value in self._env.items()
        }
        budget_s = math.ceil(self._budget.total_s)
        if self._set.ready_variable:
            env.setdefault(self._set.ready_variable, str(budget_s))
        words = (servingwanted.with_master(word, self._master) for word in self._command)
        engine = Engine([servingwanted.with_model_file(word, self._weights) for word in words])
        engine.start(env)
        rankagent.say("started", seat=self._set.seat, pid=engine.pid, budget=f"{budget_s}s")
        return engine

    def _look_at_seat_0(self, now: float) -> None:
        address = str(self._wanted.peers().get("0") or "")
        if self._engine is None:
            self._master = address
        if self._master:
            # Under another address it lives another life, which our engine cannot join.
            is_same = address in ("", self._master)
            for answered in self._ping.turn(now, self._master, self._set.agent_port):
                self._seat_0.pinged(now, answered and is_same)

    def _lead(self, now: float, engine: Engine, hangs: bool) -> int | None:
        if hangs:
            return self._end(EXIT_HUNG, "Hung", self._sight.why_hung(now))
        took_s = now - engine.started_at
        if not self._sight.has_served:
            if took_s <= self._budget.total_s:
                return None
            why = (
                f"the engine did not serve within its start-up budget of "
                f"{self._budget.total_s:.0f} s ({self._budget}); {self._sight.health}"
            )
            return self._end(EXIT_LATE, "EngineFailed", why)
        if not self._has_served:
            self._has_served = True
            rankagent.say("serving", after=f"{took_s:.1f}s")
        event = self._shelf.turn(now, self._wanted.adapters() if self._loads_adapters else {})
        if event:
            rankagent.say("adapter", what=json.dumps(event))
        return None

    @property
    def _loads_adapters(self) -> bool:
        return self._set.lora != "none"

    def _follow(self, now: float) -> int | None:
        if not self._seat_0.is_lost(now):
            return None
        why = f"seat 0 has not answered at {self._master} for {self._set.lost_after_s:g} s"
        return self._end(EXIT_LOST, "RankDead", why)

    # ---- the end

    def _handle(self, received: Any) -> None:
        if received is None or received.si_signo == signal.SIGCHLD:
            return
        rankagent.say("signal", number=received.si_signo)
        if received.si_signo not in rankagent.ENDING:
            if self._engine and self._engine.pid and self._engine.code is None:
                self._engine.signal_group(received.si_signo)
        elif self._drain is None:
            self._drain = servingrules.DrainPlan(
                time.monotonic(),
                self._set.settle_s,
                self._set.drain_s,
                leads=self._leads,
                drains_itself=self._set.drains_itself,
                has_served=self._sight.has_served,
            )
            self._show("")  # before anything else: no more requests
            rankagent.say("draining", settle=f"{self._set.settle_s:g}s")

    def _go_on_draining(
        self, now: float, engine: Engine, plan: servingrules.DrainPlan
    ) -> int | None:
        due = plan.due(now, self._sight.busy(now), self._seat_0.has_left(now))
        after = f"{now - plan.told_at:.1f} s"
        if due == servingrules.KILL:
            message = f"told to end; the engine had not ended after {after}"
            return self._end(rankagent.EXIT_TOLD, PREEMPTED, message, grace_s=0.0)
        if due == servingrules.TERM and not self._has_termed:
            self._has_termed = True
            rankagent.say("ending", after=after.replace(" ", ""))
            engine.ask_leader_to_end()
        return None

    def _ended(self, engine: Engine, code: int) -> int:
        """Return the container's exit code for the engine's.

        | the engine ended | exit |
        |---|---|
        | after we were told to end | 143, whatever its code: peers that end first may upset it |
        | with 0 | 1: a server has no end of its own |
        | otherwise | the same |
        """
        rankagent.say("exited", code=code)
        by_signal = code - EXIT_SIGNALLED
        how = f"ended by signal {by_signal}" if by_signal > 0 else f"ended with code {code}"
        if engine.error:
            how = f"could not be started: {self._command[0]}: {engine.error}"
        if self._drain:
            return self._end(rankagent.EXIT_TOLD, PREEMPTED, f"told to end; the engine {how}")
        reason = "EngineFailed" if self._leads else "RankDead"
        return self._end(code or EXIT_UNASKED, reason, f"the engine {how}")

    def _end(self, code: int, reason: str, message: str, grace_s: float = GRACE_S) -> int:
        """End all processes and return the code; others know why before the first one ends."""
        self._show(message)
        rankagent.say("over", code=code, reason=reason, message=json.dumps(message))
        with suppress(OSError), open(self._set.termination_log, "w", encoding="utf-8") as log:
            log.write(json.dumps({"reason": reason, "message": message}) + "\n")
        if self._engine and self._engine.pid and not self._engine.end(grace_s):
            left = len(rankagent.descendants(os.getpid()))
            rankagent.say("stuck", left=left)
        return code

    # ---- what others may see

    def _show(self, why_over: str) -> None:
        now = time.monotonic()
        lives = not why_over and (self._engine is None or self._engine.code is None)
        self._door.view = servinghttp.View(
            now, lives, why_over or self._why_not(now), self._state("Ended" if why_over else "")
        )

    def _why_not(self, now: float) -> str:
        """Return why this rank takes no requests, or no part in them; empty where it does."""
        if self._drain:
            return "draining"
        if self._engine is None:
            return "waiting for seat 0"
        if not self._leads:
            return "" if self._seat_0.answers else "seat 0 does not answer"
        unhealthy = self._sight.why_unhealthy(now)
        return unhealthy or ("" if self._shelf.was_settled else "adapters are being loaded")

    def _state(self, over: str) -> dict[str, Any]:
        if self._loads_adapters:
            adapters = self._shelf.adapters.told()
        else:
            adapters = dict.fromkeys(self._wanted.adapters(), "this engine takes none at run time")
        reading = self._sight.reading
        return {
            "seat": self._set.seat,
            "state": over or self._phase(),
            "engine": {"pid": self._engine.pid if self._engine else 0},
            "adapters": adapters,
            "steps": reading.steps if reading else 0,
            "running": reading.running if reading else 0,
            "startBudgetSeconds": math.ceil(self._budget.total_s),
        }

    def _phase(self) -> str:
        if self._drain:
            return "Draining"
        if self._engine is None:
            return "Waiting"
        return "Serving" if self._sight.has_served or not self._leads else "Starting"


def _refused(message: str) -> int:
    sys.stderr.write(f"serving.py: {message}\n")
    path = os.environ.get("TRAMONTANE_TERMINATION_LOG") or "/dev/termination-log"
    with suppress(OSError), open(path, "w", encoding="utf-8") as log:
        log.write(json.dumps({"reason": MISCONFIGURED, "message": message}) + "\n")
    return EXIT_USAGE


def main(arguments: list[str]) -> int:
    """Run the agent over an engine's command."""
    if not arguments:
        sys.stderr.write("usage: serving.py ENGINE [ARGUMENT ...]\n")
        return EXIT_USAGE
    signal.pthread_sigmask(signal.SIG_BLOCK, rankagent.WATCHED)
    rankagent.adopt_orphans()
    try:
        settings = servingwanted.Settings.read(os.environ)
        agent = Agent(arguments, dict(os.environ), settings)
    except (OSError, ValueError) as error:  # no such number, or the port is taken
        return _refused(str(error))
    if servingwanted.lacks_model_file(arguments, settings.state_folder):
        return _refused(
            f"{servingwanted.MODEL_FILE} must stand for one .gguf file, or for the first of its "
            "parts (got none, or several models); give the model a directory of its own"
        )
    return agent.run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
