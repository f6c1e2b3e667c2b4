"""`tramontane top`: trouble first, as much as there is room for."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
from typing import Any

import click
import pytest

from support.scripted import status
from tramontane.api.nodepool import BladeCounts
from tramontane.cli import topview
from tramontane.cli.topview import Event, Job, Pool, Seen, Waiting
from unit.cli.desk import Desk, example

NOW = 1_795_532_700.0  # 2026-11-24T15:05:00Z
AT = "2026-11-24T15:02:07Z"


def shown(seen: Seen, height: int | None = None) -> list[str]:
    return [click.unstyle(line).rstrip() for line in topview.lines(seen, NOW, height)]


def job(name: str, phase: str) -> Job:
    return Job("tj", f"ml/{name}", phase, since=AT)


def waiting(name: str, position: int, *, waits: bool = True) -> Waiting:
    return Waiting(f"ml/{name}", "paris", position, "WaitingForCapacity", "m", AT, "", waits)


def test_all_of_it() -> None:
    counts = BladeCounts(total=3, healthy=2, in_use=1, lost=1)
    seen = Seen(
        pools=[Pool("paris", counts, "8 of 16 GPUs", "1 of 2", "Open")],
        jobs=[topview.job({"metadata": {"namespace": "ml", "name": "llama"},
                           "status": example("trainingjob")["status"]})],
        gangs=[waiting("big", 1), waiting("placed", 0, waits=False)],
        events=[Event(AT, "Blade gpu-1", "HardwareFault: xid-79", bad=True)],
    )  # fmt: skip
    lines = shown(seen)
    assert lines[2] == "paris  ■□L" + " " * 45 + "  8 of 16 GPUs  spares 1 of 2  breaker Open"
    rows = {line.split()[0]: line.split() for line in lines if "ml/" in line}
    assert rows["tj/ml/llama"] == [
        "tj/ml/llama", "Running", "2m", "128/128", "1024", "97.4%", "118,400", "5.1s", "1.8031",
        "BladeFault",
    ]  # fmt: skip
    assert rows["ml/big"][:4] == ["ml/big", "paris", "1", "2m"]
    assert "ml/placed" not in rows
    assert lines[-1] == "2m   Blade gpu-1  HardwareFault: xid-79"


def test_trouble_comes_before_what_runs_and_that_before_what_has_ended() -> None:
    phases = ["Succeeded", "Running", "Recovering", "Queued", "Failed", "Starting", "Serving"]
    lines = shown(Seen(jobs=[job(phase.lower(), phase) for phase in phases]))
    found = [line.split()[1] for line in lines if line.startswith("tj/")]
    assert found == [
        "Recovering", "Starting", "Running", "Serving", "Queued", "Failed", "Succeeded",
    ]  # fmt: skip


@pytest.mark.parametrize("height", [24, 40, 60])
def test_a_terminal_s_height_is_kept_and_every_part_is_seen(height: int) -> None:
    seen = Seen(
        jobs=[job(f"j{i:04}", "Running") for i in range(2000)],
        gangs=[waiting(f"g{i:04}", i + 1) for i in range(300)],
        events=[Event(AT, "Blade b", f"e{i}", bad=False) for i in range(50)],
    )
    lines = shown(seen, height)
    assert len(lines) <= height
    for heading in ("Jobs (2000)", "Queue (300)", "Last events"):
        assert heading in lines
    assert sum(line.startswith("tj/") for line in lines) >= 3
    assert sum(line.startswith("ml/g") for line in lines) >= 3
    assert "e0" in lines[-1] or "e5" in lines[-1]


def test_a_terminal_that_is_too_low_is_not_scrolled() -> None:
    assert len(shown(Seen(jobs=[job(f"j{i}", "Running") for i in range(9)]), 8)) == 8


def test_nothing_is_shown_as_nothing() -> None:
    lines = shown(Seen(lacking=["gangs"]))
    assert lines.count("none") == 3
    assert "not read yet: gangs" in lines


def test_what_has_no_status_yet_is_shown_too() -> None:
    raw = {"metadata": {"namespace": "ml", "name": "new"}}
    assert topview.job(raw).key == topview.deployment(raw).key == "ml/new"
    assert topview.gang(raw).waits
    assert topview.pool({"metadata": {"name": "p"}}).counts.total == 0
    assert topview.event({"metadata": {}}).about == "?"


@pytest.fixture
def hall(desk: Desk) -> Desk:
    desk.pool()
    raw = example("trainingjob")
    about = desk.put("trainingjobs", "llama", kind="TrainingJob", spec=raw["spec"],
                     status=raw["status"])  # fmt: skip
    desk.put("trainingjobs", "other", "eu", kind="TrainingJob", status={"phase": "Queued"})
    desk.event(about, "Running", "attempt 1", "2026-11-24T15:02:07.000000Z")
    desk.event(about, "Pulled", "image", AT, reportingController="kubelet")
    return desk


def test_who_may_read_nothing_is_told_so(desk: Desk) -> None:
    desk.server.answers.extend([lambda _: status(403, "Forbidden")] * 4)
    done = desk.run("top", "--once")
    assert done.exit_code == 1
    assert "403" in done.output


def test_who_may_not_read_all_sees_the_rest(hall: Desk) -> None:
    hall.server.answers.append(lambda _: status(403, "Forbidden"))
    assert "not read yet: nodepools" in hall.says("top", "--once")


def test_once_is_for_scripts(hall: Desk) -> None:
    said = hall.says("top", "--once")
    assert "tj/ml/llama" in said
    assert "tj/eu/other" in said
    assert "Running: attempt 1" in said
    assert "Pulled" not in said
    assert hall.says("top") == said or "Tramontane at" in hall.says("top")
    whole = json.loads(hall.says("top", "-n", "ml", "-o", "json"))
    assert [one["key"] for one in whole["jobs"]] == ["ml/llama"]
    assert whole["pools"][0]["breaker"] == "Open"


def test_one_namespace_or_all(hall: Desk) -> None:
    assert hall.run("top", "-n", "ml", "-A").exit_code == 2


# Whoever runs in the background ignores Ctrl-C, and so does all that it starts.
PROGRAM = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from tramontane.cli.main import main
main()
"""


@pytest.mark.parametrize("key", [b"q", b""], ids=["q", "Ctrl-C"])
def test_it_is_left_by_a_key_and_leaves_the_terminal_as_it_was(hall: Desk, key: bytes) -> None:
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    command = [sys.executable, "-c", PROGRAM, "top"]
    env = {**os.environ, **hall.env, "TERM": "xterm", "LINES": "30", "COLUMNS": "100"}
    process = subprocess.Popen(command, env=env, stdin=theirs, stdout=theirs, stderr=theirs)
    try:
        said = read_until(ours, b"tj/ml/llama", process)
        if key:
            os.write(ours, key)
        else:
            process.send_signal(signal.SIGINT)
        # What it draws while it leaves must be taken off its hands.
        while process.poll() is None:
            if select.select([ours], [], [], 0.1)[0]:
                said += os.read(ours, 65536)
        after = termios.tcgetattr(theirs)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
        os.close(theirs)
    assert process.returncode == 0, said
    assert after == before
    assert b"Traceback" not in said


def read_until(fd: int, part: bytes, process: "subprocess.Popen[Any]") -> bytes:
    said = b""
    while part not in said:
        assert process.poll() is None, said
        assert select.select([fd], [], [], 60)[0], said
        said += os.read(fd, 65536)
    return said
