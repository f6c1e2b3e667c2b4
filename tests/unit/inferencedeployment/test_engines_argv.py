"""What each engine is started with, seat by seat: whole command lines, and what they must not be.

The files in golden/argv are what a person has read and found right. UPDATE_GOLDEN=1 writes them.
"""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tramontane.api.errors import InvalidValue
from tramontane.controllers.inferencedeployment.engines import extraargs
from tramontane.controllers.inferencedeployment.engines.argv import argv, environment
from tramontane.controllers.inferencedeployment.engines.catalogue import EngineData, known_versions
from tramontane.controllers.inferencedeployment.engines.flagtable import Flag
from tramontane.controllers.inferencedeployment.engines.launch import Launch, ModelFormat
from tramontane.controllers.inferencedeployment.engines.managed import MANAGED
from tramontane.controllers.inferencedeployment.layout import CPU_ONLY, Layout
from unit.inferencedeployment.engines import a_launch, data

GOLDEN = Path(__file__).with_name("golden") / "argv"
GGUF = "/tramontane/volumes/0/ministral-3b-q4.gguf"

CASES: dict[str, tuple[tuple[str, str | None], Launch]] = {
    "vllm-tp": (("vllm", "0.32"), a_launch()),
    "vllm-tp-oldest": (("vllm", "0.31"), a_launch(layout=Layout(tensor=2))),
    "vllm-tp-newest": (("vllm", "0.33"), a_launch(layout=Layout(tensor=2))),
    "vllm-tp-two-blades": (("vllm", "0.32"), a_launch(layout=Layout(tensor=16, nodes=2))),
    "vllm-tp-pp": (("vllm", "0.32"), a_launch(layout=Layout(tensor=8, pipeline=2, nodes=2))),
    "vllm-dp-ep-one-blade": (("vllm", "0.32"), a_launch(layout=Layout(data=8, expert=True))),
    "vllm-dp-ep": (("vllm", "0.32"), a_launch(layout=Layout(data=16, expert=True, nodes=2))),
    "vllm-tp-dp-ep": (
        ("vllm", "0.32"),
        a_launch(layout=Layout(tensor=4, data=4, expert=True, nodes=2), concurrent_requests=30),
    ),
    "vllm-dp-one-engine-per-blade": (
        ("vllm", "0.32"),
        a_launch(layout=Layout(tensor=8, data=2, expert=True, nodes=2)),
    ),
    "vllm-dp-engines-over-blades": (
        ("vllm", "0.32"),
        a_launch(layout=Layout(tensor=16, data=2, expert=True, nodes=4)),
    ),
    "vllm-mistral-format": (("vllm", "0.32"), a_launch(files=ModelFormat.MISTRAL)),
    "vllm-hf-format": (("vllm", "0.32"), a_launch(files=ModelFormat.HF)),
    "vllm-adapters": (
        ("vllm", "0.32"),
        a_launch(layout=Layout(tensor=2), adapters=6, max_lora_rank=24),
    ),
    "vllm-adapters-dp-ep": (
        ("vllm", "0.32"),
        a_launch(layout=Layout(data=16, expert=True, nodes=2), adapters=1),
    ),
    "vllm-extra-args": (
        ("vllm", "0.32"),
        a_launch(
            layout=Layout(tensor=1),
            extra_args=("--kv-cache-dtype", "fp8", "--reasoning-parser=mistral", "--enable-eplb"),
            drain_s=90.5,
            ready_s=1234,
        ),
    ),
    "sglang-tp": (("sglang", "0.5.23"), a_launch()),
    "sglang-tp-pp": (("sglang", "0.5.23"), a_launch(layout=Layout(8, pipeline=2, nodes=2))),
    "sglang-tp-two-blades": (("sglang", "0.5.22"), a_launch(layout=Layout(tensor=16, nodes=2))),
    "sglang-dp-ep": (
        ("sglang", "0.5.23"),
        a_launch(layout=Layout(data=16, expert=True, nodes=2), concurrent_requests=30),
    ),
    "sglang-copies": (("sglang", "0.5.23"), a_launch(layout=Layout(tensor=2, data=4))),
    "sglang-mistral-format": (("sglang", "0.5.23"), a_launch(files=ModelFormat.MISTRAL)),
    "llamacpp-cpu": (
        ("llamacpp", "0.5"),
        a_launch(path=GGUF, layout=CPU_ONLY, context_tokens=8192, concurrent_requests=4),
    ),
    "llamacpp-gpu-directory": (
        ("llamacpp", "0.5"),
        a_launch(layout=Layout(tensor=2), context_tokens=8192, concurrent_requests=4),
    ),
    "llamacpp-python": (
        ("llamacpp", "python-0.3.36"),
        a_launch(path=GGUF, layout=CPU_ONLY, context_tokens=8192, concurrent_requests=1),
    ),
    "custom": (
        ("custom", None),
        a_launch(command=("/serve", "--weights", "here and there"), extra_args=("-v",)),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_command_lines_and_environments_are_those_that_were_read_and_found_right(name: str) -> None:
    (engine, version), launch = CASES[name]
    text = shown(data(engine, version), launch)
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


def test_every_golden_file_has_its_case() -> None:
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(CASES)


def shown(engine: EngineData, launch: Launch) -> str:
    """Return arguments and environment of all seats."""
    parts = []
    for seat in range(launch.seats):
        lines = [*argv(engine, launch, seat), ""]
        lines += [f"{name}={value}" for name, value in environment(engine, launch, seat).items()]
        parts.append(f"# {engine}, {launch.layout}, seat {seat}\n" + "\n".join(lines) + "\n")
    return "\n".join(parts)


@pytest.mark.parametrize("name", [name for name in CASES if name != "custom"])
def test_every_version_knows_each_flag_it_is_given_and_takes_its_value(name: str) -> None:
    (engine, _), launch = CASES[name]
    kind = data(*CASES[name][0]).kind
    for version in known_versions(kind):
        asked = f"python-{version}" if kind == "llamacpp-python" else version
        known = data(engine, asked)
        for seat in range(launch.seats):
            rest = argv(known, launch, seat)[3:]
            for flag, values in flags_of(rest):
                assert known.knows(flag), flag
                most = known.flags[flag].takes.most
                assert known.flags[flag].takes.least <= len(values), flag
                assert most is None or len(values) <= most, flag


def flags_of(words: tuple[str, ...]) -> list[tuple[str, list[str]]]:
    found: list[tuple[str, list[str]]] = []
    for word in words:
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            found.append((name, [value] if equals else []))
        elif found:
            found[-1][1].append(word)
    return found


@pytest.mark.parametrize("name", [name for name in CASES if name != "custom"])
def test_what_is_set_for_people_is_refused_to_them(name: str) -> None:
    # Those that people may set better are not among the managed ones: they come last, and win.
    free = {
        "--max-loras", "--max-lora-rank", "--tokenizer-mode", "--config-format", "--load-format",
        "--enable-auto-tool-choice", "--tool-call-parser", "--model-config-parser",
        "--n-gpu-layers", "--offline", "--n_gpu_layers", "--interrupt_requests",
    }  # fmt: skip
    (engine, version), launch = CASES[name]
    known = data(engine, version)
    for seat in range(launch.seats):
        words = argv(known, launch, seat)
        ours = words[3 : len(words) - len(launch.extra_args)]
        for flag, _ in flags_of(ours):
            if not free & set(known.flags[flag].spellings):
                assert "Tramontane sets" in (extraargs.check(known, [flag, "1"]) or ""), flag


@pytest.mark.parametrize(
    ("engine", "fields", "words"),
    [
        pytest.param("vllm", {"adapters": 2}, "VLLM_ALLOW_RUNTIME_LORA_UPDATING", id="adapters"),
        pytest.param("sglang", {"ready_s": 77}, "SGLANG_WARMUP_TIMEOUT", id="ready"),
        pytest.param("vllm", {}, "HF_HUB_OFFLINE", id="offline"),
    ],
)
def test_variables_that_an_engine_needs(engine: str, fields: dict[str, Any], words: str) -> None:
    version = "0.32" if engine == "vllm" else "0.5.23"
    assert words in environment(data(engine, version), a_launch(**fields), 0)


def test_only_the_seat_that_serves_loads_adapters() -> None:
    launch = a_launch(layout=Layout(tensor=16, nodes=2), adapters=1)
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" not in environment(data(), launch, 1)


LINES = ["a\nb", "a\r", "a\u2028b", "a\x0bb", "a\0b"]


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("field", ["path", "served_name", "extra_args"])
def test_a_value_that_would_become_two_arguments_is_refused(field: str, line: str) -> None:
    value: Any = ("--chat-template", line) if field == "extra_args" else line
    with pytest.raises(InvalidValue, match="must be one line"):
        argv(data(), a_launch(**{field: value}), 0)


def test_a_template_may_have_a_script_as_its_command() -> None:
    command = ("/bin/sh", "-c", "cd /srv\nexec ./serve")
    assert argv(data("custom", None), a_launch(command=command), 0) == command


def test_what_an_engine_cannot_do_has_no_command_line() -> None:
    with pytest.raises(InvalidValue, match="use engine vllm"):
        argv(data("sglang", "0.5.23"), a_launch(adapters=1), 0)


@pytest.mark.parametrize("seat", [-1, 2])
def test_there_is_no_seat_outside_of_the_replica(seat: int) -> None:
    with pytest.raises(InvalidValue, match="seat must be from 0 to 1"):
        argv(data(), a_launch(layout=Layout(tensor=16, nodes=2)), seat)


@given(name=st.text(st.characters(exclude_categories=("C", "Z")), min_size=1).map("x".__add__))
def test_whatever_is_in_a_name_it_stays_one_argument(name: str) -> None:
    words = argv(data(), a_launch(served_name=name), 0)
    assert words[words.index("--served-model-name") + 1] == name
    assert words[words.index("--served-model-name") + 2] == "--host"


def test_quotes_and_shell_signs_arrive_as_they_are() -> None:
    name = """a "b" $(c) `d` <e> & f's; {{ g }} | {% h %}"""
    words = argv(data(), a_launch(served_name=name), 0)
    assert name in words


@pytest.mark.parametrize("kind", MANAGED)
def test_every_managed_flag_is_a_name_that_some_version_knows(kind: str) -> None:
    tables = [data_of(kind, version).flags for version in known_versions(kind)]
    names = {flag.name for table in tables for flag in table.values()}
    assert set(MANAGED[kind]) <= names


def data_of(kind: str, version: str) -> EngineData:
    if kind == "llamacpp-python":
        return data("llamacpp", f"python-{version}")
    return data(kind, version)


def test_flags_differ_from_version_to_version() -> None:
    older, newer = data("vllm", "0.32").flags, data("vllm", "0.33").flags
    assert "--monokernel" not in older
    assert newer["--monokernel"] == Flag(("--monokernel", "--no-monokernel"))
