"""A change shows its plan and asks; nothing is written unseen."""

import json
import os
import pty
import select
import subprocess
import sys

import pytest
import yaml

from support.objects import pod
from unit.cli.desk import BLADES, POOLS, Desk

HOLD = ("quarantine", "gpu-0001", "--reason", "fan", "--by", "anna")
CHANGES = [
    pytest.param(HOLD, id="quarantine"),
    pytest.param(("blade", "hold", *HOLD[1:]), id="its other name"),
    pytest.param(("release", "gpu-0002", "--reason", "new fan"), id="release"),
    pytest.param(("breaker", "close", "paris-a"), id="breaker"),
]


@pytest.fixture
def hall(desk: Desk) -> Desk:
    desk.pool()
    desk.blade("gpu-0001")
    desk.blade("gpu-0002", "Quarantined", reason="HardwareFault")
    desk.blade("gpu-0003", "Healthy", reason="BreakerOpen", message="behind the breaker")
    return desk


@pytest.mark.parametrize("arguments", CHANGES)
def test_without_a_terminal_and_without_yes_nothing_is_written(
    hall: Desk, arguments: tuple[str, ...]
) -> None:
    done = hall.run(*arguments)
    assert done.exit_code == 2
    assert "Will write:" in done.stderr
    assert "give --yes to make it" in " ".join(done.stderr.split())
    assert not done.stdout
    assert not hall.writes()


@pytest.mark.parametrize("arguments", CHANGES)
def test_a_dry_run_shows_the_plan_and_writes_nothing(
    hall: Desk, arguments: tuple[str, ...]
) -> None:
    for more in (["--dry-run"], ["--dry-run", "--yes"]):
        done = hall.run(*arguments, *more)
        assert done.exit_code == 0
        assert "Will write:" in done.stderr
        assert "dry run: nothing is written" in done.stderr
    assert not hall.writes()


@pytest.mark.parametrize("arguments", CHANGES)
def test_with_yes_the_plan_is_shown_and_done(hall: Desk, arguments: tuple[str, ...]) -> None:
    done = hall.run(*arguments, "--yes")
    assert done.exit_code == 0, done.output
    assert "Will write:" in done.stderr
    assert "Will write:" not in done.stdout
    assert len(hall.writes()) == 1


@pytest.mark.parametrize("arguments", CHANGES)
def test_a_program_gets_plan_and_result_as_one_object(
    hall: Desk, arguments: tuple[str, ...]
) -> None:
    planned = hall.run(*arguments, "--dry-run", "-o", "yaml")
    assert "Will write:" in planned.stderr
    answer = yaml.safe_load(planned.stdout)
    assert answer["plan"]["blades"]
    assert answer["result"] == []
    done = hall.run(*arguments, "--yes", "-o", "json")
    assert "Will write:" in done.stderr
    whole = json.loads(done.stdout)
    assert whole["plan"] == answer["plan"]
    [one] = whole["result"]
    assert one["written"] is True
    collection = {"Blade": BLADES, "NodePool": POOLS}[one["kind"]]
    assert hall.writes() == [f"{collection}/{one['name']}"]


def test_a_program_is_told_what_is_left_as_it_is(hall: Desk) -> None:
    hall.blade("gpu-0004")
    release = ("release", "gpu-0004", "--reason", "x", "--yes", "-o", "json")
    left = {"kind": "Blade", "name": "gpu-0004", "written": False}
    left |= {"message": "Healthy already; left as it is"}
    assert json.loads(hall.says(*release)) == {"plan": None, "result": [left]}
    done = hall.run(*release, "gpu-0002")
    assert "Will leave: gpu-0004: Healthy already" in " ".join(done.stderr.split())
    whole = json.loads(done.stdout)
    assert whole["plan"]["left"] == ["gpu-0004"]
    assert [one["name"] for one in whole["plan"]["blades"]] == ["gpu-0002"]
    assert whole["result"][0] == left
    assert [(one["name"], one["written"]) for one in whole["result"][1:]] == [("gpu-0002", True)]
    hall.pool(breaker={"state": "Closed"})
    closed = json.loads(hall.says("breaker", "close", "paris-a", "-o", "json"))
    assert (closed["plan"], closed["result"][0]["written"]) == (None, False)


@pytest.mark.parametrize("more", [(), ("-o", "json")], ids=["person", "program"])
def test_a_refusal_leaves_standard_output_empty(hall: Desk, more: tuple[str, ...]) -> None:
    done = hall.run(*HOLD, *more)
    assert (done.exit_code, done.stdout) == (2, "")


def at_a_terminal(desk: Desk, answer: str, *arguments: str) -> tuple[int, str]:
    """Run a command whose standard input is a terminal, and answer its question."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", "from tramontane.cli.main import main; main()", *arguments],
        env={**os.environ, **desk.env},
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    os.close(theirs)
    assert process.stdout is not None
    said = b""
    try:
        while b"[y/N]" not in said:
            assert select.select([process.stdout], [], [], 60)[0], said
            chunk = os.read(process.stdout.fileno(), 65536)
            assert chunk, said
            said += chunk
        os.write(ours, f"{answer}\n".encode())
        rest, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    return process.returncode, (said + rest).decode()


@pytest.mark.parametrize(
    ("answer", "code", "says", "is_held"),
    [
        ("y", 0, "Blade gpu-0001: held by anna: fan", True),
        ("n", 1, "nothing is written", False),
        ("", 1, "nothing is written", False),
    ],
    ids=["yes", "no", "just return"],
)
def test_at_a_terminal_a_person_is_asked(
    hall: Desk, answer: str, code: int, says: str, is_held: bool
) -> None:
    status, said = at_a_terminal(hall, answer, *HOLD)
    assert (status, says in said) == (code, True), said
    assert said.index("Will write:") < said.index("Do it?")
    assert ("hold" in hall.get(BLADES, "gpu-0001")["spec"]) is is_held


def test_the_plan_of_a_hold_names_who_uses_the_blades(hall: Desk) -> None:
    placement = {"seats": ["gpu-0001", "gpu-0009"], "spares": ["gpu-0003"]}
    hall.put("gangs", "llama", status={"phase": "Placed", "placement": placement})
    foreign = pod("trainer-0", "gpu-0001")
    hall.server.put("/api/v1/namespaces/eu/pods", "trainer-0",
                    spec=foreign["spec"], status=foreign["status"])  # fmt: skip
    ours = pod("llama-0", "gpu-0001", "llama")
    labels = {"labels": ours["metadata"]["labels"]}
    hall.server.put(
        "/api/v1/namespaces/ml/pods", "llama-0",
        spec=ours["spec"], status=ours["status"], metadata=labels,
    )  # fmt: skip
    said = hall.run("quarantine", "gpu-0001", "blade/gpu-0003", "--reason", "x", "--dry-run").stderr
    rows = {line.split()[0]: line for line in said.splitlines() if line.startswith("gpu-")}
    assert "ml/llama, pod eu/trainer-0" in rows["gpu-0001"]
    assert "spare of ml/llama" in rows["gpu-0003"]
    assert "1 gang, which stays until it ends" in said


def test_the_plan_of_a_hold_says_that_replicas_of_models_move(hall: Desk) -> None:
    placement = {"seats": ["gpu-0001"]}
    hall.put("gangs", "llama", status={"phase": "Placed", "placement": placement})
    owner = {"kind": "InferenceDeployment", "name": "claims"}
    hall.put(
        "gangs", "claims-0",
        metadata={"ownerReferences": [owner]}, status={"phase": "Placed", "placement": placement},
    )  # fmt: skip
    said = hall.run("quarantine", "gpu-0001", "--reason", "x", "--dry-run").stderr
    assert "1 gang, which stays until it ends; 1 replica of models, made anew elsewhere" in said


def test_what_was_closed_meanwhile_is_left(hall: Desk) -> None:
    """Between the plan and the word somebody else closes the breaker."""
    asked = 0

    def close_after_the_plan(_request: object) -> None:
        nonlocal asked
        asked += 1
        if asked == 3:  # the pool, its blades, and the pool again
            hall.get(POOLS, "paris-a")["status"]["breaker"] = {"state": "Closed"}

    hall.server.answers.extend([close_after_the_plan] * 3)
    said = hall.says("breaker", "close", "paris-a", "--yes")
    assert "somebody has closed the breaker; left as it is" in said
    assert not hall.writes()
