"""The command: one JSON line, last; the exit code is the verdict; SIGTERM ends it at once."""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest
import yaml

from tramontane.health.burnin import arguments
from tramontane.health.burnin import command as burnin
from tramontane.health.burnin.command import devices, matrix_size
from tramontane.health.burnin.outcome import MAX_LINE_BYTES, Outcome, Speaker, Verdict, guarded
from tramontane.health.collective import command as collective

ROOT = Path(__file__).resolve().parents[3]
QUICK = ["--backend=numpy", "--duration=0s", "--size=64", "--memory=1", "--copy=1"]


def command(
    *options: str, before: Path = ROOT, out: int | IO[str] = subprocess.PIPE
) -> subprocess.Popen[str]:
    path = f"{before}{os.pathsep}{ROOT / 'health'}"
    return subprocess.Popen(
        [sys.executable, "-m", "tramontane.health.burnin", *options],
        stdout=out,
        stderr=subprocess.PIPE if out == subprocess.PIPE else out,
        env=os.environ | {"PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"},
        text=True,
    )


def told(process: subprocess.Popen[str]) -> tuple[dict[str, Any], int]:
    out, _ = process.communicate(timeout=60)
    return json.loads(out.splitlines()[-1]), process.returncode


@pytest.mark.parametrize(
    ("options", "verdict", "exit_code", "reason"),
    [
        pytest.param([], "PASS", 0, "1 devices, 2 products and 5 patterns", id="pass"),
        pytest.param(
            ["--min-tflops=1e6"], "FAIL", 1, "cpu: compute must be 1e+06 TFLOPS", id="slow"
        ),
        pytest.param(
            ["--min-memory-bandwidth=1e6"],
            "FAIL",
            1,
            "cpu: memory must be 1e+06 GB/s or more (got ",
            id="slow memory",
        ),
        pytest.param(
            ["--devices=0,3"], "ERROR", 2, "LookupError: device 3: must exist", id="no such device"
        ),
        pytest.param(
            ["--backend=cuda"], "ERROR", 2, "LookupError: CUDA devices must be", id="no GPU"
        ),
        pytest.param(
            ["--duration=soon"], "ERROR", 3, "argument --duration: must be a time", id="usage"
        ),
    ],
)
def test_the_exit_code_is_the_verdict(
    options: list[str], verdict: str, exit_code: int, reason: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    log.touch()
    said, code = told(command(*QUICK, f"--termination-log={log}", *options))
    assert (said["check"], said["verdict"], code) == ("burnin", verdict, exit_code)
    assert said["reason"].startswith(reason)
    # A command line that was not understood has not said where its log is.
    assert log.read_text() == ("" if exit_code == 3 else json.dumps(said) + "\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_ends_it_at_once_without_a_verdict(number: signal.Signals, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch()
    process = command(*QUICK, "--duration=9h", f"--termination-log={log}")
    assert process.stderr is not None
    while "products and patterns" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(number)
    said, code = told(process)
    assert (said["verdict"], said["reason"], code) == ("ERROR", "stopped", 2)
    assert json.loads(log.read_text()) == said


@pytest.mark.parametrize(
    ("options", "verdict", "exit_code"),
    [([], "PASS", 0), (["--min-tflops=1e6"], "FAIL", 1)],
    ids=["pass", "slow"],
)
def test_who_cannot_be_written_to_does_not_change_the_verdict(
    options: list[str], verdict: str, exit_code: int, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    log.touch()
    with Path("/dev/full").open("w") as full:
        process = command(*QUICK, f"--termination-log={log}", *options, out=full)
        assert process.wait(60) == exit_code
    assert json.loads(log.read_text())["verdict"] == verdict


def test_an_import_that_fails_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("raise ImportError('libopenblas.so: not found')\n")
    said, code = told(command(*QUICK, before=tmp_path))
    assert (said["verdict"], said["reason"], code) == (
        "ERROR", "ImportError: libopenblas.so: not found", 2,
    )  # fmt: skip


def test_help_is_no_error() -> None:
    out, _ = (process := command("--help")).communicate(timeout=60)
    assert process.returncode == 0
    assert "--min-memory-bandwidth" in out


@pytest.mark.parametrize(
    ("main", "exit_code"),
    [
        pytest.param("lambda: 1", 1, id="a verdict"),
        pytest.param("lambda: 1 / 0", 2, id="an exception"),
        pytest.param("lambda: sys.exit(1)", 2, id="an exit"),
    ],
)
def test_a_thread_that_hangs_does_not_keep_the_process(main: str, exit_code: int) -> None:
    code = (
        "import sys, threading; from tramontane.health.burnin.outcome import leave; "
        f"threading.Thread(target=threading.Event().wait).start(); leave({main})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(ROOT / "health")},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == exit_code


def test_a_long_outcome_fits_the_termination_message() -> None:
    outcome = Outcome("burnin", Verdict.FAIL, "é" * 5000, details={"wrong": ["x" * 9000]})
    line = outcome.line()
    assert len(line.encode()) < MAX_LINE_BYTES
    assert json.loads(line)["verdict"] == "FAIL"
    assert json.loads(line)["reason"].startswith("éé")


def test_an_outcome_is_one_line() -> None:
    assert "\n" not in Outcome("burnin", Verdict.ERROR, "one\ntwo").line()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        pytest.param(KeyError("x"), "KeyError: 'x'", id="a bug"),
        pytest.param(MemoryError(), "MemoryError:", id="no memory"),
        pytest.param(SystemExit(1), "SystemExit: 1", id="a library ends the process"),
        pytest.param(KeyboardInterrupt(), "KeyboardInterrupt:", id="a person"),
    ],
)
def test_what_breaks_is_an_error(
    error: BaseException,
    reason: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(Speaker, "stop_on_signals", lambda _: None)
    speaker = Speaker("burnin", tmp_path / "none")

    def breaks() -> Outcome:
        speaker.note("copies")
        raise error

    assert guarded(speaker, breaks) == 2
    said = json.loads(capsys.readouterr().out)
    assert (said["reason"], said["details"]) == (reason, {"during": "copies"})
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (arguments.seconds, "90", 90.0),
        (arguments.seconds, "1.5m", 90.0),
        (arguments.seconds, "2h", 7200.0),
        (arguments.positive, "48", 48.0),
        (arguments.count, "20", 20),
        (arguments.mebibytes, "2", 2 << 20),
        (matrix_size, "1024", 1024),
        (devices, "all", None),
        (devices, "0,2, 4-6,2", (0, 2, 4, 5, 6)),
    ],
)
def test_values_are_read(read: Callable[[str], Any], text: str, value: object) -> None:
    assert read(text) == value


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (arguments.seconds, "1d"),
        (arguments.seconds, "-1s"),
        (arguments.positive, "0"),
        (arguments.positive, "fast"),
        (arguments.positive, "inf"),
        (arguments.positive, "nan"),
        (arguments.count, "0"),
        (arguments.count, "1.5"),
        (arguments.mebibytes, "0"),
        (matrix_size, "0"),
        (matrix_size, "big"),
        (devices, "0,,1"),
        (devices, "a"),
    ],
)
def test_values_that_cannot_be_are_refused(read: Callable[[str], Any], text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        read(text)


def containers(text: str) -> Iterator[dict[str, Any]]:
    """Yield the containers of a document's YAML blocks, or of a YAML file."""
    found = re.findall(r"^```yaml\n(.*?)^```$", text, re.DOTALL | re.MULTILINE) or [text]
    left: list[Any] = [item for block in found for item in yaml.safe_load_all(block)]
    while left:
        match left.pop():
            case {"command": _, "image": _} as container:
                yield container
            case dict() as mapping:
                left += mapping.values()
            case list() as items:
                left += items


@pytest.mark.parametrize("path", ["qualification.md", "examples/nodepool-lab.yaml"])
@pytest.mark.parametrize(
    ("check", "parser"), [("burnin", burnin.parser), ("collective", collective.parser)]
)
def test_the_manual_asks_for_what_there_is(
    path: str, check: str, parser: Callable[[], arguments.Parser]
) -> None:
    asked = [
        one["command"][3:] + one.get("args", [])
        for one in containers((ROOT / "docs" / path).read_text())
        if one["command"][:3] == ["python", "-m", f"tramontane.health.{check}"]
    ]
    assert asked
    for options in asked:
        parser().parse_args(options)


@pytest.mark.parametrize(
    ("check", "parser"), [("burnin", burnin.parser), ("collective", collective.parser)]
)
def test_the_manual_lists_all_options(check: str, parser: Callable[[], arguments.Parser]) -> None:
    page = (ROOT / "docs" / "qualification.md").read_text()
    section = page.split(f"`python -m tramontane.health.{check}`\n")[1].split("\n## ")[0]
    listed = re.findall(r"^\| `(--[a-z-]+)` \|", section, re.MULTILINE)
    assert ["--help", *listed] == re.findall(
        r"^  (?:-h, )?(--[a-z-]+)", parser().format_help(), re.MULTILINE
    )
