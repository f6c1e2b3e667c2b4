"""A rank's pod says and does what the real rank agent's would."""

import math
from dataclasses import replace

import pytest

from tramontane.controllers.trainingjob.progress import AgentLines
from tramontane.lab.ranks import Process, Rank, ended, live

RANK = Rank(3, "uid/0", epoch=4, wait_s=90.0, backoff_s=10.0)
RUNS = Process("uid/0", 4, started_at=100.0)


@pytest.mark.parametrize(
    ("old", "rank", "attempt", "events"),
    [
        pytest.param(None, RANK, 4, ["started"], id="new"),
        pytest.param(None, replace(RANK, epoch=0), 1, ["started"], id="no-annotation"),
        pytest.param(None, replace(RANK, agent=False), 4, [], id="no-agent"),
        pytest.param(RUNS, RANK, 4, [], id="goes-on"),
        pytest.param(RUNS, replace(RANK, epoch=6), 6, ["restarting", "started"], id="raised"),
        pytest.param(RUNS, replace(RANK, epoch=6, agent=False), 6, [], id="raised-without-agent"),
        pytest.param(RUNS, replace(RANK, epoch=3), 4, [], id="never-back"),
        pytest.param(RUNS, replace(RANK, epoch=6, leaving=True), 4, ["signal"], id="on-its-way"),
        pytest.param(RUNS, replace(RANK, epoch=6, dark=True), 4, [], id="no-power"),
        pytest.param(RUNS, replace(RANK, epoch=6, up=False), 4, [], id="not-running"),
        pytest.param(RUNS, replace(RANK, life="uid/1"), 4, ["started"], id="another-container"),
        pytest.param(
            replace(RUNS, code=1, over=True), replace(RANK, epoch=6), 4, [], id="over-stays-over"
        ),
        pytest.param(RUNS, replace(RANK, drain=4), 4, ["draining"], id="drained"),
        pytest.param(RUNS, replace(RANK, drain=3), 4, [], id="an-older-attempt-was-drained"),
        pytest.param(RUNS, replace(RANK, trouble="it broke"), 4, ["exited"], id="sick-blade"),
    ],
)
def test_the_agent_says_what_happens(
    old: Process | None, rank: Rank, attempt: int, events: list[str]
) -> None:
    process, lines = live(old, rank, 200.0)
    assert process is not None
    assert process.attempt == attempt
    said = [line.split("event=")[1].split()[0] for line in lines if "event=" in line]
    assert said == events
    again, more = live(process, rank, 200.0)
    assert (again, more) == (process, ()), "each is said once"


@pytest.mark.parametrize(
    ("rank", "code", "after_s", "waits"),
    [
        pytest.param(RANK, 0, 50, "3s", id="done"),
        pytest.param(RANK, 1, 50, "90s", id="late"),
        pytest.param(RANK, 1, 5, "90s", id="early-in-a-late-attempt"),
        pytest.param(replace(RANK, epoch=1), 1, 5, "30s", id="early"),
        pytest.param(replace(RANK, epoch=1, seat=0), 1, 5, "90s", id="seat-0"),
        pytest.param(replace(RANK, leaving=True), 1, 50, "0s", id="its-pod-goes"),
        pytest.param(replace(RANK, drain=4), 0, 50, "690s", id="drained"),
    ],
)
def test_an_ended_rank_waits_as_the_agent_does(
    rank: Rank, code: int, after_s: float, waits: str
) -> None:
    process, _ = live(None, rank, 100.0)
    assert process is not None
    process, lines = ended(process, rank, code, 100.0 + after_s)
    assert lines == (
        f"tramontane-agent event=exited attempt={process.attempt} code={code} waits={waits}",
    )
    assert process.over is (waits == "0s")


def test_the_operator_reads_the_lines() -> None:
    agent = AgentLines()
    process, said = live(None, RANK, 100.0)
    assert process is not None
    assert agent.take(said[0], 100.0)
    assert agent.attempt == 4
    _, said = ended(process, RANK, 9, 150.0)
    agent.take(said[0], 150.0)
    assert agent.exited is not None
    assert (agent.exited.attempt, agent.exited.code) == (4, 9)


def test_a_container_ends_when_nobody_has_come() -> None:
    process, _ = ended(RUNS, RANK, 9, 150.0)
    assert process.due == 240.0
    waiting, _ = live(process, RANK, 239.0)
    assert waiting is not None
    assert not waiting.over
    over, _ = live(process, RANK, 240.0)
    assert over is not None
    assert (over.over, over.code, over.due) == (True, 9, math.inf)


def test_a_drain_prolongs_the_wait_of_who_had_ended() -> None:
    process, _ = ended(RUNS, RANK, 9, 150.0)
    drained, _ = live(process, replace(RANK, drain=4), 160.0)
    assert drained is not None
    assert drained.due == 840.0


def test_nobody_gives_up_where_there_is_no_power() -> None:
    process, _ = ended(RUNS, RANK, 9, 150.0)
    dark, _ = live(process, replace(RANK, dark=True), 500.0)
    assert dark is not None
    assert (dark.over, dark.due) == (False, math.inf)


def test_who_was_drained_and_never_called_again_has_not_finished() -> None:
    drained = replace(RANK, drain=4)
    process, _ = live(RUNS, drained, 150.0)
    assert process is not None
    process, _ = ended(process, drained, 0, 160.0)
    over, _ = live(process, drained, 160.0 + 690.0)
    assert over is not None
    assert (over.over, over.code) == (True, 143)
