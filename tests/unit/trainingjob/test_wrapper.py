"""The helper for training scripts, in processes of its own, over a scripted jax."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tramontane.controllers.trainingjob import tramontane_rank
from tramontane.controllers.trainingjob.render import WRAPPER_FILE, agent_source

PATIENCE_S = 30.0
# What a script prints is what jax was asked for; the sync point is step 7 on all ranks.
FAKE_JAX = {
    "jax/__init__.py": """
        class distributed:
            joined = False
            @classmethod
            def initialize(cls, **options):
                cls.joined = True
                print("initialize", sorted(options.items()), flush=True)
            @classmethod
            def is_initialized(cls): return cls.joined
            @classmethod
            def shutdown(cls): print("shutdown", flush=True)
        """,
    "jax/experimental/__init__.py": "",
    "jax/experimental/multihost_utils.py": """
        def reached_preemption_sync_point(step): return step == 7
        """,
}
START = """
    import atexit, os, signal, sys
    import tramontane_rank as rank
    atexit.register(lambda: print("clean-up", flush=True))
"""
JOINED = {
    "JAX_COORDINATOR_ADDRESS": "llama-0.llama:29500",
    "JAX_NUM_PROCESSES": "4",
    "JAX_PROCESS_ID": "3",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / WRAPPER_FILE).write_text(agent_source(WRAPPER_FILE))
    for name, text in FAKE_JAX.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(textwrap.dedent(text))
    return tmp_path


def ran(folder: Path, script: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(START) + textwrap.dedent(script)],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(folder), **env},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


@pytest.mark.parametrize(
    ("end", "code", "said"),
    [
        pytest.param("1 / 0", 13, "ZeroDivisionError", id="a failed step"),
        pytest.param("sys.exit(3)", 3, "", id="a code of its own"),
        pytest.param("sys.exit('no data')", 1, "no data", id="a last word"),
        pytest.param("raise KeyboardInterrupt", 130, "", id="interrupted"),
        pytest.param("sys.exit(0)", 0, "", id="done"),
        pytest.param("pass", 0, "", id="gone through"),
    ],
)
@pytest.mark.parametrize("way", ["with rank.step_guard(): {}", "rank.run(lambda: exec({!r}))"])
def test_what_fails_leaves_at_once_and_without_clean_up(
    folder: Path, way: str, end: str, code: int, said: str
) -> None:
    ended = ran(folder, way.format(end))

    assert ended.returncode == code, ended.stderr
    assert said in ended.stderr
    assert ("clean-up" in ended.stdout) is (code == 0)


def test_run_returns_what_training_returns() -> None:
    assert tramontane_rank.run(lambda: 5) == 5


def test_ranks_join_with_short_time_outs(folder: Path) -> None:
    ended = ran(folder, "rank.initialize(shutdown_timeout_seconds=3)", **JOINED)

    options = {
        "cluster_detection_method": "deactivate",
        "coordinator_address": "llama-0.llama:29500",
        "heartbeat_timeout_seconds": 10,
        "initialization_timeout": 300,
        "num_processes": 4,
        "process_id": 3,
        "shutdown_timeout_seconds": 3,
    }
    assert f"initialize {sorted(options.items())}" in ended.stdout


def test_time_outs_can_be_set_from_outside(folder: Path) -> None:
    ended = ran(
        folder, "rank.initialize()", **JOINED,
        TRAMONTANE_JAX_HEARTBEAT_S="4", TRAMONTANE_JAX_SHUTDOWN_S="5", TRAMONTANE_JAX_START_S="6",
    )  # fmt: skip

    assert "('heartbeat_timeout_seconds', 4)" in ended.stdout
    assert "('shutdown_timeout_seconds', 5)" in ended.stdout
    assert "('initialization_timeout', 6)" in ended.stdout


@pytest.mark.parametrize(
    "env", [{}, {**JOINED, "JAX_NUM_PROCESSES": "1"}], ids=["no address", "one process"]
)
def test_a_rank_alone_joins_nobody_and_still_hears_the_order(
    folder: Path, env: dict[str, str]
) -> None:
    script = """
        rank.initialize()
        print(rank.should_save(1))
        os.kill(os.getpid(), signal.SIGTERM)
        print(rank.should_save(2))
        rank.drain_exit()
        """
    ended = ran(folder, script, **env)

    assert (ended.returncode, ended.stdout.split()) == (0, ["False", "True"])


def test_all_ranks_save_at_the_step_that_jax_agreed_on_and_leave_together(folder: Path) -> None:
    script = """
        rank.initialize()
        print([step for step in range(10) if rank.should_save(step)])
        rank.drain_exit()
        """
    ended = ran(folder, script, **JOINED)

    assert ended.returncode == 0
    assert ended.stdout.splitlines()[1:] == ["[7]", "shutdown"]


def test_a_script_without_jax_asks_for_its_own_flag(folder: Path) -> None:
    script = """
        print(rank.terminating())
        os.kill(os.getpid(), signal.SIGTERM)
        print(rank.terminating(), rank.terminating(), "jax" in sys.modules)
        """
    ended = ran(folder, script)

    assert ended.stdout.split() == ["False", "True", "True", "False", "clean-up"]


def test_nothing_is_listened_to_before_somebody_asks(folder: Path) -> None:
    ended = ran(folder, "os.kill(os.getpid(), signal.SIGTERM)")

    assert ended.returncode == -signal.SIGTERM
