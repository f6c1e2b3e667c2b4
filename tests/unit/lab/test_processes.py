"""Started processes are found again, and only they are stopped."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tramontane.lab.paths import LabError
from tramontane.lab.processes import Processes, alive, rss_mib, start_ticks

SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal as s, time; s.signal(15, s.SIG_IGN); print('up', flush=True); time.sleep(60)",
]


def wait_for_log(path: str) -> None:
    while "up" not in Path(path).read_text():
        continue


def test_all_started_ones_are_stopped(tmp_path: Path) -> None:
    processes = Processes(tmp_path)
    records = [processes.start(name, SLEEP) for name in ("one", "two")]
    assert all(alive(record) for record in records)
    assert rss_mib(records[0].pid) > 0
    processes.check()
    processes.stop()
    assert [start_ticks(record.pid) for record in records] == [None, None]
    assert processes.records == ()


def test_detached_ones_are_found_by_another_process(tmp_path: Path) -> None:
    record = Processes(tmp_path, attached=False).start("one", SLEEP)
    found = Processes.load(tmp_path)
    assert found.running() == [record]
    found.stop()
    assert start_ticks(record.pid) is None
    assert json.loads((tmp_path / "processes.json").read_text()) == []


def test_a_stranger_with_the_same_pid_is_left_alone(tmp_path: Path) -> None:
    with subprocess.Popen(SLEEP, stdout=subprocess.DEVNULL) as stranger:
        entry = {
            "name": "old",
            "pid": stranger.pid,
            "started": 1,
            "log": "none",
            "gentle": False,
            "argv": [],
        }
        (tmp_path / "processes.json").write_text(json.dumps([entry]))
        processes = Processes.load(tmp_path)
        assert processes.running() == []
        processes.stop()
        assert stranger.poll() is None
        stranger.kill()


def test_one_that_ended_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    processes = Processes(tmp_path)
    record = processes.start("short", [sys.executable, "-c", "print('out of ports')"])
    os.waitid(os.P_PID, record.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(LabError, match="out of ports"):
        processes.check()
    processes.stop()


def test_a_second_of_the_same_name_is_refused(tmp_path: Path) -> None:
    processes = Processes(tmp_path)
    processes.start("one", SLEEP)
    with pytest.raises(LabError, match="must not run twice"):
        processes.start("one", SLEEP)
    processes.stop()


@pytest.mark.parametrize(
    ("argv", "frozen"),
    [
        pytest.param(STUBBORN, False, id="ignores-sigterm"),
        pytest.param(SLEEP, True, id="frozen"),
    ],
)
def test_gentle_ones_are_killed_in_the_end(
    tmp_path: Path, argv: list[str], *, frozen: bool
) -> None:
    processes = Processes(tmp_path)
    record = processes.start("slow", argv, gentle=True)
    wait_for_log(record.log)
    if frozen:
        processes.kill("slow", signal.SIGSTOP)
    processes.stop(gentle_s=0.2)
    assert start_ticks(record.pid) is None
