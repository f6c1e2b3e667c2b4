"""One rank as its pod's log tells of it: what the rank agent starts, hears, and waits for.

A `Rank` is what the pod looks like now, a `Process` what runs in it. The agent of a simulated pod
says and does what the real one does (`tramontane.controllers`, rankagent.py; docs/training.md):

    started ─► exited ─► waits for a newer epoch ─► none comes: the container ends the same, or
       ▲         ▲                                  with 143 where it had only been told to
       │         └── draining (annotation), signal (its pod goes): the rank saves and ends
       └──────────── restarting: the epoch was raised

A container without the agent just ends, and a kubelet may start it again; what the epoch orders is
done without a word. Pure.
"""

import math
from dataclasses import dataclass, replace
from typing import Final

# As the real agent has them (s).
WAIT_S: Final = 60.0
BACKOFF_S: Final = 10.0
_QUICK_S: Final = 10.0
_DECISION_S: Final = 20.0
_DONE_S: Final = 3.0
_DRAINED_S: Final = 600.0
_PID: Final = 7
_SIGTERM: Final = 15
_DIED: Final = 1
_TOLD: Final = 128 + _SIGTERM  # ended well because it was told to: its work is not done


@dataclass(frozen=True, slots=True)
class Rank:
    """One pod of a job, as far as training cares.

    Attributes:
        life: differs when the container is another one: pod uid and restarts.
        epoch: what its annotation says; 0: nothing.
        up: whether its pod runs.
        dark: whether its blade has no power: nothing goes on there, and nobody answers.
        trouble: what its process dies of, or nothing.
        drain: the attempt whose rank is to save and end; 0: none.
        leaving: whether its pod is being deleted.
        agent: whether the rank agent is PID 1.
        wait_s, backoff_s: what the agent was given.
    """

    seat: int
    life: str
    epoch: int = 0
    up: bool = True
    dark: bool = False
    trouble: str = ""
    drain: int = 0
    leaving: bool = False
    agent: bool = True
    wait_s: float = WAIT_S
    backoff_s: float = BACKOFF_S


@dataclass(frozen=True, slots=True)
class Process:
    """One life of a rank's process.

    Attributes:
        code: how it ended; None while it runs.
        told: whether it has been asked to save and end.
        gives_up_at: when its container ends as it did, unless a newer epoch comes.
        over: whether its container has ended.
    """

    life: str
    attempt: int
    started_at: float
    code: int | None = None
    told: bool = False
    gives_up_at: float = math.inf
    over: bool = False

    @property
    def due(self) -> float:
        """Return when something happens to it by itself."""
        return math.inf if self.over else self.gives_up_at


def live(old: Process | None, rank: Rank, now: float) -> tuple[Process | None, tuple[str, ...]]:
    """Return a rank's process as it is now, and what its log says about that.

    | the rank | then |
    |---|---|
    | its pod does not run, or has no power | as it was |
    | another container than before | started |
    | its epoch was raised | restarting, started |
    | its blade has trouble | it dies of it |
    | to be drained, or its pod goes | told, once |
    | has ended, and nobody has come for long enough | its container ends |
    """
    if not rank.up or rank.dark:  # nobody is there to give up
        return old and replace(old, gives_up_at=math.inf), ()
    lines: list[str] = []
    process = _begun(old, rank, now, lines)
    if process.code is None and rank.trouble:
        lines.append(f"rank {rank.seat}: {rank.trouble}")
        process, said = ended(process, rank, _DIED, now)
        lines += said
    drained = rank.agent and rank.drain == process.attempt
    if not process.told and (drained or rank.leaving):
        process = replace(process, told=True)
        if rank.agent:
            event = (
                f"draining attempt={process.attempt}" if drained else f"signal number={_SIGTERM}"
            )
            lines.append(_agent(event))
        if drained and process.code is not None:
            process = replace(process, gives_up_at=process.gives_up_at + _DRAINED_S)
    if now >= process.gives_up_at and not process.over:
        code = process.code or (_TOLD if process.told else 0)
        process = replace(process, code=code, over=True)
    return process, tuple(lines)


def ended(process: Process, rank: Rank, code: int, now: float) -> tuple[Process, tuple[str, ...]]:
    """Return a process that has ended by itself with `code`, and its agent's line."""
    if not rank.agent:
        return replace(process, code=code, gives_up_at=now, over=True), ()
    wait_s = _patience_s(process, rank, code, now)
    line = _agent(f"exited attempt={process.attempt} code={code} waits={wait_s:g}s")
    process = replace(process, code=code, gives_up_at=now + wait_s, over=wait_s <= 0)
    return process, (line,)


def _begun(old: Process | None, rank: Rank, now: float, lines: list[str]) -> Process:
    """Return the process that the rank's container runs: the old one, or one that begins now."""
    attempt = max(rank.epoch, 1)
    if old is not None and old.life == rank.life:
        if attempt <= old.attempt or old.over or rank.leaving:
            return old
        if rank.agent:
            lines.append(_agent(f"restarting attempt={attempt} after={old.attempt}"))
    if rank.agent:
        lines.append(_agent(f"started attempt={attempt} pid={_PID}"))
    return Process(rank.life, attempt, now)


def _patience_s(process: Process, rank: Rank, code: int, now: float) -> float:
    """Return how long an agent waits for the next epoch (s): the real one's table."""
    if rank.leaving:
        return 0.0
    if process.told:
        return rank.wait_s + _DRAINED_S
    if code == 0:
        return min(_DONE_S, rank.wait_s)
    if rank.seat == 0 or now - process.started_at >= _QUICK_S:
        return rank.wait_s
    return min(rank.wait_s, rank.backoff_s * 2.0 ** min(process.attempt - 1, 20) + _DECISION_S)


def _agent(event: str) -> str:
    return f"tramontane-agent event={event}"
