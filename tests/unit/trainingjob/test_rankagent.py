"""The rank agent, as a real process over real ranks."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tramontane.controllers.trainingjob import rankagent
from tramontane.controllers.trainingjob.render import agent_source

PATIENCE_S = 30.0


class AgentUnderTest:
    """One agent process, its files and what it said."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[str]
        self._log = folder / "log"
        (folder / "agent.py").write_text(agent_source())
        self.want(1)

    def start(self, script: str, **env: str) -> None:
        """Start the agent over a Python script."""
        rank = self.folder / "rank.py"
        rank.write_text(textwrap.dedent(script))
        environment = {
            "PATH": os.environ["PATH"],
            "TRAMONTANE_AGENT_FOLDER": str(self.folder),
            "TRAMONTANE_AGENT_WAIT_S": "0.3",
            "TRAMONTANE_AGENT_GRACE_S": "0.5",
            "TRAMONTANE_ATTEMPT": "1",
            "OUT": str(self.folder / "out"),
            **env,
        }
        command = [sys.executable, str(self.folder / "agent.py"), sys.executable, str(rank)]
        with self._log.open("w") as log:
            self.process = subprocess.Popen(command, env=environment, stderr=log, text=True)

    def want(self, epoch: int, peers: dict[str, str] | None = None) -> None:
        """Write the files as the kubelet does: whole, by renaming."""
        for name, text in (("peers", json.dumps(peers or {})), ("epoch", str(epoch))):
            fresh = self.folder / f".{name}"
            fresh.write_text(text)
            fresh.rename(self.folder / name)

    @property
    def said(self) -> str:
        return self._log.read_text()

    def out(self) -> list[dict[str, Any]]:
        """Return what the ranks have written, a JSON object a line."""
        path = self.folder / "out"
        return [json.loads(one) for one in path.read_text().splitlines()] if path.exists() else []

    def until(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not holds():
            assert time.monotonic() < deadline, f"never so; the agent said: {self.said}"
            time.sleep(0.02)

    def ended(self) -> int:
        return self.process.wait(PATIENCE_S)


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[AgentUnderTest]:
    under_test = AgentUnderTest(tmp_path)
    yield under_test
    if under_test.process.poll() is None:
        under_test.process.kill()
        under_test.process.wait()


REPORT = """
    import json, os, sys, time
    names = ("TRAMONTANE_ATTEMPT", "MASTER_ADDR", "JAX_COORDINATOR_ADDRESS", "TRAMONTANE_PEERS")
    line = json.dumps({"pid": os.getpid(), **{n: os.environ[n] for n in names if n in os.environ}})
    with open(os.environ["OUT"], "a") as out:
        out.write(line + chr(10))
"""


def test_a_rank_that_ends_well_ends_the_container(agent: AgentUnderTest) -> None:
    agent.start(REPORT)

    assert agent.ended() == 0
    assert "event=started attempt=1" in agent.said
    assert "event=exited attempt=1 code=0" in agent.said


@pytest.mark.parametrize(
    ("end", "code"),
    [
        pytest.param("sys.exit(3)", 3, id="its code"),
        pytest.param("os.kill(os.getpid(), 9)", 137, id="its signal"),
    ],
)
def test_a_failed_rank_waits_a_while_and_then_the_container_fails_alike(
    agent: AgentUnderTest, end: str, code: int
) -> None:
    agent.start(f"{REPORT}\n    {end}\n")

    assert agent.ended() == code
    assert "waits=0.3s" in agent.said
    assert len(agent.out()) == 1, "nobody restarts it without being told"


def test_a_survivor_that_ended_starts_again_when_the_epoch_is_raised(agent: AgentUnderTest) -> None:
    agent.start(
        REPORT + "    sys.exit(0 if os.environ['TRAMONTANE_ATTEMPT'] == '2' else 1)\n",
        TRAMONTANE_AGENT_WAIT_S="60",
        TRAMONTANE_ATTEMPT="1",
    )
    # Two attempts so far: then it does not count as a first start that failed at once.
    agent.until(lambda: "event=exited attempt=1 code=1" in agent.said)
    agent.want(2)

    assert agent.ended() == 0
    assert [one["TRAMONTANE_ATTEMPT"] for one in agent.out()] == ["1", "2"]


def test_a_first_start_that_fails_at_once_is_not_waited_for_long(agent: AgentUnderTest) -> None:
    agent.start("import sys; sys.exit(1)", TRAMONTANE_AGENT_WAIT_S="600")

    assert agent.ended() == 1
    assert f"waits={rankagent.QUICK_WAIT_S:g}s" in agent.said


def test_a_hung_rank_and_all_it_started_are_ended_when_the_epoch_is_raised(
    agent: AgentUnderTest,
) -> None:
    hang = (
        REPORT
        + """
    import signal, subprocess
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.environ["TRAMONTANE_ATTEMPT"] == "1":
        worker = "import os, signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
        child = subprocess.Popen([sys.executable, "-c", worker], start_new_session=True)
        with open(os.environ["OUT"], "a") as out:
            out.write(json.dumps({"child": child.pid}) + chr(10))
        time.sleep(600)
    """
    )
    agent.start(hang)
    agent.until(lambda: len(agent.out()) == 2)
    first, worker = agent.out()
    agent.want(2)

    assert agent.ended() == 0
    assert [one.get("TRAMONTANE_ATTEMPT") for one in agent.out()] == ["1", None, "2"]
    for pid in (first["pid"], worker["child"]):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_where_the_master_has_moved_its_address_goes_in_by_number(agent: AgentUnderTest) -> None:
    agent.start(
        REPORT + "    time.sleep(600 if os.environ['TRAMONTANE_ATTEMPT'] == '1' else 0)\n",
        TRAMONTANE_SEAT="3",
        MASTER_ADDR="llama-0.llama",
        JAX_COORDINATOR_ADDRESS="llama-0.llama:29500",
    )
    agent.until(lambda: len(agent.out()) == 1)
    agent.want(2, {"0": "10.1.2.3"})

    assert agent.ended() == 0
    second = agent.out()[1]
    assert second["MASTER_ADDR"] == "10.1.2.3"
    assert second["JAX_COORDINATOR_ADDRESS"] == "10.1.2.3:29500"
    assert json.loads(second["TRAMONTANE_PEERS"]) == {"0": "10.1.2.3"}


def test_a_termination_is_passed_on_and_the_rank_may_save(agent: AgentUnderTest) -> None:
    agent.start(
        """
        import os, signal, sys, time
        def save(*_):
            open(os.environ["OUT"], "w").write('{"saved": true}')
            sys.exit(0)
        signal.signal(signal.SIGTERM, save)
        print("ready", file=sys.stderr, flush=True)
        time.sleep(600)
        """
    )
    agent.until(lambda: "ready" in agent.said)
    agent.process.send_signal(signal.SIGTERM)

    assert agent.ended() == 0
    assert agent.out() == [{"saved": True}]


def test_orphans_are_reaped(agent: AgentUnderTest) -> None:
    agent.start(
        """
        import os, subprocess, sys, time
        double = "import os, time; os.fork() and os._exit(0); os._exit(0)"
        for _ in range(5):
            subprocess.run([sys.executable, "-c", double])
        print("forked", file=sys.stderr, flush=True)
        time.sleep(600)
        """
    )
    agent.until(lambda: "forked" in agent.said)

    def only_the_rank_is_left() -> bool:
        return len(rankagent.descendants(agent.process.pid)) == 1

    agent.until(only_the_rank_is_left)
    agent.process.send_signal(signal.SIGTERM)
    assert agent.ended() == 128 + signal.SIGTERM


def test_a_command_that_is_not_there_is_said(agent: AgentUnderTest) -> None:
    agent.start("")
    agent.ended()
    nothing = [sys.executable, str(agent.folder / "agent.py"), "/no/such/program"]
    environment = {"TRAMONTANE_AGENT_WAIT_S": "0"}
    ended = subprocess.run(nothing, env=environment, capture_output=True, text=True, check=False)

    assert ended.returncode == rankagent.EXIT_CANNOT_START
    assert "event=cannot-start command=/no/such/program error=ENOENT" in ended.stderr


def test_an_epoch_file_that_cannot_be_read_changes_nothing(tmp_path: Path) -> None:
    wanted = rankagent.Wanted(str(tmp_path), 4)

    assert wanted.epoch() == 4
    assert wanted.peers() == {}
    (tmp_path / "epoch").write_text("half a numb")
    (tmp_path / "peers").write_text("{")
    assert wanted.epoch() == 4
    assert wanted.peers() == {}
