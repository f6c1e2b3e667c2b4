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
from tramontane.controllers.trainingjob.render import WRAPPER_FILE, agent_source

PATIENCE_S = 30.0
ENDED_BY_ORDER = 143


class AgentUnderTest:
    """One agent process, its files and what it said."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[str]
        self._log = folder / "log"
        (folder / "agent.py").write_text(agent_source())
        (folder / WRAPPER_FILE).write_text(agent_source(WRAPPER_FILE))
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
        self.put("peers", json.dumps(peers or {}))
        self.put("epoch", str(epoch))

    def put(self, name: str, text: str) -> None:
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


def test_what_is_done_is_told_with_its_attempt(agent: AgentUnderTest) -> None:
    log = agent.folder / "termination-log"
    log.write_text("something of the rank's own")
    agent.want(3)
    agent.start(REPORT, TRAMONTANE_TERMINATION_LOG=str(log))
    assert agent.ended() == 0
    assert json.loads(log.read_text()) == {"attempt": 3}


@pytest.mark.parametrize("end", ["sys.exit(3)", "os.kill(os.getpid(), 9)"])
def test_what_failed_tells_nothing_and_no_log_is_made(agent: AgentUnderTest, end: str) -> None:
    log = agent.folder / "termination-log"
    agent.start(f"import os, sys; {end}", TRAMONTANE_TERMINATION_LOG=str(log))
    assert agent.ended() != 0
    assert not log.exists()


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


@pytest.mark.parametrize(
    ("seat", "epoch", "waits"),
    [
        pytest.param("0", 1, "600s", id="seat 0 is seen in its log"),
        pytest.param("3", 1, "30s", id="another: as long as a first restart takes"),
        pytest.param("3", 3, "60s", id="at the third attempt the back-off has doubled twice"),
        pytest.param("3", 30, "600s", id="never longer than any other"),
    ],
)
def test_a_start_that_fails_at_once_is_waited_for_as_long_as_a_restart_may_take(
    agent: AgentUnderTest, seat: str, epoch: int, waits: str
) -> None:
    agent.want(epoch)
    agent.start("import sys; sys.exit(1)", TRAMONTANE_AGENT_WAIT_S="600", TRAMONTANE_SEAT=seat)

    agent.until(lambda: "event=exited" in agent.said)
    assert f"waits={waits}" in agent.said
    agent.process.send_signal(signal.SIGTERM)
    assert agent.ended() == 1


SAVES = """
    import json, os, signal, sys, time
    def save(*_):
        with open(os.environ["OUT"], "a") as out:
            out.write('{"saved": %s}' % os.environ["TRAMONTANE_ATTEMPT"] + chr(10))
        sys.exit(int(os.environ.get("CODE", "0")))
    signal.signal(signal.SIGTERM, save)
    if os.environ["TRAMONTANE_ATTEMPT"] == "2": sys.exit(0)
    print("ready", file=sys.stderr, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("code", ["0", "1"], ids=["ends well", "as torchrun does"])
def test_a_drained_rank_saves_and_its_pod_stays_for_the_next_attempt(
    agent: AgentUnderTest, code: str
) -> None:
    agent.start(SAVES, CODE=code, TRAMONTANE_AGENT_GRACE_S="0")
    agent.until(lambda: "ready" in agent.said)
    agent.put("drain", "1")
    agent.until(lambda: "event=exited" in agent.said)

    assert f"event=exited attempt=1 code={code} waits=600.3s" in agent.said
    assert agent.process.poll() is None
    agent.want(2)
    assert agent.ended() == 0
    assert agent.out() == [{"saved": 1}]
    assert agent.said.count("event=draining attempt=1") == 1


def test_an_order_to_drain_another_attempt_is_not_for_this_one(agent: AgentUnderTest) -> None:
    agent.put("drain", "1")
    agent.want(3)
    agent.start(SAVES)
    agent.until(lambda: "ready" in agent.said)
    time.sleep(0.3)

    assert "draining" not in agent.said
    assert agent.out() == []


def test_a_drained_rank_takes_its_time_and_gets_no_kill(agent: AgentUnderTest) -> None:
    agent.start(
        """
        import os, signal, sys, time
        def save(*_):
            time.sleep(1.5)
            open(os.environ["OUT"], "w").write('{"saved": true}')
            sys.exit(0)
        signal.signal(signal.SIGTERM, save)
        print("ready", file=sys.stderr, flush=True)
        time.sleep(600)
        """,
        TRAMONTANE_AGENT_GRACE_S="0.1",
    )
    agent.until(lambda: "ready" in agent.said)
    agent.put("drain", "1")

    agent.until(lambda: "event=exited attempt=1 code=0" in agent.said)
    assert agent.out() == [{"saved": True}]


def test_a_rank_that_a_peer_had_end_before_the_order_came_is_drained_not_done(
    agent: AgentUnderTest,
) -> None:
    agent.start("import sys; sys.exit(0)", TRAMONTANE_AGENT_WAIT_S="9")
    agent.until(lambda: "event=exited attempt=1 code=0" in agent.said)
    agent.put("drain", "1")
    agent.until(lambda: "event=draining attempt=1" in agent.said)
    time.sleep(3.5)

    assert agent.process.poll() is None
    agent.want(2)
    agent.until(lambda: "event=started attempt=2" in agent.said)


def test_a_replacement_that_met_its_peers_last_life_is_started_again(
    agent: AgentUnderTest,
) -> None:
    agent.want(2)
    agent.start(
        """
        import os, sys
        out = os.environ["OUT"]
        tries = len(open(out).readlines()) if os.path.exists(out) else 0
        open(out, "a").write('{"try": true}\\n')
        sys.exit(0 if tries else 1)
        """,
        TRAMONTANE_SEAT="2",
        TRAMONTANE_ATTEMPT="2",
    )

    assert agent.ended() == 0
    assert "event=retrying attempt=2 code=1" in agent.said
    assert len(agent.out()) == 2


@pytest.mark.parametrize(
    ("seat", "epoch"),
    [pytest.param("0", 2, id="seat 0"), pytest.param("2", 1, id="the first life")],
)
def test_others_are_not_started_again(agent: AgentUnderTest, seat: str, epoch: int) -> None:
    agent.want(epoch)
    agent.start("import sys; sys.exit(1)", TRAMONTANE_SEAT=seat, TRAMONTANE_ATTEMPT=str(epoch))

    assert agent.ended() == 1
    assert "retrying" not in agent.said


def test_a_rank_that_ended_before_the_order_waits_as_long(agent: AgentUnderTest) -> None:
    agent.start("import sys; sys.exit(1)", TRAMONTANE_AGENT_WAIT_S="1", TRAMONTANE_SEAT="0")
    agent.until(lambda: "event=exited" in agent.said)
    agent.put("drain", "1")
    agent.until(lambda: "event=draining" in agent.said)

    time.sleep(1.5)
    assert agent.process.poll() is None


def test_a_drained_pod_that_is_deleted_has_not_finished_its_work(agent: AgentUnderTest) -> None:
    agent.start(SAVES)
    agent.until(lambda: "ready" in agent.said)
    agent.put("drain", "1")
    agent.until(lambda: "event=exited attempt=1 code=0" in agent.said)
    agent.process.send_signal(signal.SIGTERM)

    assert agent.ended() == ENDED_BY_ORDER


def test_a_stopped_rank_gets_its_term(agent: AgentUnderTest) -> None:
    agent.start(SAVES, TRAMONTANE_AGENT_GRACE_S="20")
    agent.until(lambda: "ready" in agent.said)
    [rank] = rankagent.descendants(agent.process.pid)
    os.kill(rank, signal.SIGSTOP)
    agent.until(lambda: state_of(rank) == "T")
    agent.want(2)

    assert agent.ended() == 0
    assert agent.out() == [{"saved": 1}], "with KILL alone it would not have saved"


def test_a_stopped_worker_in_a_session_of_its_own_is_ended(agent: AgentUnderTest) -> None:
    agent.start(
        """
        import os, signal, subprocess, sys, time
        if os.environ["TRAMONTANE_ATTEMPT"] == "2": sys.exit(0)
        worker = "import time; time.sleep(600)"
        child = subprocess.Popen([sys.executable, "-c", worker], start_new_session=True)
        os.kill(child.pid, signal.SIGSTOP)
        open(os.environ["OUT"], "w").write('{"child": %d}' % child.pid)
        time.sleep(600)
        """
    )
    agent.until(lambda: len(agent.out()) == 1)
    agent.want(2)

    assert agent.ended() == 0
    with pytest.raises(ProcessLookupError):
        os.kill(agent.out()[0]["child"], 0)


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


def test_the_helper_for_scripts_can_be_imported(agent: AgentUnderTest) -> None:
    script = """
        import os, sys, time
        if os.environ["TRAMONTANE_ATTEMPT"] == "1":
            import tramontane_rank
            where = {"file": tramontane_rank.__file__, "path": os.environ["PYTHONPATH"]}
            open(os.environ["OUT"], "w").write(__import__("json").dumps(where))
        """
    agent.start(script, PYTHONPATH="/own/modules")

    assert agent.ended() == 0
    [where] = agent.out()
    assert where["file"] == str(agent.folder / WRAPPER_FILE)
    assert where["path"] == f"/own/modules:{agent.folder}"


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

    assert agent.ended() == ENDED_BY_ORDER, "it has saved, but is not done"
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
    for name in ("epoch", "drain"):
        (tmp_path / name).write_text("half a numb")
    (tmp_path / "peers").write_text("{")
    assert (wanted.epoch(), wanted.drained()) == (4, 0)
    assert wanted.peers() == {}


@pytest.mark.parametrize(
    ("base", "peers", "changed"),
    [
        pytest.param(
            {"TRAMONTANE_SEAT": "6", "REPLICA_GROUP_ID": "1", "PET_NODE_RANK": "2"},
            {"4": "10.0.0.4"},
            {"MASTER_ADDR": "10.0.0.4", "PET_MASTER_ADDR": "10.0.0.4"},
            id="the first seat of its own group",
        ),
        pytest.param(
            {"TRAMONTANE_SEAT": "6", "REPLICA_GROUP_ID": "1", "PET_NODE_RANK": "2"},
            {"0": "10.0.0.0"},
            {},
            id="not that of another group",
        ),
        pytest.param(
            {"TRAMONTANE_SEAT": "4", "REPLICA_GROUP_ID": "1", "PET_NODE_RANK": "0"},
            {"4": "10.0.0.4"},
            {},
            id="the first seat itself uses its name",
        ),
        pytest.param(
            {"TRAMONTANE_SEAT": "6", "PET_RDZV_ENDPOINT": "llama-00.llama:29500"},
            {"0": "fd00::1"},
            {
                "MASTER_ADDR": "fd00::1",
                "PET_MASTER_ADDR": "fd00::1",
                "PET_RDZV_ENDPOINT": "[fd00::1]:29500",
            },
            id="an elastic meeting, over IPv6",
        ),
    ],
)
def test_who_replaced_the_first_seat_is_named_by_number(
    base: dict[str, str], peers: dict[str, str], changed: dict[str, str]
) -> None:
    named = {"MASTER_ADDR": "llama-4.llama", "PET_MASTER_ADDR": "llama-4.llama", **base}
    found = rankagent.environment(named, 2, peers)

    assert {name: found[name] for name in named} == {**named, **changed}


def test_an_elastic_meeting_is_another_in_each_epoch() -> None:
    base = {"PET_RDZV_BACKEND": "c10d", "PET_RDZV_ID": "llama"}

    assert rankagent.environment(base, 7, {})["PET_RDZV_ID"] == "llama-7"


def test_an_order_to_end_that_comes_before_all_is_read_is_not_lost(
    agent: AgentUnderTest,
) -> None:
    """Of PID 1 the kernel would drop it, and the pod wait for its whole grace."""
    early = "import os, signal; os.kill(os.getpid(), signal.SIGTERM)"
    (agent.folder / "ctypes.py").write_text(early)
    agent.start("import time; time.sleep(600)")

    assert agent.process.wait(PATIENCE_S) == ENDED_BY_ORDER
